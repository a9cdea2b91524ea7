"""Starts programs and ends all that came of them when whoever asked for them is gone, however that happened.

Run as a program of its own. Each line of standard input is a JSON object: `command`, `environment`, `log`; the answer
is the process's number. When standard input ends (the tests did, or were killed), every process that descends from
this one is killed, those that went into the background too, and the commands of the argument, a JSON list, are run.
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
    """Parent of every process of the machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def descendants(of: int) -> set[int]:
    """Children of a process, their children, and so on."""
    parents = _parents()
    found = {of}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {of}


def _reap() -> None:
    """Take note of the end of children, also of those that were left to this process."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.02)


def _end_all() -> None:
    end = time.monotonic() + _GIVE_UP_AFTER
    while (left := descendants(os.getpid())) and time.monotonic() < end:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main(afterwards: list[list[str]]) -> None:
    """Serve standard input until it ends."""
    # Orphans among the descendants become children of this process, not of the machine's first.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the tests; this one ends after them
        signal.signal(number, lambda *_: None)  # what is ignored would be ignored by every program below, too
    threading.Thread(target=_reap, daemon=True).start()
    for line in sys.stdin:
        asked = json.loads(line)
        with Path(asked["log"]).open("ab") as log:
            process = subprocess.Popen(
                asked["command"],
                env=asked["environment"],
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
