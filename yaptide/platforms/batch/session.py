"""One user on one cluster: what the driver says there, what it hears, and what it makes of that."""

import ipaddress
import json
import logging
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from yaptide.domain.errors import ClusterUnavailable, InvalidInput, NotFound, Unavailable, YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch import packing, slurm
from yaptide.platforms.batch.reports import Report, read_reports
from yaptide.platforms.batch.slurm import FORGOTTEN, Seen
from yaptide.platforms.batch.ssh import Connections, Login, Server, SshSession
from yaptide.services import batch, clusters, tasks, uploads
from yaptide.services.backend import Backend, utc_now
from yaptide.services.batch import Job, Open
from yaptide.services.clusters import Cluster
from yaptide.services.credentials import current_credentials
from yaptide.services.tasks import REQUEUED, Claim
from yaptide.simulators import get_simulator
from yaptide.simulators.base import OUTPUT_LOG, logs_of_task

log = logging.getLogger(__name__)

#: Seconds for which a task that SLURM says has ended, and of which nothing was heard, is given time.
GRACE = 30.0
_QUIET = 5.0
_LOG_TAIL = 256 * 1024
_PASSING = (ClusterUnavailable, Unavailable)
_BUSY = 75
#: Submits, unless that is being done already; one that was begun so many minutes ago has ended, one way or the other.
_ONCE = """\
lock=$1; shift
find "$lock" -maxdepth 0 -mmin +2 -exec rmdir {} ';' 2>/dev/null
mkdir -- "$lock" 2>/dev/null || exit 75
"$@"; code=$?
[ $code = 0 ] || rmdir -- "$lock"
exit $code
"""
#: Folders of jobs that were sent from here, a month ago or more: younger ones may be in another database.
_OURS = 'cd -- "$1" && find . -mindepth 2 -maxdepth 2 -name place -mtime +30 -exec grep -lFx -- "$2" {} +; true'
_SCRIPTS = (("array.sh", packing.RUN), ("collect.sh", packing.COLLECT))


#: What SLURM says, by numbers of the job and of the task.
_AllSeen = Mapping[tuple[int, int | None], Seen]


@dataclass(frozen=True, slots=True)
class _Place:
    """The cluster, and the way there."""

    cluster: Cluster
    remote: SshSession


@dataclass(slots=True)
class _Memory:
    """What would be found out again.

    What has ended for good, since when tasks are overdue, public names of simulations that were deleted and have left
    their folders, and whether those of former processes were looked for.
    """

    settled: set[int] = field(default_factory=set)
    overdue: dict[tuple[int, int], float] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    swept: bool = False


class ClusterSession:
    """The jobs of one user on one cluster. `visit` is called by one thread at a time."""

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
        self._backend = backend
        self._connections = connections
        self._stop = stop
        self._user_id = user_id
        self._cluster_name = cluster_name
        self._url = url
        self._quiet = timedelta(seconds=max(_QUIET, 3 * interval))
        self._memory = _Memory()

    @property
    def has_left(self) -> bool:
        """Whether there is something on the cluster of simulations that were deleted."""
        return bool(self._memory.orphans)

    def forget(self, gone: Iterable[Job]) -> None:
        """These are not in the list of jobs any more: what was deleted has left its folder on the cluster."""
        for job in gone:
            if not batch.is_known(self._backend, job.job_id):
                self._memory.orphans.add(job.job_id)
            self._memory.settled.discard(job.id)

    def visit(self, jobs: list[Job]) -> bool:
        """Do what there is to do; False if something went wrong that may not next time."""
        if not self._memory.orphans and not any(map(self._needs_a_visit, jobs)):
            return True
        try:
            place = self._place()
            place.remote.run("true")
        except YaptideError as error:
            self._explain(jobs, error)
            return False
        fine = True
        for job in jobs:
            if not job.has_ended and job.array_id is None and not self._stop.is_set():
                fine &= self._safely(job, self._submit, place, job)
        numbers = {job.id for job in jobs}
        watched = [job for job in batch.list_unfinished(self._backend) if job.id in numbers and self._is_watched(job)]
        try:
            asked = utc_now()
            seen = {(one.job, one.index): one for one in slurm.query_queue(place.remote)}
        except YaptideError as error:
            self._explain(watched, error)
            return False
        for job in watched:
            if not self._stop.is_set():
                fine &= self._safely(job, self._watch, place, job, seen, asked)
        return self._sweep(place) and fine

    def _place(self) -> _Place:
        cluster = clusters.find_cluster(self._backend.database, self._cluster_name)
        if not cluster.host or not cluster.host_key:
            raise InvalidInput(f"The cluster {self._cluster_name} has no host or host key any more")
        found = current_credentials(self._backend, self._user_id)
        login = Login(found.username, found.private_key_text, found.certificate_text)
        server = Server(cluster.host, cluster.port, cluster.host_key)
        return _Place(cluster, self._connections.to(server, login))

    def _explain(self, jobs: list[Job], error: YaptideError) -> None:
        """Tell the jobs why nothing is done: those not submitted yet fail, if waiting would not help."""
        if self._stop.is_set():  # we have ended the connection ourselves
            return
        log.warning("%s: %s", self._cluster_name, error)
        for job in jobs:
            if job.has_ended:
                continue
            if job.array_id is None and not isinstance(error, _PASSING):
                batch.refuse_submission(self._backend, job, f"it could not be submitted: {error}")
            elif not isinstance(error, Unavailable):
                batch.add_note(self._backend, job, f"the cluster cannot be asked, it is tried again: {error}")

    def _safely(self, job: Job, step: Callable[..., None], *arguments: object) -> bool:
        try:
            step(*arguments)
        except YaptideError as error:
            self._explain([job], error)
            return False
        except Exception:  # what comes of one job is nothing to the others
            log.exception("an unexpected error with %s; going on", job.job_id)
            if job.array_id is None and not job.has_ended:
                batch.refuse_submission(self._backend, job, "an internal error, see the server's log")
            return False
        return True

    def _needs_a_visit(self, job: Job) -> bool:
        return self._is_watched(job) or not job.has_ended

    def _is_watched(self, job: Job) -> bool:
        if not job.has_ended:
            return job.array_id is not None
        return job.id not in self._memory.settled or self._is_due(job)

    # Submitting.

    def _submit(self, place: _Place, job: Job) -> None:
        folder = f"{place.cluster.scratch_of(place.remote.login.account)}/{job.job_id}"
        key = batch.claim_submission(self._backend, job, folder)
        if key is None:
            return
        options = json.loads(job.options)
        array, collect = _numbers(slurm.find_jobs(place.remote, job.job_id))
        files, shares = batch.input_of(self._backend, job)
        if array is None:
            self._send(place, job, folder, key, files, shares)
            at_once = place.cluster.max_running
            asked = slurm.Job(job.job_id, folder, {**place.cluster.sbatch_options, **options["array"]})
            command = slurm.array_command(asked, f"{folder}/array.sh", len(shares), at_once)
            array = submit_once(place.remote, f"{folder}/array.lock", command)
        if collect is None:
            asked = slurm.Job(job.job_id, folder, {**place.cluster.sbatch_options, **options["collect"]})
            command = slurm.collect_command(asked, f"{folder}/collect.sh", array)
            collect = submit_once(place.remote, f"{folder}/collect.lock", command)
        batch.note_job(
            self._backend, job, array_id=array, collect_id=collect
        )  # until then, both are found by their name

    def _send(
        self,
        place: _Place,
        job: Job,
        folder: str,
        key: str,
        files: Mapping[str, str],
        shares: list[tuple[int, int, int]],
    ) -> None:
        remote, cluster = place.remote, place.cluster
        program = _program(remote, cluster, job.sim_type)
        parcel = packing.Parcel(get_simulator(job.sim_type), program, files, shares)
        remote.make_folder(folder, 0o700)
        remote.write(f"{folder}/key", key.encode())
        remote.write(f"{folder}/place", self._backend.spool.place.encode())
        remote.write(
            f"{folder}/recipe.json", packing.bundle_manifest(parcel, job.id, reachable_url(self._url, cluster))
        )
        remote.write(f"{folder}/agent.py", packing.AGENT.read_bytes())
        for name, command in _SCRIPTS:
            script = slurm.job_script(slurm.Job(job.job_id, folder, {}), command, cluster.prologue)
            remote.write(f"{folder}/{name}", script.encode(), 0o700)
        with tempfile.TemporaryDirectory(dir=self._backend.data_dir) as aside:
            inputs = Path(aside) / "inputs.zip"
            packing.pack_inputs(parcel, inputs)
            remote.put(inputs, f"{folder}/inputs.zip")

    # Following.

    def _watch(self, place: _Place, job: Job, seen: _AllSeen, asked: datetime) -> None:
        if job.has_ended:
            self._finish(place, job, seen)
            return
        left = batch.open_tasks(self._backend, job)
        mine = self._seen_of(place, job, left, seen)
        self._note_queue(job, [one for one in mine.values() if _waits(one)])
        self._requeue(job, left, mine, asked)
        unheard = [task for task in left if self._is_unheard(task, mine.get(task.task_id), asked)]
        if not unheard:
            return
        reports = read_reports(place.remote, job.job_dir or "", [task.task_id for task in unheard])
        for task in unheard:
            report = reports.get(task.task_id)
            if report is None or not self._take_in(place, job, report):
                self._judge(place, job, task, mine.get(task.task_id))

    def _seen_of(self, place: _Place, job: Job, left: list[Open], seen: _AllSeen) -> dict[int, Seen]:
        """What SLURM says of the tasks that are left; its accounting is asked about those that it has forgotten."""
        array = job.array_id or 0
        mine = {task.task_id: one for task in left if (one := seen.get((array, task.task_id)))}
        if len(mine) < len(left):
            for one in slurm.query_accounting(place.remote, [array]) or []:
                if one.index is not None:
                    mine.setdefault(one.index, one)
        return mine

    def _note_queue(self, job: Job, waiting: Collection[Seen]) -> None:
        """Keep what SLURM says of the tasks that wait: why, and when the first of them is expected to begin."""
        first = min(waiting, key=lambda one: one.start.timestamp() if one.start else float("inf"), default=None)
        said = None
        if first is not None:
            expected = f"expected to begin at {first.start:%Y-%m-%d %H:%M} UTC" if first.start else ""
            said = "; ".join(filter(None, (first.reason, expected))) or None
        if said != job.queue_note:
            batch.note_job(self._backend, job, queue_note=said)

    def _requeue(self, job: Job, left: list[Open], mine: Mapping[int, Seen], asked: datetime) -> None:
        for task in left:
            one = mine.get(task.task_id)
            if one is None or not _waits(one) or task.task_state is not EntityState.RUNNING:
                continue
            if task.heartbeat_time is None or task.heartbeat_time < asked - self._quiet:
                batch.end_task(self._backend, job, task, EntityState.PENDING, REQUEUED)

    def _is_unheard(self, task: Open, one: Seen | None, asked: datetime) -> bool:
        """Whether the task runs or has ended, as far as SLURM knows, and has not told us."""
        if one is not None and _waits(one):
            return False
        if one is not None and one.state not in FINAL_STATES:
            return task.heartbeat_time is None or task.heartbeat_time < asked - self._quiet
        return True

    def _take_in(self, place: _Place, job: Job, report: Report) -> bool:
        """Believe a report that could not be sent; whether the task has ended by it, or goes on."""
        if report.state not in ("running", "ended", "failed"):
            return False
        claim = batch.claim_task(self._backend, job, report.task, report.worker, report.version, report.digest)
        if claim is None:
            return False
        if report.state == "running":
            tasks.report_progress(self._backend, claim, report.simulated, report.left)
            return False
        if report.state == "failed":
            tasks.fail_task(self._backend, claim, report.reason, self._logs(place, job, report.task))
        else:
            self._fetch(place, job, claim, report)
        return True

    def _fetch(self, place: _Place, job: Job, claim: Claim, report: Report) -> None:
        path = f"{job.job_dir}/task-{report.task}/result.zip"
        most = self._backend.limits.output
        with tempfile.TemporaryDirectory(dir=self._backend.data_dir) as aside:
            archive = Path(aside) / "result.zip"
            try:
                _check_size(place.remote, path, most)
                place.remote.get(path, archive)
                uploads.hand_in(self._backend, claim, report.exit_code, archive)
            except (InvalidInput, NotFound) as error:
                tasks.fail_task(self._backend, claim, f"what it has left cannot be used: {error}", {})

    def _judge(self, place: _Place, job: Job, task: Open, one: Seen | None) -> None:
        """End a task that says nothing, as SLURM says it has ended."""
        if one is not None and one.state not in FINAL_STATES:
            self._memory.overdue.pop((job.id, task.task_id), None)
            return
        to, reason = EntityState.FAILED, FORGOTTEN
        if one is not None and one.state is not EntityState.COMPLETED:
            to, reason = one.state, one.reason or "it ended on the cluster"
        elif not self._is_overdue(job, task):
            return
        elif one is not None:
            reason = "the cluster says that it completed, but it has left no results"
        logs = self._logs(place, job, task.task_id) if to is EntityState.FAILED else {}
        batch.end_task(self._backend, job, task, to, reason, logs)
        self._memory.overdue.pop((job.id, task.task_id), None)

    def _is_overdue(self, job: Job, task: Open) -> bool:
        since = self._memory.overdue.setdefault((job.id, task.task_id), time.monotonic())
        return time.monotonic() - since > GRACE

    def _logs(self, place: _Place, job: Job, number: int) -> dict[str, str]:
        """The end of what the simulator, and the job itself, have printed."""
        names = {OUTPUT_LOG: f"task-{number}/run/{OUTPUT_LOG}", "job.log": f"task-{number}.log"}
        found = {}
        for name, path in names.items():
            answer = place.remote.run("tail", "-c", str(_LOG_TAIL), "--", f"{job.job_dir}/{path}")
            if answer.exit_code == 0 and answer.text:
                found[name] = answer.text.replace("\0", "")
        return logs_of_task(number, found)

    # Clearing up.

    def _is_due(self, job: Job) -> bool:
        """Whether the folder of a simulation that has ended is to be removed."""
        if job.job_state is EntityState.COMPLETED or job.end_time is None:
            return True
        days = clusters.find_cluster(self._backend.database, self._cluster_name).keep_failed_days
        return job.end_time + timedelta(days=days) < utc_now()

    def _finish(self, place: _Place, job: Job, seen: _AllSeen) -> None:
        """Cancel what is left of a simulation that has ended; once nothing is, its folder may go."""
        known, numbers = list(seen.values()), {job.array_id, job.collect_id}
        if None in numbers:  # it ended while it was being submitted
            known = slurm.find_jobs(place.remote, job.job_id)
            numbers = {one.job for one in known}
        alive = {one.job for one in known if one.job in numbers and one.state not in FINAL_STATES}
        for number in sorted(alive):
            slurm.cancel_job(place.remote, number)
        if alive:
            return  # and look again whether it has helped
        self._memory.settled.add(job.id)
        if self._is_due(job):
            self._remove(place, job.job_id, job.job_dir or "")
            batch.note_job(self._backend, job, job_dir=None)

    def _remove(self, place: _Place, job_id: str, folder: str) -> None:
        """Remove the folder of a job, and nothing else."""
        if folder.endswith(f"/{job_id}"):
            answer = place.remote.run("rm", "-rf", "--", folder)
            if answer.exit_code:
                raise ClusterUnavailable(f"{folder} cannot be removed: {answer.complaint}")

    def _sweep(self, place: _Place) -> bool:
        """Clear up after simulations that were deleted, also while nobody looked; False if it has to be tried again."""
        scratch = place.cluster.scratch_of(place.remote.login.account)
        try:
            if not self._memory.swept:
                answer = place.remote.run("sh", "-c", _OURS, "sh", scratch, self._backend.spool.place)
                left = [path.split("/")[1] for path in answer.text.splitlines()]
                self._memory.orphans |= {name for name in left if not batch.is_known(self._backend, name)}
                self._memory.swept = True
            for job_id in sorted(self._memory.orphans):
                for number in {one.job for one in slurm.find_jobs(place.remote, job_id)}:
                    slurm.cancel_job(place.remote, number)
                self._remove(place, job_id, f"{scratch}/{job_id}")
                self._memory.orphans.discard(job_id)
        except YaptideError as error:
            log.warning("%s: %s", self._cluster_name, error)
            return False
        return True


def reachable_url(url: str, cluster: Cluster) -> str | None:
    """The URL that nodes may send the update key to, None if there is none: not in the clear, not to themselves."""
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or ""):
        return url if _is_loopback(cluster.host or "") else None
    return url if parts.scheme == "https" else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def submit_once(remote: SshSession, lock: str, command: list[str]) -> int:
    """Submit a job that is not there yet; raises what `slurm.submit_job` does."""
    answer = remote.run("sh", "-c", _ONCE, "sh", lock, *command)
    if answer.exit_code == _BUSY:
        raise ClusterUnavailable("The job is being submitted already; whether it was is looked at soon")
    return slurm.parse_job_number(answer)


def _numbers(found: Iterable[Seen]) -> tuple[int | None, int | None]:
    """Numbers of the array and of the job that follows it, among jobs of one name."""
    array = [seen.job for seen in found if seen.index is not None]
    collect = [seen.job for seen in found if seen.index is None]
    return (array[0] if array else None), (collect[0] if collect else None)


def _waits(seen: Seen) -> bool:
    return seen.state is EntityState.PENDING


def _program(remote: SshSession, cluster: Cluster, sim_type: str) -> str:
    """The whole path of a simulator's program on the cluster; raises InvalidInput if there is none."""
    path = cluster.simulators.get(sim_type, "")
    if path.startswith("/"):
        return path
    answer = remote.run("bash", "-lc", f"{cluster.prologue or ''}\ncommand -v -- {shlex.quote(path)}")
    found = (answer.text.strip().splitlines() or [""])[-1]
    if answer.exit_code or not found.startswith("/"):
        raise InvalidInput(f"There is no program {path} on the cluster {cluster.cluster_name}; tell its administrator")
    return found


def _check_size(remote: SshSession, path: str, most: int) -> None:
    """Raise InvalidInput for a file of more than `most` bytes, NotFound for one that is not there."""
    answer = remote.run("stat", "-c", "%s", "--", path)
    if answer.exit_code or not answer.text.strip().isdigit():
        raise NotFound(f"There is no {path} on the cluster")
    if int(answer.text) > most:
        raise InvalidInput(f"{path} has more than {most} bytes")
