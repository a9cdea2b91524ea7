"""No request ends in a 500; a rejected one changes nothing, and its response gives the reason."""

import errno
import io
import json
import math
import secrets
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from flask.testing import FlaskClient
from hypothesis import example, given, settings, strategies as st
from werkzeug.test import TestResponse

from tests.support import payloads
from tests.support.api import PASSWORD, Job, contents, cookie_name, cookie_of, fill
from yaptide.api.http import OrjsonProvider
from yaptide.services import sessions, users

#: Where bound values and text differ from database to database.
two_databases = pytest.mark.parametrize("database", ["memory", "postgresql"], indirect=True)
one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)

MIB = 2**20


def check_refusal(response: TestResponse, *statuses: int) -> None:
    """Refused with one of `statuses` (any, if none is given) and words that a person can do something with."""
    assert 400 <= response.status_code < 500, (response.status_code, response.data[:500])
    assert not statuses or response.status_code in statuses, (response.status_code, response.data[:500])
    assert list(response.json) == ["message"]
    message = response.json["message"]
    assert isinstance(message, str)
    assert len(message.split()) > 1, f"{message!r} is no help"
    assert len(message) < 2000
    assert "Traceback" not in message
    assert "sqlalche" not in message
    assert "browser" not in message, "not what a script's author needs to know"


@pytest.fixture
def raw(app) -> FlaskClient:
    """A client that sends only the given cookies."""
    return app.test_client(use_cookies=False)


@pytest.fixture
def unchanged(database) -> Iterator[None]:
    """The database is the same after the test as it was when the fixture was asked for."""
    before = contents(database)
    yield
    assert contents(database) == before


BODIES: dict[tuple[str, str], Callable[[Job], Any]] = {
    ("PUT", "/auth/register"): lambda _: {"username": "bob", "password": PASSWORD},
    ("POST", "/auth/login"): lambda _: {"username": "alice", "password": PASSWORD},
    ("POST", "/auth/keycloak"): lambda _: {"username": "alice"},
    ("POST", "/user/update"): lambda _: {"password": PASSWORD, "new_password": "another one"},
    ("POST", "/jobs/direct"): lambda _: payloads.submission(),
    ("POST", "/jobs/batch"): lambda _: payloads.submission(batch_options={"cluster_name": "default"}),
    ("POST", "/jobs"): lambda job: {
        "sim_id": job.simulation_id,
        "update_key": job.update_key,
        "job_state": "RUNNING",
        "end_time": "2026-03-01 10:00:00.000000",
        "job_dir": "/d",
        "array_id": 1,
        "collect_id": 2,
        "log": {"a.log": "text"},
    },
    ("POST", "/tasks"): lambda job: {
        "simulation_id": job.simulation_id,
        "task_id": 0,
        "update_key": job.update_key,
        "update_dict": {
            "task_state": "RUNNING",
            "requested_primaries": 500,
            "simulated_primaries": 5,
            "estimated_time": 1,
            "start_time": "2026-03-01 10:00:00.000000",
            "end_time": "2026-03-01T10:00:00Z",
            "celery_id": "c",
        },
    },
    ("POST", "/tasks/list"): lambda job: {
        "simulation_id": job.simulation_id,
        "update_key": job.update_key,
        "updates": [{"task_id": 0, "update_dict": {"task_state": "RUNNING", "simulated_primaries": 5}}],
    },
    ("POST", "/results"): lambda job: job.results(payloads.estimator("dose_", payloads.page())),
    ("POST", "/logfiles"): lambda job: {
        "simulation_id": job.simulation_id,
        "update_key": job.update_key,
        "logfiles": {"a.log": "text"},
    },
}
every_body = pytest.mark.parametrize(("method", "path"), BODIES)


NO_JSON = {
    "nothing": b"",
    "half an object": b'{"username": "a"',
    "no UTF-8": b'{"username": "\xff", "update_key": "\xff"}',
    "NaN": b'{"username": NaN}',
    "a surrogate": b'{"username": "\\ud800"}',
    "two documents": b"{}{}",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a form": b"username=a&password=b",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "a long number": b"1" * 10_000,
    "a text": b'"simulation_id"',
    "an empty object": b"{}",
}


@one_database
@every_body
def test_bodies_that_are_not_what_was_expected(signed_in, unchanged, method, path):
    for body in NO_JSON.values():
        response = signed_in.open(path, method=method, data=body, content_type="application/json")
        if path == "/user/update" and body == b"{}":
            assert response.status_code == 202  # an update of nothing
        else:
            check_refusal(response, 400)


BIG = 10**30
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 10**9, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), BIG, -BIG),
    *(math.nan, math.inf, "", " ", "\0", "a\0b", "\ud800", "\ufeff", "3", "\u0663", "NaN", "x" * 3000, "\U0010ffff"),
    *("../x", "/x", "a/b", ".", "..", "a\nb", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
    *("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "20260301", "RUNNING", "MERGING_RUNNING", "UNKNOWN"),
    *([], {}, [None], [[]], {"": ""}, {"\0": "\0"}, {"a": {"b": {}}}),
]
hostile = st.sampled_from(HOSTILE) | st.text(max_size=5) | st.integers() | st.floats()


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a document something can be replaced."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path] + [place for key, value in inner for place in places(value, (*path, key))]


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy


def renamed(document: Any, path: tuple[Any, ...], key: str) -> Any:
    """The document with the key that `path` ends in replaced by another."""
    *parent, last = path
    holder = document
    for step in parent:
        holder = holder[step]
    changed = {key if name == last else name: value for name, value in holder.items()}
    return replaced(document, tuple(parent), changed)


def text_of(document: Any) -> bytes:
    """JSON as a careless client writes it: NaN, Infinity and lone surrogates included."""
    return json.dumps(document).encode()


def log_in_again(client: FlaskClient, backend: Any, password: str = PASSWORD) -> None:
    """Whatever a request did to the session or the password, the next one is made by alice."""
    users.set_password(backend, "alice", password)
    response = client.post("/auth/login", json={"username": "alice", "password": password})
    assert response.status_code == 202


def check_answer(response: TestResponse, before: Any, database: Any) -> None:
    """Any answer but a 500; and if it is a refusal, nothing was changed."""
    if response.status_code == 503:
        assert "not configured" in response.json["message"]
    elif response.status_code >= 400:
        check_refusal(response)
        assert contents(database) == before


@two_databases
@every_body
@settings(max_examples=25)
@given(data=st.data())
def test_any_part_of_a_body_replaced(backend, database, job, method, path, data):
    valid = BODIES[method, path](job)
    place = data.draw(st.sampled_from(places(valid)))
    if place and isinstance(place[-1], str) and data.draw(st.integers(0, 4)) == 0:
        body = renamed(valid, place, data.draw(hostile.filter(lambda value: isinstance(value, str))))
    else:
        body = replaced(valid, place, data.draw(hostile))
    log_in_again(job.client, backend)
    before = contents(database)
    response = job.client.open(path, method=method, data=text_of(body), content_type="application/json")
    check_answer(response, before, database)


QUERIES = [
    *("job_id", "estimator_name", "page_numbers", "values"),
    *("page_idx", "page_size", "order_by", "order_type", "job_state"),
]
texts = st.sampled_from(
    [str(value) for value in HOSTILE if not isinstance(value, float) or not math.isnan(value)]
).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text)) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
READABLE = [
    *("/", "/auth/refresh", "/auth/status", "/user/simulations", "/jobs", "/jobs/direct", "/jobs/batch"),
    *("/jobs/history", "/inputs", "/estimators", "/results", "/logfiles", "/clusters", "/openapi.json", "/docs"),
]


@two_databases
@settings(max_examples=60)
@given(path=st.sampled_from(READABLE), query=st.dictionaries(st.sampled_from(QUERIES), texts), own=st.booleans())
@example(path="/results", query={"estimator_name": "a\0b"}, own=True)
@example(path="/user/simulations", query={"job_state": "RUNNING\0"}, own=True)
def test_any_query(database, backend, job, path, query, own):
    before = contents(database)
    asked = query | ({"job_id": job.job_id} if own else {})
    check_answer(job.client.get(path, query_string=asked), before, database)
    assert contents(database) == before


@two_databases
@settings(max_examples=20)
@given(path=st.sampled_from(["/jobs", "/jobs/direct", "/jobs/batch", "/user/simulations"]), job_id=texts)
def test_deleting_anything(database, job, path, job_id):
    before = contents(database)
    check_refusal(job.client.delete(path, query_string={"job_id": job_id}), 400, 404)
    assert contents(database) == before


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "get", "*"]


@one_database
@settings(max_examples=100)
@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from([*READABLE, *(path for _, path in BODIES)]) | texts.map(lambda text: f"/{text}"),
    body=st.binary(max_size=20),
    header=st.sampled_from(["Authorization", "Cookie", "Accept-Encoding", "Content-Type", "Origin", "Accept"]),
    value=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20),
)
@example(method="GET", path="//auth/status", body=b"", header="Accept", value="")
@example(method="GET", path="/static/%00", body=b"", header="Accept", value="")
@example(method="GET", path="/static/../../settings.py", body=b"", header="Accept", value="")
@example(method="GET", path="/auth/status", body=b"", header="Cookie", value="access_token=\xff; access_token")
@example(method="GET", path="/auth/status", body=b"", header="Authorization", value="Bearer \xe9")
def test_any_request(database, raw, method, path, body, header, value):
    before = contents(database)
    # The path as a server hands it over, whatever a URL may hold.
    environ = {"PATH_INFO": path.encode().decode("latin-1")}
    response = raw.open("/", method=method, data=body, headers={header: value}, environ_overrides=environ)
    assert response.status_code < 500 or path == "/auth/keycloak"
    if response.status_code >= 400 and method != "HEAD":
        assert list(response.json) == ["message"]
    assert contents(database) == before


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**64, BIG, -1, -BIG])
def test_numbers_of_simulations_that_no_database_can_hold(client, unchanged, number):
    for path, rest in (
        ("/results", {"simulation_id": number, "estimators": []}),
        ("/tasks", {"simulation_id": number, "task_id": 0, "update_dict": {}}),
        ("/tasks", {"simulation_id": 1, "task_id": number, "update_dict": {}}),
        ("/tasks/list", {"simulation_id": number, "updates": [{"task_id": 0, "update_dict": {}}]}),
        ("/tasks/list", {"simulation_id": 1, "updates": [{"task_id": number, "update_dict": {}}]}),
        ("/logfiles", {"simulation_id": number, "logfiles": {}}),
        ("/jobs", {"sim_id": number}),
    ):
        body = text_of(rest | {"update_key": "x"})
        check_refusal(client.post(path, data=body, content_type="application/json"), 400)
    head_first = f'{{"simulation_id": {number}, "update_key": "x", "estimators": []}}'
    check_refusal(client.post("/results", data=head_first), 400)


@one_database
@pytest.mark.parametrize(
    "time",
    [
        *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01", "9999-12-31 23:59:59.999999"),
        *("", "now", "2026-02-30", "2026-03-01 25:00:00", "10000-01-01", "1e9", "2026-03-01\0", 1772359200, []),
    ],
    ids=repr,
)
def test_times_that_cannot_be(job, time):
    for answer in (
        job.report_task(0, start_time=time),
        job.report_task(0, end_time=time, task_state="COMPLETED"),
        job.report(end_time=time, job_state="FAILED"),
    ):
        check_refusal(answer, 400)
    assert job.state == "PENDING"
    assert "start_time" not in job.task(0)


SUBMISSIONS: dict[str, dict[str, Any]] = {
    **{f"ntasks {value!r}": {"ntasks": value} for value in (0, -1, 1.5, 2.0, "3", True, None, [], 10**9, BIG)},
    **{
        f"primaries {value!r}": {"input_json": payloads.project(primaries=value)}
        for value in (0, -1, 1.5, "1000", True, None, [1000], {}, 10**16, 2**63, BIG)
    },
    **{
        f"files, NSTAT {value!r}": {"input_type": "files", "input_files": payloads.shieldhit_files(value)}
        for value in (0, -1, "1.5", "ten", "", "1e999", "nan", BIG, "٣")
    },
    **{
        f"a file called {name!r}": {
            "input_type": "files",
            "input_files": {**payloads.shieldhit_files(), name: "text"},
        }
        for name in (
            "../x",
            "/x",
            "a/b",
            "a\\b",
            ".",
            "..",
            "",
            " ",
            "x\n",
            "\nx",
            "a\0b",
            "-x",
            "x" * 300,
            "\u202ex",
            "x/",
        )
    },
    "a file that is no text": {"input_type": "files", "input_files": {**payloads.shieldhit_files(), "more.dat": 7}},
    "files that are a list": {"input_type": "files", "input_files": ["beam.dat"]},
    "no files": {"input_type": "files", "input_files": {}},
    "files that are missing": {"input_type": "files"},
    "a file is missing": {"input_type": "files", "input_files": {"beam.dat": "NSTAT 10"}},
    "a project that is missing": {"input_json": None},
    "a project that is a text": {"input_json": "{}"},
    "an empty project": {"input_json": {}},
    "a project without a beam": {"input_json": {"beam": None}},
    "an unknown kind of input": {"input_type": "sim_data"},
    "an unknown simulator": {"sim_type": "geant5"},
    "a simulator called nothing": {"sim_type": ""},
    "a simulator with a NUL": {"sim_type": "shieldhit\0"},
    "a simulator that is a path": {"sim_type": "../shieldhit"},
    "files of no simulator": {"input_type": "files", "sim_type": "common", "input_files": {"readme.txt": "?"}},
    "a project of common": {"sim_type": "common"},
    "a long title": {"title": "x" * 501},
    "a title with a NUL": {"title": "a\0b"},
    "a title that is a number": {"title": 7},
}


@one_database
@pytest.mark.parametrize("changes", SUBMISSIONS.values(), ids=SUBMISSIONS)
def test_simulations_that_cannot_be_run_as_they_are(signed_in, unchanged, backend, changes):
    body = text_of(payloads.submission() | changes)
    response = signed_in.post("/jobs/direct", data=body, content_type="application/json")
    check_refusal(response, 400)
    assert backend.dispatcher.dispatched == []


@two_databases
@pytest.mark.parametrize(
    "credentials",
    [
        *({"username": name, "password": PASSWORD} for name in ("", " ", " bob", "bob ", "b\0b", "b\nb", "\u202e")),
        {"username": "x" * 200, "password": PASSWORD},
        {"username": "bob", "password": ""},
        {"username": "bob", "password": "x" * 2000},
        {"username": "bob", "password": None},
        {"username": "bob", "password": 12345678},
        {"username": ["bob"], "password": PASSWORD},
        {"username": {"$ne": None}, "password": {"$ne": None}},
    ],
    ids=lambda credentials: ascii(credentials)[:60],
)
def test_accounts_that_cannot_be(client, unchanged, credentials):
    check_refusal(client.put("/auth/register", json=credentials), 400)
    check_refusal(client.post("/auth/login", json=credentials), 400, 401)


@two_databases
@pytest.mark.parametrize("new", ["", "x" * 2000, 7, []])
def test_an_unusable_new_password_leaves_the_old_one(client, signed_in, new):
    check_refusal(signed_in.post("/user/update", json={"password": PASSWORD, "new_password": new}), 400)
    assert client.post("/auth/login", json={"username": "alice", "password": PASSWORD}).status_code == 202


@one_database
@pytest.mark.parametrize(
    "query",
    [
        *({"page_idx": value} for value in ("0", "-1", "1.5", "x", "", str(10**9), str(BIG), "٣")),
        *({"page_size": value} for value in ("0", "-1", "x", "", str(10**9), str(BIG))),
        *({"order_by": value} for value in ("", "id", "title; DROP TABLE", "start_time\0")),
        *({"order_type": value} for value in ("", "asc", "DESCEND")),
        *({"job_state": value} for value in ("running", "RUNNING;PENDING", "RUNNING\0", "x" * 1000, " ")),
    ],
    ids=lambda query: ascii(query)[:60],
)
def test_lists_that_cannot_be(signed_in, unchanged, query):
    check_refusal(signed_in.get("/user/simulations", query_string=query), 400)


@one_database
@pytest.mark.parametrize(
    "pages",
    [
        *(
            "",
            "x",
            "-",
            "1-",
            "-1",
            "5-2",
            "1,,2",
            ",",
            "1-2-3",
            "1 - 2",
            " 1",
            "1\n",
            "0x1",
            "1e3",
            "1.0",
            "²",
            "٣",
            "0-٣",
        ),
        *("0-20000000", "0-999999999", "1" * 5000, str(BIG), "9" * 10, "a\0b"),
        ",".join(["0-1x"] * 5000),
    ],
    ids=lambda pages: ascii(pages)[:40],
)
def test_pages_that_cannot_be(job, pages):
    job.post_results()
    check_refusal(job.get("/results", estimator_name="dose", page_numbers=pages), 400)


@two_databases
@pytest.mark.parametrize("number", [500, 501, 1000, 5000])
def test_many_ranges_of_pages_are_answered_or_refused(job, number):
    job.post_results()
    ranges = ",".join(str(2 * page) for page in range(number))
    response = job.get("/results", estimator_name="dose", page_numbers=ranges)
    if response.status_code != 200:
        check_refusal(response, 400)
    assert number > 500 or response.status_code == 200


def deep_token() -> str:
    header = jwt.utils.base64url_encode(b"[" * 20_000).decode()
    return f"{header}.e30.eA"


def claims(**changes: Any) -> dict[str, Any]:
    return {"sid": "x", "use": "access", "exp": datetime.now(UTC) + timedelta(minutes=5), **changes}


TOKENS: dict[str, Callable[[bytes, dict[str, Any]], str]] = {
    "no token at all": lambda _key, _good: "x",
    "two dots": lambda _key, _good: "..",
    "not ASCII": lambda _key, _good: "é.é.é",
    "long": lambda _key, _good: "x" * 50_000,
    "a deep header": lambda _key, _good: deep_token(),
    "unsigned": lambda _key, good: jwt.encode(good, None, algorithm="none"),
    "signed with another key": lambda _key, good: jwt.encode(good, b"another key, 32 bytes or more ..", "HS256"),
    "signed otherwise": lambda key, good: jwt.encode(good, key + b"." * 32, "HS512"),
    "with the key in it": lambda _key, good: jwt.encode(good, b"k" * 32, "HS256", headers={"jwk": {"k": "a2tr"}}),
    "with a critical header": lambda key, good: jwt.encode(good, key, "HS256", headers={"crit": ["b64"], "b64": False}),
    "expired": lambda key, good: jwt.encode(good | {"exp": datetime.now(UTC) - timedelta(seconds=1)}, key, "HS256"),
    "without an end": lambda key, good: jwt.encode({"sid": good["sid"], "use": "access"}, key, "HS256"),
    "with an end that is no time": lambda key, good: jwt.encode(good | {"exp": "never"}, key, "HS256"),
    "of another kind": lambda key, good: jwt.encode(good | {"use": "refresh"}, key, "HS256"),
    "of no kind": lambda key, good: jwt.encode(good | {"use": None}, key, "HS256"),
    "of no session": lambda key, good: jwt.encode(good | {"sid": "gone"}, key, "HS256"),
    "of a session that is a list": lambda key, good: jwt.encode(good | {"sid": ["x"]}, key, "HS256"),
    "that is a list": lambda key, _good: jwt.api_jws.encode(b"[]", key, "HS256"),
}


@one_database
@pytest.mark.parametrize("forge", TOKENS.values(), ids=TOKENS)
def test_tokens_that_are_worth_nothing(app, backend, raw, signed_in, unchanged, forge):
    session = jwt.decode(cookie_of(signed_in, "access_token"), options={"verify_signature": False})["sid"]
    token = forge(backend.signing_key, claims(sid=session))
    cookie = {"Cookie": f"{cookie_name(app, 'access_token')}={token}"}
    for path in ("/auth/status", "/user/simulations", "/jobs/direct?job_id=x", "/clusters"):
        check_refusal(raw.get(path, headers={"Authorization": f"Bearer {token}"}), 400, 403)
        check_refusal(raw.get(path, headers=cookie), 400, 403)
    check_refusal(raw.delete("/user/simulations?job_id=x", headers=cookie), 400, 403)
    # Logging out with it succeeds, and ends no session.
    assert raw.delete("/auth/logout", headers=cookie).status_code == 200
    assert signed_in.get("/auth/status").status_code == 200


@two_databases
def test_tokens_are_good_for_one_thing_only(app, raw, signed_in):
    access, refresh = (cookie_of(signed_in, name) for name in ("access_token", "refresh_token"))
    check_refusal(raw.get("/auth/status", headers={"Authorization": f"Bearer {refresh}"}), 403)
    name = cookie_name(app, "refresh_token")
    check_refusal(raw.get("/auth/refresh", headers={"Cookie": f"{name}={access}"}), 403)
    assert raw.get("/auth/refresh", headers={"Cookie": f"{name}={refresh}"}).status_code == 200


@one_database
def test_an_access_token_ends(backend, signed_in, monkeypatch):
    monkeypatch.setattr(sessions, "utc_now", lambda: datetime.now(UTC) - timedelta(minutes=11))
    token = sessions.sign_in(backend, "alice", PASSWORD).access.text
    monkeypatch.undo()
    response = signed_in.get("/auth/status", headers={"Authorization": f"Bearer {token}"})
    check_refusal(response, 403)


class Upload(io.RawIOBase):
    """A body that is made while it is read: `head`, and then spaces without end, of which it counts what was taken."""

    def __init__(self, head: bytes = b"") -> None:
        self._head = io.BytesIO(head)
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        result = self._head.read(len(buffer)) or b" " * len(buffer)
        buffer[: len(result)] = result
        self.taken += len(result)
        return len(result)


def send(client: FlaskClient, method: str, path: str, upload: io.IOBase, length: int | None) -> TestResponse:
    """Send a body of a length that is said before (a number) or not (None: chunked)."""
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    said = {"CONTENT_LENGTH": "" if length is None else str(length)}
    environ = {"wsgi.input": upload, **said, **(chunked if length is None else {})}
    return client.open(path, method=method, content_type="application/json", environ_overrides=environ)


@one_database
@every_body
def test_a_body_over_the_limit_is_refused_before_it_is_read(signed_in, unchanged, method, path):
    upload = Upload(b"{")
    response = send(signed_in, method, path, upload, length=100 * MIB)
    assert upload.taken == 0
    check_refusal(response, 413)


@one_database
@every_body
def test_a_body_of_unknown_length_is_read_up_to_the_limit(signed_in, unchanged, method, path):
    upload = Upload(b"{")
    response = send(signed_in, method, path, upload, length=None)
    assert upload.taken <= 3 * MIB
    check_refusal(response, 400 if path == "/results" else 413)  # the key does not come first


@one_database
def test_results_of_unknown_length_with_the_right_key_are_read_up_to_the_limit(client, job, unchanged):
    upload = Upload(f'{{"simulation_id": {job.simulation_id}, "update_key": "{job.update_key}", "'.encode())
    check_refusal(send(client, "POST", "/results", upload, length=None), 413)
    assert 16 * MIB <= upload.taken <= 18 * MIB


@one_database
@pytest.mark.parametrize("length", [True, None], ids=["said", "chunked"])
@every_body
def test_strangers_cannot_have_a_large_body_parsed(client, routes, unchanged, monkeypatch, method, path, length):
    """`[[],[],...]` takes thirty times its size once it is parsed."""
    monkeypatch.setitem(routes.config, "MAX_CONTENT_LENGTH", 32 * MIB)
    body = b'{"a":[' + b"[]," * (3 * MIB) + b"[]]}"
    with monkeypatch.context() as guarded:
        guarded.setattr(OrjsonProvider, "loads", parse_small)
        response = send(client, method, path, io.BytesIO(body), length and len(body))
    check_refusal(response, 401 if path in ("/jobs/direct", "/jobs/batch") else 413 if small(path) else 400)


@one_database
@pytest.mark.parametrize("path", ["/jobs/direct", "/check", "/convert"])
def test_users_cannot_have_millions_of_values_parsed(signed_in, routes, unchanged, monkeypatch, path):
    """They compress to a few bytes."""
    monkeypatch.setitem(routes.config, "MAX_CONTENT_LENGTH", 32 * MIB)
    response = signed_in.post(path, data=b'{"a":[' + b"[]," * (3 * MIB) + b"[]]}")
    check_refusal(response, 413)
    assert "values" in response.json["message"]


def parse_small(_: Any, text: bytes) -> Any:
    assert len(text) <= MIB, "it was parsed"
    return json.loads(text)


def small(path: str) -> bool:
    """Whether no body of any size is to be expected there."""
    return path.startswith(("/auth/", "/user/")) or path == "/tasks"


@one_database
def test_a_large_report_of_a_worker_is_taken(job, routes, monkeypatch):
    monkeypatch.setitem(routes.config, "MAX_CONTENT_LENGTH", 8 * MIB)
    logs = {"a.log": "x" * (2 * MIB)}
    assert job.report(log=logs).status_code == 202
    body = {"simulation_id": job.simulation_id, "update_key": job.update_key, "logfiles": {"b.log": "x" * (2 * MIB)}}
    assert job.client.post("/logfiles", json=body).status_code == 202
    check_refusal(job.client.post("/logfiles", json={**body, "update_key": "wrong"}), 400)
    assert len(job.get("/logfiles").json["logfiles"]) == 2


@one_database
@pytest.mark.parametrize("length", [15 * MIB, None], ids=["said", "chunked"])
@pytest.mark.parametrize("key", ["wrong", "", "x" * 400, "\\u0000"])
def test_large_results_with_a_wrong_key_are_refused_before_the_rest_is_read(client, job, unchanged, length, key):
    upload = Upload(f'{{"simulation_id": {job.simulation_id}, "update_key": "{key}", "estimators": ['.encode())
    response = send(client, "POST", "/results", upload, length)
    check_refusal(response, 400, 413)
    if key == "wrong":
        assert response.json["message"] == "Invalid update key"
        assert upload.taken <= 64 * 1024


def large_results(job: Job, values: str, **changes: Any) -> bytes:
    """A body of `POST /results` of more than 9 MiB."""
    number = 9 * MIB // 4
    page = {"dimensions": 1, "data": {"name": "D", "unit": "", "values": "V"}, "axis_dim1": {"values": "A"}}
    body = json.dumps(job.results(payloads.estimator("dose_", page)) | changes)
    axis = ",".join(["1"] * number)
    return body.replace('"V"', f"[{axis},{values}]").replace('"A"', f"[{axis},1]").encode()


@one_database
@pytest.mark.parametrize(
    ("values", "changes", "status"),
    [
        ("1", {}, 202),
        ("NaN", {}, 202),
        ("null", {}, 202),
        ("1,1", {}, 400),
        ('"\\ud800"', {}, 400),
        ("1", {"update_key": "wrong"}, 400),
        ("1", {"simulation_id": 10**9}, 400),
        ("1]]]", {}, 400),
    ],
)
def test_large_results_are_taken_or_refused_like_small_ones(client, job, database, values, changes, status):
    body = large_results(job, values, **changes)
    before = contents(database)
    response = client.post("/results", data=body)
    assert response.status_code == status, response.data[:500]
    if status != 202:
        check_refusal(response, 400)
        assert contents(database) == before


def key_last(job: Job, size: int) -> bytes:
    """A body of `POST /results` of so many bytes that ends with the update key."""
    results = job.results()
    body = json.dumps({"estimators": results.pop("estimators"), **results}).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


@one_database
@pytest.mark.parametrize("length", [True, None], ids=["said", "chunked"])
def test_the_key_may_come_last_in_small_results_only(client, job, database, length):
    before = contents(database)
    upload = io.BytesIO(key_last(job, 12 * MIB))
    response = send(client, "POST", "/results", upload, length and 12 * MIB)
    check_refusal(response, 400)
    assert "must begin with" in response.json["message"]
    assert upload.tell() <= 2 * MIB + 4096
    assert contents(database) == before
    small = key_last(job, MIB)
    assert send(client, "POST", "/results", io.BytesIO(small), length and len(small)).status_code == 202
    assert job.state == "COMPLETED"


@one_database
def test_large_results_wait_in_the_data_folder(client, job, backend, monkeypatch):
    """There is the room that is looked after; `/tmp` may be memory."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert client.post("/results", data=large_results(job, "1")).status_code == 202
    assert not [path for path in backend.data_dir.iterdir() if path.suffix != ".db"]


@pytest.mark.parametrize("database", ["sqlite", "memory"], indirect=True)
@pytest.mark.parametrize("what", ["submission", "results", "logfiles", "simulation report", "user"])
def test_a_full_disk_is_told_and_nothing_is_changed(client, job, database, what):
    noise = secrets.token_hex(200_000)
    who = {"simulation_id": job.simulation_id, "update_key": job.update_key}
    fill(database)
    before = contents(database)
    response = {
        "submission": lambda: job.client.post(
            "/jobs/direct", json=payloads.submission(input_json=payloads.project() | {"noise": noise})
        ),
        "results": lambda: job.post_results(payloads.estimator() | {"metadata": {"noise": noise}}),
        "logfiles": lambda: client.post("/logfiles", json={**who, "logfiles": {"a": noise}}),
        "simulation report": lambda: job.report(job_state="FAILED", log={"a": noise}),
        "user": lambda: [
            client.put("/auth/register", json={"username": f"{number:0>120}", "password": PASSWORD})
            for number in range(200)
        ][-1],
    }[what]()
    assert response.status_code == 507
    assert "is full" in response.json["message"]
    assert what == "user" or contents(database) == before
    assert job.state == "PENDING"


@one_database
def test_a_data_folder_without_room_is_told_and_nothing_is_changed(client, job, database, monkeypatch):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(database)
    monkeypatch.setattr(tempfile, "TemporaryFile", no_room)
    response = client.post("/results", data=large_results(job, "1"))
    assert (response.status_code, response.json) == (507, {"message": "The server's disk is full: try again later"})
    assert contents(database) == before
