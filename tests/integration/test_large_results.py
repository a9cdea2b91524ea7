"""Results that are too large to be held in memory: stored and read in pieces, and otherwise like any others."""

import gzip
import importlib
import io
import random
import zlib

import orjson
import pytest
from sqlalchemy import select, update

from tests.integration.test_contract_work import Worker, scores
from tests.support.api import Job, contents, counts, submit
from tests.support.payloads import bits, estimator, page
from yaptide.persistence import codec, result_files
from yaptide.persistence.models import PageModel
from yaptide.persistence.payload import NewEstimator, NewPage
from yaptide.services import results, results_upload


@pytest.fixture(autouse=True)
def small_is_large():
    """What is done with large results is done with those of some kilobytes; until it is undone."""
    with pytest.MonkeyPatch.context() as patch:
        _patch(patch)
        yield patch


def _patch(monkeypatch):
    monkeypatch.setattr(importlib.import_module("yaptide.api.results"), "_IN_MEMORY", 10_000)
    monkeypatch.setattr(codec, "LARGE", 5_000)
    monkeypatch.setattr(results, "_AT_ONCE", 5_000)
    monkeypatch.setattr(results, "_SLICE", 3_001)


def values(count=20_000, seed=1):
    draw = random.Random(seed)
    return tuple(draw.choice([0.0, -0.0, draw.random(), draw.random() * 1e-300]) for _ in range(count))


@pytest.fixture
def estimators():
    """Two estimators with large and small pages."""
    pages = [page(0, "A", values()), page(1, "B", (0.5, 1.5, 2.5)), page(2, "C", values(seed=2))]
    return [estimator("dose_", *pages), estimator("dose2_", page(0, "D", values(9_000)))]


def inflated(response):
    """The document in a compressed answer, which is one member of gzip and as long as it says."""
    assert response.headers["Content-Encoding"] == "gzip"
    assert int(response.headers["Content-Length"]) == len(response.data)
    member = zlib.decompressobj(31)
    text = member.decompress(response.data)
    assert member.eof
    assert member.unused_data == b""
    return orjson.loads(text)


def read(job: Job, **query):
    """The same answer in both encodings, which says the same."""
    query = {"job_id": job.job_id, **query}
    packed = job.client.get("/results", query_string=query, headers={"Accept-Encoding": "gzip"})
    plain = job.client.get("/results", query_string=query, headers={"Accept-Encoding": "identity"})
    assert (packed.status_code, plain.status_code) == (200, 200)
    document = inflated(packed)
    assert plain.json == document
    return document


def test_what_was_posted_comes_back_bit_by_bit(job, estimators):
    response = job.post_results(*estimators)
    assert (response.status_code, response.json) == (202, {"message": "Results saved"})
    assert job.state == "COMPLETED"
    assert read(job)["estimators"] == [estimators[0] | {"name": "dose"}, estimators[1] | {"name": "dose2"}]
    [answered] = read(job, estimator_name="dose", page_numbers="2")["pages"]
    assert list(map(bits, answered["data"]["values"])) == list(map(bits, values(seed=2)))
    assert read(job, estimator_name="dose", page_numbers="0-1")["pages"] == estimators[0]["pages"][:2]


def solid(number):
    """A large page with three axes."""
    result = page(number, "E", values(9_000, seed=3)) | {"dimensions": 3}
    for place, size in enumerate((9, 10, 100), start=1):
        result[f"axis_dim{place}"] = {"name": "x", "unit": "cm", "values": list(range(size))}
    return result


@pytest.mark.parametrize("ours", [True, False], ids=["as it was written", "as others write it"])
def test_a_grid_is_an_address_among_large_pages_and_small_ones(job, estimators, database, ours):
    pages = [*estimators[0]["pages"], solid(3)]
    job.post_results(estimator("dose_", *pages), estimator("dose2_", page(0), solid(1)))
    if not ours:
        with database.writing() as connection:
            for row in connection.execute(select(PageModel.id, PageModel.compressed_data)).all():
                plain = gzip.compress(codec.decode_text(row.compressed_data))
                connection.execute(update(PageModel).where(PageModel.id == row.id).values(compressed_data=plain))
    for name, expected in (("dose", pages), ("dose2", [page(0), solid(1)])):
        one = {"estimator_name": name, "page_numbers": "0-9"}
        *flat, address = read(job, **one)["pages"]
        assert flat == expected[:-1]
        assert set(address) == {"dimensions", "results_url", "metadata"}
        assert read(job, **one, values="1")["pages"] == expected


def test_the_same_again_changes_nothing_however_it_is_sent(job, estimators, database, small_is_large):
    job.post_results(*estimators)
    before = contents(database)
    assert job.post_results(*estimators).status_code == 202
    small_is_large.undo()  # now none of it is large
    assert job.post_results(*estimators).status_code == 202
    assert contents(database) == before


def test_other_large_results_are_refused(job, estimators, database):
    job.post_results(*estimators)
    before = contents(database)
    estimators[0]["pages"][0]["data"]["values"][15_000] = 7.0
    assert job.post_results(*estimators).status_code == 409
    assert contents(database) == before


@pytest.mark.parametrize("place", ["data", "axis_dim1"])
@pytest.mark.parametrize("bad", [["1.5"], [[1.5]], [], [1.5, 2.5], [True]])
def test_a_page_that_cannot_be_shown_is_left_out_alone(job, estimators, place, bad):
    estimators[0]["pages"][2][place]["values"][12_345:12_346] = bad
    response = job.post_results(*estimators)
    assert response.status_code == 202
    [refused] = response.json["refused"]
    assert (refused["estimator"], refused["page"]) == ("dose_", 2)
    assert refused["reason"]
    kept = read(job)["estimators"]
    assert [[page["metadata"]["page_number"] for page in each["pages"]] for each in kept] == [["0", "1"], ["0"]]
    assert kept[0]["pages"] == estimators[0]["pages"][:2]


def test_names_and_metadata_are_not_numbers(job, estimators, database):
    before = contents(database)
    many = "1.5," * 100_000
    for change in ({"name": many}, {"metadata": many}):
        assert job.post_results(estimators[0] | change).status_code == 400
    estimators[0]["pages"][0]["metadata"]["name"] = many
    assert job.post_results(estimators[0] | {"pages": estimators[0]["pages"][:1]}).status_code == 400
    assert contents(database) == before


def test_numbers_in_what_is_not_known_are_kept(job, estimators):
    estimators[0]["metadata"] = {"numbers": list(values(8_000)), "text": "2.5," * 20_000}
    estimators[0]["pages"][0]["data"]["errors"] = list(values(seed=3))
    assert job.post_results(*estimators).status_code == 202
    assert read(job)["estimators"][0] == estimators[0] | {"name": "dose"}


def packed(estimators):
    """The file that a worker sends."""
    file = io.BytesIO()
    result_files.write_results(
        file,
        (
            NewEstimator(
                each["name"],
                each["name"],
                codec.encode_payload(each["metadata"]),
                tuple(NewPage(n, "x", 1, codec.encode_text(orjson.dumps(p))) for n, p in enumerate(each["pages"])),
            )
            for each in estimators
        ),
    )
    return file.getvalue()


def test_a_workers_large_results_are_kept_as_they_came(signed_in, estimators):
    job = submit(signed_in)
    worker = Worker(job)
    worker.run(scores(), scores())
    owner = worker.claim_merge().json["owner"]
    assert worker.deliver(owner, packed(estimators)).json == {"message": "Go on", "wanted": True}
    assert read(job)["estimators"] == [estimators[0] | {"name": "dose"}, estimators[1] | {"name": "dose2"}]


@pytest.mark.parametrize("spoil", ["a byte", "the end", "the flush"])
def test_a_workers_damaged_results_are_refused(signed_in, database, estimators, spoil):
    job = submit(signed_in)
    worker = Worker(job)
    worker.run(scores(), scores())
    owner = worker.claim_merge().json["owner"]
    data = bytearray(packed(estimators))
    payload = codec.encode_text(orjson.dumps(estimators[0]["pages"][0])).data
    start = data.index(payload)
    if spoil == "a byte":
        data[start + len(payload) // 2] ^= 0x10
    elif spoil == "the end":
        data[start + len(payload) - 3] ^= 1
    else:
        data[start + len(payload) - 13] ^= 1
    assert worker.deliver(owner, bytes(data)).status_code == 400
    assert counts(database)["Estimator"] == 0
    assert job.state == "MERGING_RUNNING"


def deliver(job, spoiled):
    """What a worker is told that sends these estimators as merged results."""
    worker = Worker(job)
    worker.run(scores(), scores())
    return worker.deliver(worker.claim_merge().json["owner"], packed(spoiled))


@pytest.mark.parametrize("what", ["metadata", "a page", "all pages"])
def test_a_workers_results_that_swell_are_refused(signed_in, database, estimators, monkeypatch, what):
    """Some kilobytes may become a gigabyte; it is enough to see that there is no end of it."""
    monkeypatch.setattr(results_upload, "_MOST_METADATA", 20_000)
    monkeypatch.setattr(importlib.import_module("yaptide.services.large_json"), "_MOST", 200_000)
    if what == "metadata":
        estimators[0]["metadata"] = {"a": "x" * 30_000}
    elif what == "a page":
        estimators[0]["pages"][1]["metadata"]["more"] = "x" * 300_000
    else:
        monkeypatch.setattr(results_upload, "_MOST_TEXT", 100_000)
    job = submit(signed_in)
    response = deliver(job, estimators)
    assert response.status_code == 400
    assert ("bytes besides numbers" if what == "a page" else "too much text") in response.json["message"]
    assert counts(database)["Estimator"] == 0
    assert job.state == "MERGING_RUNNING"
