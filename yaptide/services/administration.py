"""Operations of administrators on users, simulations and tasks, from inside or outside a container.

They need only the database, which is their first argument, and load only SQLAlchemy: `yaptide/admin/db_manage.py` also
works where little is installed. The operations of users call these where both do the same.

Functions that remove something are given what was shown before (`seen`), and remove exactly that or nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from yaptide.domain import names
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import Database, Record, explain_rejection, retry_contended
from yaptide.persistence.models.users import YAPTIDE_USER
from yaptide.persistence.queries import (
    administration as queries,
    secrets,
    simulations,
    tasks,
    tokens,
    transitions,
    users,
)
from yaptide.persistence.queries.administration import Contents, Holdings, Owners
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.persistence.queries.users import Subject, User
from yaptide.services import lifecycle, passwords
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import utc_now

T = TypeVar("T")

#: Actor in the history for administrators.
OPERATOR = "operator"

#: Provider of users with a password stored in this database.
LOCAL = YAPTIDE_USER

MAX_NAME = 128
_MAX_ROW = 2**31

#: Whatever the present password is; no hash looks like this.
ANY_HASH = ""

_CHANGED = "It has changed in the meantime, and nothing was removed; check it again"
_MERGING = frozenset({EntityState.MERGING_QUEUED, EntityState.MERGING_RUNNING})


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends with a change of the password: sessions, except the one to `keep`, and API tokens."""

    sessions: bool = True
    tokens: bool = False
    keep: str | None = None


def check_name(name: str, kind: str = "user") -> None:
    """Raise InvalidInput unless `name` is a valid name of a user or a cluster."""
    if not name or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise InvalidInput(f"A {kind} name must have 1 to {MAX_NAME} printable characters, and no space at its ends")


def check_new_name(name: str) -> str:
    """Return the normal form of a name for a local user; raise InvalidInput for one that could pass for another."""
    name = names.normalize_name(name)
    check_name(name)
    if names.has_unseen(name):
        raise InvalidInput("A user name must not contain invisible characters")
    scripts = names.list_scripts(name)
    if len(scripts) > 1:
        raise InvalidInput(f"A user name must use letters of one script, not of {' and '.join(scripts)}")
    return name


def list_users(database: Database) -> list[Record]:
    """Return all users by name, with the number of their simulations, their bytes, and the quota."""
    with database.reading() as connection:
        return queries.list_users(connection)


def find_user(database: Database, username: str, provider: str = "") -> User:
    """Return the user with this name (of this provider, if given).

    Raises NotFound, or Conflict if one of each provider has this name.
    """
    if not username.isprintable():  # no user has such a name, and not every database accepts it
        raise NotFound("There is no such user")
    with database.reading() as connection:
        candidates = queries.users_named(connection, username) or queries.users_named(
            connection, names.normalize_name(username)
        )
    matching = [user for user in candidates if provider in ("", user.auth_provider)]
    if not matching:
        raise NotFound(f"There is no user {username!r}" + (f" of {provider}" if provider else ""))
    if len(matching) > 1:
        providers = " or ".join(user.auth_provider for user in matching)
        raise Conflict(f"There are two users {username!r}: say which one with --provider {providers}")
    return matching[0]


def read_certificate(database: Database, user: User) -> str | None:
    """Return the stored SSH certificate of a user, or None."""
    with database.reading() as connection:
        credentials = secrets.find_credentials(connection, user.id)
    return credentials.cert if credentials is not None else None


def add_user(
    database: Database,
    username: str,
    password: str | None,
    quota: int | None = None,
    least_password: int = passwords.LEAST,
    queue: passwords.Queue = passwords.KNOWN,
) -> User:
    """Add a local user; without a password the user cannot sign in until one is set.

    Raises InvalidInput for an invalid name or a password that is rejected or shorter than `least_password`, Conflict if
    the name is taken or looks like another, Busy.
    """
    username = check_new_name(username)
    password_hash = None if password is None else _new_hash(password, least_password, queue)
    taken = explain_rejection(lambda _: _taken(database, username, "User existed"))
    with taken, database.writing() as connection:
        user = users.add_local(connection, username, password_hash)
        if quota is not None:
            queries.set_user_values(connection, user.id, {"quota_bytes": quota})
    return user


def _new_hash(password: str, least: int, queue: passwords.Queue = passwords.KNOWN) -> str:
    passwords.check_new(password, least)
    return passwords.make_hash(password, queue)


def _taken(database: Database, username: str, message: str) -> Conflict:
    """Return the reason why a name is not available: it is taken (`message`), or looks like another."""
    with database.reading() as connection:
        if users.local_user(connection, username) is None:
            message = f"The name {username!r} looks like that of another user: choose a different one"
    return Conflict(message)


@retry_contended
def set_password(
    database: Database,
    user: User,
    password: str,
    least_password: int = passwords.LEAST,
    ending: Ending = Ending(),
    instead_of: str | None = ANY_HASH,
) -> bool:
    """Set the password of a local user and end what `ending` says; all sessions, unless it is given.

    With `instead_of`, the hash of the present password (None: there is none), nothing happens if it is another one;
    returns whether the password was set.

    Raises InvalidInput for a password that is rejected or shorter than `least_password`, Conflict for a Keycloak user.
    """
    if user.auth_provider != YAPTIDE_USER:
        raise Conflict(f"{user.username} signs in through Keycloak and has no password here")
    password_hash = _new_hash(password, least_password)
    with database.writing() as connection:
        users.lock_user(connection, user.id)
        if instead_of not in (ANY_HASH, users.password_hash(connection, user.id)):
            return False
        users.set_password(connection, user.id, password_hash)
        if ending.sessions:
            users.end_sessions(connection, user.id, keep=ending.keep)
        if ending.tokens:
            tokens.remove_tokens(connection, user.id)
    return True


def rename_user(database: Database, user: User, username: str) -> None:
    """Rename a user; raise InvalidInput for an invalid name, Conflict for one that is taken.

    A local user's name must not look like another one either. A Keycloak user gets the name from Keycloak again at the
    next sign-in; until then the old name is available to others.
    """
    if user.is_keycloak:
        check_name(username)
    else:
        username = check_new_name(username)
    message = f"User {username!r} already exists"
    taken = explain_rejection(lambda _: Conflict(message) if user.is_keycloak else _taken(database, username, message))
    with taken, database.writing() as connection:
        users.rename_user(connection, user, username)


def chosen_subject(database: Database, user: User, subject: str, issuer: str) -> Subject | None:
    """Return the Keycloak identity given by `subject`, in the account's realm if `issuer` is empty.

    Returns None without `subject`. Raises InvalidInput for incomplete values.
    """
    if not subject:
        if issuer:
            raise InvalidInput("--issuer needs --subject as well")
        return None
    with database.reading() as connection:
        issuer = issuer.rstrip("/") or users.subject_of(connection, user.id).issuer or ""
    if not issuer:
        raise InvalidInput("This account has not been used yet: give the realm with --issuer")
    if not (subject.isprintable() and issuer.isprintable()):
        raise InvalidInput("--subject and --issuer must be printable")
    return Subject(issuer.replace("/auth/realms/", "/realms/"), subject)


@retry_contended
def link_user(database: Database, user: User, subject: Subject | None) -> None:
    """Link a Keycloak account to `subject`; None: to the next user who signs in with its name.

    Its sessions and API tokens end, and its SSH credentials are removed. Raises NotFound, or Conflict for a local
    account or if `subject` has another account.
    """
    if not user.is_keycloak:
        raise Conflict(f"{user.username} signs in with a local password, not through Keycloak")
    taken = Conflict("This Keycloak user already has an account: see `yaptide users list --json`")
    with explain_rejection(lambda _: taken), database.writing() as connection:
        if not users.lock_user(connection, user.id):
            raise NotFound(f"There is no user {user.username!r}")
        users.link_account(connection, user.id, subject)
        users.end_sessions(connection, user.id)
        tokens.remove_tokens(connection, user.id)


def set_quota(database: Database, user: User, quota: int | None) -> None:
    """Limit the bytes of a user's simulations; None: no limit. Stored data is not removed."""
    with database.writing() as connection:
        queries.set_user_values(connection, user.id, {"quota_bytes": quota})


def count_holdings(database: Database, user: User) -> Holdings:
    """Return what would be removed with a user."""
    with database.reading() as connection:
        return queries.count_holdings(connection, user.id)


@retry_contended
def remove_user(database: Database, user: User, seen: Holdings) -> None:
    """Remove a user with all simulations; raise NotFound, or Conflict if they are no longer what was `seen`."""
    with database.writing() as connection:
        if not users.lock_user(connection, user.id):
            raise NotFound(f"There is no user {user.username!r}")
        queries.lock_simulations(connection, user.id)
        if queries.count_holdings(connection, user.id) != seen:
            raise Conflict(_CHANGED)
        users.remove_user(connection, user.id)


def list_simulations(
    database: Database, owners: Owners, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """Return how many simulations of the owners are in these states, and the newest of them."""
    with database.reading() as connection:
        return queries.list_simulations(connection, owners, states, limit)


def find_owners(database: Database, username: str, provider: str) -> Owners:
    """Return the user of this name, or else all users of the provider ("": of any); raise as `find_user` does."""
    return Owners(find_user(database, username, provider).id if username else None, provider)


def find_job_id(database: Database, number: str) -> str:
    """Return the job_id of the simulation with this job_id, or else with this row number; raise NotFound."""
    with database.reading() as connection:
        if simulations.by_job(connection, _job(number)) is not None:
            return number
        simulation_id = int(number) if number.isdecimal() and int(number) < _MAX_ROW else None
        return _require(None if simulation_id is None else queries.find_job_id(connection, simulation_id))


def count_contents(database: Database, job_id: str) -> Contents:
    """Return what would be removed with a simulation; raise NotFound."""
    with database.reading() as connection:
        return queries.count_contents(connection, _require(simulations.by_job(connection, _job(job_id))).id)


@retry_contended
def remove_simulation(database: Database, job_id: str, seen: Contents, *, force: bool = False) -> None:
    """Remove a simulation with everything about it.

    Raises NotFound, or Conflict if it is no longer what was `seen`, or if its tasks may still run and `force` is not
    set. Workers learn of it from the response to their next report.
    """
    with database.writing() as connection:
        simulation = _require(transitions.lock_job(connection, _job(job_id)))
        if queries.count_contents(connection, simulation.id) != seen:
            raise Conflict(_CHANGED)
        if force:
            simulations.remove_simulation(connection, simulation.id)
        elif not lifecycle.remove_simulation(connection, simulation):
            raise Conflict(f"It is {simulation.job_state}: cancel it first, or remove it with --force")


def list_tasks(
    database: Database, job_id: str | None, owners: Owners, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """Return how many tasks of a simulation (None: of all) are in these states, and the first ones; raise NotFound.

    Only of simulations of the owners.
    """
    with database.reading() as connection:
        if job_id is not None:
            _require(simulations.by_job(connection, _job(job_id)))
        return queries.list_tasks(connection, job_id, owners, states, limit)


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task (row of `queries.tasks.list_status`), and the number of its rows in the history."""

    task: Any
    history: int


def find_task(database: Database, job_id: str, task_id: int) -> TaskSeen:
    """Return what would be removed with a task; raise NotFound."""
    with database.reading() as connection:
        simulation = _require(simulations.by_job(connection, _job(job_id)))
        return _task(connection, simulation.id, task_id)


@retry_contended
def remove_task(database: Database, job_id: str, task_id: int, seen: TaskSeen) -> None:
    """Remove a task and its history, which is noted in the history of the simulation.

    Stored results do not change, even if they include results of the task. Results that are merged later do not. Raises
    NotFound, or Conflict

    - if the task has not ended: it may be running;
    - while the results are merged: the merge includes the task;
    - if it is the only one: a simulation without tasks would never end;
    - if it is no longer what was `seen`.
    """
    with database.writing() as connection:
        simulation = _require(transitions.lock_job(connection, _job(job_id)))
        current = _task(connection, simulation.id, task_id)
        if current != seen:
            raise Conflict(_CHANGED)
        _check_removable(simulation, current, sum(tasks.count_states(connection, simulation.id).values()))
        queries.remove_task(connection, simulation.id, task_id)
        transitions.add_audit_note(connection, simulation.id, Audit(OPERATOR, utc_now(), f"task {task_id} was removed"))


def _check_removable(simulation: Locked, seen: TaskSeen, count: int) -> None:
    if simulation.job_state in _MERGING:
        raise Conflict(f"The simulation is {simulation.job_state}: its tasks cannot be removed until it has ended")
    if simulation.job_state not in FINAL_STATES and seen.task.task_state not in FINAL_STATES:
        raise Conflict(f"Task {seen.task.task_id} is {seen.task.task_state}: cancel the simulation first")
    if count == 1:
        raise Conflict("This is the only task: remove the simulation instead")


def _job(job_id: str) -> str:
    if not job_id.isprintable():  # no simulation has such an id, and not every database accepts it
        raise NotFound(NO_SUCH_JOB)
    return job_id


def _require(simulation: T | None) -> T:
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    return simulation


def _task(connection: Connection, simulation_id: int, task_id: int) -> TaskSeen:
    status = tasks.find_task(connection, simulation_id, task_id)
    if status is None:
        raise NotFound(f"The simulation has no task {task_id}")
    return TaskSeen(status, queries.history_of_task(connection, simulation_id, task_id))
