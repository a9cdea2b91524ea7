"""Results from workers: each page is validated, and stored as it was sent."""

import io
import json
import math
import tempfile
from dataclasses import replace

import pytest

from tests.support.payloads import bits, estimator, page, with_hidden_numbers
from tests.support.posting import MANY, SPOILT, body, pages_of, read, states, stored, values
from tests.support.storing import rows_of
from yaptide.domain.errors import Contended, InvalidInput
from yaptide.domain.estimators import RefusedPage
from yaptide.persistence import codec, result_files
from yaptide.persistence.payload import LargePayload, NewEstimator, NewPage, Payload
from yaptide.persistence.queries import transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import lifecycle, results_storage, results_upload
from yaptide.services.results_upload import Key


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


@pytest.mark.parametrize("changes", [{"update_key": "x"}, {"update_key": ""}, {"simulation_id": 99}])
def test_a_wrong_key_changes_nothing(database, post, changes):
    before = stored(database)
    with pytest.raises(InvalidInput, match="Invalid update key"):
        post(estimator(), **changes)
    assert stored(database) == before


def test_a_key_that_was_right_when_the_body_began_may_be_worthless_at_its_end(backend, database, job, monkeypatch):
    """Large results take time: the key is checked again with the simulation locked."""
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


# Pages that are left out


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
    """The placeholder of left-out numbers would be stored as a name."""

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


# Files of workers


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


def test_a_payload_of_just_the_limit_is_held_in_memory(monkeypatch):
    sent = page(0, "A", values(500))
    size = len(codec.encode_text(json.dumps(sent).encode()).data)
    with tempfile.TemporaryFile() as file:
        file.write(packed(estimator("a", sent)))
        file.flush()
        for limit, kind in ((size, Payload), (size - 1, LargePayload)):
            monkeypatch.setattr(codec, "LARGE", limit)
            [result] = results_upload.read_file(file)
            assert [type(one.payload) for one in result.pages] == [kind]


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
    """It would be copied unchanged into every response with these results."""
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


def test_so_are_the_metadata_of_each_estimator():
    most = 16 << 20
    fitting = {"a": "x" * (most - len('{"a":""}'))}
    assert len(codec.decode_text(codec.encode_payload(fitting).data)) == most
    assert read_file(packed(*(estimator(name) | {"metadata": fitting} for name in ("a", "b"))))
    with pytest.raises(InvalidInput, match="The metadata of an estimator have too much text"):
        read_file(packed(estimator("a") | {"metadata": {"a": fitting["a"] + "x"}}))


def test_metadata_that_are_no_object_are_refused():
    with pytest.raises(InvalidInput, match="Invalid body"):
        read_file(packed(estimator("a") | {"metadata": [1]}))
