"""The shell around the application, with a client that the test simulates: requests, responses and limits."""

import asyncio
import errno
import gzip
import logging
import tempfile
import threading
import time
from functools import partial

import pytest

from yaptide.api import shell as module
from yaptide.api.shell import Rules, Shell


class Line:
    """A connection whose client reads only on request of the test."""

    def __init__(self):
        self.deadline = None
        self.deadlines = []
        self.reads = asyncio.Event()
        self.closed = False
        self.said = []

    def is_closing(self):
        return self.closed

    def abort(self):
        self.closed = True

    async def send(self, message):
        self.deadlines.append(self.deadline)
        if message["type"] == "http.response.body":
            await self.reads.wait()
        self.said.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.said)


def scope(line, method="GET", path="/long", *headers):
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "http_version": "1.1",
        "headers": list(headers),
        "state": {"connection": line},
    }


def rules(folder, **changes):
    return Rules(folder, changes.pop("entitled", lambda *_: True), **changes)


def receiving(*chunks):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0)

    return receive


def app(parts):
    """An application that answers `parts`, and tells when it was closed."""
    closed = threading.Event()

    def answer(_environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        try:
            yield from parts()
        finally:
            closed.set()

    def started(environ, start):
        made = answer(environ, start)
        first = next(made)

        def whole():
            try:
                yield first
                yield from made
            finally:
                made.close()

        return whole()

    return started, closed


async def until(look):
    while not look():  # noqa: ASYNC110 - what changes are numbers, of threads
        await asyncio.sleep(0.01)


def run(scenario):
    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(scenario(), 60))


compress = partial(gzip.compress, mtime=0)  # the same bytes in every process
PARTS = [bytes([number]) * (1 << 20) for number in range(10)]


def test_a_slow_readers_answer_waits_in_a_file_and_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLOW", 0.01)
    wsgi, closed = app(lambda: iter(PARTS))
    shell = Shell(wsgi, 1, rules(tmp_path))

    async def scenario():
        line = Line()
        asked = asyncio.ensure_future(shell(scope(line), receiving(b""), line.send))
        await until(closed.is_set)  # all of it is made, though nothing was read
        assert not asked.done()
        await until(lambda: shell._kept == 9 << 20)  # it is counted after it was made
        line.reads.set()
        await asked
        assert line.body == b"".join(PARTS)
        assert shell._kept == 0

    run(scenario)


@pytest.mark.parametrize("room", [0, 3 << 20])
def test_where_there_is_little_room_the_rest_is_made_when_it_is_read(tmp_path, monkeypatch, room):
    monkeypatch.setattr(module, "_SLOW", 0.01)
    wsgi, closed = app(lambda: iter(PARTS))
    shell = Shell(wsgi, 1, rules(tmp_path, kept_bytes=room))

    async def scenario():
        line = Line()
        asked = asyncio.ensure_future(shell(scope(line), receiving(b""), line.send))
        await until(lambda: shell._kept >= room)
        assert not closed.is_set()
        line.reads.set()
        await asked
        assert line.body == b"".join(PARTS)
        assert closed.is_set()

    run(scenario)


def test_an_answer_that_nobody_wants_any_more_is_not_made(tmp_path):
    made = []

    def parts():
        for part in PARTS:
            made.append(part)
            yield part

    wsgi, closed = app(parts)
    shell = Shell(wsgi, 1, rules(tmp_path))

    async def scenario():
        line = Line()
        line.reads.set()
        line.closed = True
        await shell(scope(line), receiving(b""), line.send)

    run(scenario)
    assert closed.is_set()
    assert len(made) < 3


def test_deadlines_move_with_what_has_come_through(tmp_path):
    wsgi, _ = app(lambda: iter(PARTS))
    shell = Shell(wsgi, 1, rules(tmp_path, grace=10.0, rate=float(1 << 20)))

    async def scenario():
        line = Line()
        line.reads.set()
        await shell(scope(line), receiving(b""), line.send)
        moved = [after - before for before, after in zip(line.deadlines[1:], line.deadlines[2:-1], strict=False)]
        assert moved == pytest.approx([1.0] * len(moved))
        assert line.deadline is None

    run(scenario)


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_body_reaches_the_application_whole(tmp_path, size):
    seen = []

    def wsgi(environ, start):
        seen.append((environ["wsgi.input"].read(), environ["CONTENT_LENGTH"], module.BODY_FILE in environ))
        start("200 OK", [])
        return [b""]

    shell = Shell(wsgi, 1, rules(tmp_path))
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    chunks = [data[start : start + 65536] for start in range(0, size, 65536)]

    async def scenario():
        line = Line()
        line.reads.set()
        header = (b"transfer-encoding", b"chunked")
        await shell(scope(line, "POST", "/any", header), receiving(*chunks), line.send)

    run(scenario)
    assert seen == [(data, str(size), size > 128 << 10)]


def post_compressed(tmp_path, chunks, encoding=b"gzip", entitled=True, **limits):
    """What an application gets of a compressed body, and the messages of the response."""
    seen, line = [], Line()

    def wsgi(environ, start):
        body = environ["wsgi.input"].read()
        seen.append((body, environ["CONTENT_LENGTH"], "HTTP_CONTENT_ENCODING" in environ))
        start("200 OK", [])
        return [b""]

    shell = Shell(wsgi, 1, rules(tmp_path, entitled=lambda *_: entitled, **limits))
    headers = ((b"content-encoding", encoding), (b"content-length", str(sum(map(len, chunks))).encode()))

    async def scenario():
        line.reads.set()
        await shell(scope(line, "POST", "/any", *headers), receiving(*chunks), line.send)

    run(scenario)
    return seen, line.said


def parts_of(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [0, 10, 5_000_000])
@pytest.mark.parametrize("piece", [7, 65536])
def test_a_compressed_body_is_inflated(tmp_path, size, piece):
    data = b"yaptide!" * (size // 8)
    [(body, length, is_encoded)], _ = post_compressed(tmp_path, parts_of(compress(data), piece))
    assert (body, length, is_encoded) == (data, str(len(data)), False)


def test_what_a_compressed_body_inflates_to_is_limited(tmp_path):
    bomb = parts_of(compress(bytes(200 << 20)), 65536)
    [(body, length, _)], _ = post_compressed(tmp_path, bomb, most=4 << 20)
    assert 4 << 20 < len(body) == int(length) < 6 << 20


def test_a_stranger_may_send_little_however_small_it_is_compressed(tmp_path):
    bomb = parts_of(compress(bytes(200 << 20)), 65536)
    [(body, length, _)], _ = post_compressed(tmp_path, bomb, entitled=False)
    assert 1 << 20 < len(body) == int(length) < 3 << 20


@pytest.mark.parametrize(
    ("encoding", "data", "status", "message"),
    [
        (b"gzip", b"{}" * 20, 400, "not valid gzip"),
        (b"gzip", compress(b"{}")[:-1], 400, "incomplete"),
        (b"gzip", compress(bytes(3 << 20))[:-9], 400, "incomplete"),
        (b"gzip", compress(b"{}") + b"{}", 400, "continues"),
        (b"br", b"{}", 415, "only gzip"),
        (b"gzip, gzip", b"{}", 415, "only gzip"),
    ],
)
def test_a_body_that_cannot_be_inflated_is_refused(tmp_path, encoding, data, status, message):
    seen, [start, body] = post_compressed(tmp_path, [data], encoding)
    assert (seen, start["status"]) == ([], status)
    assert message in body["body"].decode()
    assert ((b"accept-encoding", b"gzip") in start["headers"]) == (status == 415)


def test_other_requests_go_on_while_a_bomb_inflates(tmp_path, monkeypatch):
    turns, turns_at_piece, add = 0, [], module._Body._add

    def note(body, piece):
        turns_at_piece.append(turns)
        add(body, piece)

    monkeypatch.setattr(module._Body, "_add", note)
    shell = Shell(app(lambda: iter([b""]))[0], 1, rules(tmp_path))

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario():
        line, bomb = Line(), compress(bytes(40 << 20))
        line.reads.set()
        others = asyncio.create_task(other())
        await shell(
            scope(line, "POST", "/any", (b"content-encoding", b"gzip"), (b"transfer-encoding", b"chunked")),
            receiving(bomb),
            line.send,
        )
        others.cancel()

    run(scenario)
    assert len(set(turns_at_piece)) == len(turns_at_piece) >= 40


def test_that_all_threads_stay_busy_is_told_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_WATCH_EVERY", 0.01)
    go_on = threading.Event()

    def wsgi(_environ, start):
        start("200 OK", [])
        go_on.wait(60)
        return [b""]

    shell = Shell(wsgi, 2, rules(tmp_path, stuck=0.05))
    looks, look = [], shell._pool.busy_since
    monkeypatch.setattr(shell._pool, "busy_since", lambda: looks.append(None) or look())

    async def scenario():
        line = Line()
        line.reads.set()
        asked = [asyncio.ensure_future(shell(scope(line), receiving(b""), line.send)) for _ in range(2)]
        await until(lambda: shell.is_stuck)
        seen = len(looks)
        await until(lambda: len(looks) > seen + 2)
        go_on.set()
        await asyncio.gather(*asked)
        await until(lambda: not shell.is_stuck)

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["all 2 threads have been busy for more than 0.05 s"]


def test_calls_wait_for_a_thread_and_go_to_the_one_that_was_busy_last():
    pool = module._Pool("test", 4)

    async def scenario():
        assert len({await pool.call(threading.get_ident) for _ in range(20)}) == 1
        together = await asyncio.gather(*(pool.call(lambda: time.sleep(0.01)) for _ in range(40)))
        assert together == [None] * 40
        with pytest.raises(ZeroDivisionError):
            await pool.call(lambda: 1 / 0)
        assert pool.busy() == 0

    run(scenario)


def test_two_threads_make_all_calls_as_long_as_those_are_short(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 60)
    pool = module._Pool("test", 8)
    threads = set()

    async def scenario():
        await asyncio.gather(*(pool.call(lambda: threads.add(threading.get_ident())) for _ in range(100)))

    run(scenario)
    assert len(threads) <= 2


def test_long_calls_have_other_threads_go_on(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.001)
    pool = module._Pool("test", 8)
    all_at_once = threading.Barrier(8, timeout=30)

    async def scenario():
        await asyncio.gather(*(pool.call(all_at_once.wait) for _ in range(8)))
        assert pool.busy_since() is None

    run(scenario)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    wsgi, _ = app(lambda: iter([b"x"]))
    shell = Shell(wsgi, 1, rules(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    async def scenario():
        line = Line()
        line.reads.set()
        length = (b"content-length", b"200000")
        await shell(scope(line, "POST", "/long", length), receiving(b"x" * 100_000, b"x" * 100_000), line.send)
        assert line.said[0]["status"] == 507
        assert b"disk is full" in line.body

    run(scenario)
