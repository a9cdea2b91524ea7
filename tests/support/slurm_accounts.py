"""Accounting for the SLURM cluster of the tests: slurmdbd and its MariaDB, with limits for the cluster's account."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.ports import free_port
from tests.support.slurm import DEADLINE, SlurmCluster, find_program, is_root, serve

_DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser={daemons}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=x
StorageLoc=accounts
"""
_SLURM_CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=associations,limits,qos
"""
_SQL = "CREATE DATABASE accounts; CREATE USER slurm@'%' IDENTIFIED BY 'x'; GRANT ALL ON accounts.* TO slurm@'%'"
#: Small, and without care for a crash of the machine.
_SERVER = (
    *("--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--innodb-lock-wait-timeout=900"),
    *("--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF", "--skip-name-resolve"),
)


@dataclass
class AccountedCluster(SlurmCluster):
    """A cluster with accounting, whose account may have jobs only within limits."""

    dbd_port: int = field(default_factory=free_port)
    sql_port: int = field(default_factory=free_port)

    def limit(self, *limits: str) -> None:
        """Set limits of the account, such as ``MaxSubmitJobs=3``; -1 removes one."""
        self.command("sacctmgr", "--immediate", "--quiet", "modify", "user", self.account, "set", *limits)

    def start_slurmdbd(self) -> None:
        """Start the daemon for accounting."""
        self.spawn("slurmdbd", "-D")
        self.wait_until("slurmdbd answers", self._has_clusters)

    def adapt_configuration(self, text: str) -> str:
        """Return slurm.conf with accounting."""
        lines = [line for line in text.splitlines() if not line.startswith("AccountingStorage")]
        return "\n".join(lines) + "\n" + _SLURM_CONF.format(dbd_port=self.dbd_port, folder=self.folder)

    def start_accounting(self) -> None:
        """Start MariaDB and slurmdbd, and add the cluster and its account, before the controller starts."""
        self._start_mariadb()
        values = {"folder": self.folder, "dbd_port": self.dbd_port, "sql_port": self.sql_port}
        path = self.folder / "slurmdbd.conf"
        path.write_text(_DBD_CONF.format(daemons="root" if is_root() else self.account, **values))
        path.chmod(0o600)
        self.start_slurmdbd()
        for words in (("cluster", "test"), ("account", "physics"), ("user", self.account, "account=physics")):
            self.command("sacctmgr", "--immediate", "--quiet", "add", *words)
        if is_root():  # the probe job is root's
            self.command("sacctmgr", "--immediate", "--quiet", "add", "user", "root", "account=physics")

    def _has_clusters(self) -> bool:
        return self.succeeds("sacctmgr", "--noheader", "show", "cluster")

    def _start_mariadb(self) -> None:
        data, socket = self.folder / "sql", self.folder / "sql.socket"
        user = "root" if is_root() else self.account
        common = ("--no-defaults", f"--user={user}", f"--datadir={data}")
        install = (find_program("mariadb-install-db"), *common, "--skip-test-db")
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal"], check=True, timeout=DEADLINE, capture_output=True
        )
        self.spawn("mariadbd", *common, f"--socket={socket}", f"--port={self.sql_port}", *_SERVER)
        client = ("mariadb", "--no-defaults", "--user=root", f"--socket={socket}", "--execute")
        self.wait_until("MariaDB answers", lambda: self.succeeds(*client, "SELECT 1"))
        self.command(*client, _SQL)


@contextlib.contextmanager
def serve_with_accounts() -> Iterator[AccountedCluster]:
    """Run a cluster with accounting, and remove everything afterwards."""
    for name in ("slurmdbd", "mariadbd", "mariadb", "mariadb-install-db", "sacctmgr"):
        find_program(name)
    with serve(AccountedCluster) as cluster:
        yield cluster
