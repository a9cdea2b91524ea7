"""An index counts the simulations of a user; the table of their numbers is dropped.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.
PostgreSQL has requests wait while it makes the index: a second for a million simulations.

A view takes the place of the table for processes of the version before, until they are restarted: they read the right
numbers there, and what they write has no effect. A later revision may drop the view.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

STATES = ("UNKNOWN", "PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED", "FAILED", "CANCELED")

# The types are those of the table: prepared statements of PostgreSQL must not see others.
_VIEW = """CREATE VIEW "SimulationCount" AS
    SELECT CAST(min(id) AS INTEGER) AS id, user_id, job_state, CAST(count(*) AS INTEGER) AS number
    FROM "Simulation" GROUP BY user_id, job_state"""
_TRIGGER = 'CREATE TRIGGER ignore_count INSTEAD OF INSERT ON "SimulationCount"'
# A rule would be shorter, but PostgreSQL refuses INSERT ... RETURNING with it.
_IGNORE_INSERTS = {
    "postgresql": (
        "CREATE FUNCTION ignore_count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        f"{_TRIGGER} FOR EACH ROW EXECUTE FUNCTION ignore_count()",
    ),
    "sqlite": (f"{_TRIGGER} BEGIN SELECT 1; END",),
}


def upgrade() -> None:
    """Go from 0008 to 0009."""
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":  # dropping the table needs this lock; whoever submits locks the user first, too
        op.execute('LOCK TABLE "User" IN ACCESS EXCLUSIVE MODE')
    op.create_index(op.f("ix_Simulation_user_id_job_state"), "Simulation", ["user_id", "job_state"])
    op.drop_table("SimulationCount")
    op.execute(_VIEW)
    for statement in _IGNORE_INSERTS[dialect]:
        op.execute(statement)


def downgrade() -> None:
    """Go back, and count the simulations; PostgreSQL has their writers wait meanwhile."""
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
