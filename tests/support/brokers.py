"""Real brokers for tests: Redis and RabbitMQ as separate processes, in a temporary folder, on free ports."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kombu import Connection

from tests.support.postgres import free_port
from tests.support.processes import until

#: Longer than a broker takes to start on a busy machine.
_DEADLINE = 120.0


class BrokerMissing(Exception):
    """A broker's programs are not installed."""


def _program(name: str, *folders: str) -> str:
    path = shutil.which(name, path=os.pathsep.join([*folders, os.environ["PATH"], "/usr/sbin"]))
    if path is None:
        raise BrokerMissing(f"These tests need {name}: run `scripts/setup brokers`")
    return path


@dataclass
class Broker:
    """A broker in `folder`; `url` is for Celery."""

    folder: Path
    url: str
    commands: list[list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the broker unless it is running, and wait until it responds."""
        if self._processes:
            return
        for command in self.commands:
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig=KILL", "--", *command],
                    cwd=self.folder,
                    env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.folder), **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._processes.append(process)
        until(self._answers, f"{self.url} answers", _DEADLINE, every=0.05)

    def _answers(self) -> bool:
        ended = [process for process in self._processes if process.poll() is not None]
        if ended:
            raise RuntimeError(f"the broker has ended:\n{(self.folder / 'log').read_text()}")
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
        except Exception:  # noqa: BLE001 - each broker raises its own errors
            return False
        return True

    def restart(self) -> None:
        """Restart the broker; only what is on its disk survives."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """Kill the broker, like a crash."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()


@contextlib.contextmanager
def redis() -> Iterator[Broker]:
    """Run a Redis without persistence: after a restart it is empty."""
    with tempfile.TemporaryDirectory(prefix="yaptide-redis-") as name:
        folder, port = Path(name), free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", name]
        broker = Broker(folder, f"redis://127.0.0.1:{port}/0", [[_program("redis-server"), *options]])
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


@contextlib.contextmanager
def rabbitmq() -> Iterator[Broker]:
    """Run a RabbitMQ with its own port mapper, so that everything ends with it."""
    with tempfile.TemporaryDirectory(prefix="yaptide-rabbitmq-") as name:
        folder, port, mapper = Path(name), free_port(), free_port()
        environment = {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"yaptide{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": name,
            "RABBITMQ_LOG_BASE": name,
            "RABBITMQ_PID_FILE": f"{name}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{name}/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
        }
        (folder / "plugins").write_text("[].\n")
        commands = [
            [_program("epmd"), "-address", "127.0.0.1", "-port", str(mapper)],
            # The program itself: the script on the PATH requires an account of its own.
            [_program("rabbitmq-server", "/usr/lib/rabbitmq/bin")],
        ]
        broker = Broker(folder, f"amqp://guest:guest@127.0.0.1:{port}//", commands, environment)
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()
