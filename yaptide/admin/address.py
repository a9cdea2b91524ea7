"""Where the server of a data folder listens: `yaptide up` notes it there, for commands on the same machine."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = "server.url"


@contextmanager
def published_address(data: Path, address: str, port: int) -> Iterator[None]:
    """Note the address of a server as long as it listens; one that is killed leaves the note to the next."""
    file, url = data / _NAME, _url(address, port)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(url)
    try:
        yield
    finally:
        if read_address(data) == url:  # not that of another server, which has started since
            file.unlink(missing_ok=True)


def read_address(data: Path) -> str | None:
    """The URL of the server that was last started for a data folder, if it has not ended in good order."""
    with suppress(OSError):
        return (data / _NAME).read_text().strip() or None
    return None


def _url(address: str, port: int) -> str:
    """Where this machine reaches it: 0.0.0.0 is an address to listen on."""
    host = ipaddress.ip_address(address)
    if host.is_unspecified:
        host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
    return http_url(str(host), port)


def http_url(host: str, port: int) -> str:
    """The URL of a server on a host, given by name or by an address of either kind."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
