"""The cluster options of a submission: `batch_options` of `POST /jobs/batch`, checked before anything is stored."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput, NotConfigured
from yaptide.persistence.engine import Record
from yaptide.persistence.models.simulations import EDITOR
from yaptide.persistence.queries import clusters
from yaptide.platforms.batch.schedulers import get_scheduler
from yaptide.simulators.base import Simulator
from yaptide_client.extras import require_extra

_KEYS = ("cluster_name", "array_header", "array_options", "collect_header", "collect_options")
#: The front end's name for the cluster when it knows none.
_ANY = "default"


def accept_options(
    connection: Connection,
    requested: Mapping[str, Any],
    simulator: Simulator,
    tasks: int,
    input_type: str,
    *,
    for_external: bool,
) -> dict[str, Any]:
    """Return the columns of a simulation's platform row; without options it is left to external workers, if allowed.

    Raises InvalidInput for invalid options, NotConfigured if no cluster can run the simulation, or SSH is missing.
    """
    require_extra("asyncssh", "Running on clusters")
    unknown = sorted(set(requested) - set(_KEYS))
    if unknown:
        raise InvalidInput(f"batch_options: {unknown[0][:40]!r} is unknown; use {', '.join(_KEYS)}")
    options = {job: _options(requested, job) for job in ("array", "collect")}
    row = clusters.find_cluster(connection, _name(connection, requested.get("cluster_name", _ANY)))
    if row is None:
        raise InvalidInput(f"Unknown cluster {str(requested.get('cluster_name'))[:80]!r}")
    obstacle = _obstacle(row, simulator)
    if for_external and (obstacle or input_type == EDITOR):
        return {"cluster_id": row.id, "options": None}
    if obstacle:
        raise NotConfigured(obstacle)
    if row.max_tasks is not None and tasks > row.max_tasks:
        raise InvalidInput(f"The cluster {row.cluster_name} allows {row.max_tasks} tasks per simulation, not {tasks}")
    return {"cluster_id": row.id, "options": json.dumps(options, sort_keys=True)}


def _obstacle(row: Record, simulator: Simulator) -> str | None:
    """Return why a cluster cannot run a simulator's tasks; None if it can."""
    if not row.host or not row.host_key or not row.scratch_folder:
        return f"The cluster {row.cluster_name} is not set up; see: yaptide clusters test"
    if simulator.progress_rule is None:
        return f"{simulator.title} cannot run on clusters: {simulator.remedy}"
    if not json.loads(row.simulators).get(simulator.name):
        command = f"yaptide clusters update {row.cluster_name} --simulator {simulator.name}=PATH"
        return f"The cluster {row.cluster_name} has no {simulator.title}: an administrator can set its path: {command}"
    return None


def _name(connection: Connection, name: object) -> str:
    if not isinstance(name, str) or not name.isprintable():
        raise InvalidInput("batch_options: cluster_name must be a string")
    known = clusters.list_names(connection)
    if not known:
        raise NotConfigured("No cluster is configured on this server")
    return known[0] if name == _ANY and len(known) == 1 else name


def _options(requested: Mapping[str, Any], job: str) -> dict[str, str]:
    """Return the options of one of the two jobs; separate options take precedence over those in a header."""
    header, options = requested.get(f"{job}_header", ""), requested.get(f"{job}_options", {})
    if not isinstance(header, str) or not isinstance(options, Mapping):
        raise InvalidInput(f"batch_options: {job}_header must be a string, {job}_options an object")
    scheduler = get_scheduler()
    return scheduler.merge_options(scheduler.read_header(header), scheduler.check_options(options))
