"""A PostgreSQL database that cannot store every text is reported before anything is stored in it."""

from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.processes import place

COMMANDS = {
    "db upgrade": ("db", "upgrade"),
    "start": ("up", "--port", str(free_port())),
    "doctor": ("doctor",),
    "users list": ("users", "list"),
}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_the_encoding_is_told_and_how_to_mend_it(encoding: str, postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database("template0", encoding)
    with place(tmp_path / "place", FLASK_SQLALCHEMY_DATABASE_URI=url) as there:
        for what, words in COMMANDS.items():
            done = there.run(*words)
            said = " ".join((done.out + done.err).replace("│", " ").split())
            assert done.code == 1, what
            assert "Traceback" not in said, what
            if what == "doctor":
                assert "the database cannot be used" in said
            else:
                assert done.err.startswith(f"Error: The encoding of the PostgreSQL database is {encoding}, but"), said
                assert "createdb --encoding UTF8 --template template0" in said
    with postgres.connect(url.rpartition("/")[2]) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
