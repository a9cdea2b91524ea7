"""The web front end's way of using the API, in a real browser: cookies, other servers on the host, other origins."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.browser import text_of
from tests.support.http import Service, serve
from tests.support.processes import PASSWORD, USER, Place, Server

_PAGE = """<!doctype html><title>a front end</title><body><script>
const call = async (url, method = "GET", body = undefined) => {
    const headers = body ? {"content-type": "application/json"} : {};
    const answer = await fetch(url, {method, headers, credentials: "include", body: JSON.stringify(body)});
    const document = await answer.json();
    return [answer.status, document.username || document.message];
};
const [here, there, credentials] = %s;
(async () => { %s })().then(found => { document.body.textContent = JSON.stringify(found); });
</script></body>"""
_TWO_SERVERS = """
    const found = {logged_in: [await call(here + "/auth/login", "POST", credentials),
                               await call(there + "/auth/login", "POST", credentials)]};
    const status = async () => [await call(here + "/auth/status"), await call(there + "/auth/status")];
    found.both = await status();
    found.refreshed = [await call(here + "/auth/refresh"), await call(there + "/auth/refresh")];
    found.still = await status();
    found.logged_out = await call(there + "/auth/logout", "DELETE");
    found.last = await status();
    return found;
"""


@pytest.fixture
def front_end() -> Iterator[Service]:
    """Serves the page of a front end."""
    with serve() as service:
        yield service


@pytest.fixture
def servers(tmp_path, front_end: Service) -> Iterator[list[Server]]:
    """Two installations on one host, both of which know the front end and a user of the same name."""
    with ExitStack() as stack:
        places = [Place(tmp_path / name, {"YAPTIDE_CORS_ORIGINS": front_end.url}) for name in ("here", "there")]
        for place in places:
            stack.callback(place.close)
        yield [place.up("--no-executor").register() for place in places]


def show(front_end: Service, servers: list[Server], script: str) -> dict:
    """What a script finds out in the page of the front end."""
    known = [*(server.url for server in servers), {"username": USER, "password": PASSWORD}]
    page = _PAGE % (json.dumps(known), script)
    front_end.answer = lambda: (200, page.encode())
    return json.loads(text_of(front_end.url))


def test_two_servers_on_one_host_leave_each_others_users_signed_in(front_end: Service, servers: list[Server]) -> None:
    found = show(front_end, servers, _TWO_SERVERS)
    signed_in = [200, USER]
    assert found == {
        "logged_in": [[202, "Successfully logged in"]] * 2,
        "both": [signed_in] * 2,
        "refreshed": [[200, "User refreshed"]] * 2,
        "still": [signed_in] * 2,
        "logged_out": [200, "User logged out"],
        "last": [signed_in, [401, "No token provided"]],
    }
