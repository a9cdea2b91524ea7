"""Queries about estimators and pages."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, or_, select

from yaptide.persistence.engine import Record
from yaptide.persistence.models import EstimatorModel, PageModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.payload import NewEstimator

_ESTIMATOR = table_of(EstimatorModel)
_PAGE = table_of(PageModel)


def add(connection: Connection, simulation_id: int, estimators: Sequence[NewEstimator]) -> int:
    """Add all results of a simulation, in the order given; returns the bytes that they take."""
    total = 0
    for estimator in estimators:
        values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
        values |= estimator.payload.columns()
        estimator_id = connection.execute(insert(_ESTIMATOR).returning(_ESTIMATOR.c.id), values).scalar_one()
        rows = [
            {
                "estimator_id": estimator_id,
                "page_number": page.number,
                "page_name": page.name,
                "page_dimension": page.dimension,
                **page.payload.columns(),
            }
            for page in estimator.pages
        ]
        if rows:
            connection.execute(insert(_PAGE), rows)
        total += len(estimator.payload.data) + sum(len(page.payload.data) for page in estimator.pages)
    return total


def digests(connection: Connection, simulation_id: int) -> dict[tuple[str, int], str]:
    """Digest of every stored page of a simulation by estimator name and page number (-1: the estimator itself)."""
    whole = select(_ESTIMATOR.c.name, _ESTIMATOR.c.content_sha256).where(_ESTIMATOR.c.simulation_id == simulation_id)
    pages = (
        select(_ESTIMATOR.c.name, _PAGE.c.page_number, _PAGE.c.content_sha256)
        .join(_PAGE, _PAGE.c.estimator_id == _ESTIMATOR.c.id)
        .where(_ESTIMATOR.c.simulation_id == simulation_id)
    )
    found = {(name, -1): digest for name, digest in connection.execute(whole)}
    return found | {(name, number): digest for name, number, digest in connection.execute(pages)}


def pages_metadata(connection: Connection, simulation_id: int) -> list[Record]:
    """Estimator name, page number, page name and dimension of every page, in the order to show them."""
    query = (
        select(_ESTIMATOR.c.name, _PAGE.c.page_number, _PAGE.c.page_name, _PAGE.c.page_dimension)
        .join(_PAGE, _PAGE.c.estimator_id == _ESTIMATOR.c.id)
        .where(_ESTIMATOR.c.simulation_id == simulation_id)
        .order_by(_ESTIMATOR.c.id, _PAGE.c.page_number)
    )
    return list(connection.execute(query).all())


def estimators(connection: Connection, simulation_id: int, name: str | None = None) -> list[Record]:
    """Id, name and metadata payload of the estimators, in the order they were stored; of that `name` only, if given."""
    query = select(_ESTIMATOR.c.id, _ESTIMATOR.c.name, _ESTIMATOR.c.compressed_data).where(
        _ESTIMATOR.c.simulation_id == simulation_id
    )
    if name is not None:
        query = query.where(_ESTIMATOR.c.name == name)
    return list(connection.execute(query.order_by(_ESTIMATOR.c.id)).all())


def page_payloads(
    connection: Connection, estimator_id: int, ranges: Sequence[tuple[int, int]] | None = None
) -> list[tuple[int, bytes]]:
    """Number and stored payload of an estimator's pages by number; of those in the inclusive `ranges`, if given."""
    query = select(_PAGE.c.page_number, _PAGE.c.compressed_data).where(_PAGE.c.estimator_id == estimator_id)
    if ranges is not None:
        query = query.where(or_(*(_PAGE.c.page_number.between(first, last) for first, last in ranges)))
    return [(number, data) for number, data in connection.execute(query.order_by(_PAGE.c.page_number))]
