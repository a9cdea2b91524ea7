"""Merging: from what the tasks left in the spool to the results of the simulation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.domain.estimators import Aggregation, Estimator, Page
from yaptide.domain.merging import accumulator
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.engine import retried
from yaptide.persistence.queries import moves, simulations, tasks
from yaptide.persistence.queries.moves import Cause, Locked
from yaptide.persistence.queries.results import NewEstimator, NewPage
from yaptide.services import lifecycle, results, spool
from yaptide.services.backend import Backend, now


@retried
def claim(backend: Backend, owner: str) -> Locked | None:
    """Take the simulation that has waited longest for its merge; None if there is none to have."""
    with backend.database.reading() as connection:
        simulation_id = simulations.next_merge(connection, owner)
    if simulation_id is None:
        return None
    with backend.database.writing() as connection:
        simulation = moves.lock_simulation(connection, simulation_id)
        if simulation is None or simulation.job_state is not EntityState.MERGING_QUEUED:
            return None  # somebody was quicker
        cause = Cause(owner, now())
        values = {"owner": owner, "heartbeat_time": cause.time}
        moves.move_simulation(connection, simulation_id, EntityState.MERGING_RUNNING, cause, values)
    return simulation


def merge(backend: Backend, simulation: Locked, owner: str) -> None:
    """Merge a claimed simulation and store its results, which ends it; it fails if its outputs cannot be merged."""
    with backend.database.reading() as connection:
        completed = tasks.completed(connection, simulation.id)
    try:
        merged, reason = merge_outputs(backend, simulation.job_id, completed), None
    except (SimulationFailed, InvalidInput, ValueError) as error:  # trying again would not help
        merged, reason = [], f"the results could not be merged: {error}"
    if _end(backend, simulation.id, owner, merged, reason):
        spool.remove(backend.spool, simulation.job_id)


@retried
def _end(backend: Backend, simulation_id: int, owner: str, merged: Sequence[NewEstimator], reason: str | None) -> bool:
    """Store what was merged and end the simulation; False if it is not the owner's any more."""
    with backend.database.writing() as connection:
        locked = moves.lock_simulation(connection, simulation_id)
        if locked is None or locked.owner != owner or locked.job_state is not EntityState.MERGING_RUNNING:
            return False  # canceled, deleted, or taken over meanwhile
        cause = Cause(owner, now(), reason)
        if merged:
            results.store(connection, locked, merged, cause)
        else:
            lifecycle.end(connection, locked, EntityState.FAILED, cause)
    return True


def merge_outputs(backend: Backend, job_id: str, completed: Sequence[tuple[int, int]]) -> list[NewEstimator]:
    """Merge the outputs of the tasks (number, simulated primaries), one page of all tasks at a time.

    The order of the tasks is that of the list, so that the same tasks give the same bits. Raises SimulationFailed if
    outputs are missing or do not fit together.
    """
    outputs = [spool.estimators(backend.spool, job_id, task_id) for task_id, _ in completed]
    if len({tuple((e.name, len(e.pages)) for e in output) for output in outputs}) != 1:
        raise SimulationFailed("the tasks left different estimators")
    primaries = [count for _, count in completed]
    return [_merge_estimator([output[index] for output in outputs], primaries) for index in range(len(outputs[0]))]


def _merge_estimator(estimators: Sequence[Estimator], primaries: Sequence[int]) -> NewEstimator:
    first = estimators[0]
    pages = []
    for index, page in enumerate(first.pages):
        merged = _merge_page([estimator.pages[index] for estimator in estimators], primaries)
        pages.append(NewPage(page.number, page.name, page.dimension, codec.encode(merged.document())))
    metadata = {**first.metadata, "number_of_primaries": str(sum(primaries)), "number_of_tasks": str(len(primaries))}
    return NewEstimator(first.name, first.file_name, codec.encode(metadata), tuple(pages))


def _merge_page(pages: Sequence[Page], primaries: Sequence[int]) -> Page:
    first = pages[0]
    total = accumulator(first.aggregation, first.values.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # it shows in the result
        for page, count in zip(pages, primaries, strict=True):
            if _kind(page) != _kind(first):
                raise SimulationFailed(f"the tasks left different pages: {first.name} and {page.name}")
            weights = 1.0 if page.weights is None else np.asarray(page.weights, dtype=np.float64)
            total.add(page.values, count * weights)
        values, errors = total.result()
    _check_finite(values, first.name)
    if errors is not None:
        _check_finite(errors, f"The standard error of {first.name}")
    return Page(
        first.number, first.name, first.unit, first.axes, values, errors, None, first.aggregation, first.metadata
    )


def _kind(page: Page) -> tuple[object, ...]:
    """What has to be the same for pages to be merged."""
    shape = () if page.aggregation is Aggregation.CONCATENATE else page.values.shape
    return page.number, page.name, page.unit, page.dimension, page.aggregation, shape


def _check_finite(values: NDArray[np.float64], name: str) -> None:
    if not np.isfinite(values).all():
        raise SimulationFailed(f"{name} holds values that are not numbers")
