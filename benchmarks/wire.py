"""A minimal HTTP client, so that the server dominates the measurement: raw requests on a persistent connection."""

import socket
from urllib.parse import urlsplit

_BUFFER = 1 << 20
_TIMEOUT = 600.0


class Wire:
    """A persistent connection to the server at `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname, parts.port), _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BUFFER))

    def request(self, method: str, path: str, body: bytes = b"", more: int = 0, **headers: str) -> bytes:
        """Return the bytes of a request, or of its beginning if the body has `more` bytes."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(body) + more}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def send(self, request: bytes, expected: int = 200, more: bytes = b"") -> int:
        """Send a request with the rest of its body, discard the response body and return its size.

        Raises RuntimeError if the status is not `expected`.
        """
        self._socket.sendall(request)
        self._socket.sendall(more)
        read = self._read(0)
        while (end := bytes(self._buffer[:read]).find(b"\r\n\r\n")) < 0:
            read = self._read(read)
        head = bytes(self._buffer[:end]).lower()
        begun = read - end - 4
        tail = bytes(self._buffer[end + 4 : read])
        if b"content-length:" in head:
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            total = begun
            while total < length:
                total += self._socket.recv_into(self._buffer)
        else:
            total = begun
            tail = tail[-5:]
            while tail != b"0\r\n\r\n":
                count = self._read(0)
                total += count
                tail = (tail + bytes(self._buffer[max(0, count - 5) : count]))[-5:]
        status = int(head[9:12])
        if status != expected:
            raise RuntimeError(f"{request[:80]!r}: {status} {bytes(self._buffer[end + 4 : read])[:300]!r}")
        return total

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _read(self, offset: int) -> int:
        count = self._socket.recv_into(self._buffer[offset:])
        if not count:
            raise RuntimeError("the server has closed the connection")
        return offset + count
