"""What an administrator does to users, simulations and tasks, from inside or outside a container.

These operations need nothing but the database, which is their first argument, and load nothing but SQLAlchemy:
`yaptide/admin/db_manage.py` works where little is installed. Where they overlap with what users do, those call these.

Whatever removes is told what was shown before (`seen`), and removes that or nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide.domain import names
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import Database, Record, retry_contended
from yaptide.persistence.models.users import YAPTIDE_USER
from yaptide.persistence.queries import administration as queries, secrets, simulations, tasks, transitions, users
from yaptide.persistence.queries.administration import Contents, Holdings
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.persistence.queries.users import Subject, User
from yaptide.services import lifecycle, passwords
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import utc_now

T = TypeVar("T")

#: In the history: whoever administers the database.
OPERATOR = "operator"

#: Provider of users with a password kept here.
LOCAL = YAPTIDE_USER

MAX_NAME = 128

_CHANGED = "It has changed since it was looked at, and nothing was removed; look again"
_MERGING = frozenset({EntityState.MERGING_QUEUED, EntityState.MERGING_RUNNING})


def check_name(name: str, whose: str = "user") -> None:
    """Raise InvalidInput unless `name` can be the name of a user or a cluster."""
    if not name or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise InvalidInput(f"A {whose} name has 1 to {MAX_NAME} printable characters and no space at its ends")


def check_new_name(name: str) -> str:
    """A name for a local user as it is stored; raises InvalidInput for one that could pass for another."""
    name = names.composed(name)
    check_name(name)
    if names.has_unseen(name):
        raise InvalidInput("A user name has no characters that cannot be seen")
    scripts = names.scripts(name)
    if len(scripts) > 1:
        raise InvalidInput(f"A user name has letters of one script, not of {' and '.join(scripts)}")
    return name


def list_users(database: Database) -> list[Record]:
    """All users by name, with the number of their simulations, the bytes these take, and the quota."""
    with database.reading() as connection:
        return queries.list_users(connection)


def find_user(database: Database, username: str, provider: str = "") -> User:
    """The user of this name (of this provider, if given).

    Raises NotFound, and Conflict if one of each provider has this name.
    """
    if not username.isprintable():  # no user has such a name, and not every database takes it
        raise NotFound("There is no such user")
    with database.reading() as connection:
        named = queries.users_named(connection, username) or queries.users_named(connection, names.composed(username))
    found = [user for user in named if provider in ("", user.auth_provider)]
    if not found:
        raise NotFound(f"There is no user {username!r}" + (f" of {provider}" if provider else ""))
    if len(found) > 1:
        providers = " or ".join(user.auth_provider for user in found)
        raise Conflict(f"There are two users {username!r}: say which one with --provider {providers}")
    return found[0]


def read_certificate(database: Database, user: User) -> str | None:
    """The SSH certificate that is stored of a user, None if there is none."""
    with database.reading() as connection:
        found = secrets.find_credentials(connection, user.id)
    return found.cert if found is not None else None


def add_user(
    database: Database,
    username: str,
    password: str | None,
    quota: int | None = None,
    least_password: int = passwords.LEAST,
    queue: passwords.Queue = passwords.KNOWN,
) -> User:
    """Add a local user; without a password they cannot sign in until they are given one.

    Raises InvalidInput for an unusable name or a password that is no good or has less than `least_password` characters,
    Conflict if the name is taken or looks like one that is, Busy.
    """
    username = check_new_name(username)
    password_hash = None if password is None else _new_hash(password, least_password, queue)
    try:
        with database.writing() as connection:
            user = users.add_local(connection, username, password_hash)
            if quota is not None:
                queries.set_user_values(connection, user.id, {"quota_bytes": quota})
    except IntegrityError:
        raise _taken(database, username, "User existed") from None
    return user


def _new_hash(password: str, least: int, queue: passwords.Queue = passwords.KNOWN) -> str:
    passwords.check_new(password, least)
    return passwords.make_hash(password, queue)


def _taken(database: Database, username: str, message: str) -> Conflict:
    """Why a name cannot be had: it is taken, which has a `message` of its own, or looks like one that is."""
    with database.reading() as connection:
        if users.local_user(connection, username) is None:
            message = f"The name {username!r} looks like that of another user: choose one that differs more"
    return Conflict(message)


@retry_contended
def set_password(database: Database, user: User, password: str, least_password: int = passwords.LEAST) -> None:
    """Give a local user another password and end their sessions.

    Raises InvalidInput for a password that is no good or has less than `least_password` characters, Conflict if the
    user signs in elsewhere.
    """
    if user.auth_provider != YAPTIDE_USER:
        raise Conflict(f"{user.username} signs in through Keycloak and has no password here")
    password_hash = _new_hash(password, least_password)
    with database.writing() as connection:
        users.set_password(connection, user.id, password_hash)
        users.end_sessions(connection, user.id)


def rename_user(database: Database, user: User, username: str) -> None:
    """Give a user another name; raises InvalidInput for an unusable one, Conflict for one that is taken.

    For a local user that goes for what looks like one that is taken, too. One of Keycloak is again called what they are
    called there when they sign in next; until then the name is free for somebody else.
    """
    if user.is_keycloak:
        check_name(username)
    else:
        username = check_new_name(username)
    message = f"There is a user {username!r} already"
    try:
        with database.writing() as connection:
            users.rename(connection, user, username)
    except IntegrityError:
        raise (Conflict(message) if user.is_keycloak else _taken(database, username, message)) from None


def chosen_subject(database: Database, user: User, subject: str, issuer: str) -> Subject | None:
    """Whom an operator means by an ID at Keycloak, in the realm that the account has if no `issuer` is given.

    None without an ID. Raises InvalidInput for half of it.
    """
    if not subject:
        if issuer:
            raise InvalidInput("--issuer says in which realm the user of --subject is: give that as well")
        return None
    with database.reading() as connection:
        issuer = issuer.rstrip("/") or users.subject_of(connection, user.id).issuer or ""
    if not issuer:
        raise InvalidInput("Nobody has signed in to this account yet: say with --issuer which realm the user is in")
    if not (subject.isprintable() and issuer.isprintable()):
        raise InvalidInput("--subject and --issuer are printable")
    return Subject(issuer.replace("/auth/realms/", "/realms/"), subject)


@retry_contended
def link_user(database: Database, user: User, subject: Subject | None) -> None:
    """Have an account of Keycloak belong to another user there; None: to whoever signs in next by its name.

    Its sessions end, and its SSH credentials, which are somebody's own, are removed. Raises NotFound, Conflict if it is
    no account of Keycloak or if that user has another one.
    """
    if not user.is_keycloak:
        raise Conflict(f"{user.username} signs in with a password kept here, not through Keycloak")
    try:
        with database.writing() as connection:
            if not users.lock_user(connection, user.id):
                raise NotFound(f"There is no user {user.username!r}")
            users.link_account(connection, user.id, subject)
            users.end_sessions(connection, user.id)
    except IntegrityError:
        raise Conflict("That user of Keycloak has an account already: see `yaptide users list --json`") from None


def set_quota(database: Database, user: User, quota: int | None) -> None:
    """Limit the bytes that a user's simulations may take; None: no limit. What is stored already stays."""
    with database.writing() as connection:
        queries.set_user_values(connection, user.id, {"quota_bytes": quota})


def count_holdings(database: Database, user: User) -> Holdings:
    """What goes with a user who is removed."""
    with database.reading() as connection:
        return queries.count_holdings(connection, user.id)


@retry_contended
def remove_user(database: Database, user: User, seen: Holdings) -> None:
    """Remove a user with all their simulations; raises NotFound, Conflict if they are no longer what was `seen`."""
    with database.writing() as connection:
        if not users.lock_user(connection, user.id):
            raise NotFound(f"There is no user {user.username!r}")
        queries.lock_simulations(connection, user.id)
        if queries.count_holdings(connection, user.id) != seen:
            raise Conflict(_CHANGED)
        users.remove_user(connection, user.id)


def list_simulations(
    database: Database, user: User | None, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """How many simulations of the user (None: of all) there are in these states, and the newest of them."""
    with database.reading() as connection:
        return queries.list_simulations(connection, None if user is None else user.id, states, limit)


def count_contents(database: Database, job_id: str) -> Contents:
    """What goes with a simulation that is removed; raises NotFound."""
    with database.reading() as connection:
        return queries.count_contents(connection, _found(simulations.by_job(connection, _job(job_id))).id)


@retry_contended
def remove_simulation(database: Database, job_id: str, seen: Contents, *, force: bool = False) -> None:
    """Remove a simulation with everything about it.

    Raises NotFound, and Conflict if it is no longer what was `seen`, or if its tasks may still run, unless by `force`:
    their workers then find out at their next report.
    """
    with database.writing() as connection:
        simulation = _found(transitions.lock_job(connection, _job(job_id)))
        if queries.count_contents(connection, simulation.id) != seen:
            raise Conflict(_CHANGED)
        if force:
            simulations.remove_simulation(connection, simulation.id)
        elif not lifecycle.remove_simulation(connection, simulation):
            raise Conflict(f"It is {simulation.job_state}: cancel it first, or remove it with --force")


def list_tasks(
    database: Database, job_id: str | None, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """How many tasks a simulation (None: all of them) has in these states, and the first of them; raises NotFound."""
    with database.reading() as connection:
        if job_id is not None:
            _found(simulations.by_job(connection, _job(job_id)))
        return queries.list_tasks(connection, job_id, states, limit)


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task (row of `queries.tasks.list_status`), and how many rows of the history are about it."""

    task: Any
    history: int


def find_task(database: Database, job_id: str, task_id: int) -> TaskSeen:
    """What goes with a task that is removed; raises NotFound."""
    with database.reading() as connection:
        simulation = _found(simulations.by_job(connection, _job(job_id)))
        return _task(connection, simulation.id, task_id)


@retry_contended
def remove_task(database: Database, job_id: str, task_id: int, seen: TaskSeen) -> None:
    """Remove a task of a simulation and its history, which is noted in the history of the simulation.

    Results that are stored stay as they are, also if they hold the scores of the task. Those of a simulation that has
    not ended will be without them. Raises NotFound, and Conflict

    - if the task has not ended: somebody may run it;
    - while the results are merged: the task is counted on;
    - if it is the only one: a simulation without tasks would never end;
    - if it is no longer what was `seen`.
    """
    with database.writing() as connection:
        simulation = _found(transitions.lock_job(connection, _job(job_id)))
        found = _task(connection, simulation.id, task_id)
        if found != seen:
            raise Conflict(_CHANGED)
        _check_removable(simulation, found, sum(tasks.count_states(connection, simulation.id).values()))
        queries.remove_task(connection, simulation.id, task_id)
        transitions.add_audit_note(connection, simulation.id, Audit(OPERATOR, utc_now(), f"task {task_id} was removed"))


def _check_removable(simulation: Locked, seen: TaskSeen, count: int) -> None:
    if simulation.job_state in _MERGING:
        raise Conflict(f"The simulation is {simulation.job_state}: its tasks are counted on until it has ended")
    if simulation.job_state not in FINAL_STATES and seen.task.task_state not in FINAL_STATES:
        raise Conflict(f"Task {seen.task.task_id} is {seen.task.task_state}: cancel the simulation first")
    if count == 1:
        raise Conflict("It is the only task: remove the simulation instead")


def _job(job_id: str) -> str:
    if not job_id.isprintable():  # no simulation has such a name, and not every database takes it
        raise NotFound(NO_SUCH_JOB)
    return job_id


def _found(simulation: T | None) -> T:
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    return simulation


def _task(connection: Connection, simulation_id: int, task_id: int) -> TaskSeen:
    found = tasks.find_task(connection, simulation_id, task_id)
    if found is None:
        raise NotFound(f"The simulation has no task {task_id}")
    return TaskSeen(found, queries.history_of_task(connection, simulation_id, task_id))
