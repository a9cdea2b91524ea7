"""Indexes for a user's simulations by state, and for simulations with a folder on a cluster.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.

Only indexes change. While they are created, PostgreSQL blocks writers of the table, and SQLite all writers: some
seconds for a million simulations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

LEFT = sa.text("job_dir IS NOT NULL AND options IS NOT NULL")
BY_STATE = {
    "ix_Simulation_user_id_job_state_start_time_id": ["user_id", "job_state", "start_time", "id"],
    "ix_Simulation_user_id_job_state_end_time_id": ["user_id", "job_state", "end_time", "id"],
}


def upgrade() -> None:
    """Upgrade from 0004 to 0005."""
    for name, columns in BY_STATE.items():
        op.create_index(op.f(name), "Simulation", columns)
    op.create_index("ix_BatchSimulation_left", "BatchSimulation", ["id"], sqlite_where=LEFT, postgresql_where=LEFT)


def downgrade() -> None:
    """Downgrade."""
    op.drop_index("ix_BatchSimulation_left", "BatchSimulation")
    for name in BY_STATE:
        op.drop_index(op.f(name), "Simulation")
