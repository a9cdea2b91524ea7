"""Runners and their simulators.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Upgrade from 0006 to 0007."""
    platforms = sa.Enum("DIRECT", "BATCH", name="platform", native_enum=False, create_constraint=True, length=32)
    op.create_table(
        "Runner",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("platform", platforms, nullable=False),
        sa.Column("heartbeat_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Runner")),
        sa.UniqueConstraint("name", name=op.f("uq_Runner_name")),
    )
    op.create_table(
        "RunnerSimulator",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("runner_id", sa.Integer(), nullable=False),
        sa.Column("sim_type", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["runner_id"], ["Runner.id"], name=op.f("fk_RunnerSimulator_runner_id_Runner"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_RunnerSimulator")),
        sa.UniqueConstraint("runner_id", "sim_type", name=op.f("uq_RunnerSimulator_runner_id_sim_type")),
    )
    op.create_index(op.f("ix_RunnerSimulator_sim_type"), "RunnerSimulator", ["sim_type"])


def downgrade() -> None:
    """Downgrade."""
    op.drop_table("RunnerSimulator")
    op.drop_table("Runner")
