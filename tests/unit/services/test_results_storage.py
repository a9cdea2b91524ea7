"""Results are stored completely or not at all."""

import json

import pytest

from tests.support import payloads
from tests.support.payloads import estimator, page
from tests.support.posting import SPOILT, body, pages_of, states, stored, values
from tests.support.storing import rows_of
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.payload import NewEstimator, NewPage
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, results_storage, results_upload, simulations, tasks
from yaptide.services.simulations import Submission
from yaptide.services.tasks import Update

S = EntityState


@pytest.fixture
def project(backend, user):
    """Submit a project of the web editor with these outputs, for SHIELD-HIT12A."""

    def submitting(*outputs, **changes):
        drawn = payloads.project(*outputs) | changes
        return simulations.submit_simulation(backend, user, Submission("shieldhit", 1, "t", input_json=drawn))

    return submitting


def test_the_bytes_of_the_payloads_are_counted(backend, database, post):
    before = rows_of(database, "Simulation")[0]["stored_bytes"]
    post(estimator("a", page(0), page(1)), estimator("b"))
    taken = [row["compressed_data"] for name in ("Estimator", "Page") for row in rows_of(database, name)]
    assert len(taken) == 5
    assert rows_of(database, "Simulation")[0]["stored_bytes"] == before + sum(map(len, taken))


def test_the_same_again_changes_nothing_however_it_is_sent(backend, database, post, job):
    sent = [estimator("a", page(0, "A", values(3_000)), page(1)), estimator("b")]
    post(*sent)
    before = stored(database)
    assert post(*sent).refused == []
    assert results_upload.post_results(backend, body(job, *sent)).job_id == job.job_id
    assert stored(database) == before


@pytest.mark.parametrize(
    "others",
    [
        [estimator("dose_", page(values=(9.0, 9.0, 9.0)))],
        [estimator("dose_", page(0), page(1))],
        [estimator("dose_") | {"metadata": {}}],
        [estimator("dose2_")],
        [estimator("dose_"), estimator("dose2_")],
    ],
    ids=["other numbers", "another page", "other metadata", "another name", "another estimator"],
)
def test_other_results_are_refused_and_the_first_are_kept(backend, database, job, others):
    results_upload.post_results(backend, body(job, estimator("dose_")))
    before = stored(database)
    with pytest.raises(Conflict, match="already has other results"):
        results_upload.post_results(backend, body(job, *others))
    assert stored(database) == before


@pytest.mark.parametrize("state", [S.CANCELED, S.FAILED])
def test_results_of_what_was_canceled_or_failed_are_refused(backend, database, post, job, clock, state):
    with database.writing() as connection:
        locked = transitions.lock_simulation(connection, job.simulation_id)
        lifecycle.end_simulation(connection, locked, state, Audit("x", clock()))
    before = stored(database)
    with pytest.raises(Conflict, match=f"is {state}"):
        post(estimator())
    assert stored(database) == before


def test_results_with_a_failed_task_are_kept_and_no_success(backend, database, user, job, post):
    tasks.report_task(backend, job.simulation_id, 0, job.update_key, Update(task_state=S.FAILED))
    post(estimator())
    assert states(database) == ["FAILED", "FAILED", "COMPLETED"]
    assert pages_of(backend, user, job) == [page()]


def test_no_two_estimators_and_no_two_pages_are_the_same():
    def new(name, *numbers):
        return NewEstimator(
            name, name, codec.encode_payload({}), tuple(NewPage(n, "x", 1, codec.encode_payload({})) for n in numbers)
        )

    results_storage.check_unique([new("a", 0, 1), new("b", 0)])
    with pytest.raises(InvalidInput, match="a duplicate estimator"):
        results_storage.check_unique([new("a", 0), new("a", 1)])
    with pytest.raises(InvalidInput, match="a duplicate page"):
        results_storage.check_unique([new("a", 0, 0)])


def test_results_that_are_there_are_not_added_again(backend, database, job):
    """As for the results of a canceled simulation, which two processes may store."""
    results_upload.post_results(backend, body(job, estimator("a", page(0), page(1)), estimator("b")))
    before = stored(database)
    new = NewEstimator("c", "c", codec.encode_payload({}), (NewPage(0, "x", 1, codec.encode_payload({})),))
    with database.writing() as connection:
        results_storage.add_results(connection, transitions.lock_simulation(connection, job.simulation_id), [new])
    assert stored(database) == before


# Rejected pages


def remark_of(database):
    """The entry of the history that names the rejected pages."""
    [remark] = [row["reason"] for row in rows_of(database, "StateHistory") if "left out" in (row["reason"] or "")]
    return remark


def test_of_very_many_refused_pages_some_are_named(database, post, monkeypatch):
    monkeypatch.setattr(results_storage, "MOST_NAMED", 5)
    monkeypatch.setattr(results_storage, "_MOST_IN_HISTORY", 3)
    bad = [page(number) | SPOILT["another length"] for number in range(1, 8)]
    refused = post(estimator("a", page(0), *bad)).refused
    assert [each.page for each in refused] == [1, 2, 3, 4, 5]
    assert len(json.loads(rows_of(database, "Simulation")[0]["refused_pages"])) == 5
    remark = remark_of(database)
    assert remark.count("of estimator") == 3
    assert remark.endswith("; and 4 more")


@pytest.mark.parametrize(("refused", "in_history", "more"), [(20, 20, ""), (1001, 20, "; and 981 more")])
def test_the_history_names_20_rejected_pages_and_the_simulation_1000(database, job, clock, refused, in_history, more):
    pages = (NewPage(0, "x", 1, codec.encode_payload({})),)
    rejected = tuple(RefusedPage("a", number, "it has 2 values") for number in range(1, refused + 1))
    new = NewEstimator("a", "a", codec.encode_payload({}), pages, rejected)
    with database.writing() as connection:
        locked = transitions.lock_simulation(connection, job.simulation_id)
        results_storage.store_results(connection, locked, [new], Audit("worker", clock()))
    named = "; ".join(f"page {number} of estimator 'a': it has 2 values" for number in range(1, in_history + 1))
    assert remark_of(database) == f"left out: {named}{more}"
    listed = json.loads(rows_of(database, "Simulation")[0]["refused_pages"])
    assert [one["page"] for one in listed] == list(range(1, min(refused, 1000) + 1))


def test_just_as_many_are_all_named(database, post, monkeypatch):
    monkeypatch.setattr(results_storage, "_MOST_IN_HISTORY", 3)
    post(estimator("a", page(0), *(page(number) | SPOILT["another length"] for number in (1, 2, 3))))
    assert "more" not in remark_of(database)


# Names in a project


@pytest.mark.parametrize(
    ("outputs", "posted", "named"),
    [
        (("dose", "dose2"), ["dose2_", "dose_"], [("dose", "dose_"), ("dose2", "dose2_")]),
        (("b", "a"), ["a_", "b_"], [("b", "b_"), ("a", "a_")]),
        (("dose", "dose2"), ["other_", "dose2_"], [("dose2", "dose2_"), ("other_", "other_")]),
        (("dose", "dose_"), ["dose_", "dose"], [("dose", "dose"), ("dose_", "dose_")]),
        (
            ("the dose", "b"),
            ["b", "other-2", "the_dose-2-Fluence", "the_dose"],
            [
                *[("the dose", "the_dose"), ("the_dose-2-Fluence", "the_dose-2-Fluence")],
                *[("b", "b"), ("other-2", "other-2")],
            ],
        ),
    ],
)
def test_estimators_are_named_and_ordered_as_in_the_project(backend, database, project, outputs, posted, named):
    job = project(*outputs)
    results_upload.post_results(backend, body(job, *map(estimator, posted)))
    assert [(row["name"], row["file_name"]) for row in rows_of(database, "Estimator")] == named


def test_two_results_of_one_output_are_refused(backend, database, project):
    job = project("dose")
    with pytest.raises(InvalidInput, match="a duplicate estimator"):
        results_upload.post_results(backend, body(job, estimator("dose"), estimator("dose_")))
    assert rows_of(database, "Estimator") == []


@pytest.mark.parametrize(
    "document",
    [
        7,
        [],
        {"scoringManager": 7},
        {"scoringManager": {"outputs": {"a": 1}}},
        {"scoringManager": {"outputs": [7, {"name": 7}, {}, None]}},
    ],
)
def test_a_project_that_names_no_outputs_names_nothing(backend, database, job, document):
    """What was submitted years ago, or elsewhere, may look like anything."""
    data = codec.encode_payload({"input_type": "EDITOR", "input_json": document}).columns()
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE Simulation SET input_type = 'EDITOR'")
        connection.exec_driver_sql("UPDATE Input SET compressed_data = ?", (data["compressed_data"],))
    results_upload.post_results(backend, body(job, estimator("b_"), estimator("a_")))
    assert [row["name"] for row in rows_of(database, "Estimator")] == ["b_", "a_"]


def test_a_project_without_input_names_nothing(backend, database, project):
    job = project("dose")
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM Input")
    results_upload.post_results(backend, body(job, estimator("dose_")))
    assert [row["name"] for row in rows_of(database, "Estimator")] == ["dose_"]


def test_input_files_name_nothing(backend, database, job):
    results_upload.post_results(backend, body(job, estimator("b_"), estimator("a_")))
    assert [row["name"] for row in rows_of(database, "Estimator")] == ["b_", "a_"]
