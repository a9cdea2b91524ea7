"""Stands in for what a test machine lacks to follow docs/production.md: root, apt-get, accounts, systemd.

Run under the name of one of these programs (through a link), it replaces that program. systemd is simulated with the
real unit files: their commands are started with their environment, as written. Everything else in the document is run
for real, e.g. psql, redis-server, nginx, openssl, curl and yaptide.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("sudo", "apt-get", "useradd", "install", "systemctl", "nginx", "python3", "pip")

#: Programs of the Debian packages that the document uses.
_PACKAGES = {
    "postgresql": "psql",
    "redis-server": "redis-server",
    "nginx": "nginx",
    "openssl": "openssl",
    "curl": "curl",
    "python3-venv": "python3",
}
_DEADLINE = 60.0


def main() -> int:
    """Run the replacement of the program with this name."""
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    return _STAND_INS[name](Path(os.environ["MACHINE"]), words)


def real(name: str) -> str:
    """Return the path of the real program."""
    own_folder = os.environ["PATH"].split(os.pathsep)[0]
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own_folder]
    path = shutil.which(name, path=os.pathsep.join([*others, "/usr/sbin"]))
    if path is None:
        sys.exit(f"{name} is not installed: run `scripts/setup nginx` and `scripts/setup brokers`")
    return path


def _sudo(root: Path, words: list[str]) -> int:
    """Run a command as the current user, with credentials of PostgreSQL where needed."""
    environment = dict(os.environ)
    if words[0] == "-u":
        if words[1] == "postgres":
            environment |= dict(line.split("=", 1) for line in (root / "postgres").read_text().split())
        words = words[2:]
    return subprocess.run(words, env=environment, check=False).returncode


def _apt_get(root: Path, words: list[str]) -> int:
    """Check that packages are installed already."""
    if words[0] == "install":
        for package in (word for word in words[1:] if not word.startswith("-")):
            real(_PACKAGES[package])
    return 0


def _useradd(root: Path, words: list[str]) -> int:
    (root / "users").open("a").write(f"{words[-1]}\n")
    return 0


def _install(root: Path, words: list[str]) -> int:
    """Install files as the current user, and check that the owners exist."""
    known = {"root", *((root / "users").read_text().split())}
    while {"-o", "-g"} & set(words):
        at = next(place for place, word in enumerate(words) if word in ("-o", "-g"))
        if words[at + 1] not in known:
            sys.exit(f"install: there is no {words[at + 1]}")
        del words[at : at + 2]
    return subprocess.run([real("install"), *words], check=False).returncode


def _nginx(root: Path, words: list[str]) -> int:
    configuration = root / "etc/nginx/nginx.conf"
    return subprocess.run([real("nginx"), "-c", configuration, *words], check=False).returncode


def _python3(root: Path, words: list[str]) -> int:
    """Skip creating environments: the environment of the tests has everything."""
    if words[:2] != ["-m", "venv"]:
        return subprocess.run([sys.executable, *words], check=False).returncode
    folder = Path(words[2]) / "bin"
    folder.mkdir(parents=True)
    for name in ("yaptide", "celery"):
        (folder / name).symlink_to(Path(sys.executable).with_name(name))
    (folder / "pip").symlink_to(sys.argv[0])
    return 0


def _pip(root: Path, words: list[str]) -> int:
    """Install nothing, but check that the project exists."""
    project = Path(words[-1].removesuffix("[all]"), "pyproject.toml")
    if not Path(words[words.index("--constraint") + 1]).is_file() or not project.is_file():
        sys.exit("pip: no such file")
    return 0


def _systemctl(root: Path, words: list[str]) -> int:
    verb, names = words[0], [word for word in words[1:] if not word.startswith("-")]
    for name in names:
        if verb == "reload" and name == "nginx":
            stop(root, name)  # it may not run yet, or listen on a port of another configuration
        if verb == "restart":
            stop(root, name)
        _start(root, name)
    return 0


def unit(root: Path, name: str) -> dict[str, list[str]]:
    """Return the assignments of a unit file, with `%i` filled in."""
    stem, at, instance = name.partition("@")
    assignments: dict[str, list[str]] = {}
    for line in (root / f"etc/systemd/system/{stem}{at}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            assignments.setdefault(key, []).append(value.replace("%i", instance))
    return assignments


def commands(root: Path, name: str) -> tuple[list[list[str]], dict[str, str], Path]:
    """Return the commands of a unit, the service last, with their environment and folder."""
    assignments = unit(root, name)
    environment = dict(line.split("=", 1) for line in assignments["Environment"])
    for file in assignments.get("EnvironmentFile", []):
        path = Path(file.removeprefix("-"))
        if path.exists() or not file.startswith("-"):
            environment |= dict(line.split("=", 1) for line in path.read_text().splitlines())
    lines = [*assignments.get("ExecStartPre", []), *assignments["ExecStart"]]
    filled = [[_filled(word, environment) for word in shlex.split(line)] for line in lines]
    return filled, environment, Path(assignments["WorkingDirectory"][0])


def _filled(word: str, environment: dict[str, str]) -> str:
    for name, value in environment.items():
        word = word.replace(f"${{{name}}}", value)
    return word


def _start(root: Path, name: str) -> None:
    if name == "redis-server":
        before, environment, place = [[real(name), str(root / "etc/redis/redis.conf")]], {}, root
    elif name == "nginx":
        before, environment, place = [[sys.argv[0].replace("systemctl", "nginx"), "-g", "daemon off;"]], {}, root
    else:
        before, environment, place = commands(root, name)
    place.mkdir(parents=True, exist_ok=True)
    *first, service = before
    # Like systemd, pass on nothing of our own environment.
    clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MACHINE": str(root), **environment}
    with (root / "log" / name).open("ab") as log:
        for command in first:
            subprocess.run(command, cwd=place, env=clean, stdout=log, stderr=log, check=True)
        process = subprocess.Popen(
            service,
            cwd=place,
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (root / "run" / name).write_text(str(process.pid))


def stop(root: Path, name: str) -> None:
    """Stop a service like systemd with KillMode=mixed: first its main process, then the remaining ones."""
    file = root / "run" / name
    if not file.exists():
        return
    pid = int(file.read_text())
    file.unlink()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _DEADLINE
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


_STAND_INS = {
    "sudo": _sudo,
    "apt-get": _apt_get,
    "useradd": _useradd,
    "install": _install,
    "systemctl": _systemctl,
    "nginx": _nginx,
    "python3": _python3,
    "pip": _pip,
}

if __name__ == "__main__":
    sys.exit(main())
