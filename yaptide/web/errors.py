"""Errors as pages: what is wrong and what to do, with the status that the API has for the same error."""

from http import HTTPStatus

from apiflask import APIBlueprint, APIFlask
from flask import Response, make_response, render_template
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, NotFound

from yaptide.api import errors as api_errors
from yaptide.domain.errors import NotAuthenticated, YaptideError
from yaptide.services.access import NO_SUCH_JOB, NOT_YOURS
from yaptide.web import session

#: The parts of pages that htmx exchanges are shown where they belong whatever the status.
_STALE_FORM = "This form has expired. Load the page again and repeat what you did"


#: What the API calls a job is a simulation on pages.
_ON_PAGES = {
    NOT_YOURS: "This simulation belongs to another user",
    NO_SUCH_JOB: "There is no simulation at this address",
}


def register_handlers(blueprint: APIBlueprint) -> None:
    """Answer the errors of a blueprint with pages."""
    blueprint.register_error_handler(NotAuthenticated, _ask_to_sign_in)
    blueprint.register_error_handler(CSRFError, lambda _: show_error(400, _STALE_FORM))
    blueprint.register_error_handler(YaptideError, _show_refusal)
    blueprint.register_error_handler(HTTPException, _show_http_error)


def register_not_found(app: APIFlask) -> None:
    """Answer addresses that do not exist with a page if a browser asks for one."""

    def handle(error: NotFound) -> ResponseReturnValue:
        if session.wants_page():
            return show_error(404, "There is no page at this address")
        return api_errors.refuse_http(error)

    app.register_error_handler(NotFound, handle)


def status_of(error: YaptideError) -> int:
    """Return the status that the API has for an error."""
    return api_errors.STATUS.get(type(error), 400)


def words_of(message: str) -> str:
    """Return the message of an error in the words of the pages."""
    return _ON_PAGES.get(message, message)


def show_error(status: int, message: str) -> Response:
    """Return an error page, or for htmx a message to be shown on the page that is open."""
    template = "error_message.html" if session.is_htmx() else "error.html"
    words = {"status": status, "title": HTTPStatus(status).phrase, "message": words_of(message)}
    response = make_response(render_template(template, **words), status)
    if session.is_htmx() and status in (403, 404):  # the page that is open is gone: show that, and ask no more
        response.headers["HX-Refresh"] = "true"
    return response


def _ask_to_sign_in(error: NotAuthenticated) -> Response:
    """Lead to the sign-in page, unless a user is signed in: then something is another user's."""
    return session.redirect_to_sign_in() if session.find_user() is None else show_error(403, str(error))


def _show_refusal(error: YaptideError) -> Response:
    answer = api_errors.refuse(error)
    response = show_error(answer.status_code, answer.get_json()["message"])
    if "Retry-After" in answer.headers:
        response.headers["Retry-After"] = answer.headers["Retry-After"]
    return response


def _show_http_error(error: HTTPException) -> Response:
    return show_error(error.code or 500, error.description or error.name)
