"""yaptide as its users run it: commands and servers as real processes, with real MCsquare on a small input."""

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
import orjson

from tests.support.commands import Forked, can_fork, forker
from tests.support.ports import free_port
from yaptide.client import Client
from yaptide.domain.errors import NotConfigured
from yaptide.persistence.engine import Database
from yaptide.simulators.base import Installation
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample

YAPTIDE = Path(sys.executable).with_name("yaptide")
SIMULATORS = Path(sys.prefix) / "share" / "yaptide" / "simulators"
USER, PASSWORD = "alice", "correct horse battery"
#: Longer than any of the steps takes on a busy machine.
DEADLINE = 120.0

Result = TypeVar("Result")


def until(look: Callable[[], Result], what: str, deadline: float = DEADLINE, every: float = 0.02) -> Result:
    """Return the first true value that `look` returns; raise TimeoutError if it takes too long."""
    end = time.monotonic() + deadline
    while not (result := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what}")
        time.sleep(every)
    return result


@cache
def installation() -> Installation:
    """Return MCsquare, installing it first if it is missing; only one test process does this."""
    SIMULATORS.mkdir(parents=True, exist_ok=True)
    with SIMULATORS.with_name("simulators.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return MCsquare().installation(SIMULATORS)
        except NotConfigured:
            return MCsquare().install(SIMULATORS, print)


def beam(
    folder: Path,
    primaries: float = 2000,
    energy: float = 70.0,
    grid: tuple[int, int, int] = (20, 60, 20),
    spacing: tuple[float, float, float] = (3, 1, 3),
    seed: int = 1,
) -> Path:
    """Create a folder with the input of a beam into the middle of a block of water."""
    files = water_sample(int(primaries), energy, seed=seed)
    middle = " ".join(str(count * size / 2) for count, size in zip(grid, spacing, strict=True))
    files["ct.txt"] = f"grid {' '.join(map(str, grid))}\nspacing {' '.join(map(str, spacing))}\nfill 0\n"
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", middle)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def fake(simulators: Path, script: str) -> Path:
    """Create a folder of simulators with a shell script as MCsquare; `$MCSQUARE` in it is the real program."""
    home = simulators / "mcsquare"
    home.mkdir(parents=True)
    program = home / "MCsquare"
    program.write_text(f"#!/bin/sh\nMCSQUARE='{installation().program}'\n{script}\n")
    program.chmod(0o755)
    (home / "Materials").symlink_to(installation().program.parent / "Materials")
    (home / "VERSION").write_text(installation().version)
    return simulators


@dataclass(frozen=True)
class Done:
    """Result of a finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output parsed as one JSON document."""
        return orjson.loads(self.out)

    @property
    def complaint(self) -> str:
        """The error line of a command that has failed without other output."""
        (line,) = self.err.splitlines()
        assert line.startswith("Error: "), line
        assert self.out == ""
        return line


@dataclass
class Running:
    """A running process, with its output in files, so that it never waits for a reader."""

    process: subprocess.Popen[bytes] | Forked
    files: tuple[Path, Path]

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def said(self) -> str:
        """Output so far, of standard output and standard error."""
        return "".join(file.read_text() for file in self.files)

    def wait(self, deadline: float = DEADLINE) -> Done:
        """Wait for its end."""
        code = self.process.wait(deadline)
        return Done(code, *(file.read_text() for file in self.files))

    def signal(self, number: signal.Signals) -> Done:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()


@dataclass
class Place:
    """A folder with all files of an installation of yaptide, and the processes started in it."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        installation()

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """URL of the database."""
        return self.variables.get("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{self.data / 'yaptide.db'}")

    def start(
        self, *arguments: object, stdin: str | None = None, wrapper: Sequence[str] = (), **variables: str
    ) -> Running:
        """Start `yaptide`, through the command `wrapper` if given; it is killed when the tests end."""
        number = next(self._numbers)
        files = [self.folder / f"{number}.{end}" for end in ("in", "out", "err")]
        files[0].write_text(stdin or "")
        command = [str(YAPTIDE), *map(str, arguments)]
        environment = self._environment(variables)
        process: subprocess.Popen[bytes] | Forked
        if wrapper or not can_fork(self.variables | variables):
            process = self._spawn([*wrapper, *command], environment, files)
        else:
            process = forker().start(command, environment, self.folder, files)
        running = Running(process, (files[1], files[2]))
        self.started.append(running)
        return running

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str], files: Sequence[Path]
    ) -> subprocess.Popen[bytes]:
        setpriv = shutil.which("setpriv")
        death_signal = [setpriv, "--pdeathsig=KILL", "--"] if setpriv else []
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(file.open(mode)) for file, mode in zip(files, ("rb", "wb", "wb"), strict=True)]
            return subprocess.Popen(
                [*death_signal, *command],
                cwd=self.folder,
                env=environment,
                stdin=ends[0],
                stdout=ends[1],
                stderr=ends[2],
                start_new_session=True,
            )

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LOGNAME": USER,
            "LANG": "C.UTF-8",
            "PYTHONWARNINGS": "error",
            "YAPTIDE_DATA_DIR": str(self.data),
            **self.variables,
            **variables,
        }

    def run(self, *arguments: object, stdin: str | None = None, deadline: float = DEADLINE, **variables: str) -> Done:
        """Run `yaptide` to its end."""
        return self.start(*arguments, stdin=stdin, **variables).wait(deadline)

    def run_all(self, commands: Sequence[tuple[Sequence[object], Mapping[str, str]]]) -> list[Done]:
        """Run commands, given as arguments and variables, as many at once as there are cores."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda command: self.run(*command[0], **command[1]), commands))

    def up(self, *arguments: object, port: int = 0, wrapper: Sequence[str] = (), **variables: str) -> "Server":
        """Start `yaptide up`, on a free port by default, and wait until it responds."""
        port = port or free_port()
        running = self.start("up", "--port", port, *arguments, wrapper=wrapper, **variables)
        server = Server(self, running, f"http://127.0.0.1:{port}")
        until(server.answers, f"{server.url} responds")
        return server

    def simulators(self) -> set[int]:
        """Return the processes that work in folders of tasks, also orphaned ones."""
        return {pid for pid, folder in working_folders() if folder.is_relative_to(self.data / "work")}

    def left(self) -> list[str]:
        """Return the contents of the folders of running and of unmerged tasks, except the name of the staging area."""
        paths = [path for name in ("work", "spool") for path in (self.data / name).glob("*")]
        return [str(path) for path in paths if path.name != ".place"]

    @cached_property
    def database(self) -> Database:
        """A direct connection to the database."""
        return Database(self.url)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def said(self) -> str:
        """Return the output of all processes."""
        return "".join(running.said for running in self.started)

    def close(self) -> None:
        """Kill remaining processes, and check that no process has printed a traceback."""
        for running in self.started:
            for pid in session(running.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            running.process.wait(DEADLINE)
        self.database.close()
        until(lambda: not self.simulators(), "no simulator is left")
        assert "Traceback" not in (said := self.said()), said


@dataclass
class Server:
    """A running `yaptide up`."""

    place: Place
    running: Running
    url: str

    def answers(self) -> bool:
        """Return whether the server responds; raise RuntimeError if it has ended."""
        if self.running.process.poll() is not None:
            raise RuntimeError(f"yaptide up has ended: {self.running.said}")
        try:
            return httpx.get(self.url).is_success
        except httpx.TransportError:
            return False

    def register(self, name: str = USER, password: str = PASSWORD) -> "Server":
        """Add a user."""
        with Client(self.url, patience=0) as client:
            client.register(name, password)
        return self

    @contextlib.contextmanager
    def client(self, name: str = USER, password: str = PASSWORD) -> Iterator[Client]:
        """Yield a Python client of a signed-in user."""
        with Client(self.url, patience=0) as client:
            client.sign_in(name, password)
            yield client

    def worker(self) -> int | None:
        """Return the process of the executor; None while there is none."""
        return next((pid for pid in descendants(self.running.pid) if "work" in command_line(pid)), None)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Done:
        """Send a signal and wait until the server and all its descendants have ended."""
        below = descendants(self.running.pid)
        done = self.running.signal(number)
        until(lambda: not any(map(alive, below)), f"everything of {self.url} has ended")
        return done


@contextlib.contextmanager
def place(folder: Path, **variables: str) -> Iterator[Place]:
    """Yield a `Place`, and end all its processes afterwards."""
    new_place = Place(folder, variables)
    try:
        yield new_place
    finally:
        new_place.close()


def _status(pid: int) -> tuple[str, int, int]:
    """Return the state, parent and session of a process."""
    state, parent, _, leader, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent), int(leader)


def alive(pid: int) -> bool:
    """Return whether a process is running; zombies are not."""
    try:
        return _status(pid)[0] not in "ZX"
    except OSError:
        return False


def processes() -> list[int]:
    """Return all running processes of this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and alive(int(entry.name))]


def descendants(pid: int) -> set[int]:
    """Return the children of a process, their children, and so on."""
    parents = {}
    for other in processes():
        with contextlib.suppress(OSError):
            parents[other] = _status(other)[1]
    family, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - family
        family |= new
    return family


def session(leader: int) -> list[int]:
    """Return the processes of a session: its leader and descendants, except those with sessions of their own."""
    members = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if _status(pid)[2] == leader:
                members.append(pid)
    return members


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def working_folders() -> list[tuple[int, Path]]:
    """Return every process with its working folder."""
    folders = []
    for pid in processes():
        with contextlib.suppress(OSError):
            folders.append((pid, Path(f"/proc/{pid}/cwd").readlink()))
    return folders
