"""Count the simulations of a user by an index, and drop the table of their counts.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.
PostgreSQL blocks requests while it creates the index: one second for a million simulations.

A view replaces the table for processes of the previous version until they are restarted: they read correct counts from
it, and what they write has no effect. A later revision may drop the view.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

STATES = ("UNKNOWN", "PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED", "FAILED", "CANCELED")

# The types are those of the table: prepared statements of PostgreSQL depend on them.
_VIEW = """CREATE VIEW "SimulationCount" AS
    SELECT CAST(min(id) AS INTEGER) AS id, user_id, job_state, CAST(count(*) AS INTEGER) AS number
    FROM "Simulation" GROUP BY user_id, job_state"""
_TRIGGER = 'CREATE TRIGGER ignore_count INSTEAD OF INSERT ON "SimulationCount"'
# A rule would be shorter, but PostgreSQL rejects INSERT ... RETURNING with it.
_IGNORE_INSERTS = {
    "postgresql": (
        "CREATE FUNCTION ignore_count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        f"{_TRIGGER} FOR EACH ROW EXECUTE FUNCTION ignore_count()",
    ),
    "sqlite": (f"{_TRIGGER} BEGIN SELECT 1; END",),
}


def upgrade() -> None:
    """Upgrade from 0008 to 0009."""
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":  # dropping the table needs this lock; submissions also lock the user first
        op.execute('LOCK TABLE "User" IN ACCESS EXCLUSIVE MODE')
    op.create_index(op.f("ix_Simulation_user_id_job_state"), "Simulation", ["user_id", "job_state"])
    op.drop_table("SimulationCount")
    op.execute(_VIEW)
    for statement in _IGNORE_INSERTS[dialect]:
        op.execute(statement)


def downgrade() -> None:
    """Downgrade and count the simulations; PostgreSQL blocks writers meanwhile."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:
        op.execute('LOCK TABLE "User", "Simulation" IN SHARE ROW EXCLUSIVE MODE')
    op.execute('DROP VIEW "SimulationCount"')
    if is_postgresql:
        op.execute("DROP FUNCTION ignore_count()")
    op.drop_index(op.f("ix_Simulation_user_id_job_state"), "Simulation")
    states = sa.Enum(*STATES, name="job_state", native_enum=False, create_constraint=True, length=32)
    op.create_table(
        "SimulationCount",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("job_state", states, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.CheckConstraint("number <> 0", name=op.f("ck_SimulationCount_number_not_zero")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["User.id"], name=op.f("fk_SimulationCount_user_id_User"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_SimulationCount")),
    )
    op.create_index(op.f("ix_SimulationCount_user_id_job_state"), "SimulationCount", ["user_id", "job_state"])
    op.execute(
        """INSERT INTO "SimulationCount" (user_id, job_state, number)
           SELECT user_id, job_state, count(*) FROM "Simulation"
           GROUP BY user_id, job_state ORDER BY user_id, job_state"""
    )
