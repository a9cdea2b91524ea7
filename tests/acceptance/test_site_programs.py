"""SHIELD-HIT12A, FLUKA and TOPAS on Celery workers and on SLURM, with stand-ins for the programs."""

import os

import pytest

from tests.support.api import of_keycloak
from tests.support.ports import free_port
from tests.support.processes import place
from tests.support.recorded import OUTPUTS, UNITS, fluka_files, shieldhit_files
from tests.support.standins import PROGRAMS, make_program
from yaptide.application import make_backend
from yaptide.client import Client, Job
from yaptide.persistence.queries import secrets
from yaptide.services import sessions
from yaptide.services.secrets import Vault
from yaptide.settings import Settings
from yaptide.simulators.topas.sample import SAMPLE as TOPAS

DEADLINE = 120.0
#: Which codes run where. `make stress` runs all of them everywhere.
ALL = os.environ.get("SITE_PROGRAMS") == "all"
ON_WORKERS, ON_CLUSTER = (tuple(PROGRAMS),) * 2 if ALL else (("shieldhit", "topas"), ("fluka", "topas"))
TASKS, PRIMARIES = 4, 1000
VAULT_KEY = "HTrDcCyFa1nRZrMIEJyTr1ZMJtfhhFwr_JrAzmSBFb8="
#: What the front end posts; it does not know FLUKA by its file (`common`), whose name it has changed.
BODIES = {
    "shieldhit": {"sim_type": "shieldhit", "input_files": shieldhit_files(PRIMARIES)},
    "fluka": {"sim_type": "common", "input_files": {"flSim.inp": fluka_files(PRIMARIES)["fl_sim.inp"]}},
    "topas": {"sim_type": "topas", "input_files": TOPAS},
}


def make_programs(folder, **settings):
    """Return the programs of a site by code. Once `folder`/failed is removed, the next run of TOPAS is killed."""
    own = {"topas": {"fault": "kill", "once": folder / "failed"}}
    made = {code: make_program(folder / code, code, **settings, **own.get(code, {})) for code in PROGRAMS}
    (folder / "failed").touch()
    folder.chmod(0o777)  # runs of other accounts create the file
    return made


def submit_all(client, path, codes, **changes):
    bodies = {code: {"input_type": "files", "ntasks": TASKS, "title": "water", **BODIES[code]} for code in codes}
    jobs = {code: client.call("POST", path, json=body | changes)["job_id"] for code, body in bodies.items()}
    return {code: Job(client, job_id) for code, job_id in jobs.items()}


def check_all(client, jobs):
    """Follow the jobs to their end, and check what the front end fetches."""
    progress = {code: [] for code in jobs}

    def note(code, status):
        progress[code].append([task["simulated_primaries"] for task in status["job_tasks_status"]])

    for code, job in jobs.items():
        failed = ["FAILED"] if code == "topas" else []
        state = job.wait(DEADLINE, 0.2, lambda status, code=code: note(code, status))
        tasks = sorted(task["task_state"] for task in job.status()["job_tasks_status"])
        assert (state, tasks) == ((failed or ["COMPLETED"])[0], ["COMPLETED"] * (TASKS - len(failed)) + failed), (
            reasons(job)
        )
    assert any(0 < simulated < PRIMARIES // TASKS for seen in progress.values() for row in seen for simulated in row)
    logs = client.call("GET", "/logfiles", params={"job_id": jobs["topas"].job_id})["logfiles"]
    assert any("output.log" in name and "History: " in text for name, text in logs.items())
    check_results(client, jobs)


def reasons(job):
    """Return why tasks have changed their state."""
    return [row["reason"] for row in job.history() if row["reason"]]


def check_results(client, jobs):
    def fetch(path, code, **query):
        return client.call("GET", path, params={"job_id": jobs[code].job_id, **query})

    titles = {
        code: {
            each["name"]: [page["page_name"] for page in each["pages_metadata"]]
            for each in fetch("/estimators", code)["estimators_metadata"]
        }
        for code in jobs
    }
    assert titles["topas"] == {"depth_dose": ["depth_dose"]}  # of the tasks that have not failed
    if "shieldhit" in jobs:
        assert titles["shieldhit"] == {name: [page[0] for page in pages] for name, pages in OUTPUTS.items()}
        pages = fetch("/results", "shieldhit", estimator_name="yz_profile", page_numbers="0-1")["pages"]
        assert [(page["dimensions"], page["data"]["unit"]) for page in pages] == [(2, "MeV/g/prim"), (2, "/cm^2/prim")]
        assert pages[0]["axis_dim1"]["name"] == "Position (Y)"
        (spectrum,) = fetch("/results", "shieldhit", estimator_name="peak", page_numbers="5")["pages"]
        assert len(spectrum["data"]["errors"]) == len(spectrum["data"]["values"]) == 640
    if "fluka" in jobs:
        assert titles["fluka"] == {unit: [name] for unit, (name, _) in UNITS.items()}
        (fluence,) = fetch("/results", "fluka", estimator_name="21", page_numbers="0")["pages"]
        assert (fluence["data"]["unit"], len(fluence["data"]["values"])) == ("/cm^2", 500)


def test_celery_workers_run_the_programs_of_a_site(production, tmp_path):
    programs = make_programs(tmp_path / "programs", pause=0.3)
    where = {"YAPTIDE_SIMULATORS_DIR": str(tmp_path / "simulators")}
    for code, program in programs.items():
        added = production.server_place.run("simulators", "add", code, "--program", program, **where)
        assert added.code == 0, added.err
    (tmp_path / "programs/failed").unlink()
    # Submissions are accepted before a worker has announced itself.
    production.server_place.variables["YAPTIDE_FOREIGN_WORKERS"] = ",".join(PROGRAMS)
    server = production.serve()
    workers = [production.work(**where), production.work(**where)]
    with server.register().client() as client:
        check_all(client, submit_all(client, "/jobs/direct", ON_WORKERS))
    assert len(workers) == 2


@pytest.fixture
def cluster_client(tmp_path, slurm_cluster):
    """A client of a user with credentials for a cluster that has the programs."""
    programs = make_programs(slurm_cluster.folder / "programs", python="python3", pause=0.9)  # reports every 2 s
    port, account = free_port(), slurm_cluster.account
    key = "a key for tests, 32 bytes or more"
    variables = {"YAPTIDE_SECRET_KEYS": VAULT_KEY, "FLASK_SECRET_KEY": key, "YAPTIDE_CLUSTER_SECONDS": "1"}
    variables["YAPTIDE_BACKEND_URL"] = f"http://127.0.0.1:{port}"
    with place(tmp_path / "place", **variables) as there:
        host_key = tmp_path / "host"
        host_key.write_text(slurm_cluster.host_key)
        options = ["--host", slurm_cluster.host, "--port", slurm_cluster.ssh_port, "--host-key-file", host_key]
        options += ["--scratch-folder", slurm_cluster.scratch]
        options += [word for code, program in programs.items() for word in ("--simulator", f"{code}={program}")]
        assert there.run("db", "upgrade").code == 0
        done = there.run("clusters", "add", "ares", *options)
        assert done.code == 0, done.err
        backend = make_backend(Settings(_env_file=None, data_dir=there.data, secret_keys=VAULT_KEY, signing_key=key))
        user = of_keycloak(backend, account)
        token = Vault(backend.secret_keys).encrypt(slurm_cluster.private_key)
        with backend.database.writing() as connection:
            secrets.set_credentials(connection, user.id, slurm_cluster.keys.certificate(account).strip(), token)
        there.up(port=port)
        with Client(f"http://127.0.0.1:{port}") as client:
            client._http.headers["Authorization"] = f"Bearer {sessions.begin_session(backend, user).access.text}"
            yield client
        backend.database.close()
        slurm_cluster.command("scancel", "--signal=KILL", "--full", "--user", account)
        slurm_cluster.command("scancel", "--user", account)


def test_slurm_runs_the_programs_of_a_site(cluster_client, slurm_cluster):
    (slurm_cluster.folder / "programs/failed").unlink()
    small = {"--mem": "200", "--time": "10"}
    options = {"cluster_name": "default", "array_options": small, "collect_options": small}
    jobs = submit_all(cluster_client, "/jobs/batch", ON_CLUSTER, batch_options=options)
    check_all(cluster_client, jobs)
