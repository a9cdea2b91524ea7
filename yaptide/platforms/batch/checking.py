"""Checks whether a cluster can run simulations: tries everything that they need, finally with a real job."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from yaptide.domain.errors import ClusterUnavailable, YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch.schedulers import get_scheduler
from yaptide.platforms.batch.schedulers.base import JobInfo, JobRequest, NoAccounts, Scheduler
from yaptide.platforms.batch.session import find_program
from yaptide.platforms.batch.ssh import SshSession
from yaptide.services.clusters import Cluster
from yaptide.simulators import list_names

_ROOM = 2**30
_OLDEST_PYTHON = (3, 6)
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")
_POLL = 1.0
_MOST_NOTE = 64 * 1024
_MOST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one check: whether it passed, what it found, and what to do if it failed."""

    name: str
    passed: bool
    found: str
    advice: str = ""


def run_checks(session: SshSession, cluster: Cluster, wait: float) -> Iterator[Step]:
    """Run all checks in order; the job may take `wait` seconds to end.

    Stops after a failure that makes the other checks impossible. Leaves no files on the cluster.
    """
    account, scheduler = session.login.account, get_scheduler()
    try:
        yield _check_connection(session)
        yield _check_shell(session)
        yield from _check_programs(session, scheduler)
        yield _check_accounts(session, scheduler)
        name = f"yaptide-test-{secrets.token_hex(4)}"
        folder = f"{cluster.scratch_of(account)}/{name}"
        scratch = _check_scratch(session, cluster, folder)
        yield scratch
        yield from _check_simulators(session, cluster)
        if scratch.passed:
            request = JobRequest(name, folder, cluster.sbatch_options)
            yield _check_job(session, scheduler, request, cluster.prologue, wait)
        if cluster.scratch_folder:
            session.run_command("rm", "-rf", "--", folder)
    except YaptideError as error:
        yield Step("connection", False, str(error), "fix this, then test again")


def _check_connection(session: SshSession) -> Step:
    begun = time.monotonic()
    account = _run_checked(session, "id", "-un")
    return Step("connection", True, f"{session.server} as {account}, {(time.monotonic() - begun) * 1000:.0f} ms")


def _check_shell(session: SshSession) -> Step:
    """What the login shell prints before commands is skipped, but SFTP of many sites stops working by it."""
    answer = session.run_command("sh", "-c", "echo $SHELL")
    printed = " ".join(answer.around.split())[:_MOST_SHOWN]
    found = answer.text.strip() + (f"; text that it prints before commands is skipped: {printed}" if printed else "")
    return Step("login shell", True, found)


def _check_accounts(session: SshSession, scheduler: Scheduler) -> Step:
    """Accounting is not needed."""
    try:
        scheduler.query_accounting(session, [1])
    except NoAccounts as error:
        return Step("accounting", True, f"not used: {error}")
    return Step("accounting", True, "records can be read")


def _check_programs(session: SshSession, scheduler: Scheduler) -> Iterator[Step]:
    advice = "set PATH also for commands over SSH, for example in ~/.bashrc"
    yield _check_version(session, scheduler.version_command, scheduler.title, scheduler.oldest_version, advice)
    advice = "install it: jobs are started with it"
    yield _check_version(session, ("python3", "--version"), "python3", _OLDEST_PYTHON, advice)


def _check_version(
    session: SshSession, words: tuple[str, ...], name: str, oldest: tuple[int, int], advice: str
) -> Step:
    answer = session.run_command(*words)
    version = _VERSION.search(answer.text) if answer.exit_code == 0 else None
    if version is None:
        return Step(name, False, answer.complaint, advice)
    if (int(version[1]), int(version[2])) < oldest:
        return Step(name, False, answer.text.strip(), f"install {oldest[0]}.{oldest[1]} or newer")
    return Step(name, True, answer.text.strip())


def _check_scratch(session: SshSession, cluster: Cluster, folder: str) -> Step:
    if not cluster.scratch_folder:
        return Step("scratch folder", False, "none is set", "yaptide clusters update NAME --scratch-folder FOLDER")
    try:
        session.make_folder(folder)
        session.write_file(f"{folder}/written", b"x")
        free = int(_run_checked(session, "df", "-Pk", "--", folder).splitlines()[-1].split()[3]) * 1024
    except (YaptideError, IndexError, ValueError) as error:
        return Step("scratch folder", False, str(error), "choose a folder in which the account can create folders")
    room = f"{folder.rpartition('/')[0]}: {free / 1e9:.1f} GB free"
    if free < _ROOM:
        return Step("scratch folder", False, room, "free some space, or choose another with --scratch-folder")
    return Step("scratch folder", True, room)


def _check_simulators(session: SshSession, cluster: Cluster) -> Iterator[Step]:
    if not cluster.simulators:
        yield Step("simulators", False, "none is set", "yaptide clusters update NAME --simulator NAME=/path/to/it")
    for name, path in sorted(cluster.simulators.items()):
        if name not in list_names():
            yield Step(name, False, "no such simulator", f"there are {', '.join(list_names())}")
            continue
        program = find_program(session, cluster, path)
        if not program:
            yield Step(name, False, f"no program {path}", "correct its path, or load it in the prologue")
        else:
            yield Step(name, True, program)


def _check_job(
    session: SshSession, scheduler: Scheduler, request: JobRequest, prologue: str | None, wait: float
) -> Step:
    """Run a job of one second that writes a file, and read the file on the login node."""
    script = f"{request.folder}/job.sh"
    command = ("/bin/sh", "-c", "{ uname -n; python3 --version; } >note; sleep 1")
    number = None
    try:
        session.write_file(script, scheduler.job_script(request, command, prologue).encode())
        number = _submit(session, scheduler, request, script)
        info = _wait_for_job(session, scheduler, request.name, wait)
        return _check_result(session, request, info, wait)
    except YaptideError as error:
        return Step("job", False, str(error), "submit a job by hand; set options with --sbatch-option")
    finally:
        with suppress(YaptideError):
            if number is not None:
                scheduler.cancel_job(session, number)


def _submit(session: SshSession, scheduler: Scheduler, request: JobRequest, script: str) -> int:
    """Submit the job; it is searched for by its name if its number was not understood."""
    answer = session.run_command(*scheduler.single_command(request, script))
    try:
        return scheduler.parse_job_number(answer)
    except ClusterUnavailable:
        jobs = scheduler.find_jobs(session, request.name) if answer.exit_code == 0 else []
        if not jobs:
            raise
        return jobs[0].job


def _wait_for_job(session: SshSession, scheduler: Scheduler, name: str, wait: float) -> JobInfo | None:
    end = time.monotonic() + wait
    info = None
    while time.monotonic() < end:
        info = next(iter(scheduler.find_jobs(session, name)), info)
        if info is not None and info.state in FINAL_STATES:
            break
        time.sleep(_POLL)
    return info


def _check_result(session: SshSession, request: JobRequest, info: JobInfo | None, wait: float) -> Step:
    if info is None:
        return Step("job", False, "the cluster accepted the job, but does not list it", "list your jobs there by hand")
    if info.state not in FINAL_STATES:
        state = f"{info.state} after {wait:g} s" + (f": {info.reason}" if info.reason else "")
        return Step("job", False, state, "the queue may be long: test again with a longer --wait")
    if info.state is not EntityState.COMPLETED:
        return Step("job", False, f"{info.state}: {info.reason}", "check that jobs of this account can run at all")
    try:
        note = session.read_file(f"{request.folder}/note", _MOST_NOTE).decode("utf-8", "replace").split("\n")
    except YaptideError:
        return Step("job", False, "its file does not appear here", "nodes and login node must share the scratch folder")
    if not any(line.startswith("Python 3") for line in note):
        return Step("job", False, f"no python3 on the node {note[0]}", "install it there, or load it in the prologue")
    return Step("job", True, f"number {info.job}, on {note[0]} with {note[1]}")


def _run_checked(session: SshSession, *words: str) -> str:
    answer = session.run_command(*words)
    if answer.exit_code:
        raise ClusterUnavailable(f"{words[0]} on the cluster failed: {answer.complaint}")
    return answer.text.strip()
