"""Queries for administrators: list, count and remove users, simulations and tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    and_,
    case,
    cast,
    delete,
    func,
    select,
    true,
    update,
)

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import ESTIMATOR, HISTORY, KEYCLOAK, LOGFILES, PAGE, SIMULATION, TASK, USER
from yaptide.persistence.queries.users import User


class Holdings(NamedTuple):
    """What a user owns: simulations, how many of them have not ended, and bytes of their payloads."""

    simulations: int
    open: int
    stored_bytes: int


class Owners(NamedTuple):
    """A user by id, or else (None) all users of a `provider` ("": of any)."""

    user_id: int | None = None
    provider: str = ""


class Contents(NamedTuple):
    """Contents of a simulation: state, numbers of rows, and bytes of its payloads."""

    job_state: EntityState
    tasks: int
    estimators: int
    pages: int
    logfiles: int
    stored_bytes: int


def users_named(connection: Connection, username: str) -> list[User]:
    """Return the users of this name, one for each way to sign in."""
    query = select(USER.c.id, USER.c.username, USER.c.auth_provider).where(USER.c.username == username)
    return [User(*row) for row in connection.execute(query.order_by(USER.c.auth_provider))]


def list_users(connection: Connection) -> list[Record]:
    """Return all users by name, with simulations, stored_bytes, quota_bytes (None: no limit).

    Users of Keycloak also have issuer and subject (None: not known, or a local user).
    """
    held = _held().group_by(SIMULATION.c.user_id).subquery()
    query = (
        select(
            *(USER.c.id, USER.c.username, USER.c.auth_provider),
            func.coalesce(held.c.simulations, 0).label("simulations"),
            func.coalesce(held.c.stored_bytes, 0).label("stored_bytes"),
            *(USER.c.quota_bytes, KEYCLOAK.c.issuer, KEYCLOAK.c.subject),
        )
        .join_from(USER, held, held.c.user_id == USER.c.id, isouter=True)
        .outerjoin(KEYCLOAK, KEYCLOAK.c.id == USER.c.id)
        .order_by(USER.c.username, USER.c.auth_provider)
    )
    return list(connection.execute(query))


def count_holdings(connection: Connection, user_id: int) -> Holdings:
    """Return what a user owns."""
    held = _held().where(SIMULATION.c.user_id == user_id).group_by(SIMULATION.c.user_id)
    row = connection.execute(held).first()
    return Holdings(0, 0, 0) if row is None else Holdings(row.simulations, row.open, row.stored_bytes)


def lock_simulations(connection: Connection, user_id: int) -> None:
    """Lock all simulations of a user, so that they do not change before the transaction ends."""
    connection.execute(
        select(SIMULATION.c.id).where(SIMULATION.c.user_id == user_id).order_by(SIMULATION.c.id).with_for_update()
    )


def _held() -> Select[Any]:
    ended = SIMULATION.c.job_state.in_(FINAL_STATES)
    return select(
        SIMULATION.c.user_id,
        func.count().label("simulations"),
        cast(func.sum(case((ended, 0), else_=1)), BigInteger).label("open"),
        cast(func.sum(SIMULATION.c.stored_bytes), BigInteger).label("stored_bytes"),
    )


def set_user_values(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Set `username` or `quota_bytes`; the database raises IntegrityError if the name is taken."""
    connection.execute(update(USER).where(USER.c.id == user_id).values(values))


def _owned_by(owners: Owners) -> ColumnElement[bool]:
    """Return the condition that a simulation belongs to one of the owners."""
    if owners.user_id is not None:
        return SIMULATION.c.user_id == owners.user_id
    if owners.provider:
        return SIMULATION.c.user_id.in_(select(USER.c.id).where(USER.c.auth_provider == owners.provider))
    return true()


def find_job_id(connection: Connection, simulation_id: int) -> str | None:
    """Return the job_id of the simulation with this row number, or None."""
    return connection.execute(select(SIMULATION.c.job_id).where(SIMULATION.c.id == simulation_id)).scalar()


def list_simulations(
    connection: Connection, owners: Owners, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """Return how many simulations of the owners are in these states (none: any), and the newest of them."""
    condition = _state_in(SIMULATION.c.job_state, states) & _owned_by(owners)
    total: int = connection.execute(select(func.count()).select_from(SIMULATION).where(condition)).scalar_one()
    columns = ("title", "sim_type", "platform", "job_state", "start_time", "end_time", "stored_bytes")
    query = (
        select(SIMULATION.c.job_id, USER.c.username, USER.c.auth_provider)
        .add_columns(*(SIMULATION.c[name] for name in columns))
        .join_from(SIMULATION, USER, USER.c.id == SIMULATION.c.user_id)
        .where(condition)
        .order_by(SIMULATION.c.start_time.desc(), SIMULATION.c.id.desc())
        .limit(limit)
    )
    return total, list(connection.execute(query))


def count_contents(connection: Connection, simulation_id: int) -> Contents:
    """Return the contents of a simulation."""
    pages = select(func.count()).join_from(PAGE, ESTIMATOR).where(ESTIMATOR.c.simulation_id == simulation_id)
    counts = (
        _count(TASK.c.simulation_id == simulation_id),
        _count(ESTIMATOR.c.simulation_id == simulation_id),
        pages.scalar_subquery(),
        _count(LOGFILES.c.simulation_id == simulation_id),
    )
    query = select(SIMULATION.c.job_state, *counts, SIMULATION.c.stored_bytes)
    return Contents(*connection.execute(query.where(SIMULATION.c.id == simulation_id)).one())


def list_tasks(
    connection: Connection, job_id: str | None, owners: Owners, states: Sequence[EntityState], limit: int
) -> tuple[int, list[Record]]:
    """Return how many tasks of a simulation (None: of all) are in these states (none: any), and the first of them.

    Only of simulations of the owners. Ordered by simulation, newest first, and by number.
    """
    condition = _state_in(TASK.c.task_state, states) & _owned_by(owners)
    if job_id is not None:
        condition &= SIMULATION.c.job_id == job_id
    joined = TASK.join(SIMULATION, SIMULATION.c.id == TASK.c.simulation_id)
    total: int = connection.execute(select(func.count()).select_from(joined).where(condition)).scalar_one()
    columns = ("task_state", "requested_primaries", "simulated_primaries", "start_time", "end_time", "last_update_time")
    query = (
        select(SIMULATION.c.job_id, TASK.c.task_id, *(TASK.c[name] for name in columns), TASK.c.attempts)
        .select_from(joined)
        .where(condition)
        .order_by(TASK.c.simulation_id.desc(), TASK.c.task_id)
        .limit(limit)
    )
    return total, list(connection.execute(query))


def history_of_task(connection: Connection, simulation_id: int, task_id: int) -> int:
    """Count the rows of the history of a task."""
    return int(connection.execute(select(_count(_about(simulation_id, task_id)))).scalar_one())


def remove_task(connection: Connection, simulation_id: int, task_id: int) -> None:
    """Remove a task and its history."""
    row = and_(TASK.c.simulation_id == simulation_id, TASK.c.task_id == task_id)
    connection.execute(delete(TASK).where(row))
    connection.execute(delete(HISTORY).where(_about(simulation_id, task_id)))


def _about(simulation_id: int, task_id: int) -> ColumnElement[bool]:
    return and_(HISTORY.c.simulation_id == simulation_id, HISTORY.c.task_id == task_id)


def _state_in(column: ColumnElement[Any], states: Sequence[EntityState]) -> ColumnElement[bool]:
    return column.in_(states) if states else true()


def _count(condition: ColumnElement[bool], *correlated: Any) -> ScalarSelect[int]:
    return select(func.count()).where(condition).correlate(*correlated).scalar_subquery()
