"""The manifest: one simulation in full, as an archive describes it, and its validation.

A manifest may come from another installation or from an attacker: everything is checked.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState

_PRINTED = r"^[^\x00]*\Z"
Name = Annotated[str, Meta(min_length=1, max_length=500, pattern=_PRINTED)]
Text = Annotated[str, Meta(max_length=10_000, pattern=_PRINTED)]
LongText = Annotated[str, Meta(max_length=1_000_000, pattern=_PRINTED)]
#: Used as a folder name: no separators, and never ``..``.
JobId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\Z")]
Timestamp = Annotated[datetime, Meta(tz=True)]
Int32 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Payload(Struct, forbid_unknown_fields=True):
    """A payload: the archive entry with its bytes, and the size and SHA-256 of its JSON text."""

    entry: Text
    size: Int64
    sha256: Sha256


class Page(Struct, forbid_unknown_fields=True):
    """A page of an estimator; see `yaptide.persistence.models.results.PageModel`."""

    page_number: Int32
    page_name: Text
    page_dimension: Int32
    data: Payload


class Estimator(Struct, forbid_unknown_fields=True):
    """An estimator with its metadata and its pages in order of their numbers."""

    name: Text
    file_name: Text
    metadata: Payload
    pages: list[Page]


class Task(Struct, forbid_unknown_fields=True):
    """A task; see `yaptide.persistence.models.tasks.TaskModel`."""

    task_id: Int32
    task_state: EntityState
    requested_primaries: Int64
    simulated_primaries: Int64
    attempts: Int32
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    estimated_time: Int32 | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    last_update_time: Timestamp | None = None


class HistoryEntry(Struct, forbid_unknown_fields=True):
    """A transition; see `yaptide.persistence.models.simulations.StateHistoryModel`."""

    task_id: Int32 | None
    from_state: EntityState | None
    to_state: EntityState
    time: Timestamp
    actor: Text
    reason: LongText | None = None


class SimulationManifest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A simulation; see `yaptide.persistence.models.simulations.SimulationModel`. `user` is its owner."""

    job_id: JobId
    user: Name
    title: Text
    platform: Literal["DIRECT", "BATCH"]
    input_type: Literal["EDITOR", "FILES"]
    sim_type: Name
    job_state: EntityState
    start_time: Timestamp
    end_time: Timestamp | None
    cluster_name: Name | None
    simulator_version: Text | None
    simulator_digest: Sha256 | None
    input: Payload | None
    tasks: list[Task]
    history: list[HistoryEntry]
    estimators: list[Estimator]
    logfiles: list[Payload]
    refused_pages: LongText | None = None

    def payloads(self) -> Iterator[Payload]:
        """Yield every payload of the simulation."""
        if self.input is not None:
            yield self.input
        yield from self.logfiles
        for estimator in self.estimators:
            yield estimator.metadata
            yield from (page.data for page in estimator.pages)


def check_manifest(simulation: SimulationManifest) -> None:
    """Raise InvalidInput unless the simulation has ended and its parts are consistent."""
    if {simulation.job_state, *(task.task_state for task in simulation.tasks)} - FINAL_STATES:
        raise InvalidInput(f"{simulation.job_id} has not ended, or has tasks that have not ended")
    if (simulation.platform == "BATCH") != (simulation.cluster_name is not None):
        raise InvalidInput(f"{simulation.job_id} must have a cluster_name if and only if its platform is BATCH")
    _check_distinct("tasks", [task.task_id for task in simulation.tasks])
    _check_distinct("log files", [logs.sha256 for logs in simulation.logfiles])
    _check_distinct("estimators", [estimator.name for estimator in simulation.estimators])
    for estimator in simulation.estimators:
        _check_distinct("pages", [page.page_number for page in estimator.pages])
    _check_history(simulation)


def _check_distinct(kind: str, keys: Sequence[object]) -> None:
    if len(set(keys)) != len(keys):
        raise InvalidInput(f"duplicate {kind}")


def _check_history(simulation: SimulationManifest) -> None:
    """Check that every entry is an allowed transition or an audit entry, and the last one gives the current state."""
    last: dict[int | None, EntityState] = {}
    for change in simulation.history:
        transitions = SIMULATION_TRANSITIONS if change.task_id is None else TASK_TRANSITIONS
        before, after = change.from_state, change.to_state
        if before is not None and before is not after and after not in transitions[before]:
            raise InvalidInput(f"{simulation.job_id} has a transition that is not allowed: {before} to {after}")
        last[change.task_id] = after
    states: dict[int | None, EntityState] = {task.task_id: task.task_state for task in simulation.tasks}
    states[None] = simulation.job_state
    if any(states.get(task_id, state) is not state for task_id, state in last.items()):
        raise InvalidInput(f"the history of {simulation.job_id} does not end in its states")
