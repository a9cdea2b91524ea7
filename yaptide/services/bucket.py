"""A spool in a bucket of any store that speaks S3, for servers that share no folder.

The keys are those of the folder: `<job_id>/<task_id>.npz` and `.place`. Who may use the bucket, and where it is, comes
from the variables that every program for S3 knows: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and
AWS_ENDPOINT_URL.
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

with needed_for("A spool in a bucket (YAPTIDE_SPOOL)"):
    import obstore

_FORGOTTEN = timedelta(days=30)
_PLACE = ".place"
_TIMEOUTS = {"timeout": "300s", "connect_timeout": "5s"}
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}


class Bucket:
    """A spool in a bucket, ``s3://bucket`` or ``s3://bucket/folder``; files pass through the folder `aside`."""

    def __init__(self, url: str, aside: Path) -> None:
        self._url = url
        self._aside = aside

    @cached_property
    def _store(self) -> Any:
        options: dict[str, Any] = {"client_options": {**_TIMEOUTS, "allow_http": True}, "retry_config": _RETRIES}
        try:
            return obstore.store.from_url(self._url, **options)
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise InvalidInput(f"YAPTIDE_SPOOL cannot be used: {_told(error)}") from error

    @cached_property
    def place(self) -> str:
        """See `yaptide.services.spool.Spool`."""
        with _understood():
            name = self._read(_PLACE)
            if name is None:
                drawn = secrets.token_hex(6).encode()
                with suppress(obstore.exceptions.AlreadyExistsError):  # somebody was quicker
                    obstore.put(self._store, _PLACE, drawn, mode="create", use_multipart=False)
                name = self._read(_PLACE)
        return f"{(name or b'').decode()}/"

    @contextmanager
    def receive(self, job_id: str, task_id: int) -> Iterator[IO[bytes]]:
        """See `yaptide.services.spool.Spool`."""
        with explain_full_disk(NO_ROOM):
            self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._aside) as file:
                yield file
                file.flush()
                key = _key(job_id, task_id)
                with _understood():
                    if not self._has(key):
                        obstore.put(self._store, key, Path(file.name))

    def fetch(self, job_id: str, task_id: int, aside: Path) -> Path:
        """See `yaptide.services.spool.Spool`."""
        path = aside / f"{task_id}.npz"
        with _understood():
            try:
                found = obstore.get(self._store, _key(job_id, task_id))
            except FileNotFoundError:
                return path
            with path.open("wb") as file:
                for chunk in found.stream():
                    file.write(chunk)
        return path

    def remove(self, job_id: str) -> None:
        """See `yaptide.services.spool.Spool`."""
        with _understood():
            keys = [entry["path"] for entry in self._entries(job_id)]
            if keys:
                obstore.delete(self._store, keys)

    def jobs(self) -> set[str]:
        """See `yaptide.services.spool.Spool`."""
        with _understood():
            return {str(name) for name in obstore.list_with_delimiter(self._store)["common_prefixes"]}

    def is_forgotten(self, job_id: str) -> bool:
        """See `yaptide.services.spool.Spool`."""
        with _understood():
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
def _understood() -> Iterator[None]:
    """Have every way of not reaching the store be Unavailable."""
    try:
        yield
    except obstore.exceptions.BaseError as error:
        raise Unavailable(f"The spool's store cannot be reached: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What went wrong, in one line."""
    return str(error).splitlines()[0][:300]
