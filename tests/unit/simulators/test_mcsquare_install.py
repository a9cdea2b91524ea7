"""Installing MCsquare when something is in the way; the real thing is in tests/acceptance."""

import importlib.util
import platform
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from yaptide.domain.errors import NotConfigured
from yaptide.simulators.mcsquare import MCsquare, install
from yaptide.simulators.programs import sha256_of


def pip_that(monkeypatch, returncode=0, stderr="", wheel=None):
    """Replace running pip."""

    def run(arguments, **_):
        if wheel is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / "opentps_core-2.0.0-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(arguments, returncode, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(install, "_pip", lambda _: ["pip"])


def failure(folder):
    with pytest.raises(NotConfigured) as caught:
        MCsquare().install(folder, lambda _: None)
    return str(caught.value)


def test_what_is_not_installed_names_the_command(tmp_path):
    with pytest.raises(NotConfigured, match="yaptide simulators install mcsquare"):
        MCsquare().installation(tmp_path)


def test_no_network(tmp_path, monkeypatch):
    pip_that(monkeypatch, 1, "WARNING: Retrying\nERROR: No matching distribution found\n")
    assert failure(tmp_path).endswith("ERROR: No matching distribution found")
    assert not list(tmp_path.iterdir())


def test_another_file_than_expected(tmp_path, monkeypatch):
    pip_that(monkeypatch, wheel=b"not the wheel")
    assert "SHA-256" in failure(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def without_pip(monkeypatch):
    """As in environments that uv or pipx have made, on a Python that cannot make others."""

    def refuse(*_, **__):
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(venv, "create", refuse)


@pytest.mark.parametrize(
    ("there", "used"), [("pip", ["/bin/pip"]), ("pip3", ["/bin/pip3"]), ("uv", ["/bin/uv", "tool", "run", "pip"])]
)
def test_without_pip_another_one_is_used(tmp_path, monkeypatch, without_pip, there, used):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == there else None)
    assert install._pip(tmp_path) == used


def test_without_pip_one_is_put_into_an_environment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = subprocess.run([*install._pip(tmp_path), "--version"], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout


def test_nothing_that_could_fetch_it(tmp_path, monkeypatch, without_pip):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "pip or uv is needed" in failure(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def builds(tmp_path, monkeypatch):
    """A wheel whose builds are shell scripts; only some of them tell a version, and only some of those prove good."""

    def make(versions, good):
        wheel = tmp_path / "mcsquare.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{install._INSIDE}Materials/list.dat", "")
            for build in install._BUILDS:
                message = "echo Version: 1.1" if build in versions else "exit 1"
                archive.writestr(install._INSIDE + build, f"#!/bin/sh\n# {build}\n{message}\n")

        def prove(result):
            if not any(f"# {build}\n" in result.program.read_text() for build in good):
                raise NotConfigured("protons stop elsewhere")

        monkeypatch.setattr(install, "_download", lambda _: wheel)
        monkeypatch.setattr(install, "_WHEEL_SHA256", sha256_of(wheel))
        monkeypatch.setattr(MCsquare, "test_program", lambda _, result: prove(result))
        return tmp_path / "simulators"

    return make


def test_a_processor_that_takes_an_old_build_hears_of_no_failure(builds):
    *_, last = install._BUILDS
    said = []
    result = MCsquare().install(builds({last}, {last}), said.append)
    assert result.version == "1.1"
    assert said[1:] == [
        "Testing builds to find the fastest for this processor",
        f"Using {last}",
        "MCsquare 1.1 is installed and works",
    ]


def test_if_no_build_works_each_says_why(builds):
    first, *_ = install._BUILDS
    with pytest.raises(
        NotConfigured, match=rf"{first}: protons stop elsewhere; MCsquare_linux_avx2: this build does not run"
    ):
        MCsquare().install(builds({first}, set()), lambda _: None)


def test_another_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in failure(tmp_path)


def test_no_room(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "run", full)
    assert "No space left on device" in failure(tmp_path)


def test_the_digest_follows_the_program(tmp_path):
    home = tmp_path / "mcsquare"
    home.mkdir()
    (home / "VERSION").write_text("1.1\n")
    (home / "MCsquare").write_bytes(b"one")
    first = MCsquare().installation(tmp_path)
    assert (first.version, first.program) == ("1.1", home / "MCsquare")
    (home / "MCsquare").write_bytes(b"another")
    assert MCsquare().installation(tmp_path).digest != first.digest
    command = MCsquare().command(first, tmp_path)
    assert command.environment == {"MCsquare_Materials_Dir": "Materials"}
    assert command.links == {"Materials": str(home / "Materials")}
