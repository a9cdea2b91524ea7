"""The HTTP client of a yaptide server."""

import gzip
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from yaptide_client import answers, following
from yaptide_client.account import AccountMixin
from yaptide_client.device_flow import Approval, fetch_access_token, read_username
from yaptide_client.errors import InvalidInput, NotAuthenticated, NotFound
from yaptide_client.files import read_input, read_project
from yaptide_client.logins import check_token, check_url, require_login
from yaptide_client.results import Results
from yaptide_client.retrying import send_until_answered
from yaptide_client.states import EntityState

if TYPE_CHECKING:
    import httpx

#: Methods whose requests can be sent twice with the effect of once. PUT adds a user here, which a second one cannot.
_REPEATABLE = frozenset({"GET", "DELETE"})
IDEMPOTENCY_KEY = "Idempotency-Key"
#: Longer bodies are compressed.
_LARGE = 1 << 20


class Client(AccountMixin):
    """A connection to the server at `url`, e.g. `http://localhost:5000`.

    With a `token` there is no need to sign in. Without `url`: the server and the token of the variables YAPTIDE_URL and
    YAPTIDE_TOKEN, or those that `yaptide login` has stored. `timeout` is in seconds per request.

    Requests that can be repeated are sent again if a connection breaks, or a server or database restarts, for
    `patience` seconds per call. Every call raises the error of `yaptide_client.errors` that matches the server's
    response, with its message, or Unavailable without a response.
    """

    def __init__(
        self, url: str | None = None, timeout: float = 60.0, token: str | None = None, patience: float = 300.0
    ) -> None:
        import httpx  # noqa: PLC0415 - most commands import this package, but do not call a server

        if url is None:
            login = require_login()
            url, token = login.url, token or login.token
        self.patience = patience
        self._token = None if token is None else check_token(token)
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._http = httpx.Client(base_url=check_url(url), timeout=timeout, follow_redirects=True, headers=headers)

    @property
    def url(self) -> str:
        """The address of the server."""
        return str(self._http.base_url).rstrip("/")

    def __repr__(self) -> str:
        """Show the server, but no credentials."""
        return f"<Client of {self.url}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return the server and the session for a copy in another process. Keep such a pickle secret."""
        return {
            "url": self.url,
            "timeout": self._http.timeout.read,
            "token": self._token,
            "patience": self.patience,
            "cookies": list(self._http.cookies.jar),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a new connection."""
        self.__init__(state["url"], state["timeout"], state["token"], state["patience"])  # type: ignore[misc]
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
        """Sign in. The session ends after two hours, unless the server is set otherwise; a token lasts longer."""
        self.call("POST", "/auth/login", json={"username": username, "password": password})

    def sign_in_through_keycloak(self, show: Callable[[Approval], object]) -> None:
        """Sign in through Keycloak: the user opens the address that `show` gets in a browser, on any machine.

        The session ends with Keycloak's token, often after minutes: create a token of yaptide for a script. Raises
        NotFound if the server has no Keycloak, NotAuthenticated if the user refuses.
        """
        realm = self.call("GET", "/auth/keycloak")
        token = fetch_access_token(check_url(realm["issuer"]), realm["client_id"], show)
        name = read_username(token)
        self.call("POST", "/auth/keycloak", json={"username": name}, headers={"Authorization": f"Bearer {token}"})

    def submit(
        self,
        source: Path | str | Mapping[str, str],
        ntasks: int = 1,
        sim_type: str = "common",
        title: str | None = None,
        key: str | None = None,
        cluster: str | None = None,
        scheduler_options: Mapping[str, str] | None = None,
    ) -> "Job":
        """Submit input files (a folder, or name to text) or a web editor project (a JSON file) as `ntasks` tasks.

        They run on the server's own workers, or on a `cluster` of the server, with options of its scheduler such as
        `{"time": "01:00:00", "mem": "2G"}`.

        The server accepts each `key` once: if a response is lost, the same simulation is returned, and nothing runs
        twice. Without a `key` each call has its own. Choose one for a script that may be started again: it gets its
        simulation back within a day.
        """
        name, content = read_input(source)
        body = {"ntasks": ntasks, "sim_type": sim_type, "title": title or name, **content}
        headers = {IDEMPOTENCY_KEY: key or str(uuid.uuid4())}
        path = "/jobs/direct" if cluster is None else "/jobs/batch"
        if cluster is not None:
            # For the tasks, and for the job that collects their results.
            options = _scheduler_options(scheduler_options or {})
            body["batch_options"] = {"cluster_name": cluster, "array_options": options, "collect_options": options}
        elif scheduler_options:
            raise InvalidInput("Options of the scheduler need the name of a cluster")
        answer = self.call("POST", path, json=body, headers=headers)
        return Job(self, answer["job_id"], tuple(answer.get("left_out", ())))

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

    def watch(
        self,
        jobs: "Iterable[Job | str]",
        timeout: float = 7 * 24 * 3600.0,
        every: float = 1.0,
        patience: float = following.PATIENCE,
    ) -> Iterator[dict[str, Any]]:
        """Yield the progress of simulations, at first and whenever it changes, until all have ended.

        One request asks for up to 100 simulations, at first every `every` seconds, later every 15 s. What is yielded
        has `job_id`, `job_state`, `requested_primaries`, `simulated_primaries`, and `reason` or `waiting` if there is
        one. Raises NotFound if a simulation does not exist, Unavailable after `timeout` seconds, or after `patience`
        seconds without a response.
        """
        job_ids = [job.job_id if isinstance(job, Job) else job for job in jobs]
        return following.watch_progress(self, job_ids, timeout, every, patience)

    def read_progress(
        self, job_ids: Sequence[str], etag: str | None = None, patience: float | None = None
    ) -> tuple[Any, str | None]:
        """Return the progress of at most 100 simulations and its ETag; None for the progress if it is still `etag`."""
        headers = {} if etag is None else {"If-None-Match": etag}
        query = {"job_id": ",".join(job_ids)}
        response, _ = self._send("GET", "/watch", patience, params=query, headers=headers)
        if response.status_code == 304:
            return None, etag
        return answers.read_document(response)["simulations"], response.headers.get("ETag")

    def call(
        self, method: str, path: str, read: Callable[[Any], dict[str, Any]] = answers.read_document, **options: Any
    ) -> Any:
        """Send a request to any endpoint; return the JSON of the response, converted by `read`.

        GET, DELETE, and requests with an idempotency key are repeated until there is a response.
        """
        response, attempts = self._send(method, path, None, **options)
        try:
            return read(response)
        except NotFound:
            if method == "DELETE" and attempts > 1:  # an earlier attempt has deleted it, and its response was lost
                return {"message": "Deleted"}
            raise

    def read_text(self, path: str, query: Mapping[str, str]) -> bytes:
        """Return the JSON text of a response as it is."""
        response, _ = self._send("GET", path, None, params=dict(query))
        if response.is_error:
            answers.read_document(response)  # raises
        return bytes(response.content)

    def _send(self, method: str, path: str, patience: float | None, **options: Any) -> tuple["httpx.Response", int]:
        """Return the response, and how often the request was sent; renews the access token if it has expired."""
        response, attempts = self._send_with(method, path, patience, **options)
        if self._token is not None or path == "/auth/login" or not answers.needs_session(response):
            return response, attempts
        has_session = bool(list(self._http.cookies.jar))
        renewed, _ = self._send_with("GET", "/auth/refresh", patience)
        if renewed.is_success:
            response, attempts = self._send_with(method, path, patience, **options)
            if not answers.needs_session(response):
                return response, attempts
        if has_session and (renewed.is_success or renewed.status_code in (401, 403)):
            raise NotAuthenticated(
                f"The session on {self.url} has ended: sign in again. A script that runs for longer needs a token: "
                "Client(url, token=...)"
            )
        return response, attempts

    def _send_with(
        self, method: str, path: str, patience: float | None, **options: Any
    ) -> tuple["httpx.Response", int]:
        may_repeat = method in _REPEATABLE or IDEMPOTENCY_KEY in options.get("headers", {})
        name, patience = f"{method} {self.url}{path}", self.patience if patience is None else patience
        request = self._http.build_request(method, path, **options)
        compressed = self._compress(request)
        answered = send_until_answered(lambda: self._http.send(compressed), name, patience, may_repeat=may_repeat)
        if compressed is not request and _was_not_inflated(answered[0]):
            answered = send_until_answered(lambda: self._http.send(request), name, patience, may_repeat=may_repeat)
        return answered

    def _compress(self, request: "httpx.Request") -> "httpx.Request":
        """Return a request whose large body is gzip data: a CT as base64 takes half the time on a slow line."""
        body = request.read()
        if len(body) <= _LARGE:
            return request
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        headers["Content-Encoding"] = "gzip"
        data = gzip.compress(body, compresslevel=1)
        return self._http.build_request(request.method, request.url, content=data, headers=headers)


def _was_not_inflated(response: "httpx.Response") -> bool:
    """Return whether the server does not support compressed bodies, such as an older one."""
    return response.status_code == 415 or (response.status_code == 400 and b"not JSON" in response.content)


def _scheduler_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return options by their long names, as on the command line of the scheduler: `--time` for `time`."""
    return {name if name.startswith("-") else f"--{name}": str(value) for name, value in options.items()}


class Job:
    """A simulation on the server.

    `left_out` lists what of a submitted project is not simulated, as sentences.
    """

    def __init__(self, client: Client, job_id: str, left_out: tuple[str, ...] = ()) -> None:
        self.job_id = job_id
        self.left_out = left_out
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
        progress: bool = False,
        patience: float = following.PATIENCE,
    ) -> EntityState:
        """Wait until the simulation ends and return its state.

        `follow` is called with the status whenever it has changed; `progress` shows it on standard error. The server
        is asked after `every` seconds at first, later every 15 s. Restarts of the server and the database, and
        interruptions of the network of up to `patience` seconds, do no harm. Raises Unavailable after `timeout`
        seconds, or `patience` seconds without a response; NotFound if the simulation was deleted.
        """
        show = following.show_progress() if progress else None
        state = EntityState.UNKNOWN
        for row in self._client.watch([self], timeout, every, patience):
            if show is not None:
                show(row)
            if follow is not None:
                follow(self.status())
            state = EntityState(row["job_state"])
        return state

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
