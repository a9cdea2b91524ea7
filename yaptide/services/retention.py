"""Removing what is old: simulations that ended long ago, or all of them but the inputs."""

from collections.abc import Sequence

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence.engine import Database, Record, retry_contended
from yaptide.persistence.queries import integrity, retention, simulations, transitions
from yaptide.persistence.queries.retention import Old as Old
from yaptide.persistence.queries.transitions import Audit
from yaptide.services.administration import OPERATOR
from yaptide.services.backend import utc_now
from yaptide.services.spool import Spool

#: Simulations removed in one transaction: others wait for it no longer than that takes.
BATCH = 50


def find_old(database: Database, which: Old) -> list[Record]:
    """What `purge_simulations` would remove, oldest first: job_id, username, job_state, end_time, stored_bytes.

    Raises InvalidInput if there are states in `which` that are not final.
    """
    still = set(which.states) - FINAL_STATES
    if still or not which.states:
        raise InvalidInput(f"Only what has ended is removed: choose among {', '.join(sorted(FINAL_STATES))}")
    with database.reading() as connection:
        return retention.list_old(connection, which)


def purge_simulations(database: Database, spool: Spool, which: Old, jobs: Sequence[str]) -> list[str]:
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


@retry_contended
def _purge_batch(database: Database, which: Old, jobs: Sequence[str]) -> list[str]:
    with database.writing() as connection:
        found = retention.lock_old(connection, which, jobs)
        ids = [row.id for row in found]
        if which.keep_inputs:
            _strip(connection, ids)
        else:
            simulations.remove_all(connection, ids)
    return [row.job_id for row in found]


def _strip(connection: Connection, ids: Sequence[int]) -> None:
    """Remove outputs, and note in the histories why there are none any more."""
    retention.remove_outputs(connection, ids)
    cause = Audit(OPERATOR, utc_now(), "results and log files were removed to save space")
    for simulation_id in ids:
        integrity.recount_bytes(connection, simulation_id)
        transitions.add_audit_note(connection, simulation_id, cause)
