"""API tokens: accepted until they expire or are revoked, with limits on their names, lifetimes and number."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.storing import rows_of
from yaptide.domain.errors import Conflict, Contended, Forbidden, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.rights import Scope
from yaptide.services import administration, tokens, users


@pytest.fixture
def now(clock, monkeypatch):
    """The clock of tokens, too."""
    monkeypatch.setattr(tokens, "utc_now", clock)
    return clock


@pytest.fixture
def alice(backend, now):
    return users.register_user(backend, "alice", None)


@pytest.fixture
def bob(backend, now):
    return users.register_user(backend, "bob", None)


def create(backend, user, name="laptop", scope=Scope.READ, **values):
    return tokens.create_token(backend, user, name, scope, **values)


def names_of(backend, user):
    return [token.name for token in tokens.list_tokens(backend, user)]


# Texts


def test_a_token_has_32_random_bytes_and_a_checksum():
    text = tokens.make_text()
    assert re.fullmatch(r"yap_[A-Za-z0-9_-]{49}", text)
    assert tokens.make_text() != text
    assert tokens.is_token(text)
    assert tokens.is_token("yap_x")
    assert not tokens.is_token("eyJhbGciOi.x.y")


def test_only_the_digest_is_stored_and_the_text_is_not_printed(backend, database, alice):
    token = create(backend, alice)
    [row] = rows_of(database, "Token")
    assert token.text not in row.values()
    assert token.text not in repr(token)


# Use


@pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT, Scope.ALL])
def test_a_token_acts_for_its_user_with_its_scope(backend, alice, now, scope):
    token = create(backend, alice, scope=scope)
    user = tokens.authenticate_token(backend, token.text)
    assert user._replace(token=None) == alice
    assert (user.token.name, user.token.scope, user.token.expires) == ("laptop", scope, token.expires)
    backend.last_uses.wait()
    assert [row.last_used for row in tokens.list_tokens(backend, alice)] == [now()]


def test_a_token_expires_on_the_second(backend, alice, now):
    token = create(backend, alice, lifetime="1h")
    assert token.created == now()
    assert token.expires == now() + timedelta(hours=1)
    now.time = token.expires - timedelta(seconds=1)
    assert tokens.authenticate_token(backend, token.text)
    now.time = token.expires
    with pytest.raises(NotAuthenticated, match="This token is not valid"):
        tokens.authenticate_token(backend, token.text)


def test_other_texts_are_refused(backend, alice):
    text = create(backend, alice).text
    for other in ("", text[:-1], text + "x", "x" + text, text.swapcase(), tokens.make_text()):
        with pytest.raises(NotAuthenticated, match="This token is not valid"):
            tokens.authenticate_token(backend, other)
    assert tokens.authenticate_token(backend, text)


def test_a_wrong_checksum_is_refused_without_a_query(backend, alice, monkeypatch):
    text = create(backend, alice).text
    monkeypatch.setattr(tokens.queries, "by_digest", lambda *_: pytest.fail("a query"))
    with pytest.raises(NotAuthenticated):
        tokens.authenticate_token(backend, text[:10] + ("A" if text[10] != "A" else "B") + text[11:])


# Creation


def test_the_lifetime_is_90_days_unless_the_user_chooses(backend, alice, now):
    assert create(backend, alice).expires == now() + timedelta(days=90)


def test_a_token_lives_for_a_leap_year_at_most(backend, alice, now):
    assert create(backend, alice, lifetime="366d").expires == now() + timedelta(days=366)
    for lifetime in ("0h", "367d"):
        with pytest.raises(InvalidInput, match=r"A token must expire after 1h to 366d, e\.g\. 90d"):
            create(backend, alice, "other", lifetime=lifetime)
    assert names_of(backend, alice) == ["laptop"]


@pytest.mark.parametrize("name", ["x", "x" * 64, "my laptop", "z\u030c" * 64])
def test_names(backend, alice, name):
    """A letter and its accent are one character."""
    assert len(create(backend, alice, name).name) <= 64


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\0b", "x" * 65])
def test_names_that_cannot_be_listed_are_refused(backend, alice, name):
    with pytest.raises(InvalidInput, match="A token name must have 1 to 64 printable characters"):
        create(backend, alice, name)


def test_a_user_has_one_token_of_a_name_however_it_is_encoded(backend, alice, bob):
    create(backend, alice, "\u017e")
    with pytest.raises(Conflict, match="There is a token '\u017e' already"):
        create(backend, alice, "z\u030c")
    create(backend, bob, "\u017e")
    assert names_of(backend, None) == ["\u017e", "\u017e"]


def test_a_user_has_100_tokens_at_most(backend, alice, bob):
    for number in range(100):
        create(backend, alice, f"token {number}")
    with pytest.raises(Conflict, match="You have 100 tokens, which is the maximum"):
        create(backend, alice)
    assert len(names_of(backend, alice)) == 100
    create(backend, bob)


def test_expired_tokens_of_the_user_make_room(backend, alice, bob, now, monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 2)
    for user in (alice, bob):
        create(backend, user, "short", lifetime="1h")
        create(backend, user, "long", lifetime="2h")
    now.later(hours=1)
    create(backend, alice, "short", lifetime="3h")
    assert names_of(backend, alice) == ["long", "short"]
    assert names_of(backend, bob) == ["long", "short"], "those of others stay"
    with pytest.raises(Conflict):
        create(backend, alice, "third")


def test_only_administrators_give_the_scope_admin(backend, alice, bob):
    backend = replace(backend, operators=frozenset({(alice.auth_provider, "alice")}))
    assert tokens.authenticate_token(backend, create(backend, alice, scope=Scope.ADMIN).text).token.scope is Scope.ADMIN
    with pytest.raises(Forbidden, match="Only administrators may create a token of scope admin"):
        create(backend, bob, scope=Scope.ADMIN)
    assert names_of(backend, bob) == []


def test_a_removed_user_gets_no_token(backend, database, alice):
    administration.remove_user(database, alice, administration.count_holdings(database, alice))
    with pytest.raises(NotFound, match="There is no user 'alice'"):
        create(backend, alice)


def test_a_token_is_created_although_its_transaction_had_to_be_repeated(backend, alice, monkeypatch):
    add, tries = tokens.queries.add_token, iter([Contended("a deadlock")])

    def give_way_once(*args):
        for error in tries:
            raise error
        add(*args)

    monkeypatch.setattr(tokens.queries, "add_token", give_way_once)
    create(backend, alice)
    assert names_of(backend, alice) == ["laptop"]


# Revocation


def test_a_revoked_token_is_refused_at_once(backend, alice, bob):
    token = create(backend, alice)
    with pytest.raises(NotFound, match="There is no token 'laptop'"):
        tokens.revoke_token(backend, bob, "laptop")
    tokens.revoke_token(backend, alice, "laptop")
    with pytest.raises(NotAuthenticated):
        tokens.authenticate_token(backend, token.text)
    with pytest.raises(NotFound, match=f"^There is no token '{'x' * 64}'$"):
        tokens.revoke_token(backend, alice, "x" * 65)


def test_a_name_may_be_encoded_in_another_way_for_revocation(backend, alice):
    create(backend, alice, "\u017e")
    tokens.revoke_token(backend, alice, "z\u030c")
    assert names_of(backend, alice) == []


def test_a_program_revokes_its_own_token_and_no_other(backend, alice):
    program = tokens.authenticate_token(backend, create(backend, alice, scope=Scope.ALL).text)
    create(backend, alice, "other")
    with pytest.raises(Forbidden, match="Tokens cannot change the account"):
        tokens.revoke_token(backend, program, "other")
    tokens.revoke_token(backend, program, "laptop")
    assert names_of(backend, alice) == ["other"]
