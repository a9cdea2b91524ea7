"""Keeping the numbers of simulations short, see `yaptide.persistence.queries.counts`."""

from yaptide.persistence.engine import Database, retried
from yaptide.persistence.queries import counts, users

#: Rows of a user that are worth no writing: to add them up takes as long whenever somebody asks.
MOST = 100


def fold(database: Database, most: int = MOST) -> None:
    """Add up the rows of each user of whom there are more than `most`, one user in a transaction."""
    with database.reading() as connection:
        found = counts.users_with_many(connection, most)
    for user_id in found:
        _fold(database, user_id)


@retried
def _fold(database: Database, user_id: int) -> None:
    with database.writing() as connection:
        if users.lock(connection, user_id):  # it may have been removed meanwhile
            counts.fold(connection, user_id)
