"""The routes of the application: those of the API, and the pages."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse


class Route(NamedTuple):
    """A method, and the path of a rule as Flask writes it."""

    method: str
    path: str
    rule: Rule

    def address(self, app: Flask, **values: object) -> str:
        """The path with `values` for its arguments, 1 for those that are not given."""
        arguments = {name: values.get(name, 1) for name in self.rule.arguments}
        return app.url_map.bind("localhost").build(self.rule.endpoint, arguments, self.method)


def list_routes(app: Flask) -> Iterator[Route]:
    """Everything that is served."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(method, rule.rule, rule)


def is_page(rule: Rule) -> bool:
    """Whether it is a page, or a form of one: their blueprints are called `..._pages`."""
    return rule.endpoint.partition(".")[0].endswith("_pages")


def list_pages(app: Flask) -> list[Route]:
    """The pages and their forms; tests/integration/test_pages.py judges them all."""
    return [route for route in list_routes(app) if is_page(route.rule)]


def list_api_routes(app: Flask) -> list[Route]:
    """All routes but pages."""
    return [route for route in list_routes(app) if not is_page(route.rule)]


def form_token(client: FlaskClient) -> str:
    """The token that the forms of this client's pages carry."""
    page = client.get("/sign-in", follow_redirects=True).text
    match = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]


def send_form(client: FlaskClient, path: str, **fields: object) -> TestResponse:
    """Send a form of a page as a browser does, with its token."""
    return client.post(path, data={"csrf_token": form_token(client), **fields})
