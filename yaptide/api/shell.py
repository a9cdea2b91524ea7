"""The asynchronous shell around the WSGI application (PEP 3333): slow clients do not occupy threads.

A body is received before a thread is needed, in memory or in a file; a compressed one is inflated. A response is sent
without a thread waiting for its reader. Each has a deadline that depends on the transferred bytes: `Rules.grace`
seconds, plus one second per `Rules.rate` bytes. A body that is too slow is answered with 408; a response that is read
too slowly ends with its connection.

Large bodies of unauthenticated senders are stored in files, a few at a time; `Rules.entitled` authenticates senders.
Health routes have one thread each of their own. The server calls this as ASGI 3.
"""

import asyncio
import ctypes
import io
import logging
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol, Self, cast
from urllib.parse import unquote_to_bytes

import orjson
from isal import isal_zlib

from yaptide.api.http import BODY_FILE
from yaptide.api.prefix import move_below
from yaptide.disk import is_full
from yaptide.services import metrics

log = logging.getLogger(__name__)

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEALTH = ("/healthz", "/readyz")
_HEAD = 4096
_IN_MEMORY = 128 << 10
_AT_ONCE = 64 << 10
_WATCH_EVERY = 5.0
_LONG_NAME = 64
_PIECE = 1 << 20
#: Window size of `zlib` with gzip header and trailer.
_GZIP = 31
_INVALID = cast("type[Exception]", isal_zlib.error)
#: Seconds after which the reader of a long response counts as slow.
_SLOW = 1.0
_MOST_KEPT = 256 << 20
_EAGER = 2
_PATIENCE = 0.003
_NOTHING = io.BytesIO()


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits for clients.

    `grace` (seconds) and `rate` (bytes per second) define deadlines. Anyone may send up to `small` bytes, nobody more
    than `most`. There may be `unproven` large bodies of unauthenticated senders at a time, with `unproven_bytes` in
    total. `entitled` gets the request and, on the paths in `by_head`, the first bytes of its body. It returns whether
    the sender may send all of it; None if only the whole body can tell. `folder` is for stored bodies, and for up to
    `kept_bytes` of responses with slow readers. All threads busy for `stuck` seconds count as a problem. Paths may
    begin with `prefix`.
    """

    folder: Path
    entitled: Callable[[Environ, bytes], bool | None]
    by_head: frozenset[str] = frozenset()
    prefix: str = ""
    grace: float = 20.0
    rate: float = 8192.0
    small: int = 1 << 20
    most: int = 1 << 31
    unproven: int = 4
    unproven_bytes: int = 128 << 20
    kept_bytes: int = 1 << 30
    stuck: float = 30.0


class _Refused(Exception):
    """A request that the shell rejects, with a status and a message for its sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Gone(Exception):
    """The client has closed the connection."""


class Connection(Protocol):
    """What the shell needs from the connection of a request.

    At the `deadline`, a time of `time.monotonic` or None, the connection responds 408 if there is no response yet, and
    closes.
    """

    deadline: float | None

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""

    def abort(self) -> None:
        """Close the connection at once and drop unsent data."""


class Shell:
    """An ASGI application that runs the WSGI application `app` in `threads` threads."""

    def __init__(self, app: Wsgi, threads: int, rules: Rules) -> None:
        self._app = app
        self.rules = self._rules = rules
        self._threads = threads
        self.is_stuck = False
        self._pool = _Pool("answer", threads)
        self._health = {path: _Pool(path.strip("/"), 1) for path in _HEALTH}
        self._in_progress = self._kept = 0
        metrics.THREADS_BUSY.set_function(self._pool.busy)
        metrics.IN_PROGRESS.set_function(lambda: self._in_progress)
        self._unproven = _Unproven(rules)
        self._watchdog: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Process one request, received over `scope["state"]["connection"]`."""
        if scope["type"] != "http":
            return
        if self._watchdog is None:
            self._watchdog = asyncio.get_running_loop().create_task(self._watch())
        environ, connection = environ_of(scope), scope["state"]["connection"]
        move_below(environ, self._rules.prefix)
        self._in_progress += 1
        try:
            with _Body(self._rules.folder, self._unproven) as body:
                await self._receive_body(environ, receive, connection, body)
                environ["wsgi.input"] = body.rewind()
                if body.is_in_file:
                    environ[BODY_FILE] = body.file
                await self._answer(environ, send, connection)
        except _Refused as refused:
            await _send_refusal(send, refused)
        except _Gone:
            pass
        except asyncio.CancelledError:  # the server stops
            connection.abort()
        except Exception:
            log.exception("request failed")
            connection.abort()
        finally:
            connection.deadline = None
            self._in_progress -= 1

    # Bodies

    async def _receive_body(self, environ: Environ, receive: Receive, connection: Connection, body: "_Body") -> None:
        """Receive as much of the body as its sender may send; raise _Refused or _Gone."""
        declared = int(environ.get("CONTENT_LENGTH") or 0)
        least = _HEAD if environ["PATH_INFO"] in self._rules.by_head else 0
        start, decided, received, rest = time.monotonic(), False, 0, b""
        more = declared > 0 or "HTTP_TRANSFER_ENCODING" in environ
        body.decode(environ.pop("HTTP_CONTENT_ENCODING", ""))
        while True:
            expected = max(declared, body.size)
            environ["CONTENT_LENGTH"] = str(expected)
            if expected > self._rules.most:
                return  # the application rejects it without reading more
            if expected > self._rules.small and not decided and (body.size >= least or not (more or rest)):
                decided = True
                entitled = await self._pool.call(partial(self._rules.entitled, environ, body.head))
                if entitled is None:
                    body.become_unproven(expected)
                elif not entitled:
                    return
            if not more and not rest:
                break
            if not rest:
                connection.deadline = start + self._rules.grace + received / self._rules.rate
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                more, rest = message["more_body"], message["body"]
                received += len(rest)
            rest = body.write(rest)
            if rest:
                await asyncio.sleep(0)  # few bytes may inflate to very many: other requests go on meanwhile
        body.end()
        connection.deadline = None
        environ["CONTENT_LENGTH"] = str(body.size)

    # Responses

    async def _answer(self, environ: Environ, send: Send, connection: Connection) -> None:
        pool = self._health.get(environ["PATH_INFO"], self._pool)
        connection.deadline = None  # the client has sent everything
        response = await pool.call(partial(_Response, self._app, environ))
        try:
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            start, sent, chunk = time.monotonic(), 0, response.first
            while not response.complete:
                connection.deadline = start + self._rules.grace + sent / self._rules.rate
                await self._send(send, chunk, response, pool)
                if connection.is_closing():
                    return
                sent += len(chunk)
                chunk = await pool.call(response.next)
            connection.deadline = None  # the connection limits the time for the rest
            await send({"type": "http.response.body", "body": chunk})
        finally:
            self._kept -= response.kept
            if not response.complete:
                await pool.call(response.close)

    async def _send(self, send: Send, chunk: bytes, response: "_Response", pool: "_Pool") -> None:
        """Send a part of a long response; if its reader is slow, produce the rest meanwhile and store it in a file."""
        sending = asyncio.ensure_future(send({"type": "http.response.body", "body": chunk, "more_body": True}))
        try:
            await asyncio.wait({sending}, timeout=_SLOW)
            if not sending.done() and not response.kept:
                await self._keep(response, pool)
            await sending
        finally:
            sending.cancel()

    async def _keep(self, response: "_Response", pool: "_Pool") -> None:
        room = min(self._rules.kept_bytes - self._kept, _MOST_KEPT)
        if room <= 0:
            return  # the rest is produced when it can be sent
        self._kept += room
        try:
            await pool.call(partial(response.keep, self._rules.folder, room))
        finally:
            self._kept -= room - response.kept

    async def _watch(self) -> None:
        """Log once when all threads stay busy, because then only health checks get a response."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            busy_since = self._pool.busy_since()
            stuck = busy_since is not None and time.monotonic() - busy_since > self._rules.stuck
            if stuck and not self.is_stuck:
                log.warning("all %d threads have been busy for more than %g s", self._threads, self._rules.stuck)
            self.is_stuck = stuck


_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class _Pool:
    """Threads that make calls for asyncio tasks. They do not keep the process alive.

    Threads that compute at the same time take turns (GIL), and each switch costs time. So `_EAGER` threads make all
    calls while these are short. When a call takes longer than `_PATIENCE`, for a disk or a database, another thread
    continues meanwhile.

    A call goes to the thread that was busy last, because its database connection and caches are warm.
    """

    def __init__(self, name: str, count: int) -> None:
        self._count = count
        self._idle = [SimpleQueue[_Work]() for _ in range(count)]
        self._began: dict[int, float] = {}  # start of running calls, by the id of the thread's queue
        self._waiting = deque[_Work]()
        self._looks_again = False
        self._lock = threading.Lock()  # protects the four fields above
        for number, queue in enumerate(self._idle):
            threading.Thread(target=self._serve, args=(queue,), name=f"{name}-{number}", daemon=True).start()

    async def call(self, call: Callable[[], Any]) -> Any:
        """Make a call in one of the threads; return what it returns, raise what it raises."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            self._waiting.append((call, future))
        self._begin(loop)
        return await future

    def busy(self) -> int:
        """Return the number of busy threads."""
        return len(self._began)

    def busy_since(self) -> float | None:
        """Return since when all threads are busy, in the time of `time.monotonic`; None if one is idle."""
        began = list(self._began.copy().values())
        return max(began) if len(began) == self._count else None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give waiting calls to idle threads; check again soon if calls are left."""
        now = time.monotonic()
        with self._lock:
            at_work = sum(began > now - _PATIENCE for began in self._began.values())
            while self._waiting and self._idle and at_work < _EAGER:
                queue = self._idle.pop()
                self._began[id(queue)] = now
                queue.put(self._waiting.popleft())
                at_work += 1
            look_again = bool(self._waiting and self._idle) and not self._looks_again
            self._looks_again |= look_again
        if look_again:
            loop.call_later(_PATIENCE, self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looks_again = False
        self._begin(loop)

    def _serve(self, queue: "SimpleQueue[_Work]") -> None:
        work: _Work | None = None
        while True:
            work = self._work(work or queue.get(), queue)

    def _work(self, work: _Work, queue: "SimpleQueue[_Work]") -> _Work | None:
        """Make a call; return the next waiting call, or None after marking the thread idle."""
        call, future = work
        result, error = None, None
        if not future.cancelled():
            try:
                result = call()
            except BaseException as raised:  # noqa: BLE001 - re-raised in the waiting task
                error = raised
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._idle.append(queue)
                del self._began[id(queue)]
            else:
                self._began[id(queue)] = time.monotonic()
        with suppress(RuntimeError):  # the event loop has closed meanwhile
            future.get_loop().call_soon_threadsafe(_resolve, future, result, error)
        return following


def _resolve(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Unproven:
    """Counts large bodies of unauthenticated senders, and the bytes that they use."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._bodies = self._bytes = 0

    def take(self, bodies: int, size: int) -> None:
        """Reserve room; raise _Refused if there is none."""
        if self._bodies + bodies > self._rules.unproven or self._bytes + size > self._rules.unproven_bytes:
            raise _Refused(503, "Too many large requests: try again in a moment, or send the update key in a header")
        self._bodies += bodies
        self._bytes += size

    def give_back(self, size: int) -> None:
        """Release the room of a body."""
        self._bodies -= 1
        self._bytes -= size


class _Body:
    """The body of a request: in memory while it is short, then in a file."""

    def __init__(self, folder: Path, unproven: _Unproven) -> None:
        self.file: IO[bytes] = _NOTHING
        self.is_in_file = False
        self.size = 0
        self._folder = folder
        self.head = b""
        self._unproven = unproven
        self._room: int | None = None
        self._inflater: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._room is not None:
            self._unproven.give_back(self._room)
        if self.file is not _NOTHING:
            self.file.close()

    def decode(self, encoding: str) -> None:
        """Inflate what is received if its `Content-Encoding` is gzip; raise _Refused for any other."""
        if encoding.lower() in ("gzip", "x-gzip"):
            self._inflater = isal_zlib.decompressobj(_GZIP)
        elif encoding.lower() not in ("", "identity"):
            raise _Refused(415, "Content-Encoding: only gzip is supported")

    def write(self, chunk: bytes) -> bytes:
        """Add received bytes; return those that are left to be added, because a few may inflate to very many.

        Raises _Refused if there is no room, or for invalid compressed data.
        """
        if self._inflater is None:
            self._add(chunk)
            return b""
        try:
            self._add(self._inflater.decompress(chunk, _PIECE))
        except _INVALID:
            raise _Refused(400, "The body is not valid gzip data") from None
        if self._inflater.unused_data:
            raise _Refused(400, "The body continues after the end of its gzip data")
        return bytes(self._inflater.unconsumed_tail)

    def end(self) -> None:
        """Add what is left; raise _Refused if compressed data are incomplete."""
        while self._inflater is not None and not self._inflater.eof:
            size = self.size
            self.write(b"")
            if self.size == size:
                raise _Refused(400, "The body's gzip data are incomplete")

    def _add(self, chunk: bytes) -> None:
        if len(self.head) < _HEAD:
            self.head += chunk[:_HEAD]
        self.size += len(chunk)
        if self._room is not None and self.size > self._room:
            self._unproven.take(0, len(chunk))
            self._room += len(chunk)
        if self.file is _NOTHING:
            self.file = io.BytesIO()
        try:
            if self.size > _IN_MEMORY and not self.is_in_file:
                self._move()
            self.file.write(chunk)
        except OSError as error:
            if not is_full(error):
                raise
            raise _Refused(507, "The server's disk is full: try again later") from error

    def rewind(self) -> IO[bytes]:
        """Return the whole body as a file, at its beginning."""
        self.file.seek(0)
        return self.file

    def _move(self) -> None:
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the body
        file.write(cast("io.BytesIO", self.file).getbuffer())
        self.file, self.is_in_file = file, True

    def become_unproven(self, size: int) -> None:
        """Count this body as unauthenticated, with `size` bytes; raise _Refused if there are too many."""
        self._unproven.take(1, size)
        self._room = size


class _Response:
    """The response of the WSGI application: all of it if it is short (`complete`), otherwise its `first` bytes."""

    def __init__(self, app: Wsgi, environ: Environ) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self._parts = app(environ, self._start)
        self._rest = iter(self._parts)
        self._file: IO[bytes] | None = None
        self.complete = False
        self.kept = 0
        self.first = self._gather()

    def next(self) -> bytes:
        """Return the next bytes; after the last ones the response is `complete`."""
        return self._gather()

    def keep(self, folder: Path, most: int) -> None:
        """Produce the rest of the response, or `most` bytes of it, and store it in a file (`kept` bytes)."""
        file = self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the response
        while self.kept < most and (part := next(self._rest, None)) is not None:
            self.kept += file.write(part)
        if self.kept < most:  # complete: release its sources
            getattr(self._parts, "close", lambda: None)()
            self._parts = ()
        _give_back_memory()
        file.seek(0)
        self._rest = chain(iter(partial(file.read, _PIECE), b""), self._rest)

    def close(self) -> None:
        """Discard the rest of the response."""
        self.complete = True
        if self._file is not None:
            self._file.close()
        getattr(self._parts, "close", lambda: None)()

    def _gather(self) -> bytes:
        gathered = bytearray()
        try:
            for part in self._rest:
                gathered += part
                if len(gathered) >= _AT_ONCE:
                    return bytes(gathered)
        except BaseException:
            self.close()
            raise
        self.close()
        return bytes(gathered)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], None]:
        self.status = int(status[:3])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return self._no_write

    @staticmethod
    def _no_write(data: bytes) -> None:
        raise NotImplementedError("return the response instead of writing it")


def environ_of(scope: Message) -> Environ:
    """Return the WSGI environment (PEP 3333) of an ASGI scope, without the body."""
    path = scope.get("raw_path") or scope["path"].encode()
    server, client = scope.get("server") or ("", 0), scope.get("client") or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in scope["headers"]:
        key = _known_key(name) if len(name) < _LONG_NAME else _key(name)
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    return environ


def _key(name: bytes) -> str:
    """Return the key of a header in the WSGI environment."""
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"


_known_key = lru_cache(1024)(_key)


def _give_back_memory() -> None:
    """Return free memory of the C library to the system; it may otherwise keep hundreds of megabytes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


async def _send_refusal(send: Send, refused: _Refused) -> None:
    body = orjson.dumps({"message": refused.message})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"5"))
    else:
        headers.append((b"connection", b"close"))
    if refused.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        headers.append((b"accept-encoding", b"gzip"))  # RFC 9110, 12.5.3
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
