"""Describes the machine, and detects other load on it."""

import os
import platform
import re
import shutil
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.postgres import find_binaries

_LIBRARIES = (
    "uvicorn",
    "httptools",
    "flask",
    "sqlalchemy",
    "psycopg",
    "numpy",
    "orjson",
    "msgspec",
    "isal",
    "pysimdjson",
)


def describe_machine(folder: Path) -> dict[str, Any]:
    """Return cores, memory, the disk of `folder`, and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    postgres = subprocess.run([find_binaries() / "postgres", "--version"], capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(memory / 2**30, 1),
        "disk": _disk(folder),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": postgres.stdout.split()[2],
        **{name: version(name) for name in _LIBRARIES},
    }


def read_load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def is_busy() -> bool:
    """Return whether other processes use more than a quarter of the machine."""
    return read_load() > 0.25 * (os.cpu_count() or 1)


def find_revision() -> str:
    """Return the measured commit, with a `+` if files have changed since."""
    if shutil.which("git") is None:
        return "unknown"
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip() or "unknown"


def peak_memory(pid: int | str = "self") -> int:
    """Return the peak memory of a process in bytes (VmHWM, including mapped files)."""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _disk(folder: Path) -> str:
    usage = shutil.disk_usage(folder)
    kind = "unknown file system"
    place = str(folder.resolve())
    longest = ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, at, name, *_ = line.split()
        if place.startswith(at) and len(at) >= len(longest):
            longest, kind = at, name
    return f"{kind}, {usage.free // 2**30} of {usage.total // 2**30} GiB free"
