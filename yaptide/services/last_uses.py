"""Stores when tokens were last used, without delaying the requests that use them."""

import logging
import threading
from datetime import datetime, timedelta

from yaptide.domain.errors import YaptideError
from yaptide.persistence.engine import Database
from yaptide.persistence.queries import tokens
from yaptide.persistence.queries.users import HeldToken

log = logging.getLogger(__name__)

#: Time between two writes about the same token.
ACCURACY = timedelta(minutes=1)


class LastUses:
    """Writes in a thread of its own, one token at a time; shared by all threads of a process.

    A use during a write is not stored: the next one is.
    """

    def __init__(self) -> None:
        self._is_writing = threading.Lock()

    def note(self, database: Database, token: HeldToken, now: datetime) -> None:
        """Store the time of a use if the stored one is older than ACCURACY. Returns at once."""
        if token.last_used is not None and now - token.last_used < ACCURACY:
            return
        if self._is_writing.acquire(blocking=False):
            threading.Thread(target=self._store, args=(database, token.id, now), daemon=True).start()

    def wait(self) -> None:
        """Wait until the write that has begun has ended."""
        with self._is_writing:
            pass

    def _store(self, database: Database, token_id: int, now: datetime) -> None:
        try:
            with database.autocommit() as connection:
                tokens.set_last_used(connection, token_id, now, ACCURACY)
        except YaptideError as error:
            log.warning("the last use of a token was not stored: %s", error)
        finally:
            self._is_writing.release()
