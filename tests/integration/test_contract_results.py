"""Results: posted by a worker with an update key, read by the simulation's user."""

import math
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
import pytest

from tests.support.api import contents, counts, sign_in, submit
from tests.support.payloads import bits, estimator, page


def names(job) -> list[str]:
    """The names of the estimators in the order of the tabs."""
    return [result["name"] for result in job.get("/estimators").json["estimators_metadata"]]


def test_results_end_the_simulation(job, signed_in):
    response = job.post_results()
    assert (response.status_code, response.json) == (202, {"message": "Results saved"})
    assert job.state == "COMPLETED"
    for task in job.status["job_tasks_status"]:
        assert (task["task_state"], task["simulated_primaries"]) == ("COMPLETED", 500)
    [item] = signed_in.get("/user/simulations").json["simulations"]
    assert parsedate_to_datetime(item["end_time"]) >= parsedate_to_datetime(item["start_time"])


def test_all_that_is_shown_of_results_is_there_once_the_job_is_completed(job):
    for path in ("/estimators", "/results"):
        response = job.get(path)
        assert response.status_code == 404
        assert response.json["message"]
    job.post_results()
    for path in ("/inputs", "/estimators", "/results"):
        assert job.get(path).status_code == 200


def test_the_list_of_estimators(job):
    point = {
        "dimensions": 0,
        "data": {"name": "FLUENCE", "unit": "", "values": [1.5]},
        "metadata": {"page_number": "2"},
    }
    job.post_results(estimator("dose_", page(0, "DOSE"), page(1, "DLET"), point))
    response = job.get("/estimators")
    assert response.status_code == 200
    assert set(response.json) == {"message", "estimators_metadata"}
    assert response.json["estimators_metadata"] == [
        {
            "name": "dose",
            "pages_metadata": [
                {"page_number": 0, "page_name": "DOSE", "page_dimension": 1},
                {"page_number": 1, "page_name": "DLET", "page_dimension": 1},
                {"page_number": 2, "page_name": "FLUENCE", "page_dimension": 0},
            ],
        }
    ]


def test_pages_come_in_ascending_order_however_they_were_posted(job):
    pages = [page(number, f"Q{number}") for number in (10, 2, 7, 0, 1)]
    job.post_results(estimator("dose_", *pages))
    ascending = sorted(pages, key=lambda p: int(p["metadata"]["page_number"]))
    [only] = job.get("/estimators").json["estimators_metadata"]
    assert [p["page_number"] for p in only["pages_metadata"]] == [0, 1, 2, 7, 10]
    assert job.get("/results", estimator_name="dose", page_numbers="0-10").json["pages"] == ascending
    assert job.get("/results", estimator_name="dose").json["estimators"][0]["pages"] == ascending
    assert job.get("/results").json["estimators"][0]["pages"] == ascending


def test_all_results(job):
    items = [estimator("dose_", page(0), page(1, "LET")), estimator("dose2_")]
    job.post_results(*items)
    response = job.get("/results")
    assert response.status_code == 200
    assert set(response.json) == {"message", "estimators"}
    assert response.json["estimators"] == [items[0] | {"name": "dose"}, items[1] | {"name": "dose2"}]


def test_results_of_one_estimator(job):
    job.post_results(estimator("dose_"), estimator("dose2_", page(0, "LET")))
    response = job.get("/results", estimator_name="dose2")
    assert [result["name"] for result in response.json["estimators"]] == ["dose2"]
    response = job.get("/results", estimator_name="dose3")
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [("0", [0]), ("0-2,5", [0, 1, 2, 5]), ("5,0-2", [0, 1, 2, 5]), ("1,1,0-1", [0, 1]), ("4-9", [4, 5]), ("05", [5])],
)
def test_some_pages_of_an_estimator(job, asked, numbers):
    pages = [page(number, f"Q{number}") for number in range(6)]
    job.post_results(estimator("dose_", *pages))
    response = job.get("/results", estimator_name="dose", page_numbers=asked)
    assert response.status_code == 200
    assert set(response.json) == {"message", "pages"}
    assert response.json["pages"] == [pages[number] for number in numbers]


def test_pages_that_are_not_there(job):
    job.post_results(estimator("dose_"))
    assert job.get("/results", estimator_name="dose", page_numbers="1-3").status_code == 404
    assert job.get("/results", estimator_name="dose3", page_numbers="0").status_code == 404
    assert job.get("/results", page_numbers="0").status_code == 400


def test_numbers_keep_every_bit(job):
    values = [0.1, 1 / 3, -0.0, 5e-324, math.nextafter(1, 2), 1.7976931348623157e308, 1e22, 123456789012345678.0]
    job.post_results(estimator("dose_", page(values=tuple(values))))
    [answered] = job.get("/results", estimator_name="dose", page_numbers="0").json["pages"]
    assert list(map(bits, answered["data"]["values"])) == list(map(bits, values))


def grid(axes: int, number: int = 0) -> dict[str, Any]:
    """A page with so many axes."""
    result = page(number, values=tuple(map(float, range(6)))) | {"dimensions": axes}
    for place, size in enumerate((3, 2, 1, 1)[:axes], start=1):
        result[f"axis_dim{place}"] = {"name": f"Position {place}", "unit": "cm", "values": list(range(size))}
    return result


def test_a_page_with_two_axes(job):
    assert job.post_results(estimator("dose_", grid(2))).status_code == 202
    assert job.get("/results", estimator_name="dose", page_numbers="0").json["pages"] == [grid(2)]


@pytest.mark.parametrize("axes", [3, 4])
def test_a_page_that_the_front_end_cannot_draw_is_the_address_of_a_download(job, axes):
    """It shows that address as text, and fetches pages before a user requests them."""
    job.post_results(estimator("dose_", page(0), grid(axes, 5), page(7, "DLET")))
    response = job.get("/results", estimator_name="dose", page_numbers="0-9")
    first, address, last = response.json["pages"]
    assert (first, last) == (page(0), page(7, "DLET"))
    url = address.pop("results_url")
    assert address == {"dimensions": axes, "metadata": {"page_number": "5", "name": "DOSE"}}
    assert "Content-Disposition" not in response.headers
    download = job.client.get(url)
    assert download.json == {"message": "Results", "pages": [grid(axes, 5)]}
    assert download.headers["Content-Disposition"] == f"attachment; filename={job.job_id}-dose-5.json"


def test_the_address_of_a_download_fits_every_name_of_an_estimator(signed_in):
    for name in ("Dose grid", "a&values=0#b", "100 %41+/?\r\n", "żółć ☢", '"', "x" * 500):
        job = submit(signed_in, name)
        assert job.post_results(estimator(name, grid(3))).status_code == 202
        [address] = job.get("/results", estimator_name=name, page_numbers="0").json["pages"]
        assert address["results_url"].isascii()
        download = job.client.get(address["results_url"])
        assert download.json["pages"] == [grid(3)]
        assert download.headers["Content-Disposition"].startswith(f"attachment; filename={job.job_id}")


def test_whoever_asks_for_all_pages_or_for_values_gets_every_number(job):
    items = [page(0), grid(2, 1), grid(3, 2)]
    job.post_results(estimator("dose_", *items))
    for query in ({}, {"estimator_name": "dose"}):
        assert job.get("/results", **query).json["estimators"][0]["pages"] == items
    one = {"estimator_name": "dose", "page_numbers": "0-2"}
    assert job.get("/results", **one, values="1").json["pages"] == items
    assert job.get("/results", **one, values="0").json == job.get("/results", **one).json
    assert job.get("/results", **one, values="some").status_code == 400


def test_an_address_is_no_way_around_whose_simulation_it_is(job, app):
    job.post_results(estimator("dose_", grid(3)))
    [address] = job.get("/results", estimator_name="dose", page_numbers="0").json["pages"]
    assert sign_in(app, "mallory").get(address["results_url"]).status_code == 403
    assert app.test_client().get(address["results_url"]).status_code == 401


def test_the_same_results_twice_are_kept_once(job, database):
    job.post_results()
    before = contents(database)
    response = job.post_results()
    assert (response.status_code, response.json) == (202, {"message": "Results saved"})
    assert contents(database) == before


@pytest.mark.parametrize(
    "others",
    [
        [estimator("dose_", page(values=(9.0, 9.0, 9.0)))],
        [estimator("dose_", page(0), page(1))],
        [estimator("dose2_")],
        [estimator("dose_"), estimator("dose2_")],
    ],
    ids=["other numbers", "another page", "another name", "another estimator"],
)
def test_other_results_the_second_time_are_refused_and_the_first_are_kept(job, database, others):
    job.post_results(estimator("dose_"))
    before = contents(database)
    response = job.post_results(*others)
    assert response.status_code == 409
    assert "other results" in response.json["message"]
    assert contents(database) == before


@pytest.mark.parametrize("state", ["CANCELED", "FAILED"])
def test_results_of_what_was_canceled_or_failed_are_refused(job, database, state):
    job.bring_to(state)
    before = contents(database)
    response = job.post_results()
    assert response.status_code == 409
    assert state in response.json["message"]
    assert contents(database) == before


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING"])
def test_results_are_taken_in_every_state_that_is_not_final(job, state):
    job.bring_to(state)
    assert job.post_results().status_code == 202
    assert job.state == "COMPLETED"


def test_results_without_a_failed_task_are_kept_but_the_simulation_is_no_success(job):
    job.report_task(0, task_state="FAILED")
    job.report_task(1, task_state="COMPLETED")
    assert job.post_results().status_code == 202
    assert job.state == "FAILED"
    assert job.get("/results").status_code == 200


@pytest.mark.parametrize(
    ("outputs", "posted", "named"),
    [
        (("dose", "dose2"), ["dose_", "dose2_"], {"dose": "dose_", "dose2": "dose2_"}),
        (("dose", "dose2"), ["dose2_", "dose_"], {"dose": "dose_", "dose2": "dose2_"}),
        (("dose2", "dose"), ["dose_", "dose2_"], {"dose2": "dose2_", "dose": "dose_"}),
        (("dose", "dose2"), ["dose2", "dose"], {"dose": "dose", "dose2": "dose2"}),
        (("z_profile", "a"), ["a_", "z_profile_"], {"z_profile": "z_profile_", "a": "a_"}),
        (("dose", "dose_"), ["dose_", "dose"], {"dose": "dose", "dose_": "dose_"}),
        (("dose", "dose2"), ["other_", "dose2_"], {"dose2": "dose2_", "other_": "other_"}),
        (("b", "a"), ["01_fort.22", "01_fort.21"], {"b": "01_fort.21", "a": "01_fort.22"}),
        (("b", "a"), ["02_fort.23", "02_fort.21"], {"b": "02_fort.21", "02_fort.23": "02_fort.23"}),
        (("a", "b", "c"), ["01_fort.23", "01_fort.22"], {"b": "01_fort.22", "c": "01_fort.23"}),
    ],
)
def test_estimators_are_named_and_ordered_as_in_the_project(signed_in, outputs, posted, named):
    job = submit(signed_in, *outputs)
    response = job.post_results(*(estimator(file_name, page(0, f"of {file_name}")) for file_name in posted))
    assert response.status_code == 202, response.json
    assert names(job) == list(named)
    # None has got the numbers of another.
    scored = {result["name"]: result["pages"][0]["data"]["name"] for result in job.get("/results").json["estimators"]}
    assert scored == {name: f"of {file_name}" for name, file_name in named.items()}


def test_estimators_of_input_files_keep_their_names_and_order(signed_in):
    files = {"f.inp": "START         1000.0\nSTOP\n"}
    job = submit(signed_in, input_type="files", sim_type="fluka", input_files=files)
    job.post_results(estimator("01_fort.22"), estimator("01_fort.21"))
    assert names(job) == ["01_fort.22", "01_fort.21"]


NOT_SHOWN = [
    *("[0.5,1e999,2.5]", "null", "[]"),
    *('[0.5,"1.5",2.5]', "[0.5,true,2.5]", "[0.5,[1.5],2.5]", "[0.5,1.5]", "[0.5,1.5,2.5,3.5]"),
]


@pytest.mark.parametrize("place", ["data", "axis_dim1"])
def test_what_a_browser_cannot_show_is_refused(job, database, place):
    before = contents(database)
    text = orjson.dumps(job.results(estimator("dose_", page(values=(0.5, 1.5, 2.5))))).decode()
    start = text.index(f'"{place}"')
    for bad in NOT_SHOWN:
        spoilt = text[:start] + text[start:].replace('"values":[0.5,1.5,2.5]', f'"values":{bad}', 1)
        assert spoilt != text
        response = job.client.post("/results", data=spoilt)
        assert (bad, response.status_code) == (bad, 400)
        assert response.json["message"]
    assert contents(database) == before


NO_PAGES: list[dict[str, Any]] = [
    *({"dimensions": value} for value in ("1", 2, -1, 0, 10**6, None)),
    *({"data": value} for value in (None, [], {"name": None, "unit": "", "values": [0.5, 1.5, 2.5]})),
    {"axis_dim1": None},
    *({"metadata": {"page_number": value}} for value in ("x", -1, "\u0663", 2**63, "1" * 5000, None, 1.0, "")),
    *({"metadata": {"name": value}} for value in ("x" * 600, "a\0b", "")),
    {"metadata": []},
]


def test_pages_that_make_no_sense_are_refused(job, database):
    before = contents(database)
    for change in NO_PAGES:
        response = job.post_results(estimator("dose2_", page(values=(0.5, 1.5, 2.5)) | change))
        assert (change, response.status_code) == (change, 400)
        assert response.json["message"]
    assert contents(database) == before


def test_estimators_that_make_no_sense_are_refused(job, database):
    before = contents(database)
    for spoilt in (
        [],
        [estimator("dose_"), estimator("dose")],  # both are the output `dose`
        [estimator("")],
        [estimator("x" * 600)],
        [estimator("a\0b")],
        [estimator() | {"pages": []}],
        [estimator() | {"metadata": None}],
        [estimator() | {"pages": [None]}],
        [{"name": "dose_"}],
        [7],
        {"dose_": []},
        None,
    ):
        body = job.results() | {"estimators": spoilt}
        response = job.client.post("/results", json=body)
        assert (spoilt, response.status_code) == (spoilt, 400)
        assert response.json["message"]
    assert contents(database) == before


def test_text_that_is_no_text_is_refused(job, database):
    before = contents(database)
    body = orjson.dumps(job.results(estimator("dose_", page() | {"comment": {"deep": ["somewhere"]}})))
    for place in (b"Position (Z)", b"MeV/g", b"DOSE", b"number_of_primaries", b"somewhere"):
        assert place in body
        for bad in (b"\xff", b"\xed\xa0\x80", b"\\ud800"):  # no UTF-8, a surrogate in UTF-8, a lone surrogate
            response = job.client.post("/results", data=body.replace(place, place + bad))
            assert (place, bad, response.status_code) == (place, bad, 400)
            assert response.json["message"]
    assert contents(database) == before


def test_what_is_not_known_of_a_page_is_kept(job):
    more = page() | {"comment": {"by": ["pymchelper", None, 1.5]}}
    more["data"]["errors"] = [0.1, 0.2, 0.3]
    job.post_results(estimator("dose_", more))
    assert job.get("/results", estimator_name="dose", page_numbers="0").json["pages"] == [more]


def test_results_of_two_simulations_are_apart(job, signed_in, database):
    other = submit(signed_in)
    job.post_results(estimator("dose_", page(0, "A")))
    other.post_results(estimator("dose_", page(0, "B")))
    assert counts(database)["Page"] == 2
    for each, name in ((job, "A"), (other, "B")):
        [only] = each.get("/results", estimator_name="dose", page_numbers="0").json["pages"]
        assert only["data"]["name"] == name
