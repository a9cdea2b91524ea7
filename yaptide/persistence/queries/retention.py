"""Queries that remove what is old. Ended simulations never change their state, so that what was chosen stays chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, literal, or_, select

from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models import EstimatorModel, LogfilesModel, SimulationModel, UserModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.queries import json_rows

_SIMULATION = table_of(SimulationModel)
_USER = table_of(UserModel)
_ESTIMATOR = table_of(EstimatorModel)
_LOGFILES = table_of(LogfilesModel)


@dataclass(frozen=True, slots=True)
class Old:
    """Which simulations are old: those that ended `before`, in one of `states`.

    With `keep_inputs` only those that have results or log files: the others are as they would be left.
    """

    before: datetime
    states: tuple[EntityState, ...]
    keep_inputs: bool = False

    def condition(self) -> ColumnElement[bool]:
        """The same for a query of simulations."""
        chosen = _SIMULATION.c.job_state.in_(self.states) & (_SIMULATION.c.end_time < self.before)
        if not self.keep_inputs:
            return chosen
        has = (
            select(literal(1)).where(table.c.simulation_id == _SIMULATION.c.id).correlate(_SIMULATION).exists()
            for table in (_ESTIMATOR, _LOGFILES)
        )
        return chosen & or_(*has)


def list_old(connection: Connection, which: Old) -> list[Record]:
    """The old simulations, those that ended first first: job_id, username, job_state, end_time, stored_bytes."""
    columns = ("job_state", "end_time", "stored_bytes")
    query = (
        select(_SIMULATION.c.job_id, _USER.c.username, *(_SIMULATION.c[name] for name in columns))
        .join_from(_SIMULATION, _USER)
        .where(which.condition())
        .order_by(_SIMULATION.c.end_time, _SIMULATION.c.id)
    )
    return list(connection.execute(query))


def lock_old(connection: Connection, which: Old, jobs: Sequence[str]) -> list[Record]:
    """Those of the simulations `jobs` that are old, in the order of their numbers, locked: id, job_id, stored_bytes."""
    query = select(_SIMULATION.c.id, _SIMULATION.c.job_id, _SIMULATION.c.stored_bytes)
    these = json_rows.is_among(_SIMULATION.c.job_id, connection.dialect.name)
    chosen = query.where(these, which.condition()).order_by(_SIMULATION.c.id).with_for_update()
    return list(connection.execute(chosen, {"values": jobs}))


def remove_outputs(connection: Connection, simulation_ids: Sequence[int]) -> None:
    """Remove results and log files of simulations; their bytes have to be counted anew."""
    for table in (_ESTIMATOR, _LOGFILES):
        these = json_rows.is_among(table.c.simulation_id, connection.dialect.name)
        connection.execute(delete(table).where(these), {"values": simulation_ids})
