"""Rules for every call: reachability, CORS, caching, compression, one shape of errors, the OpenAPI document."""

import gzip
import re
import zlib
from dataclasses import replace
from typing import Annotated, Any, Literal
from unittest.mock import Mock

import msgspec
import orjson
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, field

from tests.support import payloads
from tests.support.api import UI, submit
from tests.support.routes import list_api_routes
from yaptide.domain.errors import Contended
from yaptide.persistence.engine import Database
from yaptide.services import sessions

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)

#: Blueprints that serve what is not part of the API.
_FOR_BROWSERS = ("api_page", "assets")
REQUESTS = [
    ("GET", "/", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/nowhere", 404),
    ("PATCH", "/tasks", 405),
    ("POST", "/auth/login", 400),
    ("GET", "/auth/refresh", 401),
    ("GET", "/auth/status", 401),
    ("DELETE", "/auth/logout", 200),
    ("POST", "/auth/keycloak", 400),
    ("GET", "/user/simulations", 401),
    ("DELETE", "/user/simulations?job_id=x", 401),
    ("GET", "/jobs?job_id=x", 401),
    ("GET", "/jobs/direct?job_id=x", 401),
    ("GET", "/jobs/batch?job_id=x", 401),
    ("DELETE", "/jobs/direct?job_id=x", 401),
    ("GET", "/inputs?job_id=x", 401),
    ("GET", "/estimators?job_id=x", 401),
    ("GET", "/results?job_id=x", 401),
    ("GET", "/logfiles?job_id=x", 401),
    ("GET", "/clusters", 401),
    ("POST", "/results", 400),
]
every_request = pytest.mark.parametrize(("method", "path", "status"), REQUESTS)


def test_the_server_is_there(client):
    response = client.get("/")
    assert response.status_code == 200
    assert set(response.json) == {"message"}
    assert response.json["message"]


@every_request
def test_every_answer(client, method, path, status):
    """No answer may be kept, a front end elsewhere may read each, and errors have one shape."""
    response = client.open(path, method=method, headers={"Origin": UI})
    assert response.status_code == status
    assert response.headers["Cache-Control"] == "no-store"
    assert "ETag" not in response.headers
    assert "Last-Modified" not in response.headers
    assert response.headers["Access-Control-Allow-Origin"] == UI
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in response.headers.getlist("Vary")
    if status >= 400:
        assert list(response.json) == ["message"]
        assert len(response.json["message"].split()) > 1


def test_front_ends_may_be_at_several_places(client):
    for origin in (UI, "http://127.0.0.1:3000"):
        response = client.get("/", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    "origin", ["https://localhost:3000", "http://localhost:3001", f"{UI}.evil.example", "http://evil.example", "null"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/auth/status"), ("OPTIONS", "/jobs/direct")])
def test_pages_from_elsewhere_may_not(client, method, path, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = client.open(path, method=method, headers=headers)
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control-")]  # noqa: SIM118


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/auth/login", "POST", "content-type"),
        ("/jobs/direct", "POST", "content-type"),
        ("/jobs/direct", "DELETE", "content-type"),
        ("/user/simulations", "DELETE", "content-type"),
        ("/auth/keycloak", "POST", "authorization"),
    ],
)
def test_preflight(client, path, method, header):
    asked = {"Origin": UI, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    response = client.options(path, headers=asked)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == UI
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert method in response.headers["Access-Control-Allow-Methods"]
    assert header in response.headers["Access-Control-Allow-Headers"].lower()


def many_pages(signed_in) -> str:
    """The query of the results of a simulation with two estimators, one of seven pages."""
    job = submit(signed_in)
    pages = [payloads.page(number, f"Q{number}", tuple(range(1, 40 + number))) for number in range(7)]
    assert job.post_results(payloads.estimator("dose2_", *pages), payloads.estimator("dose_")).status_code == 202
    return f"job_id={job.job_id}"


@pytest.mark.parametrize(
    "path",
    ["/inputs?", "/results?", "/results?estimator_name=dose2&", "/results?estimator_name=dose2&page_numbers=1-5&"],
)
def test_stored_payloads_are_sent_as_one_gzip_member_or_as_plain_text(signed_in, path):
    url = path + many_pages(signed_in)
    compressed = signed_in.get(url, headers={"Accept-Encoding": "gzip, deflate, br"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert int(compressed.headers["Content-Length"]) == len(compressed.data)
    member = zlib.decompressobj(31)
    text = member.decompress(compressed.data)
    assert member.eof
    assert member.unused_data == b""
    assert gzip.decompress(compressed.data) == text

    plain = signed_in.get(url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.data == text
    assert orjson.loads(text)
    for response in (compressed, plain):
        assert response.mimetype == "application/json"
        assert "Accept-Encoding" in response.headers["Vary"]


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip;q=0, *", "x-gzip-2"])
def test_who_does_not_accept_gzip_does_not_get_it(job, accepted):
    response = job.client.get(f"/inputs?job_id={job.job_id}", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers
    assert response.json["input"]


@pytest.mark.parametrize("accepted", ["gzip", "GZIP", "br;q=1.0, gzip;q=0.1", "*"])
def test_who_accepts_gzip_gets_it(job, accepted):
    response = job.client.get(f"/inputs?job_id={job.job_id}", headers={"Accept-Encoding": accepted})
    assert response.headers["Content-Encoding"] == "gzip"


def test_head_has_the_headers_of_get(job):
    url = f"/inputs?job_id={job.job_id}"
    head, get = (job.client.open(url, method=m, headers={"Accept-Encoding": "gzip"}) for m in ("HEAD", "GET"))
    assert head.data == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.data))


class Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    """An object of OpenAPI 3.1, as far as it is used here: other keys are refused."""


Text = Annotated[str, Meta(min_length=1)]
JsonSchema = dict[str, Any]


class Media(Strict):
    schema: JsonSchema


class Parameter(Strict):
    name: Text
    location: Literal["query", "header", "path", "cookie"] = field(name="in")
    schema: JsonSchema
    required: bool = False
    description: str = ""


class Body(Strict):
    content: Annotated[dict[str, Media], Meta(min_length=1)]
    required: bool = False
    description: str = ""


class Answer(Strict):
    description: str = ""
    reference: str = field(default="", name="$ref")
    content: dict[str, Media] | UnsetType = UNSET
    headers: dict[str, Any] | UnsetType = UNSET


class Operation(Strict):
    summary: Text
    tags: list[str]
    responses: Annotated[dict[Annotated[str, Meta(pattern=r"^[1-5]\d\d$")], Answer], Meta(min_length=1)]
    description: str = ""
    operation_id: str | UnsetType = UNSET
    parameters: list[Parameter] | UnsetType = UNSET
    request_body: Body | UnsetType = UNSET
    security: list[dict[str, list[str]]] | UnsetType = UNSET
    who: str = field(default="", name="x-for")
    scope: str = field(default="", name="x-scope")


class Info(Strict):
    title: Text
    version: Text
    description: str = ""


class Components(Strict):
    schemas: dict[str, JsonSchema]
    responses: dict[str, Answer]
    security_schemes: dict[str, dict[str, Any]] | UnsetType = UNSET


class Description(Strict):
    openapi: Annotated[str, Meta(pattern=r"^3\.1\.\d+$")]
    info: Info
    paths: dict[Annotated[str, Meta(pattern="^/")], dict[Literal["get", "put", "post", "delete"], Operation]]
    components: Components
    tags: list[dict[str, str]] | UnsetType = UNSET
    servers: list[dict[str, str]] | UnsetType = UNSET


def references(value: Any) -> set[str]:
    """The targets of all references in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_description_is_openapi_3_1(client):
    document = client.get("/openapi.json").json
    description = msgspec.convert(document, Description)
    parts = description.components
    targets = {"schemas": parts.schemas, "responses": parts.responses}
    assert references(document) <= {f"#/components/{kind}/{name}" for kind, names in targets.items() for name in names}
    operations = [operation for path in description.paths.values() for operation in path.values()]
    ids = [operation.operation_id for operation in operations if operation.operation_id]
    assert len(ids) == len(set(ids))
    types = re.findall(r'"type":\s*"(\w+)"', client.get("/openapi.json").text)
    assert set(types) <= {"string", "integer", "number", "boolean", "array", "object", "null", "http", "apiKey"}


def test_the_description_lists_every_route(app, client):
    described = {
        (method.upper(), path)
        for path, operations in client.get("/openapi.json").json["paths"].items()
        for method in operations
    }
    routes = [route for route in list_api_routes(app) if route.rule.endpoint.partition(".")[0] not in _FOR_BROWSERS]
    served = {(route.method, re.sub(r"<\w+:(\w+)>", r"{\1}", route.path)) for route in routes}
    assert described == served - {("GET", "/openapi.json"), ("GET", "/metrics")}


def test_the_description_can_be_read(client):
    paths = client.get("/openapi.json").json["paths"]
    page = client.get("/docs")
    assert page.mimetype == "text/html"
    assert all(path in page.text for path in paths)
    assert not re.search(r'(src|href)="(https?:)?//', page.text), "nothing may be fetched from elsewhere"


def test_a_database_that_is_away_is_told_of_without_its_address(client, app, monkeypatch, caplog):
    away = Database("postgresql://operator@127.0.0.1:1/yaptide")
    monkeypatch.setitem(app.extensions, "yaptide", replace(app.extensions["yaptide"], database=away))
    response = client.post("/auth/login", json={"username": "alice", "password": "x"})
    assert response.status_code == 503
    assert response.json == {"message": "The server is temporarily unavailable; try again later"}
    assert "127.0.0.1" in caplog.text


def test_a_database_that_is_too_busy_is_no_fault_of_the_request(client, monkeypatch):
    monkeypatch.setattr(sessions, "sign_in", Mock(side_effect=Contended("busy")))
    assert client.post("/auth/login", json={"username": "alice", "password": "x"}).status_code == 503
