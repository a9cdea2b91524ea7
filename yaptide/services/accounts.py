"""What users do with their own account: sessions, export, deletion. Passwords are in `yaptide.services.users`."""

import hashlib
import io
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple

from yaptide.disk import require_free_space
from yaptide.domain.errors import Busy, Conflict, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.names import normalize_name
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence.queries import simulations, users as queries
from yaptide.persistence.queries.users import User
from yaptide.services import administration, archives, users
from yaptide.services.backend import Backend, utc_now

#: Maximum number of sessions in the list.
MOST = 1000
#: A user of Keycloak, who has no password here, proves a deletion by a sign-in this short ago.
FRESH = timedelta(minutes=10)

_RETRY_SECONDS = 30
_EXPORTING = Lock()
#: Users, by data folder and id, whose archive is still being sent: a slow download holds its file.
_SENDING: set[tuple[str, int]] = set()


class Session(NamedTuple):
    """A session. `id` names it, but opens nothing; the other values are None if a previous version began it."""

    id: str
    started: datetime | None
    expires: datetime
    address: str | None
    device: str | None
    is_current: bool


def list_sessions(backend: Backend, user: User, current: str | None = None) -> list[Session]:
    """Return the sessions of a user, the latest first; `current` is the one that asks."""
    with backend.database.reading() as connection:
        rows = queries.list_sessions(connection, user.id, utc_now(), MOST)
    return [
        Session(_name(row.id), row.started, row.expires, row.address, row.device, row.id == current) for row in rows
    ]


def end_session(backend: Backend, user: User, name: str) -> None:
    """End the session of this `id` in the list; raise NotFound."""
    with backend.database.writing() as connection:
        ids = [row.id for row in queries.list_sessions(connection, user.id, utc_now(), MOST)]
        session = next((each for each in ids if _name(each) == name), "")
        if not queries.end_own_session(connection, user.id, session):
            raise NotFound("There is no such session: it may have ended")


def end_other_sessions(backend: Backend, user: User, current: str | None) -> int:
    """End all sessions of a user except the `current` one; return their number."""
    with backend.database.writing() as connection:
        return queries.end_sessions(connection, user.id, keep=current)


def _name(session: str) -> str:
    """Return a name for a session from which its id, which tokens contain, cannot be derived."""
    return hashlib.sha256(session.encode()).hexdigest()[:16]


class Export(NamedTuple):
    """The exported simulations, and the number of those that have not ended, which are left out."""

    job_ids: list[str]
    unfinished: int


def write_export(backend: Backend, user: User, path: Path) -> Export:
    """Write all simulations of a user that have ended to an archive, which `yaptide import` reads.

    It has no secrets, and nothing of other users. Raises Conflict if there are too many for an archive, and what
    `archives.export_simulations` raises.
    """
    with backend.database.reading() as connection:
        states = simulations.list_states(connection, user.id)
    ended = [job_id for job_id, state in states if state in FINAL_STATES]
    archives.export_simulations(backend, ended, path)
    return Export(ended, len(states) - len(ended))


class _ExportFile(io.BufferedReader):
    """An archive that is being sent; `on_close` is called when it is closed, or garbage."""

    def __init__(self, path: Path, on_close: Callable[[], object]) -> None:
        super().__init__(io.FileIO(path))
        self._on_close = on_close

    def close(self) -> None:
        """See `io.BufferedReader`."""
        super().close()
        self._on_close()


def open_export(backend: Backend, user: User) -> tuple[IO[bytes], int]:
    """Return an open archive as `write_export` writes it, and the number of simulations that are left out.

    The caller closes the file, which then is gone. Raises Busy while this process writes another one, or while an
    earlier one of this user is open, StorageFull if there is little space, and what `write_export` raises.
    """
    sending = str(backend.data_dir), user.id
    if not _EXPORTING.acquire(blocking=False):
        raise Busy(_RETRY_SECONDS, "Another export is being written")
    try:
        if sending in _SENDING:
            raise Busy(_RETRY_SECONDS, "Your previous export is still being downloaded")
        require_free_space(backend.data_dir, "for an export, an administrator must free some")
        with tempfile.TemporaryDirectory(prefix="export-", dir=backend.data_dir) as folder:
            path = Path(folder) / "export.zip"
            export = write_export(backend, user, path)
            file = _ExportFile(path, lambda: _SENDING.discard(sending))
            _SENDING.add(sending)
            return file, export.unfinished
    finally:
        _EXPORTING.release()


def delete_account(backend: Backend, user: User, username: str, password: str, session: str | None) -> None:
    """Delete a user with everything: simulations, results, sessions, tokens.

    The user types the own name, and the password; a user of Keycloak has signed in to `session` within FRESH instead.
    Raises InvalidInput for another name, NotAuthenticated, TooManyAttempts, and Conflict while simulations run: on a
    cluster they would go on without anybody who could stop them.
    """
    if normalize_name(username) != normalize_name(user.username):
        raise InvalidInput("The name is not that of this account: type your own user name to delete it")
    if user.is_keycloak:
        _require_fresh(backend, session)
    else:
        users.confirm_password(backend, user, password)
    holdings = administration.count_holdings(backend.database, user)
    if holdings.open:
        raise Conflict(f"{holdings.open} of your simulations have not ended: cancel them first")
    administration.remove_user(backend.database, user, holdings)


def _require_fresh(backend: Backend, session: str | None) -> None:
    with backend.database.reading() as connection:
        started = None if session is None else queries.session_start(connection, session)
    if started is None or utc_now() - started > FRESH:
        raise NotAuthenticated("Sign out, sign in through Keycloak again, and delete the account within 10 minutes")
