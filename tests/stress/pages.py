"""200 open pages of the browser: how long the server takes to answer their polls while a worker reports progress.

Half of them show the list and half a simulation. Each polls every 3 s, as htmx does, on a connection of its own.
"""

import asyncio
import json
import random
import re
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import httpx

from tests.support import payloads
from tests.support.processes import PASSWORD, USER, Server, place

PAGES, SECONDS, PAUSE = 200, 60.0, 3.0
SIMULATIONS, TASKS = 10, 8
#: Seconds within which 95 % of all polls are to be answered.
MOST = 0.1

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_DIGEST = re.compile(rb'"Seen": "([0-9a-f]{16})"')


async def fetch(server: httpx.URL, connection: Any, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a request on an open connection; return the status and the body."""
    reader, writer = connection
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n{lines}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return int(head[9:12]), await reader.readexactly(int(length[1])) if length else b""


async def keep_open(server: httpx.URL, cookies: str, path: str, times: list[float], statuses: Counter[int]) -> None:
    """Poll one page until the time is over."""
    end, digest = monotonic() + SECONDS, None
    connection = await asyncio.open_connection(server.host, server.port)
    await asyncio.sleep(random.uniform(0, PAUSE))
    while monotonic() < end:
        headers = {"Cookie": cookies, "HX-Request": "true", "Accept": "text/html"}
        headers |= {"Seen": digest.decode()} if digest else {}
        begun = perf_counter()
        status, body = await fetch(server, connection, path, headers)
        times.append(perf_counter() - begun)
        statuses[status] += 1
        digest = match[1] if (match := _DIGEST.search(body)) else digest
        await asyncio.sleep(PAUSE)
    connection[1].close()


def submit_running(client: httpx.Client) -> list[tuple[str, dict[str, Any]]]:
    """Submit simulations and report them as running; return the job id and the key of each."""
    jobs = []
    for number in range(SIMULATIONS):
        files = {"input_type": "files", "input_files": payloads.shieldhit_files()}
        submission = {"sim_type": "shieldhit", "ntasks": TASKS, "title": f"simulation {number}", **files}
        job_id = client.post("/jobs/direct", json=submission).raise_for_status().json()["job_id"]
        answer = client.get("/jobs/key", params={"job_id": job_id}).raise_for_status().json()
        key = {name: answer[name] for name in ("simulation_id", "update_key")}
        report = {"sim_id": key["simulation_id"], "update_key": key["update_key"], "job_state": "RUNNING"}
        client.post("/jobs", json=report).raise_for_status()
        jobs.append((job_id, key))
    return jobs


def report_progress(server: Server, keys: list[dict[str, Any]], stop: threading.Event) -> None:
    """Report progress of all tasks once a second."""
    primaries = 0
    with httpx.Client(base_url=server.url) as client:
        while not stop.wait(1):
            primaries += 1
            update = {"task_state": "RUNNING", "simulated_primaries": primaries}
            updates = [{"task_id": task, "update_dict": update} for task in range(TASKS)]
            for key in keys:
                client.post("/tasks/list", json={**key, "updates": updates}).raise_for_status()


async def open_pages(server: httpx.URL, cookies: str, job_ids: list[str]) -> tuple[list[float], Counter[int]]:
    """Keep all pages open; return the time of each poll in seconds, and the number of answers by status."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    paths = ["/simulations" if n % 2 else f"/simulations/{job_ids[n % SIMULATIONS]}" for n in range(PAGES)]
    await asyncio.gather(*(keep_open(server, cookies, path, times, statuses) for path in paths))
    return sorted(times), statuses


def main() -> int:
    """Measure and print; 1 if it took too long."""
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        place(Path(folder) / "place", YAPTIDE_FOREIGN_WORKERS="shieldhit") as there,
    ):
        server = there.up("--no-executor").register()
        with httpx.Client(base_url=server.url) as client:
            client.post("/auth/login", json={"username": USER, "password": PASSWORD}).raise_for_status()
            jobs = submit_running(client)
            cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        reporter = threading.Thread(target=report_progress, args=(server, [key for _, key in jobs], stop))
        reporter.start()
        try:
            times, statuses = asyncio.run(open_pages(httpx.URL(server.url), cookies, [job_id for job_id, _ in jobs]))
        finally:
            stop.set()
            reporter.join()
    shares = {f"p{share}": round(times[len(times) * share // 100] * 1000, 1) for share in (50, 95, 99)}
    document = {"pages": PAGES, "polls": len(times), "statuses": statuses, "milliseconds": shares}
    sys.stdout.write(f"{json.dumps(document)}\n")
    return int(shares["p95"] > MOST * 1000 or set(statuses) - {200, 204} != set())


if __name__ == "__main__":
    raise SystemExit(main())
