"""The pages for a new simulation, the operator page and the web front end under /editor, in a real browser."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import projects
from tests.support.pages import POSTGRESQL, SQLITE, check_page, chromium, open_page, servers, sign_in
from tests.support.ports import free_port
from tests.support.processes import PASSWORD, Place, Server, installation, place
from yaptide.services.examples import EXAMPLE

#: What such a front end does: it calls the API, and runs a worker made of a blob, WebAssembly and inline styles.
APPLICATION = """
const say = (name, text) => { document.getElementById(name).textContent = text; };
document.getElementById("styled").setAttribute("style", "color: rgb(1, 2, 3)");
fetch("%(url)s/auth/status", { credentials: "include" }).then((answer) => say("api", answer.status));
const source = new Blob(["postMessage('works')"], { type: "text/javascript" });
new Worker(URL.createObjectURL(source)).onmessage = (event) => say("worker", event.data);
WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])).then(() => say("wasm", "works"));
"""
PAGE = """<!doctype html><html><head><title>Editor</title></head><body><p id="api"></p><p id="worker"></p><p id="wasm">
</p><p id="styled">x</p><p id="inline"></p><script>document.getElementById("inline").textContent = "works"</script>
<script src="/editor/static/js/main.0a1b2c3d.js"></script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def on(tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Server]]:
    folder, port = tmp_path_factory.mktemp("pages"), free_port()
    script = folder / "build/static/js/main.0a1b2c3d.js"
    script.parent.mkdir(parents=True)
    script.write_text(APPLICATION % {"url": f"http://127.0.0.1:{port}"})
    (folder / "build/index.html").write_text(PAGE)

    def start(there: Place) -> Server:
        front_end = ("--ui", folder / "build") if there.folder.name == SQLITE else ()
        return there.up("--no-executor", *front_end, port=port if front_end else 0).register()

    find_postgres = partial(request.getfixturevalue, "postgres")
    variables = {"YAPTIDE_FOREIGN_WORKERS": "mcsquare", "YAPTIDE_ADMINS": "olga"}
    with servers(folder, start, find_postgres, **variables) as serve:
        yield serve


@pytest.fixture(params=[SQLITE])
def server(on: Callable[[str], Server], request: pytest.FixtureRequest) -> Server:
    """The server on SQLite, or on the databases that `parametrize("server", ..., indirect=True)` chooses."""
    return on(request.param)


def _password(folder: Path) -> Path:
    path = folder / "password"
    path.write_text(PASSWORD)
    return path


@contextmanager
def at(browser: Browser, server: Server, path: str, **who: str) -> Iterator[Page]:
    """A page of a user who is signed in."""
    with open_page(browser, server) as page:
        sign_in(page, **who)
        page.goto(path)
        yield page


def copy_example(folder: Path, **changes: tuple[str, str]) -> Path:
    """The example in a new folder, with a part of some files exchanged for another."""
    folder.mkdir()
    for path in EXAMPLE.iterdir():
        text = path.read_text()
        (folder / path.name).write_text(text.replace(*changes[path.stem]) if path.stem in changes else text)
    return folder


def test_one_click_runs_the_example_at_the_first_visit(browser: Browser, server: Server) -> None:
    with at(browser, server, "/new") as page:
        check_page(page, "new")
        page.get_by_role("button", name="Run the example").dblclick()
        page.get_by_role("heading", name=EXAMPLE.name).wait_for()
        page.goto("/new")
        expect(page.get_by_text("Your first simulation?")).to_have_count(0)
        page.goto(f"/simulations?title={EXAMPLE.name}")
        expect(page.get_by_role("link", name=EXAMPLE.name, exact=True)).to_have_count(1)


@pytest.mark.parametrize("server", [SQLITE, POSTGRESQL], indirect=True)
def test_a_folder_is_checked_seen_mended_and_submitted(browser: Browser, server: Server, tmp_path: Path) -> None:
    wrong = copy_example(tmp_path / "wrong", plan=("###GantryAngle\n", "###GantryAngle\n<b>north</b> "))
    with at(browser, server, "/new") as page:
        page.get_by_label("A folder").set_input_files(wrong)
        expect(page.get_by_role("alert")).to_contain_text("GantryAngle in degrees must be a number")
        expect(page.locator("mark")).to_contain_text("<b>north</b>")
        check_page(page, "wrong-input")
        named = {"name": "<img src=x onerror=alert(1)>", "mimeType": "text/plain", "buffer": b"x"}
        page.get_by_label("Files, a zip archive or a project").set_input_files(named)  # type: ignore[arg-type]
        expect(page.get_by_role("alert")).to_contain_text("'<img src=x onerror=alert(1)>' is not allowed")
        expect(page.locator("#chosen")).to_contain_text("<img src=x")
        page.get_by_label("A folder").set_input_files(copy_example(tmp_path / "mended"))
        expect(page.get_by_role("heading", name="Ready to submit")).to_be_visible()
        expect(page.get_by_role("img", name="Slice at z = 60 mm")).to_be_visible()
        check_page(page, "checked-input")
        page.get_by_label("Number of tasks").fill("3")
        page.get_by_role("button", name="Submit simulation").click()
        page.get_by_role("heading", name="mended").wait_for()


def test_a_zip_archive_and_a_project_are_taken(browser: Browser, server: Server, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "beam.zip", "w") as archive:
        for path in EXAMPLE.iterdir():
            archive.write(path, f"beam/{path.name}")
    (tmp_path / "project.json").write_text(json.dumps(projects.water_phantom()))
    with at(browser, server, "/new") as page:
        files = page.get_by_label("Files, a zip archive or a project")
        files.set_input_files(tmp_path / "project.json")
        expect(page.get_by_text("Not simulated:")).to_be_visible()
        expect(page.locator(".legend")).to_contain_text("WATER, LIQUID")
        check_page(page, "checked-project")
        files.set_input_files(tmp_path / "beam.zip")
        expect(page.locator("#check")).to_contain_text("6 files")
        page.get_by_role("button", name="Submit simulation").click()
        page.get_by_role("heading", name="beam").wait_for()


def test_files_can_be_dropped(browser: Browser, server: Server) -> None:
    texts = {path.name: path.read_text() for path in EXAMPLE.iterdir()}
    with at(browser, server, "/new") as page:
        dropped = page.evaluate_handle(
            """(texts) => {
              const transfer = new DataTransfer();
              for (const [name, text] of Object.entries(texts)) transfer.items.add(new File([text], name));
              return transfer;
            }""",
            texts,
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        expect(page.get_by_role("heading", name="Ready to submit")).to_be_visible()
        expect(page.locator("#chosen li")).to_have_count(len(texts))


def test_without_scripts_a_form_is_sent_and_answered(browser: Browser, server: Server, tmp_path: Path) -> None:
    wrong = copy_example(tmp_path / "wrong", plan=("###GantryAngle\n", "###GantryAngle\nnorth "))
    with open_page(browser, server, java_script_enabled=False) as page:
        sign_in(page)
        page.goto("/new")
        files = page.get_by_label("Files, a zip archive or a project")
        files.set_input_files(sorted(wrong.iterdir()))
        page.get_by_role("button", name="Check input").click()
        expect(page.get_by_role("alert")).to_contain_text("GantryAngle in degrees must be a number")
        files.set_input_files(sorted(EXAMPLE.iterdir()))
        page.get_by_label("Title").fill("No scripts")
        page.get_by_role("button", name="Submit simulation").click()
        page.get_by_role("heading", name="No scripts").wait_for()


def test_operators_see_how_the_installation_does(browser: Browser, server: Server, tmp_path: Path) -> None:
    server.place.run("users", "add", "olga", "--password-file", _password(tmp_path))
    with at(browser, server, "/simulations", username="olga") as page:
        page.get_by_role("link", name="Operator").click()
        expect(page.locator("#section-users")).to_contain_text("alice")
        check_page(page, "operator")
        with page.expect_response("**/operator/queue") as answered:
            pass
        assert answered.value.status == 200


def test_the_web_front_end_runs_at_the_same_origin(browser: Browser, server: Server) -> None:
    assert f"The web front end is at {server.url}/editor" in server.running.said
    with at(browser, server, "/editor/some/route") as page:
        expect(page.locator("#api")).to_have_text("200")
        for name in ("worker", "wasm", "inline"):
            expect(page.locator(f"#{name}")).to_have_text("works")
        expect(page.locator("#styled")).to_have_css("color", "rgb(1, 2, 3)")


@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_from_the_first_visit_to_the_curve_of_the_example(
    browser: Browser, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Register, run the example by one click, wait for it under the open page, and look at its depth-dose curve."""
    installation()
    settings = {}
    if database == POSTGRESQL:
        settings["FLASK_SQLALCHEMY_DATABASE_URI"] = request.getfixturevalue("postgres").create_database()
    with place(tmp_path / "place", **settings) as there:
        there.run("db", "upgrade")
        with open_page(browser, there.up()) as page:
            page.get_by_role("link", name="Register").click()
            page.get_by_label("Username").fill("marie")
            page.get_by_label("Password", exact=True).fill(PASSWORD)
            page.get_by_label("Password again").fill(PASSWORD)
            page.get_by_role("button", name="Register").click()
            page.get_by_role("link", name="New simulation").first.click()
            page.get_by_role("button", name="Run the example").click()
            expect(page.get_by_role("status")).to_contain_text("Completed", timeout=120_000)
            page.get_by_role("link", name="Show results").click()
            page.locator("[data-ready]").wait_for()
            expect(page.locator("dl")).to_contain_text(re.compile(r"R80\s*15[78]\.\d mm"))
