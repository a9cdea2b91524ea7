"""For operators: what waits and runs, who runs it, whose the stored bytes are, and what is wrong.

The same facts as `yaptide doctor`, `db stats`, `users list` and `clusters list`, in the same words. Each section is a
part of its own that htmx loads again: what changes soon every few seconds, sums over the whole store every minute.
"""

import shutil
from typing import Any

from flask import render_template
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from yaptide.api.http import get_backend
from yaptide.services import administration, clusters, diagnosis, runners, stats
from yaptide.services.access import require_operator
from yaptide.services.backend import Backend, utc_now
from yaptide.web import session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("operator_pages", __name__)

#: Title of each section, and after how many seconds it is loaded again.
_SECTIONS = {
    "queue": ("Queue", 5),
    "findings": ("Checks", 15),
    "workers": ("Workers", 5),
    "users": ("Users", 60),
    "storage": ("Storage", 60),
    "clusters": ("Clusters", 15),
}
_MOST_USERS, _LARGEST = 100, 5


@blueprint.get("/operator")
def show_operator() -> ResponseReturnValue:
    """Show all sections."""
    _require_operator()
    sections = [(name, title, every, _read(name)) for name, (title, every) in _SECTIONS.items()]
    return render_template("operator.html", sections=sections)


@blueprint.get("/operator/<section>")
def show_section(section: str) -> ResponseReturnValue:
    """Show one section, for htmx."""
    _require_operator()
    if section not in _SECTIONS:
        raise NotFound
    return render_template("operator_section.html", name=section, facts=_read(section))


def _require_operator() -> None:
    require_operator(get_backend().operators, session.require_user())


def _read(section: str) -> dict[str, Any]:
    return _READERS[section](get_backend())


def _findings(backend: Backend) -> dict[str, Any]:
    findings = [*diagnosis.diagnose_surroundings(backend), *diagnosis.diagnose_tasks(backend)]
    return {"findings": sorted(findings, key=lambda each: _URGENCY[each.verdict])}


#: What is broken comes first.
_URGENCY = {diagnosis.Verdict.ERROR: 0, diagnosis.Verdict.WARNING: 1, diagnosis.Verdict.OK: 2}


def _queue(backend: Backend) -> dict[str, Any]:
    return {"queue": diagnosis.count_queue(backend)}


def _workers(backend: Backend) -> dict[str, Any]:
    return {"runners": runners.list_runners(backend), "now": utc_now()}


def _clusters(backend: Backend) -> dict[str, Any]:
    return {"clusters": clusters.list_clusters(backend.database)}


def _users(backend: Backend) -> dict[str, Any]:
    users = sorted(administration.list_users(backend.database), key=lambda user: (-user.stored_bytes, user.username))
    return {"users": users[:_MOST_USERS], "more": len(users) - len(users[:_MOST_USERS])}


def _storage(backend: Backend) -> dict[str, Any]:
    return {"stats": stats.collect_stats(backend.database, _LARGEST), "free": shutil.disk_usage(backend.data_dir).free}


_READERS = {
    "findings": _findings,
    "queue": _queue,
    "workers": _workers,
    "clusters": _clusters,
    "users": _users,
    "storage": _storage,
}
