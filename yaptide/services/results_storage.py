"""Storing results: completely or not at all, in the transaction that ends the simulation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.models.simulations import EDITOR
from yaptide.persistence.payload import NewEstimator
from yaptide.persistence.queries import results, simulations, transitions
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.services import lifecycle
from yaptide.simulators import find_output
from yaptide.simulators.outputs import is_later_quantity

#: Maximum number of rejected pages that are listed, and listed in the history.
MOST_NAMED = 1000
_MOST_IN_HISTORY = 20


def store_results(connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator], audit: Audit) -> None:
    """Store results and end the simulation (COMPLETED only if no task failed) in the current transaction.

    Tasks whose last report was lost are completed, because their results are here. Raises Conflict if the simulation
    has other results, or has failed or been canceled; repeats change nothing.
    """
    valid = [estimator for estimator in estimators if estimator.pages]
    if simulation.input_type == EDITOR:
        valid = _named_as_in_project(connection, simulation, valid)
    check_unique(valid)
    digests = results.page_digests(connection, simulation.id)
    if digests:
        if digests != _digests(valid):
            raise Conflict("The simulation already has other results, which are kept")
        return
    if simulation.job_state in (EntityState.FAILED, EntityState.CANCELED):
        raise Conflict(f"The simulation is {simulation.job_state}; its results are no longer accepted")
    add_results(connection, simulation, valid)
    _name_refused(connection, simulation, [page for estimator in estimators for page in estimator.refused], audit)
    lifecycle.end_simulation(connection, simulation, EntityState.COMPLETED, audit)


def _name_refused(connection: Connection, simulation: Locked, refused: Sequence[RefusedPage], audit: Audit) -> None:
    """Record the rejected pages and the reasons: in the history, and for `GET /jobs`."""
    if not refused:
        return
    named = "; ".join(map(str, refused[:_MOST_IN_HISTORY]))
    more = f"; and {len(refused) - _MOST_IN_HISTORY} more" if len(refused) > _MOST_IN_HISTORY else ""
    transitions.add_audit_note(connection, simulation.id, Audit(audit.actor, audit.time, f"left out: {named}{more}"))
    text = msgspec.json.encode([page._asdict() for page in refused[:MOST_NAMED]]).decode()
    simulations.set_values(connection, simulation.id, {"refused_pages": text})


def add_results(connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator]) -> None:
    """Insert results in the current transaction, unless there are some."""
    if not results.page_digests(connection, simulation.id):
        simulations.count_bytes(connection, simulation.id, results.add_results(connection, simulation.id, estimators))


def check_unique(estimators: Sequence[NewEstimator]) -> None:
    """Raise InvalidInput for duplicate names of estimators, or duplicate numbers of pages."""
    names = [estimator.name for estimator in estimators]
    pages = [(estimator.name, page.number) for estimator in estimators for page in estimator.pages]
    for kind, keys in (("estimator", names), ("page", pages)):
        if len(set(keys)) != len(keys):
            raise InvalidInput(f"The results have a duplicate {kind}")


def _digests(estimators: Sequence[NewEstimator]) -> dict[tuple[str, int], str]:
    whole = {(estimator.name, -1): estimator.payload.sha256 for estimator in estimators}
    pages = {(e.name, page.number): page.payload.sha256 for e in estimators for page in e.pages}
    return whole | pages


def _named_as_in_project(
    connection: Connection, simulation: Locked, estimators: Sequence[NewEstimator]
) -> list[NewEstimator]:
    """Return the estimators of an editor's project with the names and in the order of its outputs.

    A later quantity in a file of its own keeps its name, and follows its output.
    """
    data = simulations.input_of(connection, simulation.id)
    project = codec.decode_payload(data)["input_json"] if data else {}
    names = _output_names(project)
    placed = [
        (len(names) if index is None else index, is_later_quantity(estimator.file_name, names), estimator)
        for estimator in estimators
        for index in [find_output(simulation.sim_type, estimator.file_name, names)]
    ]
    placed.sort(key=lambda place: place[:2])
    return [
        estimator if is_later or index == len(names) else replace(estimator, name=names[index])
        for index, is_later, estimator in placed
    ]


def _output_names(project: object) -> list[str]:
    manager = project.get("scoringManager") if isinstance(project, Mapping) else None
    outputs = manager.get("outputs") if isinstance(manager, Mapping) else None
    if not isinstance(outputs, list):
        return []
    names = [output.get("name") if isinstance(output, Mapping) else None for output in outputs]
    return [name if isinstance(name, str) else "" for name in names]
