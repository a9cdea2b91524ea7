"""Counts of simulations by user and state; on SQLite, payloads of pages at the end of their rows.

A migration runs while the database is in use: it must be quick, and the previous code should keep working after it.

PostgreSQL blocks writers while the simulations are counted: one second for a million of them. Changes by servers of the
previous version after that are not counted: stop these servers first, or repair the counts with `yaptide db check
--repair` when they have stopped.

SQLite can only change the order of columns by rebuilding the table. With many results this takes a few times as long as
copying their part of the file, and blocks writers; the log beside the file grows by the same amount until the database
is closed. It needs memory for two copies of the largest page. PostgreSQL stores payloads outside the rows, so the order
does not matter there.
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
    """Upgrade from 0002 to 0003."""
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
    # Many builds of SQLite overwrite what is deleted, and keep all of it in memory until then. Here nothing is deleted.
    secure = connection.exec_driver_sql("PRAGMA secure_delete").scalar()
    connection.exec_driver_sql("PRAGMA secure_delete = OFF")
    try:
        _move_pages(connection)
        op.drop_table("Page")
    finally:
        connection.exec_driver_sql(f"PRAGMA secure_delete = {secure}")
    op.rename_table("PageInOrder", "Page")


def _move_pages(connection: sa.Connection) -> None:
    """Move a few rows at a time, so that the space they free in the file is used for the next ones."""
    columns = ", ".join(PAGE)
    some = "WHERE id >= ? AND id < ?"
    copy = f'INSERT INTO "PageInOrder" ({columns}) SELECT {columns} FROM "Page" {some}'  # noqa: S608
    first, last = connection.exec_driver_sql('SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM "Page"').one()
    for start in range(first, last + 1, FEW):
        connection.exec_driver_sql(copy, (start, start + FEW))
        connection.exec_driver_sql(f'DELETE FROM "Page" {some}', (start, start + FEW))  # noqa: S608


def downgrade() -> None:
    """Downgrade; the previous code does not depend on the order of the columns of a page."""
    op.drop_table("SimulationCount")
