"""Queries about simulations that this server submitted to clusters."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, exists, func, select, union, update

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models import BatchSimulationModel, ClusterModel, SimulationModel, StateHistoryModel, TaskModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.models.simulations import BATCH, LEFT, OPEN
from yaptide.persistence.queries import json_rows

_SIMULATION = table_of(SimulationModel)
_BATCH = table_of(BatchSimulationModel)
_CLUSTER = table_of(ClusterModel)
_TASK = table_of(TaskModel)
_HISTORY = table_of(StateHistoryModel)


def list_unfinished(connection: Connection, place: str) -> list[Record]:
    """Return simulations with something left to do on a cluster for a driver at `place`, in order of submission."""
    columns = ("id", "job_id", "user_id", "job_state", "sim_type", "start_time", "end_time")
    here = _SIMULATION.c.owner.is_(None) | _SIMULATION.c.owner.startswith(place, autoescape=True)
    unfinished = union(
        select(_SIMULATION.c.id).where(OPEN, _SIMULATION.c.platform == BATCH), select(_BATCH.c.id).where(LEFT)
    )
    query = (
        select(
            *(_SIMULATION.c[name] for name in columns),
            *(_BATCH.c[name] for name in ("job_dir", "array_id", "collect_id", "options", "queue_note")),
            _CLUSTER.c.cluster_name,
        )
        .join(_BATCH, _BATCH.c.id == _SIMULATION.c.id)
        .join(_CLUSTER, _CLUSTER.c.id == _BATCH.c.cluster_id)
        .where(_BATCH.c.options.is_not(None), _SIMULATION.c.id.in_(unfinished), here)
        .order_by(_SIMULATION.c.id)
    )
    return list(connection.execute(query).all())


def claim_submission(connection: Connection, simulation_id: int, owner: str, place: str) -> bool:
    """Claim the submission of a simulation for `owner` at `place`; False if another place has it, or it has ended."""
    here = _SIMULATION.c.owner.is_(None) | _SIMULATION.c.owner.startswith(place, autoescape=True)
    ready = (_SIMULATION.c.id == simulation_id) & _SIMULATION.c.job_state.not_in(FINAL_STATES) & here
    return connection.execute(update(_SIMULATION).where(ready).values(owner=owner)).rowcount == 1


def set_values(connection: Connection, simulation_id: int, values: Mapping[str, Any]) -> None:
    """Set values of a simulation's jobs on its cluster."""
    connection.execute(update(_BATCH).where(_BATCH.c.id == simulation_id).values(values))


def open_tasks(connection: Connection, simulation_id: int) -> list[Record]:
    """Return tasks that have not ended, by number: task_id, task_state, owner, heartbeat_time."""
    columns = ("task_id", "task_state", "owner", "heartbeat_time")
    query = select(*(_TASK.c[name] for name in columns)).where(
        _TASK.c.simulation_id == simulation_id, _TASK.c.task_state.not_in(FINAL_STATES)
    )
    return list(connection.execute(query.order_by(_TASK.c.task_id)).all())


def list_shares(connection: Connection, simulation_id: int) -> list[tuple[int, int, int]]:
    """Return number, primaries and seed of each task, by number."""
    query = select(_TASK.c.task_id, _TASK.c.requested_primaries, _TASK.c.seed)
    rows = connection.execute(query.where(_TASK.c.simulation_id == simulation_id).order_by(_TASK.c.task_id))
    return [(task_id, primaries, seed) for task_id, primaries, seed in rows]


def is_known(connection: Connection, job_id: str) -> bool:
    """Return whether a simulation has this job_id."""
    return bool(connection.scalar(select(exists().where(_SIMULATION.c.job_id == job_id))))


def for_others(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Return those of the simulations on clusters that this server neither submitted nor will submit."""
    among = json_rows.is_among(_SIMULATION.c.job_id, connection.dialect.name)
    query = select(_SIMULATION.c.job_id).join(_BATCH, _BATCH.c.id == _SIMULATION.c.id).where(among)
    return set(connection.execute(query.where(_BATCH.c.options.is_(None)), {"values": job_ids}).scalars())


def has_reason(connection: Connection, simulation_id: int, reason: str) -> bool:
    """Return whether the history of a simulation already has this reason."""
    row = exists().where(_HISTORY.c.simulation_id == simulation_id, _HISTORY.c.reason == reason)
    return bool(connection.scalar(select(row)))


def waiting_tasks(connection: Connection, job_id: str) -> tuple[str | None, int] | None:
    """Return the cluster's note about waiting tasks, and their number; None if there are none."""
    query = select(_BATCH.c.queue_note, func.count(_TASK.c.id)).join(_SIMULATION, _SIMULATION.c.id == _BATCH.c.id)
    query = query.join(_TASK, _TASK.c.simulation_id == _SIMULATION.c.id)
    query = query.where(_SIMULATION.c.job_id == job_id, _TASK.c.task_state == EntityState.PENDING)
    row = connection.execute(query.group_by(_BATCH.c.queue_note)).first()
    return None if row is None else (row[0], row[1])
