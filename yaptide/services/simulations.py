"""Simulations: submit, list, follow, cancel, delete."""

import os
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from yaptide.disk import require_free_space
from yaptide.domain.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated, NotFound
from yaptide.domain.splitting import split_primaries, task_seeds
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.editor.project_check import check_project
from yaptide.persistence import codec
from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.models.simulations import BATCH, DIRECT, EDITOR, FILES
from yaptide.persistence.queries import batch, simulations, submission_keys as stored_keys, tasks, transitions, users
from yaptide.persistence.queries.simulations import Page as Page
from yaptide.persistence.queries.transitions import Audit, Locked
from yaptide.persistence.queries.users import User
from yaptide.services import batch_options, lifecycle, logfiles, runners, sessions, submission_keys
from yaptide.services.access import NO_SUCH_JOB, NOT_YOURS, Action, find_readable, listed_owner, may, require_access
from yaptide.services.backend import Backend, utc_now
from yaptide.services.conversion import choose_simulator, convert_project
from yaptide.services.runners import Requirements
from yaptide.services.sessions import EXPIRED
from yaptide.services.submission_keys import SubmissionKey
from yaptide.simulators import get_simulator, resolve_simulator
from yaptide.simulators.base import Checked
from yaptide.simulators.files import check_names, remove_marks

MAX_PRIMARIES = 10**15
MAX_TITLE = 500
#: Primaries for which a task of its own is worth its start, and the number of tasks on a cluster if none is requested.
_WORTH_A_TASK, _TASKS_ON_CLUSTER = 10_000, 10
#: Fraction of all primaries below which the remaining time cannot be estimated.
LEAST_PROGRESS = 0.02


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission, with either `input_files` (name to text) or `input_json` (a project of the web editor).

    `ntasks` None means the number that `suggest_tasks` returns. `batch` has the cluster options; None: it
    runs on workers of the server.
    """

    sim_type: str
    ntasks: int | None
    title: str
    input_files: Mapping[str, str] | None = None
    input_json: Mapping[str, Any] | None = None
    batch: Mapping[str, Any] | None = None

    @property
    def input_type(self) -> str:
        """How the input is stored: as files, or as a project."""
        return FILES if self.input_json is None else EDITOR

    @property
    def content(self) -> dict[str, Any]:
        """Everything submitted, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @property
    def platform(self) -> str:
        """Where it runs: DIRECT or BATCH."""
        return DIRECT if self.batch is None else BATCH


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted simulation: its job_id, its id, and the update key of its workers.

    `sim_type` is the simulator that runs it, `left_out` lists what of its project is not simulated.
    """

    job_id: str
    simulation_id: int
    update_key: str
    sim_type: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A validated submission, with the input files of a converted project.

    `note` describes the conversion in the history, `left_out` lists what of the project is not simulated.
    """

    submission: Submission
    sim_type: str
    checked: Checked
    note: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def shares(self) -> list[int]:
        """Primaries of each task."""
        tasks, is_batch = self.submission.ntasks, self.submission.batch is not None
        if tasks is None:
            tasks = suggest_tasks(self.checked.primaries, is_batch=is_batch).tasks
        return split_primaries(self.checked.primaries, tasks, self.checked.quantum)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A number of tasks, and the reason in words."""

    tasks: int
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a submission would become.

    `primaries` in total, in so many `tasks`; `suggestion` is the reason for that number if none was requested.
    `left_out` lists what of a project is not simulated, `note` describes the conversion, and `waits` is the reason why
    no runner can start it now.
    """

    sim_type: str
    title: str
    primaries: int
    tasks: int
    suggestion: str | None
    left_out: tuple[str, ...]
    note: str | None
    waits: str | None


def suggest_tasks(primaries: int, *, is_batch: bool = False) -> Suggestion:
    """Return a sensible number of tasks: enough to keep processors busy, and each worth its start."""
    cores = len(os.sched_getaffinity(0))
    most, why = (_TASKS_ON_CLUSTER, "usual for a cluster") if is_batch else (cores, "one for each processor here")
    enough = max(1, primaries // _WORTH_A_TASK)
    if enough < most:
        return Suggestion(enough, f"each has at least {_WORTH_A_TASK:,} primaries" if enough > 1 else "few primaries")
    return Suggestion(most, why)


def preview_submission(backend: Backend, user: User, submission: Submission) -> Preview:
    """Return what a submission would become, and store nothing; raises what `submit_simulation` does."""
    prepared = _validate(backend, submission)
    shares, payload = prepared.shares, _input_payload(prepared.submission, prepared.checked, prepared.left_out)
    with backend.database.read_committed() as connection:
        _, waiting_reason = _choose_place(backend, connection, prepared, len(shares))
        _require_quota(connection, user, len(payload.data))
    is_batch = submission.batch is not None
    return Preview(
        prepared.sim_type,
        get_simulator(prepared.sim_type).title,
        sum(shares),
        len(shares),
        suggest_tasks(prepared.checked.primaries, is_batch=is_batch).reason if submission.ntasks is None else None,
        prepared.left_out,
        prepared.note,
        waiting_reason,
    )


@dataclass(frozen=True, slots=True)
class _NewSimulation:
    """A simulation ready to be stored: columns, tasks, input, and the user and time of its submission."""

    update_key: str
    values: dict[str, Any]
    tasks: list[dict[str, Any]]
    payload: codec.Payload
    audit: Audit


def submit_simulation(backend: Backend, user: User, submission: Submission, key: str | None = None) -> Submitted:
    """Validate a simulation, split it into tasks, store everything in one transaction, then dispatch it.

    If the user has submitted the same with the same idempotency `key` before, nothing is stored and that simulation is
    returned, even if it was deleted since. Raises, with nothing stored, InvalidInput if it cannot run as it is,
    NotConfigured if there is no runner for it, Conflict if the user's quota is used up, StorageFull if there is no
    space for results, KeyReused if the key belongs to another submission.
    """
    checked_key = None if key is None else submission_keys.make_key(key, submission.content)
    if checked_key is not None:  # a repetition is answered even if the server could not accept it now
        with backend.database.read_committed() as connection:
            earlier = _find_submitted(backend, connection, user, checked_key)
        if earlier is not None:
            return earlier
    prepared = _validate(backend, submission)
    submitted = _store(backend, user, prepared, _split(backend, user, prepared), checked_key)
    backend.dispatcher.dispatch(submitted.simulation_id)
    return submitted


def _find_submitted(backend: Backend, connection: Connection, user: User, key: SubmissionKey) -> Submitted | None:
    row = submission_keys.find_submission(connection, user.id, key)
    if row is None:
        return None
    left_out = tuple(orjson.loads(row.left_out or "[]"))
    return Submitted(row.job_id, row.simulation_id, lifecycle.update_key(backend, row.job_id), row.sim_type, left_out)


def _validate(backend: Backend, submission: Submission) -> _Prepared:
    """Check everything that needs nothing but the submission, and that there is space for results."""
    if submission.ntasks is not None and not 1 <= submission.ntasks <= backend.limits.tasks:
        raise InvalidInput(f"The number of tasks must be between 1 and {backend.limits.tasks}")
    if len(submission.title) > MAX_TITLE or "\0" in submission.title:
        raise InvalidInput(f"A title may have at most {MAX_TITLE} characters")
    prepared = _prepare(backend, submission)
    _check_shares(prepared)
    require_free_space(backend.data_dir, "for results, an administrator must free some")
    return prepared


def _check_shares(prepared: _Prepared) -> None:
    """Raise InvalidInput if a task has more primaries than its simulator takes."""
    code = get_simulator(prepared.sim_type)
    most = code.limits.task_primaries
    if most is not None and max(prepared.shares) > most:
        fewest = -(-prepared.checked.primaries // most)
        raise InvalidInput(f"A task of {code.title} has at most {most} primaries: use {fewest} tasks or more")


def _choose_place(
    backend: Backend, connection: Connection, prepared: _Prepared, tasks: int
) -> tuple[Mapping[str, Any], str | None]:
    """Return the columns for the platform, and why the simulation must wait for external workers, or None.

    Raises InvalidInput, and NotConfigured if no runner could run it.
    """
    submission, code = prepared.submission, get_simulator(prepared.sim_type)
    values: Mapping[str, Any] = {}
    if submission.batch is not None:
        external = code.name in backend.foreign_workers
        values = batch_options.accept_options(
            connection, submission.batch, code, tasks, submission.input_type, for_external=external
        )
    for_external = values.get("options", "") is None
    required = Requirements(code.name, submission.platform, submission.input_type, for_external)
    waiting_reason = runners.check_runnable(backend, connection, required)
    if waiting_reason is None and prepared.checked.no_results:
        raise InvalidInput(prepared.checked.no_results)
    return values, waiting_reason


def _split(backend: Backend, user: User, prepared: _Prepared) -> _NewSimulation:
    """Choose the job_id, and split the simulation into tasks."""
    submission, checked = prepared.submission, prepared.checked
    shares = prepared.shares
    largest = get_simulator(prepared.sim_type).limits.seed
    seeds = task_seeds(checked.seed, len(shares), largest) if submission.input_files else [None] * len(shares)
    first = 0 if submission.batch is None else 1
    tasks = [
        {"task_id": n, "requested_primaries": share, "seed": seed}
        for n, (share, seed) in enumerate(zip(shares, seeds, strict=True), first)
    ]
    audit = Audit(user.username, utc_now())
    job_id = f"{audit.time:%Y%m%d-%H%M%S}-{uuid.uuid4()}{submission.platform}"
    update_key = lifecycle.update_key(backend, job_id)
    values = {
        "job_id": job_id,
        "user_id": user.id,
        "start_time": audit.time,
        "title": submission.title,
        "platform": submission.platform,
        "input_type": submission.input_type,
        "sim_type": prepared.sim_type,
        "job_state": EntityState.PENDING,
        "update_key_hash": lifecycle.hash_update_key(update_key),
    }
    return _NewSimulation(update_key, values, tasks, _input_payload(submission, checked, prepared.left_out), audit)


@retry_contended
def _store(
    backend: Backend, user: User, prepared: _Prepared, new: _NewSimulation, key: SubmissionKey | None
) -> Submitted:
    """Store everything in one transaction. Raises what `submit_simulation` raises.

    Of several submissions with the same `key` at once, one is stored; the others wait for it and return it.
    """
    job_id: str = new.values["job_id"]
    with backend.database.writing() as connection:
        if key is not None:
            _lock_user(connection, user)
            earlier = _find_submitted(backend, connection, user, key)
            if earlier is not None:
                return earlier
        platform_values, waiting_reason = _choose_place(backend, connection, prepared, len(new.tasks))
        check_quota(connection, user, len(new.payload.data))
        simulation_id = simulations.add_simulation(connection, new.values, platform_values, new.payload, new.tasks)
        reason = " ".join(filter(None, (prepared.note, waiting_reason))) or None
        transitions.begin_history(connection, simulation_id, EntityState.PENDING, replace(new.audit, reason=reason))
        submitted = Submitted(job_id, simulation_id, new.update_key, prepared.sim_type, prepared.left_out)
        if key is not None:
            stored_keys.add_key(connection, _key_values(user, key, submitted, new.audit.time))
    return submitted


def _key_values(user: User, key: SubmissionKey, submitted: Submitted, time: datetime) -> dict[str, Any]:
    left_out = orjson.dumps(submitted.left_out).decode() if submitted.left_out else None
    simulation = {name: getattr(submitted, name) for name in ("simulation_id", "job_id", "sim_type")}
    return {"user_id": user.id, **asdict(key), **simulation, "left_out": left_out, "time": time}


def find_names(database: Database, beginning: str, most: int) -> list[tuple[str, str]]:
    """Return job_id and title of simulations of all users whose job_id starts with `beginning`, shortest first."""
    with database.reading() as connection:
        return simulations.find_by_prefix(connection, beginning, most)


def check_quota(connection: Connection, user: User, more: int) -> None:
    """Raise Conflict if a user may not store `more` bytes, Forbidden if the user does not exist any more.

    Locks the user until the transaction ends, so that concurrent requests cannot use the same space. Called before a
    submission or an import, not for results, which have already been simulated.
    """
    _lock_user(connection, user)
    _require_quota(connection, user, more)


def _lock_user(connection: Connection, user: User) -> None:
    if not users.lock_user(connection, user.id):
        raise Forbidden(EXPIRED)


def _require_quota(connection: Connection, user: User, more: int) -> None:
    quota = users.get_quota(connection, user.id)
    if quota is None:  # the usual case, which needs no sum
        return
    used = users.count_used_bytes(connection, user.id)
    if used + more > quota:
        raise Conflict(f"Your simulations use {used} of {quota} bytes: delete some of them first")


def _prepare(backend: Backend, submission: Submission) -> _Prepared:
    if submission.input_files is not None:
        check_names(submission.input_files)
        files = remove_marks(submission.input_files)
        code = resolve_simulator(submission.sim_type, files)
        prepared = _Prepared(replace(submission, input_files=files), code.name, code.check(files))
    elif submission.input_json is not None:
        prepared = _prepare_project(backend, submission, submission.input_json)
    else:
        raise InvalidInput("No input: give input_files or input_json")
    if prepared.checked.primaries > MAX_PRIMARIES:
        raise InvalidInput(f"A simulation may have at most {MAX_PRIMARIES} primaries")
    if prepared.checked.voxels > backend.limits.voxels:
        raise InvalidInput(
            f"The CT has {prepared.checked.voxels} voxels, but this server accepts {backend.limits.voxels}: crop or "
            "resample it, or ask an administrator to raise YAPTIDE_MAX_VOXELS"
        )
    return prepared


def _prepare_project(backend: Backend, submission: Submission, project: Mapping[str, Any]) -> _Prepared:
    primaries = check_project(project)
    with backend.database.read_committed() as connection:
        choice = choose_simulator(
            backend, connection, project, submission.sim_type, on_cluster=submission.batch is not None
        )
    as_drawn = _Prepared(submission, choice.code.name, Checked(primaries, 1, secrets.randbelow(2**31)))
    if not choice.is_converted:
        return as_drawn
    try:
        converted = convert_project(project, choice.code.name)
    except InvalidInput as error:
        if not choice.for_external:
            raise
        return replace(as_drawn, note=f"External workers get the project without input files. {error}")
    title = f"{submission.title[: MAX_TITLE - 40]} ({choice.code.title})" if choice.is_other else submission.title
    submission = replace(submission, input_files=converted.files, title=title)
    return _Prepared(
        submission, choice.code.name, choice.code.check(converted.files), choice.describe(converted), converted.left_out
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
    """The number of all simulations, those on the page, and why some of them wait, by job_id."""

    total: int
    rows: list[Any]
    waiting: Mapping[str, str]


def list_simulations(backend: Backend, user: User, page: Page) -> Listed:
    """Return the simulations that a user may see, in the requested states and with the title; raise InvalidInput."""
    if "\0" in page.title:
        raise InvalidInput("title: a title contains no null characters")
    with backend.database.read_committed() as connection:
        total, rows = simulations.list_simulations(connection, listed_owner(user), page)
        pending = list_requirements(
            connection, {row.job_id: row for row in rows if row.job_state is EntityState.PENDING}
        )
        reasons = {item: runners.why_waiting(backend, connection, item) for item in set(pending.values())}
        notes = list_notes(connection, pending)
    waiting = {job_id: reason for job_id, item in pending.items() if (reason := reasons[item] or notes.get(job_id))}
    return Listed(total, rows, waiting)


def measure_progress(backend: Backend, listed: Listed) -> dict[str, float]:
    """Return the progress of each listed simulation that is running, 0 to 1, by job_id."""
    running = [row.job_id for row in listed.rows if row.job_state == EntityState.RUNNING]
    if not running:
        return {}
    with backend.database.reading() as connection:
        sums = tasks.sum_primaries(connection, running)
    return {job_id: min(1.0, int(done) / int(wanted)) for job_id, done, wanted in sums if wanted}


@dataclass(frozen=True, slots=True)
class Status:
    """A simulation (row of `queries.simulations.by_job`), its tasks (`queries.tasks.list_status`), why it waits.

    `waiting` is None unless it must start or continue, and no runner can run it or its cluster says why it waits.
    """

    simulation: Any
    tasks: list[Any]
    waiting: str | None = None


def read_status(backend: Backend, user: User, job_id: str) -> Status:
    """Return the status of a simulation and its tasks; raise NotFound, Forbidden."""
    with backend.database.read_committed() as connection:  # the tasks are never older than the simulation
        simulation = find_readable(connection, user, job_id)
        rows = tasks.list_status(connection, simulation.id)
        return Status(simulation, rows, _why_waiting(backend, connection, simulation, job_id, rows))


def estimate_time_left(rows: Sequence[Any], now: datetime) -> timedelta | None:
    """Return how long tasks, rows of `Status.tasks`, will still run if primaries take as long as those until now.

    With the fraction p of all primaries simulated in the time t since the first task began: t (1 - p) / p. None while
    p is below `LEAST_PROGRESS`, because the estimate would be too uncertain.
    """
    begun = [row.start_time for row in rows if row.start_time is not None]
    done, wanted = sum(row.simulated_primaries for row in rows), sum(row.requested_primaries for row in rows)
    if not begun or not LEAST_PROGRESS * wanted <= done < wanted:
        return None
    return (now - min(begun)) * ((wanted - done) / done)


def poll_status(backend: Backend, caller: User | str | None, job_id: str) -> tuple[User, Status]:
    """Return the caller, a user or an access token, and the status of a simulation with tasks of `tasks.list_polled`.

    For browsers, which poll: as few round trips as possible, and no conversion. Raises what
    `sessions.authenticate_user` and `read_status` raise.
    """
    with backend.database.read_committed() as connection:
        user, simulation = sessions.authenticate_with(backend, connection, caller, job_id)
        rows = tasks.list_polled(connection, simulation.id)
        return user, Status(simulation, rows, _why_waiting(backend, connection, simulation, job_id, rows))


def _why_waiting(
    backend: Backend, connection: Connection, simulation: Any, job_id: str, rows: Sequence[Any]
) -> str | None:
    if simulation.job_state == EntityState.RUNNING:  # its state alone does not tell whether it continues
        states = {row[1] for row in rows}
        if EntityState.RUNNING in states or EntityState.PENDING not in states:
            return None
    elif simulation.job_state != EntityState.PENDING:
        return None
    required = list_requirements(connection, {job_id: simulation})
    obstacle = runners.why_waiting(backend, connection, required[job_id])
    return obstacle or list_notes(connection, required).get(job_id)


def list_notes(connection: Connection, required: Mapping[str, Requirements]) -> dict[str, str]:
    """Return what clusters say about those of the simulations that wait there, by job_id."""
    on_clusters = [job_id for job_id, item in required.items() if item.platform == BATCH]
    return batch.list_notes(connection, on_clusters) if on_clusters else {}


def list_requirements(connection: Connection, pending: Mapping[str, Any]) -> dict[str, Requirements]:
    """Return the requirements of simulations by job_id, given their rows: platform, sim_type, input_type."""
    on_clusters = [job_id for job_id, row in pending.items() if row.platform == BATCH]
    for_external = batch.for_others(connection, on_clusters) if on_clusters else set()
    return {
        job_id: Requirements(row.sim_type, row.platform, row.input_type, job_id in for_external)
        for job_id, row in pending.items()
    }


def read_input(backend: Backend, user: User, job_id: str) -> codec.Stored:
    """Return the stored input of a simulation; raise NotFound, Forbidden."""
    with backend.database.reading() as connection:
        data = simulations.input_of(connection, find_readable(connection, user, job_id).id)
    if data is None:
        raise NotFound("Input of the job was not found")
    return codec.Stored(data)


def read_input_document(backend: Backend, user: User, job_id: str) -> dict[str, Any]:
    """Return the input of a simulation as submitted: `input_files`, `input_json`, `left_out`; see `read_input`."""
    document: dict[str, Any] = codec.decode_payload(read_input(backend, user, job_id).data)
    return document


def read_history(backend: Backend, user: User, job_id: str, newest: int | None = None) -> list[Any]:
    """Return all transitions of a simulation and its tasks, or the `newest` ones, oldest first.

    Raises NotFound, Forbidden.
    """
    with backend.database.reading() as connection:
        return simulations.list_history(connection, find_readable(connection, user, job_id).id, newest)


def read_input_digest(backend: Backend, user: User, job_id: str) -> str | None:
    """Return the SHA-256 (hexadecimal) of the text of a simulation's input; raise NotFound, Forbidden."""
    with backend.database.reading() as connection:
        return simulations.input_digest(connection, find_readable(connection, user, job_id).id)


def last_reason(backend: Backend, user: User, job_id: str) -> str | None:
    """Return the reason of the last transition of a simulation, or None; raise NotFound, Forbidden."""
    with backend.database.reading() as connection:
        return simulations.last_reason(connection, find_readable(connection, user, job_id).id)


def read_failures(backend: Backend, user: User, job_id: str) -> dict[int | None, str]:
    """Return why tasks failed, by task_id, and under None why the simulation did; raise NotFound, Forbidden."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        return dict(simulations.list_reasons(connection, simulation.id, EntityState.FAILED))


@retry_contended
def read_update_key(backend: Backend, user: User, job_id: str) -> tuple[int, str]:
    """Return the id and the update key of a simulation; raise NotFound, Forbidden.

    After a change of the signing key this is a new key, and the previous one becomes invalid.
    """
    with backend.database.writing() as connection:
        simulation = _require(transitions.lock_job(connection, job_id))
        require_access(user, Action.RUN, simulation)
        return simulation.id, lifecycle.known_update_key(backend, connection, simulation)


@retry_contended
def cancel_simulation(
    backend: Backend, user: User, job_id: str, reason: str = "canceled by its user"
) -> EntityState | None:
    """Cancel a simulation and all its tasks that have not ended.

    Returns None if it was canceled, otherwise its state, which prevents it. Raises NotFound, Forbidden.
    """
    with backend.database.writing() as connection:
        simulation = _require(transitions.lock_job(connection, job_id))
        require_access(user, Action.CANCEL, simulation)
        if simulation.job_state is EntityState.UNKNOWN or simulation.job_state in FINAL_STATES:
            return simulation.job_state
        lifecycle.end_simulation(connection, simulation, EntityState.CANCELED, Audit(user.username, utc_now(), reason))
    backend.dispatcher.revoke(simulation.id)
    return None


@retry_contended
def delete_simulation(backend: Backend, user: User, job_id: str) -> EntityState | None:
    """Delete a simulation with everything about it.

    Returns None if it was deleted, otherwise its state: it must be canceled first. Raises NotFound, and
    NotAuthenticated if it belongs to another user (which existing clients expect).
    """
    with backend.database.writing() as connection:
        simulation = _require(transitions.lock_job(connection, job_id))
        if not may(user, Action.DELETE, simulation):
            raise NotAuthenticated(NOT_YOURS)
        if not lifecycle.remove_simulation(connection, simulation):
            return simulation.job_state
    backend.dispatcher.revoke(simulation.id)
    backend.spool.remove(job_id)
    return None


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's report about a simulation; None for what it does not contain.

    `batch` may set `job_dir`, `array_id` and `collect_id` of a simulation on a cluster.
    """

    job_state: EntityState | None = None
    end_time: datetime | None = None
    logfiles: Mapping[str, str] | None = None
    batch: Mapping[str, Any] = field(default_factory=dict)


@retry_contended
def report_simulation(backend: Backend, simulation_id: int, update_key: str, report: Report) -> EntityState:
    """Apply a worker's report about a simulation, and return its current state.

    Outdated reports (a step back, or out of a final state) are ignored without an error: messages arrive late and
    twice. Raises NotFound for an unknown simulation, InvalidInput for a wrong key.
    """
    logs = codec.encode_payload(report.logfiles) if report.logfiles else None
    with backend.database.writing() as connection:
        locked = transitions.lock_simulation(connection, simulation_id)
        if locked is None:
            raise NotFound("Simulation does not exist")
        simulation = lifecycle.check_update_key(backend, locked, update_key)
        if logs is not None:
            logfiles.keep_logfiles(backend, connection, simulation.id, logs)
        if report.batch and simulation.platform == BATCH and simulation.job_state not in FINAL_STATES:
            simulations.set_batch_values(connection, simulation.id, report.batch)
        return _apply(connection, simulation, report)


def _apply(connection: Connection, simulation: Locked, report: Report) -> EntityState:
    state, to = simulation.job_state, report.job_state
    if to is None or to is state or _is_step_back(state, to):
        return state
    audit = Audit(lifecycle.WORKER, utc_now())
    if to in FINAL_STATES:
        ended = {"end_time": max(report.end_time, simulation.start_time)} if report.end_time else {}
        return lifecycle.end_simulation(connection, simulation, to, audit, ended)
    return to if transitions.move_simulation(connection, simulation.id, to, audit) else state


def _is_step_back(state: EntityState, to: EntityState) -> bool:
    waiting = (EntityState.UNKNOWN, EntityState.PENDING)
    return (to in waiting and state is not EntityState.UNKNOWN) or (
        state is EntityState.MERGING_RUNNING and to is EntityState.MERGING_QUEUED
    )


def _require(simulation: Locked | None) -> Locked:
    if simulation is None:
        raise NotFound(NO_SUCH_JOB)
    return simulation
