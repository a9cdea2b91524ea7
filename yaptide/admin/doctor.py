"""`yaptide doctor`: diagnose the installation."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import typer

from yaptide.admin import address
from yaptide.admin.arguments import AsJson
from yaptide.admin.display import print_json, print_table
from yaptide.application import make_backend, make_broker
from yaptide.domain.errors import YaptideError
from yaptide.platforms import lock
from yaptide.services import diagnosis
from yaptide.services.backend import Backend
from yaptide.services.diagnosis import Finding, Verdict
from yaptide.settings import Settings, load_settings

app = typer.Typer()

_TIMEOUT = 3.0
_LABELS = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.ERROR: "error"}


@app.command("doctor")
def run_doctor(as_json: AsJson = False) -> None:
    """Diagnose the installation: what works, what is stuck, and what to do; exit code 1 on errors.

    Checks the database, the data folder, the server, the broker, its workers and every unfinished task. Changes
    nothing.

    Example: yaptide doctor
    """
    settings = load_settings()
    backend = make_backend(settings)
    findings = [*_check_services(settings, backend), *diagnosis.diagnose_tasks(backend)]
    backend.database.close()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        rows = [(finding.subject, _LABELS[finding.verdict], finding.message, finding.remedy) for finding in findings]
        print_table(("subject", "status", "message", "what to do"), rows)
    if any(finding.verdict is Verdict.ERROR for finding in findings):
        sys.exit(1)


def _check_services(settings: Settings, backend: Backend) -> Iterator[Finding]:
    yield from diagnosis.diagnose_surroundings(backend)
    yield _server(address.read_address(settings.data_dir) or settings.backend_url)
    yield _executor(settings.data_dir)
    broker = make_broker(settings)
    if broker is None:
        yield Finding("broker", Verdict.OK, "No broker is set (CELERY_BROKER_URL): tasks run on this machine")
        return
    try:
        workers = broker.list_workers()
        depths = broker.count_messages()
    except YaptideError as error:
        yield Finding("broker", Verdict.ERROR, f"{broker}: {error}", "Start it; no task is lost meanwhile")
        return
    yield Finding("broker", Verdict.OK, f"{broker}; queued messages: {_listed(depths)}")
    served = {queue for worker in workers.values() for queue in worker.queues}
    for name, worker in workers.items():
        text = f"{name} runs {worker.busy} of {worker.slots} tasks, consumes {', '.join(worker.queues)}"
        if worker.reaches_server:
            yield Finding("worker", Verdict.OK, text)
        else:
            text += "; it cannot reach the server"
            yield Finding("worker", Verdict.ERROR, text, "Check its YAPTIDE_BACKEND_URL and the network")
    if not workers:
        yield Finding("worker", Verdict.ERROR, "No worker responds", "Start one: yaptide worker")
        return
    for queue, depth in depths.items():
        if depth and queue not in served:
            text = f"No worker consumes queue {queue}, where {depth} messages wait"
            yield Finding("worker", Verdict.ERROR, text, "Install the simulator on a worker")


def _server(url: str) -> Finding:
    import httpx  # noqa: PLC0415 - other commands do not need it

    try:
        response = httpx.get(f"{url.rstrip('/')}/healthz", timeout=_TIMEOUT)
    except httpx.HTTPError as error:
        text = f"{url} does not respond ({type(error).__name__})"
        return Finding("server", Verdict.ERROR, text, "Start it: yaptide up; or correct YAPTIDE_BACKEND_URL")
    if not response.is_success:
        return Finding("server", Verdict.ERROR, f"{url} responds with HTTP {response.status_code}", "Check its log")
    return Finding("server", Verdict.OK, f"{url} responds")


def _executor(data: Path) -> Finding:
    if lock.is_held(data):
        return Finding("dispatch", Verdict.OK, "Executor is running")
    text = "No executor is running, so submitted simulations will not start"
    return Finding("dispatch", Verdict.ERROR, text, "Start one: yaptide up, or yaptide work")


def _listed(depths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in depths.items() if count) or "none"
