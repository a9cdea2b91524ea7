"""The pages of results: pictures are made of exactly the numbers that are stored, for those who may see them."""

import csv
import gzip
import io
import json
import re
import struct

import numpy as np
import pytest

from tests.support import payloads
from tests.support.api import submit
from yaptide.persistence import codec
from yaptide.persistence.models import EstimatorModel, PageModel
from yaptide.services import pictures
from yaptide.simulators.mcsquare.sample import water_sample

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

NUMBERS = np.random.default_rng(7).random(4 * 3 * 2) * 1e-9
NUMBERS[5] = -0.0
NUMBERS[6] = 5e-324
SHAPE = (4, 3, 2)


def page(shape, values, number=0, **data):
    axes = {
        f"axis_dim{n}": {"name": name, "unit": "cm", "values": [0.1 * k for k in range(bins)]}
        for n, (name, bins) in enumerate(zip("XYZ", shape, strict=False), 1)
    }
    data = {"name": "DOSE", "unit": "MeV/g", "values": values} | data
    return {"dimensions": len(shape), "data": data, **axes, "metadata": {"page_number": str(number), "name": "DOSE"}}


@pytest.fixture
def grid(job):
    errors = (NUMBERS / 10).tolist()
    cube = page(SHAPE, NUMBERS.tolist(), errors=errors, missing=[[9, 10]])
    job.post_results(payloads.estimator("grid", cube), payloads.estimator("curve"))
    return job


def cut(job, client=None, estimator="grid", page=0, headers=None, **query):
    query = {"estimator": estimator, "page": page} | query
    return (client or job.client).get(f"/simulations/{job.job_id}/slices", query_string=query, headers=headers)


def doubles(answer):
    assert (answer.status_code, answer.mimetype) == (200, "application/octet-stream"), answer.text
    return [number[0] for number in struct.iter_unpack("<d", answer.data)]


def stored(job, path="values"):
    """The numbers of the grid as any reader of the API gets them, NaN where there are none, by (x, y, z)."""
    data = job.get("/results", estimator_name="grid", page_numbers="0", values=1).json["pages"][0]["data"]
    numbers = np.array(data[path])
    for first, last in data["missing"] if path == "values" else ():
        numbers[first : last + 1] = np.nan
    return {(x, y, z): numbers[x + 4 * (y + 3 * z)] for x in range(4) for y in range(3) for z in range(2)}


@pytest.mark.parametrize("what", ["values", "errors"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_slice_holds_the_stored_numbers_bit_for_bit(grid, axis, what):
    numbers = stored(grid, what)
    for index in range(SHAPE[axis - 1]):
        places = sorted((p for p in numbers if p[axis - 1] == index), key=lambda place: place[::-1])
        result = doubles(cut(grid, what=what, axis=axis, index=index))
        assert [payloads.bits(n) for n in result] == [payloads.bits(numbers[place]) for place in places]


def test_a_curve_and_a_map_come_whole(grid, signed_in):
    assert doubles(cut(grid, estimator="curve")) == [0.1, 1 / 3, 2e-300]
    assert doubles(cut(grid, estimator="curve", what="axis", axis=1)) == [0.5, 1.5, 2.5]
    assert len(doubles(cut(grid))) == NUMBERS.size
    plane = submit(signed_in)
    plane.post_results(payloads.estimator("map", page((4, 3), list(range(12)))))
    assert doubles(cut(plane, estimator="map")) == list(range(12))
    assert doubles(cut(plane, estimator="map", axis=2, index=1)) == [4, 5, 6, 7]


def test_a_slice_is_kept_by_browsers_for_one_session(grid):
    first = cut(grid, axis=3, index=1)
    assert (first.headers["Cache-Control"], first.headers["Vary"]) == ("no-cache", "Cookie, Accept-Encoding")
    again = cut(grid, axis=3, index=1, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert cut(grid, axis=3, index=0, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
    address = re.search(r"v=([0-9a-f]{64})", grid.client.get(f"/simulations/{grid.job_id}/results").text)
    kept = cut(grid, axis=3, index=1, v=address[1])
    assert kept.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_numbers_are_compressed_for_browsers_that_accept_it(grid):
    plain, packed = (cut(grid, axis=3, index=1, headers={"Accept-Encoding": name}) for name in ("identity", "gzip, br"))
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert plain.headers["ETag"] != packed.headers["ETag"]
    known = {"If-None-Match": packed.headers["ETag"], "Accept-Encoding": "gzip"}
    assert cut(grid, axis=3, index=1, headers=known).status_code == 304


def test_the_shades_of_a_map_are_near_its_values(signed_in):
    numbers = np.random.default_rng(3).normal(size=60) * 1e-300
    numbers[:4] = [0.0, -0.0, 5e-324, numbers.max()]
    job = submit(signed_in)
    job.post_results(payloads.estimator("map", page((10, 6), numbers.tolist(), missing=[[7, 8]])))
    high, low = np.frombuffer(cut(job, estimator="map", what="shades").data, "u1").reshape(2, -1).astype("<u4")
    shades = ((high << 8 | low) << 16).view("<f4")
    assert np.isnan(shades[7:9]).all()
    known = [n for n in range(60) if n not in (7, 8)]
    assert shades[known] * np.abs(numbers[known]).max() == pytest.approx(numbers[known], rel=2**-8, abs=0)
    assert np.abs(shades[known]).max() == 1


def test_a_map_of_random_numbers_is_small(signed_in):
    """40,000 numbers without any order: with the axes, what a picture of them needs has less than 60 kB."""
    numbers = np.random.default_rng(5).random(40_000)
    job = submit(signed_in)
    job.post_results(payloads.estimator("map", page((200, 200), numbers.tolist())))
    asked = ({"what": "shades"}, {"what": "axis", "axis": 1}, {"what": "axis", "axis": 2}, {"axis": 2, "index": 100})
    sizes = [len(cut(job, estimator="map", headers={"Accept-Encoding": "gzip"}, **query).data) for query in asked]
    assert sum(sizes) < 60_000, sizes


def test_another_user_gets_no_slice(grid, stranger, client):
    known = cut(grid, axis=3, index=1).headers["ETag"]
    for headers in ({}, {"If-None-Match": known}):
        assert cut(grid, stranger, axis=3, index=1, headers=headers).status_code == 403
        assert cut(grid, client, axis=3, index=1, headers=headers).location.startswith("/sign-in")
    for path in ("ct", "results/download", "results/download?format=csv", "results/picture?estimator=grid"):
        assert stranger.get(f"/simulations/{grid.job_id}/{path}").status_code == 403


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"axis": 3, "index": 2}, 404, "2 bins, not a bin 2"),
        ({"axis": 3, "index": 999_999_999}, 404, "not a bin"),
        ({"axis": 3, "index": "9" * 400}, 400, "index must be a number"),
        ({"axis": 3, "index": -1}, 400, "index must be a number"),
        ({"axis": 3}, 400, "needs index"),
        ({"axis": 4, "index": 0}, 404, "3 axes, not an axis 4"),
        ({"axis": 0, "index": 0}, 404, "not an axis 0"),
        ({"axis": "x"}, 400, "axis must be a number"),
        ({"axis": "\u0661", "index": 0}, 400, "axis must be a number"),
        ({"what": "axis"}, 400, "needs axis"),
        ({"what": "weights"}, 400, "what must be one of values, errors, axis, shades"),
        ({"what": "errors", "estimator": "curve"}, 404, "errors of this page are not known"),
        ({"page": 1}, 404, "no page 1"),
        ({"page": "0 OR 1=1"}, 404, "no page"),
        ({"estimator": "no such"}, 404, "no page 0 of an estimator"),
        ({"estimator": "x" * 3000}, 404, "no page 0 of an estimator"),
        ({"estimator": "<script>"}, 404, "&lt;script&gt;"),
    ],
)
def test_hostile_queries(grid, query, status, message):
    answer = cut(grid, **query)
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert message in answer.text
    assert "<script>" not in answer.text


def test_many_numbers_at_once_are_refused(grid, monkeypatch):
    monkeypatch.setattr(pictures, "_MOST_NUMBERS", 12)
    assert cut(grid).status_code == 400
    assert len(doubles(cut(grid, axis=3, index=1))) == 12


def test_a_damaged_page_is_explained(grid, database):
    with database.writing() as connection:
        table = PageModel.__table__
        connection.execute(table.update().values(compressed_data=b"\x1f\x8bx"))
        connection.execute(table.update().values(content_sha256="0" * 64))
    assert cut(grid, axis=3, index=1).status_code == 400
    answer = grid.client.get(f"/simulations/{grid.job_id}/results")
    assert (answer.status_code, "damaged" in answer.text) == (200, True)


def test_a_page_of_another_backend_with_nan_is_drawn_with_a_gap(grid, database):
    text = json.dumps(page((3,), [1.0, float("nan"), 3.0]))
    with database.writing() as connection:
        estimators, pages = EstimatorModel.__table__, PageModel.__table__
        curve = estimators.select().where(estimators.c.name == "curve")
        number = connection.execute(curve).one().id
        change = {"compressed_data": gzip.compress(text.encode()), "content_sha256": "1" * 64}
        connection.execute(pages.update().where(pages.c.estimator_id == number).values(change))
    first, gap, last = doubles(cut(grid, estimator="curve"))
    assert (first, np.isnan(gap), last) == (1.0, True, 3.0)


def test_the_page_names_what_is_shown(grid):
    text = grid.client.get(f"/simulations/{grid.job_id}/results").text
    largest = int(np.nanargmax([*NUMBERS[:9], np.nan, np.nan, *NUMBERS[11:]]))
    assert f"{NUMBERS[largest] / 1e-10:.3f}"[:4] in text
    assert "0 to 0.3 cm (centres), 4 bins" in text
    curve = grid.client.get(f"/simulations/{grid.job_id}/results?estimator=curve&page=0").text
    assert "0.33333 MeV/g at Position (Z) 1.5 cm" in curve
    assert "<td>0.333333</td>" in curve
    assert "not known: they need two tasks or more" in curve
    for query in ("estimator=none", "estimator=curve&page=7", "estimator=curve&page=x"):
        assert grid.client.get(f"/simulations/{grid.job_id}/results?{query}").status_code in (400, 404)


def test_pages_without_a_picture_are_told_in_words(job):
    single = page((), [1.5e-9], errors=[2e-11])
    particles = page((), [1.0] * 14) | {"metadata": {"page_number": "0", "aggregation": "concatenate", "columns": "7"}}
    nothing = page((3,), [0, 0, 0], missing=[[0, 2]])
    refused = page((3,), [0, 0], number=1)
    job.post_results(
        payloads.estimator("single", single),
        payloads.estimator("particles", particles),
        payloads.estimator("nothing", nothing, refused),
    )
    expected = {
        "single": "(1.5 ± 0.02)×10⁻⁹ MeV/g",
        "particles": "14 numbers in 7 columns",
        "nothing": "(no value)",
    }
    for name, words in expected.items():
        text = job.client.get(f"/simulations/{job.job_id}/results?estimator={name}").text
        assert words in text
        assert "data-drawing" not in text
        assert "nothing, page 1: it has 2 values" in text


def test_before_there_are_results(job):
    assert "no results yet" in job.client.get(f"/simulations/{job.job_id}/results").text
    job.bring_to("CANCELED")
    assert "ended without results" in job.client.get(f"/simulations/{job.job_id}/results").text


def test_a_large_page_comes_later(grid, monkeypatch):
    monkeypatch.setattr("yaptide.web.results._AT_ONCE", 100)
    text = grid.client.get(f"/simulations/{grid.job_id}/results?estimator=grid").text
    assert "data-drawing" not in text
    address = re.search(r'hx-get="([^"]+)"', text)[1].replace("&amp;", "&")
    assert "data-drawing" in grid.client.get(address).text


def test_markup_in_names_is_escaped(job):
    name = "<img src=x onerror=alert(1)>'\""
    spoilt = page((3,), [1, 2, 3], name=name, unit=name)
    spoilt["axis_dim1"] |= {"name": name, "unit": name}
    job.post_results(payloads.estimator(name, spoilt))
    text = job.client.get(f"/simulations/{job.job_id}/results").text
    assert "<img" not in text
    drawing = re.search(r'data-drawing="([^"]*)"', text)[1]
    assert "<" not in drawing


def download(job, **query):
    with job.client.get(f"/simulations/{job.job_id}/results/download", query_string=query) as answer:
        return answer.status_code, answer.headers.get("Content-Disposition", ""), answer.data


def test_downloads_hold_all_numbers(grid):
    _, name, data = download(grid, estimator="grid", page=0, format="csv")
    assert name.endswith(f"{grid.job_id}-grid-0.csv")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert [float(row["value"]) for row in rows[:9]] == NUMBERS[:9].tolist()
    assert (rows[9]["value"], rows[1]["axis1"], rows[4]["axis2"]) == ("", "0.1", "0.1")
    assert len(download(grid, format="csv")[2].splitlines()) == 1 + NUMBERS.size + 3
    arrays = np.load(io.BytesIO(download(grid, format="npz")[2]))
    assert arrays["e0_p0_values"].shape == SHAPE
    document = json.loads(download(grid, estimator="grid", page=0)[2])
    assert document["pages"][0]["data"]["values"][:9] == NUMBERS[:9].tolist()
    assert download(grid, format="exe")[0] == 400
    assert download(grid, estimator="none", format="csv")[0] == 404
    assert download(grid, estimator="grid", page=3, format="csv")[0] == 404


def test_very_large_results_are_not_written_as_a_table(grid, monkeypatch):
    monkeypatch.setattr("yaptide.services.exports._MOST_TEXT", 100)
    answer = grid.client.get(f"/simulations/{grid.job_id}/results/download?format=csv")
    assert (answer.status_code, "download JSON" in answer.text) == (400, True)


def test_the_ct_of_a_simulation(signed_in):
    files = water_sample(1600, 100.0, seed=1)
    files["ct.txt"] = "grid 6 5 4\nspacing 10 20 30\nfill 0\nbox 0 10 0 100 0 120 -500\nbox 50 60 80 100 90 120 1000\n"
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", "30 50 60")
    body = {"input_type": "files", "ntasks": 1, "sim_type": "mcsquare", "title": "CT", "input_files": files}
    submitted = signed_in.post("/jobs/direct", json=body)
    assert submitted.status_code == 202, submitted.json
    address = f"/simulations/{submitted.json['job_id']}/ct"
    grid = signed_in.get(address).json
    assert (grid["shape"], grid["spacing"], grid["origin"]) == ([6, 5, 4], [10, 20, 30], [5, 10, 15])
    assert (grid["quantity"], grid["minimum"], grid["maximum"]) == ("HU", -500, 1000)
    axial = np.frombuffer(signed_in.get(f"{address}?axis=3&index=3").data, "<f4").reshape(5, 6)
    assert (axial[0, 0], axial[4, 5], axial[4, 4]) == (-500, 1000, 0)
    sagittal = np.frombuffer(signed_in.get(f"{address}?axis=1&index=5").data, "<f4").reshape(4, 5)
    assert (sagittal[3, 4], sagittal[0, 0]) == (1000, 0)
    for query, status in (("axis=3&index=4", 404), ("axis=4&index=0", 404), ("axis=x&index=0", 400)):
        assert signed_in.get(f"{address}?{query}").status_code == status


def test_a_simulation_without_a_ct(grid):
    assert grid.client.get(f"/simulations/{grid.job_id}/ct").status_code == 204
    assert grid.client.get(f"/simulations/{grid.job_id}/ct?axis=1&index=0").status_code == 404


def test_a_payload_is_decoded_once_for_many_slices(grid, monkeypatch):
    decoded = []
    monkeypatch.setattr(pictures, "_PAGES", pictures.Cache(8, 1 << 30))
    inflate = codec.inflate_pieces
    monkeypatch.setattr(codec, "inflate_pieces", lambda chunks: (decoded.append(1), inflate(chunks))[1])
    for index in range(3):
        cut(grid, axis=2, index=index)
    assert decoded == [1]
