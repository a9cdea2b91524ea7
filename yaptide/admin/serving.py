"""`yaptide up` serves; `yaptide work` runs tasks. The first keeps the second running, as a process of its own."""

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
from functools import partial
from typing import Annotated

import typer

from yaptide import logs
from yaptide.admin.address import http_url, published_address
from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_count, print_json, print_message
from yaptide.admin.interrupts import Interrupts
from yaptide.admin.store import Opened, open_store
from yaptide.application import make_driver, make_executor, make_outbox_publisher, make_server, prepare_to_serve
from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.platforms.loops import Loops
from yaptide.services import recovery, runners
from yaptide.services.backend import utc_now
from yaptide.services.conversion import find_stand_in
from yaptide.settings import load_settings
from yaptide.simulators import list_installed as list_installed

app = typer.Typer()
log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_GRACE = 10
_PARENT = "YAPTIDE_PARENT_PID"
_BACKLOG = 1024
_LOOK_EVERY = 0.2
_PAUSE = 1.0


@app.command("up")
def run_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    threads: Annotated[int, typer.Option(min=1, max=512, help="Requests answered at once.")] = 16,
    executor: Annotated[bool, typer.Option(help="Run the tasks here as well.")] = True,
) -> None:
    """Serve the API, and run the tasks that are submitted, until it is interrupted.

    Example: yaptide up --port 5000
    """
    # The database is there and current, or this says what to do, before anything listens.
    at = open_store()
    prepare_to_serve(at.backend)
    listener = _listen(host, port)
    if executor:
        _offer_simulator(at)
        _announce_ahead(at)
    os.environ[_PARENT] = str(os.getpid())
    server = make_server(at.settings, at.backend, threads, _GRACE)
    gc.collect()
    gc.freeze()  # what is there now stays: to look through it again costs as much as to answer about 10,000 tasks
    url = http_url(host, port)
    loops = Loops()
    try:
        if executor:
            loops.start("keeper", partial(_run_worker, loops.stopping), _PAUSE)
        _announce(f"yaptide serves {url} (its API is described at {url}/docs); stop with Ctrl-C")
        with published_address(at.settings.data_dir, listener.getsockname()[0], port):
            server.serve_on(listener)
    finally:
        loops.stop()


def _offer_simulator(at: Opened) -> None:
    """If the simulator that runs projects of the web editor is missing, ask whether to install it, or say how."""
    with at.backend.database.read_committed() as connection:
        code = find_stand_in(at.backend, connection)
    if code is None or code.name in list_installed(at.settings.simulators_dir):
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        question = f"{code.title}, which runs projects of the web editor, is not installed. Install it now?"
        if typer.confirm(question, default=True, err=True):
            code.install(at.settings.simulators_dir, print_message)
    else:
        print_message(f"{code.title}, which runs projects of the web editor, is not installed: {code.remedy}")


def _announce_ahead(at: Opened) -> None:
    """Announce what the process that runs the tasks will, so that it is known before anything can be submitted."""
    make_executor(at.settings, at.backend)[1].announce()
    runners.announce_runner(at.backend, f"server-{socket.gethostname()}-{os.getpid()}", runners.BATCH, {})


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises Conflict if it cannot, since somebody else does or the host is elsewhere."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended do not count
            listener.bind(address)
            listener.listen(_BACKLOG)
            return listener.dup()
    except OSError as error:
        raise Conflict(f"Cannot listen on {host}:{port}: {error.strerror}") from error


def _run_worker(stop: threading.Event) -> None:
    """Run a process that runs tasks, until it ends, whatever killed it, or until `stop`.

    The kernel ends it with the thread that started it, see `die_with_parent`. Ctrl-C does not reach it: the process
    that started it ends it, in good order.
    """
    command = [sys.executable, "-P", "-m", "yaptide", "work", "--wait"]
    with subprocess.Popen(command, process_group=0) as worker:
        while worker.poll() is None and not stop.wait(_LOOK_EVERY):
            pass
        worker.terminate()
    if not stop.is_set():
        log.warning("the process that runs the tasks has ended (%s); starting another", worker.returncode)


@app.command("work")
def run_executor(
    wait: Annotated[bool, typer.Option("--wait", help="Take over when another process that runs them ends.")] = False,
) -> None:
    """Run submitted tasks, without serving anything, until it is interrupted.

    Example: yaptide work
    """
    die_with_parent(signal.SIGTERM)
    with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
        at = open_store()
        _, executor = make_executor(at.settings, at.backend)
        if not executor.start():
            if not wait:
                raise Conflict("Another process runs the tasks of this data folder already")
            _announce("Another process runs the tasks of this data folder; this one takes over when that ends")
            while not interrupts.came and not executor.start():
                time.sleep(_LOOK_EVERY)
        driver = make_driver(at.settings, at.backend)
        if driver is not None:
            driver.start()
        while not interrupts.came:
            time.sleep(_LOOK_EVERY)
        if driver is not None:
            driver.stop()
        executor.stop()


@app.command("sweep")
def run_maintenance(as_json: AsJson = False) -> None:
    """Do once what a running server does all the time: give the work of the dead to others, tell workers, clean up.

    Dead is who was silent for ten times YAPTIDE_SILENCE_SECONDS: this command cannot know whether the server could have
    heard them.

    Example: yaptide sweep
    """
    at = open_store()
    requeued = recovery.requeue_stalled(at.backend, utc_now() - 10 * at.backend.limits.silence)
    courier = make_outbox_publisher(at.settings, at.backend)
    sent = 0 if courier is None else courier.send_messages()
    recovery.clear_spool(at.backend)
    if as_json:
        print_json({"requeued": requeued, "sent": sent})
    else:
        print_message(
            f"Given to others: {format_count(requeued, 'task or merge')}; sent: {format_count(sent, 'message')}"
        )


@app.command("worker")
def run_worker(
    concurrency: Annotated[int, typer.Option(min=0, max=1024, help="Tasks run at once; 0: YAPTIDE_WORKERS.")] = 0,
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas; empty: all it can.")] = "",
    name: Annotated[str, typer.Option(help="Name of the worker, when several run on a machine.")] = "",
) -> None:
    """Run tasks that a server gives away through its broker (CELERY_BROKER_URL), until it is interrupted.

    It needs the URL of the server (YAPTIDE_BACKEND_URL) and the simulators, and neither database nor shared folder.
    Interrupted, it gives back what it runs.

    Example: yaptide worker --concurrency 4
    """
    from yaptide.platforms.direct.worker import (  # noqa: PLC0415 - Celery takes long to load
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
        raise InvalidInput("A worker needs a broker: set CELERY_BROKER_URL, such as redis://host:6379/0")
    place = Place(settings.backend_url, settings.simulators_dir, settings.work, settings.task_hours * 3600)
    celery, served_queues = make_worker(broker_url, place)
    chosen = [queue for queue in queues.split(",") if queue] or served_queues
    unknown = sorted(set(chosen) - set(served_queues))
    if unknown:
        raise InvalidInput(f"There is no queue {unknown[0]!r} here; this worker can serve {', '.join(served_queues)}")
    slots = concurrency or settings.workers or os.cpu_count() or 1
    host = f"{name or 'worker-' + str(os.getpid())}@{socket.gethostname()}"
    told = f"The worker {host} takes tasks: {', '.join(chosen)}, {slots} at once, for {settings.backend_url}"
    on_ready(lambda: _announce(told))
    options = [f"--concurrency={slots}", f"--queues={','.join(chosen)}", f"--hostname={host}"]
    celery.worker_main(["--quiet", "worker", "--without-gossip", "--without-mingle", *options])


def _announce(text: str) -> None:
    """Tell people what is going on, or the log if programs read it."""
    if load_settings().log_format == "json":
        log.info(text)
    else:
        print_message(text)


def die_with_parent(by: signal.Signals) -> None:
    """Have the kernel send this process a signal when `yaptide up`, its parent, dies in whatever way (prctl(2))."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if str(os.getppid()) != parent:  # it died before we could ask
        sys.exit(1)
