"""Sessions: whom a token lets in, for how long, and that a logout ends everything."""

import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from tests.support.storing import rows_of
from yaptide.domain.errors import Contended, Forbidden, NotAuthenticated, NotConfigured, NotFound
from yaptide.persistence.queries.users import Subject
from yaptide.services import administration, credentials, keycloak, sessions, simulations, users
from yaptide.services.backend import Keycloak
from yaptide.services.devices import Origin
from yaptide.services.keycloak import Identity

PASSWORD = "correct horse"
HOME = Origin("192.0.2.7")


@pytest.fixture
def alice(backend, clock):
    return users.register_user(backend, "alice", PASSWORD)


@pytest.fixture
def signed_in(backend, alice):
    """A session of alice."""
    return sessions.begin_session(backend, alice)


def token_of(backend, key=None, algorithm="HS256", **claims):
    """A token that says this."""
    return jwt.encode(claims, backend.signing_key if key is None else key, algorithm=algorithm)


def claims_of(backend, token):
    return jwt.decode(token.text, backend.signing_key, algorithms=["HS256"], options={"verify_exp": False})


def session_of(backend, signed_in):
    return claims_of(backend, signed_in.access)["sid"]


def is_signed_in(backend, signed_in):
    try:
        return bool(sessions.authenticate_user(backend, signed_in.access.text))
    except Forbidden:
        return False


def test_a_password_begins_a_session(backend, alice):
    signed_in = sessions.sign_in(backend, "alice", PASSWORD, HOME)
    assert sessions.authenticate_user(backend, signed_in.access.text) == alice
    assert signed_in.remark is None
    for wrong in ("correct hors", ""):
        with pytest.raises(NotAuthenticated, match="Invalid login or password"):
            sessions.sign_in(backend, "alice", wrong, HOME)
    assert len(rows_of(backend.database, "Session")) == 1


def test_the_place_of_a_sign_in_is_known_from_then_on(backend, alice):
    assert users.find_user(backend, "alice") == alice
    signed_in = sessions.sign_in(backend, "alice", PASSWORD, HOME)
    assert claims_of(backend, signed_in.device)["use"] == "device"
    [user] = rows_of(backend.database, "YaptideUser")
    assert user["known_networks"]


def test_both_tokens_name_the_session_and_neither_is_the_other(backend, signed_in, clock):
    access, refresh = (claims_of(backend, token) for token in (signed_in.access, signed_in.refresh))
    [session] = rows_of(backend.database, "Session")
    assert access["sid"] == refresh["sid"] == session["id"]
    assert len(session["id"]) == 43, "32 random bytes"
    for use, text in (
        (sessions.authenticate_user, signed_in.refresh.text),
        (sessions.refresh_access, signed_in.access.text),
    ):
        with pytest.raises(Forbidden, match="Log in again"):
            use(backend, text)


def test_how_long_tokens_are_good(backend, signed_in, clock):
    assert signed_in.access.expires == clock() + backend.limits.access
    assert signed_in.refresh.expires == clock() + backend.limits.refresh
    [session] = rows_of(backend.database, "Session")
    assert session["expires"] == signed_in.refresh.expires
    for token in (signed_in.access, signed_in.refresh):
        assert datetime.fromtimestamp(claims_of(backend, token)["exp"], UTC) == token.expires


def test_an_access_token_ends_with_the_session_at_the_latest(backend, alice, clock):
    ends = clock() + timedelta(minutes=1)
    signed_in = sessions.begin_session(backend, alice, ends)
    assert signed_in.access.expires == signed_in.refresh.expires == ends
    assert sessions.refresh_access(backend, signed_in.refresh.text).expires == ends


def test_tokens_end_on_the_second(backend, signed_in, clock):
    clock.time = signed_in.access.expires - timedelta(seconds=1)
    assert is_signed_in(backend, signed_in)
    clock.time = signed_in.access.expires
    assert not is_signed_in(backend, signed_in)
    assert sessions.refresh_access(backend, signed_in.refresh.text)
    clock.time = signed_in.refresh.expires
    with pytest.raises(NotAuthenticated, match="No token provided"):
        sessions.refresh_access(backend, signed_in.refresh.text)


def test_an_access_token_that_outlives_its_session_is_refused(backend, alice, signed_in, clock):
    """It is signed, and its time is not over; but the session's is."""
    session = session_of(backend, signed_in)
    long = token_of(backend, sid=session, use="access", exp=int((clock() + timedelta(days=1)).timestamp()))
    job = simulations_of(backend, alice)
    assert sessions.authenticate_user(backend, long) == alice
    clock.time = signed_in.refresh.expires
    with pytest.raises(Forbidden, match="Log in again"):
        sessions.authenticate_user(backend, long)
    with backend.database.reading() as connection, pytest.raises(Forbidden, match="Log in again"):
        sessions.authenticate_with(backend, connection, long, job.job_id)


def test_a_refresh_token_that_outlives_its_session_gives_nothing(backend, signed_in, clock):
    session = session_of(backend, signed_in)
    long = token_of(backend, sid=session, use="refresh", exp=int((clock() + timedelta(days=1)).timestamp()))
    assert sessions.refresh_access(backend, long)
    clock.time = signed_in.refresh.expires
    with pytest.raises(NotAuthenticated, match="No token provided"):
        sessions.refresh_access(backend, long)


@pytest.mark.parametrize("token", [None, ""])
def test_who_brings_no_token_is_told_so_in_words_that_the_front_end_knows(backend, token):
    for use in (sessions.session_of_token, sessions.authenticate_user, sessions.refresh_access):
        with pytest.raises(NotAuthenticated, match=r"^No token provided$"):
            use(backend, token)


def forged(backend, session, clock):
    good = {"sid": session, "use": "access", "exp": int((clock() + timedelta(minutes=1)).timestamp())}
    yield "not.a.token"
    yield token_of(backend, key=b"another key of 32 bytes or more..", **good)
    with warnings.catch_warnings(action="ignore"):  # the key is short for that
        yield token_of(backend, algorithm="HS512", **good)
    yield token_of(backend, key="", algorithm="none", **good)
    for missing in good:
        yield token_of(backend, **{name: value for name, value in good.items() if name != missing})
    for changes in ({"sid": 7}, {"sid": None}, {"sid": "x"}, {"use": "device"}, {"exp": "soon"}, {"exp": 1e9 + 0.5}):
        yield token_of(backend, **{**good, **changes})


def test_no_other_token_lets_anybody_in(backend, signed_in, clock):
    for token in forged(backend, session_of(backend, signed_in), clock):
        with pytest.raises(Forbidden, match="Log in again"):
            sessions.authenticate_user(backend, token)


def simulations_of(backend, user):
    files = {"beam.dat": "RNDSEED 1\nNSTAT 10 -1\n", "mat.dat": "MEDIUM 1\nICRU 276\nEND\n", "geo.dat": "*---\n"}
    files["detect.dat"] = "Output\n    Filename dose\n"
    return simulations.submit_simulation(backend, user, simulations.Submission("shieldhit", 1, "t", files))


def test_a_token_with_a_simulation_in_one_round_trip(backend, alice, signed_in):
    job = simulations_of(backend, alice)
    bob = sessions.begin_session(backend, users.register_user(backend, "bob", None))

    def ask(token, job_id):
        with backend.database.reading() as connection:
            return sessions.authenticate_with(backend, connection, token, job_id)

    user, simulation = ask(signed_in.access.text, job.job_id)
    assert (user, simulation.id) == (alice, job.simulation_id)
    with pytest.raises(NotFound):
        ask(signed_in.access.text, "no such job")
    with pytest.raises(Forbidden, match="does not belong to the user"):
        ask(bob.access.text, job.job_id)
    with pytest.raises(NotAuthenticated):
        ask(None, job.job_id)
    sessions.sign_out(backend, signed_in.access.text, None)
    with pytest.raises(Forbidden, match="Log in again"):
        ask(signed_in.access.text, job.job_id)


def test_a_refreshed_token_is_of_the_same_session(backend, alice, signed_in, clock):
    clock.later(minutes=5)
    token = sessions.refresh_access(backend, signed_in.refresh.text)
    assert token.expires == clock() + backend.limits.access
    assert sessions.authenticate_user(backend, token.text) == alice
    sessions.sign_out(backend, signed_in.access.text, None)
    with pytest.raises(Forbidden):
        sessions.authenticate_user(backend, token.text)


@pytest.mark.parametrize("which", ["both", "access", "refresh", "refresh, and a worthless one for access"])
def test_a_logout_ends_the_session_with_any_of_its_tokens(backend, alice, signed_in, which):
    other = sessions.begin_session(backend, alice)
    access = signed_in.access.text if which in ("both", "access") else "x" if "worthless" in which else None
    refresh = None if which == "access" else signed_in.refresh.text
    sessions.sign_out(backend, access, refresh)
    assert not is_signed_in(backend, signed_in)
    with pytest.raises(NotAuthenticated, match="No token provided"):
        sessions.refresh_access(backend, signed_in.refresh.text)
    assert is_signed_in(backend, other)


@pytest.mark.parametrize("token", [None, "", "x", "not.a.token"])
def test_a_logout_without_a_session_is_no_error(backend, signed_in, token):
    sessions.sign_out(backend, token, token)
    assert is_signed_in(backend, signed_in)


def test_a_user_who_is_gone_begins_no_session(backend, alice):
    administration.remove_user(backend.database, alice, administration.count_holdings(backend.database, alice))
    with pytest.raises(NotAuthenticated, match="Invalid login or password"):
        sessions.begin_session(backend, alice)


def test_a_session_begins_though_its_transaction_has_to_give_way(backend, alice, monkeypatch):
    add, tries = sessions.queries.add_session, iter([Contended("a deadlock")])

    def give_way_once(*args):
        for error in tries:
            raise error
        add(*args)

    monkeypatch.setattr(sessions.queries, "add_session", give_way_once)
    assert is_signed_in(backend, sessions.begin_session(backend, alice))


def test_tokens_are_not_shown_where_they_are_printed(signed_in):
    for token in (signed_in.access, signed_in.refresh):
        assert token.text not in repr(signed_in)
    assert signed_in != replace(signed_in, remark="another")


def test_an_access_token_has_ended_once_its_time_is_over(backend, signed_in, clock):
    clock.time = signed_in.access.expires - timedelta(seconds=1)
    assert not sessions.has_ended(backend, signed_in.access.text)
    clock.time = signed_in.access.expires
    assert sessions.has_ended(backend, signed_in.access.text)
    clock.time = signed_in.refresh.expires
    for other in (None, "", "not.a.token", signed_in.refresh.text):
        assert not sessions.has_ended(backend, other)


def test_a_session_can_be_refreshed_until_it_ends(backend, alice, signed_in, clock):
    clock.time = signed_in.refresh.expires - timedelta(seconds=1)
    assert sessions.can_refresh(backend, signed_in.refresh.text)
    for other in (None, "", "not.a.token", signed_in.access.text):
        assert not sessions.can_refresh(backend, other)
    clock.time = signed_in.refresh.expires
    assert not sessions.can_refresh(backend, signed_in.refresh.text)
    other = sessions.begin_session(backend, alice)
    sessions.sign_out(backend, other.access.text, None)
    assert not sessions.can_refresh(backend, other.refresh.text)


def test_a_signature_stays_after_the_time_of_a_token(backend, signed_in, clock):
    past = token_of(backend, sid="x", use="access", exp=1)
    for text in (signed_in.access.text, signed_in.refresh.text, past):
        assert sessions.is_signed(backend, text)
    for text in ("", "not.a.token", token_of(backend, key="another key of 32 bytes or more..", sid="x", exp=1)):
        assert not sessions.is_signed(backend, text)


def test_the_place_of_a_sign_in_is_stored_as_far_as_columns_take_it(backend, alice, clock):
    """A client chooses the name of its program."""
    for address, program in (("a" * 64, "p" * 200), ("a" * 65, "\n\u202e" + "p" * 201)):
        sessions.begin_session(backend, alice, origin=Origin(address, program=program))
    for row in rows_of(backend.database, "Session"):
        assert (row["started"], row["address"], row["device"]) == (clock(), "a" * 64, "p" * 200)


# Sessions of who signs in through Keycloak


def subject_of(name):
    return Subject("http://127.0.0.1/realms/x", f"subject of {name}")


@pytest.fixture
def realm(backend, clock, monkeypatch):
    """A server with Keycloak, whose tokens are the names of users; each is good for an hour."""
    identities = {}

    def identify(settings, token):
        assert settings is configured.keycloak
        return identities.setdefault(token, Identity(subject_of(token), token, clock() + timedelta(hours=1)))

    monkeypatch.setattr(keycloak, "identify_user", identify)
    configured = replace(backend, keycloak=Keycloak(("http://127.0.0.1/realms/x",), frozenset({"yaptide"})))
    return configured


def through_keycloak(backend, token="alice", username="alice", before=None):
    tokens = (before.access.text, before.refresh.text) if before else (None, None)
    return sessions.sign_in_through_keycloak(backend, token, username, *tokens)


def test_keycloaks_token_begins_a_session_that_ends_with_it(realm, clock):
    signed_in = through_keycloak(realm)
    user = sessions.authenticate_user(realm, signed_in.access.text)
    assert (user.username, user.is_keycloak) == ("alice", True)
    assert signed_in.refresh.expires == clock() + timedelta(hours=1)
    assert signed_in.remark is None
    assert signed_in.device is None


def test_nor_is_it_longer_than_a_session_of_ours(realm, clock):
    short = replace(realm, limits=replace(realm.limits, refresh=timedelta(minutes=30)))
    assert through_keycloak(short).refresh.expires == clock() + timedelta(minutes=30)


def test_without_keycloak_nobody_signs_in_through_it(backend, clock):
    with pytest.raises(NotConfigured, match="not configured"):
        through_keycloak(backend)


def test_the_name_has_to_be_that_of_the_token(realm):
    with pytest.raises(Forbidden, match="does not match Keycloak's token"):
        through_keycloak(realm, username="mallory")
    assert rows_of(realm.database, "User") == []


def test_what_keeps_a_user_from_clusters_is_remarked(realm, monkeypatch):
    asked = []
    monkeypatch.setattr(
        credentials,
        "renew_credentials",
        lambda _, user, *message: asked.append((user.username, message[0])) or "no way",
    )
    signed_in = through_keycloak(realm)
    assert signed_in.remark == "no way"
    assert asked == [("alice", "alice")]
    assert is_signed_in(realm, signed_in)


@pytest.mark.parametrize("left", ["both", "refresh"])
def test_who_is_signed_in_goes_on_with_the_session(realm, clock, left):
    before = through_keycloak(realm)
    clock.later(minutes=30)
    keycloak.identify_user(realm.keycloak, "renewed")  # a new token of Keycloak, for another hour from now on
    access = before.access.text if left == "both" else None
    token = Identity(subject_of("alice"), "alice", clock() + timedelta(hours=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keycloak, "identify_user", lambda *_: token)
        after = sessions.sign_in_through_keycloak(realm, "renewed", "alice", access, before.refresh.text)
    assert session_of(realm, after) == session_of(realm, before)
    [session] = rows_of(realm.database, "Session")
    assert session["expires"] == after.refresh.expires == clock() + timedelta(hours=1)


def test_who_has_signed_out_meanwhile_stays_signed_out(realm):
    before = through_keycloak(realm)
    sessions.sign_out(realm, before.access.text, None)
    with pytest.raises(NotAuthenticated, match="No token provided"):
        through_keycloak(realm, before=before)
    assert rows_of(realm.database, "Session") == []


def test_the_session_of_somebody_else_at_the_same_browser_ends(realm):
    before = through_keycloak(realm, "bob", "bob")
    other = through_keycloak(realm, "bob", "bob")
    after = through_keycloak(realm, before=before)
    assert sessions.authenticate_user(realm, after.access.text).username == "alice"
    assert not is_signed_in(realm, before)
    assert is_signed_in(realm, other)


def test_going_on_is_tried_again_where_it_has_to_give_way(realm, monkeypatch):
    before = through_keycloak(realm)
    renew, tries = sessions.queries.renew_session, iter([Contended("a deadlock")])

    def give_way_once(*args):
        for error in tries:
            raise error
        return renew(*args)

    monkeypatch.setattr(sessions.queries, "renew_session", give_way_once)
    assert session_of(realm, through_keycloak(realm, before=before)) == session_of(realm, before)


def test_what_a_token_says_is_remembered_and_not_what_it_is_good_for(backend, signed_in, clock):
    """A browser comes with the same one hundreds of times."""
    text = signed_in.access.text
    sessions.authenticate_user(backend, text)
    before = sessions._claims.cache_info()
    sessions.authenticate_user(backend, text)
    assert sessions._claims.cache_info().hits == before.hits + 1
    other = replace(backend, signing_key=b"another key of 32 bytes or more..")
    with pytest.raises(Forbidden):
        sessions.authenticate_user(other, text)
