"""Networks that users have signed in from.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Go from 0005 to 0006."""
    op.add_column("YaptideUser", sa.Column("known_networks", sa.Text(), nullable=True))


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("YaptideUser") as table:
        table.drop_column("known_networks")
