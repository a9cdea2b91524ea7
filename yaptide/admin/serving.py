"""`yaptide up` serves the API; `yaptide work` runs tasks. The former runs the latter as a child process."""

import ctypes
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from yaptide import logs
from yaptide.admin.address import http_url, published_address
from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_count, print_json, print_message
from yaptide.admin.interrupts import Interrupts
from yaptide.admin.store import Opened, open_store
from yaptide.application import (
    describe_front_end,
    make_driver,
    make_executor,
    make_outbox_publisher,
    make_server,
    prepare_to_serve,
)
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.platforms.loops import Loops
from yaptide.services import recovery, runners
from yaptide.services.backend import utc_now
from yaptide.services.conversion import find_stand_in
from yaptide.settings import Settings, load_settings
from yaptide.simulators import list_installed as list_installed

app = typer.Typer()
log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_GRACE = 10
_PARENT = "YAPTIDE_PARENT_PID"
_BACKLOG = 1024
_POLL_SECONDS = 0.2
_PAUSE = 1.0
#: The default of the setting, which is not a public address.
_DEFAULT_URL = str(Settings.model_fields["backend_url"].default)


@app.command("up")
def run_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    threads: Annotated[int, typer.Option(min=1, max=512, help="Number of concurrent requests.")] = 16,
    executor: Annotated[bool, typer.Option(help="Also run tasks.")] = True,
    ui: Annotated[
        Path | None,
        typer.Option(help="Serve the build of the web front end in this folder under /editor.", show_default=False),
    ] = None,
) -> None:
    """Serve the API and run submitted tasks until interrupted.

    Example: yaptide up --port 5000
    """
    # Check the database before anything listens, so that problems are reported at once.
    store = open_store()
    if ui is not None:
        store = replace(store, settings=store.settings.model_copy(update={"ui_dir": ui}))
    prepare_to_serve(store.backend)
    url = http_url(host, port)
    remarks = describe_front_end(store.settings, _addresses(store.settings, url, port))
    listener = _listen(host, port)
    if executor:
        _offer_simulator(store)
        _announce_ahead(store)
    os.environ[_PARENT] = str(os.getpid())
    server = make_server(store.settings, store.backend, threads, _GRACE)
    gc.collect()
    gc.freeze()  # scanning the objects that exist now would cost as much as a response about 10,000 tasks
    loops = Loops()
    try:
        if executor:
            loops.start("supervisor", partial(_run_executor_process, loops.stopping), _PAUSE)
        for text in (f"yaptide serves {url} (API documentation: {url}/docs); stop with Ctrl-C", *remarks):
            _announce(text)
        with published_address(store.settings.data_dir, listener.getsockname()[0], port):
            server.serve_on(listener)
    finally:
        loops.stop()


def _addresses(settings: Settings, url: str, port: int) -> list[str]:
    """Return the URLs under which browsers may reach this server: the public one, and those of this machine."""
    public = [] if settings.backend_url in ("", _DEFAULT_URL) else [settings.backend_url]
    return [*public, url, *(http_url(host, port) for host in ("localhost", "127.0.0.1", "::1"))]


def _offer_simulator(store: Opened) -> None:
    """Offer to install the simulator for projects of the web editor if it is missing; without a terminal say how."""
    with store.backend.database.read_committed() as connection:
        code = find_stand_in(store.backend, connection)
    if code is None or code.name in list_installed(store.settings.simulators_dir):
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        question = f"{code.title}, which runs projects of the web editor, is not installed. Install it now?"
        if typer.confirm(question, default=True, err=True):
            code.install(store.settings.simulators_dir, print_message)
    else:
        print_message(f"{code.title}, which runs projects of the web editor, is not installed: {code.remedy}")


def _announce_ahead(store: Opened) -> None:
    """Announce the programs of the executor before it has started, so that submissions are accepted at once."""
    make_executor(store.settings, store.backend)[1].announce()
    runners.announce_runner(store.backend, f"server-{socket.gethostname()}-{os.getpid()}", runners.BATCH, {})


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise Conflict if the port is in use or the address is not local."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
            listener.bind(address)
            listener.listen(_BACKLOG)
            return listener.dup()
    except OSError as error:
        raise Conflict(f"Cannot listen on {host}:{port}: {error.strerror}") from error


def _run_executor_process(stop: threading.Event) -> None:
    """Run a process that runs tasks, until it ends for any reason, or until `stop` is set.

    The kernel ends it with the thread that started it, see `die_with_parent`. Ctrl-C does not reach it: its parent
    stops it cleanly.
    """
    command = [sys.executable, "-P", "-m", "yaptide", "work", "--wait"]
    with subprocess.Popen(command, process_group=0) as executor:
        while executor.poll() is None and not stop.wait(_POLL_SECONDS):
            pass
        executor.terminate()
    if not stop.is_set():
        log.warning("the executor process has ended (%s); starting another", executor.returncode)


@app.command("work")
def run_executor(
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another executor to end, and take over.")] = False,
) -> None:
    """Run submitted tasks until interrupted, without serving the API.

    Example: yaptide work
    """
    die_with_parent(signal.SIGTERM)
    with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
        store = open_store()
        _, executor = make_executor(store.settings, store.backend)
        if not executor.start():
            if not wait:
                raise Conflict(
                    "Another process runs the tasks of this data folder already; use --wait to take over later"
                )
            _announce("Another process runs the tasks of this data folder; this one takes over when that process ends")
            while not interrupts.received and not executor.start():
                time.sleep(_POLL_SECONDS)
        driver = make_driver(store.settings, store.backend)
        if driver is not None:
            driver.start()
        while not interrupts.received:
            time.sleep(_POLL_SECONDS)
        if driver is not None:
            driver.stop()
        executor.stop()


@app.command("sweep")
def run_maintenance(as_json: AsJson = False) -> None:
    """Run the maintenance pass once: requeue tasks of dead workers, notify workers, clean up.

    A running server does this continuously. A worker is considered dead after 10 x YAPTIDE_SILENCE_SECONDS without a
    heartbeat: unlike the server, this command cannot know whether the server was able to receive heartbeats.

    Example: yaptide sweep
    """
    store = open_store()
    requeued = recovery.requeue_stalled(store.backend, utc_now() - 10 * store.backend.limits.silence)
    publisher = make_outbox_publisher(store.settings, store.backend)
    sent = 0 if publisher is None else publisher.send_messages()
    recovery.clean_up(store.backend)
    if as_json:
        print_json({"requeued": requeued, "sent": sent})
    else:
        print_message(f"Requeued: {format_count(requeued, 'task or merge')}; sent: {format_count(sent, 'message')}")


@app.command("worker")
def run_worker(
    concurrency: Annotated[int, typer.Option(min=0, max=1024, help="Concurrent tasks; 0: YAPTIDE_WORKERS.")] = 0,
    queues: Annotated[str, typer.Option(help="Queues to consume, separated by commas; empty: all possible.")] = "",
    name: Annotated[str, typer.Option(help="Name of the worker if several run on a machine.")] = "",
) -> None:
    """Run tasks from the message broker (CELERY_BROKER_URL) until interrupted.

    A worker needs the URL of the server (YAPTIDE_BACKEND_URL) and the simulators, but no database and no shared folder.
    When interrupted, it returns its tasks to the server.

    Example: yaptide worker --concurrency 4
    """
    from yaptide.platforms.direct.worker import (  # noqa: PLC0415 - importing Celery is slow
        Place,
        keep_logging,
        make_worker,
        on_ready,
    )

    settings = load_settings()
    logs.configure_logging(settings.log_format, settings.log_level)
    keep_logging()
    broker_url = settings.broker_url.get_secret_value()
    if not broker_url:
        raise InvalidInput("A worker needs a broker: set CELERY_BROKER_URL, e.g. redis://host:6379/0")
    place = Place(settings.backend_url, settings.simulators_dir, settings.work, settings.task_hours * 3600)
    celery, served_queues = make_worker(broker_url, place)
    chosen = [queue for queue in queues.split(",") if queue] or served_queues
    unknown = sorted(set(chosen) - set(served_queues))
    if unknown:
        raise InvalidInput(f"Unknown queue {unknown[0]!r}: this worker can consume {', '.join(served_queues)}")
    slots = concurrency or settings.workers or os.cpu_count() or 1
    host = f"{name or 'worker-' + str(os.getpid())}@{socket.gethostname()}"
    message = f"Worker {host} takes tasks: {', '.join(chosen)}, {slots} at once, for {settings.backend_url}"
    on_ready(lambda: _announce(message))
    options = [f"--concurrency={slots}", f"--queues={','.join(chosen)}", f"--hostname={host}"]
    celery.worker_main(["--quiet", "worker", "--without-gossip", "--without-mingle", *options])


def _announce(text: str) -> None:
    """Print a message for people, or log it if programs read the log."""
    if load_settings().log_format == "json":
        log.info(text)
    else:
        print_message(text)


def die_with_parent(by: signal.Signals) -> None:
    """Let the kernel send a signal to this process when its parent `yaptide up` dies for any reason (prctl(2))."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if str(os.getppid()) != parent:  # the parent died before prctl took effect
        sys.exit(1)
