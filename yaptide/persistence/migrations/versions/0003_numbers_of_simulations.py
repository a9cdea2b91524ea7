"""Numbers of simulations by user and state; and, on SQLite, payloads of pages at the end of their rows.

A migration runs while others use the database: it must be quick, and the code before it should keep working after it.

While the simulations are counted, PostgreSQL has their writers wait: a second for a million of them. What servers of
the version before still write after that is not counted: stop them first, or mend the numbers with
`yaptide db check --repair` when they are gone.

SQLite can change the order of columns only by writing the table anew. With many results that takes a few times as long
as copying their part of the file, during which nobody else writes; and the log beside the file grows by as much, until
the database is closed. Memory is needed for two copies of the largest page. PostgreSQL keeps payloads apart from the
rows, so that there the order does not matter.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

STATES = ("UNKNOWN", "PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", "COMPLETED", "FAILED", "CANCELED")
FEW = 20
PAGE = (
    *("id", "estimator_id", "page_number", "page_name", "page_dimension"),
    *("content_size", "content_sha256", "compressed_data"),
)


def upgrade() -> None:
    """Go from 0002 to 0003."""
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
    if op.get_bind().dialect.name == "postgresql":
        op.execute('LOCK TABLE "Simulation" IN SHARE ROW EXCLUSIVE MODE')
    op.execute(
        """INSERT INTO "SimulationCount" (user_id, job_state, number)
           SELECT user_id, job_state, count(*) FROM "Simulation"
           GROUP BY user_id, job_state ORDER BY user_id, job_state"""
    )
    if op.get_bind().dialect.name == "sqlite":
        _reorder_pages()


def _reorder_pages() -> None:
    op.create_table(
        "PageInOrder",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("estimator_id", sa.Integer(), nullable=False),
        sa.Column("page_number", sa.Integer(), nullable=False),
        sa.Column("page_name", sa.String(), nullable=False),
        sa.Column("page_dimension", sa.Integer(), nullable=False),
        sa.Column("content_size", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("compressed_data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("page_dimension >= 0", name=op.f("ck_Page_page_dimension_not_negative")),
        sa.CheckConstraint("page_number >= 0", name=op.f("ck_Page_page_number_not_negative")),
        sa.ForeignKeyConstraint(
            ["estimator_id"], ["Estimator.id"], name=op.f("fk_Page_estimator_id_Estimator"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_Page")),
        sa.UniqueConstraint("estimator_id", "page_number", name=op.f("uq_Page_estimator_id_page_number")),
    )
    connection = op.get_bind()
    # Many builds of SQLite overwrite what is removed, and keep all of it in memory until then. Here nothing is removed.
    secure = connection.exec_driver_sql("PRAGMA secure_delete").scalar()
    connection.exec_driver_sql("PRAGMA secure_delete = OFF")
    try:
        _move_pages(connection)
        op.drop_table("Page")
    finally:
        connection.exec_driver_sql(f"PRAGMA secure_delete = {secure}")
    op.rename_table("PageInOrder", "Page")


def _move_pages(connection: sa.Connection) -> None:
    """Move a few at a time: the room that they leave in the file is used for the next."""
    columns = ", ".join(PAGE)
    some = "WHERE id >= ? AND id < ?"
    copy = f'INSERT INTO "PageInOrder" ({columns}) SELECT {columns} FROM "Page" {some}'  # noqa: S608
    first, last = connection.exec_driver_sql('SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM "Page"').one()
    for start in range(first, last + 1, FEW):
        connection.exec_driver_sql(copy, (start, start + FEW))
        connection.exec_driver_sql(f'DELETE FROM "Page" {some}', (start, start + FEW))  # noqa: S608


def downgrade() -> None:
    """Go back; to the code before, the order of the columns of a page makes no difference."""
    op.drop_table("SimulationCount")
