"""What all routes share: the backend, who is asking, cookies, and how an answer is written."""

import mmap
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, NoReturn, cast

import orjson
from flask import Request, Response, current_app, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import NotFound
from werkzeug.routing import IntegerConverter

from yaptide import logs
from yaptide.api import cookies
from yaptide.domain.errors import InvalidInput, TooLarge, YaptideError
from yaptide.persistence import codec
from yaptide.services import results, sessions, workers
from yaptide.services.backend import Backend
from yaptide.services.users import User

_JSON = "application/json"
_PIECE = 1 << 20
#: The largest number that a column of integers holds.
_LARGEST = 2**31 - 1


#: A body up to here (bytes) may come from anybody. Parsed, JSON can take thirty times its size in memory.
_SMALL = 2**20
_OF_USERS = ("/jobs/direct", "/jobs/batch", "/convert")
_OF_WORKERS = {"/jobs": results.JobKey, "/logfiles": results.Key, "/tasks/list": results.Key}
_SEES_TO_IT = "/results"
#: Where the key is at the beginning of a large body.
BY_HEAD = frozenset({_SEES_TO_IT})
_WORK = "/worker/"
_WORK_OF = re.compile(r"/worker/(\d{1,10})/", re.ASCII)
_DIGITS_ONLY = re.compile(r"(\d{1,10})\Z", re.ASCII)
_DIGITS = 11
_KEY_FIRST = re.compile(
    rb'\s*\{\s*"simulation_id"\s*:\s*(\d{1,10})\s*,\s*"update_key"\s*:\s*"([^"\\]{1,500})"\s*[,}]', re.ASCII
)
#: The header in which a worker names its simulation, to prove its key before a large body is taken in.
SIMULATION = "Yaptide-Simulation"
#: In a request's environment: the file with its whole body, if the server has taken that in before.
BODY_FILE = "yaptide.body"
_ONE_AT_A_TIME = threading.Lock()


class OrjsonProvider(JSONProvider):
    """JSON by orjson: fast, and strict about NaN, Infinity and broken text in what comes in."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Write JSON text."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON text."""
        return orjson.loads(s)


class Number(IntegerConverter):
    """A number in a path; one that no column could hold is the address of nothing (404)."""

    def to_python(self, value: str) -> int:
        """See `werkzeug.routing.BaseConverter`."""
        if len(value) > len(str(_LARGEST)) or int(value) > _LARGEST:
            raise NotFound  # a ValidationError would be 405 where another method of the same path is served
        return int(value)


class JsonRequest(Request):
    """A request that says what is wrong with a body that is no JSON. Its Content-Type is not asked for."""

    user: User | None = None
    """Who is asking, once that was found out."""

    def get_json(self, *arguments: Any, **named: Any) -> Any:
        """The body, read as JSON; raises InvalidInput for `null`, which APIFlask would take for an empty object."""
        document = super().get_json(*arguments, **named)
        if document is None:
            raise InvalidInput("The body is null, not an object")
        return document

    def on_json_loading_failed(self, e: ValueError | None) -> NoReturn:
        """Raise InvalidInput, or TooLarge if the body was cut."""
        self.whole()
        raise InvalidInput(f"The body is not JSON: {e}") from e

    def whole(self) -> bytes:
        """The body; raises TooLarge if it is one of unknown length that was cut at the limit."""
        data = self.get_data()
        if self.max_content_length is not None and len(data) >= self.max_content_length:
            raise TooLarge(f"The body has more than {self.max_content_length} bytes")
        return data


def get_backend() -> Backend:
    """The backend of the running application."""
    found: Backend = current_app.extensions["yaptide"]
    return found


def access_token() -> str | None:
    """The access token of this request: from the cookie, or for scripts from `Authorization: Bearer`."""
    return _access_token(get_backend(), request)


def _access_token(known: Backend, of: Request) -> str | None:
    token = _bearer_token(of)
    if token is not None:
        return token
    token = cookies.read(known, cookies.ACCESS, of)
    if sessions.has_ended(known, token) and sessions.can_refresh(known, cookies.read(known, cookies.REFRESH, of)):
        return None  # a browser that has slept is about to refresh it: nobody has to log in
    return token


def bearer_token() -> str | None:
    """The token in `Authorization: Bearer`."""
    return _bearer_token(request)


def _bearer_token(of: Request) -> str | None:
    scheme, _, token = of.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def get_user() -> User:
    """Who is asking; raises NotAuthenticated, Forbidden. Found out once, however often it is asked in a request."""
    this = cast("JsonRequest", request)
    if this.user is None:
        this.user = sessions.authenticate_user(get_backend(), access_token())
        logs.bind_log_context(user=this.user.username)
    return this.user


def get_worker() -> workers.Proof:
    """The simulation in the path, and the update key that comes along; raises InvalidInput without one."""
    return _proof(request, (request.view_args or {}).get("simulation_id", 0))


def _proof(of: Request, simulation: int | str) -> workers.Proof:
    key = _bearer_token(of)
    number = int(simulation) if str(simulation).isdecimal() and len(str(simulation)) < _DIGITS else 0
    if key is None or not 0 < number < 2**31:
        raise InvalidInput("Invalid update key")
    return workers.Proof(number, key)


def may_send_large(known: Backend, environ: dict[str, Any], head: bytes) -> bool | None:
    """Whether whoever sends a large body may have all of it taken in before the request is looked at.

    `head` are its first bytes. None if only the whole body can tell: the update key is in it. Otherwise users prove
    themselves by their session, and workers by their key: in the path's way, first in the results, or in the headers
    `Authorization: Bearer` and `Yaptide-Simulation`.
    """
    this = JsonRequest(environ, populate_request=False)
    simulation = _WORK_OF.match(this.path) or _DIGITS_ONLY.match(this.headers.get(SIMULATION, ""))
    try:
        if this.path in _OF_USERS:
            sessions.authenticate_user(known, _access_token(known, this))
        elif simulation:
            workers.check_key(known, _proof(this, simulation[1]))
        elif this.path == _SEES_TO_IT and (key := key_first(head)):
            results.check_key(known, key)
        else:
            return None if this.path in _OF_WORKERS else False
    except YaptideError:
        return False
    return True


def key_first(head: bytes) -> results.Key | None:
    """The key that results begin with; None if something else comes first."""
    match = _KEY_FIRST.match(head)
    return match and results.Key(int(match[1]), match[2].decode("utf-8", "replace"))


def guard_body() -> None:
    """Before a request is looked at: have nobody but users and workers make us parse a large body.

    Raises what `get_user` does, InvalidInput for a wrong update key, and later TooLarge where no large body is to be
    expected.
    """
    if request.method not in ("POST", "PUT") or request.path == _SEES_TO_IT:
        return
    if request.path in _OF_USERS:
        get_user()
    elif request.path.startswith(_WORK):  # whoever has no key cannot have us wait for a body
        workers.check_key(get_backend(), get_worker())
    elif request.path not in _OF_WORKERS:
        request.max_content_length = min(_SMALL, current_app.config["MAX_CONTENT_LENGTH"])
    elif SIMULATION in request.headers:
        workers.check_key(get_backend(), _proof(request, request.headers[SIMULATION]))
    elif request.content_length is None or request.content_length > _SMALL:
        with _ONE_AT_A_TIME, _whole_body() as body:  # nobody knows yet who sends it
            logs.bind_log_context(
                job_id=results.check_key(get_backend(), results.key_of(body, _OF_WORKERS[request.path]))
            )


@contextmanager
def _whole_body() -> Iterator[memoryview]:
    """The body of this request; one that waits in a file is not read into memory. Raises TooLarge."""
    this = cast("JsonRequest", request)
    file = this.environ.get(BODY_FILE)
    if file is None or (this.content_length or 0) > current_app.config["MAX_CONTENT_LENGTH"]:
        yield memoryview(this.whole())
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


def json_response(document: dict[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(document), status, mimetype=_JSON)


def stitched_response(parts: Iterable[codec.Part], length: int | None = None) -> Response:
    """A JSON answer made of stored payloads: as they are if the client accepts gzip, otherwise inflated as a stream.

    With the `length` of what is stitched the parts are taken one by one while they are sent, otherwise before.
    """
    if not request.accept_encodings["gzip"]:
        return Response(codec.inflate_parts(parts), mimetype=_JSON, headers={"Vary": "Accept-Encoding"})
    chunks: Iterable[bytes | memoryview] = codec.stitch_gzip(parts)
    if length is None:
        chunks = list(chunks)
        length = sum(map(len, chunks))
    response = Response(_pieces(chunks), mimetype=_JSON)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(length)
    response.headers["Vary"] = "Accept-Encoding"
    return response


def _pieces(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Pieces small enough for one to be sent while the next is made."""
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield bytes(chunk[start : start + _PIECE])


def job_id() -> str:
    """The query's `job_id`; raises InvalidInput without one."""
    found = request.args.get("job_id", "")
    if not found:
        raise InvalidInput("Missing job_id in the query")
    return found


def to_milliseconds(time: datetime) -> int:
    """Milliseconds since the epoch, as the front end reads `access_exp`."""
    return int(time.timestamp() * 1000)


def http_date(time: datetime | None) -> str | None:
    """A time as in `Sun, 01 Mar 2026 10:00:00 GMT`."""
    if time is None:
        return None
    return f"{_day(time.toordinal())} {_TWO[time.hour]}:{_TWO[time.minute]}:{_TWO[time.second]} GMT"


_TWO = [f"{number:02}" for number in range(60)]


@lru_cache(1024)
def _day(ordinal: int) -> str:
    """A day as in `Sun, 01 Mar 2026`."""
    return format_datetime(datetime.fromordinal(ordinal).replace(tzinfo=UTC), usegmt=True)[:16]
