"""The server below a path, behind a real nginx: everything that pages, the API and the Python client use is there."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import expect

from tests.support.nginx import nginx
from tests.support.pages import chromium, open_page, sign_in
from tests.support.processes import PASSWORD, USER, Server, place
from yaptide.client import Client
from yaptide.services.examples import EXAMPLE

DOCUMENT = (Path(__file__).parents[2] / "docs/serving.md").read_text()


def locations(port: int, *, is_kept: bool) -> str:
    """The configuration in the document, for a server at `port`, whose proxy keeps or removes the path."""
    section = DOCUMENT.partition("### Below a path\n")[2]
    block = re.search(r"^```nginx\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]
    address = "http://127.0.0.1:5000;"
    assert block.count(address) == 1
    return block.replace(address, f"http://127.0.0.1:{port}{'' if is_kept else '/'};")


def test_everything_is_below_the_path(tmp_path) -> None:
    variables = {"YAPTIDE_PATH_PREFIX": "/yaptide/", "YAPTIDE_PROXIES": "1", "YAPTIDE_FOREIGN_WORKERS": "mcsquare"}
    with place(tmp_path / "place", **variables) as there:
        server = there.up("--no-executor").register()
        port = urlsplit(server.url).port
        for is_kept in (False, True):
            with nginx(tmp_path / f"nginx-{is_kept}", locations(port, is_kept=is_kept)) as url:
                behind = Server(there, server.running, f"{url}/yaptide")
                check_client(behind)
                if is_kept:
                    check_pages(behind)
                else:
                    assert httpx.get(f"{behind.url}/simulations").headers["Location"].startswith("/yaptide/sign-in?")


def check_client(server: Server) -> None:
    """A large input, too, whose sender is known before its body is received."""
    with Client(server.url) as client:
        client.sign_in(USER, PASSWORD)
        files = {path.name: path.read_text() for path in EXAMPLE.iterdir()}
        files["ct.txt"] += "# more\n" * 300_000
        assert client.check(files)["is_valid"]
        body = {"input_type": "files", "input_files": files, "sim_type": "mcsquare", "ntasks": 1, "title": "Large"}
        assert client.job(client.call("POST", "/jobs/direct", json=body)["job_id"]).status()["job_state"] == "PENDING"


def check_pages(server: Server) -> None:
    """From the first page to the end of a session, with all that the pages ask for."""
    asked: list[str] = []
    with chromium() as browser, open_page(browser, server) as page:
        page.on("response", lambda answer: asked.append(f"{answer.status} {urlsplit(answer.url).path}"))
        assert urlsplit(page.url).path == "/yaptide/sign-in"
        sign_in(page)
        assert {cookie["path"] for cookie in page.context.cookies()} == {"/yaptide"}
        assert page.locator("nav [aria-current]").inner_text() == "Simulations"
        page.get_by_role("link", name="New simulation").first.click()
        page.get_by_label("A folder").set_input_files(EXAMPLE)
        expect(page.get_by_role("heading", name="Ready to submit")).to_be_visible()
        page.get_by_role("button", name="Submit simulation").click()
        page.get_by_role("heading", name=EXAMPLE.name).wait_for()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel simulation").click()
        expect(page.get_by_role("status").first).to_contain_text("Canceled")
        address = page.url
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        page.goto(address)
        sign_in_again = urlsplit(page.url)
        assert (sign_in_again.path, sign_in_again.query) == ("/yaptide/sign-in", f"next={urlsplit(address).path}")
        page.get_by_role("link", name="API", exact=True).click()
        page.get_by_role("heading", name="yaptide").wait_for()
    assert len(asked) > 10
    assert [line for line in asked if not re.match(r"(2|3)\d\d /yaptide/", line)] == []
