"""A disk without room: nothing is accepted or begun, and nothing fails for it."""

import shutil
import threading
from collections import namedtuple

import pytest

from tests.support import payloads
from yaptide.disk import MIN_FREE
from yaptide.platforms.direct.embedded import EmbeddedExecutor, Folders
from yaptide.platforms.direct.worker import Place, Worker
from yaptide.platforms.direct.worker_api import Server

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)


@pytest.fixture
def full(monkeypatch):
    """Sets whether the disk is full."""
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    is_full = threading.Event()
    left = {True: MIN_FREE - 1, False: MIN_FREE}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40, left[is_full.is_set()]))
    return is_full


def test_a_submission_is_refused_and_leaves_nothing(signed_in, full):
    full.set()
    refused = signed_in.post("/jobs/direct", json=payloads.submission())
    assert refused.status_code == 507
    assert refused.json["message"] == (
        "No disk space left for results, an administrator must free some: less than 256 MiB are free"
    )
    assert signed_in.get("/user/simulations").json["simulations"] == []
    full.clear()
    assert signed_in.post("/jobs/direct", json=payloads.submission()).status_code == 202


def test_the_executor_begins_no_task(signed_in, backend, tmp_path, monkeypatch, full):
    files = {"input_type": "files", "input_json": None, "input_files": payloads.shieldhit_files()}
    assert signed_in.post("/jobs/direct", json=payloads.submission(**files)).status_code == 202
    begun = []
    executor = EmbeddedExecutor(backend, Folders(tmp_path, tmp_path, tmp_path / "work"), 1, 60)
    executor.owner = f"{backend.spool.place}executor"
    monkeypatch.setattr(executor, "_installed", lambda: {"shieldhit": None})
    monkeypatch.setattr(executor, "_run", lambda claim, *_: begun.append(claim.task_id))
    full.set()
    assert not executor._work_once()
    assert begun == []
    full.clear()
    assert executor._work_once()
    assert begun == [0]


def test_a_worker_does_not_ask_for_a_task(database, tmp_path, monkeypatch, full):
    asked = []
    monkeypatch.setattr(Server, "post", lambda _, path, **__: asked.append(path))
    full.set()
    worker = Worker(Place("http://127.0.0.1:1", tmp_path, tmp_path / "work", 60))
    worker.simulate_task(1, 0, "shieldhit", "key")
    assert asked == []
