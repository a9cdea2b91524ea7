"""The jobs of a user on a cluster: the store is real, and a stand-in for the cluster keeps SLURM's promises."""

import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from tests.support.api import of_keycloak
from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, TooLarge, YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.queries import batch as queries
from yaptide.platforms.batch import session as sessions
from yaptide.platforms.batch.schedulers.base import JobInfo
from yaptide.platforms.batch.schedulers.slurm import Slurm
from yaptide.platforms.batch.session import ClusterSession
from yaptide.platforms.batch.ssh import Finished
from yaptide.services import batch, clusters, simulations
from yaptide.services.batch import Array
from yaptide.services.clusters import Cluster
from yaptide.services.simulations import Submission
from yaptide.simulators.mcsquare.sample import water_sample

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPS7Ng9ygUjuzx2HfXtGPN4kBuoq1ArzE5g3X8ZHnQs7"
FULL = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates policy"
LOST = ClusterUnavailable("The connection to login.example.org port 22 was lost")


@dataclass
class Submitted:
    """An array job, as the cluster has it."""

    number: int
    name: str
    size: int
    limit: int | None
    is_listed: bool = True


@dataclass
class Site(Slurm):
    """A cluster, its SSH session, and its queue, all of whose jobs wait until they are ended."""

    arrays: list[Submitted] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    room: int = 10**6
    is_answer_lost: bool = False
    refusal: str = ""
    failures: dict[str, YaptideError] = field(default_factory=dict)
    login: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(account="kim"))

    # As an SSH session.

    def run_command(self, *words, data=b""):
        self.fail("run")
        if words[2:3] == (sessions._SUBMIT_ONCE,):
            return self.submit_once(words[4].rpartition("/")[2], words[5:])
        if words[2:3] == (sessions._LIST_ANSWERS,):
            return Finished(0, "".join(f"{lock}/answer:{text}\n" for lock, text in self.answers.items()).encode(), b"")
        return Finished(0, b"", b"")

    def make_folder(self, *_):
        pass

    write_file = upload_file = make_folder

    def submit_once(self, lock, command):
        if "collect" in lock:
            return Finished(1, b"", FULL.encode())
        if lock not in self.answers:
            size, limit = re.search(r"--array=1-([0-9]+)(?:%([0-9]+))?(?: |$)", " ".join(command)).groups()
            self.sizes.append(int(size))
            if self.refusal or sum(array.size for array in self.arrays if array.is_listed) + int(size) > self.room:
                return Finished(1, b"", (self.refusal or FULL).encode())
            name = re.search(r"--job-name=(\S+)", " ".join(command))[1]
            self.arrays.append(Submitted(len(self.arrays) + 11, name, int(size), int(limit) if limit else None))
            self.answers[lock] = str(self.arrays[-1].number)
        if self.is_answer_lost:
            raise LOST
        return Finished(0, self.answers[lock].encode(), b"")

    # As a scheduler.

    def query_queue(self, shell):
        self.fail("queue")
        infos = []
        for array in self.arrays:
            first = int(array.name.partition(".")[2] or 1)
            indices = range(first, first + array.size) if array.is_listed else ()
            infos += [JobInfo(array.number, index, EntityState.PENDING, "busy", None, array.name) for index in indices]
        return infos

    def query_positions(self, shell):
        self.fail("positions")
        return {array.number: (3, 7) for array in self.arrays}

    def query_accounting(self, shell, jobs):
        return []

    def fail(self, step):
        if step in self.failures:
            raise self.failures[step]


@dataclass
class Here:
    """The server's part: its store, and the session under test."""

    backend: object
    user: object
    site: Site
    make_session: Callable[[], ClusterSession]
    session: ClusterSession

    def submit(self, ntasks):
        submission = Submission("mcsquare", ntasks, "t", input_files=water_sample(1000 * ntasks), batch={})
        simulations.submit_simulation(self.backend, self.user, submission)
        return self.job

    @property
    def job(self):
        return batch.list_unfinished(self.backend)[-1]

    def process(self):
        return self.session.process_jobs(batch.list_unfinished(self.backend))

    def restart(self):
        self.session = self.make_session()

    def stored(self):
        return [(array.first, array.size, array.number) for array in batch.list_arrays(self.backend, self.job)]

    def forget(self):
        """Forget the arrays, as an older backup."""
        job = self.job
        with self.backend.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM BatchArray")
            queries.set_values(connection, job.id, {"array_id": None, "collect_id": None})
        self.restart()

    def reasons(self):
        with self.backend.database.reading() as connection:
            rows = connection.exec_driver_sql("SELECT reason FROM StateHistory WHERE reason IS NOT NULL ORDER BY id")
            return [reason for (reason,) in rows]


@pytest.fixture
def here(backend, monkeypatch):
    site = Site()
    values = {"host": "login.example.org", "host_key": KEY, "scratch_folder": "/scratch/{user}"}
    clusters.add_cluster(backend.database, Cluster("ares", **values, simulators={"mcsquare": "/opt/mcsquare"}))
    account = SimpleNamespace(username="kim", private_key_text="", certificate_text="")
    monkeypatch.setattr(sessions, "current_credentials", lambda *_: account)
    monkeypatch.setattr(sessions, "get_scheduler", lambda: site)
    connections = SimpleNamespace(open_session=lambda *_: site)
    user = of_keycloak(backend, "kim")

    def make_session():
        return ClusterSession(backend, connections, threading.Event(), user.id, "ares", "https://y.example.org", 5.0)

    return Here(backend, user, site, make_session, make_session())


def limit_running(here, most):
    with here.backend.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE Cluster SET max_running = {most}")


def test_an_array_of_an_earlier_version_is_found_by_its_name(here):
    """It stored the number only after its second job."""
    job = here.submit(4)
    here.site.arrays = [Submitted(7, job.job_id, 4, None)]
    here.process()
    assert (here.stored(), here.site.sizes) == ([(1, 4, 7)], [])


def test_arrays_that_a_restored_backup_does_not_have_are_found(here):
    here.site.room = 5
    here.submit(8)
    here.process()
    assert here.stored() == [(1, 4, 11), (5, 1, 12)]
    here.forget()
    here.site.room, here.site.sizes = 10**6, []
    here.process()
    assert here.stored() == [(1, 4, 11), (5, 1, 12), (6, 3, 13)]
    assert here.site.sizes == [3]


@pytest.mark.parametrize("is_listed", [True, False])
def test_an_array_whose_number_was_lost_is_not_submitted_at_another_size(here, is_listed):
    here.site.room = 4
    here.submit(8)
    here.site.is_answer_lost = True
    here.process()
    while not here.site.arrays:  # halves of what was refused
        here.process()
    assert here.stored() == [(1, 4, None)]
    here.site.arrays[0].is_listed = is_listed
    here.site.is_answer_lost, here.site.room, here.site.sizes = False, 10**6, []
    here.restart()
    here.process()
    assert (here.stored(), here.site.sizes) == ([(1, 4, 11), (5, 4, 12)], [4])


def test_an_array_that_may_still_be_submitted_is_tried_at_its_own_size(here):
    """Its lock has no answer yet, and only that lock prevents a second submission."""
    job = here.submit(8)
    batch.claim_submission(here.backend, job, f"/scratch/kim/{job.job_id}")
    batch.store_array(here.backend, job, Array(1, 2, None))
    here.process()
    assert here.site.sizes == [2, 6]


def test_a_passing_refusal_does_not_end_what_is_partly_submitted(here):
    """The certificate expires between two arrays; what was known of the job is older than the first of them."""
    here.site.room = 5
    job = here.submit(8)
    expired = ClusterRefused("The SSH certificate expired at 12:00")
    answer = here.site.submit_once

    def expire(lock, command):
        if here.site.arrays:
            raise expired
        return answer(lock, command)

    here.site.submit_once = expire
    assert not here.process()
    assert (here.job.job_state, here.stored()) == (EntityState.PENDING, [(1, 4, 11), (5, 4, None)])
    assert f"the cluster cannot be used; retrying: {expired}" in here.reasons()
    del here.site.submit_once
    here.process()
    assert here.stored() == [(1, 4, 11), (5, 1, 12)]
    assert batch.list_unfinished(here.backend)[0].id == job.id


def test_what_the_cluster_refuses_at_once_fails(here):
    here.submit(4)
    here.site.refusal = "sbatch: error: Batch job submission failed: Invalid account"
    assert not here.process()
    assert here.job.job_state is EntityState.FAILED
    assert "it could not be submitted: The cluster did not accept the job: sbatch" in here.reasons()[-1]


@pytest.mark.parametrize(("most", "room", "limits"), [(3, 10**6, [3]), (3, 10, [3]), (10, 2, [2]), (10, 12, [10])])
def test_no_more_tasks_run_than_the_cluster_allows(here, most, room, limits):
    limit_running(here, most)
    here.site.room = room
    here.submit(20)
    here.process()
    assert [array.limit for array in here.site.arrays] == limits


def test_running_tasks_are_divided_among_arrays(here):
    limit_running(here, 6)
    here.site.room = 4
    here.submit(16)
    here.process()
    assert [(array.size, array.limit) for array in here.site.arrays] == [(4, 4)]
    here.site.room = 10**6
    here.restart()
    here.process()
    assert [(array.size, array.limit) for array in here.site.arrays] == [(4, 4), (12, 2)]


def test_the_next_array_waits_until_tasks_may_run(here):
    limit_running(here, 3)
    here.session._memory.array_limit = 4
    here.submit(8)
    here.process()
    note = "4 of 8 tasks are submitted; The cluster ares runs at most 3 tasks of a simulation at once"
    assert here.job.queue_note == f"{note}; busy; position 3 of 7 in the queue"
    here.process()
    assert len(here.site.arrays) == 1
    here.site.arrays[0].is_listed = False
    here.process()
    assert [(array.size, array.limit) for array in here.site.arrays] == [(4, 3), (4, 3)]


@pytest.mark.parametrize(
    "error", [TooLarge("A command on the cluster printed more than 9 bytes"), ClusterRefused("The key is wrong")]
)
def test_a_queue_that_cannot_be_read_is_told_to_users(here, error):
    here.submit(2)
    here.process()
    here.site.failures["queue"] = error
    assert here.process() is False
    assert here.job.queue_note == f"the cluster cannot be used; retrying: {error}"
    assert f"the cluster cannot be used; retrying: {error}" in here.reasons()


def test_a_queue_that_is_too_long_is_waited_for(here):
    here.submit(2)
    here.site.failures["queue"] = TooLarge("A command on the cluster printed more than 9 bytes")
    here.process()
    assert here.job.job_state is EntityState.PENDING


@pytest.mark.parametrize("error", [TooLarge("too much"), LOST])
def test_positions_in_the_queue_are_not_needed(here, error):
    here.submit(2)
    here.site.failures["positions"] = error
    assert here.process()
    assert here.job.queue_note == "busy"


def test_a_full_queue_is_not_tried_at_all_sizes_again(here):
    here.site.room = 5
    here.submit(100)
    here.process()
    assert sum(array.size for array in here.site.arrays) == 5
    here.site.arrays[0].is_listed = False  # 3 tasks have ended
    here.site.sizes = []
    here.process()
    assert here.site.sizes == [1, 2, 4, 2, 1]
    here.site.arrays[1].is_listed = False
    here.site.room, here.site.sizes = 10**6, []
    here.process()
    assert here.site.sizes == [1, 2, 4, 8, 16, 32, 29]


def test_words_of_the_cluster_do_not_fill_the_history(here):
    here.submit(2)
    for load in range(3):
        here.site.failures["queue"] = ClusterUnavailable(f"The cluster did not list its jobs: load {load}")
        here.process()
        assert here.job.queue_note.endswith(f"The cluster did not list its jobs: load {load}")
    assert here.reasons() == ["the cluster cannot be used; retrying: The cluster did not list its jobs"]


def test_the_list_of_unfinished_simulations_counts_no_tasks(here):
    """It is read twice a second, and simulations whose folder is kept are in it."""
    here.submit(2)
    statements = []
    with here.backend.database.reading() as connection:
        execute = connection.execute
        connection.execute = lambda query, *more: statements.append(str(query)) or execute(query, *more)
        queries.list_unfinished(connection, here.backend.spool.place)
    assert len(statements) == 1
    assert "count(" not in statements[0]


def test_answers_of_submissions_are_listed_by_a_shell(here, tmp_path):
    """Also answers with text around them; locks without an answer and other jobs are left out."""
    answers = {"array-1-4": "Welcome\n11\n", "array-5-2": "12;ares\n", "array-7-1": "", "collect": "13\n"}
    for name, text in answers.items():
        lock = tmp_path / f"{name}.lock"
        lock.mkdir()
        (lock / ("answer" if text else "part")).write_text(text)

    def run(*words):
        done = subprocess.run(words, capture_output=True, check=False)
        return Finished(done.returncode, done.stdout, done.stderr)

    access = SimpleNamespace(ssh=SimpleNamespace(run_command=run))
    assert here.session._list_accepted(access, str(tmp_path)) == [Array(1, 4, 11), Array(5, 2, 12)]
    assert here.session._list_accepted(access, str(tmp_path / "gone")) == []
