"""SSH connections to clusters: one for each cluster and login, kept open, for callers in any thread.

asyncssh runs in one event loop, in a thread of its own. Keys come from memory, never from files or an agent; host keys
are always checked. A command is a list of words, and is quoted for the remote shell here and nowhere else. A command is
never repeated by itself: whoever called knows whether it may be.
"""

import asyncio
import errno
import secrets
import shlex
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, Forbidden, NotFound, StorageFull, TooLarge
from yaptide_client.extras import needed_for

with needed_for("Running on clusters"):
    import asyncssh

T = TypeVar("T")

_KEEPALIVE = 15
_CHUNK = 64 * 1024
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
_NO_ROOM = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)


@dataclass(frozen=True, slots=True)
class Server:
    """The login node of a cluster; `host_key` are lines of known_hosts."""

    host: str
    port: int
    host_key: str

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Who connects: an account there, a private key in OpenSSH's or PEM form, and the certificate for it, if any."""

    account: str
    private_key: str = field(repr=False)
    certificate: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for connecting, for a command, for a file, and until an unused connection is closed; bytes of output."""

    connect: float = 20.0
    command: float = 60.0
    transfer: float = 600.0
    idle: float = 300.0
    output: int = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a command; an exit code below zero is the signal that ended it."""

    exit_code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Its standard output."""
        return self.out.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """Why it failed, in a line: the end of what it said."""
        said = (self.err or self.out).decode("utf-8", "replace").split()
        return " ".join(said)[-300:] or f"exit code {self.exit_code}"


@dataclass(slots=True)
class _Link:
    """A connection of the pool; its lock keeps two callers from connecting at the same time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: asyncssh.SSHClientConnection | None = None
    uses: int = 0
    expiry: asyncio.TimerHandle | None = None


class Connections:
    """The pool. Make one for a process, after it has forked; `close` it at the end."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._links: dict[tuple[Server, Login], _Link] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def to(self, server: Server, login: Login) -> "SshSession":
        """The cluster as `login` sees it. Nothing is connected before it is used."""
        return SshSession(self, server, login)

    def close(self) -> None:
        """Close all connections and end the thread."""
        with self._starting:
            if self._loop is None or self._thread is None:
                return
            asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have `work`, which has limits of its own, done in the loop's thread, and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @asynccontextmanager
    async def connection(self, server: Server, login: Login) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """An open connection: that of the pool, or a new one where there is none or it was lost."""
        key = (server, login)
        link = self._links.setdefault(key, _Link())
        link.uses += 1
        if link.expiry is not None:
            link.expiry.cancel()
        try:
            async with link.lock:
                if link.connection is None or link.connection.is_closed():
                    link.connection = await _connect(server, login, self.limits)
            yield link.connection
        finally:
            link.uses -= 1
            if not link.uses:
                link.expiry = asyncio.get_running_loop().call_later(self.limits.idle, self._expire, key)

    def _expire(self, key: tuple[Server, Login]) -> None:
        link = self._links.pop(key)
        if link.connection is not None:
            link.connection.close()

    async def _close_all(self) -> None:
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            if link.expiry is not None:
                link.expiry.cancel()
            if link.connection is not None:
                link.connection.close()
                with suppress(TimeoutError, OSError, asyncssh.Error):
                    await asyncio.wait_for(link.connection.wait_closed(), 2.0)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
                self._thread.start()
            return self._loop


@dataclass(frozen=True, slots=True)
class SshSession:
    """A cluster as one login sees it.

    All calls raise ClusterUnavailable (no answer, connection lost), ClusterRefused (host key, credentials) and, with
    files, NotFound, Forbidden and StorageFull.
    """

    connections: Connections
    server: Server
    login: Login

    def run(self, *words: str, data: bytes = b"", limit: float | None = None) -> Finished:
        """Run a command with `data` as its standard input, for `limit` seconds at most; raises TooLarge as well."""
        command = shlex.join(words)
        seconds = limit or self.connections.limits.command
        return self._do(lambda connection: _run(connection, command, data, self.connections.limits.output), seconds)

    def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Write a file; it appears whole or not at all."""
        self._with_files(lambda files: _write(files, path, data, mode), path)

    def read(self, path: str, most: int) -> bytes:
        """The content of a file; raises TooLarge for one of more than `most` bytes."""
        return self._with_files(lambda files: _read(files, path, most), path)

    def put(self, local: Path, path: str) -> None:
        """Send a file; it appears whole or not at all."""
        self._with_files(lambda files: _put(files, local, path), path)

    def get(self, path: str, local: Path) -> None:
        """Fetch a file."""
        self._with_files(lambda files: files.get(path, str(local)), path)

    def make_folder(self, path: str, mode: int = 0o700) -> None:
        """Make a folder and those above it; one that is there is left as it is."""
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        self._with_files(lambda files: files.makedirs(path, attributes, exist_ok=True), path)

    def _with_files(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], path: str) -> T:
        async def transfer(connection: asyncssh.SSHClientConnection) -> T:
            with _explained_file(path):
                async with connection.start_sftp_client() as files:
                    return await work(files)

        return self._do(transfer, self.connections.limits.transfer)

    def _do(self, work: Callable[[asyncssh.SSHClientConnection], Awaitable[T]], seconds: float) -> T:
        async def limited() -> T:
            with _explained(self.server, self.login):
                async with self.connections.connection(self.server, self.login) as connection:
                    try:
                        async with asyncio.timeout(seconds):
                            return await work(connection)
                    except TimeoutError:  # others may use the connection: whether it is dead, keepalives find out
                        raise ClusterUnavailable(f"{self.server} did not finish within {seconds:g} s") from None

        return self.connections.call(limited())


def scan_host_key(host: str, port: int, limits: Limits | None = None) -> tuple[str, str]:
    """The public key that a host shows to everybody, and its fingerprint; whether it is the right host stays open."""
    limits = limits or Limits()
    server = Server(host, port, "")

    async def look() -> asyncssh.SSHKey | None:
        with _explained(server, Login("", "")):
            async with asyncio.timeout(limits.connect):
                return await asyncssh.get_server_host_key(host, port, config=None)

    key = asyncio.run(look())
    if key is None:
        raise ClusterRefused(f"{server} shows no host key")
    return " ".join(key.export_public_key().decode().split()[:2]), key.get_fingerprint()


async def _connect(server: Server, login: Login, limits: Limits) -> asyncssh.SSHClientConnection:
    keys, known = _client_keys(login), _known_hosts(server)
    async with asyncio.timeout(limits.connect):
        return await asyncssh.connect(
            server.host,
            server.port,
            username=login.account,
            client_keys=keys,
            known_hosts=known,
            agent_path=None,
            config=None,
            preferred_auth="publickey",
            keepalive_interval=_KEEPALIVE,
            connect_timeout=limits.connect,
            login_timeout=limits.connect,
        )


def _known_hosts(server: Server) -> asyncssh.SSHKnownHosts:
    """The host keys to believe; raises ClusterRefused where there are none, since others would be believed then."""
    if not server.host_key.strip():
        raise ClusterRefused(f"No host key of {server} is stored: nobody could tell whether it is the right one")
    try:
        return asyncssh.import_known_hosts(server.host_key)
    except ValueError:
        raise ClusterRefused(f"The stored host keys of {server} are no lines of known_hosts") from None


def _client_keys(login: Login) -> list[Any]:
    """The key with its certificate; raises ClusterRefused for what no cluster would take."""
    try:
        key = asyncssh.import_private_key(login.private_key)
        if not login.certificate:
            return [key]
        certificate = asyncssh.import_certificate(login.certificate)
        found = [(key, certificate)]
        asyncssh.load_keypairs(found)  # finds out whether they belong together
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        if "assphrase" in str(error):
            raise ClusterRefused("The private key has a passphrase; one without is needed") from None
        raise ClusterRefused("The private key or its certificate cannot be read, or they do not match") from None
    _check_certificate(login)
    return found


def _check_certificate(login: Login) -> None:
    """Say what a server would not: that a certificate has expired, or is for somebody else."""
    try:
        certificate = load_ssh_public_identity(login.certificate.encode())
    except Exception:  # noqa: BLE001 - of a kind that only the server can judge
        return
    if not isinstance(certificate, SSHCertificate):
        return
    now = datetime.now(UTC).timestamp()
    if certificate.valid_before <= now:
        end = datetime.fromtimestamp(certificate.valid_before, UTC)
        raise ClusterRefused(f"The SSH certificate expired at {end:%Y-%m-%d %H:%M} UTC; a new one is needed")
    if certificate.valid_after > now:
        begin = datetime.fromtimestamp(certificate.valid_after, UTC)
        raise ClusterRefused(f"The SSH certificate is not valid before {begin:%Y-%m-%d %H:%M} UTC")
    names = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if names and login.account not in names:
        raise ClusterRefused(f"The SSH certificate is for {', '.join(names)}, not for {login.account}")


async def _run(connection: asyncssh.SSHClientConnection, command: str, data: bytes, most: int) -> Finished:
    process = await connection.create_process(command, encoding=None)
    outputs = asyncio.gather(_all(process.stdout, most), _all(process.stderr, most))
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # a command need not read what it is given
            process.stdin.write(data)
            await process.stdin.drain()
            process.stdin.write_eof()
        out, err = await outputs
        await process.wait_closed()
    except BaseException:
        outputs.cancel()
        with suppress(OSError, asyncssh.Error):
            process.kill()
        process.close()  # and not waited for: it may take as long as the command
        raise
    if process.returncode is None:  # the connection ended before the command did
        raise asyncssh.ConnectionLost("Connection lost")
    return Finished(process.returncode, out, err)


async def _all(stream: asyncssh.SSHReader[bytes], most: int) -> bytes:
    found = bytearray()
    while chunk := await stream.read(_CHUNK):
        found += chunk
        if len(found) > most:
            raise TooLarge(f"A command on the cluster printed more than {most} bytes")
    return bytes(found)


async def _write(files: asyncssh.SFTPClient, path: str, data: bytes, mode: int) -> None:
    aside = f"{path}.part"
    async with files.open(aside, "wb", asyncssh.SFTPAttrs(permissions=mode)) as file:
        await file.write(data)
        await file.setstat(asyncssh.SFTPAttrs(permissions=mode))  # one that was left there keeps its own
    await files.posix_rename(aside, path)


async def _put(files: asyncssh.SFTPClient, local: Path, path: str) -> None:
    aside = f"{path}.{secrets.token_hex(4)}.part"
    await files.put(str(local), aside)
    await files.posix_rename(aside, path)


async def _read(files: asyncssh.SFTPClient, path: str, most: int) -> bytes:
    async with files.open(path, "rb") as file:
        found: bytes = await file.read(most + 1)
    if len(found) > most:
        raise TooLarge(f"{path} has more than {most} bytes")
    return found


@contextmanager
def _explained_file(path: str) -> Iterator[None]:
    try:
        yield
    except asyncssh.SFTPNoSuchFile:
        raise NotFound(f"There is no {path} on the cluster") from None
    except asyncssh.SFTPPermissionDenied:
        raise Forbidden(f"{path} on the cluster may not be used by this account") from None
    except _NO_ROOM as error:
        raise StorageFull(f"{path} on the cluster cannot be written: {error.reason}") from None
    except asyncssh.SFTPConnectionLost:
        raise asyncssh.ConnectionLost("Connection lost") from None
    except asyncssh.SFTPError as error:  # OpenSSH has but one word for all the rest
        why = f"{error.reason}; is its disk or the account's quota full?"
        raise ClusterRefused(f"{path} on the cluster: {why}") from None


@contextmanager
def _explained(server: Server, login: Login) -> Iterator[None]:
    """Turn what goes wrong with a connection into errors that say what to do."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable:
        raise ClusterRefused(_about_host_key(server)) from None
    except asyncssh.PermissionDenied:
        raise ClusterRefused(
            f"{server} does not let {login.account} in: it has no such account, or does not accept the credentials"
        ) from None
    except asyncssh.ChannelOpenError as error:
        raise ClusterUnavailable(f"{server} opens no session: {error.reason}") from None
    except asyncssh.ConnectionLost:
        raise ClusterUnavailable(f"The connection to {server} was lost") from None
    except asyncssh.DisconnectError as error:
        raise ClusterUnavailable(f"{server} ended the connection: {error.reason}") from None
    except TimeoutError:
        raise ClusterUnavailable(f"{server} does not answer") from None
    except socket.gaierror:
        raise ClusterUnavailable(
            f"The host name {server.host} is not known; is it right, does the network work?"
        ) from None
    except ConnectionRefusedError:
        raise ClusterUnavailable(f"{server.host} has no SSH server on port {server.port}, or it is down") from None
    except OSError as error:
        what = "there is no route to it" if error.errno in _NO_ROUTE else (error.strerror or str(error))
        raise ClusterUnavailable(f"{server} cannot be reached: {what}") from None


def _about_host_key(server: Server) -> str:
    hosts, authorities, *_ = _known_hosts(server).match(server.host, "", server.port)
    if not hosts and not authorities:
        return f"The stored host keys are not for {server}: what they begin with has to match its name and port"
    return (
        f"The host key of {server} is not the stored one. It was changed, or somebody else answers in its place: "
        "ask its administrator, and store the new one only if that is true"
    )
