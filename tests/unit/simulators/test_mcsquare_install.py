"""Installing MCsquare when something is in the way; the real thing is in tests/acceptance."""

import importlib.util
import platform
import subprocess
from pathlib import Path

import pytest

from yaptide.domain.errors import NotConfigured
from yaptide.simulators.mcsquare import MCsquare


def pip_that(monkeypatch, returncode=0, stderr="", wheel=None):
    """Replace running pip."""

    def run(arguments, **_):
        if wheel is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / "opentps_core-2.0.0-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(arguments, returncode, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


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


def test_no_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip is needed" in failure(tmp_path)


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
    assert MCsquare().command(first, tmp_path).environment == {"MCsquare_Materials_Dir": str(home / "Materials")}
