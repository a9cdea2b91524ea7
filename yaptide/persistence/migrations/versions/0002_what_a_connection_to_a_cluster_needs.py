"""Values for connecting to a cluster.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _at_least(smallest: int, column: str, name: str) -> sa.CheckConstraint:
    """Return a check that is added with its column: SQLite can add no other without rebuilding the table."""
    return sa.CheckConstraint(f"{column} >= {smallest}", name=op.f(f"ck_Cluster_{name}"))


CHECKS = ("max_tasks_positive", "max_running_positive", "keep_failed_days_not_negative")
ADDED = ("prologue", "simulators", "sbatch_options", "max_tasks", "max_running", "keep_failed_days")
OF_SIMULATIONS = ("options", "queue_note")


def upgrade() -> None:
    """Upgrade from 0001 to 0002."""
    tasks = _at_least(1, "max_tasks", "max_tasks_positive")
    running = _at_least(1, "max_running", "max_running_positive")
    days = _at_least(0, "keep_failed_days", "keep_failed_days_not_negative")
    for column in (
        sa.Column("prologue", sa.Text(), nullable=True),
        sa.Column("simulators", sa.Text(), server_default="{}", nullable=False),
        sa.Column("sbatch_options", sa.Text(), server_default="{}", nullable=False),
        sa.Column("max_tasks", sa.Integer(), tasks, nullable=True),
        sa.Column("max_running", sa.Integer(), running, nullable=True),
        sa.Column("keep_failed_days", sa.Integer(), days, server_default="7", nullable=False),
    ):
        op.add_column("Cluster", column)
    for name in OF_SIMULATIONS:
        op.add_column("BatchSimulation", sa.Column(name, sa.Text(), nullable=True))


def downgrade() -> None:
    """Downgrade."""
    with op.batch_alter_table("BatchSimulation") as table:
        for name in OF_SIMULATIONS:
            table.drop_column(name)
    with op.batch_alter_table("Cluster") as table:
        for name in CHECKS:
            table.drop_constraint(op.f(f"ck_Cluster_{name}"), type_="check")
        for name in ADDED:
            table.drop_column(name)
