"""Results are returned as stored."""

import json
import math
import zlib

import pytest

from tests.support.payloads import estimator, page
from tests.support.posting import body, pages_of, read
from yaptide.domain.errors import Forbidden, InvalidInput, NotFound
from yaptide.persistence import codec
from yaptide.services import results, results_upload, simulations, users


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


def grid(number, axes):
    """A page of two values on each of its axes."""
    drawn = page(number, f"Q{number}", tuple(0.5 + cell for cell in range(2**axes))) | {"dimensions": axes}
    lengths = {
        f"axis_dim{axis}": {"name": f"axis {axis}", "unit": "cm", "values": [0.5, 1.5]} for axis in range(1, axes + 1)
    }
    return drawn | lengths


@pytest.fixture
def grids(backend, user, job):
    """Pages of three, one, two and three axes, by number."""
    sent = [grid(number, axes) for number, axes in enumerate((3, 1, 2, 3))]
    results_upload.post_results(backend, body(job, estimator("a", *sent)))
    return sent


def address(number):
    return f"http://host/pages/{number}"


def reference(number):
    """A page of three axes as it comes to the front end."""
    metadata = {"page_number": str(number), "name": f"Q{number}"}
    return {"dimensions": 3, "results_url": f"http://host/pages/{number}", "metadata": metadata}


def test_pages_that_the_front_end_cannot_draw_come_as_addresses(backend, user, job, grids, way):
    """It draws up to two axes; the numbers of the others may be hundreds of megabytes."""
    result = read(backend, user, job, estimator="a", page_numbers="0-3", address=address)
    assert result["pages"] == [reference(0), grids[1], grids[2], reference(3)]
    result = read(backend, user, job, estimator="a", page_numbers="3", address=address)
    assert result["pages"] == [reference(3)]


def test_without_addresses_all_pages_have_numbers(backend, user, job, grids, way):
    assert read(backend, user, job, estimator="a", page_numbers="0-3")["pages"] == grids


@pytest.mark.parametrize("at_once", [10, 16 << 20], ids=["large pages", "small ones"])
def test_pages_of_others_beside_an_address_are_written_anew(backend, database, user, job, grids, monkeypatch, at_once):
    monkeypatch.setattr(results, "_AT_ONCE", at_once)
    foreign(database, "Page", b'{"data":{"name":"q","unit":"","values":[NaN]}}')
    for drawable in (1, 2):
        result = read(backend, user, job, estimator="a", page_numbers=f"0,{drawable}", address=address)
        assert result["pages"][0] == reference(0)
        assert result["pages"][1]["data"]["missing"] == [[0, 0]]


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


def test_up_to_16_mib_are_held_in_memory_and_more_comes_in_slices_of_8(backend, database, user, job):
    """So that the memory of a request has a limit."""
    results_upload.post_results(backend, body(job, estimator("a", page())))
    padded = "UPDATE Page SET compressed_data = CAST(compressed_data || zeroblob(? - length(compressed_data)) AS BLOB)"
    for size, slices in ((16 << 20, []), ((16 << 20) + 1, [[8 << 20, 8 << 20, 1]])):
        with database.writing() as connection:
            connection.exec_driver_sql(padded, (size,))
        document = results.read_pages(backend, user, job.job_id, "a", [(0, 0)])
        assert [list(map(len, part.chunks)) for part in document if isinstance(part, codec.Streamed)] == slices


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


@pytest.mark.parametrize(("text", "shown"), [("x" * 40, "x" * 40), ("x" * 41, "x" * 40)])
def test_the_beginning_of_what_is_no_range_is_shown(text, shown):
    with pytest.raises(InvalidInput, match=f"^page_numbers: '{shown}' is not a range of pages: use e.g. 0-2,5$"):
        results.parse_page_numbers(text)


def test_there_are_not_too_many_ranges():
    """SQLite takes no more than a thousand alternatives."""
    with pytest.raises(InvalidInput, match="is not a range of pages"):
        results.parse_page_numbers(",".join(str(2 * n) for n in range(502)))
