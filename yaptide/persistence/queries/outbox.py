"""Queries about messages to Celery: which must be sent, their ids, and which may have been lost.

A task's `celery_id` and a simulation's `merge_id` are null until a message is about to be sent.
"""

import uuid
from collections.abc import Iterable

from sqlalchemy import Connection, and_, bindparam, literal, select, update

from yaptide.domain.states import EntityState
from yaptide.persistence.models.simulations import OPEN
from yaptide.persistence.models.tables import CELERY_SIMULATION, CELERY_TASK, SIMULATION, TASK
from yaptide.persistence.models.tasks import WAITING
from yaptide.persistence.queries import json_rows, simulations, tasks

_PENDING = and_(
    WAITING,
    TASK.c.task_state == EntityState.PENDING,
    TASK.c.platform == "DIRECT",
    SIMULATION.c.job_state.in_((EntityState.PENDING, EntityState.RUNNING)),
    tasks.FOR_OURS,
)
_NAME = update(CELERY_TASK).where(CELERY_TASK.c.id == bindparam("row")).values(celery_id=bindparam("name"))


def list_unsent(connection: Connection, place: str, limit: int) -> list[int]:
    """Return simulations with waiting tasks for which no message was sent, in order of submission."""
    query = (
        select(SIMULATION.c.id)
        .where(
            OPEN,
            SIMULATION.c.job_state.in_((EntityState.PENDING, EntityState.RUNNING)),
            select(literal(1))
            .where(TASK.c.simulation_id == SIMULATION.c.id, TASK.c.task_state == EntityState.PENDING)
            .where(tasks.FOR_OURS)
            .where(CELERY_TASK.c.id == TASK.c.id, CELERY_TASK.c.celery_id.is_(None))
            .exists(),
            ~tasks.run_elsewhere(SIMULATION.c.id, place),
        )
        .order_by(SIMULATION.c.id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def name_tasks(connection: Connection, simulation_id: int) -> list[tuple[int, str]]:
    """Give the waiting tasks of a locked simulation message ids; return number and id of each that had none."""
    query = (
        select(TASK.c.id, TASK.c.task_id)
        .join(CELERY_TASK, CELERY_TASK.c.id == TASK.c.id)
        .join(SIMULATION, SIMULATION.c.id == TASK.c.simulation_id)
        .where(_PENDING, TASK.c.simulation_id == simulation_id, CELERY_TASK.c.celery_id.is_(None))
        .order_by(TASK.c.task_id)
    )
    named = [(row, task_id, str(uuid.uuid4())) for row, task_id in connection.execute(query)]
    if named:
        connection.execute(_NAME, [{"row": row, "name": name} for row, _, name in named])
    return [(task_id, name) for _, task_id, name in named]


def list_sent(connection: Connection, sim_type: str) -> set[str]:
    """Return the ids of messages about tasks that still wait for a simulator."""
    query = (
        select(CELERY_TASK.c.celery_id)
        .join(TASK, TASK.c.id == CELERY_TASK.c.id)
        .join(SIMULATION, SIMULATION.c.id == TASK.c.simulation_id)
        .where(_PENDING, SIMULATION.c.sim_type == sim_type, CELERY_TASK.c.celery_id.is_not(None))
    )
    return set(connection.execute(query).scalars())


def waiting_types(connection: Connection) -> list[str]:
    """Return the simulators that tasks wait for."""
    query = select(SIMULATION.c.sim_type).join(TASK, TASK.c.simulation_id == SIMULATION.c.id).where(_PENDING)
    return sorted(connection.execute(query.distinct()).scalars())


def forget_sent(connection: Connection, simulation_id: int, task_ids: Iterable[int]) -> None:
    """Have the messages of these tasks sent again, if the tasks still wait."""
    waiting = select(TASK.c.id).where(
        TASK.c.simulation_id == simulation_id,
        json_rows.is_among(TASK.c.task_id, connection.dialect.name),
        TASK.c.task_state == EntityState.PENDING,
    )
    forgotten = update(CELERY_TASK).where(CELERY_TASK.c.id.in_(waiting)).values(celery_id=None)
    connection.execute(forgotten, {"values": task_ids})


def unsent_merges(connection: Connection, place: str) -> list[int]:
    """Return simulations that wait for their merge and for which no message was sent."""
    return [number for number, name in _merges(connection, place).items() if name is None]


def sent_merges(connection: Connection, place: str) -> set[str]:
    """Return the ids of messages about merges that still wait."""
    return {name for name in _merges(connection, place).values() if name is not None}


def _merges(connection: Connection, place: str) -> dict[int, str | None]:
    query = select(CELERY_SIMULATION.c.id, CELERY_SIMULATION.c.merge_id)
    waiting = simulations.waiting_merges(place).subquery()
    named = connection.execute(query.where(CELERY_SIMULATION.c.id.in_(select(waiting.c.id))))
    return {number: name for number, name in named}  # noqa: C416 - a Row is not a pair to mypy


def name_merge(connection: Connection, simulation_id: int) -> str | None:
    """Give a locked simulation an id for its merge message and return it; None if it has one."""
    name = str(uuid.uuid4())
    unnamed = (CELERY_SIMULATION.c.id == simulation_id) & CELERY_SIMULATION.c.merge_id.is_(None)
    updated = connection.execute(update(CELERY_SIMULATION).where(unnamed).values(merge_id=name))
    return name if updated.rowcount == 1 else None


def forget_merge(connection: Connection, simulation_id: int) -> None:
    """Have the message about the merge of a simulation sent again."""
    row = CELERY_SIMULATION.c.id == simulation_id
    connection.execute(update(CELERY_SIMULATION).where(row).values(merge_id=None))


def forget_named(connection: Connection, names: Iterable[str]) -> None:
    """Have messages with these ids sent again if their task or merge still waits."""
    waiting = select(TASK.c.id).where(WAITING, TASK.c.task_state == EntityState.PENDING)
    merges = select(SIMULATION.c.id).where(OPEN, SIMULATION.c.job_state == EntityState.MERGING_QUEUED)
    for name, numbers in ((CELERY_TASK.c.celery_id, waiting), (CELERY_SIMULATION.c.merge_id, merges)):
        chosen = name.table.c.id.in_(numbers) & json_rows.is_among(name, connection.dialect.name)
        connection.execute(update(name.table).where(chosen).values({name: None}), {"values": names})
