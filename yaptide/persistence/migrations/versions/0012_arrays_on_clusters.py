"""Several array jobs for one simulation on a cluster.

A migration runs while no server is connected (`Database.migrating`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Upgrade from 0011 to 0012."""
    op.create_table(
        "BatchArray",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        sa.Column("first_task", sa.Integer(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("array_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("first_task > 0", name=op.f("ck_BatchArray_first_task_positive")),
        sa.CheckConstraint("tasks > 0", name=op.f("ck_BatchArray_tasks_positive")),
        sa.ForeignKeyConstraint(
            ["simulation_id"],
            ["BatchSimulation.id"],
            name=op.f("fk_BatchArray_simulation_id_BatchSimulation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_BatchArray")),
        sa.UniqueConstraint("simulation_id", "first_task", name=op.f("uq_BatchArray_simulation_id_first_task")),
    )


def downgrade() -> None:
    """Downgrade."""
    op.drop_table("BatchArray")
