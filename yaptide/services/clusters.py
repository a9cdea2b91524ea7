"""HPC clusters: their stored configuration and its administration.

Administration needs only the database and loads only SQLAlchemy (see `yaptide.services.administration`).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.persistence.engine import Database, Record, explain_rejection
from yaptide.persistence.queries import clusters
from yaptide.platforms.batch.schedulers import get_scheduler
from yaptide.services.administration import check_name
from yaptide.services.backend import Backend

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?|[0-9A-Fa-f:]{2,45}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_SIMULATOR = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+")
_MARKERS = ("@cert-authority", "@revoked")
_USER = "{user}"
_JSON = ("simulators", "sbatch_options")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The configuration of a cluster; see `ClusterModel` for the meaning of each value."""

    cluster_name: str
    host: str | None = None
    port: int = 22
    host_key: str | None = None
    scratch_folder: str | None = None
    prologue: str | None = None
    simulators: Mapping[str, str] = field(default_factory=dict)
    sbatch_options: Mapping[str, str] = field(default_factory=dict)
    max_tasks: int | None = None
    max_running: int | None = None
    keep_failed_days: int = 7

    def scratch_of(self, account: str) -> str:
        """Return the folder for an account's job folders; raise InvalidInput for an invalid account name."""
        if not _ACCOUNT.fullmatch(account):
            raise InvalidInput(f"{account[:64]!r} is not a valid account name on a cluster")
        return (self.scratch_folder or "").replace(_USER, account)


def list_names(backend: Backend) -> list[str]:
    """Return the names of all clusters in alphabetical order."""
    with backend.database.reading() as connection:
        return clusters.list_names(connection)


def list_clusters(database: Database) -> list[Record]:
    """Return all clusters by name, with the number of their simulations."""
    with database.reading() as connection:
        return clusters.all_clusters(connection)


def find_cluster(database: Database, name: str) -> Cluster:
    """Return the cluster with this name; raise NotFound."""
    with database.reading() as connection:
        row = clusters.find_cluster(connection, name) if name.isprintable() else None
    if row is None:
        raise NotFound(f"Unknown cluster {name!r}; see: yaptide clusters list")
    values = {entry.name: row._mapping[entry.name] for entry in fields(Cluster)}
    return Cluster(**values | {key: json.loads(values[key]) for key in _JSON})


def add_cluster(database: Database, cluster: Cluster) -> None:
    """Add a cluster; raise InvalidInput for invalid values, Conflict if the name is taken."""
    values = _values(check_cluster(cluster))
    taken = Conflict(f"Cluster {cluster.cluster_name!r} already exists")
    with explain_rejection(lambda _: taken), database.writing() as connection:
        clusters.add_cluster(connection, values)


def change_cluster(database: Database, name: str, values: Mapping[str, Any]) -> None:
    """Change some values of a cluster; raise InvalidInput for invalid values, NotFound."""
    checked = _values(check_cluster(replace(find_cluster(database, name), **values)))
    with database.writing() as connection:
        clusters.change_cluster(connection, name, {key: checked[key] for key in values})


def remove_cluster(database: Database, name: str) -> None:
    """Remove a cluster; raise NotFound, or Conflict while simulations that ran on it exist."""
    find_cluster(database, name)
    in_use = Conflict(f"Cannot remove {name}: simulations that ran on it exist")
    with explain_rejection(lambda _: in_use), database.writing() as connection:
        clusters.remove_cluster(connection, name)


def check_cluster(cluster: Cluster) -> Cluster:
    """Return the cluster in the form to be stored; raise InvalidInput for invalid values."""
    check_name(cluster.cluster_name, "cluster")
    if cluster.host is not None and not _HOST.fullmatch(cluster.host):
        raise InvalidInput(f"{cluster.host!r} is not a valid host name")
    if not 1 <= cluster.port <= 65535:
        raise InvalidInput("A port must be between 1 and 65535")
    _check_scratch(cluster.scratch_folder)
    for text in (cluster.prologue or "", *cluster.simulators.values()):
        if "\0" in text:
            raise InvalidInput("Values must not contain null characters")
    for simulator, path in cluster.simulators.items():
        if not _SIMULATOR.fullmatch(simulator) or not path.isprintable() or not path.strip() or path.startswith("-"):
            raise InvalidInput(f"{simulator}={path}: use NAME=PATH, the name of a simulator and its path")
    if any(limit is not None and limit < 1 for limit in (cluster.max_tasks, cluster.max_running)):
        raise InvalidInput("A limit of tasks must be 1 or more")
    if cluster.keep_failed_days < 0:
        raise InvalidInput("The number of days to keep folders must be 0 or more")
    options = get_scheduler().check_options(cluster.sbatch_options)
    return replace(cluster, sbatch_options=options, host_key=_host_key(cluster))


def _check_scratch(folder: str | None) -> None:
    if folder is None:
        return
    plain = folder.replace(_USER, "user")
    if not folder.startswith("/") or not folder.isprintable() or ".." in folder.split("/"):
        raise InvalidInput(f"{folder!r}: the scratch folder must be an absolute path")
    if set("{}%\\") & set(plain):  # a scheduler replaces some of them in paths
        raise InvalidInput(f"{folder!r}: the scratch folder must not contain {{, }}, % or \\, except {_USER}")


def _host_key(cluster: Cluster) -> str | None:
    """Return the host keys as known_hosts lines; a public key alone is taken as the key of the cluster's host."""
    if cluster.host_key is None:
        return None
    lines = [line.split() for line in cluster.host_key.splitlines()]
    known_hosts = [_known_host(words, cluster) for words in lines if words and not words[0].startswith("#")]
    if not known_hosts:
        raise InvalidInput("No host key found: give a public key or lines of known_hosts")
    return "\n".join(known_hosts) + "\n"


def _known_host(words: list[str], cluster: Cluster) -> str:
    marker = words[:1] if words[0] in _MARKERS else []
    fields = words[len(marker) :]
    if fields and _KEY_TYPE.fullmatch(fields[0]):
        if cluster.host is None:
            raise InvalidInput("A host key needs a host: set it with --host")
        fields.insert(0, known_as(cluster.host, cluster.port))
    if len(fields) < 3 or not _KEY_TYPE.fullmatch(fields[1]) or not _is_key(fields[1], fields[2]):
        raise InvalidInput(
            f"{' '.join(words)[:60]!r} is not a known_hosts line: use e.g. login.example.org ssh-rsa AAAA"
        )
    return " ".join([*marker, *fields[:3]])


def known_as(host: str, port: int) -> str:
    """Return the name of a host in known_hosts."""
    return host if port == 22 else f"[{host}]:{port}"


def _is_key(key_type: str, text: str) -> bool:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return data[: 4 + len(key_type)] == len(key_type).to_bytes(4, "big") + key_type.encode()


def _values(cluster: Cluster) -> dict[str, Any]:
    values = asdict(cluster)
    return values | {name: json.dumps(values[name], sort_keys=True) for name in _JSON}
