"""Queries about simulations that this server submitted to clusters."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, union, update

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models.simulations import BATCH, LEFT, OPEN
from yaptide.persistence.models.tables import BATCH_ARRAY, BATCH_SIMULATION, CLUSTER, HISTORY, SIMULATION, TASK
from yaptide.persistence.queries import json_rows


def list_unfinished(connection: Connection, place: str) -> list[Record]:
    """Return simulations with something left to do on a cluster for a driver at `place`, in order of submission."""
    columns = ("id", "job_id", "user_id", "job_state", "sim_type", "start_time", "end_time")
    here = SIMULATION.c.owner.is_(None) | SIMULATION.c.owner.startswith(place, autoescape=True)
    unfinished = union(
        select(SIMULATION.c.id).where(OPEN, SIMULATION.c.platform == BATCH), select(BATCH_SIMULATION.c.id).where(LEFT)
    )
    query = (
        select(
            *(SIMULATION.c[name] for name in columns),
            *(BATCH_SIMULATION.c[name] for name in ("job_dir", "array_id", "collect_id", "options", "queue_note")),
            CLUSTER.c.cluster_name,
        )
        .join(BATCH_SIMULATION, BATCH_SIMULATION.c.id == SIMULATION.c.id)
        .join(CLUSTER, CLUSTER.c.id == BATCH_SIMULATION.c.cluster_id)
        .where(BATCH_SIMULATION.c.options.is_not(None), SIMULATION.c.id.in_(unfinished), here)
        .order_by(SIMULATION.c.id)
    )
    return list(connection.execute(query).all())


def claim_submission(connection: Connection, simulation_id: int, owner: str, place: str) -> bool:
    """Claim the submission of a simulation for `owner` at `place`; False if another place has it, or it has ended."""
    here = SIMULATION.c.owner.is_(None) | SIMULATION.c.owner.startswith(place, autoescape=True)
    ready = (SIMULATION.c.id == simulation_id) & SIMULATION.c.job_state.not_in(FINAL_STATES) & here
    return connection.execute(update(SIMULATION).where(ready).values(owner=owner)).rowcount == 1


def set_values(connection: Connection, simulation_id: int, values: Mapping[str, Any]) -> None:
    """Set values of a simulation's jobs on its cluster."""
    connection.execute(update(BATCH_SIMULATION).where(BATCH_SIMULATION.c.id == simulation_id).values(values))


def list_arrays(connection: Connection, simulation_id: int) -> list[tuple[int, int, int | None]]:
    """Return first task, number of tasks and number of each array of a simulation, in order of their tasks."""
    columns = ("first_task", "tasks", "array_id")
    query = select(*(BATCH_ARRAY.c[name] for name in columns)).where(BATCH_ARRAY.c.simulation_id == simulation_id)
    return [(first, tasks, number) for first, tasks, number in connection.execute(query.order_by("first_task"))]


def has_arrays(connection: Connection, simulation_id: int) -> bool:
    """Return whether an array of a simulation was submitted, or is being submitted."""
    numbered = BATCH_SIMULATION.c.array_id.is_not(None)
    stored = exists().where(BATCH_ARRAY.c.simulation_id == simulation_id)
    row = exists().where(BATCH_SIMULATION.c.id == simulation_id, numbered | stored)
    return bool(connection.scalar(select(row)))


def count_tasks(connection: Connection, simulation_id: int) -> int:
    """Return the number of tasks of a simulation."""
    return connection.scalar(select(func.count()).where(TASK.c.simulation_id == simulation_id)) or 0


def set_array(connection: Connection, simulation_id: int, first: int, tasks: int | None, number: int | None) -> None:
    """Add or replace the array of a simulation that begins at the task `first`; remove it if it has no `tasks`."""
    here = (BATCH_ARRAY.c.simulation_id == simulation_id) & (BATCH_ARRAY.c.first_task == first)
    connection.execute(delete(BATCH_ARRAY).where(here))
    if tasks:
        row = {"simulation_id": simulation_id, "first_task": first, "tasks": tasks, "array_id": number}
        connection.execute(insert(BATCH_ARRAY), row)


def open_tasks(connection: Connection, simulation_id: int) -> list[Record]:
    """Return tasks that have not ended, by number: task_id, task_state, owner, heartbeat_time."""
    columns = ("task_id", "task_state", "owner", "heartbeat_time")
    query = select(*(TASK.c[name] for name in columns)).where(
        TASK.c.simulation_id == simulation_id, TASK.c.task_state.not_in(FINAL_STATES)
    )
    return list(connection.execute(query.order_by(TASK.c.task_id)).all())


def list_shares(connection: Connection, simulation_id: int) -> list[tuple[int, int, int]]:
    """Return number, primaries and seed of each task, by number."""
    query = select(TASK.c.task_id, TASK.c.requested_primaries, TASK.c.seed)
    rows = connection.execute(query.where(TASK.c.simulation_id == simulation_id).order_by(TASK.c.task_id))
    return [(task_id, primaries, seed) for task_id, primaries, seed in rows]


def is_known(connection: Connection, job_id: str) -> bool:
    """Return whether a simulation has this job_id."""
    return bool(connection.scalar(select(exists().where(SIMULATION.c.job_id == job_id))))


def for_others(connection: Connection, job_ids: Collection[str]) -> set[str]:
    """Return those of the simulations on clusters that this server neither submitted nor will submit."""
    among = json_rows.is_among(SIMULATION.c.job_id, connection.dialect.name)
    query = select(SIMULATION.c.job_id).join(BATCH_SIMULATION, BATCH_SIMULATION.c.id == SIMULATION.c.id).where(among)
    return set(connection.execute(query.where(BATCH_SIMULATION.c.options.is_(None)), {"values": job_ids}).scalars())


def has_reason(connection: Connection, simulation_id: int, reason: str) -> bool:
    """Return whether the history of a simulation already has this reason."""
    row = exists().where(HISTORY.c.simulation_id == simulation_id, HISTORY.c.reason == reason)
    return bool(connection.scalar(select(row)))


def waiting_tasks(connection: Connection, job_id: str) -> tuple[str | None, int] | None:
    """Return the cluster's note about waiting tasks, and their number; None if there are none."""
    query = select(BATCH_SIMULATION.c.queue_note, func.count(TASK.c.id)).join(
        SIMULATION, SIMULATION.c.id == BATCH_SIMULATION.c.id
    )
    query = query.join(TASK, TASK.c.simulation_id == SIMULATION.c.id)
    query = query.where(SIMULATION.c.job_id == job_id, TASK.c.task_state == EntityState.PENDING)
    row = connection.execute(query.group_by(BATCH_SIMULATION.c.queue_note)).first()
    return None if row is None else (row[0], row[1])


def list_notes(connection: Connection, job_ids: Collection[str]) -> dict[str, str]:
    """Return the cluster's notes about those of the simulations that have one, by job_id."""
    among = json_rows.is_among(SIMULATION.c.job_id, connection.dialect.name)
    query = select(SIMULATION.c.job_id, BATCH_SIMULATION.c.queue_note).join(
        BATCH_SIMULATION, BATCH_SIMULATION.c.id == SIMULATION.c.id
    )
    query = query.where(among, BATCH_SIMULATION.c.queue_note.is_not(None))
    return {row.job_id: row.queue_note for row in connection.execute(query, {"values": job_ids})}
