"""The pages for a new simulation: what is checked, shown, refused and submitted."""

import io
import re
import stat
from dataclasses import replace
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson
import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from tests.support import payloads, projects
from tests.support.api import cookie_name, counts, of_keycloak, sign_in
from tests.support.routes import form_token
from yaptide.services import clusters, sessions
from yaptide.services.clusters import Cluster
from yaptide.services.examples import EXAMPLE
from yaptide.simulators.mcsquare.sample import water_sample

pytestmark = pytest.mark.parametrize("database", ["memory"], indirect=True)


def parts(files):
    contents = {name: data if isinstance(data, bytes) else data.encode() for name, data in files.items()}
    return [FileStorage(io.BytesIO(data), name) for name, data in contents.items()]


def send(client, address, files=(), *, htmx=False, **fields):
    """Send the form with files (name to content), as a browser does, with htmx or without."""
    # In one piece: the test client would leave a large body in a file that it does not close.
    boundary, body = encode_multipart({"csrf_token": form_token(client), "files": parts(dict(files)), **fields})
    headers = {"HX-Request": "true"} if htmx else {}
    return client.post(address, data=body, headers=headers, content_type=f"multipart/form-data; boundary={boundary}")


def check(client, files=(), **fields):
    answer = send(client, "/new/check", files, htmx=True, **fields)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.text


def text_of(page):
    """What a page says, without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def archive(files, kind=ZIP_DEFLATED):
    file = io.BytesIO()
    with ZipFile(file, "w", kind) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return {"case.zip": file.getvalue()}


def in_folder(files, folder="case"):
    return {f"{folder}/{name}": text for name, text in files.items()}


def submitted(client, answer):
    """The simulation that a page has led to: its input, its title and its tasks."""
    assert (answer.status_code, answer.location.split("/")[1]) == (303, "simulations"), text_of(answer.text)
    query = {"job_id": answer.location.rpartition("/")[2]}
    (listed,) = client.get("/user/simulations").json["simulations"]
    tasks = client.get("/jobs", query_string=query).json["job_tasks_status"]
    return client.get("/inputs", query_string=query).json["input"], listed["title"], len(tasks)


@pytest.fixture
def kim(app, backend):
    """A user of Keycloak who is signed in, where there is a cluster."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPS7Ng9ygUjuzx2HfXtGPN4kBuoq1ArzE5g3X8ZHnQs7"
    simulators = {"mcsquare": "/opt/mcsquare"}
    ares = Cluster("ares", "login.example.org", host_key=key, scratch_folder="/scratch/{user}", simulators=simulators)
    clusters.add_cluster(backend.database, ares)
    client = app.test_client()
    session = sessions.begin_session(backend, of_keycloak(backend, "kim"))
    client.set_cookie(cookie_name(app, "access_token"), session.access.text)
    return client


@pytest.mark.parametrize("packed", ["files", "folder", "zip", "zip of a folder"])
def test_input_files_are_taken_however_they_come(signed_in, packed):
    files = water_sample(32_000)
    sent = {
        "files": files,
        "folder": in_folder(files),
        "zip": archive(files),
        "zip of a folder": archive(in_folder(files)),
    }
    before = text_of(check(signed_in, sent[packed]))
    assert "Ready to submit Simulator MCsquare Primaries 32,000" in before
    given, title, tasks = submitted(signed_in, send(signed_in, "/new", sent[packed]))
    assert given["input_files"] == files
    assert title == {"files": "Untitled"}.get(packed, "case")
    assert f"Tasks {tasks} (" in before


def test_a_binary_file_travels_as_it_does_from_the_command_line(signed_in):
    given, _, _ = submitted(signed_in, send(signed_in, "/new", {**water_sample(), "more.raw": b"\0\1"}, title="t"))
    assert given["input_files"]["more.raw.base64"] == "AAE="


def test_a_project_is_converted_and_what_is_left_out_is_said(signed_in):
    document = orjson.dumps(projects.water_phantom())
    said = text_of(check(signed_in, {"editor.json": document}))
    assert "Not simulated: Output &#39;z_profile&#39;, quantity &#39;FluenceProtons&#39;" in said
    assert "The project was converted for MCsquare:" in said
    assert "WATER, LIQUID" in said
    given, _, _ = submitted(signed_in, send(signed_in, "/new", {"editor.json": document}))
    assert given["input_json"] == projects.water_phantom()


def test_a_problem_is_shown_at_its_line_and_nothing_is_stored(database, signed_in):
    files = water_sample()
    files["plan.txt"] = files["plan.txt"].replace("0 0 1\n", "0 <b>x</b> 1\n")
    number = files["plan.txt"].splitlines().index("0 <b>x</b> 1") + 1
    before = counts(database)
    for address in ("/new", "/new/check"):
        for htmx in (True, False):
            answer = send(signed_in, address, files, htmx=htmx)
            assert answer.status_code == (200 if htmx else 400)
            assert f"plan.txt, line {number}: The spot&#39;s position in mm must be a number" in answer.text
            assert f'<mark><span class="number">{number}</span>0 &lt;b&gt;x&lt;/b&gt; 1</mark>' in answer.text
            assert "<b>x" not in answer.text
    assert counts(database) == before


def test_what_is_wrong_is_what_the_api_says(signed_in):
    files = {"a.txt": "nothing known"}
    body = {"input_type": "files", "input_files": files, "ntasks": 1, "sim_type": "common", "title": "t"}
    message = signed_in.post("/jobs/direct", json=body).json["message"]
    assert message in text_of(check(signed_in, files))


def test_hidden_files_backups_and_subfolders_are_left_out_with_a_remark(signed_in):
    litter = {".git/config": "x", ".DS_Store": "x", "plan.txt~": "x", "old/plan.txt": "x", "Thumbs.db": "x"}
    for sent in (in_folder({**water_sample(), **litter}), archive(in_folder({**water_sample(), **litter}))):
        said = text_of(check(signed_in, sent))
        assert "Ready to submit" in said
        assert "Left out, files in subfolders: old/plan.txt." in said
        assert "Left out, hidden files and backups: case/.git/config, case/.DS_Store" in said


def test_text_is_decoded_as_the_command_line_does(signed_in):
    files = water_sample()
    files |= {"plan.txt": files["plan.txt"].encode("utf-16"), "BDL.txt": "\ufeff" + files["BDL.txt"]}
    files |= {"HU_Density.txt": "# Luft, 20 °C\n".encode("latin-1") + files["HU_Density.txt"].encode()}
    assert "Ready to submit" in text_of(check(signed_in, files))
    files["plan.txt"] = "150 MeV für\n".encode("latin-1")
    assert "plan.txt, line 1: is not UTF-8" in text_of(check(signed_in, files))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "There are no input files"),
        ({".hidden": "x"}, "There are no input files: choose files, a folder or a zip archive. Left out"),
        ({"a/x.txt": "1", "b/x.txt": "2"}, "There are no input files"),
        ({"x.json": "[1]"}, "is not a project of the web editor"),
        ({"x.json": "{"}, "is not JSON"),
        ({"x.zip": b"PK\3\4 no archive"}, "cannot be unpacked"),
        ({"x.zip": b"PK\3\4 no archive", "y.txt": "1"}, "Choose either one zip archive or the files"),
        ({"x.raw": b"\0", "x.raw.base64": "AA=="}, "There are two files &#39;x.raw.base64&#39;"),
        ({"../../etc/passwd": "x"}, "There are no input files"),
        ({"a b?.txt": "x"}, "is not allowed"),
    ],
)
def test_what_is_no_input_is_refused_in_words(signed_in, files, said):
    assert said in text_of(check(signed_in, files))


def test_hostile_archives_are_refused(signed_in):
    link = ZipInfo("plan.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with ZipFile(file, "w") as opened:
        opened.writestr(link, "/etc/passwd")
    assert "links cannot be taken" in check(signed_in, {"x.zip": file.getvalue()})
    bomb = archive({"config.txt": b"0" * (2 << 20)})  # a body has 1 MiB at most here
    assert len(bomb["case.zip"]) < 10_000
    assert "have more than 1048576 bytes" in check(signed_in, bomb)
    many = archive({f"{n}.txt": "" for n in range(600)})
    assert "more than 500 entries" in check(signed_in, many)


@pytest.mark.parametrize("tasks", ["0", "-1", "1.5", "x", "9" * 30, "10001"])
def test_a_number_of_tasks_that_cannot_be_is_refused(signed_in, tasks):
    assert "number of tasks" in check(signed_in, water_sample(), ntasks=tasks).lower()


def test_title_tasks_and_simulator_are_those_of_the_form(signed_in):
    answer = send(signed_in, "/new", water_sample(), title=" <i>Water</i> ", ntasks="3", sim_type="mcsquare")
    assert submitted(signed_in, answer)[1:] == ("<i>Water</i>", 3)


def test_a_project_with_a_title_that_is_too_long_is_taken_with_its_beginning(signed_in):
    document = projects.water_phantom()
    document["project"]["title"] = "x" * 600
    _, title, _ = submitted(signed_in, send(signed_in, "/new", {"p.json": orjson.dumps(document)}))
    assert title.startswith("x" * 400)
    assert len(title) <= 500


def test_one_click_runs_the_example(signed_in):
    assert "Your first simulation?" in signed_in.get("/new").text
    answer = signed_in.post("/new/example", data={"csrf_token": form_token(signed_in)})
    given, title, _ = submitted(signed_in, answer)
    assert title == EXAMPLE.name
    assert given["input_files"] == {path.name: path.read_text() for path in EXAMPLE.iterdir()}
    page = signed_in.get("/new").text
    assert "Your first simulation?" not in page
    assert "Run the example" in page


def test_with_htmx_the_browser_goes_to_the_simulation(signed_in):
    answer = send(signed_in, "/new", water_sample(), htmx=True)
    assert answer.status_code == 204
    assert answer.headers["HX-Redirect"].startswith("/simulations/")


def form_key(client):
    (key,) = set(re.findall(r'name="form_key" value="([^"]+)"', client.get("/new").text))
    return key


def test_a_form_that_is_sent_twice_submits_once(signed_in):
    key, other = form_key(signed_in), form_key(signed_in)
    files = water_sample()
    asked = ((key, files), (key, files), (key, files | {"plan.txt": files["plan.txt"] + "\n"}), (other, files))
    answers = [send(signed_in, "/new", content, form_key=key) for key, content in asked]
    assert {answer.status_code for answer in answers} == {303}
    first, again, changed, anew = (answer.location for answer in answers)
    assert again == first
    assert len({first, changed, anew}) == 3
    examples = [send(signed_in, "/new/example", form_key=key).location for key in (key, key, other)]
    assert examples[0] == examples[1] != examples[2]
    assert signed_in.get("/user/simulations").json["simulations_count"] == 5


@pytest.mark.parametrize("key", ["", "x" * 5000, "<b>"])
def test_the_key_of_a_form_may_be_anything_short(signed_in, key):
    assert send(signed_in, "/new", water_sample(), form_key=key).status_code == 303


@pytest.mark.parametrize("key", ["a b", "\n", "\0", "ä"])
def test_a_key_that_no_form_has_is_refused(signed_in, key):
    answer = send(signed_in, "/new", water_sample(), form_key=key)
    assert (answer.status_code, "Invalid Idempotency-Key" in answer.text) == (400, True)
    assert send(signed_in, "/new/example", form_key=key).status_code == 400


def test_the_quota_is_checked_before_anything_is_sent_off(backend, signed_in, database):
    with database.writing() as connection:
        connection.exec_driver_sql('UPDATE "User" SET quota_bytes = 10')
    assert "Your simulations use 0 of 10 bytes" in check(signed_in, water_sample())


def test_who_can_run_it_is_asked_before_anything_is_sent_off(app, backend, signed_in):
    app.extensions["yaptide"] = replace(backend, foreign_workers=frozenset())
    assert "SHIELD-HIT12A is not installed" in check(signed_in, payloads.shieldhit_files())
    app.extensions["yaptide"] = backend
    assert "Waiting for an external worker" in check(signed_in, payloads.shieldhit_files())


def test_clusters_are_for_users_of_keycloak(kim, app, signed_in):
    assert "Cluster ares" in kim.get("/new").text
    assert "Cluster ares" not in signed_in.get("/new").text
    assert "Ready to submit" in check(kim, water_sample(), where="ares")
    assert "Unknown cluster &#39;x&#39;" in check(kim, water_sample(), where="x")
    assert "Keycloak" in check(signed_in, water_sample(), where="ares")
    assert send(signed_in, "/new", water_sample(), where="ares").status_code == 403
    answer = send(kim, "/new", water_sample(), where="ares")
    assert answer.location.endswith("BATCH")


def test_a_large_body_is_only_looked_at_with_a_session(app, client, signed_in):
    large = {**water_sample(), "large.txt": "x" * (900 << 10)}
    assert "Ready to submit" in check(signed_in, large)
    too_large = send(signed_in, "/new/check", {"large.txt": "x" * (1 << 20)})
    assert (too_large.status_code, too_large.mimetype) == (413, "text/html")
    stranger = app.test_client()
    answer = stranger.post("/new", data=b"x" * (2 << 20), content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, answer.location.split("?")[0]) == (303, "/sign-in")


def test_a_session_whose_access_token_has_ended_goes_on(app, backend):
    client = sign_in(app, "bob")
    client.delete_cookie(cookie_name(app, "access_token"))
    assert "Ready to submit" in check(client, water_sample())
    assert client.get_cookie(cookie_name(app, "access_token")) is not None


def test_the_picture_shows_the_beam_in_the_geometry(signed_in):
    files = water_sample()
    files["ct.txt"] += "box 0 120 150 200 0 120 -1000\n"
    page = check(signed_in, files)
    assert "Slice at z = 60 mm, through the isocenter" in text_of(page)
    assert "Enters at (60, 200, 60) mm, isocenter at (60, 100, 60) mm" in text_of(page)
    shapes = dict(re.findall(r'<path d="([^"]*)" fill="(#[0-9a-f]*)"', page))
    assert len(shapes) == 2
    air, water = (next(path for path, fill in shapes.items() if fill == colour) for colour in ("#1e1e1e", "#747474"))
    # y runs from left (0 mm) to right (200 mm), 460 pixels: air is on the right, where the beam comes in.
    assert water == "M76.0 12.0h345.0v276.0h-345.0z"
    assert air == "M421.0 12.0h115.0v276.0h-115.0z"
    assert re.search(r'<path d="M536.0 150.0L76.0 150.0" class="beam"', page)
