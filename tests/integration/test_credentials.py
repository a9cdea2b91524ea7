"""SSH credentials: validation, storage, and the message for users without any."""

import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat, SSHCertificateType
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from typer.testing import CliRunner

from tests.support import http
from tests.support.api import contents, cookie_name, of_keycloak as keycloak_user, sign_in
from tests.support.ssh import Authority, locked, text_of
from yaptide.admin import cli
from yaptide.application import create_app
from yaptide.domain.errors import Conflict, Forbidden, NotConfigured, NotFound, Unreachable
from yaptide.persistence.engine import Database
from yaptide.persistence.queries.users import Subject
from yaptide.services import credentials, keycloak, secrets, sessions, users
from yaptide.services.backend import Backend, Keycloak
from yaptide.services.fetching import fetch_json
from yaptide.services.secrets import Vault
from yaptide.services.users import User
from yaptide.settings import Settings

KEYS = tuple(secrets.new_key() for _ in range(2))
HOUR = timedelta(hours=1)
AUTHORITY = Authority()
KEY = Ed25519PrivateKey.generate()

one_database = pytest.mark.parametrize("database", ["memory"], indirect=True)


@pytest.fixture
def backend(backend: Backend) -> Backend:
    """The services, which have keys to encrypt with."""
    return replace(backend, secret_keys=KEYS)


@pytest.fixture
def alice(backend: Backend) -> User:
    """A user of Keycloak."""
    return keycloak_user(backend, "alice")


@pytest.fixture
def of_keycloak(app: Flask, backend: Backend, alice: User) -> FlaskClient:
    """Alice, signed in."""
    client = app.test_client()
    client.set_cookie(cookie_name(app, "access_token"), sessions.begin_session(backend, alice).access.text)
    return client


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_what_is_uploaded_can_be_used(backend, of_keycloak, alice, form):
    key = rsa.generate_private_key(65537, 2048)
    private = text_of(key, form)
    body = {"cert": AUTHORITY.issue(key, "alice", "alice-batch") + " a comment\n", "private": f"\r\n{private}\n"}
    response = of_keycloak.post("/user/update", json=body)
    assert (response.status_code, response.json) == (202, {"message": "User updated"})
    result = credentials.current_credentials(backend, alice.id)
    assert (result.private_key_text, result.certificate_text) == (private, body["cert"].strip())
    assert result.username == "alice"
    assert result.valid_until - datetime.now(UTC) == pytest.approx(12 * HOUR, abs=HOUR / 60)
    assert private not in repr(result)
    assert "PRIVATE KEY" not in str(contents(backend.database))
    assert of_keycloak.get("/auth/status").json["certificate_exp"] == result.valid_until.timestamp() * 1000


KINDS: dict[str, Callable[[], Any]] = {
    "ed25519": lambda: KEY,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
}


@one_database
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_keys(backend, alice, kind):
    key = KINDS[kind]()
    private = text_of(key)
    credentials.store_credentials(backend, alice, AUTHORITY.issue(key), private)
    assert credentials.current_credentials(backend, alice.id).private_key_text == private


CERT, PRIVATE = AUTHORITY.issue(KEY), text_of(KEY)


def forged() -> str:
    kind, data = CERT.split()
    return f"{kind} {data[:-8]}AAAAAAA="


def pem(key: Any, passphrase: bytes = b"") -> str:
    return text_of(key, PrivateFormat.PKCS8, passphrase)


def public() -> str:
    return KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


#: Private keys, and certificates for a good one, and what is said about them.
BAD_KEYS: dict[str, tuple[Callable[[], str], str]] = {
    "none": (lambda: "x", "Invalid private key"),
    "a certificate": (lambda: CERT, "Invalid private key"),
    "cut": (lambda: PRIVATE[:200], "Invalid private key"),
    "a passphrase": (locked, "has a passphrase"),
    "a passphrase, PEM": (lambda: pem(KEY, b"secret"), "has a passphrase"),
    "weak": (lambda: pem(rsa.generate_private_key(65537, 1024)), "2048 bits or more"),  # noqa: S505 - it is refused
    "DSA": (lambda: pem(dsa.generate_private_key(2048)), "Weak kind"),
    "a curve": (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "does not support the curve secp256k1"),
    "another": (lambda: text_of(Ed25519PrivateKey.generate()), "does not belong to this private key"),
    "too long": (lambda: "x" * 70_000, "at most 65536 characters"),
}
BAD_CERTIFICATES: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: AUTHORITY.issue(KEY, lasts=timedelta(seconds=-1)), "expired on 20"),
    "not yet": (lambda: AUTHORITY.issue(KEY, since=6 * HOUR), "not valid before 20"),
    "somebody else's": (lambda: AUTHORITY.issue(KEY, "bob", "carol"), "for bob and carol, not for alice"),
    "a host's": (lambda: AUTHORITY.issue(KEY, kind=SSHCertificateType.HOST), "for a host"),
    "none": (lambda: "x", "Invalid certificate"),
    "nothing": (str, "Invalid certificate"),
    "a public key": (public, "is a public key"),
    "two lines": (lambda: f"{CERT} me\nand more", "one line of text"),
    "a null byte": (lambda: f"{CERT} \0", "one line of text"),
    "forged": (forged, "changed after it was signed"),
}


def check_refused(client: FlaskClient, backend: Backend, cert: str, private: str, message: str) -> None:
    before = contents(backend.database)
    response = client.post("/user/update", json={"cert": cert, "private": private})
    assert response.status_code == 400, response.json
    assert message in response.json["message"]
    assert not set(private.splitlines()[1:-1]) & set(response.json["message"].split())
    assert contents(backend.database) == before


@one_database
@pytest.mark.parametrize("what", BAD_KEYS)
def test_keys_that_are_refused(backend, of_keycloak, what):
    make, message = BAD_KEYS[what]
    check_refused(of_keycloak, backend, CERT, make(), message)


@one_database
@pytest.mark.parametrize("what", BAD_CERTIFICATES)
def test_certificates_that_are_refused(backend, of_keycloak, what):
    make, message = BAD_CERTIFICATES[what]
    check_refused(of_keycloak, backend, make(), PRIVATE, message)


@one_database
def test_one_without_the_other(of_keycloak):
    for body in ({"cert": "x"}, {"private": "x"}):
        response = of_keycloak.post("/user/update", json=body)
        assert response.status_code == 400
        assert "belong together" in response.json["message"]


@one_database
def test_local_users_have_none(app, backend):
    response = sign_in(app, "alice").post("/user/update", json=AUTHORITY.pair())
    assert (response.status_code, "through Keycloak" in response.json["message"]) == (403, True)
    local = users.find_user(backend, "alice")
    with pytest.raises(Forbidden):
        credentials.store_credentials(
            backend, local, **dict(zip(("certificate", "private"), AUTHORITY.pair().values(), strict=True))
        )
    with pytest.raises(NotFound):
        credentials.current_credentials(backend, local.id)


def test_who_has_none_is_told_what_to_do(backend, alice, monkeypatch):
    with pytest.raises(Conflict, match=r"No SSH credentials .* sign in again .*POST /user/update"):
        credentials.current_credentials(backend, alice.id)
    pair = AUTHORITY.pair()
    credentials.store_credentials(backend, alice, pair["cert"], pair["private"])
    with pytest.raises(NotConfigured, match="YAPTIDE_SECRET_KEYS"):
        credentials.current_credentials(replace(backend, secret_keys=()), alice.id)
    later = datetime.now(UTC) + 13 * HOUR
    monkeypatch.setattr(credentials, "utc_now", lambda: later)
    with pytest.raises(Conflict, match=r"expired on .* sign in again"):
        credentials.current_credentials(backend, alice.id)


@one_database
def test_what_another_backend_left_cannot_be_read(backend, alice):
    with backend.database.writing() as connection:
        values = {"cert": "x", "key": Vault(KEYS).encrypt("y")}
        connection.execute(text('UPDATE "KeycloakUser" SET cert = :cert, private_key = :key'), values)
    with pytest.raises(Conflict, match=r"cannot be read: sign in again"):
        credentials.current_credentials(backend, alice.id)


@one_database
def test_a_certificate_for_ever(backend, alice):
    credentials.store_credentials(backend, alice, AUTHORITY.issue(KEY, lasts=timedelta(days=365 * 7000)), text_of(KEY))
    assert credentials.current_credentials(backend, alice.id).valid_until.year > 9000


def test_keys_are_rotated(backend, alice):
    pair = AUTHORITY.pair()
    credentials.store_credentials(replace(backend, secret_keys=KEYS[1:]), alice, pair["cert"], pair["private"])
    assert secrets.rotate_secrets(backend.database, Vault(KEYS)) == (1, 1)
    result = credentials.current_credentials(replace(backend, secret_keys=KEYS[:1]), alice.id)
    assert result.private_key_text == pair["private"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_nothing_is_served_without_the_keys_of_what_is_stored(backend, alice, tmp_path):
    """tests/acceptance/test_serving.py has the program that does not start."""
    pair = AUTHORITY.pair()
    credentials.store_credentials(backend, alice, pair["cert"], pair["private"])
    url = backend.database.engine.url.render_as_string(hide_password=False)
    settings = Settings(_env_file=None, database_uri=url, data_dir=tmp_path / "data")
    for keys, message in {
        (): "set YAPTIDE_SECRET_KEYS to the one in use",
        (secrets.new_key(),): "decrypts a stored secret",
    }.items():
        lacking = replace(backend, secret_keys=keys)
        if backend.database.is_sqlite:
            with pytest.raises((NotConfigured, Conflict), match=message):
                create_app(settings, lacking)
        else:  # which may not be there yet when the application is made
            answer = create_app(settings, lacking).test_client().get("/")
            assert (answer.status_code in (409, 503), message in answer.json["message"]) == (True, True)
    assert create_app(settings, backend).test_client().get("/").status_code == 200


@pytest.fixture
def shown(database: Database, monkeypatch):
    """What `yaptide users show` prints."""
    monkeypatch.setattr("yaptide.admin.users.connect_database", lambda: database)

    def show(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["users", "show", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return " ".join(done.stdout.split())

    return show


@one_database
def test_an_operator_sees_until_when_a_certificate_is_good(backend, alice, shown):
    assert "SSH certificate none" in shown("alice")
    pair = AUTHORITY.pair()
    credentials.store_credentials(backend, alice, pair["cert"], pair["private"])
    until = credentials.current_credentials(backend, alice.id).valid_until
    assert f"SSH certificate valid until {until.astimezone():%Y-%m-%d %H:%M:%S}" in shown("alice")
    assert f'"certificate_valid_until": "{until.isoformat()}"' in shown("alice", "--json")
    users.register_user(backend, "bob", None)
    assert "SSH" not in shown("bob")


# The keys of a realm, from a server that counts how often it is asked. tests/acceptance/test_keycloak.py has the rest.


@pytest.fixture
def issuer() -> Iterator[http.Service]:
    keycloak.keys_of.cache_clear()
    with http.serve() as running:
        yield running
    keycloak.keys_of.cache_clear()


@cache
def signing() -> rsa.RSAPrivateKey:
    """The realm's key."""
    return rsa.generate_private_key(65537, 2048)


def published(*keys: rsa.RSAPrivateKey) -> dict[str, list[dict[str, str]]]:
    made = [jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key(), as_dict=True) for key in keys]
    return {"keys": [{**key, "kid": f"key-{number}", "use": "sig"} for number, key in enumerate(made)]}


def token_of(issuer: str, kid: str = "key-0", **changes: object) -> str:
    now = datetime.now(UTC)
    claims = {"iss": issuer, "iat": now, "exp": now + HOUR, "typ": "Bearer", "azp": "ui"}
    claims |= {"sub": "5a1c6f0e", "preferred_username": "alice"}
    given = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(given, signing(), "RS256", headers={"kid": kid})


def realm(issuer: http.Service, **settings: object) -> Keycloak:
    base = Settings(
        _env_file=None,
        keycloak_base_url=issuer.url,
        keycloak_realm="science",
        keycloak_clients="ui, other-ui",
        **settings,
    )
    return base.keycloak


@pytest.mark.parametrize("style", ["/realms/science", "/auth/realms/science"])
def test_both_styles_of_addresses(issuer, style):
    issuer.answers(published(signing()))
    result = keycloak.identify_user(realm(issuer), token_of(f"{issuer.url}{style}"))
    assert (result.username, result.subject) == ("alice", Subject(f"{issuer.url}/realms/science", "5a1c6f0e"))
    assert issuer.asked == [(f"{style}/protocol/openid-connect/certs", "")]


def test_all_who_come_at_once_ask_once(issuer):
    issuer.answers(published(signing()))
    settings, token = realm(issuer), token_of(f"{issuer.url}/realms/science")
    barrier = threading.Barrier(16)

    def identify(_: int) -> str:
        barrier.wait(30)
        return keycloak.identify_user(settings, token).username

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(identify, range(16))) == {"alice"}
    assert len(issuer.asked) == 1


def test_strangers_cannot_have_keys_fetched_all_the_time(issuer, monkeypatch):
    monkeypatch.setattr(keycloak, "PAUSE", 60.0)
    issuer.answers(published(signing()))
    settings = realm(issuer)
    for number in range(20):
        with pytest.raises(Forbidden):
            keycloak.identify_user(settings, token_of(f"{issuer.url}/realms/science", f"mine-{number}"))
    assert keycloak.identify_user(settings, token_of(f"{issuer.url}/realms/science")).username == "alice"
    assert len(issuer.asked) == 1


def test_keys_that_the_realm_has_withdrawn_are_forgotten(issuer, monkeypatch):
    monkeypatch.setattr(keycloak, "PAUSE", 0.0)
    issuer.answers(published(signing()))
    settings, token = realm(issuer), token_of(f"{issuer.url}/realms/science")
    keycloak.identify_user(settings, token)
    issuer.answers(published(rsa.generate_private_key(65537, 2048)))
    assert keycloak.identify_user(settings, token).username == "alice"
    monkeypatch.setattr(keycloak, "KEEP", 0.0)
    with pytest.raises(Forbidden):
        keycloak.identify_user(settings, token)
    issuer.answers(published(signing()))
    assert keycloak.identify_user(settings, token).username == "alice"


def test_a_realm_that_hangs_is_not_waited_for_by_everybody(issuer, monkeypatch):
    monkeypatch.setattr("yaptide.services.fetching.SECONDS", 0.5)
    monkeypatch.setattr(keycloak, "PAUSE", 60.0)
    gone = threading.Event()
    issuer.answer = lambda: ((gone.wait(60) and 200) or 500, b"{}")
    settings, token = realm(issuer), token_of(f"{issuer.url}/realms/science")
    for _ in range(20):
        with pytest.raises(Unreachable, match=r"not available, try again later: it did not respond within 0\.5 s"):
            keycloak.identify_user(settings, token)
    gone.set()
    assert len(issuer.asked) == 1


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'])
def test_a_realm_without_keys(issuer, document):
    issuer.answer = lambda: (200, document)
    with pytest.raises((Unreachable, Forbidden)):
        keycloak.identify_user(realm(issuer), token_of(f"{issuer.url}/realms/science"))


@pytest.mark.parametrize(
    ("claim", "claims", "let_in"),
    [
        ("services=YAPTIDE", {"services": ["OTHER", "YAPTIDE"]}, True),
        ("services=YAPTIDE", {"services": ["YAPTIDE_OTHER"]}, False),
        ("services=YAPTIDE", {"services": "YAPTIDE"}, True),
        ("services=YAPTIDE", {"services": "OTHER YAPTIDE"}, True),
        ("services=YAPTIDE", {"services": "NOT_YAPTIDE"}, False),
        ("services=YAPTIDE", {"services": {"YAPTIDE": 1}}, False),
        ("services=YAPTIDE", {}, False),
        ("realm_access.roles=yaptide", {"realm_access": {"roles": ["yaptide"]}}, True),
        ("realm_access.roles=yaptide", {"realm_access": {"roles": ["other"]}}, False),
        ("realm_access.roles=yaptide", {"realm_access": ["roles"]}, False),
    ],
)
def test_the_required_claim(issuer, claim, claims, let_in):
    issuer.answers(published(signing()))
    settings = realm(issuer, keycloak_required_claim=claim)
    token = token_of(f"{issuer.url}/realms/science", **claims)
    if let_in:
        assert keycloak.identify_user(settings, token).username == "alice"
    else:
        with pytest.raises(Forbidden, match="not authorized"):
            keycloak.identify_user(settings, token)


@pytest.mark.parametrize("name", ["", " alice", "a\0", "a\n", "x" * 200, 7, ["alice"], None])
def test_names_that_nobody_can_have(issuer, name):
    issuer.answers(published(signing()))
    with pytest.raises(Forbidden):
        keycloak.identify_user(realm(issuer), token_of(f"{issuer.url}/realms/science", preferred_username=name))


#: A realm signs what its mappers produce: any value may be in a token.
ODD_TIMES = ["soon", "9999999999", 10**18, -1, 1e300, float("nan"), float("inf"), None, True, [], {}]


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("time", ODD_TIMES, ids=str)
def test_odd_times_are_no_reason_to_believe_a_token(issuer, name, time):
    issuer.answers(published(signing()))
    token = token_of(f"{issuer.url}/realms/science", **{name: time})
    # An old or missing time of issue does not matter.
    harmless = {"exp": [], "iat": [-1, True], "nbf": [-1, True, None]}[name]
    if any(time is one or (time == one and time is not True) for one in harmless):
        assert keycloak.identify_user(realm(issuer), token).username == "alice"
    else:
        with pytest.raises(Forbidden, match="invalid or has expired"):
            keycloak.identify_user(realm(issuer), token)


@pytest.mark.parametrize(
    ("claim", "value", "message"),
    [
        ("preferred_username", None, "has no preferred_username: .* client scope profile"),
        ("preferred_username", "", "has no preferred_username"),
        ("sub", None, "has no sub: .* client scope basic"),
        ("sub", "", "has no sub"),
        ("sub", "x" * 256, "has an invalid sub"),
        ("sub", "a\0", "has an invalid sub"),
    ],
    ids=repr,
)
def test_what_a_token_lacks_is_told(issuer, claim, value, message):
    issuer.answers(published(signing()))
    changes = {claim: value}
    with pytest.raises(Forbidden, match=message):
        keycloak.identify_user(realm(issuer), token_of(f"{issuer.url}/realms/science", **changes))


@pytest.fixture
def certified(tmp_path) -> Path:
    """A self-signed TLS certificate for 127.0.0.1, with its key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(signing().public_key())
    now = datetime.now(UTC)
    builder = builder.serial_number(1).not_valid_before(now - HOUR).not_valid_after(now + HOUR)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(signing(), hashes.SHA256())
    path = tmp_path / "certificate.pem"
    path.write_text(made.public_bytes(Encoding.PEM).decode() + text_of(signing(), PrivateFormat.PKCS8))
    return path


def test_tokens_are_told_to_nobody_without_a_certificate(certified, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified)
    with http.serve(context) as service:
        service.answers({"cert": "x"})
        with pytest.raises(Unreachable, match=r"(?i)certificate verify failed"):
            fetch_json(service.url, "token")
        assert service.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certified))
        assert fetch_json(service.url, "token") == {"cert": "x"}
