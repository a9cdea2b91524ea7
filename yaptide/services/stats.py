"""Statistics of the store."""

from dataclasses import dataclass

from yaptide.persistence.engine import Database, Record
from yaptide.persistence.queries import administration as queries, stats


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of the store.

    `rows` by table; `payloads` by kind (kind, payloads, stored_bytes, text_bytes); `users` as returned by
    `queries.administration.list_users`, those with the most bytes first; `largest` simulations (job_id, username,
    job_state, stored_bytes); `disk_bytes` of the whole database.
    """

    rows: dict[str, int]
    payloads: list[Record]
    users: list[Record]
    largest: list[Record]
    disk_bytes: int


def collect_stats(database: Database, largest: int) -> Stats:
    """Return the current statistics, with the `largest` simulations."""
    with database.reading() as connection:
        users = sorted(queries.list_users(connection), key=lambda user: -user.stored_bytes)
        return Stats(
            stats.count_rows(connection),
            stats.count_payloads(connection),
            users,
            stats.list_largest(connection, largest),
            stats.disk_bytes(connection),
        )
