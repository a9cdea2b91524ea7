"""The pages, in a real browser."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support import payloads
from tests.support.pages import (
    MOST_BYTES,
    PHONE,
    POSTGRESQL,
    SQLITE,
    check_page,
    chromium,
    loaded_bytes,
    open_page,
    servers,
    sign_in,
)
from tests.support.processes import PASSWORD, USER, Place, Server

#: The first character of a script that no page may run, in a title, in names and in texts.
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def start(there: Place) -> Server:
    """A server without an executor, and two users."""
    return there.up("--no-executor").register().register("mallory")


@pytest.fixture(scope="module")
def on(tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Server]]:
    find_postgres = partial(request.getfixturevalue, "postgres")
    with servers(tmp_path_factory.mktemp("pages"), start, find_postgres, YAPTIDE_FOREIGN_WORKERS="shieldhit") as serve:
        yield serve


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def server(on: Callable[[str], Server], request: pytest.FixtureRequest) -> Server:
    """The server on each database, or on those that `parametrize("server", ..., indirect=True)` chooses."""
    return on(request.param)


on_sqlite = pytest.mark.parametrize("server", [SQLITE], indirect=True)


@dataclass
class Worker:
    """Reports about a simulation as workers of others do."""

    url: str
    job_id: str
    simulation_id: int
    update_key: str

    def post(self, path: str, **body: Any) -> None:
        """Report something."""
        key = {"sim_id" if path == "/jobs" else "simulation_id": self.simulation_id, "update_key": self.update_key}
        answer = httpx.post(f"{self.url}{path}", json=key | body, timeout=60)
        assert answer.status_code == 202, answer.text

    def report(self, message: Mapping[int, Mapping[str, Any]]) -> None:
        """Report updates of tasks by number."""
        self.post("/tasks/list", updates=[{"task_id": n, "update_dict": dict(update)} for n, update in message.items()])


def submit(server: Server, title: str = "Water phantom", tasks: int = 4, user: str = USER, **changes: Any) -> Worker:
    """Submit a simulation that waits for workers of others."""
    body = payloads.submission(ntasks=tasks, primaries=tasks * 1000, title=title) | changes
    with server.client(user) as client:
        job_id = client.call("POST", "/jobs/direct", json=body)["job_id"]
        key = client.call("GET", "/jobs/key", params={"job_id": job_id})
    return Worker(server.url, job_id, key["simulation_id"], key["update_key"])


@contextmanager
def signed_in(browser: Browser, server: Server, path: str = "/simulations") -> Iterator[Page]:
    """A page of a user who is signed in."""
    with open_page(browser, server) as page:
        sign_in(page)
        page.goto(path)
        yield page


@on_sqlite
def test_signing_in_leads_back_to_where_one_was_going(browser: Browser, server: Server) -> None:
    with open_page(browser, server) as page:
        assert page.url == f"{server.url}/sign-in?next=/simulations"
        check_page(page, "sign-in")
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill("something else")
        page.get_by_role("button", name="Sign in").click()
        assert page.get_by_role("alert").inner_text() == "Invalid login or password"
        sign_in(page, USER, PASSWORD)
        assert page.url == f"{server.url}/simulations"
        page.get_by_role("link", name=USER).click()
        check_page(page, "account")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        page.goto("/simulations")
        assert page.url.endswith("/sign-in?next=/simulations")


@on_sqlite
def test_registering(browser: Browser, server: Server) -> None:
    with open_page(browser, server) as page:
        page.get_by_role("link", name="Register").click()
        check_page(page, "register")
        page.get_by_label("Username").fill("newcomer")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.get_by_role("button", name="Register").click()
        page.get_by_text("You have no simulations yet").wait_for()
        check_page(page, "no-simulations")


def test_a_simulation_is_found_followed_and_canceled(browser: Browser, server: Server) -> None:
    worker = submit(server, "Proton 150 MeV in water")
    other = submit(server, "Carbon 290 MeV/u in bone")
    with signed_in(browser, server) as page:
        page.get_by_role("searchbox").fill("proton")
        expect(page.get_by_role("link", name="Carbon")).to_have_count(0)
        assert page.url.endswith("/simulations?title=proton&state=&size=20&sort=start_time&order=descend")
        page.get_by_label("Choose Proton").check()
        worker.report({0: {"task_state": "RUNNING"}, 1: {"task_state": "RUNNING", "simulated_primaries": 400}})
        expect(page.locator("tbody")).to_contain_text("10 %")
        expect(page.get_by_label("Choose Proton")).to_be_checked()
        page.get_by_role("link", name="Proton 150 MeV in water").click()
        page.get_by_text("List of tasks").click()
        worker.report({0: {"simulated_primaries": 600}})
        expect(page.get_by_role("status")).to_contain_text("25 %")
        expect(page.locator("details#task-list")).to_have_attribute("open", "")
        check_page(page, "running")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Cancel simulation").click()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel simulation").click()
        expect(page.get_by_role("status")).to_have_text("Canceled")
        page.get_by_role("link", name="History", exact=True).click()
        check_page(page, "history")
        page.goto("/simulations")
        page.get_by_label("Choose Carbon").check()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel chosen").click()
        page.get_by_text("1 simulation canceled").wait_for()
    with server.client() as client:
        assert client.job(other.job_id).status()["job_state"] == "CANCELED"


def test_two_hundred_tasks_and_results(browser: Browser, server: Server) -> None:
    worker = submit(server, "Two hundred tasks", tasks=200)
    worker.report({n: {"task_state": "RUNNING", "simulated_primaries": 5 * n} for n in range(150)})
    worker.report({n: {"task_state": "COMPLETED"} for n in range(70)} | {77: {"task_state": "FAILED"}})
    with signed_in(browser, server, f"/simulations/{worker.job_id}") as page:
        assert page.locator(".tasks g").count() == 200
        assert page.locator(".tasks").get_attribute("aria-label") == "70 completed, 79 running, 1 failed, 50 waiting"
        check_page(page, "tasks")
        worker.post("/results", estimators=[payloads.estimator()])
        page.get_by_role("link", name="Show results").wait_for()
        page.get_by_role("link", name="Results", exact=True).wait_for()
        submit(server, "Carbon 290 MeV/u, treatment plan").post("/results", estimators=[payloads.estimator()])
        submit(server, "Proton 150 MeV in water").report({0: {"task_state": "RUNNING", "simulated_primaries": 900}})
        page.goto("/simulations")
        check_page(page, "list")


def square_map(side: int) -> tuple[float, dict[str, Any]]:
    """The largest value of a map of random numbers, and the map as a page of results."""
    values = np.random.default_rng(5).random(side * side)
    axes = {f"axis_dim{n}": {"name": name, "unit": "cm", "values": list(range(side))} for n, name in enumerate("XY", 1)}
    data = {"name": "Dose", "unit": "MeV/g", "values": values.tolist()}
    metadata = {"page_number": "0", "name": "Dose"}
    return float(values.max()), {"dimensions": 2, "data": data, **axes, "metadata": metadata}


@on_sqlite
@pytest.mark.parametrize(("side", "busy"), [(200, "slices"), (500, "results/picture")], ids=["small", "large"])
def test_a_map_of_random_numbers(browser: Browser, server: Server, side: int, busy: str) -> None:
    """The page of a small one has less than 100 kB; whatever the server is too busy for is asked for again."""
    largest, grid = square_map(side)
    worker = submit(server, "Random map")
    worker.post("/results", estimators=[payloads.estimator("map", grid)])
    asked: list[str] = []

    def be_busy_once(route: Route) -> None:
        asked.append(route.request.url)
        is_new = asked.count(route.request.url) == 1
        route.fulfill(status=503, headers={"Retry-After": "0"}) if is_new else route.continue_()

    with signed_in(browser, server, f"/simulations/{worker.job_id}/results") as page:
        page.locator("[data-ready]").wait_for()
        expect(page.locator("[data-readout]")).to_contain_text(f"{largest:.5g} MeV/g")
        assert loaded_bytes(page) < MOST_BYTES or side > 200
        page.route(f"**/{busy}?*", be_busy_once)
        page.reload()
        page.locator("[data-ready]").wait_for()
        expect(page.locator("[data-readout]")).to_contain_text(f"{largest:.5g} MeV/g")
        assert asked
        assert all(asked.count(address) == 2 for address in asked)
        expect(page.get_by_role("alert")).to_have_count(0)


def test_another_users_simulation(browser: Browser, server: Server) -> None:
    theirs = submit(server, "Secret", user="mallory")
    with signed_in(browser, server, f"/simulations/{theirs.job_id}") as page:
        assert page.get_by_role("alert").inner_text() == "This simulation belongs to another user"
        assert "Secret" not in page.content()
        check_page(page, "forbidden")


def test_markup_is_shown_and_does_nothing(browser: Browser, server: Server) -> None:
    files = payloads.shieldhit_files() | {"geo.dat": MARKUP}
    worker = submit(server, MARKUP, 1, input_type="files", input_files=files, input_json=None)
    worker.post("/logfiles", logfiles={MARKUP: MARKUP, "shieldhit_0001.log": "line\n" * 500})
    with signed_in(browser, server) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.get_by_role("link", name=MARKUP).click()
        assert page.get_by_role("heading", level=1).inner_text() == MARKUP
        for name in ("Input", "Log files", "History"):
            page.get_by_role("link", name=name, exact=True).click()
            page.wait_for_load_state("networkidle")
            for summary in page.locator("summary").all():
                summary.click()
            check_page(page, name.lower().replace(" ", "-"))
        assert page.locator("img, script:not([src])").count() == 0


def test_a_session_that_ends(browser: Browser, server: Server) -> None:
    worker = submit(server)
    with signed_in(browser, server, f"/simulations/{worker.job_id}") as page:
        page.context.request.delete("/auth/logout")
        page.get_by_role("heading", name="Sign in").wait_for()
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Water phantom").wait_for()
        assert page.url == f"{server.url}/simulations/{worker.job_id}"


def test_a_server_that_is_restarted_under_an_open_page(browser: Browser, server: Server) -> None:
    worker, there = submit(server), server.place
    with signed_in(browser, server, f"/simulations/{worker.job_id}") as page:
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        server.stop()
        expect(page.locator("#messages")).to_contain_text("The server does not respond", timeout=30_000)
        server.running = there.up("--no-executor", port=int(server.url.rpartition(":")[2])).running
        worker.report({0: {"task_state": "RUNNING", "simulated_primaries": 400}})
        expect(page.get_by_role("status")).to_contain_text("10 %", timeout=30_000)
        expect(page.locator("#messages")).to_be_empty()
