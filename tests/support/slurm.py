"""A real cluster for tests: SLURM with one node, and the SSH server of its login node.

Everything runs as plain processes on loopback and free ports, in one temporary folder, without systemd, with or without
root. As root, jobs run as an account created for them; otherwise as the current user.
"""

import contextlib
import getpass
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncssh

from tests.support import keeper
from tests.support.ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo", "sshd")
#: Longer than any of the steps below takes on a busy machine.
DEADLINE = 90.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
SlurmUser={daemons}
SlurmdUser={daemons}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd
TaskPlugin=task/none
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
MinJobAge=300
MaxArraySize=1001
KillWait=2
InactiveLimit=0
EnforcePartLimits=ALL
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
LaunchParameters=disable_send_gids
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=60 DefaultTime=10 DefMemPerCPU=100 State=UP
"""

_SSHD_CONFIG = """\
Port {ssh_port}
ListenAddress 127.0.0.1
HostKey {folder}/ssh/host
HostCertificate {folder}/ssh/host-cert.pub
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/ssh/authorized_keys
TrustedUserCAKeys {folder}/ssh/ca.pub
StrictModes {strict}
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers {account}
UsePAM no
UseDNS no
PrintMotd no
X11Forwarding no
MaxStartups 100
MaxSessions 50
LogLevel VERBOSE
SetEnv SLURM_CONF={folder}/slurm.conf
Subsystem sftp internal-sftp
"""


class SlurmMissing(Exception):
    """Programs of SLURM or OpenSSH are not installed."""


def find_program(name: str) -> str:
    """Return the full path of a program: sshd must be called by it, and daemons are not on most users' PATH."""
    if path := shutil.which(name, path=_PATH):
        return path
    raise SlurmMissing(
        f"These tests need {name}: run `scripts/setup slurm`, or install it (on Debian: apt-get install "
        "--no-install-recommends slurmctld slurmd slurm-client munge openssh-server)."
    )


@dataclass
class Keys:
    """Keys of the login node and of its users; a certificate from `ca` makes any key valid."""

    host: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    ca: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    user: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    def certificate(self, principal: str, begin: str | int = "-1m", end: str | int = "+2h") -> str:
        """Return a certificate of the user's key for the account `principal`; `begin` and `end` as for ssh-keygen."""
        certificate = self.ca.generate_user_certificate(
            self.user, "test", principals=[principal], valid_after=begin, valid_before=end
        )
        return certificate.export_certificate().decode()


@dataclass
class SlurmCluster:
    """A cluster and how to connect to it; created by `serve`."""

    folder: Path
    account: str
    keys: Keys = field(default_factory=Keys)
    ssh_port: int = field(default_factory=free_port)
    slurmctld_port: int = field(default_factory=free_port)
    slurmd_port: int = field(default_factory=free_port)
    pids: dict[str, int] = field(default_factory=dict)
    _keeper: subprocess.Popen[str] | None = None

    @property
    def host(self) -> str:
        """Address of the login node."""
        return "127.0.0.1"

    @property
    def host_key(self) -> str:
        """Host key of the login node, as a line of known_hosts."""
        return f"[{self.host}]:{self.ssh_port} {_public(self.keys.host)}"

    @property
    def host_authority(self) -> str:
        """The authority that signed the host key, as a line of known_hosts."""
        return f"@cert-authority [{self.host}]:{self.ssh_port} {_public(self.keys.ca)}"

    @property
    def private_key(self) -> str:
        """Private key of the certificates, without a passphrase."""
        return self.keys.user.export_private_key().decode()

    @property
    def scratch(self) -> Path:
        """A folder that the account may write to."""
        return self.folder / "scratch"

    @property
    def environment(self) -> dict[str, str]:
        """Environment for commands of SLURM."""
        return {"PATH": _PATH, "SLURM_CONF": str(self.folder / "slurm.conf"), "LANG": "C.UTF-8"}

    def command(self, *words: str) -> str:
        """Return the output of a SLURM command run by the administrator; raise RuntimeError if it fails."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False, timeout=DEADLINE
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def reach_time_limit(self, job: str) -> None:
        """Let a running job reach its time limit; the shortest limit for a submission is a minute.

        SLURM rejects an end time that has passed when the request arrives, so it is set a few seconds ahead.
        """
        self.command("scontrol", "update", f"JobId={job}", "EndTime=now+3")

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Accept jobs, but start none of them within the block."""
        self.command("scontrol", "update", "PartitionName=main", "State=DOWN")
        try:
            yield
        finally:
            self.command("scontrol", "update", "PartitionName=main", "State=UP")

    @contextlib.contextmanager
    def manners(self, shell: str, start_up: str, text: str, **commands: str) -> Iterator[None]:
        """Give the account another login shell, its start-up file `start_up`, and commands of its own on the PATH.

        A command is a shell script, in which `$REAL` is the real command. Needs root for a shell other than bash.
        """
        home = self.folder / "home" if is_root() else Path.home()
        bin_folder = self.folder / "bin"
        bin_folder.mkdir(exist_ok=True)
        for name, script in commands.items():
            (bin_folder / name).write_text(f"#!/bin/sh\nREAL={find_program(name)}\n{script}\n")
            (bin_folder / name).chmod(0o755)
        if is_root():
            subprocess.run([find_program("usermod"), f"--shell={shell}", self.account], check=True, timeout=DEADLINE)
        (home / start_up).write_text(text)
        try:
            yield
        finally:
            (home / start_up).unlink()
            shutil.rmtree(bin_folder)
            if is_root():
                subprocess.run([find_program("usermod"), "--shell=/bin/bash", self.account], check=True)

    def start(self) -> None:
        """Start everything and wait until a job has run."""
        for name in PROGRAMS:
            find_program(name)
        afterwards = [["rm", "-rf", str(self.folder)]]
        if is_root():
            afterwards.insert(0, ["userdel", self.account])
        self._keeper = subprocess.Popen(
            [sys.executable, keeper.__file__, json.dumps(afterwards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._make_folder()
        self.start_munged()
        self.start_accounting()
        self.start_slurmctld("-c")
        self.start_slurmd()
        self._start_sshd()
        self.wait_until("the node is idle", lambda: self._answers("idle", "sinfo", "--noheader", "--format=%T"))
        # Jobs may still not start: only a job that has run proves it.
        probe = ("srun", "--ntasks=1", "--mem=20", "--job-name=probe", "echo", "up")
        self.wait_until("a first job", lambda: self._answers("up", *probe))

    def close(self) -> None:
        """End everything at once and remove it."""
        if self._keeper is not None:
            self._keeper.stdin.close()
            self._keeper.wait(DEADLINE)
            self._keeper.stdout.close()
            self._keeper = None

    def start_slurmctld(self, *options: str) -> None:
        """Start the controller; it continues the jobs it knows."""
        self.spawn("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"), *options)

    def start_slurmd(self) -> None:
        """Start the daemon of the node."""
        self.spawn("slurmd", "-D", "-f", str(self.folder / "slurm.conf"), "-N", self._node)

    def stop(self, name: str) -> None:
        """Stop a daemon cleanly; a killed one would forget the jobs of its last seconds."""
        pid = self.pids.pop(name)
        os.kill(pid, signal.SIGTERM)
        self.wait_until(f"{name} has ended", lambda: not Path(f"/proc/{pid}").exists())

    def adapt_configuration(self, text: str) -> str:
        """Return the content of slurm.conf, for clusters that are different."""
        return text

    def start_accounting(self) -> None:
        """Start what must run before the controller: nothing."""

    def drop_connections(self) -> None:
        """Drop all SSH connections, like a network failure."""
        for pid in keeper.descendants(self.pids["sshd"]):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # Do not kill processes of a session: their end could be reported before the connection is gone.
                if Path(f"/proc/{pid}/comm").read_text() == "sshd\n":
                    os.kill(pid, signal.SIGKILL)

    @property
    def _node(self) -> str:
        return f"n{self.slurmd_port}"

    def _make_folder(self) -> None:
        host = socket.gethostname().partition(".")[0]
        daemons = "root" if is_root() else self.account
        names = ("host", "slurmctld_port", "slurmd_port", "ssh_port", "account", "folder")
        values = {name: getattr(self, name) for name in names}
        values |= {"host": host, "daemons": daemons, "node": self._node, "strict": "yes" if is_root() else "no"}
        self.folder.chmod(0o755)
        for name in ("munge", "slurmctld", "slurmd", "ssh", "scratch", "home"):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / "slurm.conf").write_text(self.adapt_configuration(_SLURM_CONF.format_map(values)))
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format_map(values))
        for name, key in (("host", self.keys.host), ("ca", self.keys.ca)):
            key.write_private_key(self.folder / "ssh" / name)
            (self.folder / "ssh" / name).chmod(0o600)
            key.write_public_key(self.folder / "ssh" / f"{name}.pub")
        signed = self.keys.ca.generate_host_certificate(self.keys.host, "host", principals=[self.host])
        signed.write_certificate(self.folder / "ssh" / "host-cert.pub")
        (self.folder / "ssh" / "authorized_keys").touch()
        if is_root():
            home = self.folder / "home"
            # A password of '!' locks the account, and sshd would not even accept keys.
            options = ("--no-create-home", "--user-group", "--shell=/bin/bash", "--password=*", f"--home-dir={home}")
            subprocess.run([find_program("useradd"), *options, self.account], check=True, timeout=DEADLINE)
            owner = pwd.getpwnam(self.account)
            for path in (home, self.scratch):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def start_munged(self) -> None:
        """Start the daemon that authenticates all others; a second time with the same key."""
        folder = self.folder / "munge"
        key = folder / "key"
        if not key.exists():
            key.write_bytes(os.urandom(128))
            key.chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        self.spawn("munged", "--foreground", "--num-threads=2", *options)
        self.wait_until("munged listens", (folder / "socket").exists)

    def _start_sshd(self) -> None:
        self.spawn("sshd", "-D", "-e", "-f", str(self.folder / "sshd_config"))

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((self.host, self.ssh_port)) == 0

        self.wait_until("sshd listens", listens)

    def succeeds(self, *words: str) -> bool:
        """Return whether a command of the administrator succeeds within 15 s."""
        try:
            return not subprocess.run(
                words, env=self.environment, capture_output=True, check=False, timeout=15
            ).returncode
        except subprocess.TimeoutExpired:
            return False

    def spawn(self, name: str, *options: str) -> None:
        """Start a program that ends with the cluster."""
        request = {"command": [find_program(name), *options], "environment": self.environment}
        self._keeper.stdin.write(json.dumps({**request, "log": str(self._log(name))}) + "\n")
        self._keeper.stdin.flush()
        self.pids[name] = int(self._keeper.stdout.readline())

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _answers(self, expected: str, *words: str) -> bool:
        """Return whether a command prints the expected text; SLURM commands can hang without a controller."""
        try:
            done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=15)
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.strip() == expected

    def wait_until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; raise RuntimeError if a daemon ends or it takes too long."""
        deadline = time.monotonic() + DEADLINE
        while not is_so():
            ended = [name for name, pid in self.pids.items() if not Path(f"/proc/{pid}").exists()]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{name}: {self._log(name).read_text()[-2000:]}" for name in self.pids)
                raise RuntimeError(f"{', '.join(ended) or 'nothing'} ended while waiting until {what}\n{logs}")
            time.sleep(0.05)


def is_root() -> bool:
    """Return whether the tests run as root."""
    return os.geteuid() == 0


def _public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


Cluster = TypeVar("Cluster", bound=SlurmCluster)


@contextlib.contextmanager
def serve(kind: type[Cluster] = SlurmCluster) -> Iterator[Cluster]:
    """Run a cluster, and remove everything afterwards."""
    # A short path, because sockets allow about a hundred characters. It is readable, because jobs run as another
    # account.
    folder = Path(tempfile.mkdtemp(prefix="yaptide-slurm-", dir="/tmp"))
    account = f"yaptide-{folder.name[-8:].replace('_', '-')}".lower() if is_root() else getpass.getuser()
    cluster = kind(folder, account)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
