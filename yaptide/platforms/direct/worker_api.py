"""HTTP requests of a worker to the server (`yaptide.api.workers`), with retries until the server answers."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from yaptide import __version__
from yaptide.domain.errors import StorageFull, Unavailable, YaptideError
from yaptide.domain.estimators import TaskOutput
from yaptide.persistence import task_outputs
from yaptide.simulators.base import logs_of_task
from yaptide_client.answers import read_document

log = logging.getLogger(__name__)

_TIMEOUT = httpx.Timeout(30.0, connect=5.0, write=60.0, read=60.0)
#: Longer than the server, and a proxy in front of it, may take to check and store an upload.
_UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=5.0, write=300.0, read=600.0)
_BRIEF = 30.0
_CHUNK = 1 << 20
#: Errors that a retry may fix: no connection, or a server that is busy, restarting or out of disk space.
_TRANSIENT = (Unavailable, StorageFull)


def is_reachable(url: str) -> bool:
    """Whether the server at `url` answers."""
    try:
        return httpx.get(f"{url.rstrip('/')}/healthz", timeout=1.0).is_success
    except httpx.HTTPError:
        return False


class Server:
    """The server, for requests about one simulation; `yaptide.api.workers` defines them."""

    def __init__(self, url: str, simulation_id: int, update_key: str, patience: float) -> None:
        """`patience` is the time (s) for which an important request is retried while the server does not answer."""
        self._patience = patience
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/worker/{simulation_id}",
            headers={"Authorization": f"Bearer {update_key}", "User-Agent": f"yaptide/{__version__}"},
            timeout=_TIMEOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post_once(self, path: str, **body: object) -> dict[str, Any]:
        """POST once; raises Unavailable without an answer, and the errors that the server reports."""
        return self._read_answer(lambda: self._http.post(path, json=body))

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """POST, with retries until the server answers."""
        return self._retry(lambda: self.post_once(path, **body))

    def post_briefly(self, path: str, **body: object) -> dict[str, Any]:
        """POST, with retries for a short time: the process is about to stop."""
        return self._retry(lambda: self.post_once(path, **body), _BRIEF)

    def upload_file(self, path: str, file: Path, **query: str | int) -> dict[str, Any]:
        """PUT a file, with retries from its beginning until the server answers."""

        def put() -> dict[str, Any]:
            options: dict[str, Any] = {
                "headers": {"Content-Length": str(file.stat().st_size)},
                "timeout": _UPLOAD_TIMEOUT,
            }
            return self._read_answer(lambda: self._http.put(path, params=query, content=_read_chunks(file), **options))

        return self._retry(put)

    def download_file(self, path: str, file: Path) -> None:
        """GET a file, with retries until it is complete."""

        def get() -> None:
            with _translated(), self._http.stream("GET", path) as response, file.open("wb") as target:
                if response.is_error:
                    response.read()
                    read_document(response)
                for chunk in response.iter_raw(_CHUNK):
                    target.write(chunk)

        self._retry(get)

    def _read_answer(self, send: Callable[[], httpx.Response]) -> dict[str, Any]:
        with _translated():
            return read_document(send())

    def _retry(self, call: Callable[[], Any], patience: float | None = None) -> Any:
        """Retry a call without an answer, after growing random waits, which spread the requests of many workers."""
        return Retrying(
            retry=retry_if_exception_type(_TRANSIENT),
            wait=wait_random_exponential(multiplier=0.5, max=30.0),
            stop=stop_after_delay(self._patience if patience is None else patience),
            before_sleep=_log_retry,
            reraise=True,
        )(call)


def _log_retry(state: RetryCallState) -> None:
    if state.attempt_number in (3, 10, 30, 100):
        error = state.outcome.exception() if state.outcome else None
        log.warning("no answer after %d attempts, retrying: %s", state.attempt_number, error)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise Unavailable for every error of a connection."""
    try:
        yield
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        raise Unavailable(f"The server cannot be reached: {str(error) or type(error).__name__}") from error


def _read_chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


@dataclass(frozen=True, slots=True)
class RemoteReporter:
    """Sends the reports of a task to the server; see `yaptide.platforms.direct.running.Reporter`."""

    server: Server
    task_id: int
    owner: str
    output_file: Path
    """Where the results are written for the upload."""

    def report_progress(self, simulated: int, estimated: int | None) -> bool:
        """See `Reporter`."""
        try:
            answer = self._post(
                "progress", self.server.post_once, simulated_primaries=simulated, estimated_time=estimated
            )
        except _TRANSIENT:
            return True  # the simulator continues; the next report includes this one
        except YaptideError:  # the simulation was deleted
            return False
        return bool(answer["wanted"])

    def complete_task(self, output: TaskOutput) -> None:
        """See `Reporter`."""
        with self.output_file.open("wb") as file:
            task_outputs.write_output(file, output)
        try:
            path = f"/tasks/{self.task_id}/output"
            self.server.upload_file(path, self.output_file, primaries=output.primaries, owner=self.owner)
        finally:
            self.output_file.unlink(missing_ok=True)

    def fail_task(self, reason: str, logs: Mapping[str, str]) -> None:
        """See `Reporter`."""
        self._post("failure", self.server.post, reason=reason[:10_000], logfiles=logs_of_task(self.task_id, logs))

    def report_canceled(self, logs: Mapping[str, str]) -> None:
        """See `Reporter`."""
        self._post("canceled", self.server.post, logfiles=logs_of_task(self.task_id, logs))

    def return_task(self, reason: str) -> None:
        """See `Reporter`."""
        self._post("return", self.server.post_briefly, reason=reason)

    def _post(self, what: str, how: Callable[..., dict[str, Any]], **body: object) -> dict[str, Any]:
        return how(f"/tasks/{self.task_id}/{what}", owner=self.owner, **body)
