"""Password guessing by strangers does not lock out users on a device or network where they signed in before."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from tests.support.api import PASSWORD, cookie_name
from yaptide.application import create_app
from yaptide.persistence.models import YaptideUserModel
from yaptide.services import devices, sessions, users
from yaptide.services.backend import Backend, utc_now
from yaptide.services.devices import NETWORKS, USERS, Origin
from yaptide.services.throttle import STRICT, Throttle
from yaptide.settings import Settings

one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)
HOME, HOTEL, OFFICE = "192.0.2.1", "198.51.100.7", "2001:db8::1"


@dataclass
class Server:
    """A server behind a proxy, with a clock of its own."""

    backend: Backend
    time: float = 0.0
    strangers: int = 0
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what was in memory."""
        backend = replace(self.backend, throttle=Throttle(clock=lambda: self.time))
        self.client = create_app(Settings(_env_file=None, proxies=1), backend).test_client(use_cookies=False)

    def log_in(self, address: str, cookie: str = "", username: str = "alice", password: str = PASSWORD) -> Any:
        headers = {"X-Forwarded-For": address} | (
            {"Cookie": f"{cookie_name(self.client.application, 'known_device')}={cookie}"} if cookie else {}
        )
        return self.client.post("/auth/login", json={"username": username, "password": password}, headers=headers)

    def attack(self, count: int, address: str | None = None, **options: Any) -> None:
        """So many wrong passwords, each from somewhere else if no address is given."""
        for _ in range(count):
            self.strangers += 1
            from_where = address or f"203.{self.strangers >> 16}.{self.strangers >> 8 & 255}.{self.strangers & 255}"
            assert self.log_in(from_where, password="wrong", **options).status_code in (401, 429)

    def is_let_in(self, address: str, cookie: str = "", **options: Any) -> bool:
        return self.log_in(address, cookie, **options).status_code == 202


@pytest.fixture
def server(backend: Backend) -> Server:
    """A server with the users alice and bob."""
    for name in ("alice", "bob"):
        users.register_user(backend, name, PASSWORD)
    return Server(backend)


def device_of(response: Any) -> str:
    """The value of the cookie `known_device` that a response sets."""
    (cookie,) = [text for text in response.headers.getlist("Set-Cookie") if text.startswith("known_device_")]
    return cookie.partition("=")[2].partition(";")[0]


@one_database
def test_the_owner_signs_in_while_strangers_guess(server: Server) -> None:
    """46 wrong passwords from everywhere, then four a minute for an hour."""
    device = device_of(server.log_in(HOME))
    server.attack(46)
    let_in = {"device": 0, "network": 0, "elsewhere": 0}
    for _ in range(57):
        for _ in range(4):
            server.time += 15
            server.attack(1)
        let_in["device"] += server.is_let_in(HOTEL, device, password=PASSWORD)
        let_in["network"] += server.is_let_in(HOME)
        let_in["elsewhere"] += server.is_let_in(OFFICE)
    assert (let_in["device"], let_in["network"]) == (57, 57)
    assert let_in["elsewhere"] < 57, "the attack has to be one"


def test_a_restart_forgets_nobody(server: Server) -> None:
    cookies = [device_of(server.log_in(address)) for address in (HOME, OFFICE)]
    server.start()
    server.attack(60)
    assert not server.is_let_in(HOTEL)
    assert all(server.is_let_in(HOTEL, cookie) for cookie in cookies)
    assert server.is_let_in(HOME)
    assert server.is_let_in("2001:db8::2")  # another address of the same network


@one_database
def test_strangers_at_an_address_of_the_owner_slow_down_neither_the_device_nor_other_networks(server: Server) -> None:
    device = device_of(server.log_in(HOME))
    assert server.is_let_in(OFFICE)
    server.attack(60, HOME)
    assert not server.is_let_in(HOME)
    assert server.is_let_in(HOME, device)
    assert server.is_let_in(OFFICE)
    assert server.is_let_in(HOME, username="bob")


@one_database
def test_who_guesses_on_a_known_device_waits_as_well(server: Server) -> None:
    device = device_of(server.log_in(HOME))
    server.attack(STRICT, HOTEL, cookie=device)
    refused = server.log_in(HOTEL, device)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert server.is_let_in(HOME)
    server.time += 1
    assert server.is_let_in(HOTEL, device)


@one_database
def test_a_device_on_which_several_users_sign_in_is_known_of_each_of_the_last(server: Server) -> None:
    device = device_of(server.log_in(HOME))
    device = device_of(server.log_in(HOTEL, device, username="bob"))
    server.attack(60)
    server.attack(60, username="bob")
    assert server.is_let_in(OFFICE, device)
    assert server.is_let_in(OFFICE, device, username="bob")
    for number in range(USERS):
        users.register_user(server.backend, f"user{number}", PASSWORD)
        device = device_of(server.log_in(f"198.51.100.{number}", device, username=f"user{number}"))
    assert not server.is_let_in("198.51.100.99", device)


@one_database
def test_a_cookie_proves_nothing_about_others(server: Server) -> None:
    signed_in = server.log_in(HOME, username="bob")
    key = server.backend.signing_key
    own = jwt.decode(device_of(signed_in), key, algorithms=["HS256"])
    server.attack(60)
    for claims, signed_with in (
        (own, key),
        (own | {"use": "access"}, key),
        (own | {"exp": utc_now() - timedelta(seconds=1)}, key),
        ({"use": "device"}, key),
        (own | {"users": [devices._digest(server.backend, users.find_user(server.backend, "alice"), "")]}, b"k" * 32),
    ):
        assert not server.is_let_in(HOTEL, jwt.encode(claims, signed_with, algorithm="HS256"))
    access = next(text for text in signed_in.headers.getlist("Set-Cookie") if text.startswith("access_token_"))
    for worthless in (access.partition("=")[2].partition(";")[0], "x", "a.b.c"):
        assert not server.is_let_in(HOTEL, worthless)


@one_database
def test_a_known_device_is_nobody_who_is_signed_in(server: Server) -> None:
    device = device_of(server.log_in(HOME))
    assert "alice" not in str(jwt.decode(device, options={"verify_signature": False}))
    for name in ("access_token", "refresh_token"):
        refused = server.client.get(
            "/auth/refresh", headers={"Cookie": f"{cookie_name(server.client.application, name)}={device}"}
        )
        assert refused.status_code in (401, 403)
    assert server.client.get("/auth/status", headers={"Authorization": f"Bearer {device}"}).status_code == 403


@one_database
def test_the_cookie_outlives_sessions_and_belongs_to_the_browser_alone(server: Server) -> None:
    answer = server.log_in(HOME)
    (cookie,) = [text for text in answer.headers.getlist("Set-Cookie") if text.startswith("known_device_")]
    for attribute in ("HttpOnly", "Path=/", "SameSite=Lax"):
        assert f"; {attribute}" in cookie
    assert f"Expires={(utc_now() + devices.KNOWN_FOR):%a, %d %b %Y}" in cookie
    assert "known_device" not in str(server.client.delete("/auth/logout").headers)
    assert "known_device" not in str(server.log_in(HOME, password="wrong").headers)


@one_database
def test_a_stolen_session_does_not_keep_its_owner_from_signing_in(server: Server) -> None:
    signed_in = server.log_in(HOME)
    access = next(text for text in signed_in.headers.getlist("Set-Cookie") if text.startswith("access_token_"))
    body = {"password": "wrong", "new_password": "x"}
    headers = {"Cookie": access.partition(";")[0]}
    codes = [server.client.post("/user/update", json=body, headers=headers).status_code for _ in range(STRICT + 1)]
    assert codes == [401] * STRICT + [429]
    assert server.is_let_in(HOME)


def networks_of(backend: Backend, username: str) -> list[str]:
    user = users.find_user(backend, username)
    with backend.database.reading() as connection:
        stored = connection.scalar(select(YaptideUserModel.known_networks).where(YaptideUserModel.id == user.id))
    return (stored or "").split()


def test_so_many_networks_are_remembered_and_none_can_be_read(backend: Backend) -> None:
    users.register_user(backend, "alice", PASSWORD)
    for number in range(NETWORKS + 5):
        sessions.sign_in(backend, "alice", PASSWORD, Origin(f"192.0.2.{number}"))
    kept = networks_of(backend, "alice")
    assert len(set(kept)) == len(kept) == NETWORKS
    assert not any("." in network or len(network) != 16 for network in kept)
    sessions.sign_in(backend, "alice", PASSWORD, Origin("192.0.2.6"))
    assert networks_of(backend, "alice")[1:] == [
        network for network in kept if network != networks_of(backend, "alice")[0]
    ]


@one_database
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "", "no address"])
def test_addresses_that_may_be_those_of_a_proxy_are_not_remembered(backend: Backend, address: str) -> None:
    users.register_user(backend, "alice", PASSWORD)
    sessions.sign_in(backend, "alice", PASSWORD, Origin(address))
    assert networks_of(backend, "alice") == []
