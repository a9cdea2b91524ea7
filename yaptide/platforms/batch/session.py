"""The jobs of one user on one cluster: submits them, follows them, fetches what they left, and cleans up."""

import ipaddress
import json
import logging
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from yaptide.domain.errors import (
    ClusterUnavailable,
    InvalidInput,
    NotFound,
    TooLarge,
    Unavailable,
    YaptideError,
)
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch import packing
from yaptide.platforms.batch.reports import Report, read_reports
from yaptide.platforms.batch.schedulers import get_scheduler
from yaptide.platforms.batch.schedulers.base import (
    ArrayTooLarge,
    JobInfo,
    JobRefused,
    JobRequest,
    NoAccounts,
    QueueFull,
    Scheduler,
    name_log,
)
from yaptide.platforms.batch.ssh import Connections, Finished, Login, Server, SshSession
from yaptide.services import batch, clusters, output_upload, tasks
from yaptide.services.backend import Backend, utc_now
from yaptide.services.batch import Array, Job, Open
from yaptide.services.clusters import Cluster
from yaptide.services.credentials import current_credentials
from yaptide.services.tasks import REQUEUED, Claim
from yaptide.simulators import get_simulator
from yaptide.simulators.base import OUTPUT_LOG, logs_of_task

log = logging.getLogger(__name__)

#: Seconds between the end of a task on the cluster and its failure in yaptide, if it has not reported its end.
GRACE = 30.0
#: The reason for a task of which the cluster has no record: it ended some time ago, or was canceled while it waited.
FORGOTTEN = "the cluster no longer knows it"
_QUIET = 5.0
_LOG_TAIL = 256 * 1024
_TRANSIENT = (ClusterUnavailable, TooLarge, Unavailable)
#: Seconds between two attempts to submit more tasks than the account may have, two queries of positions in the queue,
#: and two queries of accounting records that could not be read.
_RETRY_FULL, _RETRY_POSITIONS, _RETRY_ACCOUNTS = 60.0, 60.0, 600.0
_MOST_LINE = 200
_BUSY = 75
#: Submits a job unless another process is doing so; a lock older than two minutes was left by a process that died. The
#: answer of a submission that succeeded is kept, and is repeated if it was lost.
_SUBMIT_ONCE = """\
lock=$1; shift
grep -q '[0-9]' "$lock/answer" 2>/dev/null && exec cat "$lock/answer"
find "$lock" -maxdepth 0 -mmin +2 -exec rm -rf {} ';' 2>/dev/null
mkdir -- "$lock" 2>/dev/null || exit 75
"$@" >"$lock/part"; code=$?
cat "$lock/part"
if [ $code = 0 ]; then mv "$lock/part" "$lock/answer"; else rm -rf -- "$lock"; fi
exit $code
"""
#: Prints the answers of submissions of arrays that succeeded, each line after the name of its file.
_LIST_ANSWERS = 'cd -- "$1" 2>/dev/null && grep . /dev/null array-*.lock/answer 2>/dev/null; true'
_ANSWER = re.compile(r"array-([0-9]{1,7})-([0-9]{1,7})\.lock/answer:(.*)", re.ASCII)
#: Prints why a folder cannot be written.
_TRY_TO_WRITE = 'mkdir -p -- "$1" && printf %4096s x >"$1/.written" && rm -f -- "$1/.written"'
#: Finds a program as job scripts do, between marks: the prologue may print text, and start-up files of bash too.
_FIND_PROGRAM = "{prologue}\nprintf '\\nyaptide-program=%s=\\n' \"$(command -v -- {path})\""
_PROGRAM = re.compile(r"^yaptide-program=(.*)=$", re.MULTILINE)
#: Lists folders of jobs that this installation created at least a month ago: younger jobs may be in another database.
_LIST_OLD_FOLDERS = (
    'cd -- "$1" && find . -mindepth 2 -maxdepth 2 -name place -mtime +30 -exec grep -lFx -- "$2" {} +; true'
)

#: What the scheduler reports, by the numbers of job and task.
_JobInfos = Mapping[tuple[int, int | None], JobInfo]


@dataclass(frozen=True, slots=True)
class _Access:
    """A cluster, and an SSH session on it."""

    cluster: Cluster
    ssh: SshSession


@dataclass(slots=True)
class _Memory:
    """State that can be rebuilt: nothing is lost if the process dies.

    `settled`: jobs with nothing left on the cluster but their folder; `overdue`: since when (monotonic clock) a task is
    over without a report; `orphans`: `job_id` of deleted simulations whose folders are still there; `swept`: whether
    orphans of earlier processes were searched for. `full`: jobs of which the cluster accepted not all tasks, with its
    words, the number of jobs that the account had then, and the time; `sizes`: tasks of the last array of such a job
    that the cluster accepted, 0 for none; `array_limit`: the most tasks of an array;
    `uncollected`: jobs whose collect job was refused; `positions` in the queue, and their time; `accounts_due`: when to
    query accounting records again; `warning`: the last one in the log.
    """

    settled: set[int] = field(default_factory=set)
    overdue: dict[tuple[int, int], float] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    swept: bool = False
    full: dict[int, tuple[str, int, float]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    array_limit: int | None = None
    uncollected: set[int] = field(default_factory=set)
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    positions_due: float = 0.0
    accounts_due: float = 0.0
    warning: str = ""


class ClusterSession:
    """The jobs of one user on one cluster. `process_jobs` must be called by one thread at a time."""

    def __init__(
        self,
        backend: Backend,
        connections: Connections,
        stop: threading.Event,
        user_id: int,
        cluster_name: str,
        url: str,
        interval: float,
    ) -> None:
        """`url` is the URL of the server for nodes, `interval` the seconds between two queries."""
        self._backend = backend
        self._connections = connections
        self._stop = stop
        self._user_id = user_id
        self._cluster_name = cluster_name
        self._url = url
        self._quiet = timedelta(seconds=max(_QUIET, 3 * interval))
        self._memory = _Memory()
        self._scheduler = get_scheduler()

    @property
    def has_orphans(self) -> bool:
        """Whether folders of deleted simulations must still be removed."""
        return bool(self._memory.orphans)

    def forget_jobs(self, jobs: Iterable[Job]) -> None:
        """Drop jobs that are no longer listed; folders of deleted simulations are removed by `process_jobs`."""
        for job in jobs:
            if not batch.is_known(self._backend, job.job_id):
                self._memory.orphans.add(job.job_id)
            self._memory.settled.discard(job.id)
            self._memory.uncollected.discard(job.id)
            self._memory.full.pop(job.id, None)
            self._memory.sizes.pop(job.id, None)

    def process_jobs(self, jobs: list[Job]) -> bool:
        """Submit, follow and clean up these jobs once; returns False after an error that may be transient."""
        if not self._memory.orphans and all(job.has_ended and not self._is_followed(job) for job in jobs):
            return True
        try:
            access = self._open_access()
            access.ssh.run_command("true")
        except YaptideError as error:
            self._explain_error(jobs, error)
            return False
        try:
            query_time, infos = self._query_queue(access)
            succeeded, submitted = True, False
            for job in jobs:
                if self._is_submission_due(job, infos) and not self._stop.is_set():
                    submitted = True
                    succeeded &= self._try_step(job, self._submit_job, access, job, infos)
            numbers = {job.id for job in jobs}
            unfinished = [job for job in batch.list_unfinished(self._backend) if job.id in numbers]
            followed = [job for job in unfinished if self._is_followed(job)]
            if submitted:  # a job that ended meanwhile must be seen
                query_time, infos = self._query_queue(access)
        except YaptideError as error:
            self._explain_error(jobs, error)
            return False
        for job in followed:
            if not self._stop.is_set():
                succeeded &= self._try_step(job, self._follow_job, access, job, infos, query_time)
        if succeeded:
            self._memory.warning = ""
        return self._remove_orphans(access) and succeeded

    def _query_queue(self, access: _Access) -> tuple[datetime, _JobInfos]:
        """The time before the query, and the jobs of the account."""
        query_time = utc_now()
        return query_time, {(info.job, info.index): info for info in self._scheduler.query_queue(access.ssh)}

    def _open_access(self) -> _Access:
        cluster = clusters.find_cluster(self._backend.database, self._cluster_name)
        if not cluster.host or not cluster.host_key:
            raise InvalidInput(f"The cluster {self._cluster_name} no longer has a host or a host key")
        credentials = current_credentials(self._backend, self._user_id)
        login = Login(credentials.username, credentials.private_key_text, credentials.certificate_text)
        server = Server(cluster.host, cluster.port, cluster.host_key)
        return _Access(cluster, self._connections.open_session(server, login))

    def _explain_error(self, jobs: list[Job], error: YaptideError) -> None:
        """Note the error for the users of the jobs; jobs not submitted yet fail unless the error is transient."""
        if self._stop.is_set():  # this process closed the connection
            return
        self._warn_once(str(error))
        for job in jobs:
            if job.has_ended:
                continue
            is_final = job.array_id is None and not isinstance(error, _TRANSIENT)
            if is_final and batch.refuse_submission(self._backend, job, f"it could not be submitted: {error}"):
                continue
            if not isinstance(error, Unavailable):
                text = "the cluster cannot be used; retrying"
                batch.add_note(self._backend, job, f"{text}: {_own_words(error)}")
                self._store_note(job, f"{text}: {error}")

    def _warn_once(self, text: str) -> None:
        """Log a warning unless it is the same as the last one: an account may stay unusable for months."""
        if text != self._memory.warning:
            self._memory.warning = text
            log.warning("%s: %s", self._cluster_name, text)

    def _try_step(self, job: Job, step: Callable[..., None], *arguments: object) -> bool:
        """Run a step for a job; an error must not affect other jobs."""
        try:
            step(*arguments)
        except YaptideError as error:
            self._explain_error([job], error)
            return False
        except Exception:
            log.exception("unexpected error with %s; continuing", job.job_id)
            if job.array_id is None and not job.has_ended:
                batch.refuse_submission(self._backend, job, "an internal error, see the server's log")
            return False
        return True

    def _is_followed(self, job: Job) -> bool:
        if not job.has_ended:
            return job.array_id is not None
        return job.id not in self._memory.settled or self._is_removal_due(job)

    # Submitting.

    def _is_submission_due(self, job: Job, infos: _JobInfos) -> bool:
        """Whether something of the simulation must be submitted now."""
        if job.has_ended or (job.array_id is not None and (job.collect_id or job.id in self._memory.uncollected)):
            return False
        if job.id not in self._memory.full:
            return True
        _, alive, time_refused = self._memory.full[job.id]
        return _count_alive(infos) < alive or time.monotonic() - time_refused > _RETRY_FULL

    def _submit_job(self, access: _Access, job: Job, infos: _JobInfos) -> None:
        folder = f"{access.cluster.scratch_of(access.ssh.login.account)}/{job.job_id}"
        key = batch.claim_submission(self._backend, job, folder)
        if key is None:
            return
        count = batch.count_tasks(self._backend, job)
        arrays = self._recover_arrays(access, job, folder, count, infos)
        if not arrays:
            files, shares = batch.input_of(self._backend, job)
            self._upload_bundle(access, job, folder, key, files, shares)
        alive = [array for array in arrays if array.number in _alive(infos)]
        known = len(alive)
        try:
            while rest := range(arrays[-1].tasks.stop if arrays else 1, count + 1):
                alive.append(self._submit_array(access, job, folder, rest, alive))
                arrays.append(alive[-1])
        except QueueFull as error:
            submitted = sum(array.size for array in arrays)
            note = f"{submitted} of {count} tasks are submitted; {error}" if submitted else str(error)
            self._note_full(job, note, _count_alive(infos) + sum(array.size for array in alive[known:]))
            return
        except NotFound:  # it ended meanwhile, or was deleted
            return
        self._memory.full.pop(job.id, None)
        self._memory.sizes.pop(job.id, None)
        self._submit_collect(access, job, folder, arrays, infos)

    def _note_full(self, job: Job, note: str, alive: int) -> None:
        """Note that the cluster accepts no more tasks, while the account has `alive` of them."""
        self._memory.full[job.id] = (note, alive, time.monotonic())
        self._store_note(job, note)

    def _recover_arrays(self, access: _Access, job: Job, folder: str, count: int, infos: _JobInfos) -> list[Array]:
        """The arrays that the cluster has accepted, also those whose number was lost.

        A number is lost if a process dies, or with a backup that is older; jobs in the queue and the answers in the
        folder still have it. Without any row, a job in the queue is of an earlier version, which submitted one array.
        """
        stored = batch.list_arrays(self._backend, job)
        arrays = [array for array in stored if array.number is not None]
        lost = [_find_in_queue(job, array, infos) for array in stored if array.number is None]
        next_task = arrays[-1].tasks.stop if arrays else 1
        if next_task <= count:
            lost += self._list_accepted(access, folder)
        if not stored:
            lost.append(_find_in_queue(job, Array(1, count, None), infos, exact=True))
        for array in lost:
            if array.number is not None and array.first == next_task and array.tasks.stop <= count + 1:
                batch.store_array(self._backend, job, array)
                arrays.append(array)
                next_task = array.tasks.stop
        return arrays

    def _list_accepted(self, access: _Access, folder: str) -> list[Array]:
        """The arrays whose acceptance is recorded in the folder of a job, in order of their tasks."""
        texts: dict[tuple[int, int], str] = {}
        for line in access.ssh.run_command("sh", "-c", _LIST_ANSWERS, "sh", folder).text.splitlines():
            if match := _ANSWER.fullmatch(line):
                key = (int(match[1]), int(match[2]))
                texts[key] = f"{texts.get(key, '')}{match[3]}\n"
        arrays = []
        for (first, size), text in sorted(texts.items()):
            with suppress(ClusterUnavailable):  # no number in it
                number = self._scheduler.parse_job_number(Finished(0, text.encode(), b""))
                arrays.append(Array(first, size, number))
        return arrays

    def _submit_array(self, access: _Access, job: Job, folder: str, rest: range, alive: Iterable[Array]) -> Array:
        """Submit the tasks `rest`, or only the first of them, while the arrays `alive` have not ended.

        Raises QueueFull if the cluster does not accept even one, or runs as many as it may; ArrayTooLarge if it accepts
        no arrays at all; NotFound if the simulation has ended or was deleted; ClusterRefused, and ClusterUnavailable,
        after which the array may exist.
        """
        most = _free_places(access.cluster, alive)
        size = self._choose_size(job, rest)
        while True:
            try:
                return self._try_array(access, job, folder, Array(rest.start, size, None), most)
            except ArrayTooLarge:
                if size == 1:
                    raise
                limit = self._scheduler.find_array_limit(access.ssh)
                size = self._memory.array_limit = limit if limit and limit < size else size // 2
            except QueueFull:
                size = self._memory.sizes[job.id] = size // 2
                if not size:
                    raise

    def _choose_size(self, job: Job, rest: range) -> int:
        """How many of the tasks `rest` to submit first."""
        for array in batch.list_arrays(self._backend, job):
            if array.first == rest.start:  # its number was lost: only its own lock prevents that it is submitted again
                return array.size
        size = min(len(rest), self._memory.array_limit or len(rest))
        if job.id in self._memory.sizes:
            size = min(size, max(1, 2 * self._memory.sizes[job.id]))
        return size

    def _try_array(self, access: _Access, job: Job, folder: str, array: Array, most_at_once: int | None) -> Array:
        """Submit an array; raises as `_submit_array`. QueueFull and ArrayTooLarge mean that fewer may be accepted."""
        request = _make_request(self._scheduler, access.cluster, job, folder, "array")
        limit = None if most_at_once is None else min(array.size, most_at_once)
        command = self._scheduler.array_command(request, f"{folder}/array.sh", array.tasks, limit)
        lock = f"{folder}/array-{array.first}-{array.size}.lock"
        # If the number is lost, the array is found by its name, or by the answer in its lock.
        batch.store_array(self._backend, job, array)
        try:
            number = submit_once(self._scheduler, access.ssh, lock, command)
        except (QueueFull, JobRefused):
            batch.remove_array(self._backend, job, array)
            raise
        submitted = Array(array.first, array.size, number)
        batch.store_array(self._backend, job, submitted)
        if job.id in self._memory.sizes:
            self._memory.sizes[job.id] = array.size
        return submitted

    def _submit_collect(self, access: _Access, job: Job, folder: str, arrays: list[Array], infos: _JobInfos) -> None:
        """Submit the job that collects results; without it, the server fetches them."""
        numbers = [info.job for info in infos.values() if _is_of(info, job.job_id) and info.index is None]
        ended = {info.job for info in infos.values()} - _alive(infos)
        after = [array.number for array in arrays if array.number and array.number not in ended]
        try:
            if not numbers and after:
                request = _make_request(self._scheduler, access.cluster, job, folder, "collect")
                command = self._scheduler.collect_command(request, f"{folder}/collect.sh", after)
                numbers = [submit_once(self._scheduler, access.ssh, f"{folder}/collect.lock", command)]
        except (QueueFull, JobRefused) as error:
            log.warning("%s: the job that collects results was not accepted: %s", self._cluster_name, error)
            note = "the job that collects results was not accepted, so they are fetched over SSH"
            batch.add_note(self._backend, job, f"{note}: {_own_words(error)}")
        if numbers:  # if this is lost, the job is found by its name
            batch.note_job(self._backend, job, collect_id=min(numbers))
        else:
            self._memory.uncollected.add(job.id)

    def _upload_bundle(
        self,
        access: _Access,
        job: Job,
        folder: str,
        key: str,
        files: Mapping[str, str],
        shares: list[tuple[int, int, int]],
    ) -> None:
        ssh, cluster, scheduler = access.ssh, access.cluster, self._scheduler
        bundle = packing.Bundle(get_simulator(job.sim_type), _find_program(ssh, cluster, job.sim_type), files, shares)
        url = reachable_url(self._url, cluster)
        manifest = packing.make_manifest(bundle, job.id, url, scheduler.time_limit_reason)
        request = JobRequest(job.job_id, folder, {})
        array_script = scheduler.array_script(request, packing.RUN, cluster.prologue)
        collect_script = scheduler.job_script(request, packing.COLLECT, cluster.prologue)
        with tempfile.TemporaryDirectory(dir=self._backend.data_dir) as temporary:
            inputs = Path(temporary) / "inputs.zip"
            packing.pack_inputs(bundle, inputs)
            with _explained_scratch(ssh, folder):
                ssh.make_folder(folder, 0o700)
                ssh.write_file(f"{folder}/key", key.encode())
                ssh.write_file(f"{folder}/place", self._backend.spool.place.encode())
                ssh.write_file(f"{folder}/manifest.json", manifest)
                ssh.write_file(f"{folder}/agent.py", packing.AGENT.read_bytes())
                ssh.write_file(f"{folder}/array.sh", array_script.encode(), 0o700)
                ssh.write_file(f"{folder}/collect.sh", collect_script.encode(), 0o700)
                ssh.upload_file(inputs, f"{folder}/inputs.zip")

    # Following.

    def _follow_job(self, access: _Access, job: Job, infos: _JobInfos, query_time: datetime) -> None:
        if job.has_ended:
            self._finish_job(access, job, infos)
            return
        arrays = [array for array in batch.list_arrays(self._backend, job) if array.number is not None]
        submitted = {number for array in arrays for number in array.tasks}
        unfinished = [task for task in batch.open_tasks(self._backend, job) if task.task_id in submitted]
        task_infos = self._select_infos(access, arrays, unfinished, infos)
        self._store_queue_note(access, job, [info for info in task_infos.values() if _is_waiting(info)])
        self._requeue_tasks(job, unfinished, task_infos, query_time)
        silent = [task for task in unfinished if self._is_silent(task, task_infos.get(task.task_id), query_time)]
        if not silent:
            return
        reports = read_reports(access.ssh, job.job_dir or "", [task.task_id for task in silent])
        for task in silent:
            report = reports.get(task.task_id)
            if report is None or not self._apply_report(access, job, report):
                self._resolve_task(access, job, task, task_infos.get(task.task_id))

    def _select_infos(
        self, access: _Access, arrays: list[Array], unfinished: list[Open], infos: _JobInfos
    ) -> dict[int, JobInfo]:
        """The scheduler's information by task; the accounting is queried for tasks that left the queue."""
        numbers = {task: array.number or 0 for array in arrays for task in array.tasks}
        keys = {task.task_id: (numbers[task.task_id], task.task_id) for task in unfinished}
        task_infos = {task: infos[key] for task, key in keys.items() if key in infos}
        missing = {number for number, task in keys.values() if task not in task_infos}
        records = [*infos.values(), *self._query_accounting(access, missing)] if missing else []
        for info in records:
            if info.job in missing and info.index is not None:
                task_infos.setdefault(info.index, info)
        # An array of which all waiting tasks were canceled has one record for them, without an index.
        canceled = {info.job: info for info in records if info.index is None and info.state is EntityState.CANCELED}
        for task, (number, _) in keys.items():
            if number in canceled:
                task_infos.setdefault(task, canceled[number])
        return task_infos

    def _query_accounting(self, access: _Access, numbers: Collection[int]) -> list[JobInfo]:
        """The accounting records of arrays; none, for a while, if they cannot be read, which is logged once."""
        if time.monotonic() < self._memory.accounts_due:
            return []
        try:
            return self._scheduler.query_accounting(access.ssh, sorted(numbers))
        except NoAccounts as error:
            if not self._memory.accounts_due:
                log.warning("%s: %s", self._cluster_name, error)
            self._memory.accounts_due = time.monotonic() + _RETRY_ACCOUNTS
            return []

    def _store_queue_note(self, access: _Access, job: Job, waiting: Collection[JobInfo]) -> None:
        """Store why tasks wait, their position in the queue, and the expected start of the first of them."""
        first = min(waiting, key=lambda info: info.start.timestamp() if info.start else float("inf"), default=None)
        parts = [self._memory.full[job.id][0]] if job.id in self._memory.full else []
        if first is not None:
            expected = f"expected to begin at {first.start:%Y-%m-%d %H:%M} UTC" if first.start else None
            parts += filter(None, (first.reason, self._format_position(access, waiting), expected))
        self._store_note(job, "; ".join(parts) or None)

    def _format_position(self, access: _Access, waiting: Iterable[JobInfo]) -> str | None:
        """The best position of waiting jobs in the queue; None if it is unknown."""
        if time.monotonic() >= self._memory.positions_due:
            self._memory.positions_due = time.monotonic() + _RETRY_POSITIONS
            try:
                self._memory.positions = self._scheduler.query_positions(access.ssh)
            except YaptideError:  # such as a list that is too long: nothing else needs it
                self._memory.positions = {}
        known = [self._memory.positions[job] for job in {info.job for info in waiting} & self._memory.positions.keys()]
        if not known:
            return None
        place, count = min(known)
        return f"position {place} of {count} in the queue"

    def _store_note(self, job: Job, note: str | None) -> None:
        if note != job.queue_note:
            batch.note_job(self._backend, job, queue_note=note)

    def _requeue_tasks(
        self, job: Job, unfinished: list[Open], task_infos: Mapping[int, JobInfo], query_time: datetime
    ) -> None:
        """Move running tasks that the scheduler has put back into the queue to PENDING."""
        for task in unfinished:
            info = task_infos.get(task.task_id)
            if info is None or not _is_waiting(info) or task.task_state is not EntityState.RUNNING:
                continue
            if task.heartbeat_time is None or task.heartbeat_time < query_time - self._quiet:
                batch.end_task(self._backend, job, task, EntityState.PENDING, REQUEUED)

    def _is_silent(self, task: Open, info: JobInfo | None, query_time: datetime) -> bool:
        """Whether the task runs or has ended according to the scheduler, and sends no reports."""
        if info is not None and _is_waiting(info):
            return False
        if info is not None and info.state not in FINAL_STATES:
            return task.heartbeat_time is None or task.heartbeat_time < query_time - self._quiet
        return True

    def _apply_report(self, access: _Access, job: Job, report: Report) -> bool:
        """Store a report that the agent could not send; returns whether it ends the task."""
        if report.state not in ("running", "ended", "failed"):
            return False
        claim = batch.claim_task(self._backend, job, report.task, report.worker, report.version, report.digest)
        if claim is None:
            return False
        if report.state == "running":
            tasks.report_progress(self._backend, claim, report.simulated, report.left)
            return False
        if report.state == "failed":
            tasks.fail_task(self._backend, claim, report.reason, self._read_logs(access, job, report.task))
        else:
            self._fetch_result(access, job, claim, report)
        return True

    def _fetch_result(self, access: _Access, job: Job, claim: Claim, report: Report) -> None:
        path = f"{job.job_dir}/task-{report.task}/result.zip"
        with tempfile.TemporaryDirectory(dir=self._backend.data_dir) as temporary:
            archive = Path(temporary) / "result.zip"
            try:
                _check_size(access.ssh, path, self._backend.limits.output)
                access.ssh.download_file(path, archive)
                output_upload.hand_in(self._backend, claim, report.exit_code, archive)
            except (InvalidInput, NotFound) as error:
                tasks.fail_task(self._backend, claim, f"its results cannot be used: {error}", {})

    def _resolve_task(self, access: _Access, job: Job, task: Open, info: JobInfo | None) -> None:
        """End a task without a report as the scheduler says; the report of a completed task may arrive late."""
        if info is not None and info.state not in FINAL_STATES:
            self._memory.overdue.pop((job.id, task.task_id), None)
            return
        to, reason = EntityState.FAILED, FORGOTTEN
        if info is not None and info.state is not EntityState.COMPLETED:
            to, reason = info.state, info.reason or "it ended on the cluster"
        elif not self._is_overdue(job, task):
            return
        elif info is not None:
            reason = "the cluster says that it completed, but it has left no results"
        logs = self._read_logs(access, job, task.task_id) if to is EntityState.FAILED else {}
        reason += _quote_last_line(logs, self._scheduler.log_prefix)
        batch.end_task(self._backend, job, task, to, reason, logs)
        self._memory.overdue.pop((job.id, task.task_id), None)

    def _is_overdue(self, job: Job, task: Open) -> bool:
        since = self._memory.overdue.setdefault((job.id, task.task_id), time.monotonic())
        return time.monotonic() - since > GRACE

    def _read_logs(self, access: _Access, job: Job, number: int) -> dict[str, str]:
        """The end of the logs of the simulator and of the job script."""
        first = next((a.first for a in batch.list_arrays(self._backend, job) if number in a.tasks), 1)
        paths = {OUTPUT_LOG: f"task-{number}/run/{OUTPUT_LOG}", "job.log": name_log(first, number - first + 1)}
        logs = {}
        for name, path in paths.items():
            answer = access.ssh.run_command("tail", "-c", str(_LOG_TAIL), "--", f"{job.job_dir}/{path}")
            if answer.exit_code == 0 and answer.text:
                logs[name] = answer.text.replace("\0", "")
        return logs_of_task(number, logs)

    # Cleaning up.

    def _is_removal_due(self, job: Job) -> bool:
        """Whether the folder of a simulation that has ended must be removed."""
        if job.job_state is EntityState.COMPLETED or job.end_time is None:
            return True
        days = clusters.find_cluster(self._backend.database, self._cluster_name).keep_failed_days
        return job.end_time + timedelta(days=days) < utc_now()

    def _finish_job(self, access: _Access, job: Job, infos: _JobInfos) -> None:
        """Cancel all jobs of a simulation that has ended; when none is left, remove its folder if that is due."""
        alive = {info.job for info in infos.values() if _is_of(info, job.job_id) and info.state not in FINAL_STATES}
        for number in sorted(alive):
            self._scheduler.cancel_job(access.ssh, number)
        if alive:
            return  # the next call checks that they have ended
        self._memory.settled.add(job.id)
        if self._is_removal_due(job):
            self._remove_folder(access, job.job_id, job.job_dir or "")
            batch.note_job(self._backend, job, job_dir=None)

    def _remove_folder(self, access: _Access, job_id: str, folder: str) -> None:
        """Remove the folder of a job, and no other folder."""
        if folder.endswith(f"/{job_id}"):
            answer = access.ssh.run_command("rm", "-rf", "--", folder)
            if answer.exit_code:
                raise ClusterUnavailable(f"{folder} cannot be removed: {answer.complaint}")

    def _remove_orphans(self, access: _Access) -> bool:
        """Remove jobs and folders of deleted simulations, also of earlier processes; returns False to try again."""
        scratch = access.cluster.scratch_of(access.ssh.login.account)
        try:
            if not self._memory.swept:
                words = ("sh", "-c", _LIST_OLD_FOLDERS, "sh", scratch, self._backend.spool.place)
                names = [path.split("/")[1] for path in access.ssh.run_command(*words).text.splitlines()]
                self._memory.orphans |= {name for name in names if not batch.is_known(self._backend, name)}
                self._memory.swept = True
            for job_id in sorted(self._memory.orphans):
                for number in {info.job for info in self._scheduler.find_jobs(access.ssh, job_id)}:
                    self._scheduler.cancel_job(access.ssh, number)
                self._remove_folder(access, job_id, f"{scratch}/{job_id}")
                self._memory.orphans.discard(job_id)
        except YaptideError as error:
            self._warn_once(str(error))
            return False
        return True


def reachable_url(url: str, cluster: Cluster) -> str | None:
    """The URL of the server for the nodes of a cluster; None if it is not encrypted, or means the node itself."""
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or ""):
        return url if _is_loopback(cluster.host or "") else None
    return url if parts.scheme == "https" else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def submit_once(scheduler: Scheduler, session: SshSession, lock: str, command: list[str]) -> int:
    """Submit a job unless another process is submitting it; returns its number.

    Raises what `Scheduler.parse_job_number` raises, and ClusterUnavailable if another process is submitting the job.
    """
    answer = session.run_command("sh", "-c", _SUBMIT_ONCE, "sh", lock, *command)
    if answer.exit_code == _BUSY:
        raise ClusterUnavailable("The job is already being submitted; its status will be checked shortly")
    return scheduler.parse_job_number(answer)


def _make_request(scheduler: Scheduler, cluster: Cluster, job: Job, folder: str, part: str) -> JobRequest:
    """The request for the `array` or the `collect` job, whose own options override those of the cluster."""
    options = scheduler.merge_options(cluster.sbatch_options, json.loads(job.options)[part])
    return JobRequest(job.job_id, folder, options)


def _is_of(info: JobInfo, job_id: str) -> bool:
    """Whether a job has the name of a simulation."""
    return info.name == job_id or info.name.startswith(f"{job_id}.")


def _find_in_queue(job: Job, array: Array, infos: _JobInfos, *, exact: bool = False) -> Array:
    """The array with its number in the queue, or as it is; `exact`: the job must have the name of the simulation."""
    named = [info for info in infos.values() if (info.name == job.job_id if exact else _is_of(info, job.job_id))]
    numbers = [info.job for info in named if info.index in array.tasks]
    return Array(array.first, array.size, min(numbers, default=None))


def _free_places(cluster: Cluster, alive: Iterable[Array]) -> int | None:
    """How many tasks of the next array may run at once beside the arrays `alive`; None for any number.

    An array counts as many as it could run if it had been the first. Raises QueueFull if there is no free place.
    """
    most = cluster.max_running
    if most is None:
        return None
    free = most - sum(min(array.size, most) for array in alive)
    if free <= 0:
        raise QueueFull(f"The cluster {cluster.cluster_name} runs at most {most} tasks of a simulation at once")
    return free


def _own_words(error: YaptideError) -> str:
    """What an error says without the words of the cluster after its first colon, which may differ each time."""
    return str(error).partition(": ")[0]


def _alive(infos: _JobInfos) -> set[int]:
    """Numbers of jobs that have not ended."""
    return {info.job for info in infos.values() if info.state not in FINAL_STATES}


def _count_alive(infos: _JobInfos) -> int:
    return sum(info.state not in FINAL_STATES for info in infos.values())


def _quote_last_line(logs: Mapping[str, str], prefix: str) -> str:
    """The last line that a job printed itself, without `prefix`, which often says more than its exit code."""
    text = next((text for name, text in logs.items() if name.endswith("job.log")), "")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(prefix)]
    return f"; its log ends with: {lines[-1][:_MOST_LINE]}" if lines else ""


@contextmanager
def _explained_scratch(session: SshSession, folder: str) -> Iterator[None]:
    """Errors with files are passing: disks are freed again. Says what the cluster says, which SFTP often does not."""
    try:
        yield
    except (ClusterUnavailable, Unavailable):
        raise
    except YaptideError as error:
        answer = session.run_command("sh", "-c", _TRY_TO_WRITE, "sh", folder)
        reason = answer.complaint if answer.exit_code else str(error)
        raise ClusterUnavailable(f"The scratch folder cannot be written: {reason}") from None


def _is_waiting(info: JobInfo) -> bool:
    return info.state is EntityState.PENDING


def _find_program(session: SshSession, cluster: Cluster, sim_type: str) -> str:
    """The absolute path of a simulator's program on the cluster; raises ClusterUnavailable if there is none now."""
    path = cluster.simulators.get(sim_type, "")
    if path.startswith("/"):
        return path
    program = find_program(session, cluster, path)
    if not program.startswith("/"):
        raise ClusterUnavailable(
            f"There is no program {path} on the cluster {cluster.cluster_name}; tell its administrator"
        )
    return program


def find_program(session: SshSession, cluster: Cluster, path: str) -> str:
    """The path of a program after the prologue, as job scripts find it; empty if there is none.

    Raises ClusterUnavailable if the prologue fails.
    """
    script = _FIND_PROGRAM.format(prologue=cluster.prologue or "", path=shlex.quote(path))
    answer = session.run_command("bash", "-lc", script)
    programs = _PROGRAM.findall(answer.text)
    if not programs:
        raise ClusterUnavailable(f"The prologue of the cluster {cluster.cluster_name} failed: {answer.complaint}")
    return str(programs[-1]).strip()


def _check_size(session: SshSession, path: str, most: int) -> None:
    """Raise InvalidInput for a file of more than `most` bytes, NotFound if there is no file."""
    answer = session.run_command("stat", "-c", "%s", "--", path)
    if answer.exit_code or not answer.text.strip().isdigit():
        raise NotFound(f"There is no {path} on the cluster")
    if int(answer.text) > most:
        raise InvalidInput(f"{path} has more than {most} bytes")
