"""Queries about estimators and pages."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, case, func, insert, or_, select

from yaptide.persistence.engine import Record
from yaptide.persistence.models import EstimatorModel, PageModel
from yaptide.persistence.models.base import table_of
from yaptide.persistence.payload import LargePayload, NewEstimator, NewPage
from yaptide.persistence.queries import large

_ESTIMATOR = table_of(EstimatorModel)
_PAGE = table_of(PageModel)


def add(connection: Connection, simulation_id: int, estimators: Sequence[NewEstimator]) -> int:
    """Add all results of a simulation, in the order given; returns the bytes that they take."""
    total = 0
    for estimator in estimators:
        values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
        values |= estimator.payload.columns()
        estimator_id = connection.execute(insert(_ESTIMATOR).returning(_ESTIMATOR.c.id), values).scalar_one()
        _add_pages(connection, estimator_id, estimator.pages)
        total += estimator.payload.length + sum(page.payload.length for page in estimator.pages)
    return total


def _add_pages(connection: Connection, estimator_id: int, pages: Sequence[NewPage]) -> None:
    rows = []
    for page in pages:
        row = {"estimator_id": estimator_id, "page_number": page.number, "page_name": page.name}
        row["page_dimension"] = page.dimension
        if isinstance(page.payload, LargePayload):
            large.add(connection, _PAGE, row, page.payload)
        else:
            rows.append(row | page.payload.columns())
    if rows:
        connection.execute(insert(_PAGE), rows)


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


def pages(
    connection: Connection,
    estimator_ids: Sequence[int],
    ranges: Sequence[tuple[int, int]] | None = None,
    most: int | None = None,
) -> list[Record]:
    """Stored pages by estimator and number: estimator_id, id, length, compressed_data; `ranges` are inclusive.

    If all payloads together are more than `most` bytes, they are left out (None).
    """
    length = func.length(_PAGE.c.compressed_data).label("length")
    named = select(_PAGE.c.id, _PAGE.c.estimator_id, _PAGE.c.page_number, length)
    chosen = named.where(_chosen(estimator_ids, ranges)).cte("chosen")
    data: ColumnElement[bytes | None] = _PAGE.c.compressed_data
    if most is not None:
        data = case((select(func.sum(chosen.c.length)).scalar_subquery() <= most, data))
    query = select(chosen.c.estimator_id, chosen.c.id, chosen.c.length, data.label("compressed_data"))
    query = query.join_from(chosen, _PAGE, _PAGE.c.id == chosen.c.id)
    return list(connection.execute(query.order_by(chosen.c.estimator_id, chosen.c.page_number)).all())


def _chosen(estimator_ids: Sequence[int], ranges: Sequence[tuple[int, int]] | None) -> ColumnElement[bool]:
    chosen: ColumnElement[bool] = _PAGE.c.estimator_id.in_(estimator_ids)
    if ranges is not None:
        chosen &= or_(*(_PAGE.c.page_number.between(first, last) for first, last in ranges))
    return chosen


def page_slice(connection: Connection, page_id: int, start: int, length: int) -> bytes:
    """Bytes of one stored payload; fewer, or none, if the page is gone."""
    return large.part(connection, _PAGE, page_id, start, length)
