"""The REST API as its users and workers call it, and what is seen of the database behind it."""

from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from tests.support import payloads
from yaptide.api import cookies
from yaptide.persistence.engine import Database
from yaptide.persistence.models import Base
from yaptide.persistence.queries.users import Subject
from yaptide.services import lifecycle, users
from yaptide.services.backend import Backend
from yaptide.services.users import User

PASSWORD = "correct horse"
UI = "http://localhost:3000"


@dataclass(frozen=True)
class Job:
    """A submitted simulation: what its user asks about it, and what its workers report."""

    client: FlaskClient
    job_id: str
    simulation_id: int
    update_key: str

    def get(self, path: str, **query: Any) -> TestResponse:
        """`GET path?job_id=...`."""
        return self.client.get(path, query_string={"job_id": self.job_id, **query})

    def delete(self, path: str) -> TestResponse:
        """`DELETE path?job_id=...`."""
        return self.client.delete(path, query_string={"job_id": self.job_id})

    @property
    def status(self) -> dict[str, Any]:
        """What `GET /jobs/direct` answers."""
        return self.get("/jobs/direct").json

    @property
    def state(self) -> str:
        """The simulation's state."""
        return self.status["job_state"]

    def task(self, task_id: int = 0) -> dict[str, Any]:
        """A task as `GET /jobs/direct` shows it."""
        return next(task for task in self.status["job_tasks_status"] if task["task_id"] == task_id)

    def report_task(self, task_id: int = 0, **update: Any) -> TestResponse:
        """`POST /tasks`."""
        body = {"simulation_id": self.simulation_id, "task_id": task_id, "update_key": self.update_key}
        return self.client.post("/tasks", json={**body, "update_dict": update})

    def report_tasks(self, told: dict[int, dict[str, Any]], /, **changes: Any) -> TestResponse:
        """`POST /tasks/list`: an update for each number of a task."""
        updates = [{"task_id": number, "update_dict": update} for number, update in told.items()]
        body = {"simulation_id": self.simulation_id, "update_key": self.update_key, "updates": updates}
        return self.client.post("/tasks/list", json=body | changes)

    def report(self, **values: Any) -> TestResponse:
        """`POST /jobs`."""
        return self.client.post("/jobs", json={"sim_id": self.simulation_id, "update_key": self.update_key, **values})

    def post_results(self, *estimators: dict[str, Any]) -> TestResponse:
        """`POST /results`, by default of one estimator with one page."""
        return self.client.post("/results", json=self.results(*estimators))

    def results(self, *estimators: dict[str, Any]) -> dict[str, Any]:
        """A body of `POST /results`."""
        found = list(estimators or (payloads.estimator(),))
        return {"simulation_id": self.simulation_id, "update_key": self.update_key, "estimators": found}

    def bring_to(self, state: str) -> "Job":
        """Have the workers report what leads to `state`."""
        if state == "CANCELED":
            self.delete("/jobs/direct")
        elif state == "COMPLETED":
            self.post_results()
        elif state != "PENDING":
            self.report(job_state=state)
        assert self.state == state
        return self


def cookie_name(app: Flask, kind: str) -> str:
    """What the cookie `access_token`, `refresh_token` or `known_device` is called where `app` runs."""
    return cookies.name_of(app.extensions["yaptide"], kind)


def cookie_of(client: FlaskClient, kind: str) -> str:
    """The value of such a cookie of a client."""
    cookie = client.get_cookie(cookie_name(client.application, kind))
    assert cookie is not None, kind
    return cookie.value


def sign_in(app: Flask, username: str) -> FlaskClient:
    """A client of a new user."""
    users.register_user(app.extensions["yaptide"], username, PASSWORD)
    client = app.test_client()
    response = client.post("/auth/login", json={"username": username, "password": PASSWORD})
    assert response.status_code == 202, response.json
    return client


def of_keycloak(backend: Backend, username: str) -> User:
    """A user who signs in through Keycloak, as if they had done so."""
    return users.ensure_keycloak_user(
        backend, Subject("https://sso.example.org/realms/science", f"id of {username}"), username
    )


def submit(client: FlaskClient, *outputs: str, **changes: Any) -> Job:
    """Submit a project over the API."""
    response = client.post("/jobs/direct", json=payloads.submission(*outputs, **changes))
    assert response.status_code == 202, response.json
    backend: Backend = client.application.extensions["yaptide"]
    job_id = response.json["job_id"]
    return Job(client, job_id, backend.dispatcher.dispatched[-1], lifecycle.update_key(backend, job_id))


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with database.reading() as connection:
        return {
            name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for name, table in Base.metadata.tables.items()
        }


def counts(database: Database) -> dict[str, int]:
    """How many rows each table has."""
    return {name: len(rows) for name, rows in contents(database).items()}


def fill(database: Database) -> None:
    """Forbid an SQLite database to grow by a single page, as a full disk would."""
    with database.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
