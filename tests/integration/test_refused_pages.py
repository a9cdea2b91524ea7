"""Only invalid pages are left out; valid ones are stored in one form, whatever their original form."""

import json
import math

import numpy as np
import orjson
import pytest

from tests.integration.test_contract_work import Worker, packed
from tests.support.api import contents, submit
from tests.support.payloads import estimator, page
from yaptide.domain.estimators import Aggregation, Axis, Estimator, Page, TaskOutput
from yaptide.persistence import codec
from yaptide.services import integrity
from yaptide_client.results import Results

GOOD = page(0)
SPOILT = {
    "text among numbers": {"data": {"name": "q", "unit": "", "values": [1, "2", 3]}},
    "another length": {"data": {"name": "q", "unit": "", "values": [1, 2]}},
    "errors of another length": {"data": {"name": "q", "unit": "", "values": [1, 2, 3], "errors": [0.1]}},
    "text among errors": {"data": {"name": "q", "unit": "", "values": [1, 2, 3], "errors": [0.1, "x", 0.1]}},
    "an axis with a hole": {"axis_dim1": {"name": "z", "unit": "cm", "values": [1, None, 3]}},
    "rows on a grid": {"data": {"name": "q", "unit": "", "values": [1, [2], 3]}},
    "rows of different lengths": {"data": {"name": "q", "unit": "", "values": [[1], [2, 3]]}},
    "a hole beyond the end": {"data": {"name": "q", "unit": "", "values": [1, 2, 3], "missing": [[2, 3]]}},
    "no way to merge": {"metadata": {"page_number": "1", "aggregation": "guess"}},
    "no name": {"metadata": {"page_number": "1", "name": ""}},
}


def post(job, *estimators):
    """`POST /results` as Python's json module writes it, NaN and all."""
    return job.client.post("/results", data=json.dumps(job.results(*estimators)))


def read(job, **query):
    """The answer of `GET /results`, which no browser may stumble over."""
    return json.loads(job.get("/results", **query).data, parse_constant=pytest.fail)


def read_page(job, number=0, name="dose"):
    [result] = read(job, estimator_name=name, page_numbers=str(number), values="1")["pages"]
    return result


def as_arrays(job):
    return Results.from_document(read(job))


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_page_that_cannot_be_kept_is_left_out_alone(job, database, spoilt):
    bad = page(1, "B", (1.0, 2.0, 3.0)) | SPOILT[spoilt]
    bad["metadata"].setdefault("page_number", "1")
    sent = [estimator("dose_", GOOD, bad, page(2, "C")), estimator("dose2_", page(0, "D"))]
    response = post(job, *sent)
    assert response.status_code == 202, response.json
    [refused] = response.json["refused"]
    assert (refused["estimator"], refused["page"]) == ("dose_", 1)
    assert len(refused["reason"]) > 10
    assert job.state == "COMPLETED"
    assert job.status["refused"] == [refused]
    kept = read(job)["estimators"]
    assert [each["pages"] for each in kept] == [[GOOD, page(2, "C")], [page(0, "D")]]
    assert kept[0]["metadata"]["refused_pages"] == [{"page": 1, "reason": refused["reason"]}]
    history = job.get("/jobs/history").json["history"]
    assert [row["reason"] for row in history[1:] if row["reason"]] == [
        f"left out: page 1 of estimator 'dose_': {refused['reason']}"
    ]
    before = contents(database)
    assert post(job, *sent).json == response.json
    assert contents(database) == before


def test_nothing_is_stored_if_nothing_can_be_kept(job, database):
    before = contents(database)
    bad = page(0) | SPOILT["errors of another length"]
    response = post(job, estimator("dose_", bad))
    assert response.status_code == 400
    assert response.json["message"] == (
        "No page of the results is valid: page 0 of estimator 'dose_': it has 3 values and 1 errors"
    )
    assert contents(database) == before
    assert job.state == "PENDING"


def test_what_comes_twice_is_kept_once(job):
    response = post(job, estimator("dose_", page(3), page(3, "again")), estimator("dose_", page(4)))
    assert response.status_code == 202
    assert [(r["estimator"], r["page"]) for r in response.json["refused"]] == [("dose_", 3), ("dose_", None)]
    assert read(job)["estimators"][0]["pages"] == [page(3)]


def test_an_estimator_of_which_nothing_is_left_is_named(job):
    response = post(job, estimator("dose_"), estimator("dose2_") | {"pages": []})
    assert response.json["refused"] == [{"estimator": "dose2_", "page": None, "reason": "it has no pages"}]
    assert [each["name"] for each in read(job)["estimators"]] == ["dose"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_does_not_exist_is_named(job, database, bad):
    sent = estimator("dose_", page(0, "LET", (bad, 1.5, bad)), page(1, "B", (bad, bad, bad)), page(2, "C"))
    assert post(job, sent).json == {"message": "Results saved"}
    first, none, whole = read(job)["estimators"][0]["pages"]
    assert first["data"] == {"name": "LET", "unit": "MeV/g", "values": [0.0, 1.5, 0.0], "missing": [[0, 0], [2, 2]]}
    assert none["data"] == {"name": "B", "unit": "(no value)", "values": [0.0] * 3, "missing": [[0, 2]]}
    assert none["metadata"]["unit"] == "MeV/g"
    assert whole == page(2, "C")
    pages = as_arrays(job).estimators[0].pages
    np.testing.assert_array_equal(pages[0].values, [np.nan, 1.5, np.nan])
    assert np.isnan(pages[1].values).all()
    assert pages[1].unit == "MeV/g"
    before = contents(database)
    assert post(job, sent).status_code == 202
    assert contents(database) == before


def test_an_error_that_is_not_known_is_no_zero(job):
    known = page(0)
    known["data"]["errors"] = [0.1, None, math.nan]
    assert post(job, estimator("dose_", known)).json == {"message": "Results saved"}
    assert read_page(job)["data"]["errors"] == [0.1, None, None]
    np.testing.assert_array_equal(as_arrays(job).page("dose", 0).errors, [0.1, np.nan, np.nan])


def test_words_in_names_are_no_numbers(job):
    named = page(0, 'NaN, "Infinity"', (math.nan, 1.0, 2.0))
    assert post(job, estimator("dose_", named)).status_code == 202
    assert read_page(job)["data"]["name"] == 'NaN, "Infinity"'


def test_particles_are_kept_row_by_row(job):
    rows = [[2212.0, -0.02, 4.0], [2212.0, 0.03, 5.0]]
    particles = {
        "dimensions": 0,
        "data": {"name": "MCPL", "unit": "", "values": rows},
        "metadata": {"name": "MCPL", "unit": "", "page_number": "0", "page_normalized": "4"},
    }
    single = {"dimensions": 0, "data": {"name": "count", "unit": "1", "values": [[0.1]]}, "metadata": {}}
    response = post(job, estimator("NB_mcpl", particles, single | {"metadata": {"page_number": "1"}}))
    assert response.json == {"message": "Results saved"}
    assert read_page(job, 0, "NB_mcpl")["data"]["values"] == [*rows[0], *rows[1]]
    assert read_page(job, 1, "NB_mcpl")["data"]["values"] == [0.1]
    kept = as_arrays(job).page("NB_mcpl", 0)
    assert (kept.aggregation, kept.metadata["columns"]) == (Aggregation.CONCATENATE, "3")
    np.testing.assert_array_equal(kept.values.reshape(-1, 3), rows)


def grid(shape=(2, 3, 4), order="C", **more):
    """A page on a grid, its values written with the first axis (F) or the last (C) as the fastest."""
    values = np.arange(float(np.prod(shape))).reshape(shape) / 7
    axes = {
        f"axis_dim{n}": {"name": f"a{n}", "unit": "cm", "values": [float(i) for i in range(length)]}
        for n, length in enumerate(shape, 1)
    }
    data = {"name": "q", "unit": "Gy", "values": values.ravel(order=order).tolist(), **more}
    return {"dimensions": len(shape), "data": data, **axes, "metadata": {"page_number": "0", "name": "q"}}


def topas(*pages):
    return estimator("scorer", *pages) | {"metadata": {"data_order": "C", "mc": "TOPAS"}}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 1, 3, 2), (5,)])
def test_values_with_the_last_axis_fastest_are_put_in_order(job, database, shape):
    sent = topas(grid(shape))
    assert post(job, sent).json == {"message": "Results saved"}
    assert read_page(job, 0, "scorer") == grid(shape, "F")
    assert read(job)["estimators"][0]["metadata"] == {"data_order": "F", "mc": "TOPAS"}
    expected = np.arange(float(np.prod(shape))).reshape(shape) / 7
    np.testing.assert_array_equal(as_arrays(job).page("scorer", 0).grid(), expected)
    before = contents(database)
    assert post(job, sent).status_code == 202
    assert contents(database) == before


def test_errors_and_holes_are_put_in_order_as_well(job):
    sent = grid((2, 3), errors=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    sent["data"]["values"][1] = None  # at (0, 1)
    post(job, topas(sent))
    kept = as_arrays(job).page("scorer", 0)
    assert np.isnan(kept.grid()[0, 1])
    assert np.isnan(kept.values).sum() == 1
    np.testing.assert_array_equal(kept.errors.reshape((2, 3), order="F"), [[1, 2, 3], [4, 5, 6]])


def test_digits_do_not_get_lost_where_values_are_put_in_order(job):
    sent = grid((2, 2))
    sent["data"]["values"][0] = 2**53 + 1
    [refused] = post(job, topas(sent), estimator("dose_")).json["refused"]
    assert "would lose digits" in refused["reason"]


def stored_before(database, document):
    """Have a page, and its estimator's metadata, as they were stored before values were put in order."""
    table = {"Page": document["pages"][0], "Estimator": document["metadata"]}
    with database.writing() as connection:
        for name, value in table.items():
            connection.exec_driver_sql(
                f'UPDATE "{name}" SET compressed_data = '
                + (
                    "?, content_size = ?, content_sha256 = ?"
                    if database.is_sqlite
                    else "%s, content_size = %s, content_sha256 = %s"
                ),
                tuple(codec.encode_text(orjson.dumps(value)).columns().values()),
            )
        connection.exec_driver_sql('UPDATE "Simulation" SET stored_bytes = 0')


def test_results_stored_in_another_order_are_found_and_mended(job, database):
    sent = topas(grid())
    post(job, sent)
    right = read(job)
    stored_before(database, sent)
    assert read_page(job, 0, "scorer") == grid()
    integrity.repair_findings(database, [f for f in integrity.check_store(database) if f.kind == "bytes"])
    [finding] = integrity.check_store(database)
    assert (finding.kind, finding.where) == ("order", f"{job.job_id}, estimator 'scorer'")
    assert "last axis" in finding.what
    for _ in range(2):  # the second changes nothing
        integrity.repair_findings(database, [finding])
        assert integrity.check_store(database) == []
        assert read(job) == right
    assert post(job, sent).status_code == 202


DEPTHS = np.array([0.5, 1.5, 2.5])


def scored(*pages):
    return TaskOutput(500, (Estimator("dose", "dose", tuple(pages), {}),))


def of_task(number=0, values=(1.0, 2.0, 3.0), axis=None, unit="Gy", **more):
    return Page(number, f"q{number}", unit, (axis or Axis("depth", "mm", DEPTHS),), np.array(values), **more)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (of_task(1, axis=Axis("depth", "mm", DEPTHS + 1e-9)), "axes"),
        (of_task(1, axis=Axis("depth", "cm", DEPTHS)), "axes"),
        (of_task(1, axis=Axis("z", "mm", DEPTHS)), "axes"),
        (of_task(1, unit="MeV/g"), "units"),
        (of_task(1, (1.0, 2.0), Axis("depth", "mm", DEPTHS[:2])), "shapes"),
        (of_task(1, aggregation=Aggregation.SUM), "ways to merge"),
        (of_task(7), "has no such page"),
    ],
    ids=["axis", "unit of axis", "name of axis", "unit", "shape", "aggregation", "missing"],
)
def test_a_page_that_differs_between_tasks_is_left_out_alone(signed_in, tmp_path, other, what):
    job = submit(signed_in, "dose")
    worker = Worker(job)
    worker.run(scored(of_task(0), of_task(1)), scored(of_task(0), other))
    answer, _ = worker.merge(tmp_path)
    assert answer.json["wanted"] is True
    assert job.state == "COMPLETED"
    refused = job.status["refused"]
    assert (refused[0]["estimator"], refused[0]["page"]) == ("dose", 1)
    assert what in refused[0]["reason"]
    [kept] = read(job)["estimators"]
    assert [each["metadata"]["page_number"] for each in kept["pages"]] == ["0"]
    assert kept["metadata"]["refused_pages"][0]["page"] == 1
    assert any("left out: page 1" in (row["reason"] or "") for row in job.get("/jobs/history").json["history"])


def test_where_no_task_has_a_value_the_merged_page_has_none(signed_in, tmp_path):
    job = submit(signed_in, "dose")
    worker = Worker(job)
    weights = np.array([1.0, 0.0, 1.0])
    worker.run(*(scored(of_task(0, (1.0, 0.0, np.nan), weights=weights)) for _ in range(2)))
    worker.merge(tmp_path)
    assert read_page(job)["data"]["missing"] == [[1, 2]]
    np.testing.assert_array_equal(as_arrays(job).page("dose", 0).values, [1.0, np.nan, np.nan])


def test_packed_scores_may_lack_values():
    assert packed(scored(of_task(0, (np.nan, 1.0, 2.0))))
