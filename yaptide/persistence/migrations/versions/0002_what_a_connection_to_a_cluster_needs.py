"""What a connection to a cluster needs.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CHECKS = {
    "max_tasks_positive": "max_tasks >= 1",
    "max_running_positive": "max_running >= 1",
    "keep_failed_days_not_negative": "keep_failed_days >= 0",
}


def upgrade() -> None:
    """Go from 0001 to 0002."""
    with op.batch_alter_table("Cluster") as table:
        table.add_column(sa.Column("prologue", sa.Text(), nullable=True))
        table.add_column(sa.Column("simulators", sa.Text(), server_default="{}", nullable=False))
        table.add_column(sa.Column("sbatch_options", sa.Text(), server_default="{}", nullable=False))
        table.add_column(sa.Column("max_tasks", sa.Integer(), nullable=True))
        table.add_column(sa.Column("max_running", sa.Integer(), nullable=True))
        table.add_column(sa.Column("keep_failed_days", sa.Integer(), server_default="7", nullable=False))
        for name, condition in CHECKS.items():
            table.create_check_constraint(op.f(f"ck_Cluster_{name}"), condition)


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("Cluster") as table:
        for name in CHECKS:
            table.drop_constraint(op.f(f"ck_Cluster_{name}"), type_="check")
        for name in ("prologue", "simulators", "sbatch_options", "max_tasks", "max_running", "keep_failed_days"):
            table.drop_column(name)
