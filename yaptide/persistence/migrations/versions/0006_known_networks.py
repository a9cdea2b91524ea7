"""Networks of earlier sign-ins.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Upgrade from 0005 to 0006."""
    op.add_column("YaptideUser", sa.Column("known_networks", sa.Text(), nullable=True))


def downgrade() -> None:
    """Downgrade."""
    with op.batch_alter_table("YaptideUser") as table:
        table.drop_column("known_networks")
