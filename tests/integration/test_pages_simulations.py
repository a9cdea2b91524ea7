"""The list of simulations and the pages of one: what they show, find, cancel and delete."""

import re

import pytest
from flask.testing import FlaskClient

from tests.support import payloads
from tests.support.api import Job, submit
from tests.support.routes import send_form
from yaptide.services import tasks

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

HTMX = {"HX-Request": "true"}
MARKUP = "<script>alert(1)</script>\"'&"


def titles(client: FlaskClient, address: str = "/simulations") -> list[str]:
    """The titles on a page of the list, in its order."""
    page = client.get(address)
    assert page.status_code == 200
    return re.findall(r'<td class="title"><a [^>]*>([^<]*)</a>', page.text)


def facts(page: str) -> str:
    """The text of a page without markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.fixture
def many(signed_in: FlaskClient) -> list[Job]:
    return [submit(signed_in, title=f"Number {n}", ntasks=1) for n in range(25)]


def test_without_simulations_the_list_offers_a_new_one(signed_in):
    page = signed_in.get("/simulations").text
    assert "You have no simulations yet" in page
    assert 'href="/new"' in page


def test_the_list_is_paged_and_sorted(signed_in, many):
    assert titles(signed_in) == [f"Number {n}" for n in range(24, 4, -1)]
    assert titles(signed_in, "/simulations?page=2") == [f"Number {n}" for n in range(4, -1, -1)]
    assert titles(signed_in, "/simulations?order=ascend")[:2] == ["Number 0", "Number 1"]
    many[7].bring_to("COMPLETED")
    assert titles(signed_in, "/simulations?sort=end_time&order=ascend")[0] == "Number 7"
    second = signed_in.get("/simulations?page=2&size=20&state=open&title=number").text
    assert 'href="/simulations?title=number&amp;state=open" rel="prev"' in second
    assert "21-24 of 24" in second
    assert "There is nothing on this page" in signed_in.get("/simulations?page=9").text


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page=99999999999", "size=7", "sort=title", "order=up", "state=x", "title=%00", "a=b"]
)
def test_a_query_that_cannot_be_read_is_the_first_page(signed_in, many, query):
    assert titles(signed_in, f"/simulations?{query}")[0] == "Number 24"


def test_searching_by_title_and_state(signed_in, stranger):
    water = submit(signed_in, title="Proton in WATER, 100 % dose_1")
    submit(signed_in, title="Carbon in bone")
    submit(stranger, title="water of another user")
    assert titles(signed_in, "/simulations?title=water") == ["Proton in WATER, 100 % dose_1"]
    assert titles(signed_in, "/simulations?title=100+%25+dose") == ["Proton in WATER, 100 % dose_1"]
    assert titles(signed_in, "/simulations?title=%25") == ["Proton in WATER, 100 % dose_1"]
    assert titles(signed_in, "/simulations?title=dose_1") == ["Proton in WATER, 100 % dose_1"]
    assert titles(signed_in, "/simulations?title=dose%251") == []
    assert "No simulation matches" in signed_in.get("/simulations?title=steel").text
    water.bring_to("FAILED")
    assert titles(signed_in, "/simulations?state=failed") == ["Proton in WATER, 100 % dose_1"]
    assert titles(signed_in, "/simulations?state=open&title=in") == ["Carbon in bone"]
    assert titles(signed_in, "/simulations?state=completed") == []


def test_the_rows_of_the_list_are_sent_again_only_if_they_have_changed(signed_in):
    job = submit(signed_in)
    part = signed_in.get("/simulations", headers=HTMX)
    assert part.text.startswith('<div id="rows"')
    seen = re.search(r'"Seen": "(\w+)"', part.text)[1]
    again = signed_in.get("/simulations", headers={**HTMX, "Seen": seen})
    assert (again.status_code, again.text) == (204, "")
    job.report_task(0, task_state="RUNNING", simulated_primaries=250)
    part = signed_in.get("/simulations", headers={**HTMX, "Seen": seen})
    assert (part.status_code, "25 %" in part.text) == (200, True)
    job.bring_to("COMPLETED")
    assert "hx-trigger" not in signed_in.get("/simulations", headers=HTMX).text.partition("<table")[0]


def test_several_are_canceled_and_deleted_at_once(signed_in, stranger, many):
    theirs = submit(stranger)
    chosen = [many[0].job_id, many[1].job_id, theirs.job_id, "nothing"]
    answer = send_form(signed_in, "/simulations/act", action="cancel", job_id=chosen, query="page=2&title=Number")
    assert answer.location == "/simulations?title=Number&page=2"
    page = facts(signed_in.get(answer.location).text)
    assert "2 simulations canceled" in page
    assert "belongs to another user" in page
    assert (many[0].state, many[1].state, many[2].state, theirs.state) == ("CANCELED", "CANCELED", "PENDING", "PENDING")
    send_form(signed_in, "/simulations/act", action="delete", job_id=[many[0].job_id, many[2].job_id])
    page = facts(signed_in.get("/simulations").text)
    assert "1 simulation deleted" in page
    assert "cancel it first" in page
    assert many[0].get("/jobs/direct").status_code == 404
    assert many[2].state == "PENDING"
    send_form(signed_in, "/simulations/act", action="delete")
    assert "Choose simulations first" in signed_in.get("/simulations").text


def test_one_simulation_from_waiting_to_its_results(signed_in, backend):
    job = submit(signed_in, title="Water", ntasks=2)
    address = f"/simulations/{job.job_id}"
    page = facts(signed_in.get(address).text)
    assert "Waiting 0 %" in page
    assert "Waiting for an external worker" in page
    assert "0 of 1,000" in page
    assert "2 tasks" in page
    job.report_task(0, task_state="RUNNING", simulated_primaries=250)
    page = signed_in.get(address, headers=HTMX).text
    assert "25 %" in page
    assert "less than a minute left" in page
    assert "Task 0: running, 250 of 500 primaries" in page
    assert "Delete simulation" not in page
    job.post_results()
    page = signed_in.get(address).text
    assert "Completed" in facts(page)
    assert f'href="{address}/results"' in page
    assert "hx-trigger" not in page
    document = signed_in.get(f"{address}/download/results")
    assert signed_in.get(document.location).json["estimators"][0]["name"] == "dose"
    assert signed_in.get(f"{address}/download/secrets").status_code == 404


def test_the_live_part_is_sent_again_only_if_it_has_changed(signed_in):
    job = submit(signed_in)
    address = f"/simulations/{job.job_id}"
    seen = re.search(r'"Seen": "(\w+)"', signed_in.get(address).text)[1]
    assert signed_in.get(address, headers={**HTMX, "Seen": seen}).status_code == 204
    job.report_task(0, task_state="RUNNING")
    assert signed_in.get(address, headers={**HTMX, "Seen": seen}).status_code == 200


def test_canceling_and_deleting_one(signed_in):
    job = submit(signed_in)
    address = f"/simulations/{job.job_id}"
    send_form(signed_in, f"{address}/delete")
    assert "cancel it first" in signed_in.get(address).text
    assert send_form(signed_in, f"{address}/cancel").location == address
    assert job.state == "CANCELED"
    assert "canceled by its user" in signed_in.get(address).text
    send_form(signed_in, f"{address}/cancel")
    assert "has ended cannot be canceled" in signed_in.get(address).text
    assert send_form(signed_in, f"{address}/delete").location == "/simulations"
    assert signed_in.get(address).status_code == 404
    part = signed_in.get(address, headers=HTMX)
    assert (part.status_code, part.headers["HX-Refresh"]) == (404, "true")  # the open page becomes an error page


def test_why_a_task_failed(signed_in, backend):
    files = {"input_type": "files", "input_json": None, "input_files": payloads.shieldhit_files()}
    job = submit(signed_in, **files)
    claim = tasks.claim_task(backend, f"{backend.spool.place}executor", ["shieldhit"])
    tasks.fail_task(backend, claim, "geo.dat:1: no zones", {})
    page = facts(signed_in.get(f"/simulations/{job.job_id}").text)
    assert "Task 0 failed: geo.dat:1: no zones" in page


def test_why_a_simulation_failed_and_what_could_not_be_kept(signed_in):
    job = submit(signed_in)
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": {"run.log": "line"}}
    signed_in.post("/logfiles", json=body)
    job.bring_to("FAILED")
    assert "Failed" in facts(signed_in.get(f"/simulations/{job.job_id}").text)
    broken = payloads.estimator("broken_", {**payloads.page(), "data": {"values": ["x"]}})
    other = submit(signed_in)
    other.post_results(payloads.estimator(), broken)
    page = facts(signed_in.get(f"/simulations/{other.job_id}").text)
    assert "Some pages of results could not be kept" in page
    assert "broken_" in page


def test_markup_is_shown_as_it_is(signed_in):
    files = {"input_type": "files", "input_json": None, "sim_type": "shieldhit"}
    job = submit(signed_in, title=MARKUP, input_files=payloads.shieldhit_files() | {"geo.dat": MARKUP}, **files)
    logs = {MARKUP: MARKUP, "long.log": "first" + "x\n" * 200_000 + "last"}
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": logs}
    assert signed_in.post("/logfiles", json=body).status_code == 202
    for path in ("", f"/{job.job_id}", *(f"/{job.job_id}/{part}" for part in ("input", "logs", "history"))):
        page = signed_in.get(f"/simulations{path}").text
        assert "<script>alert" not in page, path
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, path
    page = signed_in.get(f"/simulations/{job.job_id}/logs").text
    assert "last" in page
    assert "first" not in page
    whole = signed_in.get(f"/simulations/{job.job_id}/logs/file?name=long.log")
    assert (whole.mimetype, whole.text) == ("text/plain", logs["long.log"])
    named = signed_in.get(f"/simulations/{job.job_id}/logs/file", query_string={"name": MARKUP})
    assert named.headers["Content-Disposition"].startswith("attachment")
    assert named.headers["X-Content-Type-Options"] == "nosniff"
    assert named.text == MARKUP


def test_the_input_can_be_read_and_downloaded(signed_in):
    job = submit(signed_in)
    page = signed_in.get(f"/simulations/{job.job_id}/input").text
    assert "project.json" in page
    assert "numberOfParticles" in page
    file = signed_in.get(f"/simulations/{job.job_id}/input/file?name=project.json")
    assert file.json if file.is_json else '"beam"' in file.text
    missing = signed_in.get(f"/simulations/{job.job_id}/input/file?name=../../etc/passwd")
    assert missing.status_code == 404


def test_the_history_says_who_and_why(signed_in):
    job = submit(signed_in)
    send_form(signed_in, f"/simulations/{job.job_id}/cancel")
    page = facts(signed_in.get(f"/simulations/{job.job_id}/history").text)
    assert "waiting → Canceled" in page
    assert "alice" in page
    assert "canceled by its user" in page


def test_ten_thousand_tasks_are_a_page_of_bounded_size(signed_in):
    job = submit(signed_in, ntasks=10_000, primaries=10_000)
    page = signed_in.get(f"/simulations/{job.job_id}").text
    assert "10000 tasks" in page
    assert page.count("<g ") == 1000
    assert len(page) < 500_000


def test_a_session_that_ends_leads_to_the_sign_in_and_back(signed_in, job):
    address = f"/simulations/{job.job_id}"
    signed_in.delete("/auth/logout")
    assert signed_in.get(address).location == f"/sign-in?next={address}"
    part = signed_in.get(address, headers={**HTMX, "HX-Current-URL": f"http://localhost{address}?a=b"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, f"/sign-in?next={address}?a%3Db")


def test_a_token_that_has_expired_is_renewed_on_the_way(app, signed_in, job):
    access = next(cookie for cookie in signed_in._cookies.values() if cookie.key.startswith("access_token"))
    signed_in.delete_cookie(access.key)
    assert signed_in.get("/simulations").status_code == 200
    assert any(cookie.key == access.key for cookie in signed_in._cookies.values())
