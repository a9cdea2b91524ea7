"""Helpers that all routes share: the backend, authentication, and responses."""

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
from yaptide.api.rights import RIGHTS
from yaptide.domain.errors import Forbidden, InvalidInput, NotAuthenticated, TooLarge, YaptideError
from yaptide.persistence import codec
from yaptide.services import results_upload, sessions, tokens, workers
from yaptide.services.access import require_right
from yaptide.services.backend import Backend
from yaptide.services.devices import Origin
from yaptide.services.users import User

_JSON = "application/json"
_PIECE = 1 << 20
#: Largest value of an integer column.
_LARGEST = 2**31 - 1


#: Anyone may send a body up to this size (bytes). Parsed JSON can take thirty times its size in memory.
_SMALL = 2**20
_OF_USERS = ("/jobs/direct", "/jobs/batch", "/check", "/convert")
#: Forms of pages with files.
_OF_PAGES = ("/new", "/new/check")
_OF_WORKERS = {"/jobs": results_upload.JobKey, "/logfiles": results_upload.Key, "/tasks/list": results_upload.Key}
_CHECKS_ITSELF = "/results"
#: Paths whose large bodies begin with the update key.
BY_HEAD = frozenset({_CHECKS_ITSELF})
_WORK = "/worker/"
_WORK_OF = re.compile(r"/worker/(\d{1,10})/", re.ASCII)
_DIGITS_ONLY = re.compile(r"(\d{1,10})\Z", re.ASCII)
_DIGITS = 11
_KEY_FIRST = re.compile(
    rb'\s*\{\s*"simulation_id"\s*:\s*(\d{1,10})\s*,\s*"update_key"\s*:\s*"([^"\\]{1,500})"\s*[,}]', re.ASCII
)
#: Values of a JSON body: each may take a hundred bytes of memory, and millions of them compress to few bytes.
_MOST_VALUES = 2_000_000
_MARKS = (b",", b"[", b"{")
#: Quotes and escapes, for each value, that are worth the time to tell text from values.
_MARKS_OF_TEXT = 4
#: Header with the number of a worker's simulation, which proves its key before a large body is read.
SIMULATION = "Yaptide-Simulation"
#: Key of the WSGI environment: the file with the whole body, if the server has received it already.
BODY_FILE = "yaptide.body"
_ONE_AT_A_TIME = threading.Lock()


class OrjsonProvider(JSONProvider):
    """JSON by orjson: fast, and strict about NaN, Infinity and invalid UTF-8 in requests."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return JSON text."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse JSON text; raise TooLarge for one with too many values."""
        if isinstance(s, bytes) and has_many_values(s, _MOST_VALUES):
            raise TooLarge(f"The JSON of the body has more than {_MOST_VALUES} values")
        return orjson.loads(s)


def has_many_values(text: bytes, most: int) -> bool:
    """Return whether a JSON text has more than about `most` values and names, or so many that counting is too slow."""
    if sum(map(text.count, _MARKS)) <= most:  # true for nearly every body
        return False
    if text.count(b'"') + text.count(b"\\") > _MARKS_OF_TEXT * most:
        return True
    values, position = 0, 0
    while values <= most and position < len(text):
        quote = text.find(b'"', position)
        end = len(text) if quote < 0 else quote
        values += 1 + sum(text.count(mark, position, end) for mark in _MARKS)
        position = _end_of_string(text, end + 1)
    return values > most


def _end_of_string(text: bytes, position: int) -> int:
    """Return where a JSON string has ended, of whose text `position` is the beginning."""
    quote = text.find(b'"', position)
    while quote >= 0 and (escape := text.find(b"\\", position, quote)) >= 0:
        position = escape + 2
        if position > quote:
            quote = text.find(b'"', position)
    return len(text) if quote < 0 else quote + 1


class Number(IntegerConverter):
    """A number in a path; 404 if it does not fit into an integer column."""

    def to_python(self, value: str) -> int:
        """See `werkzeug.routing.BaseConverter`."""
        if len(value) > len(str(_LARGEST)) or int(value) > _LARGEST:
            raise NotFound  # ValidationError would give 405 if the same path has another method
        return int(value)


class JsonRequest(Request):
    """A request with clear errors for a body that is not JSON. Its Content-Type is ignored."""

    user: User | None = None
    """The authenticated user, cached by `get_user`."""

    def get_json(self, *arguments: Any, **named: Any) -> Any:
        """Return the parsed body; raise InvalidInput for `null`, which APIFlask would accept as an empty object."""
        document = super().get_json(*arguments, **named)
        if document is None:
            raise InvalidInput("The body is null, not an object")
        return document

    def on_json_loading_failed(self, e: ValueError | None) -> NoReturn:
        """Raise InvalidInput, or TooLarge if the body was truncated."""
        self.read_body()
        raise InvalidInput(f"The body is not JSON: {e}") from e

    def read_body(self) -> bytes:
        """Return the body; raise TooLarge if a body of unknown length was truncated at the limit."""
        data = self.get_data()
        if self.max_content_length is not None and len(data) >= self.max_content_length:
            raise TooLarge(f"The body is larger than {self.max_content_length} bytes")
        return data


def get_backend() -> Backend:
    """Return the backend of the running application."""
    backend: Backend = current_app.extensions["yaptide"]
    return backend


def get_origin() -> Origin:
    """Return the origin of this request, for a sign-in."""
    device = cookies.read_token(get_backend(), cookies.DEVICE)
    return Origin(request.remote_addr or "", device, request.headers.get("User-Agent", ""))


def get_session_id() -> str | None:
    """Return the id of the session of this request; None for one with an API token."""
    token = _bearer_token(request)
    if token is not None and tokens.is_token(token):
        return None
    return sessions.session_of_token(get_backend(), access_token())


def access_token() -> str | None:
    """Return the access token of this request: from the cookie, or for scripts from `Authorization: Bearer`."""
    return _access_token(get_backend(), request)


def _access_token(backend: Backend, of: Request) -> str | None:
    token = _bearer_token(of)
    if token is not None:
        return token
    token = cookies.read_token(backend, cookies.ACCESS, of)
    if sessions.has_ended(backend, token) and sessions.can_refresh(
        backend, cookies.read_token(backend, cookies.REFRESH, of)
    ):
        return None  # a browser that was suspended is about to refresh the token: no new login needed
    return token


def bearer_token() -> str | None:
    """Return the token in `Authorization: Bearer`."""
    return _bearer_token(request)


def _bearer_token(of: Request) -> str | None:
    scheme, _, token = of.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def get_user() -> User:
    """Return the user of this request, if a token's scope allows it; raise NotAuthenticated or Forbidden.

    Cached for the request.
    """
    current = cast("JsonRequest", request)
    if current.user is None:
        user = _authenticate(get_backend(), current)
        logs.bind_log_context(user=user.username)
        if current.url_rule is not None:  # otherwise 405 follows
            require_right(user, RIGHTS[f"{'GET' if current.method == 'HEAD' else current.method} {current.url_rule}"])
        current.user = user
    return current.user


def get_reader() -> User | str | None:
    """Return the access token of this request, or for one with an API token its user, if its scope allows the request.

    For routes that authenticate a session together with what they read. Raises what `get_user` raises.
    """
    token = _bearer_token(request)
    return get_user() if token is not None and tokens.is_token(token) else access_token()


def _authenticate(backend: Backend, of: Request) -> User:
    """Return the user of an API token, which counts in `Authorization: Bearer` only, or of a session."""
    token = _bearer_token(of)
    if token is not None and tokens.is_token(token):
        return tokens.authenticate_token(backend, token)
    return sessions.authenticate_user(backend, _access_token(backend, of))


def authenticate_page(backend: Backend, of: Request) -> tuple[User, sessions.Token | None]:
    """Return the user of a page's request, and a new access token if that of the page has expired.

    Raises NotAuthenticated without a session.
    """
    try:
        return sessions.authenticate_user(backend, cookies.read_token(backend, cookies.ACCESS, of)), None
    except (NotAuthenticated, Forbidden):
        pass
    try:
        renewed = sessions.refresh_access(backend, cookies.read_token(backend, cookies.REFRESH, of))
        return sessions.authenticate_user(backend, renewed.text), renewed
    except Forbidden as error:
        raise NotAuthenticated(str(error)) from None


def get_worker() -> workers.Proof:
    """Return the simulation in the path and the update key of this request; raise InvalidInput without a key."""
    return _proof(request, (request.view_args or {}).get("simulation_id", 0))


def _proof(of: Request, simulation: int | str) -> workers.Proof:
    key = _bearer_token(of)
    number = int(simulation) if str(simulation).isdecimal() and len(str(simulation)) < _DIGITS else 0
    if key is None or not 0 < number < 2**31:
        raise InvalidInput("Invalid update key")
    return workers.Proof(number, key)


def may_send_large(backend: Backend, environ: dict[str, Any], head: bytes) -> bool | None:
    """Return whether the sender of a large body is authenticated before the body is received.

    `head` are the first bytes of the body. None means that only the whole body can tell, because the update key is in
    it. Otherwise users are authenticated by their session, and workers by their key: in the path, at the beginning of
    the results, or in the headers `Authorization: Bearer` and `Yaptide-Simulation`.
    """
    current = JsonRequest(environ, populate_request=False)
    simulation = _WORK_OF.match(current.path) or _DIGITS_ONLY.match(current.headers.get(SIMULATION, ""))
    try:
        if current.path in _OF_USERS:
            require_right(_authenticate(backend, current), RIGHTS[f"POST {current.path}"])
        elif current.path in _OF_PAGES:
            authenticate_page(backend, current)
        elif simulation:
            workers.check_key(backend, _proof(current, simulation[1]))
        elif current.path == _CHECKS_ITSELF and (key := key_first(head)):
            results_upload.check_key(backend, key)
        else:
            return None if current.path in _OF_WORKERS else False
    except YaptideError:
        return False
    return True


def key_first(head: bytes) -> results_upload.Key | None:
    """Return the key at the beginning of posted results; None if something else comes first."""
    match = _KEY_FIRST.match(head)
    return match and results_upload.Key(int(match[1]), match[2].decode("utf-8", "replace"))


def guard_body() -> None:
    """Check before a request is processed that only users and workers can make the server parse a large body.

    Raises what `get_user` raises, InvalidInput for a wrong update key, and later TooLarge for a route without large
    bodies.
    """
    if request.method == "DELETE":
        request.max_content_length = min(_SMALL, current_app.config["MAX_CONTENT_LENGTH"])
    if request.method not in ("POST", "PUT") or request.path == _CHECKS_ITSELF:
        return
    if request.path in _OF_USERS:
        get_user()
    elif request.path in _OF_PAGES:
        authenticate_page(get_backend(), request)
    elif request.path.startswith(_WORK):  # without a key, the server does not wait for the body
        workers.check_key(get_backend(), get_worker())
    elif request.path not in _OF_WORKERS:
        request.max_content_length = min(_SMALL, current_app.config["MAX_CONTENT_LENGTH"])
    elif SIMULATION in request.headers:
        workers.check_key(get_backend(), _proof(request, request.headers[SIMULATION]))
    elif request.content_length is None or request.content_length > _SMALL:
        with _ONE_AT_A_TIME, _whole_body() as body:  # the sender is not authenticated yet
            logs.bind_log_context(
                job_id=results_upload.check_key(get_backend(), results_upload.key_of(body, _OF_WORKERS[request.path]))
            )


@contextmanager
def _whole_body() -> Iterator[memoryview]:
    """Yield the body of this request; a body in a file is mapped, not read into memory. Raises TooLarge."""
    current = cast("JsonRequest", request)
    file = current.environ.get(BODY_FILE)
    if file is None or (current.content_length or 0) > current_app.config["MAX_CONTENT_LENGTH"]:
        yield memoryview(current.read_body())
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


def json_response(document: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(document), status, mimetype=_JSON)


def set_content(response: Response, data: bytes, *, as_gzip: bool) -> None:
    """Set the content of a response, compressed as stored payloads are if `as_gzip`."""
    response.data = codec.compress(data) if as_gzip else data
    if as_gzip:
        response.headers["Content-Encoding"] = "gzip"


def stitched_response(parts: Iterable[codec.Part], length: int | None = None) -> Response:
    """Return a JSON response made of stored payloads: as stored if the client accepts gzip, otherwise inflated.

    With `length`, the total size of the stitched parts, the parts are read one by one while they are sent; without it,
    all of them are read first.
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
    """Yield pieces so small that one is sent while the next is produced."""
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield bytes(chunk[start : start + _PIECE])


def job_id() -> str:
    """Return the query's `job_id`; raise InvalidInput without one."""
    value = request.args.get("job_id", "")
    if not value:
        raise InvalidInput("Missing job_id in the query")
    return value


def to_milliseconds(time: datetime) -> int:
    """Return milliseconds since the epoch, as the front end expects in `access_exp`."""
    return int(time.timestamp() * 1000)


def http_date(time: datetime | None) -> str | None:
    """Return a time as in `Sun, 01 Mar 2026 10:00:00 GMT`."""
    if time is None:
        return None
    clock = f"{_DIGIT_PAIRS[time.hour]}:{_DIGIT_PAIRS[time.minute]}:{_DIGIT_PAIRS[time.second]}"
    return f"{_day(time.toordinal())} {clock} GMT"


_DIGIT_PAIRS = [f"{number:02}" for number in range(60)]


@lru_cache(1024)
def _day(ordinal: int) -> str:
    """Return a day as in `Sun, 01 Mar 2026`."""
    return format_datetime(datetime.fromordinal(ordinal).replace(tzinfo=UTC), usegmt=True)[:16]
