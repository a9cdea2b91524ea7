"""Pages in a real browser: Debian's Chromium, driven by Playwright, with a new profile for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.postgres import Postgres
from tests.support.processes import PASSWORD, USER, Place, Server, place
from yaptide.persistence import schema

#: Where tests leave screenshots if this folder exists; `make screenshots` makes it.
SHOTS = Path(__file__).parents[2] / "screenshots"
SQLITE, POSTGRESQL = "sqlite", "postgresql"
#: Sizes of windows, in CSS pixels.
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
#: Names of nothing but this machine are resolved.
_OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
#: What axe looks at in each colour scheme: in the second, only what can differ.
_RULES: dict[str, dict[str, object]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}
#: Bytes of everything that a page loads.
MOST_BYTES = 100_000
#: Names of pages that were checked: another database does not change how they look.
_checked: set[str] = set()


@contextmanager
def servers(
    folder: Path, start: Callable[[Place], Server], find_postgres: Callable[[], Postgres], **variables: str
) -> Iterator[Callable[[str], Server]]:
    """Yield a function that returns the server on SQLITE or POSTGRESQL, which `start` starts at its first call."""
    with ExitStack() as stack:

        @cache
        def serve(database: str) -> Server:
            url = {} if database == SQLITE else {"FLASK_SQLALCHEMY_DATABASE_URI": find_postgres().create_database()}
            there = stack.enter_context(place(folder / database, **variables, **url))
            if url:
                schema.upgrade_tables(there.database)
            return start(there)

        yield serve


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, which ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, server: Server, **options: object) -> Iterator[Page]:
    """A page of a new profile at the first page of `server`; a script that fails, or breaks the CSP, fails the test."""
    context = browser.new_context(base_url=server.url, viewport=DESKTOP, **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    try:
        page.goto(server.url)
        yield page
        assert problems == []
    finally:
        context.close()


def loaded_bytes(page: Page) -> int:
    """Bytes of everything that the page has loaded, as it was sent."""
    sizes = """["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
        .map((entry) => entry.encodedBodySize)"""
    loaded: list[int] = page.evaluate(sizes)
    assert all(loaded)
    return sum(loaded)


def sign_in(page: Page, username: str = USER, password: str = PASSWORD) -> None:
    """Fill in the form and wait for the list of simulations."""
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Simulations").wait_for()


def check_page(page: Page, name: str) -> None:
    """Fail if axe finds something serious in either colour scheme, or a phone would have to scroll sideways.

    Makes screenshots called `name` if the folder for them exists. Does nothing if the page `name` was checked before.
    """
    if name in _checked:
        return
    _checked.add(name)
    for scheme, rules in _RULES.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        result = Axe().run(page, options={"resultTypes": ["violations"], **rules})
        serious = [each for each in result.response["violations"] if each["impact"] in ("serious", "critical")]
        assert serious == [], f"{name}, {scheme}: {[(each['id'], each['nodes'][0]['html']) for each in serious]}"
        _shoot(page, f"{name}-{scheme}-desktop")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    _shoot(page, f"{name}-dark-phone")
    page.emulate_media(color_scheme="light")
    _shoot(page, f"{name}-light-phone")
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]


def _shoot(page: Page, name: str) -> None:
    if SHOTS.is_dir():
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
