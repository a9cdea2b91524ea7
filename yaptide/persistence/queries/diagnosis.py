"""Queries about work in progress, for `yaptide doctor`."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, func, select

from yaptide.domain.states import EntityState
from yaptide.persistence.models.simulations import OPEN
from yaptide.persistence.models.tables import ESTIMATOR, SIMULATION, TASK
from yaptide.persistence.models.tasks import WAITING

_OPEN = (EntityState.PENDING, EntityState.RUNNING)


def list_running(connection: Connection, now: datetime) -> list[tuple[str, int, int, str, timedelta]]:
    """Return the running tasks: job_id, number, attempt, owner, and time since the last heartbeat."""
    query = (
        select(SIMULATION.c.job_id, TASK.c.task_id, TASK.c.attempts, TASK.c.owner, TASK.c.heartbeat_time)
        .join(SIMULATION, SIMULATION.c.id == TASK.c.simulation_id)
        .where(WAITING, TASK.c.task_state == EntityState.RUNNING, TASK.c.owner.is_not(None))
        .order_by(TASK.c.id)
    )
    return [
        (job_id, task_id, attempts, owner, now - heartbeat)
        for job_id, task_id, attempts, owner, heartbeat in connection.execute(query)
    ]


def count_waiting(connection: Connection) -> list[tuple[str, str, str, int, datetime]]:
    """Return what tasks wait for: simulator, platform, input type, number of tasks, earliest submission."""
    wanted = (SIMULATION.c.sim_type, SIMULATION.c.platform, SIMULATION.c.input_type)
    query = (
        select(*wanted, func.count(), func.min(SIMULATION.c.start_time))
        .join(TASK, TASK.c.simulation_id == SIMULATION.c.id)
        .where(WAITING, TASK.c.task_state == EntityState.PENDING, SIMULATION.c.job_state.in_(_OPEN))
        .group_by(*wanted)
        .order_by(*wanted)
    )
    return [tuple(row) for row in connection.execute(query)]


def count_merges(connection: Connection) -> int:
    """Count the simulations whose merge runs or waits."""
    states = (EntityState.MERGING_QUEUED, EntityState.MERGING_RUNNING)
    query = select(func.count()).select_from(SIMULATION).where(OPEN, SIMULATION.c.job_state.in_(states))
    return connection.execute(query).scalar_one()


def without_results(connection: Connection, most: int = 10) -> list[str]:
    """Return the newest COMPLETED simulations without results."""
    results = exists().where(ESTIMATOR.c.simulation_id == SIMULATION.c.id)
    query = select(SIMULATION.c.job_id).where(SIMULATION.c.job_state == EntityState.COMPLETED, ~results)
    return list(connection.execute(query.order_by(SIMULATION.c.id.desc()).limit(most)).scalars())
