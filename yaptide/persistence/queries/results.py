"""Queries about estimators and pages."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Select, and_, bindparam, case, func, insert, select

from yaptide.persistence.engine import IN_BINARY, Record
from yaptide.persistence.models.tables import ESTIMATOR, PAGE
from yaptide.persistence.payload import LargePayload, NewEstimator, NewPage
from yaptide.persistence.queries import blobs, json_rows

_ANY = 2**62
#: More axes than any page has.
ANY_AXES = 2**31 - 1

_ESTIMATORS = (
    select(ESTIMATOR.c.id, ESTIMATOR.c.name, ESTIMATOR.c.compressed_data)
    .where(ESTIMATOR.c.simulation_id == bindparam("simulation"))
    .order_by(ESTIMATOR.c.id)
    .execution_options(**IN_BINARY)
)
_ESTIMATOR_NAMED = _ESTIMATORS.where(ESTIMATOR.c.name == bindparam("name"))


def add_results(connection: Connection, simulation_id: int, estimators: Sequence[NewEstimator]) -> int:
    """Insert all results of a simulation, in the given order; return the bytes that they take."""
    total = 0
    for estimator in estimators:
        values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
        values |= estimator.payload.columns()
        estimator_id = connection.execute(insert(ESTIMATOR).returning(ESTIMATOR.c.id), values).scalar_one()
        _add_pages(connection, estimator_id, estimator.pages)
        total += estimator.payload.length + sum(page.payload.length for page in estimator.pages)
    return total


def _add_pages(connection: Connection, estimator_id: int, pages: Sequence[NewPage]) -> None:
    small = []
    for page in pages:
        row = {"estimator_id": estimator_id, "page_number": page.number, "page_name": page.name}
        row["page_dimension"] = page.dimension
        if isinstance(page.payload, LargePayload):
            blobs.add_blob(connection, row, page.payload)
        else:
            small.append(row | page.payload.columns())
    if small:
        connection.execute(insert(PAGE), small)


def page_digests(connection: Connection, simulation_id: int) -> dict[tuple[str, int], str]:
    """Return the digest of every page of a simulation by estimator name and page number (-1: the estimator itself)."""
    whole = select(ESTIMATOR.c.name, ESTIMATOR.c.content_sha256).where(ESTIMATOR.c.simulation_id == simulation_id)
    pages = (
        select(ESTIMATOR.c.name, PAGE.c.page_number, PAGE.c.content_sha256)
        .join(PAGE, PAGE.c.estimator_id == ESTIMATOR.c.id)
        .where(ESTIMATOR.c.simulation_id == simulation_id)
    )
    digests = {(name, -1): digest for name, digest in connection.execute(whole)}
    return digests | {(name, number): digest for name, number, digest in connection.execute(pages)}


def pages_metadata(connection: Connection, simulation_id: int) -> list[Record]:
    """Return estimator name, page number, page name and dimension of every page, in display order."""
    query = (
        select(ESTIMATOR.c.name, PAGE.c.page_number, PAGE.c.page_name, PAGE.c.page_dimension)
        .join(PAGE, PAGE.c.estimator_id == ESTIMATOR.c.id)
        .where(ESTIMATOR.c.simulation_id == simulation_id)
        .order_by(ESTIMATOR.c.id, PAGE.c.page_number)
    )
    return list(connection.execute(query).all())


def list_estimators(connection: Connection, simulation_id: int, name: str | None = None) -> list[Record]:
    """Return id, name and metadata payload of the estimators in storage order, or only of the one called `name`."""
    if name is None:
        return list(connection.execute(_ESTIMATORS, {"simulation": simulation_id}).all())
    return list(connection.execute(_ESTIMATOR_NAMED, {"simulation": simulation_id, "name": name}).all())


def list_pages(
    connection: Connection,
    estimator_ids: Sequence[int],
    ranges: Sequence[tuple[int, int]] | None = None,
    most: int = _ANY,
    most_axes: int = ANY_AXES,
) -> list[Record]:
    """Return stored pages by estimator and number, or only those in the inclusive, disjoint `ranges`.

    Each as id, estimator_id, page_number, page_name, page_dimension, content_size, length of the payload, and the
    payload (`compressed_data`). The payload is None for pages with more than `most_axes` axes, and for all pages if the
    others take more than `most` bytes together.
    """
    values: dict[str, Any] = {"estimators": estimator_ids, "most": most, "most_axes": most_axes}
    if ranges is not None:
        values["rows"] = json_rows.json_rows([{"first": first, "last": last} for first, last in ranges])
    rows = connection.execute(_pages(connection.dialect.name, ranges is not None), values).all()
    # Sorted here, because SQLite would copy the payloads to sort them.
    return sorted(rows, key=lambda row: (row.estimator_id, row.page_number))


@cache
def _pages(dialect: str, ranged: bool) -> Select[*tuple[Any, ...]]:
    length = func.length(PAGE.c.compressed_data).label("length")
    columns = (PAGE.c.page_number, PAGE.c.page_name, PAGE.c.page_dimension, PAGE.c.content_size)
    pages = select(PAGE.c.id, PAGE.c.estimator_id, *columns, length)
    pages = pages.where(json_rows.is_among(PAGE.c.estimator_id, dialect, "estimators"))
    if ranged:
        ranges = json_rows.json_table(dialect, first=Integer(), last=Integer())
        pages = pages.join(ranges, PAGE.c.page_number.between(ranges.c.first, ranges.c.last))
    chosen = pages.cte("chosen")
    wanted = chosen.c.page_dimension <= bindparam("most_axes")
    few = select(func.sum(chosen.c.length)).where(wanted).scalar_subquery() <= bindparam("most", type_=BigInteger())
    data = case((and_(wanted, few), PAGE.c.compressed_data)).label("compressed_data")
    query = select(*chosen.c, data).join_from(chosen, PAGE, PAGE.c.id == chosen.c.id)
    return query.execution_options(**IN_BINARY)


def find_page(connection: Connection, simulation_id: int, estimator: str, number: int) -> Record | None:
    """A stored page without its payload: id, page_dimension, length of the payload, content_size, content_sha256."""
    length = func.length(PAGE.c.compressed_data).label("length")
    query = (
        select(PAGE.c.id, PAGE.c.page_dimension, length, PAGE.c.content_size, PAGE.c.content_sha256)
        .join(ESTIMATOR, PAGE.c.estimator_id == ESTIMATOR.c.id)
        .where(ESTIMATOR.c.simulation_id == simulation_id, ESTIMATOR.c.name == estimator)
        .where(PAGE.c.page_number == number)
    )
    return connection.execute(query).first()
