"""Clusters: what can be stored of one, and `yaptide clusters` as far as it needs no cluster."""

import json

import asyncssh
import pytest
from hypothesis import given, strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from tests.support import stores
from yaptide.admin import cli
from yaptide.domain.errors import Conflict, InvalidInput, NotFound, YaptideError
from yaptide.persistence.models import ClusterModel
from yaptide.services import clusters
from yaptide.services.clusters import Cluster

FILE = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcwGmW2JQ8g3ZcWn2oD3ZNwOQo0nX3OeKQ2l8Zb7R5v"
RSA = asyncssh.generate_private_key("ssh-rsa", key_size=2048).export_public_key().decode().strip()
FULL = Cluster(
    "ares",
    host="login.example.org",
    port=2222,
    host_key=f"[login.example.org]:2222 {KEY}\n",
    scratch_folder="/scratch/{user}/yaptide",
    prologue="module load mcsquare\n",
    simulators={"mcsquare": "/opt/it's here/MCsquare"},
    sbatch_options={"--partition": "main"},
    max_tasks=100,
    max_running=10,
    keep_failed_days=0,
)


def test_a_cluster_is_found_as_it_was_added(database):
    clusters.add_cluster(database, FULL)
    clusters.add_cluster(database, Cluster("helios"))
    assert clusters.find_cluster(database, "ares") == FULL
    assert clusters.find_cluster(database, "helios") == Cluster("helios")
    rows = [tuple(row) for row in clusters.list_clusters(database)]
    assert rows == [
        ("ares", "login.example.org", 2222, "/scratch/{user}/yaptide", 0),
        ("helios", None, 22, None, 0),
    ]
    with pytest.raises(Conflict, match="'ares' already"):
        clusters.add_cluster(database, Cluster("ares"))


def test_a_cluster_is_changed_and_removed(database):
    clusters.add_cluster(database, FULL)
    clusters.change_cluster(database, "ares", {"host": "other.example.org", "simulators": {}})
    result = clusters.find_cluster(database, "ares")
    assert (result.host, result.simulators, result.port, result.max_tasks) == ("other.example.org", {}, 2222, 100)
    with pytest.raises(InvalidInput):
        clusters.change_cluster(database, "ares", {"port": 0})
    clusters.remove_cluster(database, "ares")
    for missing in ("ares", "", "a\0b", "a\n"):
        for call in (clusters.find_cluster, clusters.remove_cluster):
            with pytest.raises(NotFound):
                call(database, missing)


@FILE
def test_a_cluster_that_has_run_simulations_stays(database):
    stores.fill(database)
    with pytest.raises(Conflict, match="Cannot remove ares"):
        clusters.remove_cluster(database, stores.CLUSTER)
    result = clusters.find_cluster(database, stores.CLUSTER)
    assert (result.simulators, result.max_running) == ({"mcsquare": "/opt/MCsquare"}, 50)


@pytest.mark.parametrize("database", ["memory"], indirect=True)
def test_who_writes_only_a_name_gets_the_defaults(database):
    with Session(database.engine) as session, session.begin():
        session.add(ClusterModel(cluster_name="ares"))
    with Session(database.engine) as session:
        row = session.scalars(select(ClusterModel)).one()
        assert (row.simulators, row.sbatch_options, row.keep_failed_days) == ("{}", "{}", 7)
    assert clusters.find_cluster(database, "ares") == Cluster("ares")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"cluster_name": name} for name in ("", " x", "a\nb", "x" * 300)),
        *({"port": port} for port in (0, -1, 65536)),
        *({"host": host} for host in ("", "-oProxyCommand=x", "a b", "a;b", "$(id)", "a\nb", "x" * 300)),
        *(
            {"scratch_folder": folder}
            for folder in ("", "scratch", "~/x", "/a/../b", "/a\nb", "/{job}", "/%u", "/a\\b")
        ),
        *({"simulators": {name: "/x"}} for name in ("", "a b", "../x", "$(id)")),
        *({"simulators": {"mcsquare": path}} for path in ("", " ", "-x", "a\nb", "\0")),
        *({"sbatch_options": options} for options in ({"--wrap": "x"}, {"--time": "$(id)"}, {"": ""})),
        *({"max_tasks": 0}, {"max_running": 0}, {"max_tasks": -1}, {"keep_failed_days": -1}, {"prologue": "\0"}),
        *(
            {"host_key": text}
            for text in ("", "#", "nonsense", f"host {KEY[:30]}", "host ssh-rsa " + KEY.split()[1], KEY)
        ),
    ],
    ids=str,
)
def test_what_a_cluster_cannot_have_is_refused(wrong):
    with pytest.raises(InvalidInput):
        clusters.check_cluster(Cluster(**{"cluster_name": "ares"} | wrong))


def test_a_public_key_alone_is_taken_for_that_of_the_host():
    for port, name in ((22, "login.example.org"), (2222, "[login.example.org]:2222")):
        given_key = f"# login node\n{KEY} root@login\n\n@cert-authority *.example.org {RSA} comment\n"
        result = clusters.check_cluster(
            Cluster("ares", host="login.example.org", port=port, host_key=given_key)
        ).host_key
        assert result == f"{name} {KEY}\n@cert-authority *.example.org {' '.join(RSA.split()[:2])}\n"
        match = asyncssh.import_known_hosts(result).match("login.example.org", "", port)
        assert (len(match[0]), len(match[1])) == (1, port == 22)
        assert clusters.check_cluster(Cluster("ares", host="x", host_key=result)).host_key == result


@pytest.mark.parametrize("account", ["", "..", "../x", "/x", "a b", "$(id)", "a\nb", "-x", "a;b", "{user}"])
def test_what_is_no_account_gets_no_folder(account):
    with pytest.raises(InvalidInput, match="not a valid account name"):
        FULL.scratch_of(account)


@given(st.text(max_size=20))
def test_folders_of_accounts_are_below_the_scratch_folder(account):
    try:
        folder = FULL.scratch_of(account)
    except InvalidInput:
        return
    first, scratch, user, last = folder.split("/")
    assert (first, scratch, last) == ("", "scratch", "yaptide")
    assert user == account
    assert user.strip(".")


@pytest.fixture
def yaptide(database, monkeypatch):
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words, answers=""):
        done = CliRunner().invoke(cli.app, ["clusters", *map(str, words)], input=answers)
        if isinstance(done.exception, YaptideError):
            raise done.exception
        return done

    return run


@FILE
def test_everything_can_be_given_on_the_command_line(yaptide, database, tmp_path):
    (tmp_path / "prologue").write_text(FULL.prologue)
    (tmp_path / "key.pub").write_text(KEY)
    done = yaptide(
        *("add", "ares", "--host", FULL.host, "--port", 2222, "--scratch-folder", FULL.scratch_folder),
        *("--host-key-file", tmp_path / "key.pub", "--prologue-file", tmp_path / "prologue"),
        *("--simulator", "mcsquare=/opt/it's here/MCsquare", "--sbatch-option=--partition=main"),
        *("--max-tasks", 100, "--max-running", 10, "--keep-failed-days", 0),
    )
    assert done.exit_code == 0, done.output
    assert clusters.find_cluster(database, "ares") == FULL
    shown = json.loads(yaptide("show", "ares", "--json").stdout)
    assert shown["simulators"] == FULL.simulators
    assert "/opt/it's here/MCsquare" in yaptide("show", "ares").stdout
    assert yaptide("update", "ares", "--max-tasks", 7).exit_code == 0
    assert clusters.find_cluster(database, "ares").max_tasks == 7
    for wrong in (("update", "ares"), ("update", "ares", "--sbatch-option=--wrap=x"), ("test", "ares")):
        done = None
        try:
            done = yaptide(*wrong)
        except InvalidInput:
            continue
        assert done.exit_code == 2
    for wrong in (("update", "nowhere", "--port", 22), ("show", "nowhere"), ("remove", "nowhere", "--yes")):
        with pytest.raises(NotFound):
            yaptide(*wrong)
    assert yaptide("remove", "ares", answers="n\n").exit_code == 1
    assert clusters.find_cluster(database, "ares")
    assert yaptide("remove", "ares", "--yes").exit_code == 0


@FILE
def test_a_cluster_without_a_host_is_not_tested(yaptide, tmp_path):
    (tmp_path / "key").write_text("x")
    yaptide("add", "ares")
    with pytest.raises(InvalidInput, match="has no host"):
        yaptide("test", "ares", "--login", "alice", "--private-key-file", tmp_path / "key")
    with pytest.raises(InvalidInput, match="has no host"):
        yaptide("update", "ares", "--scan")
