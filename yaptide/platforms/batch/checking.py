"""Finding out whether a cluster can run simulations: each thing it needs is tried, the last one by a real job."""

import re
import secrets
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from yaptide.domain.errors import ClusterUnavailable, YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch.schedulers.slurm import scheduler as slurm
from yaptide.platforms.batch.schedulers.slurm.scheduler import Job, Seen
from yaptide.platforms.batch.ssh import Finished, SshSession
from yaptide.services.clusters import Cluster
from yaptide.simulators import list_names

_ROOM = 2**30
_OLDEST_SLURM = (20, 11)
_OLDEST_PYTHON = (3, 6)
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")
_POLL = 1.0
_NOTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried: whether it is as it should be, what was found, and what to do if not."""

    name: str
    passed: bool
    found: str
    advice: str = ""


def try_out(remote: SshSession, cluster: Cluster, wait: float) -> Iterator[Step]:
    """Try everything, in the order in which it is needed; the job may take `wait` seconds to end.

    Ends early after a step that everything else needs. Leaves nothing behind on the cluster.
    """
    account = remote.login.account
    try:
        connected = _connect(remote)
        yield connected
        yield from _programs(remote)
        name = f"yaptide-test-{secrets.token_hex(4)}"
        folder = f"{cluster.scratch_of(account)}/{name}"
        room = _scratch(remote, cluster, folder)
        yield room
        yield from _simulators(remote, cluster)
        if room.passed:
            yield _job(remote, Job(name, folder, cluster.sbatch_options), cluster.prologue, wait)
        if cluster.scratch_folder:
            remote.run("rm", "-rf", "--", folder)
    except YaptideError as error:
        yield Step("connection", False, str(error), "mend this, then test again")


def _connect(remote: SshSession) -> Step:
    begun = time.monotonic()
    answer = _checked(remote, "id", "-un")
    return Step("connection", True, f"{remote.server} as {answer}, {(time.monotonic() - begun) * 1000:.0f} ms")


def _programs(remote: SshSession) -> Iterator[Step]:
    advice = "its path has to be set for commands over SSH too, as in ~/.bashrc"
    yield _version(remote, ("sbatch", "--version"), "SLURM", _OLDEST_SLURM, advice)
    yield _version(remote, ("python3", "--version"), "python3", _OLDEST_PYTHON, "jobs are started with it; install it")


def _version(remote: SshSession, words: tuple[str, ...], name: str, oldest: tuple[int, int], advice: str) -> Step:
    answer = remote.run(*words)
    found = _VERSION.search(answer.text) if answer.exit_code == 0 else None
    if found is None:
        return Step(name, False, answer.complaint, advice)
    if (int(found[1]), int(found[2])) < oldest:
        return Step(name, False, answer.text.strip(), f"{oldest[0]}.{oldest[1]} or newer is needed")
    return Step(name, True, answer.text.strip())


def _scratch(remote: SshSession, cluster: Cluster, folder: str) -> Step:
    if not cluster.scratch_folder:
        return Step("scratch folder", False, "none is set", "yaptide clusters update NAME --scratch-folder FOLDER")
    try:
        remote.make_folder(folder)
        remote.write(f"{folder}/written", b"x")
        free = int(_checked(remote, "df", "-Pk", "--", folder).splitlines()[-1].split()[3]) * 1024
    except (YaptideError, IndexError, ValueError) as error:
        return Step("scratch folder", False, str(error), "it has to be a folder where the account may make others")
    found = f"{folder.rpartition('/')[0]}: {free / 1e9:.1f} GB free"
    if free < _ROOM:
        return Step("scratch folder", False, found, "make room, or choose another with --scratch-folder")
    return Step("scratch folder", True, found)


def _simulators(remote: SshSession, cluster: Cluster) -> Iterator[Step]:
    if not cluster.simulators:
        yield Step("simulators", False, "none is set", "yaptide clusters update NAME --simulator NAME=/path/to/it")
    for name, path in sorted(cluster.simulators.items()):
        if name not in list_names():
            yield Step(name, False, "no such simulator", f"there are {', '.join(list_names())}")
            continue
        looked = f"{cluster.prologue or ''}\ncommand -v -- {shlex.quote(path)}"
        answer = remote.run("bash", "-lc", looked)
        said = (answer.text.strip().splitlines() or [""])[-1]
        if answer.exit_code:
            yield Step(name, False, f"no program {path}", "its path, or a prologue that brings it, has to be set")
        else:
            yield Step(name, True, said)


def _job(remote: SshSession, job: Job, prologue: str | None, wait: float) -> Step:
    """Run a job of a second that leaves a note where the login node finds it."""
    script = f"{job.folder}/job.sh"
    note = ("/bin/sh", "-c", "{ uname -n; python3 --version; } >note; sleep 1")
    number = None
    try:
        remote.write(script, slurm.job_script(job, note, prologue).encode())
        number = slurm.submit_job(remote, slurm.single_command(job, script))
        seen = _wait_for(remote, job.name, wait)
        return _judged(remote, job, seen, wait)
    except YaptideError as error:
        return Step("job", False, str(error), "try sbatch by hand; options are set with --sbatch-option")
    finally:
        with suppress(YaptideError):
            if number is not None:
                slurm.cancel_job(remote, number)


def _wait_for(remote: SshSession, name: str, wait: float) -> Seen | None:
    end = time.monotonic() + wait
    seen = None
    while time.monotonic() < end:
        seen = next(iter(slurm.find_jobs(remote, name)), seen)
        if seen is not None and seen.state in FINAL_STATES:
            break
        time.sleep(_POLL)
    return seen


def _judged(remote: SshSession, job: Job, seen: Seen | None, wait: float) -> Step:
    if seen is None:
        return Step("job", False, "SLURM took it, but does not list it", "try squeue by hand")
    if seen.state not in FINAL_STATES:
        found = f"{seen.state} after {wait:g} s" + (f": {seen.reason}" if seen.reason else "")
        return Step("job", False, found, "the queue may be long: test again with a longer --wait")
    if seen.state is not EntityState.COMPLETED:
        return Step("job", False, f"{seen.state}: {seen.reason}", "see whether jobs of this account run at all")
    try:
        note = remote.read(f"{job.folder}/note", _NOTES).decode("utf-8", "replace").split("\n")
    except YaptideError:
        return Step(
            "job", False, "what it wrote is not seen here", "nodes and login node have to share the scratch folder"
        )
    if not any(line.startswith("Python 3") for line in note):
        return Step("job", False, f"no python3 on the node {note[0]}", "install it there, or load it in the prologue")
    return Step("job", True, f"number {seen.job}, on {note[0]} with {note[1]}")


def _checked(remote: SshSession, *words: str) -> str:
    answer: Finished = remote.run(*words)
    if answer.exit_code:
        raise ClusterUnavailable(f"{words[0]} on the cluster failed: {answer.complaint}")
    return answer.text.strip()
