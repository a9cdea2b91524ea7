"""Blueprints of pages: their forms are protected, their errors are pages, and sessions are renewed."""

from apiflask import APIBlueprint
from flask import Response, request

from yaptide.api.http import set_content
from yaptide.web import errors, session

#: Bytes of a page that are worth being compressed.
_LEAST = 1000


def new_blueprint(name: str, import_name: str) -> APIBlueprint:
    """Return a blueprint for the pages of one subject."""
    blueprint = APIBlueprint(name, import_name, enable_openapi=False)
    session.protect(blueprint)
    blueprint.after_request(_compress_page)
    errors.register_handlers(blueprint)
    return blueprint


def _compress_page(response: Response) -> Response:
    """Compress HTML for browsers that accept gzip.

    A page has a secret, the token of its forms, beside text of others. To measure it by the length of answers takes
    thousands of requests with cookies from another site: those cookies are `SameSite=Lax`, and forms need the right
    `Origin` besides the token.
    """
    if response.mimetype == "text/html" and not response.is_streamed and len(response.data) >= _LEAST:
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"]:
            set_content(response, response.data, as_gzip=True)
    return response
