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
const [here, there, elsewhere, credentials] = %s;
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
_A_FRAME = """
    const found = {logged_in: (await call(here + "/auth/login", "POST", credentials))[0]};
    const frame = document.createElement("iframe");
    const end = new Promise(resolve => addEventListener("message", event => resolve(event.data), {once: true}));
    frame.src = elsewhere;
    document.body.append(frame);
    found.frame = await end;
    found.after = await call(here + "/auth/status");
    return found;
"""
#: What any page may send without asking: JSON that is said to be text.
_ELSEWHERE = """<!doctype html><title>a page from elsewhere</title><body><script>
const send = (path, body) => fetch(%s + path, {method: "POST", mode: "no-cors", credentials: "include",
                                               body: JSON.stringify(body)});
const [mallory, change] = %s;
(async () => {
    await send("/auth/login", mallory);
    await send("/user/update", change);
    parent.postMessage("sent", "*");
})();
</script></body>"""


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


@pytest.fixture
def elsewhere(servers: list[Server]) -> Iterator[Service]:
    """Serves a page on the same host that tries to sign its reader in as mallory, and to change a password."""
    with servers[0].client() as client:
        client.register("mallory", PASSWORD)
    bodies = [{"username": "mallory", "password": PASSWORD}, {"password": PASSWORD, "new_password": "another password"}]
    with serve() as service:
        service.answer = lambda: (200, (_ELSEWHERE % (json.dumps(servers[0].url), json.dumps(bodies))).encode())
        yield service


def show(front_end: Service, servers: list[Server], script: str, elsewhere: str = "") -> dict:
    """What a script finds out in the page of the front end."""
    known = [*(server.url for server in servers), elsewhere, {"username": USER, "password": PASSWORD}]
    page = _PAGE % (json.dumps(known), script)
    front_end.answer = lambda: (200, page.encode())
    return json.loads(text_of(front_end.url))


def test_two_servers_on_one_host_leave_each_others_users_signed_in(front_end: Service, servers: list[Server]) -> None:
    result = show(front_end, servers, _TWO_SERVERS)
    signed_in = [200, USER]
    assert result == {
        "logged_in": [[202, "Successfully logged in"]] * 2,
        "both": [signed_in] * 2,
        "refreshed": [[200, "User refreshed"]] * 2,
        "still": [signed_in] * 2,
        "logged_out": [200, "User logged out"],
        "last": [signed_in, [401, "No token provided"]],
    }


def test_a_page_from_elsewhere_changes_nothing(front_end: Service, servers: list[Server], elsewhere: Service) -> None:
    result = show(front_end, servers, _A_FRAME, elsewhere.url)
    assert result == {"logged_in": 202, "frame": "sent", "after": [200, USER]}
    with servers[0].client() as client:
        client.sign_in("mallory", PASSWORD)
        client.sign_in(USER, PASSWORD)
