"""The limit of rows that are requests: the same server with a minimal application that checks nothing.

It has no sessions, users or rules. It reads only what its statement needs from a request, runs the best possible
statement with the database driver, and sends the bytes. `python -m benchmarks.bare yaptide up --port 5001` starts it
like `yaptide up`: only the application differs.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson
from isal import isal_zlib

from benchmarks.drivers import connect
from yaptide import application
from yaptide.admin import cli, serving
from yaptide.api import http
from yaptide.services import lifecycle

Answer = tuple[int, Sequence[bytes]]
Query = dict[str, str]

#: Primaries and time of a report: only for a running task, with the right key, and never backwards.
_REPORTED = """simulated_primaries = CASE WHEN {done} <= simulated_primaries THEN simulated_primaries
        WHEN {done} > requested_primaries THEN requested_primaries ELSE {done} END,
    estimated_time = {seconds}, last_update_time = ?, heartbeat_time = ?"""
_GUARD = """task_state = 'RUNNING' AND EXISTS (SELECT 1 FROM "Simulation" WHERE id = ? AND update_key_hash = ?
    AND job_state NOT IN ('COMPLETED', 'FAILED', 'CANCELED'))"""
_REPORT = f"""UPDATE "Task" SET {_REPORTED.format(done="?", seconds="?")}
    WHERE simulation_id = ? AND task_id = ? AND {_GUARD}"""
_UPDATES = {
    True: """SELECT json_extract(value, '$.task_id') AS task,
        json_extract(value, '$.update_dict.estimated_time') AS seconds,
        json_extract(value, '$.update_dict.simulated_primaries') AS done FROM json_each(?, '$.updates') LIMIT -1""",
    False: """SELECT (value->>'task_id')::int AS task, (value->'update_dict'->>'estimated_time')::int AS seconds,
        (value->'update_dict'->>'simulated_primaries')::bigint AS done FROM json_array_elements(?::json->'updates')""",
}
_REPORTS = """UPDATE "Task" SET {reported} FROM ({updates}) AS updates
    WHERE simulation_id = ? AND task_id = updates.task AND {guard}"""
_LISTING = """SELECT job_id, title, start_time, end_time, platform, input_type, sim_type FROM "Simulation"
    WHERE user_id = ? ORDER BY start_time DESC, id DESC LIMIT 10"""
_STATUS = """SELECT task_id, task_state, requested_primaries, simulated_primaries, start_time, end_time,
    last_update_time, estimated_time FROM "Task" WHERE simulation_id = ? ORDER BY task_id"""
_PAYLOADS = """SELECT p.compressed_data FROM "Page" p JOIN "Estimator" e ON p.estimator_id = e.id
    WHERE e.simulation_id = ?"""
_ADD_SIMULATION = """INSERT INTO "Simulation" (job_id, user_id, start_time, title, platform, input_type, sim_type,
    job_state, update_key_hash) VALUES (?, ?, ?, 'bench', 'DIRECT', 'FILES', 'shieldhit', 'PENDING', ?) RETURNING id"""
_ADD_INPUT = """INSERT INTO "Input" (simulation_id, compressed_data, content_size, content_sha256)
    VALUES (?, ?, ?, '')"""
_NUMBERS = {
    True: """(WITH RECURSIVE every (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM every WHERE n < ? - 1)
        SELECT n FROM every)""",
    False: "(SELECT generate_series(0, ? - 1) AS n)",
}
_ADD_TASKS = """INSERT INTO "Task" (simulation_id, task_id, requested_primaries, task_state, platform, seed)
    SELECT ?, n, 1000, 'PENDING', 'DIRECT', n FROM {numbers} AS numbers"""
_ADD_ESTIMATOR = """INSERT INTO "Estimator" (simulation_id, name, file_name, compressed_data, content_size,
    content_sha256) VALUES (?, ?, ?, ?, 2, '') RETURNING id"""
_ADD_PAGE = """INSERT INTO "Page" (estimator_id, page_number, page_name, page_dimension, compressed_data, content_size,
    content_sha256) VALUES (?, ?, 'dose', 1, ?, 0, '')"""
_EMPTY = isal_zlib.compress(b"{}", 2, 31)


class _Estimator(msgspec.Struct):
    name: str
    pages: list[msgspec.Raw]


class _Results(msgspec.Struct):
    simulation_id: int
    estimators: list[_Estimator]


class Bare:
    """A WSGI application for the database at `url`; each thread has its own connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_sqlite = url.startswith("sqlite")
        self._local = threading.local()
        self._routes: dict[tuple[str, str], Callable[[bytes, Query], Answer]] = {
            ("GET", "/"): lambda _body, _query: (200, [b"{}"]),
            ("POST", "/tasks"): self._report,
            ("POST", "/tasks/list"): self._report_many,
            ("GET", "/user/simulations"): self._list,
            ("GET", "/jobs"): self._status,
            ("POST", "/jobs/direct"): self._submit,
            ("DELETE", "/user/simulations"): self._delete,
            ("GET", "/results"): self._read,
            ("POST", "/bare/results"): self._store,
            ("PUT", "/bare/results"): self._store_packed,
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Sequence[bytes]:
        """Respond to a request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        status, parts = self._routes[environ["REQUEST_METHOD"], environ["PATH_INFO"]](body, query)
        length = str(sum(map(len, parts)))
        start_response(f"{status} OK", [("Content-Type", "application/json"), ("Content-Length", length)])
        return parts

    def close(self) -> None:
        """Close the connections of this thread."""
        for connection in vars(self._local).values():
            connection.close()

    def sql(self, statement: str) -> str:
        """Return a statement with the placeholders of the driver."""
        return statement if self.is_sqlite else statement.replace("?", "%s")

    @property
    def _connection(self) -> Any:
        """Return a connection as durable as yaptide's."""
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self._url)
        return self._local.connection

    @property
    def _relaxed(self) -> Any:
        """Return a connection in autocommit mode that does not wait for the disk, as yaptide's for progress reports."""
        if not hasattr(self._local, "relaxed"):
            self._local.relaxed = connect(self._url, waits=False)
        return self._local.relaxed

    def _now(self) -> Any:
        now = datetime.now(UTC)
        return str(now.replace(tzinfo=None)) if self.is_sqlite else now

    def _report(self, body: bytes, _query: Query) -> Answer:
        report = orjson.loads(body)
        update, number, now = report["update_dict"], report["simulation_id"], self._now()
        done = update["simulated_primaries"]
        key = lifecycle.hash_update_key(report["update_key"])
        values = (done, done, done, update["estimated_time"], now, now, number, report["task_id"], number, key)
        self._relaxed.execute(self.sql(_REPORT), values)
        return 202, [b"{}"]

    def _report_many(self, body: bytes, _query: Query) -> Answer:
        report, now = orjson.loads(body), self._now()
        number, key = report["simulation_id"], lifecycle.hash_update_key(report["update_key"])
        reported = _REPORTED.format(done="updates.done", seconds="updates.seconds")
        statement = _REPORTS.format(reported=reported, updates=_UPDATES[self.is_sqlite], guard=_GUARD)
        self._connection.execute(self.sql(statement), (now, now, body.decode(), number, number, key))
        self._connection.commit()
        return 202, [b"{}"]

    def _list(self, _body: bytes, query: Query) -> Answer:
        return 200, [self._rows(_LISTING, query["user"])]

    def _status(self, _body: bytes, query: Query) -> Answer:
        return 200, [self._rows(_STATUS, query["simulation"])]

    def _rows(self, statement: str, number: str) -> bytes:
        cursor = self._connection.execute(self.sql(statement), (int(number),))
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        self._connection.rollback()
        return orjson.dumps(rows)

    def _submit(self, body: bytes, query: Query) -> Answer:
        submission, now = orjson.loads(body), self._now()
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(self.sql(_ADD_SIMULATION), (f"bare-{now}", int(query["user"]), now, "0" * 64))
            (number,) = cursor.fetchone()
            cursor.execute(self.sql(_ADD_INPUT), (number, isal_zlib.compress(body, 2, 31), len(body)))
            statement = _ADD_TASKS.format(numbers=_NUMBERS[self.is_sqlite])
            cursor.execute(self.sql(statement), (number, submission["ntasks"]))
        self._connection.commit()
        return 202, [b"{}"]

    def _delete(self, _body: bytes, query: Query) -> Answer:
        self._connection.execute(self.sql('DELETE FROM "Simulation" WHERE id = ?'), (int(query["simulation"]),))
        self._connection.commit()
        return 200, [b"{}"]

    def _read(self, _body: bytes, query: Query) -> Answer:
        more = "" if query["what"] == "all" else " AND e.name = 'e0'"
        more += " AND p.page_number = 0" if query["what"] == "one page" else ""
        cursor = self._connection.cursor() if self.is_sqlite else self._connection.cursor(binary=True)
        data = [row[0] for row in cursor.execute(self.sql(_PAYLOADS + more), (int(query["simulation"]),))]
        self._connection.rollback()
        return 200, data if "packed" in query else [isal_zlib.decompress(payload, 31) for payload in data]

    def _store(self, body: bytes, _query: Query) -> Answer:
        results = msgspec.json.decode(body, type=_Results)
        for estimator in results.estimators:
            packed = (isal_zlib.compress(page, 2, 31) for page in estimator.pages)
            self._insert(results.simulation_id, estimator.name, list(packed))
        self._connection.commit()
        return 202, [b"{}"]

    def _store_packed(self, body: bytes, query: Query) -> Answer:
        """Store payloads that follow each other in the body; the payloads of each estimator have the same `lengths`."""
        lengths, start = [int(length) for length in query["lengths"].split(",")], 0
        for place in range(int(query["estimators"])):
            packed = []
            for length in lengths:
                packed.append(body[start : start + length])
                start += length
            self._insert(int(query["simulation"]), f"e{place}", packed)
        self._connection.commit()
        return 200, [b"{}"]

    def _insert(self, simulation: int, name: str, packed: Sequence[bytes]) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(self.sql(_ADD_ESTIMATOR), (simulation, name, name, _EMPTY))
            (number,) = cursor.fetchone()
            cursor.executemany(self.sql(_ADD_PAGE), [(number, place, data) for place, data in enumerate(packed)])


def main() -> None:
    """Run the command line of yaptide with this application instead of its own."""
    create_own_app = application.create_app

    def create_app(settings: Any = None, backend: Any = None) -> Any:
        app = create_own_app(settings, backend)
        app.wsgi_app = Bare(app.extensions["sqlalchemy"].address)
        return app

    for module in (application, serving):  # revisions differ in which of them creates the application
        if hasattr(module, "create_app"):
            module.create_app = create_app
    http.may_send_large = lambda *_: True  # otherwise a body without a key ends at 1 MiB
    sys.argv = sys.argv[1:]
    cli.main()


if __name__ == "__main__":
    main()
