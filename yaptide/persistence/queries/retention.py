"""Queries that remove old simulations. The state of an ended simulation never changes, so a selection stays valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, literal, or_, select

from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import ESTIMATOR, LOGFILES, SIMULATION, USER
from yaptide.persistence.queries import json_rows


@dataclass(frozen=True, slots=True)
class Old:
    """Selects old simulations: those that ended `before`, in one of `states`.

    With `keep_inputs` only those that have results or log files: for others nothing would be removed.
    """

    before: datetime
    states: tuple[EntityState, ...]
    keep_inputs: bool = False

    def condition(self) -> ColumnElement[bool]:
        """Return the condition for a query of simulations."""
        condition = SIMULATION.c.job_state.in_(self.states) & (SIMULATION.c.end_time < self.before)
        if not self.keep_inputs:
            return condition
        has = (
            select(literal(1)).where(table.c.simulation_id == SIMULATION.c.id).correlate(SIMULATION).exists()
            for table in (ESTIMATOR, LOGFILES)
        )
        return condition & or_(*has)


def list_old(connection: Connection, old: Old) -> list[Record]:
    """Return the old simulations in order of their end: job_id, username, job_state, end_time, stored_bytes."""
    columns = ("job_state", "end_time", "stored_bytes")
    query = (
        select(SIMULATION.c.job_id, USER.c.username, *(SIMULATION.c[name] for name in columns))
        .join_from(SIMULATION, USER)
        .where(old.condition())
        .order_by(SIMULATION.c.end_time, SIMULATION.c.id)
    )
    return list(connection.execute(query))


def lock_old(connection: Connection, old: Old, jobs: Sequence[str]) -> list[Record]:
    """Lock those of the simulations `jobs` that are old, in order of their ids: id, job_id, stored_bytes."""
    query = select(SIMULATION.c.id, SIMULATION.c.job_id, SIMULATION.c.stored_bytes)
    among = json_rows.is_among(SIMULATION.c.job_id, connection.dialect.name)
    chosen = query.where(among, old.condition()).order_by(SIMULATION.c.id).with_for_update()
    return list(connection.execute(chosen, {"values": jobs}))


def remove_outputs(connection: Connection, simulation_ids: Sequence[int]) -> None:
    """Delete results and log files of simulations; the caller must update their byte counts."""
    for table in (ESTIMATOR, LOGFILES):
        among = json_rows.is_among(table.c.simulation_id, connection.dialect.name)
        connection.execute(delete(table).where(among), {"values": simulation_ids})
