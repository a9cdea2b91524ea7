"""Alembic environment: applies the revisions on the connection that `yaptide.persistence.schema` provides."""

from alembic import context
from sqlalchemy import Connection, text

from yaptide.persistence.models import Base

#: On a PostgreSQL server in use, a migration fails rather than block everything, and two at once wait for each other.
LIVE = (
    "SET LOCAL lock_timeout = '10s'",
    "SET LOCAL statement_timeout = '15min'",
    "SELECT pg_advisory_xact_lock(7927833)",
)

connection: Connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    for statement in LIVE:
        connection.execute(text(statement))
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite changes a table by rebuilding it; its DDL is transactional, because yaptide itself sends BEGIN.
    render_as_batch=True,
    transactional_ddl=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
