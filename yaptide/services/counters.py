"""Keeping the numbers of simulations short, see `yaptide.persistence.queries.counters`."""

from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.queries import counters, users

#: Rows of a user that are worth no writing: to add them up takes as long whenever somebody asks.
MOST = 100


def fold_counts(database: Database, most: int = MOST) -> None:
    """Add up the rows of each user of whom there are more than `most`, one user in a transaction."""
    with database.reading() as connection:
        found = counters.users_with_many(connection, most)
    for user_id in found:
        _fold(database, user_id)


@retry_contended
def _fold(database: Database, user_id: int) -> None:
    with database.writing() as connection:
        if users.lock_user(connection, user_id):  # it may have been removed meanwhile
            counters.fold_counts(connection, user_id)
