"""docs/workers.md: what it tells workers of others to call is called here, by curl, on a real server."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.payloads import submission
from tests.support.processes import place

DOCUMENT = (Path(__file__).parents[2] / "docs" / "workers.md").read_text()
PASSWORD = "a long password"


@pytest.fixture
def there(tmp_path):
    (setting,) = re.findall(r"^    YAPTIDE_FOREIGN_WORKERS=(.+)$", DOCUMENT, re.MULTILINE)
    with place(tmp_path / "place", YAPTIDE_FOREIGN_WORKERS=setting) as own_place:
        yield own_place


def test_the_calls_of_a_worker_end_a_simulation(there, tmp_path):
    server = there.up("--no-executor").register("alice", PASSWORD)
    (tmp_path / "job.json").write_text(json.dumps(submission("dose", ntasks=2)))
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
    assert PASSWORD in script
    shell = ["bash", "-euo", "pipefail", "-c", f"url={server.url}\n{script}"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert '"waiting":"Waiting for an external worker with SHIELD-HIT12A"' in done.stdout
    assert done.stdout.count('"job_state":"COMPLETED"') == 2
    key = json.loads((tmp_path / "key.json").read_text())
    with server.client("alice", PASSWORD) as client:
        (item,) = client.simulations()
        job = client.job(item["job_id"])
        assert [task["task_state"] for task in job.status()["job_tasks_status"]] == ["COMPLETED"] * 2
        assert job.results().page("dose", 0).values.tolist() == [1.5, 2.5]
        assert job.logfiles() == {"merge.log": "all is well"}
        assert job.update_key() == key["update_key"]
    printed = there.run("simulations", "key", item["job_id"])
    assert printed.out == key["update_key"] + "\n"
    document = there.run("simulations", "key", item["job_id"], "--json").json
    assert document == {"job_id": item["job_id"], **{name: key[name] for name in ("simulation_id", "update_key")}}
    assert key["update_key"] not in server.running.said


def test_the_command_line_says_why_a_simulation_waits(there):
    server = there.up().register("alice", PASSWORD)
    with server.client("alice", PASSWORD) as client:
        job_id = client.call("POST", "/jobs/direct", json=submission("dose"))["job_id"]
    words = "Waiting for an external worker with SHIELD-HIT12A"
    assert there.run("list", "--user", "alice", "--json").json["simulations"][0]["waiting"] == words
    assert f"1 simulation of them: {words}" in there.run("list", "--all").err
    assert there.run("status", job_id, "--json").json["waiting"] == words
    assert words in " ".join(there.run("status", job_id).out.split())
    (made, *_) = there.run("history", job_id, "--json").json["history"]
    assert made["task_id"] is None
    assert made["reason"].startswith("External workers get the project without input files.")
    assert made["reason"].endswith(words)


def test_a_setting_that_names_no_simulator_is_refused(there):
    refused = there.run("up", YAPTIDE_FOREIGN_WORKERS="shieldhit,geant4")
    assert refused.code == 1
    assert "'geant4'" in refused.complaint
