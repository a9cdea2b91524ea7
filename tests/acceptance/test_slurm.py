"""A real cluster: connections to it, what SLURM makes of our jobs, and `yaptide clusters test`."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.processes import until
from tests.support.slurm import Keys, SlurmMissing, find_program
from yaptide.admin import cli
from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, Forbidden, NotFound, TooLarge, YaptideError
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch import checking, ssh
from yaptide.platforms.batch.schedulers.base import JobRequest, NoAccounts
from yaptide.platforms.batch.schedulers.slurm import Slurm
from yaptide.platforms.batch.ssh import Connections, Limits, Login, Server
from yaptide.services.clusters import Cluster

DEADLINE = 120.0
slurm = Slurm()
HOSTILE = ["; touch x", "$(touch x)", "`touch x`", "../..", "a\nb", "'", '"', "*", "~", "é🐢", "", "\\", "!!", "-n"]
SMALL = {"--mem": "20", "--time": "1"}


@pytest.fixture(scope="module")
def connections():
    pool = Connections()
    yield pool
    pool.close()


@pytest.fixture
def server(slurm_cluster):
    return Server(slurm_cluster.host, slurm_cluster.ssh_port, slurm_cluster.host_key)


@pytest.fixture
def login(slurm_cluster):
    account = slurm_cluster.account
    return Login(account, slurm_cluster.private_key, slurm_cluster.keys.certificate(account))


@pytest.fixture
def remote(connections, server, login):
    return connections.open_session(server, login)


@pytest.fixture
def folder(slurm_cluster, remote, request):
    """A folder of the account on the cluster, with a name that a shell would stumble over."""
    path = f'{slurm_cluster.scratch}/{request.node.name[:40]} it\'s $(a) "folder"; x'
    remote.make_folder(path)
    yield path
    remote.run_command("rm", "-rf", "--", path)


# Connections.


def test_words_arrive_as_they_are(remote, folder):
    done = remote.run_command("/usr/bin/printf", "%s\\0", *HOSTILE)
    assert done.out.split(b"\0")[:-1] == [word.encode() for word in HOSTILE]
    assert remote.run_command("ls", "-A", folder).text == ""
    assert "x" not in remote.run_command("ls", "-A").text.split()


def test_what_a_command_reads_writes_and_returns(remote):
    data = bytes(range(256)) * 5000
    done = remote.run_command("sh", "-c", "cat; echo said >&2; exit 3", data=data)
    assert (done.out, done.err, done.exit_code, done.complaint) == (data, b"said\n", 3, "said")
    assert remote.run_command("true", data=data).exit_code == 0
    assert remote.run_command("sh", "-c", "kill -TERM $$").exit_code == 128 + 15
    assert remote.run_command("no-such-command").exit_code == 127


def test_a_connection_is_used_again_and_made_once(slurm_cluster, server, login):
    pool = Connections()
    remote = pool.open_session(server, login)
    try:
        with ThreadPoolExecutor(8) as threads:
            items = list(threads.map(lambda _: remote.run_command("sh", "-c", "echo $SSH_CONNECTION").text, range(16)))
        assert len(set(items)) == 1
    finally:
        pool.close()


def test_a_connection_that_nobody_uses_is_closed(server, login):
    pool = Connections(Limits(idle=0.05))
    remote = pool.open_session(server, login)
    try:
        before = remote.run_command("sh", "-c", "echo $SSH_CONNECTION").text
        until(lambda: not pool._links, "the connection is closed")
        assert remote.run_command("sh", "-c", "echo $SSH_CONNECTION").text != before
    finally:
        pool.close()


def test_a_lost_connection_is_made_anew(slurm_cluster, remote, folder):
    assert remote.run_command("true").exit_code == 0
    failed = []

    def wait_there():
        try:
            remote.run_command("sh", "-c", 'touch "$1"; sleep 60', "sh", f"{folder}/begun")
        except YaptideError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait_there)
    waiting.start()
    until(Path(folder, "begun").exists, "the command runs")
    slurm_cluster.drop_connections()
    waiting.join(DEADLINE)
    (error,) = failed
    assert isinstance(error, ClusterUnavailable)
    assert "was lost" in str(error)
    assert remote.run_command("true").exit_code == 0


def test_a_command_that_hangs_or_talks_too_much_is_left(server, login):
    pool = Connections(Limits(output=100_000))
    remote = pool.open_session(server, login)
    try:
        with pytest.raises(ClusterUnavailable, match=r"did not finish within 0\.2 s"):
            remote.run_command("sleep", "60", limit=0.2)
        with pytest.raises(TooLarge, match="100000 bytes"):
            remote.run_command("cat", "/dev/zero")
        assert remote.run_command("echo", "on").text == "on\n"
    finally:
        pool.close()


def test_files_go_there_and_back(remote, folder, tmp_path):
    path = f"{folder}/a; touch x"
    remote.write_file(path, b"secret")
    assert remote.run_command("stat", "-c", "%a", path).text == "600\n"
    remote.write_file(path, b"another")
    assert remote.read_file(path, 7) == b"another"
    with pytest.raises(TooLarge):
        remote.read_file(path, 6)
    local = tmp_path / "local"
    remote.download_file(path, local)
    assert local.read_bytes() == b"another"
    local.write_bytes(os.urandom(2**20))
    remote.upload_file(local, f"{folder}/b")
    assert remote.read_file(f"{folder}/b", 2**20) == local.read_bytes()
    remote.make_folder(f"{folder}/c/d")
    remote.make_folder(f"{folder}/c/d")
    assert set(remote.run_command("ls", folder).text.split("\n")) == {"a; touch x", "b", "c", ""}


def test_files_that_cannot_be_read_or_written(remote, folder):
    with pytest.raises(NotFound, match="no /nowhere/x"):
        remote.read_file("/nowhere/x", 1)
    with pytest.raises(Forbidden, match="permission denied"):
        remote.write_file("/etc/x", b"")
    with pytest.raises(ClusterRefused, match="quota full"):
        remote.read_file(folder, 1)


def refusal(connections, server, login):
    with pytest.raises(YaptideError) as caught:
        connections.open_session(server, login).run_command("true")
    secret = login.private_key.splitlines()[1] if "\n" in login.private_key else "no secret"
    assert secret not in str(caught.value)
    assert secret not in repr(login)
    return type(caught.value), str(caught.value)


def test_host_keys_are_checked(slurm_cluster, connections, server, login):
    assert (
        connections.open_session(replace(server, host_key=slurm_cluster.host_authority), login)
        .run_command("true")
        .exit_code
        == 0
    )
    another = Keys().host.export_public_key().decode().strip()
    name = f"[{server.host}]:{server.port}"
    for host_key, says in (
        ("", "No host key"),
        (" \n", "No host key"),
        ("nonsense", "not in the format of known_hosts"),
        (f"{name} ssh-ed25519 AAAA", "not for"),
        (f"{name} {another}", "not the stored one"),
        (f"@cert-authority {name} {another}", "not the stored one"),
        (f"@revoked {slurm_cluster.host_key}", "not for"),
        (f"@revoked {slurm_cluster.host_key}\n{slurm_cluster.host_key}", "not the stored one"),
        (slurm_cluster.host_key.replace("127.0.0.1", "login.example.org"), "not for 127.0.0.1"),
    ):
        kind, message = refusal(connections, replace(server, host_key=host_key), login)
        assert kind is ClusterRefused
        assert says in message


def test_the_host_key_is_asked_for(slurm_cluster):
    key, fingerprint = ssh.scan_host_key(slurm_cluster.host, slurm_cluster.ssh_port)
    assert slurm_cluster.host_key.endswith(key)
    assert fingerprint == slurm_cluster.keys.host.get_fingerprint()


def test_credentials_are_checked(slurm_cluster, connections, server, login):
    keys, account = slurm_cluster.keys, slurm_cluster.account
    other = Keys()
    nobody = Login("nobody-here", slurm_cluster.private_key, keys.certificate("nobody-here"))
    for changed, says in (
        (replace(login, certificate=keys.certificate(account, "-2h", "-1h")), "expired at"),
        (replace(login, certificate=keys.certificate(account, "+1h", "+2h")), "not valid before"),
        (replace(login, certificate=keys.certificate("bob")), f"is for bob, not for {account}"),
        (replace(login, certificate=""), "rejected"),
        (replace(login, certificate=other.certificate(account)), "do not match"),
        (replace(login, certificate="nonsense"), "cannot be read"),
        (replace(login, private_key="nonsense"), "cannot be read"),
        (Login(account, other.user.export_private_key().decode(), other.certificate(account)), "rejected"),
        (nobody, "rejected nobody-here"),
    ):
        kind, message = refusal(connections, server, changed)
        assert kind is ClusterRefused
        assert says in message


def test_a_key_with_a_passphrase_is_named(slurm_cluster, connections, server, login):
    text = slurm_cluster.keys.user.export_private_key("pkcs8-pem", passphrase="x").decode()
    assert "passphrase" in refusal(connections, server, replace(login, private_key=text))[1]


def test_a_host_that_cannot_be_reached(slurm_cluster, connections, server, login):
    for changed, says in (
        (replace(server, host="no-such-host.invalid"), "cannot be resolved"),
        (replace(server, port=1), "port 1"),
        (replace(server, port=slurm_cluster.slurmctld_port), "port"),
    ):
        kind, message = refusal(connections, changed, login)
        assert kind is ClusterUnavailable
        assert says in message


# SLURM.


def ended(remote, name, count):
    """The jobs of this name when so many of them have ended."""

    def look():
        seen = slurm.find_jobs(remote, name)
        return seen if len(seen) == count and all(one.state in FINAL_STATES for one in seen) else None

    return until(look, f"{count} jobs {name} have ended", DEADLINE, every=0.2)


def submit(remote, command):
    return slurm.parse_job_number(remote.run_command(*command))


def submitted(remote, job, command, *, tasks=0, prologue=None):
    path = f"{job.folder}/script.sh"
    remote.write_file(path, slurm.job_script(job, command, prologue).encode())
    if tasks:
        return submit(remote, slurm.array_command(job, path, range(1, tasks + 1)))
    return submit(remote, slurm.single_command(job, path))


def test_an_array_and_the_job_that_collects(remote, folder):
    job = JobRequest("20260301-120000-arrayBATCH", folder, SMALL)
    program = 'printf \'%s\\n\' "$@" "$A" >args-$SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID - 1))'
    array = submitted(remote, job, ["/bin/sh", "-c", program, "sh", *HOSTILE], tasks=3, prologue="export A=loaded")
    collect_path = f"{folder}/collect.sh"
    remote.write_file(collect_path, slurm.job_script(job, ["/bin/sh", "-c", "ls args-* >collected"]).encode())
    collect = submit(remote, slurm.collect_command(job, collect_path, [array]))

    *tasks, last = ended(remote, job.name, 4)
    assert [(task.job, task.index, task.state) for task in tasks] == [
        (array, 1, EntityState.COMPLETED),
        (array, 2, EntityState.FAILED),
        (array, 3, EntityState.FAILED),
    ]
    assert [task.reason for task in tasks] == [None, "it ended with exit code 1", "it ended with exit code 2"]
    assert (last.job, last.index, last.state) == (collect, None, EntityState.COMPLETED)
    assert all(task.start is not None for task in tasks)
    assert remote.read_file(f"{folder}/collected", 100) == b"args-1\nargs-2\nargs-3\n"
    assert remote.read_file(f"{folder}/args-1", 1000).decode() == "\n".join([*HOSTILE, "loaded", ""])
    assert {entry.name for entry in Path(folder).iterdir()} == {
        *("args-1", "args-2", "args-3", "collected", "script.sh", "collect.sh"),
        *("task-1.log", "task-2.log", "task-3.log", "collect.log"),
    }
    assert set(tasks) <= set(slurm.query_queue(remote))


def test_what_is_canceled_waits_or_never_was(slurm_cluster, remote, folder):
    job = JobRequest("20260301-120000-cancelBATCH", folder, SMALL | {"--time": "10"})
    number = submitted(remote, job, ["/bin/sleep", "300"], tasks=6)
    until(
        lambda: any(one.state is EntityState.RUNNING for one in slurm.find_jobs(remote, job.name)), "it runs", DEADLINE
    )
    slurm_cluster.command("scancel", f"{number}_[1-2,6]")  # by hand

    def states():
        return {one.index: str(one.state) for one in slurm.find_jobs(remote, job.name)}

    # One that is canceled while it waits is not in the queue any more.
    until(lambda: states() | {3: "", 4: "", 5: ""} == {1: "CANCELED", 2: "CANCELED", 3: "", 4: "", 5: ""}, "canceled")
    assert all("canceled on the cluster" in one.reason for one in slurm.find_jobs(remote, job.name) if one.index < 3)
    slurm.cancel_job(remote, number)
    assert {one.state for one in ended(remote, job.name, 5)} == {EntityState.CANCELED}
    slurm.cancel_job(remote, number)
    slurm.cancel_job(remote, 2**30)
    assert slurm.find_jobs(remote, "20260301-120000-neverBATCH") == []


def test_a_task_that_takes_more_memory_than_it_has(remote, folder):
    job = JobRequest("20260301-120000-memoryBATCH", folder, SMALL)
    program = "import time; taken = b'x' * 400_000_000; time.sleep(60)"
    submitted(remote, job, ["/usr/bin/python3", "-c", program])
    (seen,) = ended(remote, job.name, 1)
    assert seen.state is EntityState.FAILED
    assert "memory" in seen.reason


def test_a_task_that_reaches_its_time_limit(slurm_cluster, remote, folder):
    job = JobRequest("20260301-120000-timeBATCH", folder, SMALL)
    number = submitted(remote, job, ["/bin/sleep", "300"])
    until(
        lambda: [one for one in slurm.find_jobs(remote, job.name) if one.state is EntityState.RUNNING],
        "it runs",
        DEADLINE,
    )
    slurm_cluster.reach_time_limit(number)
    (seen,) = ended(remote, job.name, 1)
    assert (seen.state, seen.reason) == (EntityState.FAILED, "it reached its time limit; give it more with --time")


def test_what_slurm_refuses_says_why(remote, folder):
    job = JobRequest("20260301-120000-refusedBATCH", folder, SMALL | {"--partition": "nowhere"})
    with pytest.raises(ClusterRefused, match="invalid partition"):
        submitted(remote, job, ["/bin/true"])
    with pytest.raises(ClusterRefused, match="Invalid job array"):
        submitted(remote, replace(job, options=SMALL), ["/bin/true"], tasks=100_000)
    assert slurm.find_jobs(remote, job.name) == []
    with pytest.raises(ClusterRefused, match="not available"):
        submitted(remote, replace(job, options={"--mem": "900G"}), ["/bin/true"])
    (seen,) = slurm.find_jobs(remote, job.name)  # SLURM keeps a record of it all the same
    assert (seen.state, seen.reason) == (EntityState.FAILED, "no node of the cluster has what it asks for")


def test_a_folder_that_is_gone_is_a_failure_with_a_reason(remote, folder):
    job = JobRequest("20260301-120000-goneBATCH", folder, SMALL)
    path = f"{folder}/script.sh"
    remote.write_file(path, slurm.job_script(job, ["/bin/true"]).encode())
    gone = replace(job, folder=f"{folder}/gone")
    submit(remote, slurm.single_command(gone, path))
    (seen,) = ended(remote, job.name, 1)
    assert seen.state is EntityState.FAILED
    assert "could not be opened" in seen.reason


def test_jobs_outlive_a_restart_of_the_controller(slurm_cluster, remote, folder):
    job = JobRequest("20260301-120000-restartBATCH", folder, SMALL)
    number = submitted(remote, job, ["/bin/sleep", "3"], tasks=2)
    slurm_cluster.stop("slurmctld")
    slurm_cluster.start_slurmctld()

    def answers():
        try:
            return slurm.find_jobs(remote, job.name)
        except ClusterUnavailable:
            return None

    until(answers, "the controller answers", DEADLINE, every=0.2)
    seen = ended(remote, job.name, 2)
    assert {(one.job, one.state) for one in seen} == {(number, EntityState.COMPLETED)}


def test_a_cluster_without_accounting(remote):
    with pytest.raises(NoAccounts, match="disabled"):
        slurm.query_accounting(remote, [1])


def test_limits_and_positions(slurm_cluster, remote, folder):
    job = JobRequest("20260301-120000-positionBATCH", folder, SMALL)
    assert slurm.find_array_limit(remote) == 1000
    with slurm_cluster.holding():
        first = submitted(remote, job, ["/bin/true"], tasks=3)
        second = submitted(remote, job, ["/bin/true"])
        positions = slurm.query_positions(remote)
        assert positions[first] == (1, 2)
        assert positions[second] == (2, 2)
        slurm.cancel_job(remote, first)
        slurm.cancel_job(remote, second)


# `yaptide clusters`.


@pytest.fixture
def yaptide(tmp_path, monkeypatch, migrated_file, slurm_cluster):
    copy = shutil.copy(migrated_file, tmp_path)
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{copy}")
    monkeypatch.setenv("NO_COLOR", "1")
    files = tmp_path / "key", tmp_path / "certificate"
    files[0].write_text(slurm_cluster.private_key)
    files[1].write_text(slurm_cluster.keys.certificate(slurm_cluster.account))

    def run(*words, answers=""):
        if words[0] == "test":
            words = (*words, "--login", slurm_cluster.account, "--private-key-file", files[0])
            words = (*words, "--certificate-file", files[1], "--json")
        done = CliRunner().invoke(cli.app, ["clusters", *map(str, words)], input=answers)
        if isinstance(done.exception, YaptideError):
            raise done.exception
        return done

    return run


def test_a_cluster_is_added_shown_tested_and_removed(yaptide, slurm_cluster):
    address = ("--host", slurm_cluster.host, "--port", slurm_cluster.ssh_port)
    assert yaptide("add", "here", *address, "--scan", answers="n\n").exit_code == 1
    more = ("--scratch-folder", slurm_cluster.scratch, "--simulator", "mcsquare=/bin/true", "--sbatch-option=--mem=20")
    done = yaptide("add", "here", *address, *more, "--scan", answers="y\n")
    assert done.exit_code == 0, done.output
    assert slurm_cluster.keys.host.get_fingerprint() in done.output
    shown = json.loads(yaptide("show", "here", "--json").stdout)
    assert shown["host_key"].strip() == slurm_cluster.host_key
    assert shown["sbatch_options"] == {"--mem": "20"}

    done = yaptide("test", "here")
    tested = json.loads(done.stdout)
    assert tested["passed"], tested
    assert done.exit_code == 0
    names = [step["name"] for step in tested["steps"]]
    assert names == [
        *("connection", "login shell", "SLURM", "python3", "accounting", "scratch folder", "mcsquare", "job")
    ]
    assert "Python 3" in tested["steps"][-1]["found"]
    assert not list(slurm_cluster.scratch.glob("yaptide-test-*"))

    assert yaptide("remove", "here", "--yes").exit_code == 0
    with pytest.raises(NotFound):
        yaptide("show", "here")


def test_every_step_that_fails_says_what_to_do(yaptide, slurm_cluster):
    address = ("--host", slurm_cluster.host, "--port", slurm_cluster.ssh_port)
    yaptide("add", "here", *address, "--scan", "--scratch-folder", "/nowhere", answers="y\n")
    yaptide("update", "here", "--simulator", "mcsquare=/no such; touch x", "--simulator", "other=/bin/true")
    done = yaptide("test", "here")
    assert done.exit_code == 1
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    failed = {name for name, step in steps.items() if not step["passed"]}
    assert failed == {"scratch folder", "mcsquare", "other"}
    assert all(steps[name]["advice"] for name in failed)

    yaptide("update", "here", "--scratch-folder", slurm_cluster.scratch, "--sbatch-option=--partition=nowhere")
    steps = {step["name"]: step for step in json.loads(yaptide("test", "here").stdout)["steps"]}
    assert "invalid partition" in steps["job"]["found"]
    assert not list(slurm_cluster.scratch.glob("yaptide-test-*"))

    yaptide("update", "here", "--port", 1)
    (step,) = json.loads(yaptide("test", "here").stdout)["steps"]
    assert "port 1" in step["found"]


def test_a_job_that_waits_too_long_is_taken_back(slurm_cluster, remote):
    cluster = Cluster("here", scratch_folder=str(slurm_cluster.scratch), sbatch_options={"--exclusive": ""})
    blocker = JobRequest(
        "20260301-120000-blockerBATCH", str(slurm_cluster.scratch), {"--exclusive": "", "--time": "10"}
    )
    number = submitted(remote, blocker, ["/bin/sleep", "300"])
    try:
        until(lambda: slurm.find_jobs(remote, blocker.name)[0].state is EntityState.RUNNING, "it runs", DEADLINE)
        *_, job = checking.run_checks(remote, cluster, wait=2)
    finally:
        slurm.cancel_job(remote, number)
    assert not job.passed
    assert "PENDING after 2 s" in job.found
    assert "--wait" in job.advice
    until(
        lambda: not any(one.state not in FINAL_STATES for one in slurm.query_queue(remote)), "nothing is left", DEADLINE
    )


# The cluster of the tests itself.


def test_a_missing_program_names_the_command_that_brings_it():
    with pytest.raises(SlurmMissing, match="no-such-program: run `scripts/setup slurm`"):
        find_program("no-such-program")


def commands_with(text):
    """Command lines of processes with this text in them."""
    items = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            items += [line for line in [entry.read_text(errors="replace")] if text in line]
    return items


def test_nothing_is_left_of_a_cluster_whose_tests_were_killed(tmp_path):
    program = (
        "import time\nfrom tests.support.slurm import serve\n"
        "with serve() as cluster:\n"
        "    program = f'tail -f {cluster.folder}/slurm.conf'\n"
        "    cluster.command('sbatch', '--output=/dev/null', '--chdir=/', '--wrap', program)\n"
        "    while 'RUNNING' not in cluster.command('squeue', '--noheader', '--format=%T'):\n"
        "        time.sleep(0.05)\n"
        "    print(cluster.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True)
    with process:
        folder = Path(process.stdout.readline().strip())
        until(lambda: any(line.startswith("tail") for line in commands_with(str(folder))), "the job runs", DEADLINE)
        process.kill()
    until(lambda: not folder.exists(), "the folder is gone", DEADLINE)
    until(lambda: not commands_with(str(folder)), "all processes are gone", DEADLINE)
