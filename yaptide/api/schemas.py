"""Bodies of requests, and the shapes of answers for the API's description."""

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
    """Workers write UTC without saying so."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("a time is written like 2026-03-01 10:00:00.000000, in UTC") from error
    if not isinstance(value, datetime):
        raise ValueError("a time is text")  # noqa: TRY004 - pydantic turns only this one into an answer
    # Further away, and a time zone's offset takes it out of what a datetime can hold.
    if not 1970 <= value.year < 9000:
        raise ValueError("a time is between the years 1970 and 9000")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _as_state(value: object) -> object:
    if isinstance(value, str) and value.upper() in EntityState.__members__:
        return EntityState(value.upper())
    raise ValueError(f"a state is one of {', '.join(EntityState)}")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _none_if_zero(value: object) -> object:
    """Some workers write 0 for a number that they do not know."""
    return None if value == 0 and type(value) is int else value


_NONE_IF_ZERO = BeforeValidator(_none_if_zero, json_schema_input_type=Count | None)
Time = Annotated[datetime, BeforeValidator(_in_utc)]
State = Annotated[EntityState, BeforeValidator(_as_state)]


class Body(BaseModel):
    """A body in which unknown keys are ignored."""


class StrictBody(BaseModel):
    """A body in which unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Credentials(Body):
    """Name and password."""

    username: StrictStr
    password: StrictStr


class KeycloakName(Body):
    """Who signs in through Keycloak: the `preferred_username` of the token."""

    username: StrictStr


class Project(Body):
    """A simulation to run."""

    input_type: Literal["editor", "files"]
    ntasks: StrictInt = Field(ge=1, description="Into how many tasks it is split")
    sim_type: Text = Field(description="Name of a simulator, such as mcsquare; common: found out from the files")
    title: Text = "Untitled"
    input_json: dict[str, Any] | None = Field(None, description="For editor: the project")
    input_files: dict[StrictStr, StrictStr] | None = Field(None, description="For files: name to text")
    batch_options: dict[str, Any] | None = Field(None, description="For clusters")


class SimulationReport(Body):
    """What a worker says of a simulation. Log files that are no text are kept as JSON text."""

    sim_id: Number
    update_key: Key
    job_state: State | None = None
    end_time: Time | None = None
    job_dir: Text | None = None
    array_id: Number | None = None
    collect_id: Number | None = None
    log: dict[StrictStr, Annotated[StrictStr, BeforeValidator(_as_text)]] | None = None


class TaskUpdate(StrictBody):
    """What a worker says of a task; `estimated_time` in seconds, times in UTC."""

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
    """What a worker says of a task, and what entitles it to."""

    simulation_id: Number
    task_id: Number
    update_key: Key
    update_dict: TaskUpdate


class NumberedUpdate(StrictBody):
    """What a worker says of the task of this number."""

    task_id: Number
    update_dict: TaskUpdate


class TaskReports(StrictBody):
    """What a worker says of many tasks of one simulation, each of them once, and what entitles to it."""

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
_ATTEMPT: Any = Field(0, description="Not looked at; workers of the version before send it")


class TaskClaim(StrictBody):
    """Who is to run a task: a name that no other run has; and with which simulator."""

    worker: Worker
    simulator_version: Text
    simulator_digest: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{0,64}$")]
    with_input: StrictBool = Field(True, description="Whether the answer is to hold the input files")


class TaskProgress(StrictBody):
    """How far a claimed task is; `estimated_time` is the time left, seconds."""

    owner: Owner
    attempt: Number = _ATTEMPT
    simulated_primaries: Count
    estimated_time: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None


class TaskEnd(StrictBody):
    """Why a claimed task ends, and its log files."""

    owner: Owner
    attempt: Number = _ATTEMPT
    reason: Annotated[StrictStr, Field(max_length=10_000, pattern=r"^[^\x00]*$")] = ""
    logfiles: dict[StrictStr, StrictStr] = {}


class RunQuery(StrictBody):
    """Which run of a task the scores are of, and over how many primaries."""

    owner: Owner
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] = _ATTEMPT
    primaries: Annotated[int, Field(ge=1, le=2**62)] | None = None


class FilesQuery(StrictBody):
    """Which run of a task has left the files, and how its simulator ended; below zero: by which signal."""

    owner: Owner
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] = _ATTEMPT
    exit_code: Annotated[int, Field(ge=-255, le=255)]


class MergeClaim(StrictBody):
    """Who is to merge: a name that no other merge has."""

    worker: Worker


class MergeOwner(StrictBody):
    """Whose merge."""

    owner: Owner


class MergeFailure(MergeOwner):
    """Why there is nothing to store."""

    reason: Annotated[StrictStr, Field(max_length=10_000, pattern=r"^[^\x00]*$")]


class Listing(Body):
    """Which simulations to list."""

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


class UserUpdate(Body):
    """A new password, with the present one; or SSH credentials; or nothing."""

    password: StrictStr | None = None
    new_password: StrictStr | None = None
    cert: StrictStr | None = Field(None, description="SSH certificate, OpenSSH text, of a user of Keycloak")
    private: StrictStr | None = Field(None, description="Its private key, without a passphrase")


class JobQuery(Body):
    """Which simulation."""

    job_id: str


class ResultsQuery(JobQuery):
    """Which results: all, those of one estimator, or pages of it such as `0-2,5`."""

    estimator_name: str | None = None
    page_numbers: str | None = None
    values: bool = Field(False, description="1: with the numbers of every page, as a download")


class Message(BaseModel):
    """An answer that says what was done."""

    message: str


class RefusedPage(BaseModel):
    """A page of results that could not be kept, and why; `page` is null if that holds for the whole estimator."""

    estimator: str
    page: int | None
    reason: str


class ResultsSaved(Message):
    """The answer to results."""

    refused: list[RefusedPage] | None = Field(None, description="Pages that could not be kept; missing if none")


class Readiness(Message):
    """What was checked: name to `ok` or what is wrong; `simulators`: those that can be run, or why none can."""

    checks: dict[str, str]


class SignedIn(Message):
    """Times at which the tokens end, milliseconds since the epoch."""

    access_exp: int
    refresh_exp: int | None = None


class Reported(Message):
    """What the simulation or the task is now, whatever was reported: a worker learns from it that it was canceled."""

    job_state: str | None = Field(None, description="Of `POST /jobs`")
    task_state: str | None = Field(None, description="Of `POST /tasks`")


class TaskState(BaseModel):
    """What a task is now."""

    task_id: int
    task_state: str


class ReportedTasks(Message):
    """What the tasks are now, in the order of the reports, whatever was reported."""

    tasks: list[TaskState]


class ClaimedTask(Message):
    """What to run, and as whom to report."""

    job_id: str
    sim_type: str
    primaries: int
    seed: int
    owner: str
    attempt: int
    input_files: dict[str, str]


class TaskToMerge(BaseModel):
    """A task whose scores are to be merged."""

    task_id: int
    primaries: int


class ClaimedMerge(Message):
    """What to merge, in this order, and as whom to report."""

    owner: str
    tasks: list[TaskToMerge]


class Wanted(Message):
    """Whether what was reported about is still the worker's to do."""

    wanted: bool


class Somebody(Message):
    """Who is signed in."""

    username: str
    certificate_exp: int | None = Field(
        None, description="When the SSH certificate of a user of Keycloak ends, milliseconds since the epoch"
    )


class ResultsReport(BaseModel):
    """Results that a worker sends; see `GET /results` for the estimators."""

    simulation_id: int
    update_key: str
    estimators: list[dict[str, Any]] = Field(description='Each `{"name", "metadata", "pages": [page, ...]}`')


class Submitted(Message):
    """The public name of the new simulation, what runs it, and what of a project is not simulated, in sentences."""

    job_id: str
    sim_type: str
    left_out: list[str] | None = None


class ProjectToConvert(BaseModel):
    """A project of the web editor, and the simulator whose input files are wanted."""

    input_json: dict[str, Any]
    sim_type: str


class ConvertedProject(Message):
    """Input files, how fine they are, and in sentences what of the project is not in them."""

    sim_type: str
    input_files: dict[str, str]
    resolution: str
    left_out: list[str]


class UpdateKey(Message):
    """Number of a simulation, and the key that its workers report with."""

    simulation_id: int
    update_key: str


class TimeLeft(BaseModel):
    """A duration."""

    hours: int
    minutes: int
    seconds: int


class TaskStatus(BaseModel):
    """How a task stands."""

    task_id: int
    task_state: str
    requested_primaries: int
    simulated_primaries: int
    start_time: str | None = None
    end_time: str | None = None
    last_update_time: str | None = None
    estimated_time: TimeLeft | None = None


class JobStatus(Message):
    """How a simulation and its tasks stand."""

    job_state: str
    job_tasks_status: list[TaskStatus]
    refused: list[RefusedPage] | None = Field(None, description="Pages of results that could not be kept")
    waiting: str | None = Field(None, description="Why nobody who is there can take it; only of what is PENDING")


class SimulationMetadata(BaseModel):
    """Description of a simulation."""

    platform: str
    server: str
    input_type: str
    sim_type: str
    waiting: str | None = Field(None, description="Why nobody who is there can take it; only of what is PENDING")


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
    """A page without its numbers."""

    page_number: int
    page_name: str
    page_dimension: int


class EstimatorMetadata(BaseModel):
    """An estimator without its numbers."""

    name: str
    pages_metadata: list[PageMetadata]


class Estimators(Message):
    """All estimators of a simulation, without numbers."""

    estimators_metadata: list[EstimatorMetadata]


class ResultsPages(Message):
    """Results: `pages` if pages were asked for, otherwise `estimators`."""

    pages: list[dict[str, Any]] | None = Field(
        None, description='With three axes or more and without `values=1`: `{"dimensions", "results_url", "metadata"}`'
    )
    estimators: list[dict[str, Any]] | None = None


class Input(Message):
    """What was submitted: `input_type`, `number_of_all_primaries`, `input_files`, `input_json`.

    Of a project that was converted there are both; `left_out` says in sentences what of it is not simulated.
    """

    input: dict[str, Any]


class LogfilesAnswer(Message):
    """Log files, name to text (with `<`, `>`, `&` escaped, since the front end writes them into a page)."""

    logfiles: dict[str, str]


class Change(BaseModel):
    """A change of state; `task_id` is null for the simulation itself."""

    task_id: int | None
    from_state: str | None
    to_state: str
    time: str
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
