"""API tokens; when, from where and with what a session began.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it. It
does not know the new columns, which are null in its sessions.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

SCOPES = ("read", "submit", "all", "admin")


def upgrade() -> None:
    """Upgrade from 0009 to 0010."""
    op.create_table(
        "Token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column(
            "scope",
            sa.Enum(*SCOPES, name="token_scope", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["User.id"], name=op.f("fk_Token_user_id_User"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Token")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_Token_user_id_name")),
    )
    op.create_index(op.f("ix_Token_token_sha256"), "Token", ["token_sha256"], unique=True)
    op.add_column("Session", sa.Column("started", sa.DateTime(timezone=True), nullable=True))
    op.add_column("Session", sa.Column("address", sa.String(length=64), nullable=True))
    op.add_column("Session", sa.Column("device", sa.String(length=200), nullable=True))


def downgrade() -> None:
    """Downgrade, which deletes all tokens."""
    with op.batch_alter_table("Session") as batch:
        for column in ("device", "address", "started"):
            batch.drop_column(column)
    op.drop_table("Token")
