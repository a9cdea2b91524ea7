"""A staging area in an S3 bucket, for servers that share no folder.

The keys are the same as the paths in a folder: `<job_id>/<task_id>.npz` and `.place`. Address and credentials of the
bucket come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from yaptide.disk import explain_full_disk
from yaptide.domain.errors import InvalidInput, Unavailable
from yaptide.services.spool import NO_ROOM
from yaptide_client.extras import needed_for

with needed_for("A staging area in a bucket (YAPTIDE_SPOOL)"):
    import obstore

_FORGOTTEN = timedelta(days=30)
_PLACE = ".place"
_TIMEOUTS = {"timeout": "300s", "connect_timeout": "5s"}
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}


class Bucket:
    """A staging area in a bucket, ``s3://bucket`` or ``s3://bucket/folder``; `temporary` is a folder for uploads."""

    def __init__(self, url: str, temporary: Path) -> None:
        self._url = url
        self._temporary = temporary

    @cached_property
    def _store(self) -> Any:
        options: dict[str, Any] = {"client_options": {**_TIMEOUTS, "allow_http": True}, "retry_config": _RETRIES}
        try:
            return obstore.store.from_url(self._url, **options)
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise InvalidInput(f"Invalid setting YAPTIDE_SPOOL: {_first_line(error)}") from error

    @cached_property
    def place(self) -> str:
        """See `yaptide.services.spool.Spool`."""
        with _reachable():
            name = self._read(_PLACE)
            if name is None:
                random_name = secrets.token_hex(6).encode()
                with suppress(obstore.exceptions.AlreadyExistsError):  # another server was faster
                    obstore.put(self._store, _PLACE, random_name, mode="create", use_multipart=False)
                name = self._read(_PLACE)
        return f"{(name or b'').decode()}/"

    @contextmanager
    def receive(self, job_id: str, task_id: int) -> Iterator[IO[bytes]]:
        """See `yaptide.services.spool.Spool`."""
        with explain_full_disk(NO_ROOM):
            self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._temporary) as file:
                yield file
                file.flush()
                key = _key(job_id, task_id)
                with _reachable():
                    if not self._has(key):
                        obstore.put(self._store, key, Path(file.name))

    def fetch(self, job_id: str, task_id: int, folder: Path) -> Path:
        """See `yaptide.services.spool.Spool`."""
        path = folder / f"{task_id}.npz"
        with _reachable():
            try:
                stored = obstore.get(self._store, _key(job_id, task_id))
            except FileNotFoundError:
                return path
            with path.open("wb") as file:
                for chunk in stored.stream():
                    file.write(chunk)
        return path

    def remove(self, job_id: str) -> None:
        """See `yaptide.services.spool.Spool`."""
        with _reachable():
            keys = [entry["path"] for entry in self._entries(job_id)]
            if keys:
                obstore.delete(self._store, keys)

    def jobs(self) -> set[str]:
        """See `yaptide.services.spool.Spool`."""
        with _reachable():
            return {str(name) for name in obstore.list_with_delimiter(self._store)["common_prefixes"]}

    def is_forgotten(self, job_id: str) -> bool:
        """See `yaptide.services.spool.Spool`."""
        with _reachable():
            times = [entry["last_modified"] for entry in self._entries(job_id)]
        return bool(times) and datetime.now(UTC) - max(times) > _FORGOTTEN

    def _entries(self, job_id: str) -> Iterator[Any]:
        for batch in obstore.list(self._store, prefix=job_id):
            yield from batch

    def _has(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None


def _key(job_id: str, task_id: int) -> str:
    return f"{job_id}/{task_id}.npz"


@contextmanager
def _reachable() -> Iterator[None]:
    """Convert errors of the S3 server to Unavailable."""
    try:
        yield
    except obstore.exceptions.BaseError as error:
        raise Unavailable(f"The S3 server of the staging area is not available: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return the first line of the message."""
    return str(error).splitlines()[0][:300]
