"""The address of a data folder's server: `yaptide up` writes it there for commands on the same machine."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = "server.url"


@contextmanager
def published_address(data: Path, address: str, port: int) -> Iterator[None]:
    """Publish a server's address while it listens. After a kill the file stays, and the next server overwrites it."""
    file, url = data / _NAME, _url(address, port)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(url)
    try:
        yield
    finally:
        if read_address(data) == url:  # another server may have started since
            file.unlink(missing_ok=True)


def read_address(data: Path) -> str | None:
    """Return the URL of the server last started for a data folder, or None if it has shut down cleanly."""
    with suppress(OSError):
        return (data / _NAME).read_text().strip() or None
    return None


def _url(address: str, port: int) -> str:
    """Return the URL at which this machine reaches the server: nothing can connect to 0.0.0.0 itself."""
    host = ipaddress.ip_address(address)
    if host.is_unspecified:
        host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
    return http_url(str(host), port)


def http_url(host: str, port: int) -> str:
    """Return the URL of a server from its host name, IPv4 or IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
