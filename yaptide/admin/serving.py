"""`yaptide up` serves; `yaptide work` runs tasks. The first starts the second, as a process of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer

from yaptide.admin.display import say
from yaptide.admin.opening import opened
from yaptide.application import create_app, make_executor
from yaptide.domain.errors import Conflict, InvalidInput

app = typer.Typer()

_PR_SET_PDEATHSIG = 1
_PARENT = "YAPTIDE_PARENT_PID"


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    threads: Annotated[int, typer.Option(min=1, max=512, help="Requests answered at once.")] = 16,
    executor: Annotated[bool, typer.Option(help="Run the tasks here as well.")] = True,
) -> None:
    """Serve the API, and run the tasks that are submitted, until it is interrupted.

    Example: yaptide up --port 5000
    """
    from granian import Granian  # noqa: PLC0415 - the other commands need no server
    from granian.constants import Interfaces  # noqa: PLC0415

    opened()  # the database is there and current, or this says what to do, before anything listens
    os.environ[_PARENT] = str(os.getpid())
    server = Granian(
        "yaptide.admin.serving:served",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=threads,
        factory=True,
        log_enabled=False,
    )
    worker = subprocess.Popen([sys.executable, "-m", "yaptide", "work"]) if executor else None
    say(f"yaptide serves http://{host}:{port} (its API is described at http://{host}:{port}/docs); stop with Ctrl-C")
    try:
        server.serve()
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"Cannot listen on {host}:{port}: {error}") from error
    finally:
        if worker is not None:
            worker.terminate()
            worker.wait()


@app.command()
def work() -> None:
    """Run submitted tasks, without serving anything, until it is interrupted.

    Example: yaptide work
    """
    die_with_parent()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    at = opened()
    _, executor = make_executor(at.settings, at.backend)
    if not executor.start():
        raise Conflict("Another process runs the tasks of this data folder already")
    stop.wait()
    executor.stop()


def served():  # type: ignore[no-untyped-def]  # noqa: ANN201 - a WSGI application, made in the server's own process
    """The application that `yaptide up` serves."""
    die_with_parent()
    return create_app()


def die_with_parent() -> None:
    """Have the kernel kill this process when `yaptide up`, which started it, dies in whatever way (Linux, prctl(2))."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != parent:  # it died before we could ask
        sys.exit(1)
