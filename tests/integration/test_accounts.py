"""Whose account it is: by issuer and subject for users of Keycloak, by names that cannot be mistaken for local ones."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from tests.support.api import PASSWORD, contents
from tests.support.ssh import Authority
from yaptide.admin import cli
from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, YaptideError
from yaptide.persistence.queries import secrets, users as queries
from yaptide.persistence.queries.users import Subject
from yaptide.services import administration, credentials, sessions, users
from yaptide.services.secrets import new_key
from yaptide.services.users import User

FILE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
REALM = "https://sso.example.org/realms/science"
HERS, NEWCOMERS = Subject(REALM, "5a1c6f0e"), Subject(REALM, "77b2d3aa")


@pytest.fixture
def yaptide(database, monkeypatch):
    """Runs a command of `yaptide` on the database; errors that `yaptide` would print are raised."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words, answers=""):
        done = CliRunner().invoke(cli.app, [str(word) for word in words], input=answers)
        if isinstance(done.exception, YaptideError):
            raise done.exception
        return done

    return run


@pytest.fixture
def alice(backend):
    return users.ensure_keycloak_user(backend, HERS, "alice")


def credentials_of(database, user):
    with database.reading() as connection:
        return secrets.find_credentials(connection, user.id)[1:]


def give_credentials(database, user):
    with database.writing() as connection:
        secrets.set_credentials(connection, user.id, "cert", "key")


def subject_of(database, user):
    with database.reading() as connection:
        return queries.subject_of(connection, user.id)


def test_who_is_renamed_keeps_the_account_and_takes_the_name_along(backend, database, alice):
    give_credentials(database, alice)
    access = sessions.begin_session(backend, alice).access.text
    renamed = users.ensure_keycloak_user(backend, HERS, "alicia")
    assert renamed == User(alice.id, "alicia", "KeycloakUser")
    assert users.ensure_keycloak_user(backend, HERS, "alicia") == renamed
    assert sessions.authenticate_user(backend, access) == renamed
    # The certificate is for the old name, which may be somebody else's account on a cluster by now.
    assert credentials_of(database, renamed) == (None, None)
    newcomer = users.ensure_keycloak_user(backend, NEWCOMERS, "alice")
    assert newcomer.id != alice.id


def test_a_name_that_was_somebody_elses_opens_nothing(backend, database, alice):
    before = contents(database)
    with pytest.raises(Forbidden, match=r"ask an administrator to rename .*yaptide users link"):
        users.ensure_keycloak_user(backend, NEWCOMERS, "alice")
    with pytest.raises(Forbidden):
        users.ensure_keycloak_user(backend, Subject("https://other.example.org/realms/science", HERS.subject), "alice")
    assert contents(database) == before


def test_who_is_renamed_to_a_name_that_is_taken_keeps_the_old_one(backend, database, alice):
    bob = users.ensure_keycloak_user(backend, NEWCOMERS, "bob")
    give_credentials(database, alice)
    assert users.ensure_keycloak_user(backend, HERS, "bob") == alice
    assert credentials_of(database, alice) == ("cert", "key")
    assert users.ensure_keycloak_user(backend, NEWCOMERS, "bob") == bob


def test_an_account_of_an_older_version_belongs_to_the_first_who_comes_by_its_name(backend, database, alice):
    with database.writing() as connection:
        connection.execute(text('UPDATE "KeycloakUser" SET issuer = NULL, subject = NULL'))
    give_credentials(database, alice)
    assert users.ensure_keycloak_user(backend, NEWCOMERS, "alice") == alice
    assert (subject_of(database, alice), credentials_of(database, alice)) == (NEWCOMERS, ("cert", "key"))
    with pytest.raises(Forbidden):
        users.ensure_keycloak_user(backend, HERS, "alice")


@FILE
@pytest.mark.parametrize("subjects", [[HERS] * 8, [HERS, NEWCOMERS] * 4], ids=["one user", "two users"])
@pytest.mark.parametrize("old", [False, True], ids=["new name", "old row"])
def test_all_who_come_at_once_get_one_account_for_one_subject(backend, database, subjects, old):
    if old:
        users.ensure_keycloak_user(backend, Subject(REALM, "x"), "alice")
        with database.writing() as connection:
            connection.execute(text('UPDATE "KeycloakUser" SET issuer = NULL, subject = NULL'))
    together = Barrier(len(subjects))

    def come(subject):
        together.wait(30)
        try:
            return users.ensure_keycloak_user(backend, subject, "alice")
        except Forbidden:
            return None

    with ThreadPoolExecutor(len(subjects)) as pool:
        let_in = list(pool.map(come, subjects))
    (account,) = {user for user in let_in if user is not None}
    owner = subject_of(database, account)
    assert [user is not None for user in let_in] == [subject == owner for subject in subjects]
    assert len(contents(database)["KeycloakUser"]) == 1


@FILE
def test_an_administrator_gives_an_account_to_who_has_the_name_now(yaptide, backend, database, alice):
    give_credentials(database, alice)
    access = sessions.begin_session(backend, alice).access.text
    assert yaptide("users", "link", "alice", answers="n\n").exit_code == 1
    assert subject_of(database, alice) == HERS
    done = yaptide("users", "link", "alice", answers="y\n")
    assert done.exit_code == 0
    assert "Give alice (KeycloakUser) with 0 simulations" in done.stderr
    assert credentials_of(database, alice) == (None, None)
    with pytest.raises(Forbidden):
        sessions.authenticate_user(backend, access)
    assert users.ensure_keycloak_user(backend, NEWCOMERS, "alice") == alice
    with pytest.raises(Forbidden):
        users.ensure_keycloak_user(backend, HERS, "alice")


def test_a_sign_in_that_was_under_way_when_the_account_was_given_away_comes_to_nothing(backend, database, alice):
    """To fetch a certificate may take seconds."""
    administration.link_user(database, alice, NEWCOMERS)
    backend = replace(backend, secret_keys=(new_key(),))
    pair = Authority().pair("alice")
    with pytest.raises(Forbidden):
        credentials.store_credentials(backend, alice, pair["cert"], pair["private"], HERS)
    with pytest.raises(Forbidden):
        sessions.begin_session(backend, alice, subject=HERS)
    assert credentials_of(database, alice) == (None, None)
    assert contents(database)["Session"] == []
    assert sessions.begin_session(backend, alice, subject=NEWCOMERS)


@FILE
def test_an_administrator_gives_an_account_to_one_user_of_keycloak(yaptide, backend, database, alice):
    done = yaptide("users", "link", "alice", "--subject", NEWCOMERS.subject, "--yes", "--json")
    assert json.loads(done.stdout) == {"username": "alice", **NEWCOMERS._asdict()}
    with pytest.raises(Forbidden):
        users.ensure_keycloak_user(backend, HERS, "alice")
    assert users.ensure_keycloak_user(backend, NEWCOMERS, "anna") == User(alice.id, "anna", "KeycloakUser")
    bob = users.ensure_keycloak_user(backend, HERS, "bob")
    with pytest.raises(Conflict, match="already has an account"):
        yaptide("users", "link", "anna", "--subject", HERS.subject, "--yes")
    moved = "https://new.example.org/auth/realms/science"
    yaptide("users", "link", "bob", "--subject", "z", "--issuer", moved + "/", "--yes")
    assert subject_of(database, bob) == Subject("https://new.example.org/realms/science", "z")
    shown = json.loads(yaptide("users", "show", "bob", "--json").stdout)
    assert (shown["issuer"], shown["subject"]) == ("https://new.example.org/realms/science", "z")


def test_what_cannot_be_linked(database, backend, signed_in, alice):
    local = administration.find_user(database, "alice", "YaptideUser")
    with pytest.raises(Conflict, match="local password"):
        administration.link_user(database, local, None)
    with pytest.raises(InvalidInput, match="--subject"):
        administration.chosen_subject(database, alice, "", REALM)
    administration.link_user(database, alice, None)
    with pytest.raises(InvalidInput, match="--issuer"):
        administration.chosen_subject(database, alice, "x", "")
    administration.remove_user(database, alice, administration.count_holdings(database, alice))
    with pytest.raises(NotFound):
        administration.link_user(database, alice, None)


def test_a_renamed_account_leaves_its_name_to_somebody_else(backend, database, alice):
    """What the refused newcomer's administrator can do without giving simulations away."""
    administration.rename_user(database, alice, "alice (old)")
    newcomer = users.ensure_keycloak_user(backend, NEWCOMERS, "alice")
    assert newcomer.id != alice.id
    assert users.ensure_keycloak_user(backend, HERS, "alicia").id == alice.id


def register(client, username, password=PASSWORD):
    return client.put("/auth/register", json={"username": username, "password": password})


def log_in(client, username, password=PASSWORD):
    return client.post("/auth/login", json={"username": username, "password": password})


COMPOSED, DECOMPOSED = "\u017eofie", "z\u030cofie"


def test_a_name_is_one_name_in_every_spelling(client, database):
    assert register(client, DECOMPOSED).status_code == 201
    assert [row[1] for row in contents(database)["User"]] == [COMPOSED]
    assert log_in(client, COMPOSED).status_code == 202
    assert log_in(client, DECOMPOSED).status_code == 202
    assert client.get("/auth/status").json["username"] == COMPOSED
    response = register(client, COMPOSED)
    assert (response.status_code, response.json["message"]) == (403, "User existed")
    assert administration.find_user(database, DECOMPOSED).username == COMPOSED


@pytest.mark.parametrize("name", ["Alice", "aIice", "al\u0131ce", "a1ice", "\uff41lice"])
def test_a_name_that_looks_like_another_is_refused(client, signed_in, name):
    response = register(client, name)
    assert response.status_code == 403
    assert response.json["message"] == f"The name {name!r} looks like that of another user: choose a different one"


@pytest.mark.parametrize(
    ("name", "message"), [("\u0430lice", "CYRILLIC and LATIN"), ("bob\ufe0f", "invisible characters")]
)
def test_a_name_that_could_pass_for_any_other_is_refused(client, name, message):
    response = register(client, name)
    assert response.status_code == 400
    assert message in response.json["message"]


def test_a_local_user_may_be_called_as_somebody_of_keycloak(client, alice):
    assert register(client, "Alice").status_code == 201


@FILE
def test_of_those_who_register_names_that_look_alike_at_once_one_is_added(backend, database):
    names = ["alice", "Alice", "ALICE", "a1ice"]
    together = Barrier(len(names))

    def register_locally(name):
        together.wait(30)
        try:
            return users.register_user(backend, name, None).username
        except Conflict as error:
            return str(error)

    with ThreadPoolExecutor(len(names)) as pool:
        added = [answer for answer in pool.map(register_locally, names) if answer in names]
    assert len(added) == 1
    with pytest.raises(Conflict):
        users.ensure_user(backend, next(name for name in names if name not in added))


def test_users_of_an_older_version_go_on_by_their_names(client, database, backend):
    """They may look alike, or be spelled as names are not stored any more."""
    for number, name in enumerate((DECOMPOSED, "Alice", "alice")):
        user = users.register_user(backend, f"temporary {number}", PASSWORD)
        with database.writing() as connection:
            connection.execute(text('UPDATE "User" SET username = :name WHERE id = :id'), {"name": name, "id": user.id})
            connection.execute(text('UPDATE "YaptideUser" SET name_skeleton = NULL WHERE id = :id'), {"id": user.id})
    for name in (DECOMPOSED, "Alice", "alice"):
        assert log_in(client, name).status_code == 202
        assert client.get("/auth/status").json["username"] == name


def test_a_new_name_goes_by_the_same_rules(database, backend, signed_in, stranger):
    mallory = administration.find_user(database, "mallory")
    for name, error in (("Alice", Conflict), ("alice", Conflict), ("\u0430lice", InvalidInput)):
        with pytest.raises(error):
            administration.rename_user(database, mallory, name)
    administration.rename_user(database, mallory, DECOMPOSED)
    assert users.find_user(backend, COMPOSED).id == mallory.id
    assert users.register_user(backend, "mallory", None)


def test_a_short_password_is_refused_wherever_it_is_new(client, signed_in):
    for response in (
        register(client, "bob", "1234567"),
        signed_in.post("/user/update", json={"password": PASSWORD, "new_password": "1234567"}),
    ):
        assert (response.status_code, response.json["message"]) == (400, "A password must have at least 8 characters")


@FILE
def test_the_least_length_of_a_command_is_that_of_the_settings(yaptide, backend, monkeypatch):
    users.register_user(backend, "alice", PASSWORD)
    monkeypatch.setenv("YAPTIDE_MIN_PASSWORD_LENGTH", "20")
    for words in (("add", "bob"), ("passwd", "alice")):
        with pytest.raises(InvalidInput, match="at least 20"):
            yaptide("users", *words, "--password-on-command-line", PASSWORD)
    assert users.check_password(backend, "alice", PASSWORD)
