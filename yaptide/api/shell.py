"""The asynchronous shell around the WSGI application (PEP 3333): nobody's slow line holds a thread.

A body is taken in before a thread is asked for, in memory or in a file, and an answer is sent while no thread waits for
its reader. Each has a deadline that moves with what has come through: `Rules.grace` seconds, and one more for each
`Rules.rate` bytes. A body that is too slow is answered 408, an answer that is read too slowly ends with its connection.

Large bodies of those who have proven nothing wait in files, few of them at a time; `Rules.entitled` says who has.
Health routes have a thread each that nobody else gets. The server that calls this speaks ASGI 3.
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

from yaptide.api.http import BODY_FILE
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
#: Seconds after which a reader of a long answer is slow.
_SLOW = 1.0
_MOST_KEPT = 256 << 20
_EAGER = 2
_PATIENCE = 0.003
_NOTHING = io.BytesIO()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the shell asks of clients.

    `grace` in seconds and `rate` in bytes per second make deadlines. Anybody may send `small` bytes, more than `most`
    nobody. Large bodies of which nobody knows who sends them may be `unproven` at a time, with `unproven_bytes` in all.
    `entitled` gets the request and, on the paths in `by_head`, the first bytes of its body. It says whether whoever
    sends it may have us take all of it in: None if that can only be seen in the whole body. `folder` is where bodies
    wait, and up to `kept_bytes` of answers that are read slowly.
    """

    folder: Path
    entitled: Callable[[Environ, bytes], bool | None]
    by_head: frozenset[str] = frozenset()
    grace: float = 20.0
    rate: float = 8192.0
    small: int = 1 << 20
    most: int = 1 << 31
    unproven: int = 4
    unproven_bytes: int = 128 << 20
    kept_bytes: int = 1 << 30
    stuck: float = 30.0


class _Refused(Exception):
    """A request that is answered here: status, and a message for whoever sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Gone(Exception):
    """The client has closed the connection."""


class Connection(Protocol):
    """What the shell asks of the connection that a request has come over.

    At the `deadline`, a time of `time.monotonic` or None, it answers 408 if there is no answer yet, and ends.
    """

    deadline: float | None

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""

    def abort(self) -> None:
        """End it at once, whatever was not sent."""


class Shell:
    """An ASGI application that has `threads` threads answer by the WSGI application `app`."""

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
        """Answer one request, which has come over `scope["state"]["connection"]`."""
        if scope["type"] != "http":
            return
        if self._watchdog is None:
            self._watchdog = asyncio.get_running_loop().create_task(self._watch())
        environ, connection = environ_of(scope), scope["state"]["connection"]
        self._in_progress += 1
        try:
            with _Body(self._rules.folder, self._unproven) as body:
                await self._take_in(environ, receive, connection, body)
                environ["wsgi.input"] = body.rewound()
                if body.is_in_file:
                    environ[BODY_FILE] = body.file
                await self._answer(environ, send, connection)
        except _Refused as refused:
            await _send_refusal(send, refused)
        except _Gone:
            pass
        except asyncio.CancelledError:  # the server ends
            connection.abort()
        except Exception:
            log.exception("a request could not be answered")
            connection.abort()
        finally:
            connection.deadline = None
            self._in_progress -= 1

    # Bodies

    async def _take_in(self, environ: Environ, receive: Receive, connection: Connection, body: "_Body") -> None:
        """Take in the body of a request, as much of it as its sender is entitled to; raises _Refused, _Gone."""
        declared = int(environ.get("CONTENT_LENGTH") or 0)
        least = _HEAD if environ["PATH_INFO"] in self._rules.by_head else 0
        start, decided = time.monotonic(), False
        more = declared > 0 or "HTTP_TRANSFER_ENCODING" in environ
        while True:
            expected = max(declared, body.size)
            if expected > self._rules.most:
                return  # what is there is enough for the application to refuse it
            if expected > self._rules.small and not decided and (body.size >= least or not more):
                decided = True
                entitled = await self._pool.call(partial(self._rules.entitled, environ, body.head))
                if entitled is None:
                    body.become_unproven(expected)
                elif not entitled:
                    return
            if not more:
                break
            connection.deadline = start + self._rules.grace + body.size / self._rules.rate
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            more = message["more_body"]
            body.write(message["body"])
        connection.deadline = None
        environ["CONTENT_LENGTH"] = str(body.size)

    # Answers

    async def _answer(self, environ: Environ, send: Send, connection: Connection) -> None:
        pool = self._health.get(environ["PATH_INFO"], self._pool)
        connection.deadline = None  # from here on it is our turn
        answer = await pool.call(partial(_Answer, self._app, environ))
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            start, sent, chunk = time.monotonic(), 0, answer.first
            while not answer.complete:
                connection.deadline = start + self._rules.grace + sent / self._rules.rate
                await self._send(send, chunk, answer, pool)
                if connection.is_closing():
                    return
                sent += len(chunk)
                chunk = await pool.call(answer.next)
            connection.deadline = None  # the connection sees to the end of it
            await send({"type": "http.response.body", "body": chunk})
        finally:
            self._kept -= answer.kept
            if not answer.complete:
                await pool.call(answer.close)

    async def _send(self, send: Send, chunk: bytes, answer: "_Answer", pool: "_Pool") -> None:
        """Send a part of a long answer; if that takes long, the rest is made and waits in a file meanwhile."""
        sending = asyncio.ensure_future(send({"type": "http.response.body", "body": chunk, "more_body": True}))
        try:
            await asyncio.wait({sending}, timeout=_SLOW)
            if not sending.done() and not answer.kept:
                await self._keep(answer, pool)
            await sending
        finally:
            sending.cancel()

    async def _keep(self, answer: "_Answer", pool: "_Pool") -> None:
        room = min(self._rules.kept_bytes - self._kept, _MOST_KEPT)
        if room <= 0:
            return  # the rest is made when its turn comes
        self._kept += room
        try:
            await pool.call(partial(answer.keep, self._rules.folder, room))
        finally:
            self._kept -= room - answer.kept

    async def _watch(self) -> None:
        """Tell once when all threads stay busy: nobody is answered then but who asks for the server's health."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            busy_since = self._pool.busy_since()
            stuck = busy_since is not None and time.monotonic() - busy_since > self._rules.stuck
            if stuck and not self.is_stuck:
                log.warning("all %d threads have been busy for more than %g s", self._threads, self._rules.stuck)
            self.is_stuck = stuck


_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class _Pool:
    """Threads that make calls for tasks. They do not keep the process.

    Threads of Python that compute at once take turns, and each turn costs: `_EAGER` of them make all calls as long as
    those are short. What takes longer than `_PATIENCE`, for a disk or a database, has another thread go on meanwhile.

    A call goes to the thread that was busy last: what that has of the database, and the processor of both, is warm.
    """

    def __init__(self, name: str, count: int) -> None:
        self._count = count
        self._idle = [SimpleQueue[_Work]() for _ in range(count)]
        self._began: dict[int, float] = {}  # of the calls that are being made, by the thread's queue
        self._waiting = deque[_Work]()
        self._looks_again = False
        self._lock = threading.Lock()  # for the moves between them
        for number, queue in enumerate(self._idle):
            threading.Thread(target=self._serve, args=(queue,), name=f"{name}-{number}", daemon=True).start()

    async def call(self, call: Callable[[], Any]) -> Any:
        """What a call returns, made in one of the threads; raises what it raises."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            self._waiting.append((call, future))
        self._begin(loop)
        return await future

    def busy(self) -> int:
        """Threads that are at work."""
        return len(self._began)

    def busy_since(self) -> float | None:
        """Since when all of them are, in the time of `time.monotonic`; None if one is idle."""
        began = list(self._began.copy().values())
        return max(began) if len(began) == self._count else None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have idle threads make calls that wait, as many as are to; look again soon if calls are left."""
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
        """Make a call; returns the next one if one waits, otherwise the thread is idle."""
        call, future = work
        result, error = None, None
        if not future.cancelled():
            try:
                result = call()
            except BaseException as raised:  # noqa: BLE001 - for the task that waits for it
                error = raised
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._idle.append(queue)
                del self._began[id(queue)]
            else:
                self._began[id(queue)] = time.monotonic()
        with suppress(RuntimeError):  # the server has ended meanwhile
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
    """Large bodies of those who have proven nothing: how many there are, and the room that they take."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._bodies = self._bytes = 0

    def take(self, bodies: int, size: int) -> None:
        """Make room; raises _Refused if there is none."""
        if self._bodies + bodies > self._rules.unproven or self._bytes + size > self._rules.unproven_bytes:
            raise _Refused(503, "Too many large requests at once: try again in a moment, or prove the key in a header")
        self._bodies += bodies
        self._bytes += size

    def give_back(self, size: int) -> None:
        """A body is gone."""
        self._bodies -= 1
        self._bytes -= size


class _Body:
    """The body of a request: in memory as long as it is short, then in a file."""

    def __init__(self, folder: Path, unproven: _Unproven) -> None:
        self.file: IO[bytes] = _NOTHING
        self.is_in_file = False
        self.size = 0
        self._folder = folder
        self.head = b""
        self._unproven = unproven
        self._room: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._room is not None:
            self._unproven.give_back(self._room)
        if self.file is not _NOTHING:
            self.file.close()

    def write(self, chunk: bytes) -> None:
        """Add what has come; raises _Refused if it needs room that it cannot have."""
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
            raise _Refused(507, "There is no room left on the server for this body: try again later") from error

    def rewound(self) -> IO[bytes]:
        """All of it, to be read."""
        self.file.seek(0)
        return self.file

    def _move(self) -> None:
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it is closed with the body
        file.write(cast("io.BytesIO", self.file).getbuffer())
        self.file, self.is_in_file = file, True

    def become_unproven(self, size: int) -> None:
        """Count it among the unproven ones, with `size` bytes; raises _Refused if there are too many."""
        self._unproven.take(1, size)
        self._room = size


class _Answer:
    """What the WSGI application answers: all of it if it is short (`complete`), otherwise its `first` bytes."""

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
        """The next bytes; the last ones once it is `complete`."""
        return self._gather()

    def keep(self, folder: Path, most: int) -> None:
        """Make what is left, or `most` bytes of it, and leave it in a file (`kept` bytes), not in memory."""
        file = self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the answer
        while self.kept < most and (part := next(self._rest, None)) is not None:
            self.kept += file.write(part)
        if self.kept < most:  # all of it: what it was made of is not needed any more
            getattr(self._parts, "close", lambda: None)()
            self._parts = ()
        _give_back_memory()
        file.seek(0)
        self._rest = chain(iter(partial(file.read, _PIECE), b""), self._rest)

    def close(self) -> None:
        """Nobody wants the rest."""
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
        raise NotImplementedError("an answer is returned, not written")


def environ_of(scope: Message) -> Environ:
    """The request of an ASGI scope as PEP 3333 has it, without its body."""
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
    """The key of a header in the environment."""
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"


_known_key = lru_cache(1024)(_key)


def _give_back_memory() -> None:
    """Have the C library give to the system what is free; it may keep hundreds of megabytes for a next time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU one
    if trim is not None:
        trim(0)


async def _send_refusal(send: Send, refused: _Refused) -> None:
    body = orjson.dumps({"message": refused.message})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"5"))
    else:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
