"""Requests that a browser sends for pages of other origins, and the security headers of our pages."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.support.api import PASSWORD, UI, contents
from tests.support.routes import list_pages
from yaptide.application import create_app
from yaptide.services import users
from yaptide.settings import Settings

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

REFUSED = "State-changing requests from pages of other origins are not allowed"
#: Headers that a browser sends with what a page asks for, as the page has no say in them.
ELSEWHERE = {
    "another host": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://localhost:8080"},
    "another scheme": {"Origin": "https://localhost"},
    "a name that begins alike": {"Origin": "http://localhost.evil.example"},
    "an origin that is hidden": {"Origin": "null"},
    "no origin that can be read": {"Origin": "\xff"},
    "two origins": {"Origin": f"{UI}, http://evil.example"},
    "an empty origin": {"Origin": ""},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port of the host": {"Sec-Fetch-Site": "same-site"},
    "both": {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    "our origin, as the page pretends": {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
}
HERE = {
    "a program": {},
    "a page of ours": {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
    "a page of ours in a browser that tells less": {"Origin": "http://localhost"},
    "a page of ours behind a proxy that hides our name": {
        "Origin": "https://yaptide.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "a front end that is known": {"Origin": UI, "Sec-Fetch-Site": "same-site"},
    "a front end that is known, in capitals": {"Origin": UI.upper()},
    "an address that was typed": {"Sec-Fetch-Site": "none"},
}


def changing(app: Flask) -> Iterator[tuple[str, str]]:
    """Method and path of every route that changes something."""
    for rule in app.url_map.iter_rules():
        path = app.url_map.bind("localhost").build(rule.endpoint, dict.fromkeys(rule.arguments, 1))
        for method in sorted((rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}):
            yield method, path


def is_refused(response: TestResponse) -> bool:
    message = response.json["message"] if response.is_json else response.text
    return response.status_code == 403 and REFUSED in message


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
def test_no_route_is_changed_by_a_page_from_elsewhere(app, database, signed_in, headers) -> None:
    routes = list(changing(app))
    assert len(routes) > 20
    before = contents(database)
    for method, path in routes:
        response = signed_in.open(path, method=method, json={}, headers=headers)
        assert is_refused(response), (method, path, response.status_code)
        assert not response.is_json or list(response.json) == ["message"]
    assert is_refused(signed_in.post("/no/such/page", headers=headers))
    assert contents(database) == before


@pytest.mark.parametrize("headers", HERE.values(), ids=HERE)
def test_nobody_else_is_refused(app, signed_in, headers) -> None:
    for method, path in changing(app):
        assert not is_refused(signed_in.open(path, method=method, json={}, headers=headers)), (method, path)


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
def test_everybody_may_look(client, headers) -> None:
    assert client.get("/", headers=headers).status_code == 200
    assert client.options("/auth/login", headers=headers).status_code == 200


def test_a_page_signs_its_reader_in_as_nobody(app, client, backend) -> None:
    """As a form of any page can, whose text is a body that we would read as JSON."""
    users.register_user(backend, "mallory", PASSWORD)
    body = f'{{"username": "mallory", "password": "{PASSWORD}"}}'
    headers = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"}
    response = client.post("/auth/login", data=body, headers=headers)
    assert is_refused(response)
    assert "Set-Cookie" not in response.headers


def test_workers_report_whatever_network_they_are_in(job) -> None:
    assert job.report_task(0, task_state="RUNNING").status_code == 202
    assert job.post_results().status_code == 202


@pytest.mark.parametrize(
    ("proxies", "origin", "is_ours"),
    [
        (1, "https://yaptide.example:8443", True),
        (1, "https://yaptide.example", False),
        (1, "http://10.0.0.1:5000", False),
        (0, "https://yaptide.example:8443", False),
        (0, "http://10.0.0.1:5000", True),
    ],
)
def test_a_proxy_says_what_the_browser_sees(backend, proxies, origin, is_ours) -> None:
    client = create_app(Settings(_env_file=None, proxies=proxies), backend).test_client()
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "yaptide.example:8443", "Host": "10.0.0.1:5000"}
    response = client.delete("/auth/logout", headers={**headers, "Origin": origin})
    assert response.status_code == (200 if is_ours else 403)


@pytest.mark.parametrize("setting", ["", "https://ui.example", "https://UI.example/,http://localhost:1"])
def test_front_ends_are_those_of_the_settings(backend, setting) -> None:
    client = create_app(Settings(_env_file=None, cors_origins=setting), backend).test_client()
    for origin, is_known in (("https://ui.example", "example" in setting), (UI, False)):
        refused = is_refused(client.delete("/auth/logout", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"}))
        assert refused is not is_known


def test_pages_are_in_nobodys_frame_and_run_no_script_of_others(app, client) -> None:
    """But for the scripts that we serve."""
    paths = [rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or set()) and not rule.arguments]
    answers = {path: client.get(path) for path in paths}
    pages = {path: answer for path, answer in answers.items() if answer.mimetype == "text/html"}
    assert {"/docs", "/sign-in", "/simulations"} <= pages.keys()
    assert pages.keys() <= {"/docs", *(page.path for page in list_pages(app))}
    for path, answer in answers.items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
    for page in pages.values():
        policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert page.headers["Referrer-Policy"] == "same-origin"
    assert client.get(re.search(r'href="(/static/docs\.css[^"]*)"', answers["/docs"].text)[1]).mimetype == "text/css"


def test_no_route_takes_a_key_of_the_query_twice(app, signed_in, job) -> None:
    for rule in app.url_map.iter_rules():
        path = app.url_map.bind("localhost").build(rule.endpoint, dict.fromkeys(rule.arguments, 1))
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            for query in ("job_id=a&job_id=b", f"job_id={job.job_id}&job%5Fid={job.job_id}", "x=&x="):
                response = signed_in.open(f"{path}?{query}", method=method, json={})
                assert response.status_code == 400, (method, path)
                assert "is repeated" in response.text
    assert job.status["job_state"] == "PENDING"
