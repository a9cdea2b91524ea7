"""`yaptide up` before it serves."""

import sys
from types import SimpleNamespace

import pytest
import typer

from yaptide.admin import serving
from yaptide.simulators.mcsquare import MCsquare


@pytest.mark.parametrize(("answer", "installed"), [(True, 1), (False, 0)])
def test_in_a_terminal_the_simulator_of_projects_is_offered(backend, monkeypatch, tmp_path, answer, installed):
    asked, done = [], []
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda question, **_: asked.append(question) or answer)
    monkeypatch.setattr(MCsquare, "install", lambda _, folder, __: done.append(folder))
    serving._offer_simulator(SimpleNamespace(backend=backend, settings=SimpleNamespace(simulators_dir=tmp_path)))
    assert asked == ["MCsquare, which runs projects of the web editor, is not installed. Install it now?"]
    assert done == [tmp_path] * installed
