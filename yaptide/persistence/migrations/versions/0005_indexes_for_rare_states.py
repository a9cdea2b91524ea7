"""Indexes: of a user's simulations by state, and of those on clusters that have left a folder there.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.

Nothing but indexes changes. While they are made, PostgreSQL has those wait who write to the table, and SQLite all who
write: some seconds for a million simulations.
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
    """Go from 0004 to 0005."""
    for name, columns in BY_STATE.items():
        op.create_index(op.f(name), "Simulation", columns)
    op.create_index("ix_BatchSimulation_left", "BatchSimulation", ["id"], sqlite_where=LEFT, postgresql_where=LEFT)


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_BatchSimulation_left", "BatchSimulation")
    for name in BY_STATE:
        op.drop_index(op.f(name), "Simulation")
