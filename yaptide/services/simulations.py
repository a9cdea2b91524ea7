"""Simulations: submit, list, follow, cancel, delete."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection

from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.splitting import split_primaries, task_seeds
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.editor.projects import check_project
from yaptide.persistence import codec
from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.models.simulations import BATCH, DIRECT, EDITOR, FILES
from yaptide.persistence.queries import batch, simulations, tasks, transitions, users
from yaptide.persistence.queries.simulations import Page as Page
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.persistence.queries.users import User
from yaptide.services import batch_options, lifecycle, logfiles, room, runners, sessions
from yaptide.services.access import NO_SUCH_JOB, NOT_YOURS, Action, find_readable, listed_owner, may, require_access
from yaptide.services.backend import Backend, utc_now
from yaptide.services.conversion import choose_simulator, convert_project
from yaptide.services.runners import Wanted
from yaptide.services.sessions import EXPIRED
from yaptide.simulators import get_simulator, resolve_simulator
from yaptide.simulators.base import Checked
from yaptide.simulators.files import check_names

MAX_PRIMARIES = 10**15
MAX_TITLE = 500
#: Of all primaries, before anybody can say how long the rest takes.
LEAST_PROGRESS = 0.02


@dataclass(frozen=True, slots=True)
class Submission:
    """What a user asks for, with one of `input_files` (name to text) and `input_json` (a project of the web editor).

    `batch` is what is asked of a cluster, None if it is to be run here.
    """

    sim_type: str
    ntasks: int
    title: str
    input_files: Mapping[str, str] | None = None
    input_json: Mapping[str, Any] | None = None
    batch: Mapping[str, Any] | None = None

    @property
    def input_type(self) -> str:
        """How it is stored that the input is files, or a project."""
        return FILES if self.input_json is None else EDITOR


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted simulation: its public name, its number, and the key that its workers report with.

    `sim_type` is the simulator that runs it, `left_out` what of its project is not simulated.
    """

    job_id: str
    simulation_id: int
    update_key: str
    sim_type: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A submission that was checked, with its input files if it is a project that was converted.

    `note` is what its history says of that, `left_out` what of the project is not simulated.
    """

    submission: Submission
    sim_type: str
    checked: Checked
    note: str | None = None
    left_out: tuple[str, ...] = ()


@retry_contended
def submit_simulation(backend: Backend, user: User, submission: Submission) -> Submitted:
    """Check a simulation, split it into tasks, store everything at once, and only then have it run.

    Raises, with nothing stored, InvalidInput if anything of it cannot be run as it is, NotConfigured if nobody is there
    who could run it, Conflict if the user's quota is used up, StorageFull if there is no room for results.
    """
    if not 1 <= submission.ntasks <= backend.limits.tasks:
        raise InvalidInput(f"The number of tasks must be between 1 and {backend.limits.tasks}")
    if len(submission.title) > MAX_TITLE or "\0" in submission.title:
        raise InvalidInput(f"A title has at most {MAX_TITLE} characters")
    ready = _prepare(backend, submission)
    sim_type, checked, submission = ready.sim_type, ready.checked, ready.submission
    room.require_room(backend.data_dir, "for results, an administrator has to make some")
    shares = split_primaries(checked.primaries, submission.ntasks, checked.quantum)
    seeds = task_seeds(checked.seed, len(shares)) if submission.input_files else [None] * len(shares)
    cause = Audit(user.username, utc_now())
    platform, first = (DIRECT, 0) if submission.batch is None else (BATCH, 1)
    job_id = f"{cause.time:%Y%m%d-%H%M%S}-{uuid.uuid4()}{platform}"
    update_key = lifecycle.update_key(backend, job_id)
    values = {
        "job_id": job_id,
        "user_id": user.id,
        "start_time": cause.time,
        "title": submission.title,
        "platform": platform,
        "input_type": submission.input_type,
        "sim_type": sim_type,
        "job_state": EntityState.PENDING,
        "update_key_hash": lifecycle.hash_update_key(update_key),
    }
    rows = [
        {"task_id": n, "requested_primaries": share, "seed": seed}
        for n, (share, seed) in enumerate(zip(shares, seeds, strict=True), first)
    ]
    payload = _input_payload(submission, checked, ready.left_out)
    with backend.database.writing() as connection:
        of_platform = _of_platform(backend, connection, submission, sim_type, len(rows))
        for_others = of_platform.get("options", "") is None
        wanted = Wanted(sim_type, platform, submission.input_type, for_others)
        waits = runners.check_runnable(backend, connection, wanted)
        check_quota(connection, user, len(payload.data))
        simulation_id = simulations.add_simulation(connection, values, of_platform, payload, rows)
        reason = " ".join(filter(None, (ready.note, waits))) or None
        transitions.record_made(connection, simulation_id, EntityState.PENDING, replace(cause, reason=reason))
    backend.dispatcher.dispatch(simulation_id)
    return Submitted(job_id, simulation_id, update_key, sim_type, ready.left_out)


def find_names(database: Database, beginning: str, most: int) -> list[tuple[str, str]]:
    """Public names that begin so, of simulations of all users, with their titles; the shortest names first."""
    with database.reading() as connection:
        return simulations.find_by_prefix(connection, beginning, most)


def check_quota(connection: Connection, user: User, more: int) -> None:
    """Raise Conflict if a user may not store `more` bytes, Forbidden if there is no such user any more.

    Whoever asks for the same user waits until the transaction has ended, so that two cannot have the same room.
    Asked before something is submitted or imported, and not of results: those have been simulated already.
    """
    if not users.lock_user(connection, user.id):
        raise Forbidden(EXPIRED)
    quota = users.get_quota(connection, user.id)
    if quota is None:  # as for nearly everybody: what they have need not be summed up
        return
    used = users.count_used_bytes(connection, user.id)
    if used + more > quota:
        raise Conflict(f"Your simulations take {used} bytes of the {quota} you may store: delete some of them first")


def _prepare(backend: Backend, submission: Submission) -> _Ready:
    if submission.input_files is not None:
        check_names(submission.input_files)
        code = resolve_simulator(submission.sim_type, submission.input_files)
        ready = _Ready(submission, code.name, code.check(submission.input_files))
    elif submission.input_json is not None:
        ready = _prepare_project(backend, submission, submission.input_json)
    else:
        raise InvalidInput("There is no input: give input_files or input_json")
    if ready.checked.primaries > MAX_PRIMARIES:
        raise InvalidInput(f"A simulation may have at most {MAX_PRIMARIES} primaries")
    return ready


def _prepare_project(backend: Backend, submission: Submission, project: Mapping[str, Any]) -> _Ready:
    primaries = check_project(project)
    with backend.database.read_committed() as connection:
        choice = choose_simulator(
            backend, connection, project, submission.sim_type, on_cluster=submission.batch is not None
        )
    if not choice.is_converted:
        return _Ready(submission, choice.code.name, Checked(primaries, 1, secrets.randbelow(2**31)))
    made = convert_project(project, choice.code.name)
    title = f"{submission.title[: MAX_TITLE - 40]} ({choice.code.title})" if choice.is_other else submission.title
    submission = replace(submission, input_files=made.files, title=title)
    return _Ready(submission, choice.code.name, choice.code.check(made.files), choice.describe(made), made.left_out)


def _of_platform(
    backend: Backend, connection: Connection, submission: Submission, sim_type: str, tasks: int
) -> Mapping[str, Any]:
    if submission.batch is None:
        return {}
    for_others = sim_type in backend.foreign_workers
    code = get_simulator(sim_type)
    return batch_options.accept_options(
        connection, submission.batch, code, tasks, submission.input_type, for_others=for_others
    )


def _input_payload(submission: Submission, checked: Checked, left_out: Sequence[str]) -> codec.Payload:
    return codec.encode_payload(
        {
            "input_type": submission.input_type,
            "number_of_all_primaries": checked.primaries,
            "input_files": dict(submission.input_files or {}),
            "input_json": submission.input_json,
            **({"left_out": list(left_out)} if left_out else {}),
        }
    )


class Listed(NamedTuple):
    """How many simulations there are in all, those on the page, and why those of them wait that do, by public name."""

    total: int
    rows: list[Any]
    waiting: Mapping[str, str]


def list_simulations(backend: Backend, user: User, page: Page) -> Listed:
    """The simulations that a user may see in the states, and with the title, asked for; raises InvalidInput."""
    if "\0" in page.title:
        raise InvalidInput("title: NUL cannot be in a title")
    with backend.database.read_committed() as connection:
        total, rows = simulations.list_simulations(connection, listed_owner(user), page)
        pending = _wanted(connection, {row.job_id: row for row in rows if row.job_state is EntityState.PENDING})
        reasons = {each: runners.why_waiting(backend, connection, each) for each in set(pending.values())}
    waiting = {job_id: reason for job_id, each in pending.items() if (reason := reasons[each]) is not None}
    return Listed(total, rows, waiting)


def measure_progress(backend: Backend, listed: Listed) -> dict[str, float]:
    """How much of each listed simulation that is running is done, from 0 to 1, by public name."""
    running = [row.job_id for row in listed.rows if row.job_state == EntityState.RUNNING]
    if not running:
        return {}
    with backend.database.reading() as connection:
        sums = tasks.sum_primaries(connection, running)
    return {job_id: min(1.0, int(done) / int(wanted)) for job_id, done, wanted in sums if wanted}


@dataclass(frozen=True, slots=True)
class Status:
    """A simulation (row of `queries.simulations.by_job`), its tasks (of `queries.tasks.list_status`), why it waits.

    `waiting` is None unless it has to be begun, or gone on with, and nobody who is there can do that.
    """

    simulation: Any
    tasks: list[Any]
    waiting: str | None = None


def read_status(backend: Backend, user: User, job_id: str) -> Status:
    """How a simulation and its tasks stand; raises NotFound, Forbidden."""
    with backend.database.read_committed() as connection:  # the tasks are never behind the simulation
        simulation = find_readable(connection, user, job_id)
        found = tasks.list_status(connection, simulation.id)
        return Status(simulation, found, _why_waiting(backend, connection, simulation, job_id, found))


def estimate_time_left(rows: Sequence[Any], now: datetime) -> timedelta | None:
    """How long tasks, rows of `Status.tasks`, will still run if their primaries take as long as those until now.

    With the fraction p of all primaries done in the time t since the first task began: t (1 - p) / p. None as long as
    p is below `LEAST_PROGRESS`, when that says nothing.
    """
    begun = [row.start_time for row in rows if row.start_time is not None]
    done, wanted = sum(row.simulated_primaries for row in rows), sum(row.requested_primaries for row in rows)
    if not begun or not LEAST_PROGRESS * wanted <= done < wanted:
        return None
    return (now - min(begun)) * ((wanted - done) / done)


def poll_status(backend: Backend, access_token: str | None, job_id: str) -> tuple[User, Status]:
    """Who holds this access token, and how the simulation stands, its tasks as `queries.tasks.list_polled` has them.

    For browsers, which ask again and again: in as few round trips as there are, and with nothing converted.
    Raises what `sessions.authenticate_user` and `read_status` do.
    """
    with backend.database.read_committed() as connection:
        user, simulation = sessions.authenticate_with(backend, connection, access_token, job_id)
        found = tasks.list_polled(connection, simulation.id)
        return user, Status(simulation, found, _why_waiting(backend, connection, simulation, job_id, found))


def _why_waiting(
    backend: Backend, connection: Connection, simulation: Any, job_id: str, rows: Sequence[Any]
) -> str | None:
    if simulation.job_state == EntityState.RUNNING:  # by its states alone it cannot be told from one that goes on
        states = {row[1] for row in rows}
        if EntityState.RUNNING in states or EntityState.PENDING not in states:
            return None
    elif simulation.job_state != EntityState.PENDING:
        return None
    (wanted,) = _wanted(connection, {job_id: simulation}).values()
    return runners.why_waiting(backend, connection, wanted)


def _wanted(connection: Connection, pending: Mapping[str, Any]) -> dict[str, Wanted]:
    """What simulations, rows by public name, need somebody for."""
    on_clusters = [job_id for job_id, row in pending.items() if row.platform == BATCH]
    for_others = batch.for_others(connection, on_clusters) if on_clusters else set()
    return {
        job_id: Wanted(row.sim_type, row.platform, row.input_type, job_id in for_others)
        for job_id, row in pending.items()
    }


def read_input(backend: Backend, user: User, job_id: str) -> codec.Stored:
    """The stored input of a simulation; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, find_readable(connection, user, job_id).id)
    if data is None:
        raise NotFound("Input of the job was not found")
    return codec.Stored(data)


def read_input_document(backend: Backend, user: User, job_id: str) -> dict[str, Any]:
    """The input of a simulation as it was submitted: `input_files`, `input_json`, `left_out`; as `read_input`."""
    document: dict[str, Any] = codec.decode_payload(read_input(backend, user, job_id).data)
    return document


def read_history(backend: Backend, user: User, job_id: str, newest: int | None = None) -> list[Any]:
    """Every change of state of a simulation and its tasks, or so many of the newest ones; oldest first.

    Raises NotFound, Forbidden.
    """
    with backend.database.reading() as connection:
        return simulations.list_history(connection, find_readable(connection, user, job_id).id, newest)


def read_input_digest(backend: Backend, user: User, job_id: str) -> str | None:
    """SHA-256 (hexadecimal) of the text of a simulation's input; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        return simulations.input_digest(connection, find_readable(connection, user, job_id).id)


def last_reason(backend: Backend, user: User, job_id: str) -> str | None:
    """Why a simulation came to be in the state it is in, if its history says so; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        return simulations.last_reason(connection, find_readable(connection, user, job_id).id)


def read_task_failures(backend: Backend, user: User, job_id: str) -> dict[int, str]:
    """Why tasks failed, by number; raises NotFound, Forbidden."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        reasons = simulations.list_reasons(connection, simulation.id, EntityState.FAILED)
    return {task: reason for task, reason in reasons if task is not None}


def failure_reason(backend: Backend, user: User, job_id: str) -> str | None:
    """Why a simulation failed, or None if it did not."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        told = simulations.list_reasons(connection, simulation.id, EntityState.FAILED)
    return next((reason for task, reason in told if task is None), None)


@retry_contended
def read_update_key(backend: Backend, user: User, job_id: str) -> tuple[int, str]:
    """Number of a simulation and the key with which its workers report; raises NotFound, Forbidden.

    After a change of the signing key, that is a new one, and the one before is good for nothing any more.
    """
    with backend.database.writing() as connection:
        simulation = _locked(transitions.lock_job(connection, job_id))
        require_access(user, Action.RUN, simulation)
        return simulation.id, lifecycle.known_update_key(backend, connection, simulation)


@retry_contended
def cancel_simulation(
    backend: Backend, user: User, job_id: str, reason: str = "canceled by its user"
) -> EntityState | None:
    """Cancel a simulation and all its tasks that have not ended.

    Returns None if it was canceled, otherwise the state in which nothing can be. Raises NotFound, Forbidden.
    """
    with backend.database.writing() as connection:
        simulation = _locked(transitions.lock_job(connection, job_id))
        require_access(user, Action.CANCEL, simulation)
        if simulation.job_state is EntityState.UNKNOWN or simulation.job_state in FINAL_STATES:
            return simulation.job_state
        lifecycle.end_simulation(connection, simulation, EntityState.CANCELED, Audit(user.username, utc_now(), reason))
    backend.dispatcher.revoke(simulation.id)
    return None


@retry_contended
def delete_simulation(backend: Backend, user: User, job_id: str) -> EntityState | None:
    """Delete a simulation with everything about it.

    Returns None if it is gone, otherwise the state in which it has to be canceled first. Raises NotFound, and
    NotAuthenticated if it is somebody else's (what existing clients are used to).
    """
    with backend.database.writing() as connection:
        simulation = _locked(transitions.lock_job(connection, job_id))
        if not may(user, Action.DELETE, simulation):
            raise NotAuthenticated(NOT_YOURS)
        if not lifecycle.remove_simulation(connection, simulation):
            return simulation.job_state
    backend.dispatcher.revoke(simulation.id)
    backend.spool.remove(job_id)
    return None


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of a whole simulation; None where it says nothing.

    `batch` may set `job_dir`, `array_id` and `collect_id` of a simulation on a cluster.
    """

    job_state: EntityState | None = None
    end_time: datetime | None = None
    logfiles: Mapping[str, str] | None = None
    batch: Mapping[str, Any] = field(default_factory=dict)


@retry_contended
def report_simulation(backend: Backend, simulation_id: int, update_key: str, told: Report) -> EntityState:
    """Take a worker's word on a simulation, and return the state it is in now.

    A step back or out of a final state is not taken, without an error: messages arrive late and twice.
    Raises NotFound for an unknown simulation, InvalidInput for a wrong key.
    """
    logs = codec.encode_payload(told.logfiles) if told.logfiles else None
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        if locked is None:
            raise NotFound("Simulation does not exist")
        simulation = lifecycle.check_update_key(backend, locked, update_key)
        if logs is not None:
            logfiles.keep_logfiles(backend, connection, simulation.id, logs)
        if told.batch and simulation.platform == BATCH and simulation.job_state not in FINAL_STATES:
            simulations.set_batch_values(connection, simulation.id, told.batch)
        return _follow(connection, simulation, told)


def _follow(connection: Connection, simulation: Locked, told: Report) -> EntityState:
    state, to = simulation.job_state, told.job_state
    if to is None or to is state or _is_step_back(state, to):
        return state
    cause = Audit(lifecycle.WORKER, utc_now())
    if to in FINAL_STATES:
        ended = {"end_time": max(told.end_time, simulation.start_time)} if told.end_time else {}
        return lifecycle.end_simulation(connection, simulation, to, cause, ended)
    return to if transitions.move_simulation(connection, simulation.id, to, cause) else state


def _is_step_back(state: EntityState, to: EntityState) -> bool:
    waiting = (EntityState.UNKNOWN, EntityState.PENDING)
    return (to in waiting and state is not EntityState.UNKNOWN) or (
        state is EntityState.MERGING_RUNNING and to is EntityState.MERGING_QUEUED
    )


def _locked(simulation: Locked | None) -> Locked:
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    return simulation
