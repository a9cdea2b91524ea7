"""The pages, in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.pages import chromium, open_page, sign_in
from tests.support.processes import PASSWORD, USER, Server, place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with place(tmp_path_factory.mktemp("pages") / "place") as there:
        yield there.up("--no-executor").register()


def test_signing_in_leads_back_to_where_one_was_going(browser: Browser, server: Server) -> None:
    with open_page(browser, server) as page:
        assert page.url == f"{server.url}/sign-in?next=/simulations"
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill("something else")
        page.get_by_role("button", name="Sign in").click()
        assert page.get_by_role("alert").inner_text() == "Invalid login or password"
        sign_in(page, USER, PASSWORD)
        assert page.url == f"{server.url}/simulations"
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        page.goto("/simulations")
        assert page.url.endswith("/sign-in?next=/simulations")
