"""The command line as a shell and its user see it: what it computes, prints, refuses, and how it ends."""

import csv
import io
import itertools
import json
import os
import re
import signal
from itertools import repeat

import numpy as np
import pytest

from tests.support.processes import Done, Place, beam, fake, installation, place, until
from yaptide.client import Results
from yaptide.persistence.schema import HEAD
from yaptide.platforms import lock

#: PostgreSQL of the tests accepts any password, so this one is not checked; but it must not be shown.
DATABASE_PASSWORD = "s3cret-of-the-database"

SUMMARY = {
    *("job_id", "job_state", "title", "user", "sim_type", "platform", "simulator_version", "simulator_digest"),
    *("start_time", "end_time", "reason", "requested_primaries", "simulated_primaries", "stored_bytes"),
    *("bragg_peak", "no_range", "refused", "queue", "waiting", "tasks"),
}
TASK = {
    *("task_id", "task_state", "requested_primaries", "simulated_primaries"),
    *("start_time", "end_time", "last_update_time", "estimated_time"),
}
EMPTY = {"simulations_count": 0, "simulations": []}

GRID = (20, 60, 20)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with place(tmp_path_factory.mktemp("command-line") / "place") as own_place:
        yield own_place


@pytest.fixture
def fresh(tmp_path):
    with place(tmp_path / "place") as own_place:
        yield own_place


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory, postgres):
    """An installation on PostgreSQL, without tables yet."""
    url = postgres.create_database().replace("postgres@", f"postgres:{DATABASE_PASSWORD}@")
    with place(tmp_path_factory.mktemp("postgresql") / "place", FLASK_SQLALCHEMY_DATABASE_URI=url) as own_place:
        yield own_place
        assert DATABASE_PASSWORD not in own_place.said().replace(url, "")
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def on_server(empty_server):
    """An installation on PostgreSQL."""
    done = empty_server.run("db", "upgrade")
    assert (done.code, done.out) == (0, ""), done.err
    return empty_server


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    return beam(tmp_path_factory.mktemp("water") / "water", 2000, grid=GRID)


@pytest.fixture(scope="module")
def finished(there, water):
    """What `yaptide run --json` printed of a simulation of four tasks."""
    done = there.run("run", water, "--tasks", 4, "--json")
    assert done.code == 0, done.err
    return done.json


def payloads(there: Place, job_id: str) -> list[tuple[object, ...]]:
    """Everything stored as results, byte for byte."""
    pages = there.query(
        'SELECT e.name, e.compressed_data, p.page_number, p.compressed_data FROM "Page" p '
        'JOIN "Estimator" e ON e.id = p.estimator_id JOIN "Simulation" s ON s.id = e.simulation_id '
        f"WHERE s.job_id = '{job_id}' ORDER BY e.id, p.page_number"
    )
    assert len(pages) == 9
    return pages


def count(there: Place) -> int:
    return there.query('SELECT count(*) FROM "Simulation"')[0][0]


# --- what it computes


def test_without_tables_a_server_is_refused_with_the_command_that_makes_them(empty_server, water):
    commands = [(command, {}) for command in (["run", water], ["list"], ["up"], ["db", "check"])]
    for done in empty_server.run_all(commands):
        assert done.code == 1
        assert "yaptide db upgrade" in done.complaint
    assert empty_server.run("db", "current", "--json").json == {"revision": None, "head": HEAD, "condition": "empty"}


@pytest.mark.parametrize(
    ("where", "tasks", "energy", "expected", "grid", "spacing"),
    [
        ("there", 1, 70.0, 40.8, (20, 60, 20), (3, 1, 3)),
        ("there", 7, 125.0, 114.5, (24, 150, 20), (4, 1, 4)),
        ("on_server", 1, 125.0, 114.5, (20, 75, 24), (4, 2, 4)),
        ("on_server", 7, 70.0, 40.8, (24, 120, 20), (3, 0.5, 3)),
    ],
)
def test_protons_stop_at_their_range(request, tmp_path, where, tasks, energy, expected, grid, spacing):
    there = request.getfixturevalue(where)
    done = there.run("run", beam(tmp_path / "beam", 8000, energy, grid, spacing), "-n", tasks, "--json")
    assert done.code == 0, done.err
    document = done.json
    assert document["bragg_peak"]["r80_mm"] == pytest.approx(expected, abs=1.0)
    assert document["bragg_peak"]["depth_mm"] < document["bragg_peak"]["r80_mm"]
    assert (document["job_state"], document["reason"], document["sim_type"]) == ("COMPLETED", None, "mcsquare")
    assert document["requested_primaries"] == document["simulated_primaries"] == 8000
    assert [task["task_state"] for task in document["tasks"]] == ["COMPLETED"] * tasks
    assert sum(task["simulated_primaries"] for task in document["tasks"]) == 8000
    results = Results.from_document(there.run("results", document["job_id"], "--json").json)
    assert results.page("Dose grid", 0).values.size == np.prod(grid)
    assert results.page("Dose", 0).axes[0].values.size == grid[1]
    assert (results.page("Dose", 0).errors is None) == (tasks == 1)
    assert there.left() == []


def test_the_same_seeds_give_the_same_bytes(there, water, finished):
    def run(*arguments: object, **variables: str) -> list[tuple[object, ...]]:
        return payloads(there, there.run("run", water, "--json", *arguments, **variables).json["job_id"])

    assert run() == run()
    four = payloads(there, finished["job_id"])
    assert run("-n", 4, YAPTIDE_WORKERS="1") == run("-n", 4, YAPTIDE_WORKERS="2") == four != run()


# --- what it prints


def test_json_is_all_of_standard_output_and_has_the_documented_keys(there, finished, water):
    assert finished.keys() == SUMMARY
    assert {frozenset(task) for task in finished["tasks"]} == {frozenset(TASK)}
    assert (finished["title"], finished["user"], finished["platform"]) == (water.name, "alice", "DIRECT")
    assert (finished["simulator_version"], finished["simulator_digest"]) == (
        installation().version,
        installation().digest,
    )
    assert there.run("status", finished["job_id"], "--json").json == finished
    listed = there.run("list", "--json").json
    (item,) = (item for item in listed["simulations"] if item["job_id"] == finished["job_id"])
    assert listed["simulations_count"] == count(there)
    shared = item.keys() & finished.keys()
    assert shared >= {"job_id", "title", "job_state", "start_time", "end_time"}
    assert {key: item[key] for key in shared} == {key: finished[key] for key in shared}
    assert "No such local user: 'bob'" in there.run("list", "--user", "bob", "--json").complaint


def test_tables_say_what_json_says(there, finished):
    status = there.run("status", finished["job_id"])
    assert status.err == ""
    for words in (finished["job_id"], "COMPLETED", "4 COMPLETED", f"{finished['bragg_peak']['r80_mm']:.1f} mm"):
        assert words in status.out
    assert finished["job_id"] in there.run("list", "--all").out
    history = there.run("history", finished["job_id"])
    assert history.out.count("COMPLETED") == 5
    pages = there.run("results", finished["job_id"])
    assert "LET, depth curve" in pages.out


def test_results_come_in_every_form(there, finished, tmp_path):
    job_id = finished["job_id"]
    results = Results.from_document(there.run("results", job_id, "--json").json)
    arrays, picture = tmp_path / "arrays.npz", tmp_path / "picture.png"
    done = there.run("results", job_id, "--csv", "--npz", arrays, "--png", picture)
    assert done.code == 0, done.err
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 20_000
    rows = list(csv.DictReader(io.StringIO(done.out)))
    with np.load(arrays) as loaded:
        index = json.loads(str(loaded["index"]))
        shapes = [("", (60,)), (" slice", (20, 60)), (" grid", GRID)]
        for e, (name, (part, shape)) in enumerate(itertools.product(("Dose", "Energy", "LET"), shapes)):
            assert index["estimators"][e]["name"] == name + part
            page = results.page(name + part, 0)
            stem = f"e{e}_p0"
            assert loaded[f"{stem}_values"].shape == loaded[f"{stem}_errors"].shape == shape
            # In the order in which they are sent, the first axis varies fastest.
            assert np.array_equal(loaded[f"{stem}_values"].ravel(order="F"), page.values, equal_nan=True)
            assert np.array_equal(loaded[f"{stem}_errors"].ravel(order="F"), page.errors, equal_nan=True)
            assert [loaded[f"{stem}_axis{n + 1}"].size for n in range(len(shape))] == list(shape)
            own = [row for row in rows if (row["estimator"], row["page"]) == (name + part, "0")]
            assert np.array_equal(list(map(number_in, own, repeat("value"))), page.values, equal_nan=True)
            assert np.array_equal(list(map(number_in, own, repeat("error"))), page.errors, equal_nan=True)
        last = rows[-1]
        place = [np.flatnonzero(loaded[f"e8_p0_axis{n}"] == float(last[f"axis{n}"]))[0] for n in (1, 2, 3)]
        assert np.array_equal(loaded["e8_p0_values"][tuple(place)], number_in(last, "value"), equal_nan=True)


def number_in(row: dict[str, str], column: str) -> float:
    return float(row[column] or "nan")


def test_a_running_server_runs_what_the_command_line_submits(fresh, water):
    server = fresh.up()
    findings = {each["subject"]: each for each in fresh.run("doctor", "--json").json["findings"]}
    assert (findings["server"]["verdict"], findings["server"]["message"]) == ("ok", f"{server.url} responds")
    until(lambda: lock.is_held(fresh.data), "the server's executor has begun")
    done = fresh.run("run", water, "--json")
    assert (done.code, done.json["job_state"]) == (0, "COMPLETED")
    assert "Another process runs the tasks" in done.err
    logs = fresh.run("logs", done.json["job_id"][:8], "--json").json["logfiles"]
    assert "Simulation started" in logs["task-0-output.log"]


# --- how it ends


def test_of_two_runs_at_once_the_second_does_not_depend_on_the_first(fresh, water):
    fresh.run("db", "upgrade")
    short, long = fresh.run_all([(["run", water, "--json", "-n", tasks], {}) for tasks in (1, 4)])
    for done in (short, long):
        assert (done.code, done.json["job_state"]) == (0, "COMPLETED"), done.err


def test_a_failed_run_says_why_and_keeps_the_logs(fresh, tmp_path):
    """The beam passes the CT: the input is right, and its result is not."""
    folder = beam(tmp_path / "beam")
    plan = folder / "plan.txt"
    plan.write_text(plan.read_text().replace("0 0 1\n", "500 0 1\n"))
    done = fresh.run("run", folder, "-n", 2, "--json")
    assert done.code == 1
    assert done.json["job_state"] == "FAILED"
    assert done.json["reason"].startswith("2 of 2 tasks failed: 100% of the protons miss the CT")
    assert done.json["bragg_peak"] is None
    job_id = done.json["job_id"]
    logs = fresh.run("logs", job_id, "--json").json["logfiles"]
    assert set(logs) == {"task-0-output.log", "task-1-output.log"}
    assert all("generated outside the geometry" in text for text in logs.values())
    assert "generated outside the geometry" in fresh.run("logs", job_id).out
    assert done.json["reason"] in fresh.run("status", job_id, "--json").json["reason"]
    refused = fresh.run("results", job_id, "--json")
    assert (refused.code, refused.complaint) == (1, "Error: Results are unavailable")


def test_a_task_that_fails_does_not_take_the_others_with_it(fresh, tmp_path):
    script = f"mkdir '{tmp_path}/first' && {{ echo 'Error: out of luck'; exit 0; }}; exec \"$MCSQUARE\" \"$@\""
    simulators = fake(tmp_path / "simulators", script)
    source = beam(tmp_path / "beam", 4800)
    done = fresh.run("run", source, "-n", 3, "--json", YAPTIDE_SIMULATORS_DIR=str(simulators), YAPTIDE_WORKERS="1")
    assert (done.code, done.json["job_state"]) == (1, "FAILED")
    assert done.json["reason"] == "1 of 3 tasks failed: MCsquare reports: Error: out of luck"
    assert [task["task_state"] for task in done.json["tasks"]] == ["FAILED", "COMPLETED", "COMPLETED"]
    (dose, *_) = fresh.run("results", done.json["job_id"], "--json").json["estimators"]
    assert (dose["metadata"]["number_of_tasks"], dose["metadata"]["number_of_primaries"]) == ("2", "3200")


def test_ctrl_c_keeps_the_simulation_which_goes_on_later(fresh, tmp_path, water):
    gate = tmp_path / "gate"
    wait = f'while [ ! -e \'{gate}\' ]; do sleep 0.01; done; exec "$MCSQUARE" "$@"'
    fresh.variables["YAPTIDE_SIMULATORS_DIR"] = str(fake(tmp_path / "simulators", wait))
    running = fresh.start("run", water, "-n", 3, "--json")
    until(fresh.simulators, "a task runs")
    os.killpg(running.pid, signal.SIGINT)
    done = running.wait()
    assert (done.code, done.out) == (130, "")
    assert "The simulation is kept; its tasks start again with the next `yaptide up`" in done.err
    assert not fresh.simulators()
    (kept,) = fresh.run("list", "--json").json["simulations"]
    assert f"yaptide cancel {kept['job_id']}" in done.err
    before = fresh.run("status", kept["job_id"], "--json").json
    history = fresh.run("history", kept["job_id"]).out
    assert [task["task_state"] for task in before["tasks"]] == ["PENDING"] * 3, history
    gate.touch()
    worker = fresh.start("work")
    until(lambda: fresh.query('SELECT job_state FROM "Simulation"') == [("COMPLETED",)], "it has completed")
    assert worker.signal(signal.SIGTERM) == Done(0, "", "")
    after = fresh.run("status", kept["job_id"], "--json").json
    assert after["simulated_primaries"] == after["requested_primaries"] == before["requested_primaries"]


def test_ctrl_c_says_that_another_process_goes_on(fresh, tmp_path, water):
    fresh.variables["YAPTIDE_SIMULATORS_DIR"] = str(fake(tmp_path / "simulators", "exec sleep 600"))
    fresh.run("db", "upgrade")
    fresh.start("work")
    until(lambda: lock.is_held(fresh.data), "it works")
    running = fresh.start("run", water, "--json")
    until(fresh.simulators, "a task runs")
    os.killpg(running.pid, signal.SIGINT)
    done = running.wait()
    assert (done.code, done.out) == (130, "")
    assert "The simulation is kept; another process continues it" in done.err
    assert fresh.simulators()


def test_cancel_and_delete(fresh, tmp_path):
    # One that only waits: what is canceled in tests/acceptance/test_crash_recovery.py computes.
    fresh.variables["YAPTIDE_SIMULATORS_DIR"] = str(fake(tmp_path / "simulators", "exec sleep 600"))
    running = fresh.start("run", beam(tmp_path / "beam"), "-n", 2, "--json")
    until(fresh.simulators, "a task runs")
    (job,) = fresh.run("list", "--json").json["simulations"]
    job_id = job["job_id"]
    refused = fresh.run("delete", job_id, "--yes")
    assert (refused.code, refused.complaint) == (
        1,
        f"Error: The simulation is RUNNING: cancel it first with yaptide cancel {job_id}",
    )
    assert fresh.run("results", job_id).complaint == "Error: Pages metadata not found"
    assert fresh.run("cancel", job_id) == Done(0, "", "Canceled the simulation\n")
    until(lambda: not fresh.simulators(), "the simulators are stopped", 20)
    done = running.wait()
    assert (done.code, done.json["job_state"]) == (1, "CANCELED")
    assert {task["task_state"] for task in done.json["tasks"]} == {"CANCELED"}
    assert fresh.run("cancel", job_id) == Done(0, "", "Nothing to cancel: the simulation is CANCELED\n")
    asked = fresh.run("delete", job_id)
    assert asked.code == 1
    assert f"Delete {job_id} of alice" in asked.err
    assert fresh.run("list", "--json").json["simulations_count"] == 1
    assert fresh.run("delete", job_id, "--yes") == Done(0, "", "Deleted the simulation\n")
    assert fresh.run("list", "--json").json == EMPTY
    assert fresh.left() == []


# --- users, simulators, database


def test_users_are_added_changed_and_removed(fresh):
    def users(*arguments: object, **options: str) -> Done:
        return fresh.run("users", *arguments, **options)

    secret = ("--password-file", "-")
    added = users("add", "bob", *secret, stdin="hunter2-hunter2\n")
    assert (added.code, added.out) == (0, ""), added.err
    refused = users("add", "bob", *secret, stdin="another one")
    assert (refused.code, refused.complaint) == (1, "Error: User existed")
    for name, password in (("carol", "\n"), ("car\nol", "x"), ("carol", "x" * 2000)):
        refused = users("add", name, *secret, stdin=password)
        assert refused.code == 1
        assert refused.complaint
    refused = users("passwd", "nobody", *secret, stdin="x")
    assert refused.code == 1
    assert "nobody" in refused.complaint
    before = fresh.query('SELECT password_hash FROM "YaptideUser"')
    assert users("passwd", "bob", *secret, stdin="hunter3-hunter3").code == 0
    assert fresh.query('SELECT password_hash FROM "YaptideUser"') != before
    (bob,) = users("list", "--json").json["users"]
    assert (bob["username"], bob["auth_provider"], bob["simulations"]) == ("bob", "YaptideUser", 0)
    assert users("remove", "bob").code == 1  # the prompt gets no answer
    assert users("list", "--json").json["users"] == [bob]
    removed = users("remove", "bob", "--yes")
    assert (removed.code, removed.out) == (0, "")
    assert users("list", "--json").json == {"users": []}
    assert "hunter" not in fresh.said()


def test_simulators_are_listed_and_a_missing_one_is_said_before_anything_is_stored(there, finished, water, tmp_path):
    (fluka, mcsquare, *others) = there.run("simulators", "list", "--json").json["simulators"]
    assert mcsquare == {
        "name": "mcsquare",
        "title": "MCsquare",
        "version": installation().version,
        "program": str(installation().program),
        "digest": installation().digest,
        "note": None,
    }
    assert [(other["name"], other["version"]) for other in (fluka, *others)] == [
        ("fluka", None),
        ("shieldhit", None),
        ("topas", None),
    ]
    before = count(there)
    refused = there.run("run", water, YAPTIDE_SIMULATORS_DIR=str(tmp_path))
    assert refused.code == 1
    assert "yaptide simulators install mcsquare" in refused.complaint
    assert count(there) == before


@pytest.mark.parametrize("where", ["there", "on_server"])
def test_the_tables_are_current_and_right(request, where, finished):
    there = request.getfixturevalue(where)
    assert "is up to date" in there.run("db", "upgrade").err
    assert there.run("db", "current", "--json").json == {"revision": HEAD, "head": HEAD, "condition": "current"}
    assert there.run("db", "check").code == 0
    shown, whole = there.run("db", "url").out.strip(), there.run("db", "url", "--show-password").out.strip()
    assert whole == there.url
    assert shown == there.url.replace(DATABASE_PASSWORD, "***")


def test_an_oblique_beam_stops_at_its_range_and_two_beams_say_that_they_have_none(there, tmp_path):
    """At gantry 90 and couch 45, 9 mm from an edge of the grid. Along x its protons come 28.9 mm far."""
    oblique = beam(tmp_path / "oblique", 8000, 70.0, (31, 47, 53), (3.1, 2.7, 2.3))
    plan = (oblique / "plan.txt").read_text().replace("Angle\n0.0", "Angle\n90").replace("Angle\n0", "Angle\n45")
    plan = re.sub(r"(IsocenterPosition\n).*", r"\g<1>40 60 65", plan)
    (oblique / "plan.txt").write_text(plan)
    done = there.run("run", oblique, "-n", 2, "--json")
    assert done.code == 0, done.err
    assert done.json["bragg_peak"]["r80_mm"] == pytest.approx(40.8, abs=0.5)

    field = plan[plan.index("#FIELD") :]
    (oblique / "plan.txt").write_text(plan.replace("Fields\n1", "Fields\n2") + field.replace("Angle\n90", "Angle\n270"))
    done = there.run("run", oblique, "-n", 2, "--json")
    assert done.code == 0, done.err
    results = Results.from_document(there.run("results", done.json["job_id"], "--json").json)
    curve, cut = results.page("Dose", 0), results.page("Dose slice", 0)
    assert curve.metadata["no_range"] == "2 fields: a range is defined for one beam only"
    assert curve.metadata["beam_direction"] == cut.metadata["beam_direction"] == "0.707107 0 0.707107"


# --- what it refuses

REFUSED = {
    ("run", "missing"): "No such input directory: missing",
    ("run", "empty"): "No input files in empty",
    ("run", "typo"): "did you mean Num_Primaries?",
    ("run", "mirrored"): "ct.mhd, line 5: TransformMatrix turns or mirrors the CT, which MCsquare would ignore",
    ("run", "water", "--sim-type", "geant"): "Unknown simulator 'geant'",
    ("run", "water", "--tasks", "0"): "The number of tasks must be between 1 and 10000",
    ("run", "water", "--tasks", "-1"): "The number of tasks must be between 1 and 10000",
    ("run", "water", "--tasks", str(10**9)): "The number of tasks must be between 1 and 10000",
    ("status", "unknown"): "Job with provided ID does not exist",
    ("results", "unknown", "--json"): "Job with provided ID does not exist",
    ("logs", "unknown"): "Job with provided ID does not exist",
    ("cancel", "unknown"): "Job with provided ID does not exist",
    ("delete", "unknown", "--yes"): "Job with provided ID does not exist",
    ("users", "add", "bob", "--password-file", "missing"): "No such file or directory: missing",
}
USAGE = [
    ("run", ".", "--tasks", "abc"),
    ("run", ".", "--no-such-option"),
    ("run", ".", "--png", "picture.xyz"),
    ("run",),
    ("status",),
    ("no-such-command",),
    ("results", "some-job", "--json", "--csv"),
    ("up", "--port", "70000"),
]
SETTINGS = {
    ("FLASK_SQLALCHEMY_DATABASE_URI", "nonsense:hunter2"): "Invalid database URL",
    ("FLASK_SQLALCHEMY_DATABASE_URI", "mysql://me:hunter2@localhost/x"): "Unsupported database 'mysql'",
    ("FLASK_SQLALCHEMY_DATABASE_URI", "postgresql://me:hunter2@127.0.0.1:1/x"): "Connection refused",
    ("FLASK_SQLALCHEMY_DATABASE_URI", "sqlite:////proc/no/such.db"): "unable to open database file",
    ("YAPTIDE_DATA_DIR", "/proc/no/such/folder"): "No such file or directory",
    ("YAPTIDE_DATA_DIR", "a-file/folder"): "Not a directory",
    ("YAPTIDE_WORKERS", "hunter2"): "Invalid setting YAPTIDE_WORKERS",
    ("FLASK_SECRET_KEY", "hunter2"): "FLASK_SECRET_KEY must have 32 characters or more",
}


@pytest.fixture(scope="module")
def refusals(there, finished):
    """What all of the commands above answered, several of which ran at once; and they have changed nothing."""
    (there.folder / "empty").mkdir()
    (there.folder / "a-file").touch()
    beam(there.folder / "water")
    mirrored = beam(there.folder / "mirrored")
    (mirrored / "ct.txt").unlink()
    (mirrored / "ct.raw").write_bytes(bytes(2 * 20 * 60 * 20))
    (mirrored / "ct.mhd").write_text(
        "NDims = 3\nDimSize = 20 60 20\nElementSpacing = 3 1 3\nElementType = MET_SHORT\n"
        "TransformMatrix = 1 0 0 0 -1 0 0 0 -1\nElementDataFile = ct.raw\n"
    )
    typo = beam(there.folder / "typo") / "config.txt"
    typo.write_text(typo.read_text().replace("Num_Primaries", "Num_Primarys"))
    commands = []
    for number, command in enumerate((*REFUSED, *USAGE)):  # one database; folders apart, so that all may run tasks
        folder = str(there.folder / f"data-{number}")
        commands.append((command, {"FLASK_SQLALCHEMY_DATABASE_URI": there.url, "YAPTIDE_DATA_DIR": folder}))
    commands += [(("run", "water"), dict([setting])) for setting in SETTINGS]
    before = count(there), there.query('SELECT username FROM "User" ORDER BY 1')
    answers = there.run_all(commands)
    assert (count(there), there.query('SELECT username FROM "User" ORDER BY 1')) == before
    return dict(zip((*REFUSED, *USAGE, *SETTINGS), answers, strict=True))


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_what_cannot_be_done_is_one_line(refusals, command):
    assert refusals[command].code == 1
    assert REFUSED[command] in refusals[command].complaint


@pytest.mark.parametrize("command", USAGE, ids=" ".join)
def test_wrong_usage_ends_with_2(refusals, command):
    done = refusals[command]
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("setting", SETTINGS, ids="=".join)
def test_settings_that_cannot_be_used_are_one_line(refusals, setting):
    assert refusals[setting].code == 1
    assert SETTINGS[setting] in refusals[setting].complaint
    assert "hunter2" not in refusals[setting].err
