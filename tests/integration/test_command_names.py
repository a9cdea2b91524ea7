"""Commands on simulations: by a part of their name, whose they are, and keys that are missing."""

import pytest
from typer.testing import CliRunner

from tests.support.api import sign_in, submit
from yaptide.admin import cli, local, naming, secrets
from yaptide.admin.store import Opened
from yaptide.domain.errors import Conflict, NotConfigured
from yaptide.settings import Settings

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def settings(database, tmp_path):
    url = database.engine.url.render_as_string(hide_password=False)
    return Settings(_env_file=None, database_uri=url, data_dir=tmp_path, signing_key="k" * 32)


@pytest.fixture
def yaptide(backend, settings, monkeypatch):
    """Run a command on the test's database, as alice."""
    for module in (local, secrets):
        monkeypatch.setattr(module, "open_store", lambda: Opened(settings, backend))
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    return lambda *words: CliRunner().invoke(cli.app, words)


def test_a_beginning_that_only_one_has_is_enough(job, yaptide, database):
    for beginning in (job.job_id, job.job_id[:-10], job.job_id[:8]):
        assert f'"job_id": "{job.job_id}"' in yaptide("status", beginning, "--json").stdout
        assert naming.find_job(database, beginning) == job.job_id
    for other in ("", "%", "_" * 8, job.job_id[1:], f"{job.job_id}x"):
        assert naming.find_job(database, other) == other


def test_a_beginning_that_several_have_lists_them(job, yaptide, signed_in, database):
    others = [submit(signed_in).job_id for _ in range(12)]
    beginning = job.job_id[:6]
    with pytest.raises(Conflict, match=rf"several simulations begin with '{beginning}': .*{others[-1]}.* and more$"):
        naming.find_job(database, beginning)
    assert isinstance(yaptide("delete", beginning, "--yes").exception, Conflict)
    assert naming.find_job(database, job.job_id) == job.job_id


def test_shells_complete_names(job, settings, monkeypatch, tmp_path):
    monkeypatch.setattr(naming, "load_settings", lambda: settings)
    assert naming.complete_job(job.job_id[:4]) == [(job.job_id, "Water phantom")]
    assert naming.complete_job("x") == []
    missing = tmp_path / "missing.db"
    for url in (f"sqlite:///{missing}", "postgresql://127.0.0.1:1/yaptide", "nonsense"):
        monkeypatch.setattr(naming, "load_settings", lambda url=url: settings.model_copy(update={"database_uri": url}))
        assert naming.complete_job("") == []
    assert not missing.exists()


def test_a_list_says_whose_it_is(job, yaptide, app):
    submit(sign_in(app, "bob"))
    own, bobs, everybodys = (yaptide("list", *words).stderr for words in ([], ["--user", "bob"], ["--all"]))
    assert own.splitlines()[0] == "1 of 1 simulations of alice; other users: --user NAME, all users: --all"
    assert bobs.startswith("1 of 1 simulations of bob; ")
    assert everybodys.splitlines()[0] == "2 of 2 simulations of all users"
    result, nothing = (yaptide("list", "--title", title).stderr for title in ("wATER", "bone"))
    assert (result.split(" sim")[0], nothing.split(" sim")[0]) == ("1 of 1", "0 of 0")


def test_keys_cannot_be_rotated_if_there_is_none(yaptide):
    refused = yaptide("secrets", "rotate").exception
    assert isinstance(refused, NotConfigured)
    assert "yaptide secrets new-key" in str(refused)
