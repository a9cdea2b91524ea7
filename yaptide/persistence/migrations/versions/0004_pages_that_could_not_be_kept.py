"""Pages of results that could not be kept, beside the simulation.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go from 0003 to 0004."""
    op.add_column("Simulation", sa.Column("refused_pages", sa.Text(), nullable=True))


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("Simulation") as table:
        table.drop_column("refused_pages")
