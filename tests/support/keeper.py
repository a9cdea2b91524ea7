"""Starts programs, and ends all their descendants when its parent is gone, however that happens.

Runs as a separate program. Each line of standard input is a JSON object with `command`, `environment` and `log`; the
response is the process id. When standard input ends (the tests have finished or were killed), every descendant process
is killed, including those in the background, and the commands in the argument, a JSON list, are run.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_GIVE_UP_AFTER = 30.0


def _parents() -> dict[int, int]:
    """Return the parent of every process on the machine."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parents


def descendants(of: int) -> set[int]:
    """Return the children of a process, their children, and so on."""
    parents = _parents()
    family = {of}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {of}


def _reap() -> None:
    """Reap children, including adopted orphans."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.02)


def _end_all() -> None:
    end = time.monotonic() + _GIVE_UP_AFTER
    while (remaining := descendants(os.getpid())) and time.monotonic() < end:
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main(afterwards: list[list[str]]) -> None:
    """Serve standard input until it ends."""
    # Orphaned descendants become children of this process instead of the init process.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the tests; this process ends after them
        signal.signal(number, lambda *_: None)  # SIG_IGN would be inherited by every program started here
    threading.Thread(target=_reap, daemon=True).start()
    for line in sys.stdin:
        request = json.loads(line)
        with Path(request["log"]).open("ab") as log:
            process = subprocess.Popen(
                request["command"],
                env=request["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        sys.stdout.write(f"{process.pid}\n")
        sys.stdout.flush()
    _end_all()
    for command in afterwards:
        subprocess.Popen(command)
        _wait_for_children()


def _wait_for_children() -> None:
    end = time.monotonic() + _GIVE_UP_AFTER
    while descendants(os.getpid()) and time.monotonic() < end:
        time.sleep(0.02)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
