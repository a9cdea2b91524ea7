"""Removing what is old: simulations that ended long ago, or all of them but the inputs."""

from collections.abc import Sequence

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence.engine import Database, Record, retried
from yaptide.persistence.queries import integrity, moves, retention, simulations
from yaptide.persistence.queries.moves import Cause
from yaptide.persistence.queries.retention import Old as Old
from yaptide.services.administration import OPERATOR
from yaptide.services.backend import now
from yaptide.services.spool import Spool

#: Simulations removed in one transaction: others wait for it no longer than that takes.
BATCH = 50


def find(database: Database, which: Old) -> list[Record]:
    """What `purge` would remove: job_id, username, job_state, end_time, stored_bytes, those that ended first first.

    Raises InvalidInput if there are states in `which` that are not final.
    """
    still = set(which.states) - FINAL_STATES
    if still or not which.states:
        raise InvalidInput(f"Only what has ended is removed: choose among {', '.join(sorted(FINAL_STATES))}")
    with database.reading() as connection:
        return retention.old(connection, which)


def purge(database: Database, spool: Spool, which: Old, jobs: Sequence[str]) -> list[str]:
    """Remove those of the simulations `jobs` that are old, or their outputs if inputs are kept.

    In transactions of `BATCH`: whoever interrupts it calls it again for the rest. What is left of them in the spool
    goes too. Returns the public names of those that are gone or stripped.
    """
    done: list[str] = []
    for start in range(0, len(jobs), BATCH):
        removed = _purge_batch(database, which, jobs[start : start + BATCH])
        for job_id in removed:
            spool.remove(job_id)
        done += removed
    return done


@retried
def _purge_batch(database: Database, which: Old, jobs: Sequence[str]) -> list[str]:
    with database.writing() as connection:
        found = retention.lock(connection, which, jobs)
        ids = [row.id for row in found]
        if which.keep_inputs:
            _strip(connection, ids)
        else:
            simulations.remove_all(connection, ids)
    return [row.job_id for row in found]


def _strip(connection: Connection, ids: Sequence[int]) -> None:
    """Remove outputs, and note in the histories why there are none any more."""
    retention.remove_outputs(connection, ids)
    cause = Cause(OPERATOR, now(), "results and log files were removed to save space")
    for simulation_id in ids:
        integrity.recount(connection, simulation_id)
        moves.remark(connection, simulation_id, cause)
