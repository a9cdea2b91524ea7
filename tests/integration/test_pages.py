"""Every page and every form: whom it lets in, what it needs, and that it is safe to show."""

import re

import pytest

from tests.support.api import PASSWORD, contents, submit
from tests.support.routes import form_token, list_pages, send_form

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

#: For anyone; all others need a session.
OPEN = {
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/sign-in/keycloak"),
    ("GET", "/sign-in/keycloak/back"),
    ("GET", "/register"),
    ("POST", "/register"),
    ("POST", "/sign-out"),
    ("GET", "/reset-password"),
    ("POST", "/reset-password"),
}


def test_every_page_needs_a_session(app, client, job):
    token = form_token(client)
    pages = [page for page in list_pages(app) if (page.method, page.path) not in OPEN]
    assert pages
    for page in pages:
        address = page.address(app, job_id=job.job_id)
        data = {"csrf_token": token} if page.method == "POST" else None
        answer = client.open(address, method=page.method, data=data)
        assert (answer.status_code, answer.location.split("?")[0]) == (303, "/sign-in"), page
        part = client.open(address, method=page.method, data=data, headers={"HX-Request": "true"})
        assert (part.status_code, part.headers["HX-Redirect"].split("?")[0]) == (401, "/sign-in"), page


def test_every_form_needs_its_token(app, database, signed_in, job):
    before = contents(database)
    for page in list_pages(app):
        if page.method == "GET":
            continue
        address = page.address(app, job_id=job.job_id)
        for data in ({}, {"csrf_token": ""}, {"csrf_token": form_token(app.test_client())}):
            answer = signed_in.open(address, method=page.method, data=data)
            assert (answer.status_code, answer.mimetype) == (400, "text/html"), page
            assert "This form has expired" in answer.text
    assert contents(database) == before


def test_another_users_simulation_is_not_shown_nor_changed(app, database, job, stranger):
    job.post_results()
    other = submit(job.client)
    before = contents(database)
    pages = [page for page in list_pages(app) if "job_id" in page.rule.arguments]
    for page in pages:
        for theirs in (job, other):
            address = page.address(app, job_id=theirs.job_id)
            data = {"csrf_token": form_token(stranger)} if page.method == "POST" else None
            answer = stranger.open(address, method=page.method, data=data)
            assert (answer.status_code, answer.mimetype) == (403, "text/html"), page
            assert "belongs to another user" in answer.text
            missing = stranger.open(page.address(app, job_id="nothing"), method=page.method, data=data)
            assert (missing.status_code, missing.mimetype) == (404, "text/html"), page
    assert contents(database) == before


def test_no_page_has_inline_scripts_or_styles(app, signed_in, job):
    job.post_results()
    for page in list_pages(app):
        if page.method != "GET":
            continue
        answer = signed_in.get(page.address(app, job_id=job.job_id))
        if answer.status_code != 200 or answer.mimetype != "text/html":
            answer.close()
            continue
        assert not re.search(r"<script(?![^>]*\ssrc=)[^>]*>", answer.text), page
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", answer.text), page
        assert answer.headers["Cache-Control"] == "no-store", page


def test_an_address_that_does_not_exist(client):
    page = client.get("/nothing", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert client.get("/nothing").json == {"message": client.get("/nothing").json["message"]}


def test_signing_in_and_out(app, signed_in):
    browser = app.test_client()
    wrong = send_form(browser, "/sign-in", username="alice", password="wrong")
    assert (wrong.status_code, "Invalid login or password" in wrong.text) == (401, True)
    answer = send_form(browser, "/sign-in", username="alice", password=PASSWORD, next="/simulations?page=2")
    assert (answer.status_code, answer.location) == (303, "/simulations?page=2")
    assert browser.get("/simulations").status_code == 200
    assert send_form(browser, "/sign-out").location == "/sign-in"
    assert browser.get("/simulations").location == "/sign-in?next=/simulations"


@pytest.mark.parametrize("elsewhere", ["//evil.example", "https://evil.example", r"/\evil.example", "evil", "/a\nb"])
def test_signing_in_leads_nowhere_else(app, signed_in, elsewhere):
    answer = send_form(app.test_client(), "/sign-in", username="alice", password=PASSWORD, next=elsewhere)
    assert answer.location == "/simulations"
