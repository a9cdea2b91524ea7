"""Descriptions of simulations, which come from other installations or from attackers."""

import msgspec
import pytest

from yaptide.domain.errors import InvalidInput
from yaptide.domain.manifest import SimulationManifest, check_manifest
from yaptide.domain.states import FINAL_STATES, EntityState

TIME = "2026-03-01T12:00:00Z"
SHA = "0123456789abcdef" * 4


def payload(name="entry", **changes):
    return {"entry": name, "size": 5, "sha256": SHA} | changes


def task(number=0, state="COMPLETED", **changes):
    numbers = {"requested_primaries": 10, "simulated_primaries": 10, "attempts": 1}
    return {"task_id": number, "task_state": state} | numbers | changes


def change(whose, before, after):
    return {"task_id": whose, "from_state": before, "to_state": after, "time": TIME, "actor": "alice"}


def page(number=0, **changes):
    return {"page_number": number, "page_name": "Dose", "page_dimension": 1, "data": payload("page")} | changes


def estimator(name="dose", *pages, **changes):
    result = {"name": name, "file_name": "dose_", "metadata": payload("metadata"), "pages": list(pages or (page(),))}
    return result | changes


def document(**changes):
    """The complete manifest of a simulation with two tasks."""
    return {
        "job_id": "20260301-direct.DIRECT",
        "user": "alice",
        "title": "",
        "platform": "DIRECT",
        "input_type": "FILES",
        "sim_type": "mcsquare",
        "job_state": "COMPLETED",
        "start_time": TIME,
        "end_time": TIME,
        "cluster_name": None,
        "simulator_version": None,
        "simulator_digest": SHA,
        "input": payload("input"),
        "tasks": [task(0), task(1, seed=-(2**63))],
        "history": [
            change(None, None, "PENDING"),
            change(0, None, "PENDING"),
            change(None, "PENDING", "RUNNING"),
            change(0, "PENDING", "COMPLETED"),
            change(None, "RUNNING", "RUNNING"),
            change(None, "RUNNING", "COMPLETED"),
        ],
        "estimators": [estimator("a", page(0), page(1)), estimator("b")],
        "logfiles": [payload("logs"), payload("more logs", sha256="f" * 64)],
    } | changes


def read(**changes):
    return msgspec.convert(document(**changes), SimulationManifest)


def test_what_agrees_with_itself_is_taken():
    check_manifest(read())
    check_manifest(read(platform="BATCH", cluster_name="ares"))
    check_manifest(
        read(history=[], tasks=[], estimators=[], logfiles=[], input=None, simulator_digest=None, end_time=None)
    )


def test_all_payloads_are_named():
    names = [each.entry for each in read().payloads()]
    assert sorted(names) == sorted(["input", "logs", "more logs", "metadata", "page", "page", "metadata", "page"])
    assert "input" not in [each.entry for each in read(input=None).payloads()]


@pytest.mark.parametrize("state", EntityState)
def test_only_what_has_ended_is_taken(state):
    for changes in ({"job_state": state, "history": []}, {"tasks": [task(0, state)], "history": []}):
        if state in FINAL_STATES:
            check_manifest(read(**changes))
        else:
            with pytest.raises(InvalidInput, match="has not ended"):
                check_manifest(read(**changes))


@pytest.mark.parametrize("changes", [{"platform": "BATCH"}, {"cluster_name": "ares"}])
def test_a_cluster_is_that_of_the_platform(changes):
    with pytest.raises(InvalidInput, match="must have a cluster_name"):
        check_manifest(read(**changes))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"tasks": [task(0), task(0)]}, "tasks"),
        ({"logfiles": [payload("a"), payload("b")]}, "log files"),
        ({"estimators": [estimator(), estimator()]}, "estimators"),
        ({"estimators": [estimator("a"), estimator("b", page(3), page(3))]}, "pages"),
    ],
)
def test_nothing_is_there_twice(changes, what):
    with pytest.raises(InvalidInput, match=f"duplicate {what}"):
        check_manifest(read(**changes))


@pytest.mark.parametrize(
    "history",
    [
        [change(None, "COMPLETED", "RUNNING"), change(None, "RUNNING", "COMPLETED")],
        [change(None, "RUNNING", "PENDING"), change(None, "PENDING", "COMPLETED")],
        [change(0, "MERGING_QUEUED", "COMPLETED")],
        [change(0, "FAILED", "COMPLETED")],
    ],
)
def test_a_move_that_cannot_have_been_is_refused(history):
    with pytest.raises(InvalidInput, match="has a transition that is not allowed"):
        check_manifest(read(history=history))


def test_what_a_task_may_a_simulation_may_not_and_the_other_way_round():
    check_manifest(read(history=[change(0, "RUNNING", "PENDING"), change(0, "PENDING", "COMPLETED")]))
    check_manifest(
        read(history=[change(None, "MERGING_RUNNING", "MERGING_QUEUED"), change(None, "MERGING_QUEUED", "COMPLETED")])
    )


@pytest.mark.parametrize(
    "history",
    [
        [change(None, "RUNNING", "FAILED")],
        [change(1, "RUNNING", "CANCELED")],
        [change(None, "RUNNING", "COMPLETED"), change(None, None, "PENDING")],
    ],
)
def test_the_history_leads_to_the_present_states(history):
    with pytest.raises(InvalidInput, match="does not end in its states"):
        check_manifest(read(history=history))


def test_the_history_may_tell_of_tasks_that_are_gone():
    check_manifest(read(history=[change(7, "RUNNING", "FAILED")]))


REFUSED = {
    "job_id": ["", "..", ".a", "a/b", "a b", "-a", "a" * 201, "a\n", "é", 7],
    "user": ["", "a" * 501, "a\0", None],
    "title": ["a" * 10_001, "a\0b", None],
    "platform": ["", "direct", None],
    "input_type": ["", "files"],
    "sim_type": ["", "x" * 501],
    "job_state": ["", "DONE"],
    "start_time": ["", "2026-03-01T12:00:00", None],
    "cluster_name": ["", "x" * 501],
    "simulator_version": ["v" * 10_001],
    "simulator_digest": ["", SHA[:-1], SHA + "0", SHA.upper(), SHA[:-1] + "g"],
    "input": [{}, payload(size=-1), payload(size=2**63), payload(sha256=""), payload(more=1), payload("a\0")],
    "tasks": [
        [task(-1)],
        [task(2**31)],
        [task(attempts=2**31)],
        [task(attempts=-1)],
        [task(requested_primaries=-1)],
        [task(requested_primaries=2**63)],
        [task(simulated_primaries=-1)],
        [task(seed=2**63)],
        [task(seed=-(2**63) - 1)],
        [task(estimated_time=-1)],
        [task(estimated_time=2**31)],
        [task(start_time="2026-03-01T12:00:00")],
        [task(owner="me")],
    ],
    "history": [
        [change(-1, None, "PENDING")],
        [change(None, None, None)],
        [change(None, None, "PENDING") | {"reason": "a" * 1_000_001}],
        [change(None, None, "PENDING") | {"actor": "a\0"}],
        [change(None, None, "PENDING") | {"more": 1}],
    ],
    "estimators": [
        [estimator("a\0")],
        [estimator(more=1)],
        [estimator("a", page(-1))],
        [estimator("a", page(2**31))],
        [estimator("a", page(page_dimension=-1))],
        [estimator("a", page(page_name="a" * 10_001))],
        [estimator("a", page(more=1))],
    ],
    "refused_pages": ["a" * 1_000_001, "a\0"],
    "more": [1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_column_or_no_folder_takes_is_refused(name):
    for value in REFUSED[name]:
        with pytest.raises(msgspec.ValidationError):
            read(**{name: value})


TAKEN = {
    "job_id": ["a", "A9_.-", "a" * 200],
    "user": ["a", "a" * 500],
    "title": ["", "a" * 10_000],
    "cluster_name": [None, "x" * 500],
    "simulator_digest": [None, SHA],
    "input": [None, payload(size=0), payload(size=2**63 - 1), payload("")],
    "tasks": [
        [task(0)],
        [task(2**31 - 1)],
        [task(attempts=0)],
        [task(attempts=2**31 - 1)],
        [task(requested_primaries=0, simulated_primaries=0)],
        [task(requested_primaries=2**63 - 1)],
        [task(seed=2**63 - 1)],
        [task(seed=-(2**63))],
        [task(estimated_time=0, start_time=TIME, end_time=TIME, last_update_time=TIME)],
        [task(estimated_time=2**31 - 1)],
    ],
    "history": [[], [change(None, None, "PENDING") | {"reason": "a" * 1_000_000}]],
    "refused_pages": [None, "", "a" * 1_000_000],
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_every_column_takes_is_taken(name):
    for value in TAKEN[name]:
        read(**{name: value})


def test_what_is_left_out_is_not_written():
    """So that descriptions of the version before stay as they were."""
    assert "refused_pages" not in msgspec.to_builtins(read())
    written = msgspec.to_builtins(read(tasks=[task(0)]))["tasks"][0]
    assert written["seed"] is None
