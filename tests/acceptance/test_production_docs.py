"""docs/production.md: the way without containers, typed into a real shell, gives an installation that simulates.

Typed is each block, in its order. Different are, by these rules, and in the files of deploy/ too:

- folders: /etc, /opt and /var/lib are below a folder of the test;
- ports: free ones are in place of 80, 443, 5000, 5432 and 6379, and curl is led to the one of nginx;
- `tests/support/machine.py` stands in for what needs root or a machine of its own, such as `systemctl`.
"""

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.postgres import free_port, serve
from tests.support.processes import installation, session, until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/production.md").read_text()
EXAMPLE = "examples/proton-150MeV-water"
NAME = "yaptide.example.org"
PASSWORD = "correct horse battery"
#: Blocks that need what no test has: another broker is tried in tests of its own, another checkout does not exist.
ELSEWHERE = ("RabbitMQ instead of Redis",)
STEPS = 7


def section(heading: str) -> str:
    """What is below a heading of the second level."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## )", DOCUMENT, re.MULTILINE | re.DOTALL)[1]


def blocks() -> list[str]:
    """All blocks of the way without containers."""
    parts = re.split(r"^### (.+)\n", section("Without containers"), flags=re.MULTILINE)
    message = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert sum(heading[0].isdigit() for heading in message) == STEPS
    kept = [text for heading, text in message.items() if heading not in ELSEWHERE]
    return [block for text in kept for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


@dataclass
class Machine:
    """A folder in place of a machine."""

    root: Path
    ports: dict[int, int]

    def here(self, text: str) -> str:
        """What is written for a whole machine, for this one."""
        text = re.sub(r"(?<![\w.])/(etc|opt|var/lib)/", rf"{self.root}/\1/", text)
        text = re.sub(r"(?<=listen )(\d+)", lambda port: f"127.0.0.1:{self.ports[int(port[0])]}", text)
        text = re.sub(r"--port 5000\b", f"--port {self.ports[5000]}", text)
        return re.sub(
            r"\b(127\.0\.0\.1|localhost):(5000|5432|6379)\b",
            lambda result: f"{result[1]}:{self.ports[int(result[2])]}",
            text,
        )

    def environment(self) -> dict[str, str]:
        """The shell's."""
        path = f"{self.root / 'stand-ins'}:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.root), "LANG": "C.UTF-8", "MACHINE": str(self.root)}

    def type(self, text: str, message: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a script in the checkout, up to the first command that fails."""
        failing = "set -eEuo pipefail\ntrap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n"
        script = self.root / "script"
        script.write_text(failing + self.here(text))
        return subprocess.run(
            ["bash", script],
            cwd=self.root / "checkout",
            env=self.environment(),
            input=message,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def logs(self) -> str:
        """What the services have said."""
        return "\n".join(f"== {file.name}\n{file.read_text()[-4000:]}" for file in (self.root / "log").iterdir())


@pytest.fixture
def there(tmp_path):
    """A machine with a PostgreSQL that asks for passwords, and what a new Debian has of Redis and nginx."""
    installation()
    root = tmp_path / "machine"
    root.mkdir()
    root.chmod(0o755)
    for folder in ("etc/redis", "etc/nginx/conf.d", "etc/systemd/system", "opt", "log", "run", "redis", "stand-ins"):
        (root / folder).mkdir(parents=True)
    program = root / "stand-ins/stand-in"
    program.write_text(f"#!{sys.executable}\n{Path(machine.__file__).read_text()}")
    program.chmod(0o755)
    for name in machine.PROGRAMS:
        (root / "stand-ins" / name).symlink_to(program)
    with serve(password="a password of the superuser") as postgres:
        (root / "users").touch()
        result = Machine(root, {port: free_port() for port in (80, 443, 5000, 6379)} | {5432: postgres.port})
        (root / "postgres").write_text(
            f"PGHOST=127.0.0.1\nPGPORT={postgres.port}\nPGUSER=postgres\nPGPASSFILE={root / 'pgpass'}\n"
        )
        (root / "pgpass").write_text(f"127.0.0.1:{postgres.port}:*:postgres:{postgres.password}\n")
        (root / "pgpass").chmod(0o600)
        _as_debian_has_it(result)
        _check_out(result)
        try:
            yield result
        finally:
            for file in sorted((root / "run").iterdir(), key=lambda file: file.stat().st_mtime, reverse=True):
                machine.stop(root, file.name)


def _as_debian_has_it(there: Machine) -> None:
    root, ports = there.root, there.ports
    (root / "etc/redis/redis.conf").write_text(
        f"bind 127.0.0.1\nport {ports[6379]}\ndir {root / 'redis'}\nprotected-mode yes\n"
    )
    temporary = "".join(
        f"    {kind}_temp_path {root}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (root / "etc/nginx/nginx.conf").write_text(
        f"pid {root}/nginx.pid;\nerror_log {root}/log/nginx-errors;\nworker_processes 1;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{temporary}    include {root}/etc/nginx/conf.d/*.conf;\n}}\n"
    )
    (root / ".curlrc").write_text(f'connect-to = "{NAME}:443:127.0.0.1:{ports[443]}"\n')


def _check_out(there: Machine) -> None:
    """What the document uses of a checkout; the simulation takes a moment only."""
    checkout = there.root / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy")
    for file in (checkout / "deploy").iterdir():
        file.write_text(there.here(file.read_text()))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout / name)
    shutil.copytree(ROOT / EXAMPLE, checkout / EXAMPLE)
    config = checkout / EXAMPLE / "config.txt"
    assert "1e5" in config.read_text()
    config.write_text(config.read_text().replace("1e5", "1e4"))


def check_workers(there: Machine) -> None:
    """Each worker serves the given queues, and passes the health check of containers."""
    for name, queues in {"1": "simulate.mcsquare, merge", "2": "simulate.mcsquare, merge", "merge": "merge"}.items():
        log = there.root / f"log/yaptide-worker@{name}"
        says = f'"event": "Worker {name}@{socket.gethostname()} takes tasks: {queues}, '
        until(lambda log=log, says=says: says in log.read_text(), f"{log} has {says}")
    (check,) = re.findall(r"CMD (celery .*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    settings = (there.root / "etc/yaptide/worker.env").read_text()
    (broker,) = re.findall(r"^CELERY_BROKER_URL=.*$", settings, re.MULTILINE)
    for name, code in (("1", 0), ("nobody", 69)):
        ask = check.replace("worker@$HOSTNAME", f"{name}@$(hostname)")
        command = f"export {broker}\nexec {there.root}/opt/yaptide/bin/{ask}"
        done = subprocess.run(["bash", "-c", command], env=there.environment(), capture_output=True, check=False)
        assert done.returncode == code, done.stderr.decode()


def curl(there: Machine, *words: str) -> str:
    """What is answered, with its headers."""
    certificate = there.root / "etc/nginx/tls/fullchain.pem"
    command = ["curl", "--silent", "--show-error", "--include", "--cacert", certificate, *words]
    return subprocess.run(
        command, env=there.environment(), capture_output=True, text=True, check=True, timeout=60
    ).stdout


def check_nginx(there: Machine) -> None:
    """What it shows to strangers, and that the server knows of the TLS before it."""
    assert re.match(r"HTTP/1.1 200 ", shown := curl(there, f"https://{NAME}/healthz"))
    assert re.search(r"^strict-transport-security: max-age=\d{8}", shown, re.MULTILINE | re.IGNORECASE)
    assert re.match(r"HTTP/1.1 404 ", curl(there, f"https://{NAME}/metrics"))
    plain = curl(there, f"http://127.0.0.1:{there.ports[80]}/jobs?job_id=1")
    assert plain.startswith("HTTP/1.1 301 ")
    assert f"\nLocation: https://{NAME}/jobs?job_id=1\n" in plain
    login = f'{{"username": "alice", "password": "{PASSWORD}"}}'
    signed_in = curl(there, "--json", login, f"https://{NAME}/auth/login")
    cookies = re.findall(r"^Set-Cookie: (.*)$", signed_in, re.MULTILINE | re.IGNORECASE)
    assert cookies
    assert all("Secure" in cookie for cookie in cookies)
    # yaptide compares origins with what the browser sees, also where the port is another one.
    port = there.ports[443]
    elsewhere = ("--connect-to", f"{NAME}:{port}:127.0.0.1:{port}")
    for origin, status in ((f"https://{NAME}", 403), (f"https://{NAME}:{port}", 200), ("https://evil.example", 403)):
        words = (*elsewhere, "--request", "DELETE", "--header", f"Origin: {origin}")
        assert curl(there, *words, f"https://{NAME}:{port}/auth/logout").startswith(f"HTTP/1.1 {status} "), origin
    words = ("--request", "DELETE", "--header", f"Origin: https://{NAME}")
    assert curl(there, *words, f"https://{NAME}/auth/logout").startswith("HTTP/1.1 200 ")
    old = ["openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect", f"127.0.0.1:{there.ports[443]}"]
    done = subprocess.run(old, input="", capture_output=True, text=True, check=False, timeout=60)
    assert "Cipher is (NONE)" in done.stdout


def check_secrets(there: Machine) -> None:
    """Only who needs a file can read it, and workers know no more than they have to."""
    for name in ("server.env", "worker.env"):
        assert (there.root / "etc/yaptide" / name).stat().st_mode & 0o777 == 0o640
    worker = (there.root / "etc/yaptide/worker.env").read_text()
    assert "postgresql" not in worker
    assert "SECRET" not in worker


def check_stop(there: Machine) -> None:
    """Services end when they are stopped, with all processes that they started."""
    for name in ("yaptide-worker@2", "yaptide"):
        pid = int((there.root / "run" / name).read_text())
        machine.stop(there.root, name)
        until(lambda pid=pid: not session(pid), f"nothing is left of {name}")


def test_the_document_leads_to_an_installation_that_simulates(there):
    """One test, because running all commands takes longer than the checks afterwards."""
    done = there.type("\n".join(blocks()), f"{PASSWORD}\n")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{there.logs()}"
    assert '"job_state":"COMPLETED"' in done.stdout.splitlines()[-1]
    check_secrets(there)
    check_nginx(there)
    check_workers(there)
    check_stop(there)
