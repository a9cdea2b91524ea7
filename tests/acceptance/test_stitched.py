"""A stitched answer of a real server, as the programs that people use read it."""

import gzip
import json
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import requests

from tests.support import payloads
from tests.support.browser import text_of
from tests.support.processes import Place, Server
from tests.support.storing import FOREIGN
from yaptide.persistence.engine import Database
from yaptide.services import simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission
from yaptide.services.spool import Folder

VALUES = [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, *(n / 7 for n in range(5000))]
_NODE = """
fetch(process.argv[1], {headers: {authorization: process.argv[2]}}).then(answer => answer.json())
    .then(document => console.log(JSON.stringify(document)));
"""
_PAGE = """<!doctype html><title>results</title><body><script>
fetch(%s, {headers: {authorization: %s}}).then(answer => answer.json())
    .then(found => { document.body.textContent = JSON.stringify(found); });
</script></body>"""


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of results with many pages, and what proves that one may read them."""
    place = Place(tmp_path_factory.mktemp("stitched") / "place")
    try:
        server: Server = place.up("--no-executor").register()
        backend = Backend(Database(place.url), Folder(place.folder / "spool"), b"k" * 32, foreign_workers=FOREIGN)
        user = users.ensure_user(backend, "alice")
        submitted = simulations.submit_simulation(
            backend, user, Submission("shieldhit", 1, "x", None, payloads.project("dose"))
        )
        backend.database.close()
        pages = [payloads.page(number, f"Q{number}", tuple(VALUES)) for number in range(12)]
        body = {"simulation_id": submitted.simulation_id, "update_key": submitted.update_key}
        body["estimators"] = [payloads.estimator("dose_", *pages)]
        assert httpx.post(f"{server.url}/results", content=orjson.dumps(body)).status_code == 202
        with server.client() as client:
            (token,) = (value for name, value in client._http.cookies.items() if name.startswith("access_token_"))
        yield f"{server.url}/results?job_id={submitted.job_id}", f"Bearer {token}"
    finally:
        place.close()


def by_curl(url: str, token: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--fail", "--compressed", "-H", "@-", url]
    done = subprocess.run(command, input=f"Authorization: {token}".encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_httpx(url: str, token: str) -> bytes:
    return httpx.get(url, headers={"Authorization": token}).raise_for_status().content


def by_urllib(url: str, token: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": token, "Accept-Encoding": "gzip"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
        assert answer.headers["Content-Encoding"] == "gzip"
        return gzip.decompress(answer.read())


def by_requests(url: str, token: str) -> bytes:
    answer = requests.get(url, headers={"Authorization": token}, timeout=60)
    assert (answer.status_code, answer.headers["Content-Encoding"]) == (200, "gzip")
    return answer.content


def by_node(url: str, token: str) -> bytes:
    done = subprocess.run(["node", "-e", _NODE, url, token], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_chromium(url: str, token: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(_PAGE % (json.dumps(url), json.dumps(token)))
        # The page comes from a file, and so from another origin.
        return text_of(page.as_uri(), "--disable-web-security").encode()


@pytest.mark.parametrize("read", [by_curl, by_httpx, by_urllib, by_requests, by_node, by_chromium])
def test_it_is_read_whole(answered: tuple[str, str], read: Callable[[str, str], bytes]) -> None:
    [result] = orjson.loads(read(*answered))["estimators"]
    assert len(result["pages"]) == 12
    for page in result["pages"]:
        assert list(map(payloads.bits, map(float, page["data"]["values"]))) == expected(read)


def expected(read: Any) -> list[bytes]:
    """JavaScript writes -0 as 0."""
    values = [0.0 if value == 0 else value for value in VALUES] if read in (by_node, by_chromium) else VALUES
    return list(map(payloads.bits, values))
