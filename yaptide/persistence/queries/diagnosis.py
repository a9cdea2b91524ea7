"""Queries about work in progress, for `yaptide doctor`."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, func, select

from yaptide.domain.states import EntityState
from yaptide.persistence.models import EstimatorModel, SimulationModel, TaskModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.models.simulations import OPEN
from yaptide.persistence.models.tasks import WAITING

_SIMULATION = table_of(SimulationModel)
_TASK = table_of(TaskModel)
_ESTIMATOR = table_of(EstimatorModel)
_OPEN = (EntityState.PENDING, EntityState.RUNNING)


def list_running(connection: Connection, now: datetime) -> list[tuple[str, int, int, str, timedelta]]:
    """Return the running tasks: job_id, number, attempt, owner, and time since the last heartbeat."""
    query = (
        select(_SIMULATION.c.job_id, _TASK.c.task_id, _TASK.c.attempts, _TASK.c.owner, _TASK.c.heartbeat_time)
        .join(_SIMULATION, _SIMULATION.c.id == _TASK.c.simulation_id)
        .where(WAITING, _TASK.c.task_state == EntityState.RUNNING, _TASK.c.owner.is_not(None))
        .order_by(_TASK.c.id)
    )
    return [
        (job_id, task_id, attempts, owner, now - heartbeat)
        for job_id, task_id, attempts, owner, heartbeat in connection.execute(query)
    ]


def count_waiting(connection: Connection) -> list[tuple[str, str, str, int, datetime]]:
    """Return what tasks wait for: simulator, platform, input type, number of tasks, earliest submission."""
    wanted = (_SIMULATION.c.sim_type, _SIMULATION.c.platform, _SIMULATION.c.input_type)
    query = (
        select(*wanted, func.count(), func.min(_SIMULATION.c.start_time))
        .join(_TASK, _TASK.c.simulation_id == _SIMULATION.c.id)
        .where(WAITING, _TASK.c.task_state == EntityState.PENDING, _SIMULATION.c.job_state.in_(_OPEN))
        .group_by(*wanted)
        .order_by(*wanted)
    )
    return [tuple(row) for row in connection.execute(query)]


def count_merges(connection: Connection) -> int:
    """Count the simulations whose merge runs or waits."""
    states = (EntityState.MERGING_QUEUED, EntityState.MERGING_RUNNING)
    query = select(func.count()).select_from(_SIMULATION).where(OPEN, _SIMULATION.c.job_state.in_(states))
    return connection.execute(query).scalar_one()


def without_results(connection: Connection, most: int = 10) -> list[str]:
    """Return the newest COMPLETED simulations without results."""
    results = exists().where(_ESTIMATOR.c.simulation_id == _SIMULATION.c.id)
    query = select(_SIMULATION.c.job_id).where(_SIMULATION.c.job_state == EntityState.COMPLETED, ~results)
    return list(connection.execute(query.order_by(_SIMULATION.c.id.desc()).limit(most)).scalars())
