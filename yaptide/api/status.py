"""Routes that show whether the server works, for people, load balancers and Prometheus."""

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

#: Key of `app.extensions` for the shell around this application, if there is one.
SHELL = "yaptide.shell"

blueprint = APIBlueprint("status", __name__, tag="Status")

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


@blueprint.get("/")
@blueprint.output(schemas.Message)
def get_root() -> Response:
    """Confirm that the server is running; the front end requests this first. Browsers are sent to the first page."""
    accepted = request.accept_mimetypes.best_match(("application/json", "text/html"))
    response = json_response({"message": "yaptide is running"})
    if accepted == "text/html":
        response = cast("Response", redirect(url_for("simulation_pages.list_simulations"), 302))
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/healthz")
@blueprint.output(schemas.Message)
def get_health() -> Response:
    """Confirm that the process responds. If it does not, restart it."""
    return json_response({"message": "ok"})


@blueprint.get("/readyz")
@blueprint.output(schemas.Readiness)
@blueprint.doc(responses=respond_with(503, "Not ready", json_content("Readiness")))
def get_readiness() -> Response:
    """Check whether the server is ready: database available, tables current, room in the data folder.

    Responds 503 with the same keys if not; each of the `checks` is `ok` or the problem. `simulators` lists what can run
    now: without any, the server is ready, but rejects submissions.
    """
    checks = [*readiness.run_checks(get_backend()), *_threads()]
    failed = [check for check in checks if not check.ok]
    for check in failed:
        log.warning("not ready: %s: %s. %s", check.name, check.message, check.remedy)
    messages = {check.name: check.message for check in (*checks, *readiness.check_simulators(get_backend(), checks))}
    message = f"not ready: {', '.join(check.name for check in failed)}" if failed else "ready"
    return json_response({"message": message, "checks": messages}, 503 if failed else 200)


def _threads() -> list[Check]:
    """Check whether threads become free, if the application runs in the shell of `yaptide up`."""
    shell = current_app.extensions.get(SHELL)
    if shell is None:
        return []
    if shell.is_stuck:
        return [Check("threads", False, "all threads stay busy", "Check the log, or restart the server")]
    return [Check("threads", True)]


@blueprint.get("/metrics")
@blueprint.doc(hide=True)
def get_metrics() -> Response:
    """Return metrics for Prometheus; 404 for clients that may not see them."""
    if not _may_see_metrics(current_app.config["METRICS"]):
        raise NotFound
    return Response(metrics.metrics_exposition(get_backend()), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _may_see_metrics(who: str) -> bool:
    """Return whether the setting allows this client. A request forwarded by a proxy could come from anywhere."""
    if who == "off" or any(name in request.headers for name in _FORWARDED):
        return False
    return who == "network" or _is_local(request.environ)


def _is_local(environ: dict[str, Any]) -> bool:
    """Return whether the request comes from this machine, without a proxy in between."""
    try:
        return ip_address(environ.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
