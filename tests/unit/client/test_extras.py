"""Optional dependencies: if one is missing, the error says what to install."""

import importlib
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from yaptide.application import make_broker, make_driver, make_spool
from yaptide.client import Results
from yaptide.domain.errors import NotConfigured
from yaptide.domain.estimators import Estimator, Page
from yaptide.services import batch_options, diagnosis
from yaptide.settings import Settings
from yaptide.simulators import get_simulator
from yaptide.simulators.base import Installation
from yaptide_client.extras import EXTRAS, is_installed, needed_for

ROOT = Path(__file__).parents[3]
RESULTS = Results((Estimator("Dose", "dose", (Page(0, "Dose", "Gy", (), np.ones(1)),)),))


def settings(**values) -> Settings:
    return Settings(_env_file=None, signing_key="k" * 32, **values)


def load(module: str):
    return lambda: importlib.import_module(module)


#: What needs the libraries of each extra, by the library that is missing.
NEEDED = {
    ("celery", "workers"): lambda: make_broker(settings(broker_url="redis://127.0.0.1:1/0")),
    ("kombu", "workers"): load("yaptide.platforms.direct.broker"),
    ("asyncssh", "hpc"): load("yaptide.platforms.batch.ssh"),
    ("obstore", "s3"): lambda: make_spool(settings(spool_at="s3://bucket")),
    ("pymchelper", "codes"): lambda: get_simulator("fluka").command(Installation(Path("rfluka"), "", ""), Path()),
    ("matplotlib", "plots"): load("yaptide_client.plots"),
    ("pandas", "tables"): RESULTS.to_pandas,
    ("xarray", "tables"): RESULTS.to_xarray,
}


@pytest.fixture
def without(monkeypatch):
    """Have a library not be there, and what has imported it already be imported anew."""

    def block(library):
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)
        ours = ("direct.broker", "direct.worker", "direct.outbox", "batch.ssh", "batch.driver")
        for module in (*(f"yaptide.platforms.{name}" for name in ours), "yaptide.services.bucket"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delitem(sys.modules, "yaptide_client.plots", raising=False)

    return block


def test_the_extras_are_those_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (whole,) = declared.pop("all")
    del declared["keyring"]  # without it, a file is used
    assert set(EXTRAS.values()) == set(declared) == set(whole.removeprefix("yaptide[").removesuffix("]").split(","))
    assert {library for library, _ in NEEDED} == set(EXTRAS)


@pytest.mark.parametrize(("library", "extra"), NEEDED)
def test_a_missing_library_names_its_extra(library, extra, without):
    without(library)
    with pytest.raises(NotConfigured, match=rf" needs {library}, .*: pip install 'yaptide\[{extra}\]'$"):
        NEEDED[library, extra]()


def test_without_ssh_a_server_works_and_refuses_what_is_for_clusters(without):
    without("asyncssh")
    assert make_driver(settings(), None) is None
    with pytest.raises(NotConfigured, match=r"yaptide\[hpc\]"):
        batch_options.accept_options(None, {}, get_simulator("mcsquare"), 1, "FILES", for_external=False)


def test_doctor_says_that_clusters_are_not_reached(without, monkeypatch):
    without("asyncssh")
    monkeypatch.setattr(diagnosis.clusters, "list_names", lambda _: ["ares"])
    (finding,) = diagnosis._clusters(None)
    assert (finding.verdict, "yaptide[hpc]" in finding.message) == ("error", True)


def test_other_missing_modules_stay_what_they_are(without):
    assert is_installed("json")
    with pytest.raises(ModuleNotFoundError), needed_for("Nothing"):
        importlib.import_module("yaptide.nothing")
    with needed_for("Everything"):
        assert json
