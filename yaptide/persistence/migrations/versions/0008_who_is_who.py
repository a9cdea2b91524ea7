"""Identities: Keycloak users by issuer and subject, local users by the skeleton of their name.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

from yaptide.domain.names import make_skeleton

revision = "0008"
down_revision = "0007"

_ADDED = (("KeycloakUser", ("issuer", "subject")), ("YaptideUser", ("name_skeleton",)))


def upgrade() -> None:
    """Upgrade from 0007 to 0008."""
    op.add_column("KeycloakUser", sa.Column("issuer", sa.Text(), nullable=True))
    op.add_column("KeycloakUser", sa.Column("subject", sa.Text(), nullable=True))
    op.add_column("YaptideUser", sa.Column("name_skeleton", sa.String(length=64), nullable=True))
    _fill_skeletons()
    for table, columns in _ADDED:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns, unique=True)


def _fill_skeletons() -> None:
    """Set the skeleton of each name; of names that look alike only the oldest gets one, because the index is unique."""
    query = 'SELECT u.id, u.username FROM "User" u JOIN "YaptideUser" l ON l.id = u.id ORDER BY u.id'
    oldest: dict[str, int] = {}
    for number, username in op.get_bind().execute(sa.text(query)):
        oldest.setdefault(make_skeleton(username), number)
    rows = [{"number": number, "skeleton": name} for name, number in oldest.items()]
    if rows:
        op.get_bind().execute(sa.text('UPDATE "YaptideUser" SET name_skeleton = :skeleton WHERE id = :number'), rows)


def downgrade() -> None:
    """Downgrade."""
    for table, columns in _ADDED:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table)
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column)
