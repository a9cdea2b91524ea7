"""Results: taken in whole or not at all, and given out as they were stored."""

import io
import json
import math
import tempfile
import zlib
from dataclasses import replace

import orjson
import pytest

from tests.support import payloads
from tests.support.payloads import bits, estimator, page, with_hidden_numbers
from tests.support.storing import rows_of, submitted
from yaptide.domain.errors import Conflict, Contended, Forbidden, InvalidInput, NotFound
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import EntityState
from yaptide.persistence import codec, result_files
from yaptide.persistence.payload import LargePayload, NewEstimator, NewPage, Payload
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, results, results_storage, results_upload, simulations, tasks, users
from yaptide.services.results_upload import Key
from yaptide.services.simulations import Submission
from yaptide.services.tasks import Update

S = EntityState
MANY = "1.5," * 50_000


@pytest.fixture
def user_and_job(backend, clock):
    """A simulation of two tasks with input files, and its user."""
    return submitted(backend, 2)


@pytest.fixture
def user(user_and_job):
    return user_and_job[0]


@pytest.fixture
def job(user_and_job):
    return user_and_job[1]


def body(job, *estimators, **changes):
    """A body of `POST /results` as Python writes it, NaN and all."""
    result = {"simulation_id": job.simulation_id, "update_key": job.update_key, "estimators": estimators}
    return json.dumps(result | changes).encode()


@pytest.fixture(params=["in memory", "in a file"])
def post(request, backend, job, monkeypatch):
    """Post results that are held in memory, or that are too large for that."""
    monkeypatch.setattr(codec, "LARGE", 5_000)

    def posting(*estimators, **changes):
        data = body(job, *estimators, **changes)
        if request.param == "in memory":
            return results_upload.post_results(backend, data)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            return results_upload.post_results(backend, file)

    return posting


@pytest.fixture
def project(backend, user):
    """Submit a project of the web editor with these outputs, for SHIELD-HIT12A."""

    def submitting(*outputs, **changes):
        drawn = payloads.project(*outputs) | changes
        return simulations.submit_simulation(backend, user, Submission("shieldhit", 1, "t", input_json=drawn))

    return submitting


def read(backend, user, job, **query):
    """The document that `GET /results` gives, which is one member of gzip."""
    document = results.read_answer(backend, user, job.job_id, **query)
    length, data = document.length, b"".join(codec.stitch_gzip(document))
    member = zlib.decompressobj(31)
    text = member.decompress(data)
    assert member.eof
    assert member.unused_data == b""
    assert length in (None, len(data))
    return orjson.loads(text)


def pages_of(backend, user, job, name="dose_"):
    [result] = read(backend, user, job, estimator=name)["estimators"]
    return result["pages"]


def stored(database):
    return [rows_of(database, name) for name in ("Simulation", "Task", "Estimator", "Page", "StateHistory")]


def states(database):
    return [rows_of(database, "Simulation")[0]["job_state"], *(t["task_state"] for t in rows_of(database, "Task"))]


def values(count, seed=0.5):
    return tuple(seed + number / 7 for number in range(count))


# What is taken in


def test_results_end_the_simulation_and_its_tasks(backend, database, post, job, clock):
    clock.later(minutes=1)
    assert post(estimator()).job_id == job.job_id
    assert states(database) == ["COMPLETED", "COMPLETED", "COMPLETED"]
    simulation = rows_of(database, "Simulation")[0]
    assert simulation["end_time"] == clock()
    assert simulation["refused_pages"] is None
    last = rows_of(database, "StateHistory")[-1]
    assert (last["task_id"], last["actor"], last["reason"]) == (None, "worker", None)


def test_what_was_posted_comes_back_bit_by_bit(backend, user, post, job):
    hard = (0.1, 1 / 3, -0.0, 5e-324, math.nextafter(1, 2), 1.7976931348623157e308, 1e22)
    sent = [
        estimator("b", page(0, "A", values(3_000)), page(1, "B", hard)),
        estimator("a", page(0, "C", values(9_000))),
    ]
    post(*sent)
    result = read(backend, user, job)
    assert result == {"message": "Results", "estimators": sent}
    assert list(map(bits, result["estimators"][0]["pages"][1]["data"]["values"])) == list(map(bits, hard))


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


@pytest.mark.parametrize("changes", [{"update_key": "x"}, {"update_key": ""}, {"simulation_id": 99}])
def test_a_wrong_key_changes_nothing(database, post, changes):
    before = stored(database)
    with pytest.raises(InvalidInput, match="Invalid update key"):
        post(estimator(), **changes)
    assert stored(database) == before


def test_a_key_that_was_right_when_the_body_began_may_be_worthless_at_its_end(backend, database, job, monkeypatch):
    """Large results take their time; that is looked at once more with the simulation locked."""
    check, answers = lifecycle.check_update_key, iter([True])

    def only_once(*args):
        if next(answers, False):
            return check(*args)
        raise InvalidInput("Invalid update key")

    monkeypatch.setattr(lifecycle, "check_update_key", only_once)
    before = stored(database)
    with pytest.raises(InvalidInput, match="Invalid update key"):
        results_upload.post_results(backend, body(job, estimator()))
    assert stored(database) == before


def test_results_are_stored_though_the_transaction_has_to_give_way(backend, database, post, monkeypatch):
    add, tries = results_storage.results.add_results, iter([Contended("a deadlock")])

    def give_way_once(*args):
        for error in tries:
            raise error
        return add(*args)

    monkeypatch.setattr(results_storage.results, "add_results", give_way_once)
    post(estimator())
    assert states(database)[0] == "COMPLETED"


@pytest.mark.parametrize("sent", [None, 7, {"a": 1}, [7], [{"name": "a"}], [{"name": 1, "pages": []}], "x"])
def test_what_are_no_estimators_is_refused(database, post, sent):
    before = stored(database)
    with pytest.raises(InvalidInput, match="Invalid body"):
        post(estimators=sent)
    assert stored(database) == before


def test_results_without_estimators_are_refused(database, post):
    with pytest.raises(InvalidInput, match="The results have no estimators"):
        post()


@pytest.mark.parametrize("data", [b"", b"[", b"NaN", b"\xff", b"[" * 5000, b'{"simulation_id":1}'])
def test_what_is_no_body_is_refused(backend, database, data):
    before = stored(database)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        with pytest.raises(InvalidInput):
            results_upload.post_results(backend, file)
    with pytest.raises(InvalidInput):
        results_upload.post_results(backend, data)
    with pytest.raises(InvalidInput):
        results_upload.key_of(data)
    assert stored(database) == before


@pytest.mark.parametrize(("number", "fits"), [(-1, False), (0, True), (2**31 - 1, True), (2**31, False), (True, False)])
def test_the_number_of_a_simulation_has_a_range(number, fits):
    """Others are in no column, and a database would say so in its own words."""
    data = json.dumps({"simulation_id": number, "sim_id": number, "update_key": "k"}).encode()
    for kind in (results_upload.Key, results_upload.JobKey):
        if fits:
            key = results_upload.key_of(data, kind)
            assert (key.simulation_id, key.update_key) == (number, "k")
        else:
            with pytest.raises(InvalidInput):
                results_upload.key_of(data, kind)


def test_a_key_is_known_before_the_body_is_looked_at(backend, job):
    assert results_upload.check_key(backend, Key(job.simulation_id, job.update_key)) == job.job_id
    for key in (Key(job.simulation_id, "x"), Key(99, job.update_key)):
        with pytest.raises(InvalidInput, match="Invalid update key"):
            results_upload.check_key(backend, key)


# What is left out


SPOILT = {
    "text among numbers": {"data": {"name": "q", "unit": "", "values": [1, "2", 3]}},
    "another length": {"data": {"name": "q", "unit": "", "values": [1, 2]}},
    "no values": {"data": {"name": "q", "unit": "", "values": []}},
    "no values on no axis": {
        "data": {"name": "q", "unit": "", "values": []},
        "axis_dim1": {"name": "z", "unit": "cm", "values": []},
    },
    "no name": {"metadata": {"page_number": "1", "name": ""}},
    "numbers for a name": {"metadata": {"page_number": "1", "name": MANY}},
    "a number that is none": {"metadata": {"page_number": "one"}},
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_page_that_cannot_be_kept_is_left_out_alone_and_named(backend, database, user, job, post, spoilt):
    bad = page(1, "B", (1.0, 2.0, 3.0)) | SPOILT[spoilt]
    sent = [estimator("a", page(0), bad, page(2)), estimator("b")]
    posted = post(*sent)
    [refused] = posted.refused
    assert (refused.estimator, refused.page) == ("a", 1)
    assert len(refused.reason) > 10
    assert pages_of(backend, user, job, "a") == [page(0), page(2)]
    assert pages_of(backend, user, job, "b") == [page()]
    [result] = read(backend, user, job, estimator="a")["estimators"]
    assert result["metadata"]["refused_pages"] == [{"page": 1, "reason": refused.reason}]
    assert "refused_pages" not in read(backend, user, job, estimator="b")["estimators"][0]["metadata"]
    assert json.loads(rows_of(database, "Simulation")[0]["refused_pages"]) == [refused._asdict()]
    reasons = [row["reason"] for row in rows_of(database, "StateHistory") if row["reason"]]
    assert f"left out: page 1 of estimator 'a': {refused.reason}" in reasons
    before = stored(database)
    assert post(*sent).refused == posted.refused
    assert stored(database) == before


def test_nothing_is_stored_if_nothing_can_be_kept(database, post):
    before = stored(database)
    bad = page() | SPOILT["another length"]
    with pytest.raises(InvalidInput, match=r"^No page of the results is valid: page 0 of estimator 'dose_': it has 2"):
        post(estimator("dose_", bad), estimator("b") | {"pages": []})
    assert stored(database) == before


def test_what_comes_twice_is_kept_once(backend, user, job, post):
    refused = post(estimator("a", page(3), page(3, "again")), estimator("a", page(4)), estimator("b")).refused
    assert [(each.estimator, each.page) for each in refused] == [("a", 3), ("a", None)]
    assert refused[1].reason == "there is another one of this name"
    assert pages_of(backend, user, job, "a") == [page(3)]
    assert pages_of(backend, user, job, "b") == [page()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pages": []}, "it has no pages"),
        ({"name": ""}, "An estimator's name must have"),
        ({"name": "x" * 501}, "An estimator's name must have"),
        ({"name": MANY}, "An estimator's name must have"),
        ({"name": "a\0b"}, "An estimator's name must have"),
        ({"metadata": None}, "Invalid body"),
        ({"metadata": [1]}, "Invalid body"),
    ],
    ids=["no pages", "no name", "long name", "numbers for a name", "zero byte", "no metadata", "a list"],
)
def test_an_estimator_of_which_nothing_can_be_kept_is_named(backend, database, user, job, post, change, reason):
    refused = post(estimator("good"), estimator("bad") | change).refused
    [only] = refused
    assert only.estimator == change.get("name", "bad")[:500]
    assert only.page is None
    assert only.reason.startswith(reason)
    assert len(only.reason) <= 300
    assert [row["name"] for row in rows_of(database, "Estimator")] == ["good"]


@pytest.mark.parametrize(
    ("place", "reason"), [("the estimator", "An estimator's name must have"), ("the page", "the name must have")]
)
def test_a_run_of_numbers_is_no_name_though_little_is_left_of_it(backend, database, job, place, reason):
    """What stands for the numbers in the text that is looked at would be stored for a name."""

    def make(padding, name):
        spoilt = page(1) | {"metadata": {"name": name, "page_number": "1"}}
        bad = estimator(name) if place == "the estimator" else estimator("bad", spoilt)
        return body(job, estimator("good") | {"metadata": {"padding": padding}}, bad)

    with tempfile.TemporaryFile() as file:
        file.write(with_hidden_numbers(make))
        [refused] = results_upload.post_results(backend, file).refused
    assert refused.reason.startswith(reason)
    assert [row["name"] for row in rows_of(database, "Estimator")] == ["good"]


def test_a_name_may_have_500_characters(backend, database, post):
    assert post(estimator("x" * 500)).refused == []


def test_numbers_in_what_is_not_known_are_kept(backend, user, job, post):
    """Whatever a list or a text there looks like."""
    sent = estimator("dose_", page(0) | {"comment": {"numbers": list(values(5_000)), "text": MANY}})
    sent["metadata"] = {"numbers": list(values(5_000)), "text": MANY}
    assert post(sent).refused == []
    [result] = read(backend, user, job)["estimators"]
    assert result == sent


def test_of_very_many_refused_pages_some_are_named(database, post, monkeypatch):
    monkeypatch.setattr(results_storage, "MOST_NAMED", 5)
    monkeypatch.setattr(results_storage, "_MOST_IN_HISTORY", 3)
    bad = [page(number) | SPOILT["another length"] for number in range(1, 8)]
    refused = post(estimator("a", page(0), *bad)).refused
    assert [each.page for each in refused] == [1, 2, 3, 4, 5]
    assert len(json.loads(rows_of(database, "Simulation")[0]["refused_pages"])) == 5
    [remark] = [row["reason"] for row in rows_of(database, "StateHistory") if "left out" in (row["reason"] or "")]
    assert remark.count("of estimator") == 3
    assert remark.endswith("; and 4 more")


def test_just_as_many_are_all_named(database, post, monkeypatch):
    monkeypatch.setattr(results_storage, "_MOST_IN_HISTORY", 3)
    post(estimator("a", page(0), *(page(number) | SPOILT["another length"] for number in (1, 2, 3))))
    [remark] = [row["reason"] for row in rows_of(database, "StateHistory") if "left out" in (row["reason"] or "")]
    assert "more" not in remark


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_does_not_exist_is_named(backend, user, job, post, bad):
    assert post(estimator("dose_", page(0, "LET", (bad, 1.5, bad)), page(1))).refused == []
    first, whole = pages_of(backend, user, job)
    assert first["data"]["values"] == [0.0, 1.5, 0.0]
    assert first["data"]["missing"] == [[0, 0], [2, 2]]
    assert whole == page(1)


def test_of_a_long_page_every_number_stays_where_it_was(backend, user, job, post):
    """It is read anew piece by piece, because a value does not exist."""
    long = (*values(20_000), None, *values(20_000, 0.25))
    assert post(estimator("dose_", page(0, "A", long))).refused == []
    [result] = pages_of(backend, user, job)
    assert result["data"]["missing"] == [[20_000, 20_000]]
    assert result["data"]["values"] == [0.0 if value is None else value for value in long]
    assert result["axis_dim1"] == page(0, "A", long)["axis_dim1"]


def test_words_in_names_are_no_numbers(backend, user, job, post):
    post(estimator("NaN", page(0, 'NaN, "Infinity"', (math.nan, 1.0, 2.0))))
    [result] = pages_of(backend, user, job, "NaN")
    assert result["data"]["name"] == 'NaN, "Infinity"'


def test_a_broken_body_with_such_words_is_still_broken(backend, job):
    data = body(job, estimator("dose_", page(0, "q", (math.nan, 1.0, 2.0))))[:-2]
    with pytest.raises(InvalidInput, match="Invalid body"):
        results_upload.post_results(backend, data)


@pytest.mark.parametrize("said_of", ["the estimator", "the page"])
def test_values_whose_last_axis_is_the_fastest_are_put_in_order(backend, user, job, post, said_of):
    grid = page(0, values=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)) | {"dimensions": 2}
    for number, size in enumerate((3, 2), 1):
        grid[f"axis_dim{number}"] = {"name": f"axis {number}", "unit": "cm", "values": list(range(size))}
    sent = estimator("dose_", grid)
    (sent if said_of == "the estimator" else grid)["metadata"]["data_order"] = "C"
    assert post(sent).refused == []
    [result] = read(backend, user, job)["estimators"]
    assert result["pages"][0]["data"]["values"] == [0, 2, 4, 1, 3, 5]
    message = (result if said_of == "the estimator" else result["pages"][0])["metadata"]
    assert message["data_order"] == "F"


# Names in a project


@pytest.mark.parametrize(
    ("outputs", "posted", "named"),
    [
        (("dose", "dose2"), ["dose2_", "dose_"], [("dose", "dose_"), ("dose2", "dose2_")]),
        (("b", "a"), ["a_", "b_"], [("b", "b_"), ("a", "a_")]),
        (("dose", "dose2"), ["other_", "dose2_"], [("dose2", "dose2_"), ("other_", "other_")]),
        (("dose", "dose_"), ["dose_", "dose"], [("dose", "dose"), ("dose_", "dose_")]),
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


# What workers send


def packed(*estimators, damage=lambda data: data, of="pages", refused=()):
    """The file that a worker sends; `damage` does something to the payloads of the pages, or of the metadata."""

    def damaged(payload, kind):
        return replace(payload, data=damage(payload.data)) if kind == of else payload

    def new(document):
        texts = enumerate(json.dumps(each).encode() for each in document["pages"])
        pages = (NewPage(number, "x", 1, damaged(codec.encode_text(text), "pages")) for number, text in texts)
        metadata = damaged(codec.encode_payload(document["metadata"]), "metadata")
        return NewEstimator(
            document["name"], document.get("file_name", document["name"]), metadata, tuple(pages), refused
        )

    file = io.BytesIO()
    result_files.write_results(file, map(new, estimators))
    return file.getvalue()


def read_file(data):
    """What is read of a worker's file: what tells estimators and pages from each other, and their payloads."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        loaded = results_upload.read_file(file)
        return [
            (
                one.name,
                one.file_name,
                codec.decode_payload(one.payload.data),
                [
                    (p.number, p.name, p.dimension, codec.decode_payload(b"".join(p.payload.chunks())))
                    for p in one.pages
                ],
                one.refused,
            )
            for one in loaded
        ]


@pytest.mark.parametrize("large", [20, 1 << 30], ids=["large payloads", "small ones"])
def test_a_workers_payloads_are_kept_as_they_are(large, monkeypatch):
    monkeypatch.setattr(codec, "LARGE", large)
    sent = [estimator("a", page(0, "A", values(500)), page(7, "B")), estimator("b") | {"file_name": "b_"}]
    assert read_file(packed(*sent)) == [
        ("a", "a", sent[0]["metadata"], [(0, "A", 1, sent[0]["pages"][0]), (7, "B", 1, sent[0]["pages"][1])], ()),
        ("b", "b_", sent[1]["metadata"], [(0, "DOSE", 1, page())], ()),
    ]


def test_only_small_payloads_are_held_in_memory(monkeypatch):
    sent = packed(estimator("a", page(0, "A", values(500)), page(1)))
    sizes = [len(codec.encode_text(json.dumps(one).encode()).data) for one in (page(0, "A", values(500)), page(1))]
    monkeypatch.setattr(codec, "LARGE", (sizes[0] + sizes[1]) // 2)
    with tempfile.TemporaryFile() as file:
        file.write(sent)
        file.flush()
        [result] = results_upload.read_file(file)
    assert [type(one.payload) for one in result.pages] == [LargePayload, Payload]


@pytest.mark.parametrize("large", [20, 1 << 30], ids=["large payloads", "small ones"])
def test_size_and_digest_are_those_of_what_came(backend, database, job, clock, large, monkeypatch):
    """They are counted here, and not taken from who says so."""
    monkeypatch.setattr(codec, "LARGE", large)
    with tempfile.TemporaryFile() as file, database.writing() as connection:
        file.write(packed(estimator("a", page(0, "A", values(5_000)))))
        file.flush()
        locked = transitions.lock_simulation(connection, job.simulation_id)
        results_storage.store_results(connection, locked, results_upload.read_file(file), Audit("x", clock()))
    text = json.dumps(page(0, "A", values(5_000))).encode()
    expected = codec.encode_text(text)
    [row] = rows_of(database, "Page")
    assert (row["content_size"], row["content_sha256"]) == (len(text), expected.sha256)
    [row] = rows_of(database, "Estimator")
    assert row["content_sha256"] == codec.encode_payload(estimator()["metadata"]).sha256
    assert row["content_size"] == len(codec.decode_text(row["compressed_data"]))


def test_pages_that_could_not_be_merged_are_named(monkeypatch):
    monkeypatch.setattr(results_storage, "MOST_NAMED", 2)
    refused = tuple(RefusedPage("a", number, "r" * 400) for number in (3, None, 5))
    [(_, _, _, _, result)] = read_file(packed(estimator("a"), refused=refused))
    assert result == (RefusedPage("a", 3, "r" * 300), RefusedPage("a", None, "r" * 300))


def test_an_estimator_of_which_no_page_could_be_merged_comes_along_with_others():
    sent = packed(estimator("a"), estimator("b") | {"pages": []}, refused=(RefusedPage("b", 0, "no"),))
    assert [(each[0], len(each[3])) for each in read_file(sent)] == [("a", 1), ("b", 0)]
    with pytest.raises(InvalidInput, match="The results have no pages"):
        read_file(packed(estimator("b") | {"pages": []}, refused=(RefusedPage("b", 0, "no"),)))


def test_an_estimator_without_pages_that_nobody_misses_is_refused():
    with pytest.raises(InvalidInput, match="Estimator 'b' has no pages"):
        read_file(packed(estimator("a"), estimator("b") | {"pages": []}))
    with pytest.raises(InvalidInput, match="The results have no pages"):
        read_file(packed())


@pytest.mark.parametrize("change", [{"name": ""}, {"name": "x" * 501}, {"file_name": ""}, {"file_name": "a\0"}])
def test_names_that_no_column_takes_are_refused(change):
    with pytest.raises(InvalidInput, match="must have 1 to 500 characters"):
        read_file(packed(estimator("a") | change))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (page(4) | SPOILT["another length"], "Page 4 of estimator 'a': it has 2 values"),
        (page(4) | SPOILT["no values"], "it has 0 values"),
        (page(4, "q", (math.nan, 1.0, 2.0)), "Page 1 of estimator 'a'"),
        (page(4, "q", (None, 1.0, 2.0)), "Page 4 of estimator 'a': it is not in the form that yaptide writes"),
        (page(4, MANY), "Page 4 of estimator 'a': the name must have"),
        ([], "Page 1 of estimator 'a'"),
    ],
    ids=["another length", "no values", "NaN", "null", "numbers for a name", "a list"],
)
def test_a_workers_page_that_cannot_be_shown_is_named_and_nothing_taken(bad, reason):
    with pytest.raises(InvalidInput) as refused:
        read_file(packed(estimator("a", page(0), bad)))
    assert reason in str(refused.value)


def unmarked(data):
    return codec._PLAIN + data[len(codec._MARKED) :]


def with_another(place):
    """Change a byte, so far from the end."""

    def damaged(data):
        changed = bytearray(data)
        changed[place] ^= 1
        return bytes(changed)

    return damaged


@pytest.mark.parametrize(
    "damage",
    [unmarked, with_another(-3), with_another(-9), with_another(-12), with_another(40), lambda data: data[:-30]],
    ids=["another writer's", "the length", "the final block", "the flush", "a byte", "the end"],
)
@pytest.mark.parametrize("of", ["pages", "metadata"])
@pytest.mark.parametrize("large", [20, 1 << 30], ids=["large payloads", "small ones"])
def test_a_workers_payload_that_could_not_be_joined_with_others_is_refused(damage, of, large, monkeypatch):
    """It would be copied as it is into the answers to everybody who asks for results."""
    monkeypatch.setattr(codec, "LARGE", large)
    sent = estimator("a", page(0, "A", values(500)))
    assert read_file(packed(sent, of=of))
    with pytest.raises(InvalidInput):
        read_file(packed(sent, damage=damage, of=of))


def test_a_workers_text_is_counted_as_it_is_inflated(monkeypatch):
    """Some kilobytes may become gigabytes."""
    sent = [estimator("a", page(0), page(1)), estimator("b")]
    sizes = [len(json.dumps(each)) for one in sent for each in one["pages"]]
    monkeypatch.setattr(results_upload, "_MOST_TEXT", sum(sizes))
    assert len(read_file(packed(*sent))) == 2
    monkeypatch.setattr(results_upload, "_MOST_TEXT", sum(sizes) - 1)
    with pytest.raises(InvalidInput, match="The results have too much text"):
        read_file(packed(*sent))


def test_so_are_the_metadata_of_each_estimator(monkeypatch):
    size = len(codec.decode_text(codec.encode_payload(estimator()["metadata"]).data))
    monkeypatch.setattr(results_upload, "_MOST_METADATA", size)
    assert read_file(packed(estimator("a"), estimator("b")))
    monkeypatch.setattr(results_upload, "_MOST_METADATA", size - 1)
    with pytest.raises(InvalidInput, match="The metadata of an estimator have too much text"):
        read_file(packed(estimator("a")))


def test_metadata_that_are_no_object_are_refused():
    with pytest.raises(InvalidInput, match="Invalid body"):
        read_file(packed(estimator("a") | {"metadata": [1]}))


# What is given out


@pytest.fixture
def some(backend, user, job):
    """Results with six pages in the first of two estimators."""
    sent = [estimator("a", *(page(number, f"Q{number}") for number in (5, 2, 0, 1, 4, 3))), estimator("b")]
    results_upload.post_results(backend, body(job, *sent))
    return sent


@pytest.fixture(params=["whole", "streamed"])
def way(request, monkeypatch):
    """Answers that are made at once, or read while they are sent."""
    if request.param == "streamed":
        monkeypatch.setattr(results, "_AT_ONCE", 100)
        monkeypatch.setattr(results, "_SLICE", 50)
    return request.param


def sorted_pages(some, numbers=range(6)):
    by_number = {int(one["metadata"]["page_number"]): one for one in some[0]["pages"]}
    return [by_number[number] for number in numbers]


def test_pages_come_by_number(backend, user, job, some, way):
    first, second = read(backend, user, job)["estimators"]
    assert first == some[0] | {"pages": sorted_pages(some)}
    assert second == some[1]


def test_one_estimator(backend, user, job, some, way):
    assert read(backend, user, job, estimator="b") == {"message": "Results", "estimators": [some[1]]}
    with pytest.raises(NotFound, match="Results are unavailable"):
        read(backend, user, job, estimator="c")


@pytest.mark.parametrize(("asked", "numbers"), [("0", [0]), ("0-2,5", [0, 1, 2, 5]), ("4-9", [4, 5])])
def test_some_pages(backend, user, job, some, way, asked, numbers):
    result = read(backend, user, job, estimator="a", page_numbers=asked)
    assert result == {"message": "Results", "pages": sorted_pages(some, numbers)}


def test_pages_that_are_not_there(backend, user, job, some):
    for name, asked in (("a", "6-9"), ("c", "0")):
        with pytest.raises(NotFound, match="Results are unavailable"):
            read(backend, user, job, estimator=name, page_numbers=asked)
    with pytest.raises(InvalidInput, match="page_numbers needs an estimator_name"):
        read(backend, user, job, page_numbers="0")


def test_by_themselves_results_are_a_list(backend, user, job, some):
    assert codec.decode_payload(b"".join(codec.stitch_gzip(results.read_results(backend, user, job.job_id, "b")))) == [
        some[1]
    ]
    loaded = results.read_pages(backend, user, job.job_id, "a", [(1, 1)])
    assert codec.decode_payload(b"".join(codec.stitch_gzip(loaded))) == sorted_pages(some, [1])


def test_an_answer_that_is_streamed_tells_its_length(backend, user, job, some, way):
    document = results.read_results(backend, user, job.job_id)
    data = b"".join(codec.stitch_gzip(document))
    assert document.length == (None if way == "whole" else len(data))


def foreign(database, table, text):
    """Have the payloads of a table be another writer's."""
    with database.writing() as connection:
        data = codec._PLAIN + zlib.compress(text, wbits=-15) + codec._TRAILER.pack(zlib.crc32(text), len(text))
        connection.exec_driver_sql(f"UPDATE {table} SET compressed_data = ?, content_size = ?", (data, len(text)))


def test_what_others_have_written_is_written_anew_and_not_streamed(backend, database, user, job, some, way):
    """Its NaN has to become something that browsers can read."""
    foreign(database, "Page", b'{"data":{"name":"q","unit":"","values":[NaN]}}')
    document = results.read_results(backend, user, job.job_id, "b")
    assert document.length is None
    [result] = read(backend, user, job, estimator="b")["estimators"]
    assert result["pages"] == [
        {"data": {"name": "q", "unit": "(no value)", "values": [0.0], "missing": [[0, 0]]}, "metadata": {"unit": ""}}
    ]


@pytest.mark.parametrize("whose", [[True, False], [False, True], [True, True]], ids=str)
def test_a_payload_of_ours_among_those_of_others_is_no_sign_for_them(backend, database, user, job, whose, monkeypatch):
    """Adopted pages that hold NaN would be sent as they are, if one of ours beside them were enough."""
    monkeypatch.setattr(results, "_AT_ONCE", 100)
    monkeypatch.setattr(results, "_SLICE", 50)
    sent = [page(number, values=(0.5, 1.5, 2.5)) for number in range(2)]
    results_upload.post_results(backend, body(job, estimator("a", *sent)))
    text = json.dumps(page(9, "q", (math.nan, 1.5, 2.5))).encode()
    data = codec._PLAIN + zlib.compress(text, wbits=-15) + codec._TRAILER.pack(zlib.crc32(text), len(text))
    with database.writing() as connection:
        for number, ours in enumerate(whose):
            if not ours:
                values = (data, len(text), number)
                connection.exec_driver_sql(
                    "UPDATE Page SET compressed_data = ?, content_size = ? WHERE page_number = ?", values
                )
    assert (results.read_results(backend, user, job.job_id).length is None) is not all(whose)
    for ours, result in zip(whose, pages_of(backend, user, job, "a"), strict=True):
        assert result["data"].get("missing") == (None if ours else [[0, 0]])


def test_metadata_of_others_leave_the_length_open(backend, database, user, job, some, monkeypatch):
    monkeypatch.setattr(results, "_AT_ONCE", 100)
    foreign(database, "Estimator", b'{"a":NaN}')
    assert results.read_results(backend, user, job.job_id, "b").length is None
    assert read(backend, user, job, estimator="b")["estimators"] == [some[1] | {"metadata": {"a": None}}]


def test_an_estimator_without_pages_is_an_empty_list(backend, database, user, job, some):
    """As adopted ones may be."""
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM Page WHERE estimator_id = 2")
    assert read(backend, user, job, estimator="b")["estimators"] == [some[1] | {"pages": []}]


def test_results_that_are_deleted_while_they_are_read_end_the_answer(backend, user, job, some, monkeypatch):
    monkeypatch.setattr(results, "_AT_ONCE", 100)
    parts = codec.stitch_gzip(results.read_results(backend, user, job.job_id))
    next(parts)
    simulations.delete_simulation(backend, user, job.job_id)
    with pytest.raises(NotFound, match="deleted while they were being read"):
        list(parts)


def test_results_that_are_deleted_between_two_looks_are_not_found(backend, user, job, some, monkeypatch):
    look = results.results.list_estimators

    def delete_meanwhile(connection, *args):
        result = look(connection, *args)
        connection.exec_driver_sql("DELETE FROM Simulation")
        return result

    monkeypatch.setattr(results.results, "list_estimators", delete_meanwhile)
    with pytest.raises(NotFound, match="Job with provided ID does not exist"):
        results.read_results(backend, user, job.job_id)


def test_the_list_of_pages(backend, user, job, some):
    listed = [{"page_number": number, "page_name": f"Q{number}", "page_dimension": 1} for number in range(6)]
    assert results.pages_metadata(backend, user, job.job_id) == [
        {"name": "a", "pages_metadata": listed},
        {"name": "b", "pages_metadata": [{"page_number": 0, "page_name": "DOSE", "page_dimension": 1}]},
    ]


def test_without_results_there_is_nothing_to_read(backend, user, job):
    with pytest.raises(NotFound, match="Results are unavailable"):
        results.read_results(backend, user, job.job_id)
    with pytest.raises(NotFound, match="Pages metadata not found"):
        results.pages_metadata(backend, user, job.job_id)


def test_results_are_their_users(backend, job, some):
    mallory = users.register_user(backend, "mallory", None)
    for look in (
        lambda: results.read_results(backend, mallory, job.job_id),
        lambda: results.read_pages(backend, mallory, job.job_id, "a", [(0, 0)]),
        lambda: results.pages_metadata(backend, mallory, job.job_id),
    ):
        with pytest.raises(Forbidden, match="does not belong to the user"):
            look()


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("0", [(0, 0)]),
        ("0-2,5", [(0, 2), (5, 5)]),
        ("5,0-2", [(0, 2), (5, 5)]),
        ("1,1,0-1", [(0, 1)]),
        ("0-5,2-3,4-9", [(0, 9)]),
        ("0-5,2-3", [(0, 5)]),
        ("0-5,5-6", [(0, 6)]),
        ("0-1,3-9,4-5", [(0, 1), (3, 9)]),
        ("0-5,6-7", [(0, 5), (6, 7)]),
        ("05", [(5, 5)]),
        ("0-9999", [(0, 9999)]),
        ("999999999", [(999999999, 999999999)]),
        (",".join(str(2 * n) for n in range(501)), [(2 * n, 2 * n) for n in range(501)]),
    ],
)
def test_ranges_of_page_numbers(text, ranges):
    assert results.parse_page_numbers(text) == ranges


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "1-", "2-1", "1,,2", "1 ", " 1", "1-2-3", "1.0", "1000000000", "\u0663", "0-10000"]
)
def test_what_is_no_range(text):
    with pytest.raises(InvalidInput, match="page_numbers: "):
        results.parse_page_numbers(text)


def test_there_are_not_too_many_ranges():
    """SQLite takes no more than a thousand alternatives."""
    with pytest.raises(InvalidInput, match="is not a range of pages"):
        results.parse_page_numbers(",".join(str(2 * n) for n in range(502)))


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


def test_results_that_are_there_are_not_added_again(backend, database, job, some):
    """As the scores of what was canceled, which may be looked at by two."""
    before = stored(database)
    new = NewEstimator("c", "c", codec.encode_payload({}), (NewPage(0, "x", 1, codec.encode_payload({})),))
    with database.writing() as connection:
        results_storage.add_results(connection, transitions.lock_simulation(connection, job.simulation_id), [new])
    assert stored(database) == before
