"""Scripts that run for as long as their simulations, and the command line on a server."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.postgres import serve
from tests.support.processes import PASSWORD, USER, Place, beam, fake, place, until
from yaptide.domain.states import EntityState
from yaptide_client import Client


@pytest.fixture
def own_postgres():
    """A PostgreSQL server that only this test restarts."""
    with serve() as server:
        yield server


def test_a_script_waits_through_restarts_of_everything(own_postgres, tmp_path):
    """It follows a simulation that ends only after two restarts of the server and one of the database."""
    gate = tmp_path / "gate"
    simulators = fake(tmp_path / "programs", f'while [ ! -e "{gate}" ]; do sleep 0.1; done\nexec "$MCSQUARE" "$@"')
    variables = {
        "FLASK_SQLALCHEMY_DATABASE_URI": own_postgres.create_database(),
        "YAPTIDE_SIMULATORS_DIR": str(simulators),
    }
    with place(tmp_path / "place", **variables) as there:
        assert there.run("db", "upgrade").code == 0
        server = there.up()
        port = int(server.url.rpartition(":")[2])
        with server.register().client() as signed_in:
            token = signed_in.create_token("script", "submit")
        with ThreadPoolExecutor(1) as pool, Client(server.url, token=token) as client:
            job = client.submit(beam(tmp_path / "beam"), ntasks=2)
            followed: list[dict[str, object]] = []
            waiting = pool.submit(job.wait, 300.0, 0.2, followed.append)
            until(lambda: followed, "the script follows the simulation")
            server.stop(signal.SIGTERM)
            server = there.up(port=port)
            own_postgres.restart()
            server.stop(signal.SIGKILL)
            server = there.up(port=port)
            assert not waiting.done()
            gate.touch()
            assert waiting.result(120) is EntityState.COMPLETED
            assert job.results().depth_curve() is not None
        assert token not in there.said()


def test_commands_work_on_the_server_that_was_signed_in_to(tmp_path):
    """One place has the server, another one only the command line."""
    with place(tmp_path / "server") as there, place(tmp_path / "laptop", XDG_CONFIG_HOME=str(tmp_path / "c")) as laptop:
        server = there.up().register()
        with server.client() as signed_in:
            token = signed_in.create_token("laptop", "all")
        wrong = laptop.run("login", server.url, "--token-stdin", stdin="yap_wrong\n")
        assert (wrong.code, "not valid" in wrong.complaint) == (1, True)
        done = laptop.run("login", server.url, "--token-stdin", stdin=f"{token}\n")
        assert (done.code, done.out) == (0, ""), done.err
        assert f"Signed in to {server.url} as {USER}" in done.err
        ran = laptop.run("run", beam(laptop.folder / "beam"), "--tasks", 2, "--json")
        assert ran.code == 0, ran.err
        job_id = ran.json["job_id"]
        assert ran.json["job_state"] == "COMPLETED"
        assert check_commands(laptop, there, job_id)
        assert laptop.run("cancel", job_id).err.endswith("Nothing to cancel: the simulation is COMPLETED\n")
        assert laptop.run("delete", job_id, "--yes").code == 0
        assert there.run("list", "--all", "--json").json["simulations"] == []
        assert laptop.run("logout").code == 0
        assert laptop.run("list", "--json").json["simulations"] == []
        assert laptop.run("list", "--server", server.url).code == 1
        assert token not in laptop.said() + there.said()
        assert PASSWORD not in laptop.said()


def check_commands(laptop: Place, there: Place, job_id: str) -> bool:
    """The commands print the same on the laptop and at the server."""
    commands = [("status", job_id), ("results", job_id), ("list", "--all")]
    local = there.run_all([((*words, "--json"), {}) for words in commands])
    remote = laptop.run_all([((*[word for word in words if word != "--all"], "--json"), {}) for words in commands])
    assert [done.code for done in (*local, *remote)] == [0] * 6, [done.err for done in (*local, *remote)]
    assert [done.json for done in local] == [done.json for done in remote]
    return all(done.err.startswith("Server: ") for done in remote)
