"""Whatever is killed, and whenever: nothing accepted is lost, nothing is counted twice, and nothing runs on."""

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.processes import DEADLINE, Place, Server, alive, beam, descendants, fake, place, until
from yaptide.client import Client, Job
from yaptide.domain.errors import StorageFull
from yaptide.domain.states import EntityState
from yaptide.simulators.mcsquare import MCsquare

TASKS = 4
#: How often an executor is killed on each database, and for how long (s) processes are stopped: more in `make stress`.
KILLS = int(os.environ.get("KILLS", "1"))
STOPPED = float(os.environ.get("STOPPED", "4"))
WHO = ("everything",) if STOPPED < 10 else ("everything", "the executor", "simulators")
#: Each task takes a second.
PRIMARIES = 48_000

STATES = 'SELECT task_state FROM "Task"'
SIMULATION = 'SELECT job_state, owner FROM "Simulation"'
PAGES = 'SELECT count(*) FROM "Page"'


@dataclass(frozen=True)
class Undisturbed:
    """An input, and the JSON text of its results when nothing came in between."""

    folder: Path
    results: str


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    source = beam(folder / "beam", PRIMARIES)
    with place(folder / "place") as there:
        done = there.run("run", source, "--tasks", TASKS, "--json")
        assert done.code == 0, done.err
        return Undisturbed(source, there.run("results", done.json["job_id"], "--json").out.removesuffix("\n"))


@pytest.fixture
def there(tmp_path):
    with place(tmp_path / "place") as own_place:
        yield own_place


@pytest.fixture
def postgresql(tmp_path, postgres):
    url = postgres.create_database()
    with place(tmp_path / "place", FLASK_SQLALCHEMY_DATABASE_URI=url) as own_place:
        assert own_place.run("db", "upgrade").code == 0
        yield own_place
    postgres.drop_database(url)


def in_the_middle(there: Place) -> bool:
    """Whether a simulator is between its start and its end."""
    return is_simulating(there.data / "work")


def is_simulating(work: Path) -> bool:
    """Whether in one of the folders of tasks."""
    return any(0 < MCsquare().progress(folder, 100) < 100 for folder in work.glob("*"))


def results(server: Server, job: Job) -> str:
    with server.client() as client:
        return client._http.get("/results", params={"job_id": job.job_id}).text


def moves(job: Job, task: int | None) -> list[tuple[str, str | None, str | None]]:
    """What a task (None: the simulation) went through: state, who, why."""
    return [(row["to_state"], row["actor"], row["reason"]) for row in job.history() if row["task_id"] == task]


def check_whole(server: Server, job_id: str, undisturbed: Undisturbed) -> None:
    """The simulation completes, each task once, with the numbers of one that nothing happened to."""
    with server.client() as client:
        job = client.job(job_id)
        assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        tasks = job.status()["job_tasks_status"]
        assert [task["task_state"] for task in tasks] == ["COMPLETED"] * TASKS
        assert sum(task["simulated_primaries"] for task in tasks) == PRIMARIES
        for number in range(TASKS):
            states = [state for state, _, _ in moves(job, number)]
            assert (states[0], states[-1], states.count("COMPLETED")) == ("PENDING", "COMPLETED", 1)
            # It began, and began again only after it had been given back.
            assert all(
                pair in {("PENDING", "RUNNING"), ("RUNNING", "PENDING"), ("RUNNING", "COMPLETED")}
                for pair in pairwise(states)
            )
        assert results(server, job) == undisturbed.results
    until(lambda: not server.place.left(), "no folder of the tasks is left")


def fill(disk: Path) -> Path:
    """Leave no room on a disk; the file to be removed to make some."""
    balloon = disk / ".balloon"
    with balloon.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**20))
            file.flush()
    return balloon


def stopped_in_the_middle(server: Server, work: Path) -> list[int]:
    """The simulators, which stand still, one of them at least between its start and its end; none if there is none."""
    items = []
    for pid in descendants(server.running.pid):
        with suppress(OSError):
            if "MCsquare" in Path(f"/proc/{pid}/comm").read_text():
                os.kill(pid, signal.SIGSTOP)
                items.append(pid)
    if is_simulating(work):
        return items
    for pid in items:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return []


def up_on_small_disk(there: Place, folder: Path, mib: int) -> tuple[Server, Path]:
    """A server whose `folder` is a disk of its own, and where that is seen from here."""
    folder.mkdir(parents=True)
    # In a name space, which needs no privileges.
    script = f'mount -t tmpfs -o size={mib}m,mode=700 tmpfs "$0" && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(folder)]
    server = there.up(wrapper=wrapper, YAPTIDE_SILENCE_SECONDS="10").register()
    return server, Path(f"/proc/{server.running.pid}/root{folder}")


def test_a_disk_that_fills_up_while_tasks_run_is_no_failure(there, undisturbed):
    """The simulators fail for want of room; their tasks are begun again when there is some."""
    server, disk = up_on_small_disk(there, there.data / "work", 300)
    with server.client() as client:
        job = client.submit(undisturbed.folder, ntasks=TASKS)
        simulators = until(lambda: stopped_in_the_middle(server, disk), "a simulator is in the middle")
        balloon = fill(disk)
        for pid in simulators:
            os.kill(pid, signal.SIGCONT)
        given_back = ("PENDING", "no disk space is left where it ran: less than 256 MiB are free")
        until(
            lambda: given_back in {(state, why) for task in range(TASKS) for state, _, why in moves(job, task)},
            "a task is given back",
        )
        balloon.unlink()
        check_whole(server, job.job_id, undisturbed)


def test_a_disk_that_is_full_before_or_after_the_tasks_run_is_no_failure(there, undisturbed):
    """With the database on it: nothing is accepted then, and what cannot be stored waits until it can."""
    server, disk = up_on_small_disk(there, there.data, 400)
    with server.client() as client:
        balloon = fill(disk)
        with pytest.raises(StorageFull, match="No disk space left"):
            client.submit(undisturbed.folder, ntasks=TASKS)
        assert client._http.get("/readyz").status_code == 503
        assert client.simulations() == []
        balloon.unlink()
        job = until(lambda: stopped_before_it_is_merged(server, client, undisturbed), "a merge that has not ended")
        balloon = fill(disk)
        os.kill(server.worker(), signal.SIGCONT)
        until(
            lambda: "No disk space left" in server.running.said or "database is full" in server.running.said,
            "it is told",
        )
        assert job.status()["job_state"] in ("MERGING_QUEUED", "MERGING_RUNNING")
        balloon.unlink()
        check_whole(server, job.job_id, undisturbed)


def stopped_before_it_is_merged(server: Server, client: Client, undisturbed: Undisturbed) -> Job | None:
    """A simulation all of whose tasks have ended, with the executor stopped; None if it was merged before that."""
    job = client.submit(undisturbed.folder, ntasks=TASKS)
    until(lambda: job.status()["job_state"] not in ("PENDING", "RUNNING"), "all tasks have ended", every=0.001)
    os.kill(server.worker(), signal.SIGSTOP)
    if job.status()["job_state"] != "COMPLETED":
        return job
    os.kill(server.worker(), signal.SIGCONT)
    return None


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("where", ["there", "postgresql"])
def test_a_killed_executor_is_followed_by_another(request, where, kill, undisturbed, record_property):
    there = request.getfixturevalue(where)
    server = there.up().register()
    with server.client() as client:
        job = client.submit(undisturbed.folder, ntasks=TASKS)
        until(lambda: in_the_middle(there), "a simulator is in the middle")
        orphans, worker = there.simulators(), server.worker()
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(map(alive, orphans)), "its simulators die with the executor", 20)
        until(lambda: server.worker() not in {None, worker}, "another executor")
        check_whole(server, job.job_id, undisturbed)
        items = [move for task in range(TASKS) for move in moves(job, task) if move[1] == "recovery"]
    record_property("tasks that were being run", len(items))  # see it with --junitxml
    assert set(items) == {("PENDING", "recovery", "its executor stalled, attempt 1 of 3")}
    assert len(items) == len(orphans)


@pytest.mark.parametrize("who", WHO)
def test_what_stands_still_for_a_while_goes_on(there, undisturbed, who):
    """For longer than the silence after which a process counts as dead."""
    server = there.up(YAPTIDE_SILENCE_SECONDS=f"{max(2, STOPPED / 2):g}").register()
    with server.client() as client:
        job = client.submit(undisturbed.folder, ntasks=TASKS)
        until(lambda: in_the_middle(there), "a simulator is in the middle")
        everything = {server.running.pid, *descendants(server.running.pid)}
        stopped = {"simulators": there.simulators(), "the executor": {server.worker()}, "everything": everything}[who]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        check_whole(server, job.job_id, undisturbed)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_stopped_server_was_at_goes_on_with_the_next(there, undisturbed, how):
    """SIGINT reaches all of its processes, as Ctrl-C does."""
    server = there.up().register()
    with server.client() as client:  # whose connection stays open
        job = client.submit(undisturbed.folder, ntasks=TASKS)
        until(lambda: in_the_middle(there), "a simulator is in the middle")
        everything = descendants(server.running.pid)
        assert there.simulators() < everything
        if how is signal.SIGINT:
            os.killpg(server.running.pid, how)
            done = server.running.wait()
        else:
            done = server.running.signal(how)
        if how is signal.SIGKILL:
            until(lambda: not any(map(alive, everything)), "nothing survives", 20)
        else:
            assert done.code == 0
        assert not any(map(alive, everything))
        assert not there.simulators()
    assert not list((there.data / "work").glob("*"))
    assert {state for (state,) in there.query(STATES)} <= {"PENDING", "COMPLETED"}  # given back, or done before
    port = int(server.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        pass
    check_whole(there.up(port=port), job.job_id, undisturbed)


def test_a_merge_that_is_killed_has_stored_nothing_or_everything(there, tmp_path):
    server = there.up().register()
    source = beam(tmp_path / "beam", 7000, grid=(80, 100, 80), spacing=(1, 1, 1))
    owners, states = set(), []
    with server.client() as client:
        job = client.submit(source, ntasks=7)
        for moment in (
            0,
            0.05,
            0.1,
            0.2,
            0.3,
            0.4,
            0.6,
        ):  # seconds after its begin: somewhere in the merge, or after it

            def merging() -> tuple[str, str | None] | None:
                ((state, owner),) = there.query(SIMULATION)
                begun = state == "COMPLETED" or (state == "MERGING_RUNNING" and owner not in owners)
                return (state, owner) if begun else None

            state, owner = until(merging, "the next merge", every=0.002)
            worker = server.worker()
            time.sleep(moment)
            os.kill(worker, signal.SIGKILL)
            until(lambda pid=worker: not alive(pid), "it is dead", every=0.002)
            ((state, _),), ((pages,),) = there.query(SIMULATION), there.query(PAGES)
            assert (state, pages) in {("MERGING_RUNNING", 0), ("COMPLETED", 9)}
            states.append(state)
            owners.add(owner)
            until(lambda pid=worker: server.worker() not in {None, pid}, "another executor")
            if state == "COMPLETED":
                break
        assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        assert [state for state, _, _ in moves(job, None)].count("COMPLETED") == 1
        assert "MERGING_RUNNING" in states
        items = [reason for _, actor, reason in moves(job, None) if actor == "recovery"]
        assert items == ["the process that merged stalled"] * states.count("MERGING_RUNNING")
        assert [len(estimator.pages) for estimator in job.results().estimators] == [1] * 9
    until(lambda: not there.left(), "the spool is empty")


def test_a_task_that_kills_its_executor_is_given_up(there, tmp_path):
    simulators = fake(tmp_path / "simulators", "kill -9 $PPID")
    server = there.up(YAPTIDE_SIMULATORS_DIR=str(simulators)).register()
    with server.client() as client:
        job = client.submit(beam(tmp_path / "beam"))
        assert job.wait(DEADLINE, every=0.1) is EntityState.FAILED
        assert [state for state, _, _ in moves(job, 0)] == ["PENDING", "RUNNING"] * 3 + ["FAILED"]
        assert moves(job, 0)[-1][2] == "its executors stalled, attempt 3 of 3: given up"
        assert moves(job, None)[-1][2] == "1 of 1 tasks failed: its executors stalled, attempt 3 of 3: given up"


def test_cancel_stops_the_simulators_for_good(there, tmp_path):
    server = there.up(YAPTIDE_WORKERS="2").register()
    with server.client() as client:
        job = client.submit(beam(tmp_path / "beam", 1e9), ntasks=3)
        until(lambda: len(there.simulators()) == 2, "two tasks run")
        answer = client.call("DELETE", "/jobs/direct", params={"job_id": job.job_id})
        assert answer == {"message": "Job canceled"}
        until(lambda: not there.simulators(), "the simulators are stopped", 20)
        until(lambda: not there.left(), "no folder of the tasks is left")
        before = job.status(), job.history()
        assert {before[0]["job_state"]} | {task["task_state"] for task in before[0]["job_tasks_status"]} == {"CANCELED"}
        # The executor goes on with the next, and leaves this one as it is.
        assert client.submit(beam(tmp_path / "next")).wait(DEADLINE, every=0.1) is EntityState.COMPLETED
        assert (job.status(), job.history()) == before
        answer = client.call("DELETE", "/jobs/direct", params={"job_id": job.job_id})
        assert answer == {"message": "Cannot cancel job which is in CANCELED state"}


def test_tasks_that_finish_while_their_simulation_is_deleted_leave_nothing(there, tmp_path):
    gate = tmp_path / "gate"
    wait = f'while [ ! -e \'{gate}\' ]; do sleep 0.01; done; exec "$MCSQUARE" "$@"'
    server = there.up(YAPTIDE_SIMULATORS_DIR=str(fake(tmp_path / "simulators", wait)), YAPTIDE_WORKERS="2").register()
    with server.client() as client:
        job = client.submit(beam(tmp_path / "beam", 320), ntasks=2)
        until(lambda: len(list((there.data / "work").glob("*/output.log"))) == 2, "two tasks run")
        job.cancel()
        job.delete()
        gate.touch()  # they finish in the second that an executor takes to ask whether they are still wanted
        until(lambda: not list((there.data / "work").glob("*")), "both have ended")
        until(lambda: not there.left(), "the spool is empty")
        assert client.simulations() == []
    for table in ("Simulation", "Task", "Input", "StateHistory", "Logfiles"):
        assert there.query(f'SELECT count(*) FROM "{table}"') == [(0,)]
