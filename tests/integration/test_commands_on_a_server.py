"""Commands on simulations do and print the same on a server as on the local data folder."""

import json

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.support.api import PASSWORD, Job, submit
from tests.support.payloads import estimator, page, shieldhit_files
from yaptide.admin import cli, local, remote
from yaptide.admin.store import Opened
from yaptide.domain.errors import Conflict, InvalidInput, NotConfigured, NotFound
from yaptide.services import lifecycle, logfiles
from yaptide.settings import Settings
from yaptide.simulators.mcsquare.sample import water_sample
from yaptide_client import Client, logins
from yaptide_client.logins import Login

SERVER = "http://server.example"
CURVE = (1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.7, 2, 2.5, 3.5, 5, 3, 0.5, 0.1, 0, 0, 0)

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def yaptide(backend, app, tmp_path, monkeypatch):
    """Run a command: on the test's database as alice, or with `SERVER` on a server with the same database."""
    settings = Settings(_env_file=None, database_uri="sqlite://", data_dir=tmp_path, signing_key="k" * 32)
    monkeypatch.setattr(local, "open_store", lambda: Opened(settings, backend))
    monkeypatch.setattr("getpass.getuser", lambda: "alice")

    def connect(login: Login) -> remote.RemoteTarget:
        client = Client(login.url, patience=0)
        client._http = httpx.Client(base_url=SERVER, transport=httpx.WSGITransport(app=app))
        client.sign_in("alice", PASSWORD)
        return remote.RemoteTarget(client)

    monkeypatch.setattr(remote.RemoteTarget, "open", connect)

    def run(*words: object) -> Result:
        return CliRunner().invoke(cli.app, [str(word) for word in words])

    return run


@pytest.fixture
def signed_in_there(yaptide, signed_in):
    """After `yaptide login`."""
    logins.store_login(Login(SERVER, "yap_x"), "host")


@pytest.fixture
def ended(job, backend) -> Job:
    """A completed simulation with results, a log file and a range."""
    curve = page(name="Dose", values=CURVE)
    logs = {"a.log": "1 < 2 &amp; 3 > 2 &lt;"}
    logfiles.post_logfiles(backend, job.simulation_id, job.update_key, logs)
    job.post_results(estimator("dose", curve, page(1)))
    return job


@pytest.mark.usefixtures("signed_in_there")
@pytest.mark.parametrize(
    "words",
    [
        ("status", "JOB", "--json"),
        ("status", "JOB"),
        ("list", "--json"),
        ("list", "--title", "water", "--json"),
        ("list", "--page", 2, "--page-size", 1, "--json"),
        ("results", "JOB"),
        ("results", "JOB", "--json"),
        ("results", "JOB", "--csv"),
        ("results", "JOB", "--estimator", "dose", "--pages", "0", "--json"),
        ("logs", "JOB", "--json"),
        ("logs", "JOB"),
        ("history", "JOB", "--json"),
        ("history", "JOB"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_command_prints_the_same(ended, yaptide, signed_in, words):
    submit(signed_in)
    named = [ended.job_id if word == "JOB" else word for word in words]
    here, there = yaptide(*named, "--server", "local"), yaptide(*named)
    assert (here.exit_code, there.exit_code) == (0, 0), (here.output, there.output)
    assert here.stdout == there.stdout if "--json" not in words else json.loads(here.stdout) == json.loads(there.stdout)
    assert there.stderr.splitlines()[0] == f"Server: {SERVER}"
    assert SERVER not in here.stderr


@pytest.mark.usefixtures("signed_in_there")
def test_files_are_the_same(ended, yaptide, tmp_path):
    for name, more in (("here", ("--server", "local")), ("there", ())):
        assert yaptide("results", ended.job_id, "--npz", tmp_path / f"{name}.npz", *more).exit_code == 0
        assert yaptide("results", ended.job_id, "--png", tmp_path / f"{name}.png", *more).exit_code == 0
    for kind in ("npz", "png"):
        assert (tmp_path / f"here.{kind}").stat().st_size == (tmp_path / f"there.{kind}").stat().st_size


@pytest.mark.usefixtures("signed_in_there")
def test_an_input_is_checked_there_as_here(yaptide, tmp_path):
    for number, wrong in enumerate(("", "north ")):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in water_sample(50_000, 100.0, seed=1).items():
            (folder / name).write_text(text.replace("###GantryAngle\n", f"###GantryAngle\n{wrong}"))
        here, there = yaptide("check", folder, "--json", "--server", "local"), yaptide("check", folder, "--json")
        assert here.exit_code == there.exit_code == number, (here.output, there.output)
        documents = [json.loads(done.stdout) for done in (here, there)]
        for document in documents:
            document.pop("waiting", None)
        assert {key: documents[1][key] for key in documents[0]} == documents[0]
    shown = yaptide("check", folder).output
    assert "This input cannot be run: plan.txt, line " in shown
    assert "north" in shown


@pytest.mark.usefixtures("signed_in_there")
def test_a_simulation_is_canceled_and_deleted_there(job, yaptide):
    refused = yaptide("delete", job.job_id, "--yes")
    assert isinstance(refused.exception, Conflict)
    assert "cancel it first" in str(refused.exception)
    assert "Canceled the simulation" in yaptide("cancel", job.job_id).stderr
    assert job.state == "CANCELED"
    assert "Nothing to cancel: the simulation is CANCELED" in yaptide("cancel", job.job_id).stderr
    asked = CliRunner().invoke(cli.app, ["delete", job.job_id], input="n\n")
    assert f"Delete {job.job_id} of alice" in asked.stderr
    assert job.state == "CANCELED"
    assert "Deleted" in yaptide("delete", job.job_id, "--yes").stderr
    assert isinstance(yaptide("cancel", job.job_id).exception, NotFound)


@pytest.mark.usefixtures("signed_in_there")
def test_a_simulation_is_run_there(yaptide, tmp_path, app, backend, monkeypatch):
    """Its worker reports while the command follows it."""
    folder = tmp_path / "beam"
    folder.mkdir()
    for name, text in shieldhit_files(1000).items():
        (folder / name).write_text(text)
    watch = Client.watch

    def work_meanwhile(client, jobs, *arguments):
        for row in watch(client, jobs, *arguments):
            key = lifecycle.update_key(backend, row["job_id"])
            Job(app.test_client(), row["job_id"], backend.dispatcher.dispatched[-1], key).post_results()
            yield row

    monkeypatch.setattr(Client, "watch", work_meanwhile)
    done = yaptide("run", folder, "--tasks", 2, "--sim-type", "shieldhit", "--title", "Mine", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    summary = json.loads(done.stdout)
    assert (summary["job_state"], summary["title"], summary["user"]) == ("COMPLETED", "Mine", "alice")
    assert f"Simulation {summary['job_id']}" in done.stderr


@pytest.mark.usefixtures("signed_in_there")
def test_a_beginning_of_a_name_is_enough_there(job, yaptide, signed_in):
    assert json.loads(yaptide("status", job.job_id[:-8], "--json").stdout)["job_id"] == job.job_id
    submit(signed_in)
    assert isinstance(yaptide("status", job.job_id[:5]).exception, Conflict)
    assert isinstance(yaptide("status", "nonsense").exception, NotFound)


@pytest.mark.usefixtures("signed_in_there")
def test_simulations_of_others_are_not_shown_there(yaptide, stranger):
    other = submit(stranger)
    assert json.loads(yaptide("list", "--json").stdout)["simulations"] == []
    for words in (("list", "--all"), ("list", "--user", "mallory")):
        assert isinstance(yaptide(*words).exception, InvalidInput)
    for command in ("status", "cancel", "logs", "history", "results"):
        assert yaptide(command, other.job_id).exit_code == 1
    assert yaptide("delete", other.job_id, "--yes").exit_code == 1
    assert other.state == "PENDING"


def test_which_server_is_used(job, yaptide, monkeypatch):
    def server_of(*words: object) -> str:
        done = yaptide("status", job.job_id, *words)
        assert done.exit_code == 0, done.exception
        return done.stderr.partition("Server: ")[2].partition("\n")[0]

    assert server_of() == ""
    logins.store_login(Login(SERVER, "yap_x"), "host")
    logins.store_login(Login(f"{SERVER}:81", "yap_x"), "host")
    assert server_of() == f"{SERVER}:81"
    assert server_of("--server", SERVER) == SERVER
    assert server_of("--server", "local") == ""
    monkeypatch.setenv("YAPTIDE_URL", f"{SERVER}:82")
    monkeypatch.setenv("YAPTIDE_TOKEN", "yap_y")
    assert server_of() == f"{SERVER}:82"
    assert server_of("--server", SERVER) == SERVER
    monkeypatch.delenv("YAPTIDE_TOKEN")
    refused = yaptide("list").exception
    assert isinstance(refused, NotConfigured)
    assert f"yaptide login {SERVER}:82" in str(refused)
