"""Removing old simulations, or everything of them except the inputs."""

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

#: Simulations removed in one transaction; concurrent transactions wait no longer than one batch.
BATCH = 50


def find_old(database: Database, old: Old) -> list[Record]:
    """Return what `purge_simulations` would remove, oldest first: job_id, username, job_state, end_time, stored_bytes.

    Raises InvalidInput if `old` has states that are not final.
    """
    not_final = set(old.states) - FINAL_STATES
    if not_final or not old.states:
        raise InvalidInput(f"Only ended simulations can be removed: use {', '.join(sorted(FINAL_STATES))}")
    with database.reading() as connection:
        return retention.list_old(connection, old)


def purge_simulations(database: Database, spool: Spool, old: Old, jobs: Sequence[str]) -> list[str]:
    """Remove those of the simulations `jobs` that are old, or their output if inputs are kept.

    Runs in transactions of `BATCH` simulations: after an interruption, call it again for the rest. Also removes their
    files in the staging area. Returns the job_ids of removed or stripped simulations.
    """
    purged: list[str] = []
    for start in range(0, len(jobs), BATCH):
        removed = _purge_batch(database, old, jobs[start : start + BATCH])
        for job_id in removed:
            spool.remove(job_id)
        purged += removed
    return purged


@retry_contended
def _purge_batch(database: Database, old: Old, jobs: Sequence[str]) -> list[str]:
    with database.writing() as connection:
        rows = retention.lock_old(connection, old, jobs)
        ids = [row.id for row in rows]
        if old.keep_inputs:
            _strip(connection, ids)
        else:
            simulations.remove_all(connection, ids)
    return [row.job_id for row in rows]


def _strip(connection: Connection, ids: Sequence[int]) -> None:
    """Remove output, and note the reason in the histories."""
    retention.remove_outputs(connection, ids)
    audit = Audit(OPERATOR, utc_now(), "results and log files were removed to save space")
    for simulation_id in ids:
        integrity.recount_bytes(connection, simulation_id)
        transitions.add_audit_note(connection, simulation_id, audit)
