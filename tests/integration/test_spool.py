"""The spool, in a folder and in a store that speaks S3: what is there is whole, and the same for all who share it."""

import numpy as np
import pytest

from tests.support.s3 import store
from yaptide.domain.errors import InvalidInput, Unavailable
from yaptide.domain.estimators import Estimator, Page, TaskOutput
from yaptide.persistence import task_outputs
from yaptide.services.bucket import Bucket
from yaptide.services.spool import Folder

JOB = "20260301-100000-00000000-0000-4000-8000-000000000000DIRECT"
LARGE = b"0123456789abcdef" * 1_000_000


@pytest.fixture(scope="module")
def s3():
    with store() as result:
        yield result


@pytest.fixture(params=["folder", "bucket"])
def make(request, tmp_path, monkeypatch):
    """Makes the same spool each time."""
    if request.param == "folder":
        return lambda: Folder(tmp_path / "spool")
    result = request.getfixturevalue("s3")
    for name, value in result.variables.items():
        monkeypatch.setenv(name, value)
    return lambda: Bucket(f"{result.url}-{tmp_path.name}", tmp_path / "aside")


def leave(spool, data, task_id=0):
    with spool.receive(JOB, task_id) as file:
        file.write(data)


def read(spool, tmp_path, task_id=0):
    return spool.fetch(JOB, task_id, tmp_path).read_bytes()


@pytest.mark.parametrize("data", [b"", b"scores", LARGE], ids=["nothing", "little", "much"])
def test_what_was_left_is_found_by_others(make, tmp_path, data):
    leave(make(), data)
    assert read(make(), tmp_path) == data
    assert make().jobs() == {JOB}


def test_what_is_there_already_stays(make, tmp_path):
    leave(make(), b"first")
    leave(make(), b"second")
    assert read(make(), tmp_path) == b"first"


def test_what_was_not_finished_is_not_there(make, tmp_path):
    def fail():
        with make().receive(JOB, 0) as file:
            file.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert not make().fetch(JOB, 0, tmp_path).exists()
    leave(make(), b"whole")
    assert read(make(), tmp_path) == b"whole"


def test_removing_takes_everything_of_one_simulation(make, tmp_path):
    for task_id in range(3):
        leave(make(), b"scores", task_id)
    with make().receive("another", 0) as file:
        file.write(b"scores")
    make().remove(JOB)
    make().remove(JOB)
    assert make().jobs() == {"another"}
    assert not make().fetch(JOB, 1, tmp_path).exists()


def test_all_who_share_a_spool_have_the_same_name_for_it(make):
    names = {make().place for _ in range(3)}
    assert len(names) == 1
    assert names.pop().endswith("/")
    assert make().jobs() == set()


def test_two_spools_have_two_names(make, tmp_path):
    assert make().place != Folder(tmp_path / "other").place


def test_nothing_new_is_forgotten(make):
    leave(make(), b"scores")
    assert not make().is_forgotten(JOB)
    assert not make().is_forgotten("nobody knows it")


def test_scores_are_merged_from_wherever_they_are(make, tmp_path):
    for task_id, value in enumerate((1.0, 3.0)):
        page = Page(0, "dose", "Gy", (), np.array([value]))
        with make().receive(JOB, task_id) as file:
            task_outputs.write_output(file, TaskOutput(10, (Estimator("dose", "dose", (page,)),)))
    with (tmp_path / "payloads").open("w+b") as aside:
        (merged,) = task_outputs.merge_outputs(
            [make().fetch(JOB, task_id, tmp_path) for task_id in range(2)], [10, 30], aside
        )
    assert b'"2"' not in merged.pages[0].payload.data
    assert merged.pages[0].number == 0


def test_a_store_that_is_away_is_said(tmp_path, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not to be told")
    with pytest.raises(Unavailable, match="is not available") as message:
        Bucket("s3://bucket", tmp_path).jobs()
    assert "not to be told" not in str(message.value)


def test_a_url_of_nothing_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="Invalid setting YAPTIDE_SPOOL"):
        Bucket("gopher://bucket", tmp_path).jobs()
