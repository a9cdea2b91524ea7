"""The HTTP client of a yaptide server."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from yaptide_client import answers
from yaptide_client.errors import (
    Unavailable,
)
from yaptide_client.files import read_input, read_project
from yaptide_client.results import Results
from yaptide_client.states import FINAL_STATES, EntityState


class Client:
    """A connection to the server at `url`, e.g. `http://localhost:5000`; `timeout` in seconds per request.

    Every call raises the error of `yaptide_client.errors` that matches the server's response, with its message, or
    Unavailable without a response.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        import httpx  # noqa: PLC0415 - most commands import this package, but do not call a server

        self._http = httpx.Client(base_url=url, timeout=timeout, follow_redirects=True)

    def __repr__(self) -> str:
        """Show the server, but no credentials."""
        return f"<Client of {self._http.base_url}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return the server and the session for a copy in another process. Keep such a pickle secret."""
        return {
            "url": str(self._http.base_url),
            "timeout": self._http.timeout.read,
            "cookies": list(self._http.cookies.jar),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a new connection."""
        self.__init__(state["url"], state["timeout"])  # type: ignore[misc]
        for cookie in state["cookies"]:
            self._http.cookies.jar.set_cookie(cookie)

    def __enter__(self) -> Self:
        """Return the client, whose connection is closed at the end of the block."""
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
        """Sign in. The session lasts as long as this client is used."""
        self.call("POST", "/auth/login", json={"username": username, "password": password})

    def submit(
        self,
        source: Path | str | Mapping[str, str],
        ntasks: int = 1,
        sim_type: str = "common",
        title: str | None = None,
    ) -> "Job":
        """Submit input files (a folder, or name to text) or a web editor project (a JSON file) as `ntasks` tasks."""
        name, content = read_input(source)
        body = {"ntasks": ntasks, "sim_type": sim_type, "title": title or name, **content}
        return Job(self, self.call("POST", "/jobs/direct", json=body)["job_id"])

    def check(
        self, source: Path | str | Mapping[str, str], ntasks: int | None = None, sim_type: str = "common"
    ) -> dict[str, Any]:
        """Check an input as `submit` does; nothing is stored.

        Returns `is_valid` and `problems`, each with `message`, `file`, `line` (from 1) and `text` (None where unknown).
        Of a valid input also what it would become: `sim_type`, `primaries`, `ntasks` and the `reason` for that number
        if None was requested, `left_out`, and `waiting`, why nothing can run it now.
        """
        body = {"ntasks": ntasks, "sim_type": sim_type, **read_input(source)[1]}
        answer: dict[str, Any] = self.call("POST", "/check", json=body)
        return {name: value for name, value in answer.items() if name != "message"}

    def convert(self, project: Path | str | Mapping[str, Any], simulator: str) -> dict[str, Any]:
        """Convert a project of the web editor (a JSON file, or its document) to input files of a simulator.

        Returns `input_files` (name to text), `resolution`, and `left_out`, sentences about parts of the project that
        the files leave out.
        """
        document = project if isinstance(project, Mapping) else read_project(project)
        answer = self.call("POST", "/convert", json={"input_json": document, "sim_type": simulator})
        return {name: answer[name] for name in ("input_files", "resolution", "left_out")}

    def job(self, job_id: str) -> "Job":
        """Return a simulation that was submitted before."""
        return Job(self, job_id)

    def simulations(self, page: int = 1, size: int = 100, title: str = "") -> list[dict[str, Any]]:
        """Return your simulations, newest first; with a `title`, those of the newest 10,000 that contain it."""
        query = {"page_idx": page, "page_size": size} | ({"title": title} if title else {})
        document = self.call("GET", "/user/simulations", params=query)
        return list(document["simulations"])

    def call(
        self, method: str, path: str, read: Callable[[Any], dict[str, Any]] = answers.read_document, **options: Any
    ) -> Any:
        """Send a request to any endpoint; return the JSON of the response, converted by `read`."""
        import httpx  # noqa: PLC0415 - see above

        try:
            response = self._http.request(method, path, **options)
            if path != "/auth/login" and answers.needs_session(response) and self._refreshed():
                response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(f"No response from {self._http.base_url}: {error}") from error
        return read(response)

    def _refreshed(self) -> bool:
        """Refresh the access token, which expires after minutes; return whether this succeeded."""
        return bool(self._http.get("/auth/refresh").is_success)


class Job:
    """A simulation on the server."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.job_id = job_id
        self._client = client

    def __repr__(self) -> str:
        """Show the job id."""
        return f"<Job {self.job_id}>"

    def status(self) -> dict[str, Any]:
        """Return the response of `GET /jobs`: `job_state`, and `job_tasks_status` with a dictionary per task.

        If nothing can run the simulation now, `waiting` tells why.
        """
        status: dict[str, Any] = self._get("/jobs")
        return status

    def wait(
        self,
        timeout: float = 24 * 3600.0,
        every: float = 1.0,
        follow: Callable[[dict[str, Any]], object] | None = None,
    ) -> EntityState:
        """Wait until the simulation ends and return its state; `follow` is called with each status.

        Raises Unavailable after `timeout` seconds. `every`: seconds between two requests.
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
                reason = f": {status['waiting']}" if "waiting" in status else ""
                raise Unavailable(f"{self.job_id} is {state} after {timeout:g} seconds{reason}")
            time.sleep(every)

    def results(self, estimator: str | None = None, pages: str | int | Iterable[int] | None = None) -> Results:
        """Return results as arrays: all, those of one estimator, or some of its pages. Only these are downloaded.

        `pages` are page numbers, or a text of ranges like `0-2,5`. Raises NotFound if there are no such results.
        """
        query = {"job_id": self.job_id}
        if estimator is not None:
            query["estimator_name"] = estimator
        if pages is not None:
            query["page_numbers"] = str(pages) if isinstance(pages, str | int) else ",".join(map(str, pages))
            query["values"] = "1"  # otherwise large grids are returned as addresses
        document = self._client.call("GET", "/results", answers.read_results_document, params=query)
        return Results.from_document(document, estimator)

    def update_key(self) -> str:
        """Return the key for reports of external workers, see docs/workers.md."""
        key: str = self._get("/jobs/key")["update_key"]
        return key

    def inputs(self) -> dict[str, Any]:
        """Return the submitted input."""
        submitted: dict[str, Any] = self._get("/inputs")["input"]
        return submitted

    def logfiles(self) -> dict[str, str]:
        """Return the log files, name to text (with `<`, `>` and `&` escaped)."""
        texts: dict[str, str] = self._get("/logfiles")["logfiles"]
        return texts

    def history(self) -> list[dict[str, Any]]:
        """Return every change of state: when, by whom, and why."""
        return list(self._get("/jobs/history")["history"])

    def cancel(self) -> None:
        """Cancel the simulation, unless it has ended."""
        self._client.call("DELETE", "/jobs", params={"job_id": self.job_id})

    def delete(self) -> None:
        """Delete the simulation with all its data."""
        self._client.call("DELETE", "/user/simulations", params={"job_id": self.job_id})

    def _get(self, path: str) -> Any:
        return self._client.call("GET", path, params={"job_id": self.job_id})
