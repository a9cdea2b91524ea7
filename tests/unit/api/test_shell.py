"""The shell around the WSGI application, spoken to as a server speaks to it."""

import asyncio
import errno
import threading
from dataclasses import replace

import pytest

from yaptide.api import shell
from yaptide.api.shell import Rules, Shell

DEADLINE = 30.0


class Client:
    """One request, whose body comes in these pieces, and what is answered to it; after the last piece it is silent."""

    def __init__(self, *pieces: bytes, path="/", length=None, whole=True):
        self.pieces, self.whole = list(pieces), whole
        length = sum(map(len, pieces)) if length is None else length
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"a=1",
            "http_version": "1.1",
            "scheme": "http",
            "headers": [(b"content-length", str(length).encode()), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
            "server": ("127.0.0.1", 5000),
            "client": ("127.0.0.2", 1234),
        }
        self.status, self.body, self.ended = 0, b"", False
        self.silent = asyncio.Event()

    async def receive(self):
        if not self.pieces:
            self.silent.set()
            await asyncio.sleep(DEADLINE)
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or not self.whole}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)


@pytest.fixture
def rules(tmp_path):
    return Rules(folder=tmp_path, entitled=lambda *_: True)


def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    said = [environ[name] for name in ("PATH_INFO", "QUERY_STRING", "HTTP_COOKIE", "CONTENT_LENGTH", "REMOTE_ADDR")]
    return [" ".join(said).encode(), b"|", environ["wsgi.input"].read()]


def ask(app, client, rules, threads=1):
    served = Shell(app, threads, rules)
    asyncio.run(served(client.scope, client.receive, client.send))
    return client


@pytest.mark.parametrize("size", [0, 1, shell._IN_MEMORY, shell._IN_MEMORY + 1, 3 << 20])
def test_a_body_and_its_answer_come_through(rules, size):
    pieces = [b"x" * min(65536, size - start) for start in range(0, size, 65536)]
    client = ask(echo, Client(*pieces, path="/a%20b"), rules)
    assert (client.status, client.ended) == (200, True)
    assert client.body == f"/a b a=1 a=1; b=2 {size} 127.0.0.2|".encode() + b"x" * size
    assert list(rules.folder.iterdir()) == []


def test_a_body_that_comes_too_slowly_is_refused_without_a_thread(rules):
    client = ask(pytest.fail, Client(b"{", length=1000, whole=False), replace(rules, grace=0.05))
    assert client.status == 408
    assert b"too slowly" in client.body


def test_who_is_not_entitled_is_answered_before_the_rest_comes(rules):
    seen = []

    def refuse(environ, start_response):
        seen.append(len(environ["wsgi.input"].read()))
        return echo(environ, start_response)

    ask(refuse, Client(b"x", length=5 << 20, whole=False), replace(rules, entitled=lambda *_: False))
    assert seen == [0]


def test_too_many_bodies_of_nobody_are_told_to_come_again(rules):
    unproven = replace(rules, entitled=lambda *_: None, small=10, unproven=1, unproven_bytes=100)
    assert ask(echo, Client(b"x" * 90), unproven).status == 200
    assert ask(echo, Client(b"x" * 101), unproven).status == 503

    async def two():
        served = Shell(echo, 1, replace(unproven, grace=0.5))
        slow, quick = Client(b"x" * 11, length=20, whole=False), Client(b"x" * 20)
        waiting = asyncio.create_task(served(slow.scope, slow.receive, slow.send))
        await slow.silent.wait()
        await served(quick.scope, quick.receive, quick.send)
        await waiting
        again = Client(b"x" * 20)
        await served(again.scope, again.receive, again.send)
        return slow.status, quick.status, again.status

    assert asyncio.run(two()) == (408, 503, 200)


def test_a_full_disk_is_told(rules, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shell.tempfile.SpooledTemporaryFile, "write", full)
    client = ask(pytest.fail, Client(b"x"), rules)
    assert client.status == 507
    assert b"no room left" in client.body


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(rules):
    closed = []

    class Parts:
        def __iter__(self):
            yield b"x" * 100_000
            raise ValueError("gone")

        def close(self):
            closed.append(True)

    def broken(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    client = Client()
    with pytest.raises(ValueError, match="gone"):
        ask(broken, client, rules)
    assert (client.ended, closed) == (False, [True])


def test_threads_that_stay_busy_are_told_once_and_health_is_answered(rules, monkeypatch):
    monkeypatch.setattr(shell, "_WATCH_EVERY", 0.001)
    go_on, told, messages = threading.Event(), asyncio.Event(), []

    def warn(message, *arguments):
        messages.append(message % arguments)
        told.set()

    monkeypatch.setattr(shell.log, "warning", warn)

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/healthz":
            assert go_on.wait(DEADLINE)
        return echo(environ, start_response)

    async def stuck():
        served = Shell(app, 1, replace(rules, stuck=0.01))
        busy, health = Client(), Client(path="/healthz")
        waiting = asyncio.create_task(served(busy.scope, busy.receive, busy.send))
        async with asyncio.timeout(DEADLINE):
            await told.wait()
            await served(health.scope, health.receive, health.send)
        go_on.set()
        await waiting
        return busy.status, health.status

    assert asyncio.run(stuck()) == (200, 200)
    assert messages == ["all 1 threads have been busy for more than 0.01 s"]
