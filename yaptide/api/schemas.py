"""Schemas of requests and responses, also for the OpenAPI document."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from yaptide.domain.states import EntityState

Number = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
Count = Annotated[StrictInt, Field(ge=0, le=2**62)]
Text = Annotated[StrictStr, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Key = Annotated[StrictStr, Field(max_length=500)]


def _in_utc(value: object) -> object:
    """Parse a time; times without a time zone are UTC, as workers send them."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("a time must look like 2026-03-01 10:00:00.000000, in UTC") from error
    if not isinstance(value, datetime):
        raise ValueError("a time must be a string")  # noqa: TRY004 - pydantic reports only ValueError
    # A time further away could leave the range of datetime when its offset is applied.
    if not 1970 <= value.year < 9000:
        raise ValueError("a time must be between the years 1970 and 9000")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _as_state(value: object) -> object:
    if isinstance(value, str) and value.upper() in EntityState.__members__:
        return EntityState(value.upper())
    raise ValueError(f"a state must be one of {', '.join(EntityState)}")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _none_if_zero(value: object) -> object:
    """Some workers send 0 for an unknown number."""
    return None if value == 0 and type(value) is int else value


_NONE_IF_ZERO = BeforeValidator(_none_if_zero, json_schema_input_type=Count | None)
Time = Annotated[datetime, BeforeValidator(_in_utc)]
State = Annotated[EntityState, BeforeValidator(_as_state)]


class Body(BaseModel):
    """A body whose unknown keys are ignored."""


class StrictBody(BaseModel):
    """A body whose unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid")


class Credentials(Body):
    """Name and password."""

    username: StrictStr
    password: StrictStr


class KeycloakName(Body):
    """A user who signs in through Keycloak: the `preferred_username` of the token."""

    username: StrictStr


class ProjectInput(Body):
    """What submissions and checks have in common."""

    input_type: Literal["editor", "files"]
    sim_type: Text = Field(description="Name of a simulator, e.g. mcsquare; common: detect it from the files")
    title: Text = "Untitled"
    input_json: dict[str, Any] | None = Field(None, description="For input_type editor: the project")
    input_files: dict[StrictStr, StrictStr] | None = Field(None, description="For input_type files: name to text")
    batch_options: dict[str, Any] | None = Field(None, description="For clusters")


class Project(ProjectInput):
    """A simulation to run."""

    ntasks: StrictInt = Field(ge=1, description="Number of tasks")


class ProjectToCheck(ProjectInput):
    """A simulation to check, with the body of a submission."""

    ntasks: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Number of tasks; null: suggest one")


class SimulationReport(Body):
    """A worker's report on a simulation. Log files that are not text are stored as JSON text."""

    sim_id: Number
    update_key: Key
    job_state: State | None = None
    end_time: Time | None = None
    job_dir: Text | None = None
    array_id: Number | None = None
    collect_id: Number | None = None
    log: dict[StrictStr, Annotated[StrictStr, BeforeValidator(_as_text)]] | None = None


class TaskUpdate(StrictBody):
    """A worker's report on a task; `estimated_time` in seconds, times in UTC."""

    task_state: State | None = None
    requested_primaries: Annotated[Annotated[StrictInt, Field(ge=1, le=2**62)] | None, _NONE_IF_ZERO] = None
    simulated_primaries: Count | None = None
    estimated_time: (
        Annotated[int, BeforeValidator(lambda v: round(v) if type(v) is float and v < 2**31 else v)] | None
    ) = Field(None, ge=0, le=2**31 - 1)
    start_time: Time | None = None
    end_time: Time | None = None
    celery_id: Text | None = None


class TaskReport(StrictBody):
    """A worker's report on a task, with the update key."""

    simulation_id: Number
    task_id: Number
    update_key: Key
    update_dict: TaskUpdate


class NumberedUpdate(StrictBody):
    """A worker's report on the task with this number."""

    task_id: Number
    update_dict: TaskUpdate


class TaskReports(StrictBody):
    """A worker's reports on several tasks of a simulation, each task once, with the update key."""

    simulation_id: Number
    update_key: Key
    updates: Annotated[list[NumberedUpdate], Field(min_length=1, max_length=10_000)]


class Logfiles(StrictBody):
    """Log files, name to text."""

    simulation_id: Number
    update_key: Key
    logfiles: dict[StrictStr, StrictStr]


Worker = Annotated[StrictStr, Field(min_length=1, max_length=200, pattern=r"^[^/\x00]+$")]
Owner = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00]+$")]


class TaskClaim(StrictBody):
    """The worker that claims a task, with a name that no other run has, and its simulator."""

    worker: Worker
    simulator_version: Text
    simulator_digest: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{0,64}$")]
    with_input: StrictBool = Field(True, description="Whether to return the input files")


class Run(StrictBody):
    """The run of a claimed task."""

    owner: Owner
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="Ignored; sent by workers of the previous version"
    )


class TaskProgress(Run):
    """The progress of a claimed task; `estimated_time` is the time left in seconds."""

    simulated_primaries: Count
    estimated_time: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None


class TaskEnd(Run):
    """The end of a claimed task: the reason, and its log files."""

    reason: Annotated[StrictStr, Field(max_length=10_000, pattern=r"^[^\x00]*$")] = ""
    logfiles: dict[StrictStr, StrictStr] = {}


class RunQuery(Run):
    """The run of a task that produced the results, and its primaries."""

    primaries: Annotated[int, Field(ge=1, le=2**62)] | None = None


class FilesQuery(Run):
    """The run of a task that wrote the files, and exit code of its simulator; negative: the signal that ended it."""

    exit_code: Annotated[int, Field(ge=-255, le=255)]


class MergeClaim(StrictBody):
    """The worker that claims a merge, with a name that no other merge has."""

    worker: Worker


class MergeOwner(StrictBody):
    """The owner of a merge."""

    owner: Owner


class MergeFailure(MergeOwner):
    """The reason why a merge failed."""

    reason: Annotated[StrictStr, Field(max_length=10_000, pattern=r"^[^\x00]*$")]


class Listing(Body):
    """Selection, page and order of a list of simulations."""

    page_idx: int = Field(1, ge=1, le=10**6)
    page_size: int = Field(6, ge=1, le=100)
    order_by: Literal["start_time", "end_time"] = "start_time"
    order_type: Literal["ascend", "descend"] = "descend"
    job_state: str = Field("", max_length=200, description="States, separated by commas; empty: all")
    title: str = Field(
        "",
        max_length=500,
        description="Text that is in the title, in capitals or not; the newest 10,000 simulations are searched",
    )


class SummaryListing(Body):
    """A page of the list of simulations."""

    page: int = Field(1, ge=1, le=10**6)
    page_size: int = Field(20, ge=1, le=1000)
    title: str = Field("", max_length=500, description="As for `/user/simulations`")


class UserUpdate(Body):
    """A new password with the current one, or SSH credentials, or nothing."""

    password: StrictStr | None = None
    new_password: StrictStr | None = None
    cert: StrictStr | None = Field(None, description="SSH certificate in OpenSSH format; for users of Keycloak")
    private: StrictStr | None = Field(None, description="Private key of the certificate, without a passphrase")


class NewPassword(Body):
    """A new password, with the current one."""

    password: StrictStr
    new_password: StrictStr
    end_sessions: StrictBool = Field(True, description="End all other sessions")
    end_tokens: StrictBool = Field(False, description="Revoke all API tokens")


class Farewell(Body):
    """What confirms the deletion of an account."""

    username: StrictStr = Field(description="The user name, typed again")
    password: StrictStr = Field("", description="Not for users of Keycloak: they sign in again first")


class SessionQuery(Body):
    """A session of the user; without it, all other ones."""

    id: str | None = Field(None, max_length=100, description="As in the list; missing: all sessions but this one")


class TokenRequest(Body):
    """An API token to create."""

    name: StrictStr = Field(description="Unique for the user: 1 to 64 printable characters")
    scope: Literal["read", "submit", "all", "admin"] = Field("read", description="What it may do; see docs/accounts.md")
    expires: StrictStr = Field("90d", max_length=10, description="Lifetime, at most 366d, e.g. 90d or 12h")


class TokenQuery(Body):
    """An API token of the user."""

    name: str = Field(max_length=1000)


class JobQuery(Body):
    """A simulation."""

    job_id: str


#: Addresses must fit into the 8 KiB that proxies accept.
MOST_WATCHED = 100


class Watching(Body):
    """Simulations to follow."""

    job_id: str = Field(
        max_length=7000, description=f"Identifiers of at most {MOST_WATCHED} simulations, separated by commas"
    )


class ResultsQuery(JobQuery):
    """Selection of results: all, those of one estimator, or pages of it such as `0-2,5`."""

    estimator_name: str | None = None
    page_numbers: str | None = None
    values: bool = Field(False, description="1: include the values of every page, as a download")


class Message(BaseModel):
    """A response with a message."""

    message: str


class RefusedPage(BaseModel):
    """A page that was left out of the results, and the reason; `page` is null for a whole estimator."""

    estimator: str
    page: int | None
    reason: str


class ResultsSaved(Message):
    """The response to posted results."""

    refused: list[RefusedPage] | None = Field(None, description="Pages that were left out; missing if none")


class Readiness(Message):
    """Results of the checks: name to `ok` or the problem; `simulators`: what can run now, or why nothing can."""

    checks: dict[str, str]


class KeycloakClient(Message):
    """How programs sign in at Keycloak: by the device flow (RFC 8628), as this public client of this realm."""

    issuer: str
    client_id: str


class SignedIn(Message):
    """Expiry times of the tokens in milliseconds since the epoch."""

    access_exp: int
    refresh_exp: int | None = None


class SessionInfo(BaseModel):
    """A session: when, from which address and with which program the user signed in."""

    id: str
    started: str | None
    expires: str
    address: str | None
    device: str | None
    is_current: bool


class Sessions(Message):
    """The sessions of the user, the latest first."""

    sessions: list[SessionInfo]


class TokenInfo(BaseModel):
    """An API token, without its text."""

    name: str
    scope: str
    created: str
    expires: str


class ListedToken(TokenInfo):
    """An API token in the list."""

    last_used: str | None = Field(description="Accurate to a minute; null: never used")


class CreatedToken(Message, TokenInfo):
    """A new API token. Its text is not shown again."""

    token: str


class Tokens(Message):
    """The API tokens of the user, by name."""

    tokens: list[ListedToken]


class Reported(Message):
    """The current state of the simulation or task, whatever was reported: it tells workers about a cancellation."""

    job_state: str | None = Field(None, description="In the response of `POST /jobs`")
    task_state: str | None = Field(None, description="In the response of `POST /tasks`")


class TaskState(BaseModel):
    """The current state of a task."""

    task_id: int
    task_state: str


class ReportedTasks(Message):
    """The current states of the tasks, in the order of the reports, whatever was reported."""

    tasks: list[TaskState]


class ClaimedTask(Message):
    """A claimed task, with the owner to name in reports."""

    job_id: str
    sim_type: str
    primaries: int
    seed: int
    owner: str
    attempt: int
    input_files: dict[str, str]


class TaskToMerge(BaseModel):
    """A task whose results are to be merged."""

    task_id: int
    primaries: int


class ClaimedMerge(Message):
    """A claimed merge: its tasks in the order to merge them, and the owner to name in reports."""

    owner: str
    tasks: list[TaskToMerge]


class Wanted(Message):
    """Whether the worker should continue."""

    wanted: bool


class HeldToken(BaseModel):
    """The API token of this request."""

    name: str
    scope: str
    expires: str


class CurrentUser(Message):
    """The signed-in user, or the user of an API token."""

    username: str
    certificate_exp: int | None = Field(
        None, description="Expiry of the SSH certificate of a user of Keycloak, in milliseconds since the epoch"
    )
    token: HeldToken | None = Field(None, description="The API token of this request; missing without one")


class ResultsReport(BaseModel):
    """Results that a worker sends; `GET /results` describes the estimators."""

    simulation_id: int
    update_key: str
    estimators: list[dict[str, Any]] = Field(description='Each `{"name", "metadata", "pages": [page, ...]}`')


class Submitted(Message):
    """Job id and simulator of the new simulation, and sentences about parts of a project that are not simulated."""

    job_id: str
    sim_type: str
    left_out: list[str] | None = None


class InputProblem(BaseModel):
    """What is wrong with an input: the message, and the file, the line from 1 and its text if they are known."""

    message: str
    file: str | None
    line: int | None
    text: str | None


class CheckedInput(Message):
    """Whether an input can be submitted: its problems, or what it would become."""

    is_valid: bool
    problems: list[InputProblem] = Field(description="The first problem that was found, or none")
    sim_type: str | None = Field(None, description="The simulator, also if it was detected")
    primaries: int | None = None
    ntasks: int | None = Field(None, description="The requested number of tasks, or the suggested one")
    reason: str | None = Field(None, description="Why this number of tasks is suggested")
    left_out: list[str] | None = Field(None, description="Sentences about parts of a project that are not simulated")
    waiting: str | None = Field(None, description="Why nothing can run the simulation now")


class ProjectToConvert(BaseModel):
    """A project of the web editor, and the simulator to convert it for."""

    input_json: dict[str, Any]
    sim_type: str


class ConvertedProject(Message):
    """Input files, their resolution, and sentences about parts of the project that they leave out."""

    sim_type: str
    input_files: dict[str, str]
    resolution: str
    left_out: list[str]


class UpdateKey(Message):
    """The number of a simulation, and the key for its workers' reports."""

    simulation_id: int
    update_key: str


class TimeLeft(BaseModel):
    """A duration."""

    hours: int
    minutes: int
    seconds: int


class TaskStatus(BaseModel):
    """The state of a task."""

    task_id: int
    task_state: str
    requested_primaries: int
    simulated_primaries: int
    start_time: str | None = None
    end_time: str | None = None
    last_update_time: str | None = None
    estimated_time: TimeLeft | None = None


class JobStatus(Message):
    """The state of a simulation and its tasks."""

    job_state: str
    job_tasks_status: list[TaskStatus]
    refused: list[RefusedPage] | None = Field(None, description="Pages that were left out of the results")
    waiting: str | None = Field(None, description="Why it cannot start now, or why its cluster lets it wait")


class WatchedSimulation(BaseModel):
    """The progress of a simulation, in primaries of all its tasks."""

    job_id: str
    job_state: str
    requested_primaries: int
    simulated_primaries: int
    change: int = Field(description="Increases with every change of the state of the simulation or of a task")
    reason: str | None = Field(None, description="Why it failed")
    waiting: str | None = Field(None, description="Why it cannot start now, or why its cluster lets it wait")


class WatchedSimulations(Message):
    """Those of the requested simulations that exist and belong to the user, in this order."""

    simulations: list[WatchedSimulation]


class SummarizedTask(BaseModel):
    """A task; `estimated_time` in seconds."""

    task_id: int
    task_state: str
    requested_primaries: int
    simulated_primaries: int
    start_time: str | None
    end_time: str | None
    last_update_time: str | None
    estimated_time: int | None


class Summary(Message):
    """A simulation; times are ISO 8601."""

    job_id: str
    job_state: str
    user: str
    title: str
    sim_type: str
    platform: str
    simulator_version: str | None
    simulator_digest: str | None
    start_time: str
    end_time: str | None
    reason: str | None = Field(description="Why it failed")
    waiting: str | None = Field(description="Why it cannot start or continue now, or why its cluster lets it wait")
    queue: str | None = Field(description="Tasks that wait on a cluster")
    requested_primaries: int
    simulated_primaries: int
    stored_bytes: int
    refused: list[RefusedPage]
    tasks: list[SummarizedTask]


class ListedSimulation(BaseModel):
    """A simulation in the list; times are ISO 8601."""

    job_id: str
    title: str
    start_time: str
    end_time: str | None
    platform: str
    input_type: str
    sim_type: str
    job_state: str
    waiting: str | None


class Summaries(Message):
    """The number of all simulations of the user, and those on the page."""

    simulations_count: int
    simulations: list[ListedSimulation]


class SimulationMetadata(BaseModel):
    """Description of a simulation."""

    platform: str
    server: str
    input_type: str
    sim_type: str
    waiting: str | None = Field(None, description="Why it cannot start now, or why its cluster lets it wait")


class SimulationItem(BaseModel):
    """A simulation in a list."""

    job_id: str
    title: str
    start_time: str
    end_time: str | None
    metadata: SimulationMetadata


class Simulations(Message):
    """A page of the user's simulations."""

    page_count: int
    simulations_count: int
    simulations: list[SimulationItem]


class PageMetadata(BaseModel):
    """A page without its values."""

    page_number: int
    page_name: str
    page_dimension: int


class EstimatorMetadata(BaseModel):
    """An estimator without its values."""

    name: str
    pages_metadata: list[PageMetadata]


class Estimators(Message):
    """All estimators of a simulation, without values."""

    estimators_metadata: list[EstimatorMetadata]


class ResultsPages(Message):
    """Results: `pages` if pages were requested, otherwise `estimators`."""

    pages: list[dict[str, Any]] | None = Field(
        None, description='With three or more axes and without `values=1`: `{"dimensions", "results_url", "metadata"}`'
    )
    estimators: list[dict[str, Any]] | None = None


class Input(Message):
    """The submitted input: `input_type`, `number_of_all_primaries`, `input_files`, `input_json`.

    A converted project has both; `left_out` contains sentences about its parts that are not simulated.
    """

    input: dict[str, Any]


class LogfilesAnswer(Message):
    """Log files, name to text (with `<`, `>`, `&` escaped, because the front end inserts them into a page)."""

    logfiles: dict[str, str]


class Change(BaseModel):
    """A change of state; `task_id` is null for the simulation itself."""

    task_id: int | None
    from_state: str | None
    to_state: str
    time: str
    exact_time: str = Field(description="The same time as ISO 8601, with microseconds")
    actor: str
    reason: str | None


class History(Message):
    """All changes of state, oldest first."""

    history: list[Change]


class ClusterName(BaseModel):
    """A cluster."""

    cluster_name: str


class Clusters(Message):
    """All clusters."""

    clusters: list[ClusterName]
