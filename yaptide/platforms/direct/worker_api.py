"""A worker's side of `yaptide.api.workers`: what it asks the server, again and again until it gets an answer."""

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
#: Longer than the server, and a proxy before it, may take to check and keep what it has got.
_UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=5.0, write=300.0, read=600.0)
_SHORTLY = 30.0
_CHUNK = 1 << 20
#: What another try may mend: no connection, a server that is busy, restarts, or has no room just now.
_AWAY = (Unavailable, StorageFull)


def is_reached(url: str) -> bool:
    """Whether the server at `url` answers."""
    try:
        return httpx.get(f"{url.rstrip('/')}/healthz", timeout=1.0).is_success
    except httpx.HTTPError:
        return False


class Server:
    """The server that a worker reports to, about one simulation; see `yaptide.api.workers` for the calls."""

    def __init__(self, url: str, simulation_id: int, update_key: str, patience: float) -> None:
        """`patience` is for how long (s) a call that matters is repeated while the server does not answer."""
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

    def ask(self, path: str, **body: object) -> dict[str, Any]:
        """POST once; raises Unavailable if there is no answer, and what the server refuses."""
        return self._answer(lambda: self._http.post(path, json=body))

    def insist(self, path: str, **body: object) -> dict[str, Any]:
        """POST until there is an answer."""
        return self._until_answered(lambda: self.ask(path, **body))

    def insist_shortly(self, path: str, **body: object) -> dict[str, Any]:
        """POST until there is an answer, but not for long: who stops is waited for."""
        return self._until_answered(lambda: self.ask(path, **body), _SHORTLY)

    def upload(self, path: str, file: Path, **query: str | int) -> dict[str, Any]:
        """PUT a file, from its beginning each time, until there is an answer."""

        def put() -> dict[str, Any]:
            options: dict[str, Any] = {
                "headers": {"Content-Length": str(file.stat().st_size)},
                "timeout": _UPLOAD_TIMEOUT,
            }
            return self._answer(lambda: self._http.put(path, params=query, content=_chunks(file), **options))

        return self._until_answered(put)

    def download(self, path: str, file: Path) -> None:
        """GET a file, whole, until it is there."""

        def get() -> None:
            with _translated(), self._http.stream("GET", path) as response, file.open("wb") as target:
                if response.is_error:
                    response.read()
                    read_document(response)
                for chunk in response.iter_raw(_CHUNK):
                    target.write(chunk)

        self._until_answered(get)

    def _answer(self, send: Callable[[], httpx.Response]) -> dict[str, Any]:
        with _translated():
            return read_document(send())

    def _until_answered(self, call: Callable[[], Any], patience: float | None = None) -> Any:
        """Repeat a call that got no answer, after waits that grow and differ: workers do not come all at once."""
        return Retrying(
            retry=retry_if_exception_type(_AWAY),
            wait=wait_random_exponential(multiplier=0.5, max=30.0),
            stop=stop_after_delay(self._patience if patience is None else patience),
            before_sleep=_say,
            reraise=True,
        )(call)


def _say(state: RetryCallState) -> None:
    if state.attempt_number in (3, 10, 30, 100):
        error = state.outcome.exception() if state.outcome else None
        log.warning("no answer after %d tries, going on: %s", state.attempt_number, error)


@contextmanager
def _translated() -> Iterator[None]:
    """Have every way of not getting an answer be Unavailable."""
    try:
        yield
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        raise Unavailable(f"The server cannot be reached: {str(error) or type(error).__name__}") from error


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


@dataclass(frozen=True, slots=True)
class RemoteReporter:
    """Reports of a task go to the server; see `yaptide.platforms.direct.running.Reporter`."""

    server: Server
    task_id: int
    owner: str
    outbox: Path
    """Where the scores are until the server has them."""

    def progress(self, simulated: int, estimated: int | None) -> bool:
        """See `Reporter`."""
        try:
            answer = self._post("progress", self.server.ask, simulated_primaries=simulated, estimated_time=estimated)
        except _AWAY:
            return True  # the simulator goes on; the next report tells the same
        except YaptideError:  # deleted
            return False
        return bool(answer["wanted"])

    def complete(self, output: TaskOutput) -> None:
        """See `Reporter`."""
        with self.outbox.open("wb") as file:
            task_outputs.write_output(file, output)
        try:
            path = f"/tasks/{self.task_id}/output"
            self.server.upload(path, self.outbox, primaries=output.primaries, owner=self.owner)
        finally:
            self.outbox.unlink(missing_ok=True)

    def fail(self, reason: str, logs: Mapping[str, str]) -> None:
        """See `Reporter`."""
        self._post("failure", self.server.insist, reason=reason[:10_000], logfiles=logs_of_task(self.task_id, logs))

    def canceled(self, logs: Mapping[str, str]) -> None:
        """See `Reporter`."""
        self._post("canceled", self.server.insist, logfiles=logs_of_task(self.task_id, logs))

    def give_back(self, reason: str) -> None:
        """See `Reporter`."""
        self._post("return", self.server.insist_shortly, reason=reason)

    def _post(self, what: str, how: Callable[..., dict[str, Any]], **body: object) -> dict[str, Any]:
        return how(f"/tasks/{self.task_id}/{what}", owner=self.owner, **body)
