"""The session in docs/operating.md, typed into a real shell with a real PostgreSQL, gives what the document shows.

Compared is the text of the whole terminal. Only these may differ, and only by these rules:

- names of simulations: the n-th that appears in one text stands for the n-th in the other;
- times, the port of the server, the revision of the tables, and the size of the database on its disk.
"""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from psycopg import sql
from sqlalchemy import update

from tests.support import payloads
from tests.support.postgres import Postgres
from tests.support.storing import FOREIGN
from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationModel
from yaptide.persistence.models.base import table_of
from yaptide.services import logfiles, results_upload, simulations, tasks, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission
from yaptide.services.spool import Folder

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/operating.md"

JOB = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}-[0-9a-f-]{27}DIRECT")
TIMES = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "<time>"),
    (re.compile(r"@localhost:\d+/"), "@localhost:<port>/"),
    (re.compile(r"revision \d{4}"), "revision <n>"),
    (re.compile(r"(on disk *\n[─ ]+\n) \d+\.\d MB"), r"\1 <size>"),
]
#: What the shell prints when it waits for a command; it stands nowhere else.
PROMPT = "\u241e"
HIDDEN = ("Password: ", "Repeat for confirmation: ")
PASSWORD = "a long password"
PATIENCE = 120.0


def session() -> str:
    """What the document shows of the terminal."""
    (result,) = re.findall(r"^```console\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return result


def comparable(text: str) -> str:
    jobs = {job: f"<job {number}>" for number, job in enumerate(dict.fromkeys(JOB.findall(text)), start=1)}
    text = JOB.sub(lambda result: jobs[result[0]], text)
    text = "".join(line.rstrip() + "\n" for line in text.splitlines())
    for pattern, name in TIMES:
        text = pattern.sub(name, text)
    return text


class Terminal:
    """A shell in a terminal: `screen` is all that it has shown."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.screen = ""
        self._seen = 0
        self._end, inner = pty.openpty()
        # A terminal of its own: passwords are asked for in /dev/tty, whatever standard input is.
        command = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"]
        self._shell = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=inner, stdout=inner, stderr=inner, close_fds=True
        )
        os.close(inner)
        self.wait_for(PROMPT)

    def wait_for(self, *ends: str) -> str:
        """Wait until what is new on the screen ends with one of these, which is returned."""
        deadline = time.monotonic() + PATIENCE
        while True:
            first = next((end for end in ends if self.screen[self._seen :].endswith(end)), None)
            if first is not None:
                self._seen = len(self.screen)
                return first
            if not select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"none of {ends} came:\n{self.screen}")
            self.screen += os.read(self._end, 65536).decode().replace("\r\n", "\n")

    def type(self, line: str) -> None:
        os.write(self._end, f"{line}\n".encode())

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._end)


class Users:
    """What the comments in the session tell of: what others do while the operator waits."""

    def __init__(self, url: str, folder: Path) -> None:
        self.backend = Backend(
            Database(url), Folder(folder / "spool"), b"a key for tests, 32 bytes or more", foreign_workers=FOREIGN
        )

    def submit(self, name: str, title: str) -> simulations.Submitted:
        """A simulation of two tasks."""
        submission = Submission("shieldhit", 2, title, input_files=payloads.shieldhit_files())
        return simulations.submit_simulation(self.backend, users.ensure_user(self.backend, name), submission)

    def age(self, made: simulations.Submitted, days: float) -> None:
        """Have it submitted, and if it has ended, ended so long ago."""
        table = table_of(SimulationModel)
        moment = datetime.now(UTC) - timedelta(days=days)
        job_id = f"{moment:%Y%m%d-%H%M%S}{made.job_id[15:]}"
        with self.backend.database.writing() as connection:
            this = update(table).where(table.c.id == made.simulation_id)
            connection.execute(this.values(start_time=moment, job_id=job_id))
            connection.execute(this.where(table.c.end_time.is_not(None)).values(end_time=moment))

    def report(self, made: simulations.Submitted, task_id: int, state: EntityState, simulated: int = 0) -> None:
        """What a worker would say of a task."""
        said = tasks.Update(task_state=state, simulated_primaries=simulated)
        tasks.report_task(self.backend, made.simulation_id, task_id, made.update_key, said)

    def work(self) -> None:
        """Two simulations are completed, one fails, one is canceled, one still runs."""
        for title, days in (("Water phantom", 20), ("Prostate", 2)):
            made = self.submit("alice", title)
            body = {"simulation_id": made.simulation_id, "update_key": made.update_key}
            results_upload.post_results(self.backend, orjson.dumps(body | {"estimators": [payloads.estimator("dose")]}))
            self.age(made, days)
        failed = self.submit("alice", "Head and neck")
        for task_id in (0, 1):
            self.report(failed, task_id, EntityState.FAILED)
        logs = {"shieldhit.log": "no such material\n" * 100}
        logfiles.post_logfiles(self.backend, failed.simulation_id, failed.update_key, logs)
        self.age(failed, 120)
        canceled = self.submit("bob", "A test")
        simulations.cancel_simulation(self.backend, users.ensure_user(self.backend, "bob"), canceled.job_id)
        self.age(canceled, 150)
        running = self.submit("bob", "Another test")
        self.report(running, 0, EntityState.RUNNING, 120)
        self.age(running, 0.1)

    def meddle(self) -> None:
        """One row is changed that can be counted anew, and one of which only its writer knows what it was."""
        with self.backend.database.writing() as connection:
            connection.exec_driver_sql("""UPDATE "Simulation" SET stored_bytes = 0 WHERE title = 'Prostate'""")
            connection.exec_driver_sql(
                """UPDATE "Page" SET page_name = 'LET' WHERE id = (SELECT MIN(id) FROM "Page")"""
            )

    def mend(self) -> None:
        """The second one is changed back."""
        with self.backend.database.writing() as connection:
            connection.exec_driver_sql("""UPDATE "Page" SET page_name = 'DOSE'""")


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A database of a user who is nobody special."""
    role, name = sql.Identifier("yaptide"), sql.Identifier("yaptide")
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, role))
    yield f"postgresql+psycopg://yaptide:secret@localhost:{postgres.port}/yaptide"
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "yaptide").symlink_to(ROOT / "yaptide")  # the checkout
    (tmp_path / "bob.txt").write_text("another long password\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "COLUMNS": "120",
        "PS1": PROMPT,
    }
    shell = Terminal(tmp_path, environment)
    yield shell
    shell.close()


def replay(message: str, terminal: Terminal, url: str, meanwhile: dict[str, Callable[[], None]]) -> str:
    """Type the commands and answers of a session; returns what the terminal shows, comments included."""
    known: list[str] = []
    of_document = list(dict.fromkeys(JOB.findall(message)))
    for number, block in enumerate(re.split(r"^(?=\$ |# )", message, flags=re.MULTILINE)[1:]):
        first, _, rest = block.partition("\n")
        if first.startswith("# "):
            meanwhile[first]()
            terminal.screen = f"{terminal.screen.removesuffix(PROMPT)}{first}\n{PROMPT}"
            terminal._seen = len(terminal.screen)
            continue
        known = list(dict.fromkeys(JOB.findall(terminal.screen)))
        command = JOB.sub(lambda result, known=known: known[of_document.index(result[0])], first.removeprefix("$ "))
        command = re.sub(r"postgresql\+psycopg://\S+", url, command)
        answers = iter(re.findall(r"\[y/N\]: (\w*)$", rest, re.MULTILINE))
        terminal.type(command)
        while (end := terminal.wait_for(PROMPT, "[y/N]: ", *HIDDEN)) != PROMPT:
            terminal.type(PASSWORD if end in HIDDEN else next(answers))
        assert next(answers, None) is None, f"command {number} did not ask: {command}"
    return terminal.screen.removesuffix(PROMPT).replace(PROMPT, "$ ")


@pytest.mark.parametrize(
    ("shown", "instead"), [("FAILED", "CANCELED"), ("1.3 kB", "1.4 kB"), ("[y/N]: y", "[y/N]: n"), ("Error: ", "")]
)
def test_what_differs_is_seen(shown, instead):
    message = session()
    assert shown in message
    assert comparable(message.replace(shown, instead, 1)) != comparable(message)


def test_another_simulation_is_seen():
    message = session()
    first, second = list(dict.fromkeys(JOB.findall(message)))[:2]
    before, _, last = message.rpartition(second)
    assert comparable(f"{before}{first}{last}") != comparable(message)


def test_the_session_of_an_operator_is_as_it_is_told(terminal, url, tmp_path):
    others = Users(url, tmp_path)
    meanwhile = {
        "# alice and bob submit simulations; half a year passes": others.work,
        "# an operator changes rows by hand": others.meddle,
        "# and reverts the change of page_name": others.mend,
    }
    try:
        shown = replay(session(), terminal, url, meanwhile)
    finally:
        others.backend.database.close()
    assert comparable(shown) == comparable(session())
