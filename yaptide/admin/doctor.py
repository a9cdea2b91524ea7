"""`yaptide doctor`: what is up, what is stuck, and what to do."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import typer

from yaptide.admin import address
from yaptide.admin.arguments import AsJson
from yaptide.admin.display import print_json, print_table
from yaptide.application import make_backend, make_broker
from yaptide.domain.errors import NotConfigured, YaptideError
from yaptide.platforms import lock
from yaptide.services import clusters, diagnosis, readiness
from yaptide.services.backend import Backend
from yaptide.services.diagnosis import Finding, Verdict
from yaptide.settings import Settings, load_settings
from yaptide_client.extras import require_extra

app = typer.Typer()

_TIMEOUT = 3.0
_MARKS = {Verdict.OK: "ok", Verdict.WARNING: "look", Verdict.ERROR: "broken"}


@app.command("doctor")
def run_doctor(as_json: AsJson = False) -> None:
    """Say what is up, what is stuck, and what to do about it; exit code 1 if something is broken.

    Looks at the database, the data folder, the server, the broker, its workers, and every task that is under way, and
    changes nothing.

    Example: yaptide doctor
    """
    settings = load_settings()
    backend = make_backend(settings)
    found = [*_surroundings(settings, backend), *_simulations(backend)]
    backend.database.close()
    if as_json:
        print_json({"findings": [asdict(each) for each in found]})
    else:
        rows = [(each.subject, _MARKS[each.verdict], each.message, each.remedy) for each in found]
        print_table(("what", "is", "found", "what to do"), rows)
    if any(each.verdict is Verdict.ERROR for each in found):
        sys.exit(1)


def _surroundings(settings: Settings, backend: Backend) -> Iterator[Finding]:
    checks = readiness.run_checks(backend)
    yield from (
        Finding(each.name, Verdict.OK if each.ok else Verdict.ERROR, each.message, each.remedy) for each in checks
    )
    yield _server(address.read_address(settings.data_dir) or settings.backend_url)
    yield _executor(settings.data_dir)
    missing = (each for each in readiness.check_simulators(backend, checks) if not each.ok)  # others have a line each
    yield from (Finding(each.name, Verdict.WARNING, each.message, each.remedy) for each in missing)
    yield from _clusters(backend)
    broker = make_broker(settings)
    if broker is None:
        yield Finding("broker", Verdict.OK, "none is set (CELERY_BROKER_URL): tasks run on this machine")
        return
    try:
        workers = broker.list_workers()
        depths = broker.count_messages()
    except YaptideError as error:
        yield Finding("broker", Verdict.ERROR, f"{broker}: {error}", "start it; nothing is lost meanwhile")
        return
    yield Finding("broker", Verdict.OK, f"{broker}; messages waiting: {_listed(depths)}")
    served = {queue for worker in workers.values() for queue in worker.queues}
    for name, worker in workers.items():
        text = f"{name} runs {worker.busy} of {worker.slots}, takes {', '.join(worker.queues)}"
        if worker.reaches_server:
            yield Finding("worker", Verdict.OK, text)
        else:
            text += "; it does not reach the server"
            yield Finding("worker", Verdict.ERROR, text, "mend its YAPTIDE_BACKEND_URL, or the network")
    if not workers:
        yield Finding("worker", Verdict.ERROR, "none answers", "start one: yaptide worker")
        return
    for queue, depth in depths.items():
        if depth and queue not in served:
            text = f"nobody takes {queue}, where {depth} wait"
            yield Finding("worker", Verdict.ERROR, text, "install the simulator on a worker")


def _server(url: str) -> Finding:
    import httpx  # noqa: PLC0415 - the other commands start without it

    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=_TIMEOUT)
    except httpx.HTTPError as error:
        text = f"{url} does not answer ({type(error).__name__})"
        return Finding("server", Verdict.ERROR, text, "start it: yaptide up; or mend YAPTIDE_BACKEND_URL")
    if not answer.is_success:
        return Finding("server", Verdict.ERROR, f"{url} answers {answer.status_code}", "look at its log")
    return Finding("server", Verdict.OK, f"{url} answers")


def _executor(data: Path) -> Finding:
    if lock.is_held(data):
        return Finding("dispatch", Verdict.OK, "submitted simulations are seen to")
    return Finding(
        "dispatch", Verdict.ERROR, "nothing has submitted simulations run", "start it: yaptide up, or yaptide work"
    )


def _clusters(backend: Backend) -> Iterator[Finding]:
    """Without SSH nothing runs on clusters, and what was submitted to them before waits."""
    try:
        if clusters.list_names(backend):
            require_extra("asyncssh", "Running on clusters")
    except NotConfigured as error:
        yield Finding("clusters", Verdict.ERROR, str(error))
    except YaptideError:
        pass  # the database has a line of its own


def _simulations(backend: Backend) -> Iterator[Finding]:
    try:
        yield from list(diagnosis.diagnose_simulations(backend))
    except YaptideError:
        yield Finding("tasks", Verdict.ERROR, "nobody can tell while the database does not answer")


def _listed(depths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in depths.items() if count) or "none"
