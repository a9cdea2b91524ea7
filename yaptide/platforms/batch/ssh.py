"""SSH connections to clusters: one per cluster and login, kept open, for callers in any thread.

asyncssh runs in an event loop in a separate thread. Keys come from memory, never from files or an SSH agent; host keys
are always checked. A command is a list of words, which is quoted for the remote shell only here. Commands are never
retried here: the caller knows whether a command may run twice.

The login shell of the account may be any, and may print any text: `_BOOTSTRAP` is valid in all of them, and markers
before and after the output of a command tell it from all other text.
"""

import asyncio
import errno
import secrets
import shlex
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
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
#: Remote command line, valid in sh, bash, zsh, fish, csh and tcsh. The lines that it runs come from standard input: sh
#: reads them byte by byte, so what follows them is the input of the command.
_BOOTSTRAP = """exec /bin/sh -c 'while read -r line; do case $line in yaptide_break=*) eval "$line";; esac; done'"""
#: Empty lines before the command: a `read` in a start-up file of the login shell takes one of them.
_PADDING = b"\n" * 16
_MOST_SHOWN = 200
_MOST_COMPLAINT = 500
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
_NO_ROOM = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)


@dataclass(frozen=True, slots=True)
class Server:
    """The login node of a cluster; `host_key` has lines in the format of known_hosts."""

    host: str
    port: int
    host_key: str

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials: account, private key in OpenSSH or PEM format, and its certificate, if any."""

    account: str
    private_key: str = field(repr=False)
    certificate: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds for connecting, commands, file transfers and unused connections; bytes of output."""

    connect: float = 20.0
    command: float = 60.0
    transfer: float = 600.0
    idle: float = 300.0
    output: int = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a command. An exit code over 128 may be 128 plus the signal that ended it.

    `around` is what the login shell printed before the command.
    """

    exit_code: int
    out: bytes
    err: bytes
    around: str = ""

    @property
    def text(self) -> str:
        """Standard output."""
        return self.out.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """The error message in one line: the end of standard error, or of standard output if that is empty."""
        words = (self.err or self.out).decode("utf-8", "replace").split()
        return " ".join(words)[-_MOST_COMPLAINT:] or f"exit code {self.exit_code}"


@dataclass(slots=True)
class _Link:
    """A connection in the pool; its lock prevents two callers from connecting at the same time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: asyncssh.SSHClientConnection | None = None
    uses: int = 0
    expiry: asyncio.TimerHandle | None = None


class Connections:
    """The pool of connections: one per process, created after the process has forked; `close` it at the end."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._links: dict[tuple[Server, Login], _Link] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def open_session(self, server: Server, login: Login) -> "SshSession":
        """A session on a cluster; it connects when it is first used."""
        return SshSession(self, server, login)

    def close(self) -> None:
        """Close all connections and stop the thread."""
        with self._starting:
            if self._loop is None or self._thread is None:
                return
            asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which must limit its own time, in the thread of the event loop; returns its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @asynccontextmanager
    async def borrow_connection(self, server: Server, login: Login) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """An open connection from the pool; a new one if there is none, or it was lost."""
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

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True)
                self._thread.start()
            return self._loop


@dataclass(frozen=True, slots=True)
class SshSession:
    """Commands and files on a cluster, as one login.

    All methods raise ClusterUnavailable (no answer, connection lost) and ClusterRefused (host key, credentials).
    Methods for files also raise NotFound, Forbidden and StorageFull.
    """

    connections: Connections
    server: Server
    login: Login

    def run_command(self, *words: str, data: bytes = b"", limit: float | None = None) -> Finished:
        """Run a command with `data` as standard input, for at most `limit` seconds; also raises TooLarge."""
        marker = f"yaptide-{secrets.token_hex(8)}"
        data = _PADDING + _make_line(words, marker).encode() + data
        seconds = limit or self.connections.limits.command
        finished = self._run_limited(
            lambda connection: _run_process(connection, data, self.connections.limits.output), seconds
        )
        return _cut_out(finished, marker, self)

    def write_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Write a file atomically."""
        self._transfer(lambda files: _write(files, path, data, mode), path)

    def read_file(self, path: str, most: int) -> bytes:
        """The content of a file; raises TooLarge if it has more than `most` bytes."""
        return self._transfer(lambda files: _read(files, path, most), path)

    def upload_file(self, local: Path, path: str) -> None:
        """Upload a file; it appears atomically."""
        self._transfer(lambda files: _put(files, local, path), path)

    def download_file(self, path: str, local: Path) -> None:
        """Download a file."""
        self._transfer(lambda files: files.get(path, str(local)), path)

    def make_folder(self, path: str, mode: int = 0o700) -> None:
        """Create a folder and its parents, unless it exists."""
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        self._transfer(lambda files: files.makedirs(path, attributes, exist_ok=True), path)

    def _transfer(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], path: str) -> T:
        async def transfer(connection: asyncssh.SSHClientConnection) -> T:
            with _explained_file(path):
                async with AsyncExitStack() as stack:
                    files = await stack.enter_async_context(await _start_sftp(connection, self))
                    return await work(files)

        return self._run_limited(transfer, self.connections.limits.transfer)

    def _run_limited(self, work: Callable[[asyncssh.SSHClientConnection], Awaitable[T]], seconds: float) -> T:
        async def limited() -> T:
            with _explained(self.server, self.login):
                async with self.connections.borrow_connection(self.server, self.login) as connection:
                    try:
                        async with asyncio.timeout(seconds):
                            return await work(connection)
                    except TimeoutError:  # keepalives detect a dead connection
                        raise ClusterUnavailable(f"{self.server} did not finish within {seconds:g} s") from None

        return self.connections.run_coroutine(limited())


def scan_host_key(host: str, port: int, limits: Limits | None = None) -> tuple[str, str]:
    """The public key that a host presents, and its fingerprint; does not verify that it is the right host."""
    limits = limits or Limits()
    server = Server(host, port, "")

    async def scan() -> asyncssh.SSHKey | None:
        with _explained(server, Login("", "")):
            async with asyncio.timeout(limits.connect):
                return await asyncssh.get_server_host_key(host, port, config=None)

    key = asyncio.run(scan())
    if key is None:
        raise ClusterRefused(f"{server} presents no host key")
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
    """The host keys to accept; raises ClusterRefused if there are none, because asyncssh would then use others."""
    if not server.host_key.strip():
        raise ClusterRefused(f"No host key of {server} is stored, so the host cannot be verified")
    try:
        return asyncssh.import_known_hosts(server.host_key)
    except ValueError:
        raise ClusterRefused(f"The stored host keys of {server} are not in the format of known_hosts") from None


def _client_keys(login: Login) -> list[Any]:
    """The key with its certificate; raises ClusterRefused for credentials that no cluster would accept."""
    try:
        key = asyncssh.import_private_key(login.private_key)
        if not login.certificate:
            return [key]
        certificate = asyncssh.import_certificate(login.certificate)
        pairs = [(key, certificate)]
        asyncssh.load_keypairs(pairs)  # raises ValueError if they do not match
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        if "assphrase" in str(error):
            raise ClusterRefused("The private key has a passphrase; use a key without one") from None
        raise ClusterRefused("The private key or its certificate cannot be read, or they do not match") from None
    _check_certificate(login)
    return pairs


def _check_certificate(login: Login) -> None:
    """Raise ClusterRefused for a certificate that is not valid now, or for another account: servers do not say why."""
    try:
        certificate = load_ssh_public_identity(login.certificate.encode())
    except Exception:  # noqa: BLE001 - an unknown format: the server decides
        return
    if not isinstance(certificate, SSHCertificate):
        return
    now = datetime.now(UTC).timestamp()
    if certificate.valid_before <= now:
        end = datetime.fromtimestamp(certificate.valid_before, UTC)
        raise ClusterRefused(
            f"The SSH certificate expired at {end:%Y-%m-%d %H:%M} UTC; sign in again or upload a new one"
        )
    if certificate.valid_after > now:
        begin = datetime.fromtimestamp(certificate.valid_after, UTC)
        raise ClusterRefused(f"The SSH certificate is not valid before {begin:%Y-%m-%d %H:%M} UTC")
    names = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if names and login.account not in names:
        raise ClusterRefused(f"The SSH certificate is for {', '.join(names)}, not for {login.account}")


def _make_line(words: Sequence[str], marker: str) -> str:
    """The line for `_BOOTSTRAP` that runs a command between markers, on standard output and on standard error."""
    # A line holds no line break: each one in a word, which is between single quotes there, becomes a variable.
    command = shlex.join(words).replace("\n", "'\"$yaptide_break\"'")
    begin, end = f"printf '%s\\n' {marker}", f"printf '%s\\n' \"{marker}:$yaptide_code\""
    steps = (
        "yaptide_break=$(printf '\\nx'); yaptide_break=${yaptide_break%x}",
        f"{begin}; {begin} >&2",
        f"{command}; yaptide_code=$?",
        f"{end}; {end} >&2",
        "exit 0",
    )
    return "; ".join(steps) + "\n"


def _cut_out(finished: Finished, marker: str, session: "SshSession") -> Finished:
    """The command's own output and exit code; raises ClusterUnavailable if it did not run, or did not end."""
    before, begun, rest = finished.out.partition(f"{marker}\n".encode())
    out, ended, after = rest.rpartition(f"{marker}:".encode())
    code = after.split(b"\n")[0]
    around = Finished(finished.exit_code, before, b"").text.strip()
    if not begun:
        said = " ".join((finished.err + b" " + before).decode("utf-8", "replace").split())[:_MOST_SHOWN]
        raise ClusterUnavailable(
            f"The login shell of {session.login.account} on {session.server} ended before it ran a command: its "
            "start-up files (such as ~/.bashrc) must not exit or wait in sessions without a terminal"
            + (f"; it printed: {said}" if said else "")
        )
    if not ended or not code.isdigit():
        raise ClusterUnavailable(f"A command on {session.server} was stopped before it ended")
    err = finished.err.partition(f"{marker}\n".encode())[2].rpartition(f"{marker}:".encode())[0]
    return Finished(int(code), out, err, around)


async def _run_process(connection: asyncssh.SSHClientConnection, data: bytes, most: int) -> Finished:
    process = await connection.create_process(_BOOTSTRAP, encoding=None)
    outputs = asyncio.gather(_read_all(process.stdout, most), _read_all(process.stderr, most))
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # a command need not read its input
            process.stdin.write(data)
            await process.stdin.drain()
            process.stdin.write_eof()
        out, err = await outputs
        await process.wait_closed()
    except BaseException:
        outputs.cancel()
        with suppress(OSError, asyncssh.Error):
            process.kill()
        process.close()  # without waiting, which could take as long as the command
        raise
    if process.returncode is None:  # the connection ended before the command did
        raise asyncssh.ConnectionLost("Connection lost")
    return Finished(process.returncode, out, err)


async def _start_sftp(connection: asyncssh.SSHClientConnection, session: "SshSession") -> asyncssh.SFTPClient:
    """Start SFTP; text of the login shell, where sshd starts sftp-server through it, must not look like a full disk."""
    try:
        async with asyncio.timeout(session.connections.limits.connect):
            return await connection.start_sftp_client()
    except (TimeoutError, asyncssh.SFTPError, asyncssh.ConnectionLost):
        if connection.is_closed():
            raise asyncssh.ConnectionLost("Connection lost") from None
        raise ClusterUnavailable(
            f"SFTP does not work on {session.server} for {session.login.account}: start-up files of its login shell "
            "(such as ~/.bashrc) must print nothing in sessions without a terminal"
        ) from None


async def _read_all(stream: asyncssh.SSHReader[bytes], most: int) -> bytes:
    output = bytearray()
    while chunk := await stream.read(_CHUNK):
        output += chunk
        if len(output) > most:
            raise TooLarge(f"A command on the cluster printed more than {most} bytes")
    return bytes(output)


async def _write(files: asyncssh.SFTPClient, path: str, data: bytes, mode: int) -> None:
    temporary = f"{path}.part"
    async with files.open(temporary, "wb", asyncssh.SFTPAttrs(permissions=mode)) as file:
        await file.write(data)
        await file.setstat(asyncssh.SFTPAttrs(permissions=mode))  # an existing file keeps its permissions
    await files.posix_rename(temporary, path)


async def _put(files: asyncssh.SFTPClient, local: Path, path: str) -> None:
    temporary = f"{path}.{secrets.token_hex(4)}.part"
    await files.put(str(local), temporary)
    await files.posix_rename(temporary, path)


async def _read(files: asyncssh.SFTPClient, path: str, most: int) -> bytes:
    async with files.open(path, "rb") as file:
        content: bytes = await file.read(most + 1)
    if len(content) > most:
        raise TooLarge(f"{path} has more than {most} bytes")
    return content


@contextmanager
def _explained_file(path: str) -> Iterator[None]:
    try:
        yield
    except asyncssh.SFTPNoSuchFile:
        raise NotFound(f"There is no {path} on the cluster") from None
    except asyncssh.SFTPPermissionDenied:
        raise Forbidden(f"{path} on the cluster: permission denied for this account") from None
    except _NO_ROOM as error:
        raise StorageFull(f"{path} on the cluster cannot be written: {error.reason}") from None
    except asyncssh.SFTPConnectionLost:
        raise asyncssh.ConnectionLost("Connection lost") from None
    except asyncssh.SFTPError as error:  # OpenSSH reports all other errors as "Failure"
        why = f"{error.reason}; is its disk or the account's quota full?"
        raise ClusterRefused(f"{path} on the cluster: {why}") from None


@contextmanager
def _explained(server: Server, login: Login) -> Iterator[None]:
    """Translate connection errors into errors that say what to do."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable:
        raise ClusterRefused(_about_host_key(server)) from None
    except asyncssh.PermissionDenied:
        raise ClusterRefused(
            f"{server} rejected {login.account}: the account does not exist there, or the credentials are not accepted"
        ) from None
    except asyncssh.ChannelOpenError as error:
        raise ClusterUnavailable(f"{server} cannot open a session: {error.reason}") from None
    except asyncssh.ConnectionLost:
        raise ClusterUnavailable(f"The connection to {server} was lost") from None
    except asyncssh.DisconnectError as error:
        raise ClusterUnavailable(f"{server} closed the connection: {error.reason}") from None
    except TimeoutError:
        raise ClusterUnavailable(f"{server} does not answer") from None
    except socket.gaierror:
        raise ClusterUnavailable(
            f"The host name {server.host} cannot be resolved; check the name and the network"
        ) from None
    except ConnectionRefusedError:
        raise ClusterUnavailable(f"No SSH server on {server.host} port {server.port}, or it is down") from None
    except OSError as error:
        what = "no route to host" if error.errno in _NO_ROUTE else (error.strerror or str(error))
        raise ClusterUnavailable(f"{server} cannot be reached: {what}") from None


def _about_host_key(server: Server) -> str:
    hosts, authorities, *_ = _known_hosts(server).match(server.host, "", server.port)
    if not hosts and not authorities:
        return f"The stored host keys are not for {server}: each must begin with its name and port"
    return (
        f"The host key of {server} is not the stored one. It was changed, or another host answers in its place: "
        "ask its administrator, and store the new key only if the change is confirmed"
    )
