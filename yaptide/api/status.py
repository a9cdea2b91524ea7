"""Whether the server is there and can do its work, for people, load balancers and Prometheus."""

import logging
from ipaddress import ip_address
from typing import Any, cast

from apiflask import APIBlueprint
from flask import Response, current_app, redirect, request, url_for
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from werkzeug.exceptions import NotFound

from yaptide.api import schemas
from yaptide.api.http import get_backend, json_response
from yaptide.api.openapi import json_content, respond_with
from yaptide.services import metrics, readiness
from yaptide.services.readiness import Check

log = logging.getLogger(__name__)

#: What `app.extensions` has the shell around this application under, if there is one.
SHELL = "yaptide.shell"

blueprint = APIBlueprint("status", __name__, tag="Status")

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


@blueprint.get("/")
@blueprint.output(schemas.Message)
def get_root() -> Response:
    """Whether the server is there; the front end asks this before anything else. Browsers get the first page."""
    accepted = request.accept_mimetypes.best_match(("application/json", "text/html"))
    response = json_response({"message": "yaptide is running"})
    if accepted == "text/html":
        response = cast("Response", redirect(url_for("simulation_pages.list_simulations"), 302))
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/healthz")
@blueprint.output(schemas.Message)
def get_health() -> Response:
    """Whether the process answers; nothing else is looked at. To restart it would help where it does not."""
    return json_response({"message": "ok"})


@blueprint.get("/readyz")
@blueprint.output(schemas.Readiness)
@blueprint.doc(responses=respond_with(503, "Not ready", json_content("Readiness")))
def get_readiness() -> Response:
    """Whether requests should be sent here: the database answers, its tables are current, the data folder has room.

    503 with the same keys if not; each of the `checks` is `ok` or what is wrong. `simulators` tells which can be run
    just now: the server is ready without any, and refuses submissions.
    """
    found = [*readiness.run_checks(get_backend()), *_threads()]
    wrong = [check for check in found if not check.ok]
    for check in wrong:
        log.warning("not ready: %s: %s. %s", check.name, check.message, check.remedy)
    told = {check.name: check.message for check in (*found, *readiness.check_simulators(get_backend(), found))}
    message = f"not ready: {', '.join(check.name for check in wrong)}" if wrong else "ready"
    return json_response({"message": message, "checks": told}, 503 if wrong else 200)


def _threads() -> list[Check]:
    """Whether a thread is free now and then, where the shell of `yaptide up` knows."""
    shell = current_app.extensions.get(SHELL)
    if shell is None:
        return []
    if shell.is_stuck:
        return [Check("threads", False, "all are busy, and stay so", "See what the log says, or restart the server")]
    return [Check("threads", True)]


@blueprint.get("/metrics")
@blueprint.doc(hide=True)
def get_metrics() -> Response:
    """Figures for Prometheus, for those who may see them; for others there is no such page."""
    if not _may_see_figures(current_app.config["METRICS"]):
        raise NotFound
    return Response(metrics.metrics_exposition(get_backend()), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _may_see_figures(who: str) -> bool:
    """Whether a request comes from where the setting has it from. One that a proxy passed on comes from anywhere."""
    if who == "off" or any(name in request.headers for name in _FORWARDED):
        return False
    return who == "network" or _is_local(request.environ)


def _is_local(environ: dict[str, Any]) -> bool:
    """Whether a program on this machine asks, without a proxy between."""
    try:
        return ip_address(environ.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
