"""The API of workers on other machines: claims, progress, scores, merges, and what happens to those who may not."""

import io
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from tests.support.api import contents
from yaptide.domain.estimators import Axis, Estimator, Page, TaskOutput
from yaptide.persistence import result_files, task_outputs
from yaptide.services import administration, recovery
from yaptide.services.backend import utc_now

DEPTHS = np.array([0.5, 1.5, 2.5])


def scores(*values, primaries=500):
    page = Page(0, "dose", "Gy", (Axis("depth", "mm", DEPTHS),), np.array(values or (1, 2, 3), dtype=float))
    return TaskOutput(primaries, (Estimator("dose", "dose", (page,), {"scorer": "dose"}),))


def with_log(output, text):
    return replace(output, logs={"output.log": text})


def packed(output) -> bytes:
    file = io.BytesIO()
    task_outputs.write_output(file, output)
    return file.getvalue()


class Worker:
    """A worker that knows a simulation's key."""

    def __init__(self, job, key=None):
        self.job, self.client = job, job.client.application.test_client()
        self.key = key or job.update_key
        self.runs = {}

    def call(self, method, path, **options):
        headers = {"Authorization": f"Bearer {self.key}"}
        return self.client.open(f"/worker/{self.job.simulation_id}{path}", method=method, headers=headers, **options)

    def claim(self, task_id=0, worker="host-1"):
        body = {"worker": worker, "simulator_version": "1.0", "simulator_digest": "ab" * 32}
        answer = self.call("POST", f"/tasks/{task_id}/claim", json=body)
        if answer.status_code == 200:
            self.runs[task_id] = {"owner": answer.json["owner"], "attempt": answer.json["attempt"]}
        return answer

    def post(self, what, task_id=0, **body):
        return self.call("POST", f"/tasks/{task_id}/{what}", json={**self.runs[task_id], **body})

    def send(self, data, task_id=0, primaries=500):
        query = {**self.runs[task_id], "primaries": primaries}
        return self.call("PUT", f"/tasks/{task_id}/output", query_string=query, data=data)

    def run(self, *outputs):
        for task_id, output in enumerate(outputs):
            assert self.claim(task_id, f"host-{task_id}").status_code == 200
            assert self.send(packed(output), task_id).json["wanted"]

    def claim_merge(self, worker="host-m"):
        return self.call("POST", "/merge/claim", json={"worker": worker})

    def fetch(self, task_id, folder: Path) -> Path:
        path = folder / f"{task_id}.npz"
        path.write_bytes(self.call("GET", f"/tasks/{task_id}/output").data)
        return path

    def merge(self, folder):
        """Merge as a worker does; the answer to the results, and the file that was sent."""
        claimed = self.claim_merge().json
        paths = [self.fetch(task["task_id"], folder) for task in claimed["tasks"]]
        file = io.BytesIO()
        with tempfile.TemporaryFile() as aside:
            merged = task_outputs.merge_outputs(paths, [task["primaries"] for task in claimed["tasks"]], aside)
            result_files.write_results(file, merged)
        return self.deliver(claimed["owner"], file.getvalue()), file.getvalue()

    def deliver(self, owner, data):
        return self.call("PUT", "/merge/results", query_string={"owner": owner}, data=data)


@pytest.fixture
def worker(job):
    return Worker(job)


def test_a_simulation_from_claim_to_results(job, worker, tmp_path):
    claimed = worker.claim().json
    assert claimed["job_id"] == job.job_id
    assert claimed["primaries"] == 500
    assert claimed["attempt"] == 1
    assert job.state == job.task(0)["task_state"] == "RUNNING"
    assert worker.post("progress", simulated_primaries=100, estimated_time=9).json["wanted"] is True
    assert job.task(0)["simulated_primaries"] == 100
    assert worker.send(packed(scores(1, 2, 3))).json["wanted"] is True
    assert job.task(0)["task_state"] == "COMPLETED"
    worker.claim(1)
    assert worker.send(packed(scores(3, 4, 5)), 1).json["wanted"] is True
    assert job.state == "MERGING_QUEUED"
    answer, _ = worker.merge(tmp_path)
    assert answer.json["wanted"] is True
    assert job.state == "COMPLETED"
    (estimator,) = job.get("/results").json["estimators"]
    assert estimator["pages"][0]["data"]["values"] == [2.0, 3.0, 4.0]
    assert estimator["metadata"]["number_of_primaries"] == "1000"


def test_two_tasks_have_different_seeds(worker):
    assert worker.claim(0).json["seed"] != worker.claim(1).json["seed"]


def test_a_claim_can_be_repeated_by_who_has_it_and_by_nobody_else(worker):
    first, again = worker.claim(worker="host-1").json, worker.claim(worker="host-1").json
    assert again == first
    refused = worker.claim(worker="host-2")
    assert refused.status_code == 409
    assert "another worker runs it" in refused.json["message"]


def test_the_bytes_of_results_are_stored_as_they_came(job, worker, tmp_path, database):
    worker.run(scores(), scores())
    _, sent = worker.merge(tmp_path)
    stored = [row[-4:] for row in contents(database)["Page"]]
    assert len(stored) == 1
    assert any(isinstance(value, bytes) and value in sent for value in stored[0])


def test_what_is_sent_twice_counts_once(job, worker, tmp_path, database):
    worker.run(scores(), scores())
    before = contents(database)
    assert worker.send(packed(scores())).json["wanted"] is False
    assert contents(database) == before
    owner = worker.claim_merge().json["owner"]
    assert worker.claim_merge().json["owner"] == owner
    assert worker.claim_merge("another").status_code == 409
    _, sent = worker.merge(tmp_path)
    after = contents(database)
    assert worker.deliver(owner, sent).json["wanted"] is False
    assert contents(database) == after


def test_a_worker_that_lost_its_task_changes_nothing(backend, job, worker, database):
    worker.claim(worker="slow")
    assert recovery.requeue_stalled(backend, utc_now()) == 1
    other = Worker(job)
    other.claim(worker="quick")
    before = contents(database)
    assert worker.post("progress", simulated_primaries=400).json["wanted"] is False
    assert worker.send(packed(scores())).json["wanted"] is False
    assert worker.post("failure", reason="no").json["wanted"] is False
    assert worker.post("return", reason="no").json["wanted"] is False
    assert contents(database) == before
    assert other.send(packed(scores())).json["wanted"] is True


def test_a_task_that_is_given_back_is_run_by_another(job, worker):
    worker.claim(worker="one")
    assert worker.post("return", reason="its worker was stopped").json["wanted"] is True
    assert job.task(0)["task_state"] == "PENDING"
    assert worker.claim(worker="two").json["attempt"] == 1


def test_a_task_that_fails_leaves_its_reason_and_logs(job, worker):
    worker.claim(0)
    assert worker.post("failure", 0, reason="no beam", logfiles={"task-0-output.log": "Error: no beam"}).json["wanted"]
    assert job.task(0)["task_state"] == "FAILED"
    assert job.get("/logfiles").json["logfiles"] == {"task-0-output.log": "Error: no beam"}
    reasons = [change["reason"] for change in job.get("/jobs/history").json["history"]]
    assert "no beam" in reasons


def test_a_canceled_task_is_told_so_and_leaves_its_logs(job, worker):
    worker.claim(0)
    job.delete("/jobs/direct")
    assert worker.post("progress", simulated_primaries=10).json["wanted"] is False
    assert worker.post("canceled", logfiles={"task-0-output.log": "half way"}).json["wanted"] is False
    assert job.get("/logfiles").json["logfiles"] == {"task-0-output.log": "half way"}
    assert worker.claim(1).status_code == 409
    assert job.state == "CANCELED"


def test_what_had_completed_before_a_simulation_was_canceled_is_kept(backend, job, worker):
    worker.claim(0)
    worker.send(packed(scores(5, 6, 7)))
    worker.claim(1)
    job.delete("/jobs/direct")
    for _ in range(2):
        recovery.clear_spool(backend)
        assert job.state == "CANCELED"
        (estimator,) = job.get("/results").json["estimators"]
        assert estimator["pages"][0]["data"]["values"] == [5.0, 6.0, 7.0]
        assert estimator["metadata"]["number_of_tasks"] == "1"
    assert backend.spool.jobs() == set()


def with_entry(name, text):
    """Scores in which a file is replaced."""
    import zipfile  # noqa: PLC0415

    source, target = zipfile.ZipFile(io.BytesIO(packed(scores()))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for info in source.infolist():
            archive.writestr(info.filename, text if info.filename == name else source.read(info))
    return target.getvalue()


def header(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


NUMBERS = np.array([1.0, 2.0, 3.0]).tobytes()
INDEX = (
    b'[{"name":"d","file_name":"d","metadata":{},"pages":[{"number":0,"name":"d","unit":"","axes":%s,'
    b'"aggregation":"mean","metadata":{},"weighted":false}]}]'
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an archive",
        packed(scores())[:-30],
        packed(scores(1, 2)),
        packed(TaskOutput(1, ())),
        packed(TaskOutput(1, (Estimator("dose", "dose", ()),))),
        with_entry("estimators.json", b"{}"),
        with_entry("estimators.json", b"["),
        with_entry("estimators.json", INDEX % b'[{"name":"","unit":"","values":[1e999,1,2]}]'),
        with_entry("0-0.npy", header("(3,)") + NUMBERS[:-1]),
        with_entry("0-0.npy", header("(3,)", "|O") + NUMBERS),
        with_entry("0-0.npy", header("(4611686018427387904,)") + NUMBERS),
        with_entry("0-0.npy", header("(3, 1)") + NUMBERS),
        with_entry("0-0.npy", header("(3,)", "<c8") + NUMBERS),
        with_entry("0-0.npy", b"\x93NUMPY\x02\x00"),
    ],
)
def test_scores_that_cannot_be_merged_are_refused(backend, job, worker, data):
    worker.claim()
    answer = worker.send(data)
    assert answer.status_code == 400, answer.json
    assert answer.json["message"]
    assert job.task(0)["task_state"] == "RUNNING"
    assert list((backend.spool.path / job.job_id).iterdir()) == []
    assert worker.send(packed(scores())).json["wanted"] is True


@pytest.mark.parametrize("primaries", [0, 501, 10**30, -1, "x"])
def test_primaries_that_cannot_be_are_refused(worker, primaries):
    worker.claim()
    assert worker.send(packed(scores()), primaries=primaries).status_code == 400


def payload(text: bytes):
    from yaptide.persistence import codec  # noqa: PLC0415

    return codec.encode_text(text)


def results_of(page: bytes, name="dose", metadata=b"{}"):
    from yaptide.persistence.payload import NewEstimator, NewPage  # noqa: PLC0415

    file = io.BytesIO()
    pages = (NewPage(0, "dose", 1, payload(page)),)
    result_files.write_results(file, [NewEstimator(name, name, payload(metadata), pages)])
    return file.getvalue()


def with_others(data: bytes, count: int) -> bytes:
    """The same file with entries that its index does not name."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            archive.writestr(f"more-{number}", b"")
    return file.getvalue()


GOOD = b'{"dimensions":0,"data":{"name":"d","unit":"","values":[1.5]},"metadata":{"page_number":"0"}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + b"\0" * 18,
        results_of(GOOD)[:-30],
        results_of(GOOD).replace(b"\x1f\x8b", b"\x1f\x8c"),
        results_of(b"{}"),
        results_of(b'{"dimensions":0,"data":{"values":[NaN]}}'),
        results_of(b'{"dimensions":0,"data":{"values":[1,2]}}'),
        results_of(b'{"dimensions":1,"data":{"values":[1,2]}}'),
        results_of(GOOD, name=""),
        results_of(GOOD, name="x" * 501),
        results_of(GOOD, metadata=b"[]"),
        with_others(results_of(GOOD), 3000),
    ],
)
def test_results_that_cannot_be_shown_are_refused(job, worker, data):
    worker.run(scores(), scores())
    owner = worker.claim_merge().json["owner"]
    answer = worker.deliver(owner, data)
    assert answer.status_code == 400, answer.json
    assert job.state == "MERGING_RUNNING"
    assert worker.deliver(owner, results_of(GOOD)).json["wanted"] is True
    assert job.state == "COMPLETED"


def test_a_merge_that_cannot_be_done_ends_the_simulation(job, worker):
    worker.run(scores(), scores())
    owner = worker.claim_merge().json["owner"]
    body = {"owner": owner, "reason": "different pages"}
    assert worker.call("POST", "/merge/failure", json=body).json["wanted"] is True
    assert job.state == "FAILED"
    assert worker.call("POST", "/merge/heartbeat", json={"owner": owner}).json["wanted"] is False


def test_a_merge_whose_worker_is_silent_is_given_to_another(backend, job, worker):
    worker.run(scores(), scores())
    owner = worker.claim_merge("slow").json["owner"]
    assert worker.call("POST", "/merge/heartbeat", json={"owner": owner}).json["wanted"] is True
    assert recovery.requeue_stalled(backend, utc_now()) == 1
    assert worker.call("POST", "/merge/heartbeat", json={"owner": owner}).json["wanted"] is False
    assert worker.deliver(owner, results_of(GOOD)).json["wanted"] is False
    assert worker.claim_merge("quick").status_code == 200


RUN = {"owner": "x/y", "attempt": 1}
CALLS = [
    ("POST", "/tasks/0/claim", {"worker": "x", "simulator_version": "", "simulator_digest": ""}),
    ("PUT", "/tasks/0/output?owner=x&attempt=1&primaries=1", None),
    ("PUT", "/tasks/0/files?owner=x&attempt=1&exit_code=0", None),
    ("GET", "/tasks/0/output", None),
    ("POST", "/tasks/0/progress", {**RUN, "simulated_primaries": 1}),
    ("POST", "/tasks/0/failure", RUN),
    ("POST", "/tasks/0/canceled", RUN),
    ("POST", "/tasks/0/return", RUN),
    ("POST", "/merge/claim", {"worker": "x"}),
    ("POST", "/merge/heartbeat", {"owner": "x"}),
    ("POST", "/merge/failure", {"owner": "x", "reason": ""}),
    ("PUT", "/merge/results?owner=x", None),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1].partition('?')[0]}")
@pytest.mark.parametrize("key", ["", "wrong", "an other's"])
def test_a_wrong_key_changes_nothing(job, signed_in, database, call, key):
    from tests.support.api import submit  # noqa: PLC0415

    method, path, body = call
    forger = Worker(job, submit(signed_in).update_key if key == "an other's" else key or " ")
    before = contents(database)
    options = {"json": body} if body is not None else {"data": b"x"} if method == "PUT" else {}
    answer = forger.call(method, path, **options)
    assert (answer.status_code, answer.json) == (400, {"message": "Invalid update key"})
    large = {"data": b"{" * 2_000_000, "content_type": "application/json"}
    if method != "GET":
        assert forger.call(method, path, **large).json == {"message": "Invalid update key"}
    assert contents(database) == before


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1].partition('?')[0]}")
@pytest.mark.parametrize("number", ["2147483648", "9223372036854775808", "9" * 5000], ids=len)
def test_a_number_that_no_column_holds_is_the_address_of_nothing(job, client, database, call, number):
    method, path, body = call
    before = contents(database)
    headers = {"Authorization": f"Bearer {job.update_key}"}
    places = [f"/worker/{number}{path}"]
    if "/tasks/" in path:
        places.append(f"/worker/{job.simulation_id}{path.replace('/tasks/0', f'/tasks/{number}')}")
    for place in places:
        answer = client.open(place, method=method, json=body, headers=headers)
        assert answer.status_code in (400, 404)  # without a simulation the key fits none
        assert list(answer.json) == ["message"]
    assert contents(database) == before


def test_workers_of_the_version_before_also_say_for_the_how_manieth_time_they_run(worker):
    claimed = worker.claim().json
    claim = {"owner": claimed["owner"], "attempt": claimed["attempt"], "simulated_primaries": 10}
    assert worker.call("POST", "/tasks/0/progress", json=claim).json["wanted"] is True


@pytest.mark.parametrize("name", ["", "a/b", "x" * 201, "\0"])
def test_a_worker_has_a_name(worker, name):
    assert worker.claim(worker=name).status_code == 400


def test_what_a_simulator_printed_is_kept_of_runs_that_went_well_too(job, worker):
    for task_id in (0, 1):
        worker.claim(task_id, f"host-{task_id}")
        assert worker.send(packed(with_log(scores(), f"{task_id}: all is <well>")), task_id).json["wanted"]
    assert job.get("/logfiles").json["logfiles"] == {
        "task-0-output.log": "0: all is &lt;well&gt;",
        "task-1-output.log": "1: all is &lt;well&gt;",
    }


def test_logs_of_success_take_a_small_part_of_the_room(job, worker, backend):
    worker.claim(0)
    assert worker.send(packed(with_log(scores(), "x" * (backend.limits.logfiles // 16))), 0).json["wanted"]
    assert job.task(0)["task_state"] == "COMPLETED"
    assert job.get("/logfiles").status_code == 404
    worker.claim(1, "host-1")
    worker.post("failure", 1, reason="no beam", logfiles={"task-1-output.log": "Error: no beam"})
    assert job.get("/logfiles").json["logfiles"] == {"task-1-output.log": "Error: no beam"}


def test_logs_of_success_are_dropped_where_the_users_quota_is_used_up(job, worker, backend):
    alice = administration.find_user(backend.database, "alice", "")
    administration.set_quota(backend.database, alice, 1)
    worker.claim(0)
    assert worker.send(packed(with_log(scores(), "all is well"))).json["wanted"]
    assert job.get("/logfiles").status_code == 404


@pytest.mark.parametrize("logs", [b"[1]", b"{", b'{"a": 1}', b'{"a": "%s"}' % (b"x" * (8 << 20))])
def test_logs_that_are_none_are_refused_with_the_scores(worker, logs):
    file = io.BytesIO(packed(scores()))
    with ZipFile(file, "a", ZIP_DEFLATED) as archive:
        archive.writestr("logs.json", logs)
    worker.claim(0)
    assert worker.send(file.getvalue()).status_code == 400
    assert worker.send(packed(scores())).json["wanted"]
