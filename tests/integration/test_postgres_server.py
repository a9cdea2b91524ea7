"""The server that other tests rely on really serves, survives a crash, and leaves nothing."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.support.postgres import DURABLE, Postgres, serve


@pytest.fixture
def own_server():
    with serve(password="s3cret/@:", settings=DURABLE) as server:
        yield server


def shared_memory_creators() -> list[str]:
    """Process ids of those who made the System V segments of this machine."""
    header, *rows = Path("/proc/sysvipc/shm").read_text().splitlines()
    return [row.split()[header.split().index("cpid")] for row in rows]


def test_it_is_a_postgresql_for_sqlalchemy(postgres: Postgres):
    engine = create_engine(postgres.url())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version()")).startswith("PostgreSQL ")
    engine.dispose()


def test_databases_are_apart_and_copies_of_their_template(postgres: Postgres):
    template = make_url(postgres.create_database()).database
    with postgres.connect(template) as connection:
        connection.execute("CREATE TABLE spot AS SELECT 150 AS energy")
    copies = [postgres.create_database(template) for _ in range(2)]
    names = [make_url(url).database for url in copies]
    with postgres.connect(names[0]) as connection:
        connection.execute("DELETE FROM spot")
    with postgres.connect(names[1]) as connection:
        assert connection.execute("SELECT energy FROM spot").fetchall() == [(150,)]
        postgres.drop_database(copies[1])
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
def test_what_was_committed_is_there_after_a_restart(own_server: Postgres, end):
    url = own_server.url()
    with own_server.connect() as connection:
        connection.execute("CREATE TABLE spot AS SELECT 150 AS energy")
        end(own_server)
    with pytest.raises(psycopg.OperationalError):
        own_server.connect()
    own_server.restart()
    assert own_server.url() == url
    with own_server.connect() as connection:
        assert connection.execute("SELECT energy FROM spot").fetchall() == [(150,)]


def test_a_wrong_password_is_refused(own_server: Postgres):
    url = make_url(own_server.url())
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(host=url.host, port=url.port, user=url.username, password="other", dbname=url.database)


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill, Postgres.restart])
def test_nothing_is_left(end):
    with serve() as server:
        creator = (server.data / "postmaster.pid").read_text().split()[0]
        assert creator in shared_memory_creators()
        end(server)
    assert not server.folder.exists()
    assert creator not in shared_memory_creators()
    with pytest.raises(psycopg.OperationalError):
        server.connect()


def test_it_says_why_it_does_not_start():
    with pytest.raises(RuntimeError, match="no_such_setting"), serve(settings={"no_such_setting": "1"}):
        pass
