"""Queries about tasks. Progress is one statement; transitions are in `yaptide.persistence.queries.transitions`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Enum,
    Insert,
    Integer,
    String,
    Update,
    bindparam,
    case,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)

from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models.base import UtcDateTime
from yaptide.persistence.models.simulations import FILES, OPEN
from yaptide.persistence.models.tables import CELERY_TASK, SIMULATION, TASK
from yaptide.persistence.models.tasks import WAITING
from yaptide.persistence.queries import json_rows

#: Tasks that yaptide's own runners can take: they need input files. Projects that were not converted have no seeds and
#: are for external workers, which choose their own.
FOR_OURS = (SIMULATION.c.input_type == FILES) | TASK.c.seed.is_not(None)

ONE_MORE_ATTEMPT = TASK.c.attempts + 1
ONE_ATTEMPT_LESS = TASK.c.attempts - 1


def grown_progress(simulated: ColumnElement[Any], requested: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the larger progress, at most what was requested.

    The database computes it, because several processes may report on the same task at the same time.
    """
    return case(
        (simulated <= TASK.c.simulated_primaries, TASK.c.simulated_primaries),
        (simulated > requested, requested),
        else_=simulated,
    )


def _progress(simulated: ColumnElement[Any], estimated: ColumnElement[Any]) -> Update:
    return update(TASK).values(
        simulated_primaries=grown_progress(simulated, TASK.c.requested_primaries),
        estimated_time=func.coalesce(estimated, TASK.c.estimated_time),
        last_update_time=bindparam("now"),
        heartbeat_time=bindparam("now"),
    )


_RUNNING = (TASK.c.simulation_id == bindparam("simulation")) & (TASK.c.task_state == EntityState.RUNNING)
_THIS = _RUNNING & (TASK.c.task_id == bindparam("task"))
_PROGRESS = _progress(bindparam("simulated"), bindparam("estimated"))
_KEY_FITS = (
    select(SIMULATION.c.id)
    .where(
        SIMULATION.c.id == bindparam("simulation"),
        SIMULATION.c.update_key_hash == bindparam("key"),
        OPEN,
    )
    .exists()
)
#: Not leased: yaptide's own runners have a lease, and report with it.
_FREE = TASK.c.owner.is_(None)
_PROGRESS_BY_KEY = _PROGRESS.where(_THIS, _KEY_FITS, _FREE)
_OWNED = TASK.c.owner == bindparam("by")
_PROGRESS_BY_OWNER = _PROGRESS.where(_THIS, _OWNED)
_PROGRESS_BY_BOTH = _PROGRESS.where(_THIS, _KEY_FITS, _OWNED)
_HEARTBEAT = update(TASK).where(_THIS, _OWNED).values(heartbeat_time=bindparam("now"))
_STATUS = (
    select(
        *(TASK.c.task_id, TASK.c.task_state, TASK.c.requested_primaries, TASK.c.simulated_primaries),
        *(TASK.c.start_time, TASK.c.end_time, TASK.c.last_update_time, TASK.c.estimated_time),
    )
    .where(TASK.c.simulation_id == bindparam("simulation"))
    .order_by(TASK.c.task_id)
)
#: The same as returned by the driver: states as text, and times in UTC, without a time zone on SQLite.
_POLLED = _STATUS.with_only_columns(
    *(
        type_coerce(column, DateTime() if isinstance(column.type, UtcDateTime) else String()).label(column.name)
        if isinstance(column.type, UtcDateTime | Enum)
        else column
        for column in _STATUS.selected_columns
    )
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a task until it ends or the lease is revoked. Each run of a task has its own `owner`."""

    simulation_id: int
    task_id: int
    owner: str


@dataclass(frozen=True, slots=True)
class Claim(Lease):
    """A leased task: its input and the number of this attempt."""

    job_id: str
    sim_type: str
    primaries: int
    seed: int
    attempt: int


def add_tasks(connection: Connection, simulation_id: int, platform: str, new: Sequence[Mapping[str, Any]]) -> None:
    """Insert waiting tasks of a simulation, each with `task_id`, `requested_primaries` and `seed`."""
    values = {"simulation": simulation_id, "platform": platform, "rows": json_rows.json_rows(new)}
    connection.execute(_add(connection.dialect.name), values)


@cache
def _add(dialect: str) -> Insert:
    new = json_rows.json_table(dialect, task_id=Integer(), requested_primaries=BigInteger(), seed=BigInteger())
    common = {
        "simulation_id": bindparam("simulation", type_=Integer()),
        "platform": bindparam("platform", type_=TASK.c.platform.type),
        "task_state": literal(EntityState.PENDING, TASK.c.task_state.type),
        "simulated_primaries": literal(0),
        "attempts": literal(0),
    }
    return insert(TASK).from_select([*new.c.keys(), *common], select(*new.c, *common.values()), include_defaults=False)


def progress_by_key(
    connection: Connection,
    *,
    simulation: int,
    task: int,
    key: str,
    simulated: int,
    estimated: int | None,
    now: datetime,
) -> bool:
    """Record progress of a running task for a worker with the simulation's update key (`key`: its hash).

    Returns False and changes nothing if the key is wrong, the task is not running, or the task is leased.
    """
    values = {"simulation": simulation, "task": task, "key": key, "simulated": simulated}
    values |= {"estimated": estimated, "now": now}
    return connection.execute(_PROGRESS_BY_KEY, values).rowcount == 1


def progress_of_many(
    connection: Connection, simulation_id: int, reports: Sequence[tuple[int, int, int | None]], now: datetime
) -> None:
    """Record progress of running tasks of a locked simulation: number, simulated primaries, estimated time of each."""
    rows = [{"task": task, "simulated": simulated, "estimated": estimated} for task, simulated, estimated in reports]
    if rows:
        values = {"simulation": simulation_id, "now": now, "rows": json_rows.json_rows(rows)}
        connection.execute(_progress_of_many(connection.dialect.name), values)


@cache
def _progress_of_many(dialect: str) -> Update:
    reports = json_rows.json_table(dialect, task=Integer(), simulated=BigInteger(), estimated=Integer())
    return _progress(reports.c.simulated, reports.c.estimated).where(_RUNNING, TASK.c.task_id == reports.c.task)


def progress_by_owner(
    connection: Connection,
    lease: Lease,
    simulated: int,
    estimated: int | None,
    now: datetime,
    proof: Mapping[str, Any] | None = None,
) -> bool:
    """Record progress of a task for the owner of its lease; False if the lease has been revoked.

    `proof` has the `key`, as in `progress_by_key`, which remote workers must present as well.
    """
    values = {**_names(lease), "simulated": simulated, "estimated": estimated, "now": now, **(proof or {})}
    return connection.execute(_PROGRESS_BY_BOTH if proof else _PROGRESS_BY_OWNER, values).rowcount == 1


def beat_leases(connection: Connection, leases: Sequence[Lease], now: datetime) -> None:
    """Record a heartbeat for these leases."""
    if leases:
        connection.execute(_HEARTBEAT, [{**_names(lease), "now": now} for lease in leases])


def _names(lease: Lease) -> dict[str, Any]:
    return {"simulation": lease.simulation_id, "task": lease.task_id, "by": lease.owner}


def list_status(connection: Connection, simulation_id: int) -> list[Record]:
    """Return the columns for users of all tasks of a simulation, by number."""
    return list(connection.execute(_STATUS, {"simulation": simulation_id}).all())


def list_polled(connection: Connection, simulation_id: int) -> list[Record]:
    """Return the same as `list_status` for JSON: states are text, and times may lack their time zone (UTC)."""
    return list(connection.execute(_POLLED, {"simulation": simulation_id}).all())


def find_task(connection: Connection, simulation_id: int, task_id: int) -> Record | None:
    """Return the state, counts, times and owner of a task, or None."""
    query = _STATUS.add_columns(TASK.c.owner).where(TASK.c.task_id == task_id)
    return connection.execute(query, {"simulation": simulation_id}).first()


def state_of_each(connection: Connection, simulation_id: int) -> dict[int, EntityState]:
    """Return the state of each task of a simulation by its number."""
    query = select(TASK.c.task_id, TASK.c.task_state).where(TASK.c.simulation_id == simulation_id)
    return {number: state for number, state in connection.execute(query)}  # noqa: C416 - a Row is not a pair to mypy


def states_and_leases(connection: Connection, simulation_id: int) -> tuple[dict[int, EntityState], set[int]]:
    """Return the state of each task of a simulation by its number, and which of them are or were leased."""
    query = select(TASK.c.task_id, TASK.c.task_state, TASK.c.owner).where(TASK.c.simulation_id == simulation_id)
    rows = connection.execute(query).all()
    states = {number: state for number, state, _ in rows}
    return states, {number for number, _, owner in rows if owner is not None}


def sum_primaries(connection: Connection, job_ids: Sequence[str]) -> list[Record]:
    """Return job_id, simulated and requested primaries of simulations, summed over their tasks."""
    these = json_rows.is_among(SIMULATION.c.job_id, connection.dialect.name)
    sums = func.sum(TASK.c.simulated_primaries), func.sum(TASK.c.requested_primaries)
    query = select(SIMULATION.c.job_id, *sums).join(TASK, TASK.c.simulation_id == SIMULATION.c.id)
    return list(connection.execute(query.where(these).group_by(SIMULATION.c.job_id), {"values": job_ids}).all())


def count_states(connection: Connection, simulation_id: int) -> dict[EntityState, int]:
    """Count the tasks of a simulation in each state."""
    query = select(TASK.c.task_state, func.count()).where(TASK.c.simulation_id == simulation_id)
    rows = connection.execute(query.group_by(TASK.c.task_state))
    return {EntityState(state): count for state, count in rows}


def list_completed(connection: Connection, simulation_id: int) -> list[tuple[int, int]]:
    """Return number and simulated primaries of each completed task, by number."""
    query = select(TASK.c.task_id, TASK.c.simulated_primaries).where(
        TASK.c.simulation_id == simulation_id, TASK.c.task_state == EntityState.COMPLETED
    )
    return [(task_id, primaries) for task_id, primaries in connection.execute(query.order_by(TASK.c.task_id))]


def set_values(
    connection: Connection,
    simulation_id: int,
    task_id: int,
    values: dict[str, Any],
    requested: int | None = None,
    simulated: int | None = None,
) -> None:
    """Set columns of a task that are not its state.

    `requested` primaries never become fewer than the simulated ones, and `simulated` ones never decrease; None keeps
    them.
    """
    row = (TASK.c.simulation_id == simulation_id) & (TASK.c.task_id == task_id)
    simulated_so_far = TASK.c.simulated_primaries
    limit: ColumnElement[Any] = TASK.c.requested_primaries
    changes: dict[str, Any] = dict(values)
    if requested is not None:
        limit = case((literal(requested) < simulated_so_far, simulated_so_far), else_=literal(requested))
        changes["requested_primaries"] = limit
    if simulated is not None:
        changes["simulated_primaries"] = grown_progress(literal(simulated), limit)
    connection.execute(update(TASK).where(row).values(changes))


def set_celery_id(connection: Connection, simulation_id: int, task_id: int, celery_id: str) -> None:
    """Record the id of the Celery task that runs a task."""
    row = select(TASK.c.id).where(TASK.c.simulation_id == simulation_id, TASK.c.task_id == task_id)
    connection.execute(update(CELERY_TASK).where(CELERY_TASK.c.id == row.scalar_subquery()).values(celery_id=celery_id))


def place_of(owner: str) -> str:
    """Return the place of an owner, a prefix of its name: owners at one place share the output of tasks."""
    return owner[: owner.rindex("/") + 1]


def run_elsewhere(simulation_id: ColumnElement[Any] | int, owner: str) -> ColumnElement[bool]:
    """Return the condition that another place than that of `owner` has, or will have, output of a simulation."""
    other = TASK.alias().c
    elsewhere = other.owner.is_not(None) & ~other.owner.startswith(place_of(owner), autoescape=True)
    return select(literal(1)).where(other.simulation_id == simulation_id, elsewhere).exists()


def next_pending(connection: Connection, owner: str, sim_types: Sequence[str]) -> Record | None:
    """Return the task that has waited longest for an executor like `owner` with these simulators, or None."""
    query = (
        select(TASK.c.simulation_id, TASK.c.task_id)
        .join(SIMULATION, SIMULATION.c.id == TASK.c.simulation_id)
        .where(
            WAITING,
            TASK.c.task_state == EntityState.PENDING,
            TASK.c.platform == "DIRECT",
            SIMULATION.c.sim_type.in_(sim_types),
            FOR_OURS,
            SIMULATION.c.job_state.in_((EntityState.PENDING, EntityState.RUNNING)),
            ~run_elsewhere(SIMULATION.c.id, owner),
        )
        .order_by(TASK.c.id)
        .limit(1)
    )
    return connection.execute(query).first()


def is_run_elsewhere(connection: Connection, simulation_id: int, owner: str) -> bool:
    """Return whether another place than that of `owner` works on a simulation."""
    return bool(connection.execute(select(run_elsewhere(simulation_id, owner))).scalar())


def find_held(connection: Connection, simulation_id: int, task_id: int) -> Record | None:
    """Return the owner of a task and since when: task_state, owner, start_time."""
    query = select(TASK.c.task_state, TASK.c.owner, TASK.c.start_time)
    return connection.execute(query.where(TASK.c.simulation_id == simulation_id, TASK.c.task_id == task_id)).first()


def find_claimed(connection: Connection, simulation_id: int, task_id: int) -> Record:
    """Return primaries, seed and attempts of a task that was just claimed."""
    query = select(TASK.c.requested_primaries, TASK.c.seed, TASK.c.attempts)
    return connection.execute(query.where(TASK.c.simulation_id == simulation_id, TASK.c.task_id == task_id)).one()


def list_stalled(connection: Connection, dead_owner: str | None, stalled_since: datetime) -> list[Record]:
    """Return stalled tasks of the platform DIRECT: simulation_id, task_id, attempts, owner.

    Their owner has sent no heartbeat since `stalled_since`, or its name begins with `dead_owner`, which is known to be
    dead. For tasks on a cluster, the cluster knows whether they run.
    """
    stalled = TASK.c.heartbeat_time < stalled_since
    if dead_owner is not None:
        stalled |= TASK.c.owner.startswith(dead_owner, autoescape=True)
    query = select(TASK.c.simulation_id, TASK.c.task_id, TASK.c.attempts, TASK.c.owner).where(
        *(WAITING, TASK.c.task_state == EntityState.RUNNING, TASK.c.platform == "DIRECT"),
        *(TASK.c.owner.is_not(None), stalled),
    )
    return list(connection.execute(query).all())
