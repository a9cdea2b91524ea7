"""A real nginx in front of a server, for as long as a block."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.processes import until

_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def nginx(folder: Path, locations: str) -> Iterator[str]:
    """Run nginx with these locations in its only server; yields its URL."""
    folder.mkdir()
    port, temporary = free_port(), "".join(f"{name}_temp_path {folder / name};" for name in _PATHS)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder / 'pid'}; error_log {folder / 'errors'}; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port};\n{locations}\n}} }}\n"
    )
    process = subprocess.Popen(["/usr/sbin/nginx", "-p", folder, "-c", config, "-e", folder / "errors"])
    try:
        until(lambda: _responds(f"http://127.0.0.1:{port}"), "nginx responds")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _responds(url: str) -> bool:
    try:
        return bool(httpx.get(url).status_code)
    except httpx.TransportError:
        return False
