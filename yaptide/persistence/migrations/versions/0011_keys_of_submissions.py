"""Idempotency keys of submissions.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Upgrade from 0010 to 0011."""
    op.create_table(
        "SubmissionKey",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("sim_type", sa.String(), nullable=False),
        sa.Column("left_out", sa.Text(), nullable=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["User.id"], name=op.f("fk_SubmissionKey_user_id_User"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_SubmissionKey")),
        sa.UniqueConstraint("user_id", "key", name=op.f("uq_SubmissionKey_user_id_key")),
    )
    op.create_index(op.f("ix_SubmissionKey_time"), "SubmissionKey", ["time"])


def downgrade() -> None:
    """Downgrade."""
    op.drop_table("SubmissionKey")
