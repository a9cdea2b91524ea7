"""Access: every route, called by every kind of caller."""

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.support.api import Job, submit
from tests.support.routes import list_api_routes
from yaptide.services import simulations
from yaptide.services.access import ADMINISTRATOR, Action, listed_owner, may
from yaptide.services.simulations import Page

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

#: For anyone: signing in and out, monitoring, and the description of the API.
OPEN = {
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/static/<path:name>"),
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/auth/login"),
    ("PUT", "/auth/register"),
    ("DELETE", "/auth/logout"),
    ("GET", "/auth/keycloak"),
    ("POST", "/auth/keycloak"),
    ("DELETE", "/auth/keycloak"),
    ("GET", "/auth/refresh"),
}
#: For signed-in users.
USERS = {
    ("GET", "/auth/status"),
    ("GET", "/clusters"),
    ("POST", "/jobs/direct"),
    ("POST", "/jobs/batch"),
    ("GET", "/user/simulations"),
    ("GET", "/watch"),
    ("GET", "/jobs/list"),
    ("POST", "/user/update"),
    ("POST", "/check"),
    ("POST", "/user/password"),
    ("GET", "/user/sessions"),
    ("DELETE", "/user/sessions"),
    ("GET", "/user/export"),
    ("DELETE", "/user"),
    ("GET", "/user/tokens"),
    ("POST", "/user/tokens"),
    ("DELETE", "/user/tokens"),
    ("POST", "/convert"),
}
#: For users with access to the simulation in the query.
READ = {
    ("GET", path)
    for path in (
        "/estimators",
        "/inputs",
        "/jobs",
        "/jobs/history",
        "/jobs/summary",
        "/jobs/direct",
        "/logfiles",
        "/results",
    )
}
CANCEL = {("DELETE", "/jobs"), ("DELETE", "/jobs/direct")}
OTHER = {("GET", "/jobs/key"), ("DELETE", "/user/simulations")}
#: The same, of a simulation on a cluster.
ON_CLUSTERS = {("GET", "/jobs/batch"), ("DELETE", "/jobs/batch")}
OWNERS = READ | CANCEL | OTHER | ON_CLUSTERS
#: For callers with the update key of a simulation.
WORKERS = {("POST", "/jobs"), ("POST", "/logfiles"), ("POST", "/results"), ("POST", "/tasks"), ("POST", "/tasks/list")}
WORKERS_PATHS = {
    *(("POST", f"/worker/<int:simulation_id>/merge/{what}") for what in ("claim", "failure", "heartbeat")),
    ("PUT", "/worker/<int:simulation_id>/merge/results"),
    *(
        (method, f"/worker/<int:simulation_id>/tasks/<int:task_id>/{what}")
        for method, what in (
            ("POST", "canceled"),
            ("POST", "claim"),
            ("POST", "failure"),
            ("POST", "progress"),
            ("POST", "return"),
            ("PUT", "files"),
            ("PUT", "output"),
            ("GET", "output"),
        )
    ),
}
NOT_YOURS = "Job with provided ID does not belong to the user"
WRONG_KEY = "Invalid update key"

Ask = Callable[..., TestResponse]


def ordered(doors: set[tuple[str, str]]) -> Any:
    return pytest.mark.parametrize(("method", "path"), sorted(doors))


def test_it_is_decided_for_every_route_whom_it_lets_in(app):
    """Of pages, see test_pages.py."""
    routes = {(route.method, route.path) for route in list_api_routes(app)}
    assert routes == OPEN | USERS | OWNERS | WORKERS | WORKERS_PATHS
    assert len(routes) == sum(map(len, (OPEN, USERS, OWNERS, WORKERS, WORKERS_PATHS)))


@ordered(USERS | OWNERS)
def test_nobody_is_let_in_without_a_session(app, job, method, path):
    """Nor does the key of a worker, or a session that has ended, open the doors of users."""
    token = job.client.get_cookie(access_cookie(job.client)).value
    for headers in ({}, {"Authorization": f"Bearer {job.update_key}"}, {"Authorization": f"Bearer {token}"}):
        if headers and headers["Authorization"].endswith(token):
            job.client.delete("/auth/logout")
        query = {"job_id": job.job_id, "name": "laptop"}
        body = {"username": "alice", "name": "laptop", "password": "correct horse", "new_password": "battery staple"}
        body = body if method == "POST" or path == "/user" else None
        answer = app.test_client().open(path, method=method, query_string=query, json=body, headers=headers)
        assert answer.status_code in (401, 403), (headers, answer.json)
        assert answer.json["message"] != NOT_YOURS


def access_cookie(client: Any) -> str:
    return next(cookie.key for cookie in client._cookies.values() if cookie.key.startswith("access_token"))


@ordered(OWNERS)
def test_a_stranger_is_told_that_it_is_not_theirs(job, stranger, method, path):
    before = job.state
    answer = stranger.open(path, method=method, query_string={"job_id": job.job_id})
    assert (answer.status_code, answer.json["message"]) in {(403, NOT_YOURS), (401, NOT_YOURS)}
    assert job.state == before


@ordered(OWNERS - ON_CLUSTERS)
def test_the_owner_is_let_in(job, method, path):
    if (method, path) in READ | OTHER:
        job.post_results()
    answer = job.client.open(path, method=method, query_string={"job_id": job.job_id})
    assert answer.status_code < 300 or (answer.status_code, path) == (404, "/logfiles"), answer.json


@ordered(WORKERS | WORKERS_PATHS)
def test_workers_are_let_in_by_the_key_of_that_simulation_alone(job, signed_in, stranger, method, path):
    """Neither the owner's session, nor the key of another simulation, nor the key of one that has ended."""
    other = submit(stranger)
    ended = submit(stranger).bring_to("COMPLETED")
    for number, key in (
        (job.simulation_id, ""),
        (job.simulation_id, other.update_key),
        (job.simulation_id, signed_in.get_cookie(access_cookie(signed_in)).value),
        (ended.simulation_id, job.update_key),
    ):
        assert knock(job, method, path, number, key).json["message"] == WRONG_KEY
    assert job.state == "PENDING"
    assert knock(job, method, path, job.simulation_id, job.update_key).status_code != 401
    assert (knock(job, method, path, job.simulation_id, job.update_key).json or {}).get("message") != WRONG_KEY


def knock(job: Job, method: str, path: str, number: int, key: str) -> TestResponse:
    """Ask as a worker does: with the key in the body, or in a header where the path names the simulation."""
    path = path.replace("<int:simulation_id>", str(number)).replace("<int:task_id>", "0")
    if path.startswith("/worker/"):
        return job.client.open(path, method=method, headers={"Authorization": f"Bearer {key}"})
    who = {"sim_id" if path == "/jobs" else "simulation_id": number, "update_key": key}
    body = {
        "/tasks": {"task_id": 0, "update_dict": {"simulated_primaries": 1}},
        "/tasks/list": {"updates": [{"task_id": 0, "update_dict": {"simulated_primaries": 1}}]},
        "/logfiles": {"logfiles": {"a": "b"}},
        "/results": {"estimators": []},
    }
    return job.client.open(path, method=method, json=who | body.get(path, {}))


def test_the_administrator_may_everything_and_sees_everybodys(job, stranger, backend):
    other = submit(stranger)
    listed = simulations.list_simulations(backend, ADMINISTRATOR, Page(1, 10))
    assert {row.job_id for row in listed.rows} == {job.job_id, other.job_id}
    assert listed_owner(ADMINISTRATOR) is None
    simulation = simulations.read_status(backend, ADMINISTRATOR, other.job_id).simulation
    assert all(may(ADMINISTRATOR, action, simulation) for action in Action)
    assert simulations.cancel_simulation(backend, ADMINISTRATOR, other.job_id) is None
    assert other.state == "CANCELED"
