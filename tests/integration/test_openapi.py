"""Requests that schemathesis makes from the OpenAPI document, good and bad ones: each is answered as it says.

`REQUESTS=10000 pytest tests/integration/test_openapi.py` makes so many, as `make stress` does; the same every time.
"""

import os
from collections.abc import Iterator
from itertools import count
from unittest.mock import Mock

import pytest
import schemathesis
from flask import Flask
from hypothesis import given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.support.api import Job, submit
from yaptide.domain.errors import NotFound
from yaptide.services import sessions, users

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

REQUESTS = int(os.environ.get("REQUESTS", "100"))
#: What schemathesis supposes, and is not so: that no service of others is missing (503), that it knows whose key a
#: request has, and that nothing is refused for what it means, such as the name of a simulator that is none.
NOT_SO = [not_a_server_error, ignored_auth, positive_data_acceptance]
#: What needs something that is not there: Keycloak, and a simulator that reads what SHIELD-HIT12A writes.
MISSING = {("/auth/keycloak", 503), ("/worker/{simulation_id}/tasks/{task_id}/files", 503)}

#: Routes that may end the sessions of the user: a user without simulations calls them.
ENDS_SESSIONS = {"/user", "/user/sessions", "/user/password", "/user/update"}

Kind = tuple[APIOperation, GenerationMode]


@pytest.mark.parametrize("knows", [True, False], ids=["signed in", "signed out"])
def test_every_answer_is_as_the_document_says(app, signed_in, knows):
    kinds = list(kinds_of_requests(schemathesis.openapi.from_wsgi("/openapi.json", app)))
    wanted = REQUESTS // 2
    asked = 0
    for number in count():  # some operations have few requests that differ
        for kind in kinds:
            asked += ask(app, kind, wanted // len(kinds) + 1, number, submit(signed_in) if knows else None)
        if asked >= wanted:
            break


def kinds_of_requests(document: schemathesis.BaseSchema) -> Iterator[Kind]:
    for result in document.get_all_operations():
        operation = result.ok()
        yield operation, GenerationMode.POSITIVE
        if operation.body or any(operation.iter_parameters()):
            yield operation, GenerationMode.NEGATIVE


def ask(app: Flask, kind: Kind, examples: int, number: int, job: Job | None) -> int:
    """Make so many requests and check the answers, with what lets in the owner of the simulation or its workers."""
    operation, mode = kind
    real = {} if job is None or mode is GenerationMode.NEGATIVE else known(operation, job)
    asked = 0

    @seed(number)
    @settings(max_examples=examples)
    @given(case=operation.as_strategy(mode))
    def check(case: Case) -> None:
        nonlocal asked
        asked += 1
        for part in (case.query, case.path_parameters, case.body):
            if isinstance(part, dict):
                part |= {name: real[name] for name in real.keys() & part.keys()}
        headers = {"Accept-Encoding": "identity"} | ({} if job is None else proof(app, operation, job))
        response = case.call(headers=headers)
        assert response.status_code < 500 or (operation.path, response.status_code) in MISSING, response.text
        case.validate_response(response, excluded_checks=NOT_SO)

    check()
    return asked


def known(operation: APIOperation, job: Job) -> dict[str, object]:
    """Values that are right: the simulation, its key, and who runs the first task."""
    numbers = {"sim_id": job.simulation_id, "simulation_id": job.simulation_id, "task_id": 0}
    values = {"job_id": job.job_id, "update_key": job.update_key, **numbers}
    return values if operation.path.endswith("claim") else values | {"owner": claim(job)}


def claim(job: Job) -> str:
    body = {"worker": "w", "simulator_version": "1", "simulator_digest": ""}
    headers = {"Authorization": f"Bearer {job.update_key}"}
    answer = job.client.post(f"/worker/{job.simulation_id}/tasks/0/claim", json=body, headers=headers)
    assert answer.status_code == 200, answer.json
    return answer.json["owner"]


def proof(app: Flask, operation: APIOperation, job: Job) -> dict[str, str]:
    """The update key for a worker's route, otherwise a session of this request alone, which may be about to end it."""
    if operation.path.startswith("/worker/"):
        return {"Authorization": f"Bearer {job.update_key}"}
    backend = app.extensions["yaptide"]
    user = users.ensure_user(backend, "bob" if operation.path in ENDS_SESSIONS else "alice")
    return {"Authorization": f"Bearer {sessions.begin_session(backend, user).access.text}"}


def test_clients_of_tests_take_no_answer_that_is_not_described(client, monkeypatch):
    monkeypatch.setattr(sessions, "sign_in", Mock(side_effect=NotFound("no such thing")))
    with pytest.raises(AssertionError, match="POST /auth/login has responded 404"):
        client.post("/auth/login", json={"username": "alice", "password": "x"})
    monkeypatch.setattr(
        sessions, "authenticate_user", Mock(return_value=Mock(username=5, is_keycloak=False, token=None))
    )
    with pytest.raises(AssertionError, match=r'GET /auth/status has responded 200 .* 5 is not of type "string"'):
        client.get("/auth/status")
