"""Runs `yaptide` commands as processes that share the imports: each is forked from one that has imported everything.

The imports are most of the CPU time of a short command, and the tests run hundreds. Otherwise a command is a process of
its own: with its environment, working folder, files, session and exit code.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import orjson

#: Variables that Python or libraries read while they are imported: a command that sets one needs its own imports.
_READ_AT_IMPORT = ("PYTHON", "LC_", "LANG", "TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "MPL")
_LONGEST_REQUEST = 1 << 20
_LINE = 32
_PR_SET_PDEATHSIG = 1


def can_fork(variables: Mapping[str, str]) -> bool:
    """Return whether a command with these variables may be forked."""
    return not any(name.startswith(_READ_AT_IMPORT) for name in variables)


class Forker:
    """The process that commands are forked from; it ends with the tests."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        environment = {"PATH": os.environ["PATH"], "HOME": "/", "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True)
        theirs.close()

    def start(self, arguments: list[str], environment: Mapping[str, str], folder: Path, files: list[Path]) -> "Forked":
        """Start a command line of `yaptide` with standard input, output and error in `files`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = orjson.dumps({"arguments": arguments, "environment": dict(environment), "folder": str(folder)})
        with ExitStack() as stack:
            ends = [stack.enter_context(file.open(mode)) for file, mode in zip(files, ("rb", "wb", "wb"), strict=True)]
            with theirs, self._lock:
                socket.send_fds(self._ours, [request], [theirs.fileno(), *(end.fileno() for end in ends)])
        return Forked(ours)


class Forked:
    """A forked command, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = int(answers.recv(_LINE))

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit code; raises TimeoutError."""
        with self._lock:
            if self.returncode is None:
                self._answers.settimeout(timeout)
                self.returncode = int(self._answers.recv(_LINE))
                self._answers.close()
            return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, None before the end."""
        with suppress(BlockingIOError):
            return self.wait(0)
        return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


_starting = threading.Lock()


def forker() -> Forker:
    """Return the process that commands of this test process are forked from."""
    with _starting:
        return _forker()


@cache
def _forker() -> Forker:
    return Forker()


def _serve(requests: socket.socket) -> bool:
    """Fork a process for each request, which waits for its command and sends its process id and exit code.

    Returns True in a command, and False when no test process is left to send requests.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these processes
    while True:
        message, ends, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 4)
        if not message:
            return False
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _follow(orjson.loads(message), ends)
            return True
        for end in ends:
            os.close(end)


def _follow(request: Mapping[str, object], ends: list[int]) -> None:
    """Fork the command, and wait for it; returns in the command only."""
    answers, *files = ends
    _die_with_parent()
    command = os.fork()
    if command == 0:
        os.close(answers)
        _die_with_parent()
        _become(request, files)
        return
    os.write(answers, b"%d" % command)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    os.write(answers, b"%d" % code)
    os._exit(0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(request: Mapping[str, object], files: list[int]) -> None:
    """Turn into the command; it runs when the caller returns."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    os.chdir(str(request["folder"]))
    sys.argv = request["arguments"]  # type: ignore[assignment]


if __name__ == "__main__":
    import gc

    gc.disable()
    import alembic.command  # noqa: F401 - imported here once, for all commands

    import yaptide.admin.cli  # noqa: F401
    from yaptide.__main__ import main

    with socket.socket(fileno=int(sys.argv[1])) as from_tests:
        is_command = _serve(from_tests)
    if is_command:
        main()
