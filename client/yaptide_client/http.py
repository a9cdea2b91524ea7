"""Talking to a yaptide server."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from yaptide_client import answers
from yaptide_client.errors import (
    Unavailable,
)
from yaptide_client.files import read_folder, read_project
from yaptide_client.results import Results
from yaptide_client.states import FINAL_STATES, EntityState


class Client:
    """A connection to the server at `url`, such as `http://localhost:5000`; `timeout` in seconds for each request.

    Every call raises the error of `yaptide_client.errors` that fits the server's answer, with its message, or
    Unavailable if there is no answer.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        import httpx  # noqa: PLC0415 - commands import this package for its results, and most of them call no server

        self._http = httpx.Client(base_url=url, timeout=timeout, follow_redirects=True)

    def __repr__(self) -> str:
        """With the server, and without what proves who is signed in."""
        return f"<Client of {self._http.base_url}>"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: the server, and the session, so keep a pickle to yourself."""
        return {
            "url": str(self._http.base_url),
            "timeout": self._http.timeout.read,
            "cookies": list(self._http.cookies.jar),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A connection of its own."""
        self.__init__(state["url"], state["timeout"])  # type: ignore[misc]
        for cookie in state["cookies"]:
            self._http.cookies.jar.set_cookie(cookie)

    def __enter__(self) -> Self:
        """Use as a context manager to close the connection at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def register(self, username: str, password: str) -> None:
        """Add a user."""
        self.call("PUT", "/auth/register", json={"username": username, "password": password})

    def sign_in(self, username: str, password: str) -> None:
        """Sign in; the session is kept as long as this client is used."""
        self.call("POST", "/auth/login", json={"username": username, "password": password})

    def submit(
        self,
        source: Path | str | Mapping[str, str],
        ntasks: int = 1,
        sim_type: str = "common",
        title: str | None = None,
    ) -> "Job":
        """Submit input files (a folder, or name to text) or a web editor's project (a JSON file) as `ntasks` tasks."""
        body: dict[str, Any] = {"ntasks": ntasks, "sim_type": sim_type}
        if isinstance(source, Mapping):
            name, given = "Untitled", {"input_type": "files", "input_files": dict(source)}
        elif Path(source).is_file():
            name, given = Path(source).stem, {"input_type": "editor", "input_json": read_project(source)}
        else:
            name, given = Path(source).resolve().name, {"input_type": "files", "input_files": read_folder(source)}
        body |= {"title": title or name, **given}
        return Job(self, self.call("POST", "/jobs/direct", json=body)["job_id"])

    def convert(self, project: Path | str | Mapping[str, Any], simulator: str) -> dict[str, Any]:
        """A project of the web editor (a JSON file, or its document) as input files of a simulator.

        Returns `input_files` (name to text), `resolution`, and in `left_out` sentences that say what of the project is
        not in them.
        """
        document = project if isinstance(project, Mapping) else read_project(project)
        answer = self.call("POST", "/convert", json={"input_json": document, "sim_type": simulator})
        return {name: answer[name] for name in ("input_files", "resolution", "left_out")}

    def job(self, job_id: str) -> "Job":
        """A simulation that was submitted before."""
        return Job(self, job_id)

    def simulations(self, page: int = 1, size: int = 100, title: str = "") -> list[dict[str, Any]]:
        """Your simulations, newest first; with a `title`, those of the newest 10,000 that have this text in theirs."""
        query = {"page_idx": page, "page_size": size} | ({"title": title} if title else {})
        found = self.call("GET", "/user/simulations", params=query)
        return list(found["simulations"])

    def call(
        self, method: str, path: str, read: Callable[[Any], dict[str, Any]] = answers.read_document, **options: Any
    ) -> Any:
        """One request of any endpoint; the JSON of its answer, as `read` makes it of the response."""
        import httpx  # noqa: PLC0415 - see above

        try:
            response = self._http.request(method, path, **options)
            if path != "/auth/login" and answers.wants_a_session(response) and self._refreshed():
                response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(f"No answer from {self._http.base_url}: {error}") from error
        return read(response)

    def _refreshed(self) -> bool:
        """Whether the session could be prolonged: the access token ends after minutes."""
        return bool(self._http.get("/auth/refresh").is_success)


class Job:
    """One simulation on the server."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.job_id = job_id
        self._client = client

    def __repr__(self) -> str:
        """With its name."""
        return f"<Job {self.job_id}>"

    def status(self) -> dict[str, Any]:
        """The answer of `GET /jobs`: `job_state`, and `job_tasks_status` with a dictionary for each task.

        If nobody who is there can take it, `waiting` says why.
        """
        status: dict[str, Any] = self._get("/jobs")
        return status

    def wait(
        self,
        timeout: float = 24 * 3600.0,
        every: float = 1.0,
        follow: Callable[[dict[str, Any]], object] | None = None,
    ) -> EntityState:
        """Wait until the simulation has ended and return its state; `follow` is called with each status on the way.

        Raises Unavailable after `timeout` seconds. `every`: seconds between two looks.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if follow is not None:
                follow(status)
            state = EntityState(status["job_state"])
            if state in FINAL_STATES:
                return state
            if time.monotonic() + every > deadline:
                why = f": {status['waiting']}" if "waiting" in status else ""
                raise Unavailable(f"{self.job_id} is {state} after {timeout:g} seconds{why}")
            time.sleep(every)

    def results(self, estimator: str | None = None, pages: str | int | Iterable[int] | None = None) -> Results:
        """Results as arrays: all, those of one estimator, or some of its pages; nothing else is downloaded.

        `pages` are their numbers, or a text of ranges like `0-2,5`. Raises NotFound if there are none.
        """
        query = {"job_id": self.job_id}
        if estimator is not None:
            query["estimator_name"] = estimator
        if pages is not None:
            query["page_numbers"] = str(pages) if isinstance(pages, str | int) else ",".join(map(str, pages))
            query["values"] = "1"  # of grids, which are an address otherwise
        found = self._client.call("GET", "/results", answers.read_results_document, params=query)
        return Results.from_document(found, estimator)

    def update_key(self) -> str:
        """The key with which workers of others report about it; docs/workers.md says how."""
        key: str = self._get("/jobs/key")["update_key"]
        return key

    def inputs(self) -> dict[str, Any]:
        """What was submitted."""
        found: dict[str, Any] = self._get("/inputs")["input"]
        return found

    def logfiles(self) -> dict[str, str]:
        """Log files, name to text (with `<`, `>` and `&` escaped)."""
        found: dict[str, str] = self._get("/logfiles")["logfiles"]
        return found

    def history(self) -> list[dict[str, Any]]:
        """Every change of state: when, who, why."""
        return list(self._get("/jobs/history")["history"])

    def cancel(self) -> None:
        """Cancel it, unless it has ended."""
        self._client.call("DELETE", "/jobs", params={"job_id": self.job_id})

    def delete(self) -> None:
        """Delete it with everything about it."""
        self._client.call("DELETE", "/user/simulations", params={"job_id": self.job_id})

    def _get(self, path: str) -> Any:
        return self._client.call("GET", path, params={"job_id": self.job_id})
