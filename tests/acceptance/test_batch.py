"""The platform BATCH: a real server, a real SLURM cluster reached over SSH, and real MCsquare on its node."""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from tests.support import http
from tests.support.api import of_keycloak
from tests.support.keycloak import UI
from tests.support.ports import free_port
from tests.support.processes import Place, Server, beam, installation, place, until
from tests.support.slurm import Keys, SlurmCluster, find_program
from yaptide.application import make_backend
from yaptide.client import Client, Job
from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, InvalidInput, NotFound
from yaptide.domain.states import EntityState
from yaptide.persistence.queries import secrets
from yaptide.platforms.batch import ssh
from yaptide.platforms.batch.schedulers import get_scheduler
from yaptide.platforms.batch.session import submit_once
from yaptide.platforms.batch.ssh import Connections
from yaptide.services import sessions
from yaptide.services.backend import Backend
from yaptide.services.secrets import Vault
from yaptide.settings import Settings

DEADLINE = 240.0
SMALL = {"--mem": "200", "--time": "10"}
#: A task takes a second or two, or, if it is to be interrupted, minutes.
SHORT, LONG = 8_000, 400_000_000
VAULT_KEY = "HTrDcCyFa1nRZrMIEJyTr1ZMJtfhhFwr_JrAzmSBFb8="


@dataclass
class Site:
    """A server that knows the cluster, and a user of both who is signed in."""

    there: Place
    cluster: SlurmCluster
    port: int
    backend: Backend

    def up(self, **variables: str) -> Server:
        """Start the server, at the same address each time."""
        return self.there.up(port=self.port, **variables)

    @property
    def account(self) -> str:
        """The user's name, here and there."""
        return self.cluster.account

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The client of the user, as if signed in through Keycloak."""
        user = of_keycloak(self.backend, self.account)
        token = sessions.begin_session(self.backend, user).access.text
        with Client(f"http://127.0.0.1:{self.port}") as client:
            client._http.headers["Authorization"] = f"Bearer {token}"
            yield client

    def give_credentials(self, **times: str) -> None:
        """Store the user's key with a certificate, without a look at it, as it may have been good before."""
        user = of_keycloak(self.backend, self.account)
        certificate = self.cluster.keys.certificate(self.account, **times)
        token = Vault(self.backend.secret_keys).encrypt(self.cluster.private_key)
        with self.backend.database.writing() as connection:
            secrets.set_credentials(connection, user.id, certificate.strip(), token)

    def folder(self, job: Job) -> Path:
        """The job's folder on the cluster."""
        return self.cluster.scratch / job.job_id

    def submitted(self, job: Job) -> list[str]:
        """Numbers of the jobs on the cluster that carry the simulation's name."""
        listed = self.cluster.command("squeue", "-h", "-a", "-t", "all", "-o", "%F", "--name", job.job_id)
        return sorted(set(listed.split()), key=int)

    def running(self, job: Job) -> list[str]:
        """Array indices of the tasks that the cluster runs."""
        listed = self.cluster.command("squeue", "-h", "-a", "-r", "-t", "R", "-o", "%K", "--name", job.job_id)
        return sorted(listed.split())

    def describe(self, *options: object) -> None:
        """Change what the server knows of the cluster."""
        done = self.there.run("clusters", "update", "ares", *options)
        assert done.code == 0, done.err

    def fake(self, script: str) -> None:
        """Have a shell script be the cluster's MCsquare; `$MCSQUARE` in it is the real one."""
        real = self.cluster.folder / "mcsquare"
        home = self.cluster.folder / f"fake-{self.port}"
        home.mkdir(mode=0o755)
        (home / "Materials").symlink_to(real / "Materials")
        (home / "MCsquare").write_text(f"#!/bin/bash\nMCSQUARE={real / 'MCsquare'}\n{script}\n")
        (home / "MCsquare").chmod(0o755)
        self.describe("--simulator", f"mcsquare={home / 'MCsquare'}")

    def wait_for_running(self, job: Job, tasks: int) -> None:
        """Wait until so many tasks run on the cluster and have reported progress."""

        def run() -> bool:
            document = [task for task in job.status()["job_tasks_status"] if task["task_state"] == "RUNNING"]
            return len(self.running(job)) == len(document) == tasks

        until(run, f"{tasks} tasks run", DEADLINE, every=0.2)


def submit(client: Client, files: dict[str, str], ntasks: int = 2, **changes: Any) -> Job:
    body = {
        "input_type": "files",
        "input_files": files,
        "ntasks": ntasks,
        "sim_type": "mcsquare",
        "title": "beam",
        "batch_options": {"cluster_name": "default", "array_options": SMALL, "collect_options": SMALL},
        **changes,
    }
    return Job(client, client.call("POST", "/jobs/batch", json=body)["job_id"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    def make(primaries, **changes):
        folder = beam(tmp_path_factory.mktemp("beam") / "beam", primaries, **changes)
        return {path.name: path.read_text() for path in folder.iterdir()}

    return make


@pytest.fixture(scope="module")
def program(slurm_cluster):
    """MCsquare where the account of the cluster can run it."""
    home = slurm_cluster.folder / "mcsquare"
    if not home.exists():
        shutil.copytree(installation().program.parent, home)
    return home / "MCsquare"


@pytest.fixture
def site(tmp_path, slurm_cluster, program) -> Iterator[Site]:
    port = free_port()
    variables = {
        "YAPTIDE_SECRET_KEYS": VAULT_KEY,
        "FLASK_SECRET_KEY": "a key for tests, 32 bytes or more",
        "YAPTIDE_BACKEND_URL": f"http://127.0.0.1:{port}",
        "YAPTIDE_CLUSTER_SECONDS": "1",
        "YAPTIDE_ACCESS_MINUTES": "120",
    }
    with place(tmp_path / "place", **variables) as there:
        key = tmp_path / "host"
        key.write_text(slurm_cluster.host_key)
        options = ["--host", slurm_cluster.host, "--port", slurm_cluster.ssh_port, "--host-key-file", key]
        options += ["--scratch-folder", slurm_cluster.scratch, "--simulator", f"mcsquare={program}"]
        done = there.run("db", "upgrade")
        done = there.run("clusters", "add", "ares", *options)
        assert done.code == 0, done.err
        settings = Settings(
            _env_file=None,
            data_dir=there.data,
            secret_keys=VAULT_KEY,
            signing_key=variables["FLASK_SECRET_KEY"],
            access_minutes=120,
        )
        backend = make_backend(settings)
        made = Site(there, slurm_cluster, port, backend)
        made.give_credentials()
        yield made
        backend.database.close()
        slurm_cluster.command("scancel", "--signal=KILL", "--full", "--user", made.account)
        slurm_cluster.command("scancel", "--user", made.account)  # nothing computes on for the tests that follow


def ended(job: Job) -> EntityState:
    return job.wait(DEADLINE, every=0.2)


def numbers(job: Job) -> list[bytes]:
    estimators = job.results().estimators
    return [page.values.tobytes() for estimator in estimators for page in estimator.pages]


def test_tasks_run_on_the_cluster_with_the_numbers_of_the_direct_platform(site, files):
    seen = []
    site.up()
    with site.client() as client:
        source = files(4 * 100_000)
        job = submit(client, source, 4)
        assert job.wait(DEADLINE, 0.2, seen.append) is EntityState.COMPLETED, job.history()
        simulated = [sum(task["simulated_primaries"] for task in status["job_tasks_status"]) for status in seen]
        assert simulated == sorted(simulated)
        assert len(set(simulated)) > 2
        assert [task["task_id"] for task in seen[-1]["job_tasks_status"]] == [1, 2, 3, 4]
        body = {"input_type": "files", "input_files": source, "ntasks": 4, "sim_type": "mcsquare"}
        direct = Job(client, client.call("POST", "/jobs/direct", json=body)["job_id"])
        assert ended(direct) is EntityState.COMPLETED
        assert numbers(job) == numbers(direct)
        until(lambda: not site.folder(job).exists(), "its folder is removed")


def test_a_user_signs_in_through_keycloak_and_runs_on_the_cluster(site, keycloak, tmp_path):
    """From the browser to results: signing in fetches the SSH certificate, and no key is uploaded."""
    site.give_credentials(begin="-3h", end="-1h")  # those of an earlier time have expired
    with site.backend.database.writing() as connection:  # and the account has no known subject yet
        connection.execute(sql('UPDATE "KeycloakUser" SET issuer = NULL, subject = NULL'))
    realm = keycloak.new_realm(site.account)
    with http.serve() as certificates:
        pair = {"cert": site.cluster.keys.certificate(site.account), "private": site.cluster.private_key}
        certificates.answers(pair)
        server = site.up(
            KEYCLOAK_BASE_URL=realm.server.url,
            KEYCLOAK_REALM=realm.name,
            KEYCLOAK_CLIENTS=UI,
            YAPTIDE_KEYCLOAK_WEB_CLIENT=UI,
            KEYCLOAK_REQUIRED_CLAIM="plgridAccessServices=PLG_YAPTIDE_ACCESS",
            CERT_AUTH_URL=f"{certificates.url}/certificate",
        )
        with Client(server.url) as client:
            client.sign_in_through_keycloak(lambda approval: realm.decide(approval.address, "accept", site.account))
            assert certificates.asked
            assert client.call("GET", "/clusters")["clusters"] == [{"cluster_name": "ares"}]
            token = client.create_token("script", "submit")
        options = [word for name, value in SMALL.items() for word in ("--sbatch", f"{name.strip('-')}={value}")]
        folder = beam(tmp_path / "beam", 4 * SHORT)
        where = {"YAPTIDE_URL": server.url, "YAPTIDE_TOKEN": token}
        done = site.there.run("run", folder, "-n", 4, "--cluster", "ares", *options, "--json", **where)
        assert done.code == 0, done.err
        summary = done.json
        assert (summary["job_state"], len(summary["tasks"])) == ("COMPLETED", 4)
        assert summary["simulated_primaries"] == 4 * SHORT
        with Client(server.url, token=token) as client:
            assert numbers(client.job(summary["job_id"]))


def reasons(job: Job) -> str:
    """Everything that the history says, in one text."""
    return "\n".join(str(change["reason"]) for change in job.history() if change["reason"])


def states(job: Job) -> list[str]:
    return [task["task_state"] for task in job.status()["job_tasks_status"]]


def test_a_canceled_job_ends_on_the_cluster_and_leaves_nothing_when_it_is_deleted(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(LONG))
        site.wait_for_running(job, 2)
        job.cancel()
        assert job.status()["job_state"] == "CANCELED"
        until(lambda: not site.running(job), "nothing of it runs")
        assert site.folder(job).is_dir()  # there are days to look into it
        assert site.folder(job).stat().st_mode & 0o777 == 0o700
        assert (site.folder(job) / "key").stat().st_mode & 0o777 == 0o600
        job.delete()
        until(lambda: not site.folder(job).exists(), "its folder is removed")


def test_a_job_that_is_canceled_and_deleted_at_once_leaves_nothing(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(LONG))
        until(lambda: site.folder(job).exists(), "it is being submitted")
        job.cancel()
        job.delete()
        until(lambda: not site.running(job) and not site.folder(job).exists(), "nothing is left")


def test_a_failing_task_says_why_and_the_others_keep_their_results(site, files):
    site.up()
    site.fake('[ "$SLURM_ARRAY_TASK_ID" != 2 ] || { echo "Error: no such isotope"; exit 3; }; exec "$MCSQUARE" "$@"')
    with site.client() as client:
        job = submit(client, files(3 * SHORT), 3)
        assert ended(job) is EntityState.FAILED
        assert states(job) == ["COMPLETED", "FAILED", "COMPLETED"]
        assert "1 of 3 tasks failed: MCsquare reports: Error: no such isotope" in reasons(job)
        assert "no such isotope" in job.logfiles()["task-2-output.log"]
        assert numbers(job)


def test_a_task_that_needs_too_much_memory_is_told_so(site, files):
    site.up()
    site.fake("""exec python3 -c 'x = b"x" * 700_000_000; import time; time.sleep(600)'""")
    with site.client() as client:
        job = submit(client, files(SHORT), 1)
        assert ended(job) is EntityState.FAILED
        assert "needed more memory than it had; see --mem" in reasons(job)


def test_a_task_that_reaches_its_time_limit_is_told_so(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(LONG), 1)
        site.wait_for_running(job, 1)
        site.cluster.reach_time_limit(f"{site.submitted(job)[0]}_1")
        assert ended(job) is EntityState.FAILED
        assert "it reached its time limit; give it more with --time" in reasons(job)
        assert "task-1-output.log" in job.logfiles()


def test_a_task_that_somebody_cancels_on_the_cluster_is_canceled(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(LONG))
        site.wait_for_running(job, 2)
        site.cluster.command("scancel", f"{site.submitted(job)[0]}_2")
        until(lambda: states(job) == ["RUNNING", "CANCELED"], "one task is canceled")
        assert "it was canceled on the cluster" in reasons(job)


def test_a_task_that_is_requeued_runs_again(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(LONG), 1)
        site.wait_for_running(job, 1)
        name = f"{site.submitted(job)[0]}_1"
        site.cluster.command("scontrol", "requeue", name)
        until(lambda: states(job) == ["PENDING"], "it waits again")
        site.cluster.command("scontrol", "update", f"JobId={name}", "StartTime=now")
        site.wait_for_running(job, 1)
        assert site.there.query("SELECT attempts FROM Task") == [(2,)]
        job.cancel()


def test_nothing_is_lost_when_slurm_is_restarted(site, files):
    site.up()
    with site.client() as client:
        job = submit(client, files(2 * 300_000))
        site.wait_for_running(job, 2)
        site.cluster.stop("slurmctld")
        try:
            until(lambda: "the cluster cannot be used" in reasons(job), "the history tells")
        finally:
            site.cluster.start_slurmctld()
        assert ended(job) is EntityState.COMPLETED
        assert reasons(job).count("the cluster cannot be used") == 1


def test_a_server_that_is_killed_while_it_submits_does_not_submit_twice(site, files):
    server = site.up()
    with site.client() as client:
        with site.cluster.holding():  # a task that has ended before its array was followed leaves nothing to follow
            jobs = [submit(client, files(SHORT), 1) for _ in range(3)]
            until(lambda: any(map(site.submitted, jobs)), "the first is submitted", every=0)
            server.stop(signal.SIGKILL)
            site.up()
            until(lambda: all(len(site.submitted(job)) > 1 for job in jobs), "all are submitted", DEADLINE)
        assert [ended(job) for job in jobs] == [EntityState.COMPLETED] * 3
        assert [len(site.submitted(job)) for job in jobs] == [2, 2, 2]  # the array, and what follows it


def test_results_are_fetched_where_nodes_do_not_reach_the_server(site, files):
    site.up(YAPTIDE_BACKEND_URL=f"http://127.0.0.1:{free_port()}")
    seen = []
    with site.client() as client:
        job = submit(client, files(2 * 400_000))
        assert job.wait(DEADLINE, 0.2, seen.append) is EntityState.COMPLETED, job.history()
        simulated = {sum(task["simulated_primaries"] for task in status["job_tasks_status"]) for status in seen}
        assert len(simulated) > 2
        assert numbers(job)


def test_what_had_completed_of_a_canceled_job_is_kept(site, files):
    site.up()
    site.fake('[ "$SLURM_ARRAY_TASK_ID" = 1 ] || exec sleep 600; exec "$MCSQUARE" "$@"')
    with site.client() as client:
        job = submit(client, files(2 * SHORT))
        until(lambda: states(job) == ["COMPLETED", "RUNNING"], "one task has completed", DEADLINE)
        job.cancel()

        def kept():
            with suppress(NotFound):
                return numbers(job)

        until(kept, "its results are stored")
        until(lambda: not site.running(job), "nothing of it runs")


def test_what_waits_says_why_and_what_vanishes_does_not_wait_for_ever(site, files):
    site.up()
    node = site.cluster.command("sinfo", "--noheader", "--format=%n").strip()
    site.cluster.command("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        with site.client() as client:
            job = submit(client, files(SHORT))
            said = ("status", job.job_id, "--json")
            until(lambda: "2 waiting: " in str(site.there.run(*said).json["queue"]), "why it waits", every=0.5)
            assert "2 waiting: " in site.there.run("status", job.job_id).out
            array = site.submitted(job)[0]
            site.cluster.command("scancel", f"{array}_1")
            site.cluster.command("scancel", f"{array}_2")
            assert ended(job) in (EntityState.CANCELED, EntityState.FAILED)
            assert "cluster" in reasons(job)
    finally:
        site.cluster.command("scontrol", "update", f"NodeName={node}", "State=RESUME")


def test_what_the_cluster_refuses_fails_and_says_why(site, files):
    site.up()
    site.describe("--keep-failed-days", 0)
    with site.client() as client:
        job = submit(client, files(SHORT), batch_options={"array_options": {"--partition": "none"}})
        assert ended(job) is EntityState.FAILED
        assert "it could not be submitted: The cluster did not accept the job:" in reasons(job)
        assert "nvalid partition" in reasons(job)
        until(lambda: not site.folder(job).exists(), "its folder is removed")


def waits_because(site: Site, job: Job, text: str) -> None:
    """Wait until the user sees this reason, through the API and on the command line."""
    until(lambda: text in (job.status().get("waiting") or ""), f"it waits because {text}", DEADLINE, every=0.2)
    assert job.status()["job_state"] in ("PENDING", "RUNNING")
    assert text in site.there.run("status", job.job_id, "--json").json["waiting"]


def test_only_the_cluster_itself_refuses(site, files):
    """A scratch folder that cannot be written and a missing program are waited for."""
    site.up()
    with site.client() as client:
        scratch = site.cluster.scratch
        site.describe("--scratch-folder", "/proc/none")
        job = submit(client, files(SHORT), 1)
        waits_because(site, job, "The scratch folder cannot be written: mkdir:")
        program = site.there.run("clusters", "show", "ares", "--json").json["simulators"]["mcsquare"]
        site.describe("--scratch-folder", scratch, "--simulator", "mcsquare=no-such-program")
        waits_because(site, job, "There is no program no-such-program on the cluster ares")
        site.describe("--simulator", f"mcsquare={program}")
        assert ended(job) is EntityState.COMPLETED
        assert site.there.query("SELECT attempts FROM Task") == [(1,)]


#: Text around the output of each command; no site prints all of this, but each part has been seen.
TALKS = 'echo "Welcome | to ares"; "$REAL" "$@"; code=$?; echo "1 job today"; exit $code'
DENIED = 'echo "sacct: error: Access/permission denied" >&2; exit 1'
MANNERS = {
    "bash": (".bashrc", 'echo "Welcome to ares, 12 jobs wait"; echo "banner" >&2; read answer; PATH={bin}:$PATH\n'),
    "tcsh": (".cshrc", 'echo "Welcome to ares\\!"\nset path = ({bin} $path)\n'),
}


@pytest.mark.parametrize("shell", MANNERS)
def test_any_login_shell_and_text_around_answers(site, files, shell):
    site.up()
    start_up, text = MANNERS[shell]
    text = text.format(bin=site.cluster.folder / "bin")
    commands = {"sbatch": TALKS, "squeue": TALKS, "sacct": DENIED}
    with site.client() as client, site.cluster.manners(find_program(shell), start_up, text, **commands):
        job = submit(client, files(2 * SHORT))
        assert ended(job) is EntityState.COMPLETED, job.history()
        assert len(site.submitted(job)) == 2
        assert "cannot be used" not in reasons(job)
        assert site.there.query("SELECT attempts FROM Task") == [(1,), (1,)]


def test_a_login_shell_that_exits_is_waited_for(site, files):
    site.up()
    with site.client() as client:
        with site.cluster.manners(find_program("bash"), ".bashrc", "echo no; exit 0\n"):
            job = submit(client, files(SHORT), 1)
            waits_because(site, job, "ended before it ran a command")
        assert ended(job) is EntityState.COMPLETED


#: As SLURM refuses, with at most 3 jobs of the account, at most 2 in an array, and no room for what follows an array.
LIMITED = """
asked=1 follows=
for word; do
    case $word in
        --array=1-*) asked=${word#--array=1-}; asked=${asked%%%*};;
        --dependency=*) follows=1;;
    esac
done
queued=$(squeue --noheader --array --me --states=PD,R,CG --format=%i | wc -l)
fail() { for line; do echo "sbatch: error: $line" >&2; done; exit 1; }
policy="Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
[ -z "$follows" ] || fail AssocMaxSubmitJobLimit "Batch job submission failed: $policy"
[ "$asked" -le 2 ] || fail "Batch job submission failed: Invalid job array specification"
[ $((queued + asked)) -le 3 ] || fail AssocMaxSubmitJobLimit "Batch job submission failed: $policy"
exec "$REAL" "$@"
"""


def test_limits_make_tasks_wait(site, files):
    """Several arrays, each when there is room for it; the numbers are those of one array."""
    site.up()
    text = f"PATH={site.cluster.folder / 'bin'}:$PATH\n"
    with site.client() as client:
        source = files(5 * SHORT)
        with site.cluster.manners(find_program("bash"), ".bashrc", text, sbatch=LIMITED):
            with site.cluster.holding():
                job = submit(client, source, 5)
                until(lambda: "tasks are submitted" in (job.status().get("waiting") or ""), "it waits", DEADLINE)
                waiting = job.status()["waiting"]
                assert "3 of 5 tasks are submitted; The cluster accepts no more jobs" in waiting
                assert site.there.query("SELECT first_task, tasks FROM BatchArray ORDER BY 1") == [(1, 2), (3, 1)]
            assert ended(job) is EntityState.COMPLETED, job.history()
        assert site.there.query("SELECT attempts FROM Task") == [(1,)] * 5
        assert sum(size for (size,) in site.there.query("SELECT tasks FROM BatchArray")) == 5
        assert "the job that collects results was not accepted, so they are fetched over SSH" in reasons(job)
        whole = submit(client, source, 5)
        assert ended(whole) is EntityState.COMPLETED
        assert numbers(whole) == numbers(job)


def test_what_is_being_submitted_is_not_submitted_by_another(site):
    pool, scheduler = Connections(), get_scheduler()
    server = ssh.Server(site.cluster.host, site.cluster.ssh_port, site.cluster.host_key)
    login = ssh.Login(site.account, site.cluster.private_key, site.cluster.keys.certificate(site.account))
    remote = pool.open_session(server, login)
    lock = f"{site.cluster.scratch}/lock-{site.port}"
    try:
        with ThreadPoolExecutor() as threads:
            first = threads.submit(submit_once, scheduler, remote, lock, ["sh", "-c", "sleep 2; echo 5"])
            until(Path(lock).exists, "the first has begun")
            with pytest.raises(ClusterUnavailable, match="already being submitted"):
                submit_once(scheduler, remote, lock, ["echo", "6"])
            assert first.result(DEADLINE) == 5
        assert submit_once(scheduler, remote, lock, ["echo", "6"]) == 5  # its answer had been lost
        Path(lock, "answer").unlink()
        os.utime(lock, (1, 1))  # left by a process that died, long enough ago to know that
        refusal = "sbatch: error: Batch job submission failed: Invalid qos specification"
        with pytest.raises(ClusterRefused, match="Invalid qos"):
            submit_once(scheduler, remote, lock, ["sh", "-c", f'echo "{refusal}" >&2; exit 1'])
        assert submit_once(scheduler, remote, lock, ["echo", "7"]) == 7
    finally:
        remote.run_command("rm", "-rf", "--", lock)
        pool.close()


def test_an_expired_certificate_is_told(site, files):
    site.up()
    site.give_credentials(begin="-2h", end="-1h")
    with site.client() as client:
        job = submit(client, files(SHORT))
        assert ended(job) is EntityState.FAILED
        assert "it could not be submitted: The SSH certificate expired on" in reasons(job)
        assert "sign in again" in reasons(job)
        assert not site.folder(job).exists()


def test_a_host_with_another_key_gets_nothing(site, files, tmp_path):
    site.up()
    other = tmp_path / "other"
    key = Keys().host.export_public_key().decode()
    other.write_text(f"[{site.cluster.host}]:{site.cluster.ssh_port} {key}")
    site.describe("--host-key-file", other)
    with site.client() as client:
        job = submit(client, files(SHORT))
        assert ended(job) is EntityState.FAILED
        assert "The host key of" in reasons(job)
        assert not site.folder(job).exists()


@pytest.mark.parametrize("text", ["; touch x", "$(id)", "`id`", "../..", "a\nb", "'\"", "-Z"])
def test_what_a_user_types_never_reaches_a_shell(site, files, text):
    site.up()
    with site.client() as client:
        given, before = files(SHORT), {path.name for path in site.cluster.scratch.iterdir()}
        bad = (
            {"input_files": {**given, text: "x"}},
            {"batch_options": {"array_options": {"--time": text}}},
            {"batch_options": {"array_options": {text: "1"}}},
            {"batch_options": {"array_header": f"#SBATCH --job-name={text}"}},
            {"batch_options": {"collect_header": f"{text}\n; touch x"}},
            {"batch_options": {"cluster_name": text}},
            {"batch_options": {text: "1"}},
        )
        for changes in bad:
            with pytest.raises(InvalidInput):
                submit(client, given, **changes)
        job = submit(client, given, 1, title=text)
        assert ended(job) is EntityState.COMPLETED, job.history()
        assert {path.name for path in site.cluster.scratch.iterdir()} <= {*before, job.job_id}
