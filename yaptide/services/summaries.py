"""Summaries of simulations as JSON objects: the same for `--json` of the command line and for scripts over HTTP.

Times are ISO 8601 with microseconds.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from yaptide.services import batch, simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Page
from yaptide.services.users import User

#: Columns of a simulation in its summary.
_COLUMNS = ("title", "sim_type", "platform", "simulator_version", "simulator_digest", "start_time", "end_time")


def summarize_simulation(backend: Backend, user: User, job_id: str) -> dict[str, Any]:
    """Return a summary of a simulation and its tasks, without results; docs/command-line.md describes the keys.

    Raises NotFound, Forbidden.
    """
    status = simulations.read_status(backend, user, job_id)
    simulation, tasks = status.simulation, status.tasks
    return {
        "job_id": job_id,
        "job_state": str(simulation.job_state),
        "user": users.owner_of(backend, job_id).username,
        **{name: _plain(getattr(simulation, name)) for name in _COLUMNS},
        "reason": simulations.read_failures(backend, user, job_id).get(None),
        "waiting": status.waiting,
        "queue": batch.waiting_tasks(backend, job_id),
        "requested_primaries": sum(task.requested_primaries for task in tasks),
        "simulated_primaries": sum(task.simulated_primaries for task in tasks),
        "stored_bytes": simulation.stored_bytes,
        "refused": orjson.loads(simulation.refused_pages or "[]"),
        "tasks": [_plain_row(task._mapping) for task in tasks],
    }


def list_simulations(backend: Backend, user: User, page: Page) -> dict[str, Any]:
    """Return the number of all simulations of a user, and those on a page; raise InvalidInput for a wrong page."""
    listing = simulations.list_simulations(backend, user, page)
    rows = [{**_plain_row(row._mapping), "waiting": listing.waiting.get(row.job_id)} for row in listing.rows]
    return {"simulations_count": listing.total, "simulations": rows}


def list_history(backend: Backend, user: User, job_id: str) -> list[dict[str, Any]]:
    """Return every change of state, oldest first; raise NotFound, Forbidden."""
    return [_plain_row(row._mapping) for row in simulations.read_history(backend, user, job_id)]


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times and states as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, str) else value
