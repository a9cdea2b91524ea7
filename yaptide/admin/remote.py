"""A server as a target of commands, through the Python client."""

import atexit
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from yaptide.admin.display import print_message
from yaptide.admin.naming import choose_job
from yaptide.admin.targets import Following, Request, Selection, Show, TaskProgress
from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide_client import Client
from yaptide_client.logins import Login

#: Seconds that a command waits for a server that does not respond.
PATIENCE = 20.0
#: Prefixes of job ids are looked for among the newest simulations.
_SEARCHED = 1000
_WHOLE = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[A-Z]+", re.ASCII)
_SHOWN = TaskProgress._fields


class RemoteTarget:
    """The simulations of a user on a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    def open(cls, login: Login) -> Self:
        """Return the server of a login."""
        client = Client(login.url, token=login.token, patience=PATIENCE)
        atexit.register(client.close)
        return cls(client)

    def run(self, request: Request, following: Following) -> tuple[str, str]:
        """See `Target`."""
        _require_caller(request.user)
        with _remarks_as_messages():
            job = self._client.submit(
                request.path,
                request.tasks,
                request.sim_type,
                request.title or None,
                cluster=request.cluster or None,
                scheduler_options=request.scheduler_options,
            )
        for sentence in job.left_out:
            print_message(f"Left out: {sentence}")
        try:
            with following(job.job_id) as show:
                return job.job_id, str(job.wait(follow=lambda status: _show_status(show, status)))
        except KeyboardInterrupt:
            print_message(f"The simulation continues on the server. Cancel it: yaptide cancel {job.job_id}")
            raise

    def check(self, path: Path, tasks: int | None, sim_type: str) -> dict[str, Any]:
        """See `Target`."""
        with _remarks_as_messages():
            return self._client.check(path, tasks, sim_type)

    def find_job(self, prefix: str) -> str:
        """See `Target`; looks among the newest simulations."""
        if not prefix or _WHOLE.fullmatch(prefix):
            return prefix
        listed = self.list_simulations(Selection(1, _SEARCHED, ""))["simulations"]
        return choose_job([row["job_id"] for row in listed if row["job_id"].startswith(prefix)], prefix)

    def summarize(self, job_id: str) -> dict[str, Any]:
        """See `Target`."""
        return _without_message(self._client.call("GET", "/jobs/summary", params={"job_id": job_id}))

    def list_simulations(self, selection: Selection) -> dict[str, Any]:
        """See `Target`."""
        _require_caller(selection.user, all_users=selection.all_users)
        query = {"page": selection.page, "page_size": selection.size, "title": selection.title}
        return _without_message(self._client.call("GET", "/jobs/list", params=query))

    def describe_owner(self, selection: Selection) -> str:
        """See `Target`."""
        return f"yours on {self._client.url}"

    def list_pages(self, job_id: str) -> list[dict[str, Any]]:
        """See `Target`."""
        answer = self._client.call("GET", "/estimators", params={"job_id": job_id})
        return list(answer["estimators_metadata"])

    def read_results(
        self, job_id: str, estimator: str | None = None, pages: str | None = None, most: int | None = None
    ) -> bytes | None:
        """See `Target`."""
        values = None if pages is None else "1"  # otherwise large grids are returned as addresses
        query = {"job_id": job_id, "estimator_name": estimator, "page_numbers": pages, "values": values}
        text = self._client.read_text("/results", {name: value for name, value in query.items() if value is not None})
        return None if most is not None and len(text) > most else text

    def read_logfiles(self, job_id: str) -> dict[str, str]:
        """See `Target`."""
        escaped = self._client.job(job_id).logfiles()
        return {_unescape(name): _unescape(text) for name, text in escaped.items()}

    def list_history(self, job_id: str) -> list[dict[str, Any]]:
        """See `Target`."""
        rows = self._client.job(job_id).history()
        return [{name: row["exact_time" if name == "time" else name] for name in _HISTORY} for row in rows]

    def cancel(self, job_id: str) -> str | None:
        """See `Target`."""
        state = self._state(job_id)
        if state in FINAL_STATES:
            return state
        self._client.job(job_id).cancel()
        return None

    def delete(self, job_id: str) -> str | None:
        """See `Target`."""
        state = self._state(job_id)
        if state not in FINAL_STATES:
            return state
        self._client.job(job_id).delete()
        return None

    def _state(self, job_id: str) -> EntityState:
        rows, _ = self._client.read_progress([job_id])
        if not rows:
            raise NotFound(f"No such simulation of yours on {self._client.url}: {job_id}")
        return EntityState(rows[0]["job_state"])


def _show_status(show: Show, status: Mapping[str, Any]) -> None:
    tasks = [TaskProgress(*(task[name] for name in _SHOWN)) for task in status["job_tasks_status"]]
    show(status["job_state"], tasks)


_HISTORY = ("task_id", "from_state", "to_state", "time", "actor", "reason")


@contextmanager
def _remarks_as_messages() -> Iterator[None]:
    """Print what the client would warn about, such as files that it leaves out."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", UserWarning)
        yield
    for remark in remarks:
        print_message(str(remark.message))


def _require_caller(user: str, *, all_users: bool = False) -> None:
    if user or all_users:
        raise InvalidInput("--user and --all work on the local data folder only: a server shows your own simulations")


def _without_message(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "message"}


def _unescape(text: str) -> str:
    """Return a text as it was before the server escaped its markup."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
