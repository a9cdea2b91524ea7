"""What a user may ask of a cluster: `batch_options` of `POST /jobs/batch`, checked before anything is stored."""

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
#: What the web front end calls the cluster when it knows of none.
_ANY = "default"


def accept_options(
    connection: Connection,
    asked: Mapping[str, Any],
    simulator: Simulator,
    tasks: int,
    input_type: str,
    *,
    for_others: bool,
) -> dict[str, Any]:
    """The columns of a simulation's row for its platform; without options it is for workers of others, if it may be.

    Raises InvalidInput for what cannot be asked, NotConfigured if there is no cluster that could run it, or no SSH.
    """
    require_extra("asyncssh", "Running on clusters")
    unknown = sorted(set(asked) - set(_KEYS))
    if unknown:
        raise InvalidInput(f"batch_options: {unknown[0][:40]!r} is unknown; there are {', '.join(_KEYS)}")
    options = {job: _options(asked, job) for job in ("array", "collect")}
    row = clusters.find_cluster(connection, _name(connection, asked.get("cluster_name", _ANY)))
    if row is None:
        raise InvalidInput(f"There is no cluster {str(asked.get('cluster_name'))[:80]!r}")
    obstacle = _obstacle(row, simulator)
    if for_others and (obstacle or input_type == EDITOR):
        return {"cluster_id": row.id, "options": None}
    if obstacle:
        raise NotConfigured(obstacle)
    if row.max_tasks is not None and tasks > row.max_tasks:
        raise InvalidInput(f"The cluster {row.cluster_name} takes {row.max_tasks} tasks of one simulation, not {tasks}")
    return {"cluster_id": row.id, "options": json.dumps(options, sort_keys=True)}


def _obstacle(row: Record, simulator: Simulator) -> str | None:
    """Why a cluster cannot run a simulator's tasks from here; None if it can."""
    if not row.host or not row.host_key or not row.scratch_folder:
        return f"The cluster {row.cluster_name} is not set up; see: yaptide clusters test"
    if simulator.progress_rule is None:
        return f"{simulator.title} cannot be run on clusters from here: {simulator.remedy}"
    if not json.loads(row.simulators).get(simulator.name):
        told = f"yaptide clusters update {row.cluster_name} --simulator {simulator.name}=PATH"
        return f"The cluster {row.cluster_name} has no {simulator.title}: an administrator can say where it is: {told}"
    return None


def _name(connection: Connection, name: object) -> str:
    if not isinstance(name, str) or not name.isprintable():
        raise InvalidInput("batch_options: cluster_name is a text")
    known = clusters.list_names(connection)
    if not known:
        raise NotConfigured("No cluster is configured on this server")
    return known[0] if name == _ANY and len(known) == 1 else name


def _options(asked: Mapping[str, Any], job: str) -> dict[str, str]:
    """Options of one of the two jobs; those that are given by themselves win over those in a header."""
    header, given = asked.get(f"{job}_header", ""), asked.get(f"{job}_options", {})
    if not isinstance(header, str) or not isinstance(given, Mapping):
        raise InvalidInput(f"batch_options: {job}_header is a text, {job}_options a map of options")
    scheduler = get_scheduler()
    return scheduler.read_header(header) | scheduler.check_options(given)
