"""Ranges and tables the whole way: posted by a worker, then seen by `yaptide`, by its JSON and by the Python client."""

import csv
import io
import json

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.payloads import estimator, page
from yaptide.admin import cli, local, simulations
from yaptide.admin.store import Opened
from yaptide.client import Client
from yaptide.settings import Settings
from yaptide_client import plots

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

#: A Bragg curve in bins of 1 cm: the peak at 13.5 cm, and 80 % of it half way to the next depth.
CURVE = (1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.7, 2, 2.5, 3.5, 5, 3, 0.5, 0.1, 0, 0, 0)


@pytest.fixture
def yaptide(backend, tmp_path, monkeypatch):
    """Run a command on the test's database; returns what it printed on standard output."""
    settings = Settings(_env_file=None, database_uri="sqlite://", data_dir=tmp_path, signing_key="k" * 32)
    monkeypatch.setattr(local, "open_store", lambda: Opened(settings, backend))

    def run(*words):
        done = CliRunner().invoke(cli.app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def remote(job, app):
    """The job as the Python client sees it, with the URLs that it asked for in `asked`."""
    client = Client("http://localhost:5000")
    client.close()
    asked = []
    client._http = httpx.Client(
        base_url="http://localhost:5000",
        transport=httpx.WSGITransport(app=app),
        event_hooks={"request": [lambda request: asked.append(str(request.url.copy_remove_param("job_id")))]},
    )
    with client:
        client.sign_in("alice", "correct horse")
        response = client.job(job.job_id)
        response.asked = asked
        yield response


def dose(unit="cm", axis="Position (Z)", values=CURVE, **metadata):
    """A page of dose on 20 bins, the first centre at 0.5."""
    result = page(name="Dose", values=values)
    result["axis_dim1"] |= {"name": axis, "unit": unit}
    result["metadata"] |= metadata
    return result


def facts(text):
    """The table that a command printed, by its first column."""
    lines = [line.strip().partition("  ") for line in text.splitlines()]
    return {name: value.strip() for name, _, value in lines}


@pytest.mark.parametrize(
    ("unit", "peak", "r80", "bins", "printed"),
    [
        ("cm", 135, 140, 10, ("135 mm", "140 mm", "10 mm")),
        ("mm", 13.5, 14, 1, ("13.5 mm", "14.0 mm", "1 mm")),
        ("um", 0.0135, 0.014, 0.001, ("0.0135 mm", "0.0140 mm", "0.001 mm")),
        ("m", 13500, 14000, 1000, ("13500 mm", "14000 mm", "1000 mm")),
    ],
)
def test_a_range_is_in_mm_everywhere(job, yaptide, remote, unit, peak, r80, bins, printed):
    assert job.post_results(estimator("dose_", dose(unit))).status_code == 202
    message = facts(yaptide("status", job.job_id))
    assert (message["Bragg peak at"], message["R80"], message["depth bins"]) == printed
    assert "no range" not in message
    document = json.loads(yaptide("status", job.job_id, "--json"))
    expected = {"depth_mm": peak, "r80_mm": r80, "bin_mm": bins}
    assert document["bragg_peak"] == pytest.approx(expected)
    assert document["no_range"] is None
    assert remote.results().bragg_peak() == pytest.approx((peak, r80))
    assert str(remote.results().find_range()).startswith(f"Bragg peak at {printed[0]}, R80 = {printed[1]}")


@pytest.mark.parametrize(
    ("posted", "reason"),
    [
        (dose(axis="Position (X)"), "no page with one axis along the beam scores dose"),
        (
            page(name="DLET") | {"data": {"name": "DLET", "unit": "keV/um", "values": [1, 3, 1]}},
            "no page with one axis",
        ),
        (dose("parsec"), "unknown unit of length 'parsec' for depths"),
        (dose(values=(1.0, 2.0, 3.0)), "The depth-dose curve has no peak with a distal fall-off"),
        (
            dose(no_range="3 fields: a range is defined for one beam"),
            "3 fields: a range is defined for one beam",
        ),
    ],
)
def test_without_a_range_everybody_tells_why(job, yaptide, remote, posted, reason):
    assert job.post_results(estimator("dose_", posted)).status_code == 202
    message = facts(yaptide("status", job.job_id))
    assert message["no range"].startswith(reason)
    assert {"Bragg peak at", "R80"}.isdisjoint(message)
    document = json.loads(yaptide("status", job.job_id, "--json"))
    assert document["bragg_peak"] is None
    assert document["no_range"].startswith(reason)
    assert remote.results().bragg_peak() is None


def test_without_results_there_is_neither_a_range_nor_a_reason(job, yaptide):
    document = json.loads(yaptide("status", job.job_id, "--json"))
    assert (document["bragg_peak"], document["no_range"]) == (None, None)


def test_a_depth_curve_is_found_among_other_pages(job, yaptide):
    """Behind a profile across the beam, in an estimator whose name says nothing."""
    lateral, fluence, deep = dose(axis="X"), dose(), dose(page_number="1", name="q")
    fluence["data"] |= {"name": "FLUENCE", "unit": "/cm^2"}
    job.post_results(estimator("dose_", lateral), estimator("dose2_", fluence, deep))
    assert json.loads(yaptide("status", job.job_id, "--json"))["bragg_peak"]["depth_mm"] == pytest.approx(135)


def test_a_long_list_is_not_taken_for_a_curve(job, yaptide, monkeypatch):
    monkeypatch.setattr(simulations, "_MAX_CURVES", 100)
    job.post_results(estimator("dose_", dose()))
    assert json.loads(yaptide("status", job.job_id, "--json"))["no_range"].startswith("no page")


@pytest.mark.parametrize("layout", ["an estimator for each quantity", "an estimator for each dimension"])
def test_dose_of_mcsquare_is_found_whenever_it_was_stored(job, yaptide, remote, tmp_path, layout):
    """Earlier results have curve, slice and grid as pages of one estimator."""
    pages = [dose(axis="depth", unit="mm", page_number="0"), grid(1, 2, 2), grid(2, 2, 2, 2)]
    if layout == "an estimator for each quantity":
        posted, last = [estimator("Dose", *pages)], ("Dose", 2)
    else:
        pages = [dose(axis="depth", unit="mm", page_number="0"), grid(0, 2, 2), grid(0, 2, 2, 2)]
        posted, last = list(map(estimator, ("Dose", "Dose slice", "Dose grid"), pages)), ("Dose grid", 0)
    assert job.post_results(*posted).status_code == 202
    assert json.loads(yaptide("status", job.job_id, "--json"))["bragg_peak"]["r80_mm"] == pytest.approx(14)
    assert remote.results().find_range().r80_mm == pytest.approx(14)
    assert remote.results("Dose", 0).page("Dose", 0).values.tolist() == list(CURVE)
    cube = list(map(float, range(8)))
    assert remote.results(*last).page(*last).values.tolist() == cube
    chosen = ("results", job.job_id, "--estimator", last[0], "--pages", last[1])
    assert [float(row["value"]) for row in csv.DictReader(io.StringIO(yaptide(*chosen, "--csv")))] == cube
    assert json.loads(yaptide(*chosen, "--json"))["pages"] == [pages[2]]
    yaptide("results", job.job_id, "--png", tmp_path / "dose.png")
    assert (tmp_path / "dose.png").stat().st_size > 20_000
    drawn = plots.draw_overview(remote.results(), "title").axes
    assert {"R80 = 14.0 mm", "a2 [cm]"} <= {text for axes in drawn for text in _written(axes)}


def _written(axes):
    legend = axes.get_legend()
    return [axes.get_xlabel(), axes.get_ylabel(), *([text.get_text() for text in legend.get_texts()] if legend else [])]


# --- tables


def grid(number, *sizes, values=None):
    """A page of whole numbers on axes of these sizes."""
    axes = {
        f"axis_dim{n}": {"name": f"a{n}", "unit": "cm", "values": list(range(1, size + 1))}
        for n, size in enumerate(sizes, start=1)
    }
    data = {"name": "q", "unit": "MeV/g", "values": values or list(range(int(np.prod(sizes))))}
    return {"dimensions": len(sizes), "data": data, **axes, "metadata": {"page_number": str(number)}}


def test_tables_of_four_axes_and_of_large_integers(job, yaptide, remote, tmp_path):
    large = [2**53 + 1, 2**60 + 1]
    job.post_results(estimator("dose_", grid(0, 2, 2, 2, 2)), estimator("dose2_", grid(3, 2, values=large)))
    text = yaptide("results", job.job_id, "--csv", "--npz", tmp_path / "a.npz")
    rows = list(csv.DictReader(io.StringIO(text), restkey="too many"))
    assert len(rows) == 18
    assert "too many" not in rows[0]
    assert [rows[6][f"axis{n}"] for n in (1, 2, 3, 4)] == ["1.0", "2.0", "2.0", "1.0"]
    assert (rows[6]["axis4_name"], rows[6]["axis4_unit"], rows[6]["value"]) == ("a4", "cm", "6")
    assert [row["value"] for row in rows[16:]] == [str(number) for number in large]
    with np.load(tmp_path / "a.npz") as file:
        index = json.loads(str(file["index"]))
        assert [estimator["name"] for estimator in index["estimators"]] == ["dose", "dose2"]
        assert file["e0_p0_values"][1, 1, 0, 0] == 3
        assert file["e1_p0_values"].tolist() == large
    ours = io.StringIO()
    remote.results().write_csv(ours)
    assert ours.getvalue() == text


def test_only_what_is_asked_for_is_read(job, yaptide, remote, tmp_path):
    job.post_results(estimator("dose_", *(page(number, f"Q{number}") for number in range(4))), estimator("dose2_"))
    assert [e.name for e in remote.results("dose2").estimators] == ["dose2"]
    for pages in ("0-1,3", (0, 1, 3)):
        results = remote.results(estimator="dose", pages=pages)
        assert [(e.name, [p.number for p in e.pages]) for e in results.estimators] == [("dose", [0, 1, 3])]
    assert remote.results("dose", 2).page("dose", 2).name == "Q2"
    queries = [httpx.URL(url).query.decode() for url in remote.asked if "results" in url]
    assert queries == [
        "estimator_name=dose2",
        *("estimator_name=dose&page_numbers=0-1%2C3&values=1", "estimator_name=dose&page_numbers=0%2C1%2C3&values=1"),
        "estimator_name=dose&page_numbers=2&values=1",
    ]
    chosen = ("results", job.job_id, "--estimator", "dose", "--pages", "0-1,3")
    rows = list(csv.DictReader(io.StringIO(yaptide(*chosen, "--csv"))))
    assert {(row["estimator"], row["page"]) for row in rows} == {("dose", number) for number in "013"}
    answer = job.get("/results", estimator_name="dose", page_numbers="0-1,3").json
    assert json.loads(yaptide(*chosen, "--json")) == answer
    listed = yaptide(*chosen)
    assert [name in listed for name in ("Q0", "Q1", "Q2", "Q3")] == [True, True, False, True]
    yaptide("results", job.job_id, "--estimator", "dose", "--npz", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert [e["name"] for e in json.loads(str(file["index"]))["estimators"]] == ["dose"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pages", "0"), "--pages needs --estimator"),
        (("--estimator", "dose", "--pages", "x", "--csv"), "is not a range of pages"),
        (("--estimator", "dose", "--pages", "2-1"), "is not a range of pages"),
        (("--estimator", "dose9"), "Results are unavailable"),
        (("--estimator", "dose9", "--csv"), "Results are unavailable"),
        (("--estimator", "dose", "--pages", "7", "--json"), "Results are unavailable"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(job, yaptide, words, message):
    job.post_results()
    done = CliRunner().invoke(cli.app, ["results", job.job_id, *words])
    assert done.exit_code
    assert message in done.output + str(done.exception)


def test_values_that_do_not_exist_and_pages_left_out_are_told_the_same_everywhere(job, yaptide, remote):
    broken = dose(values=(*CURVE[:-1], float("nan")), page_number="0")
    broken["data"]["errors"] = [*([0.1] * 19), None]
    short = dose(page_number="1")
    short["data"]["errors"] = [0.1]
    job.client.post("/results", data=json.dumps(job.results(estimator("dose_", broken, short))))
    [refused] = json.loads(yaptide("status", job.job_id, "--json"))["refused"]
    assert remote.status()["refused"] == [refused]
    assert refused["reason"] == "it has 20 values and 1 errors"
    left_out = "page 1 of estimator 'dose_': it has 20 values and 1 errors"
    assert left_out in " ".join(yaptide("status", job.job_id).split())
    *_, last = csv.DictReader(io.StringIO(yaptide("results", job.job_id, "--csv")))
    assert (last["value"], last["error"]) == ("", "")
    curve = remote.results().page("dose", 0)
    assert np.isnan([curve.values[-1], curve.errors[-1]]).all()
    assert remote.results().bragg_peak() == pytest.approx((135, 140))
