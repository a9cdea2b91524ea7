"""Rejected pages of results, stored with the simulation.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Upgrade from 0003 to 0004."""
    op.add_column("Simulation", sa.Column("refused_pages", sa.Text(), nullable=True))


def downgrade() -> None:
    """Downgrade."""
    with op.batch_alter_table("Simulation") as table:
        table.drop_column("refused_pages")
