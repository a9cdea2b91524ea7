"""HPC clusters: what is known of each, and administering that.

Administration needs nothing but the database: it loads nothing but SQLAlchemy (see `yaptide.services.administration`).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sqlalchemy.exc import IntegrityError

from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.persistence.engine import Database, Record
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
    """A cluster as it is stored; see `ClusterModel` for what each value means."""

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
        """Where job folders of an account are made; raises InvalidInput for what is no name of an account."""
        if not _ACCOUNT.fullmatch(account):
            raise InvalidInput(f"{account[:64]!r} is no name of an account on a cluster")
        return (self.scratch_folder or "").replace(_USER, account)


def list_names(backend: Backend) -> list[str]:
    """Names of all clusters, in alphabetical order."""
    with backend.database.reading() as connection:
        return clusters.list_names(connection)


def list_clusters(database: Database) -> list[Record]:
    """All clusters by name, with the number of their simulations."""
    with database.reading() as connection:
        return clusters.all_clusters(connection)


def find_cluster(database: Database, name: str) -> Cluster:
    """The cluster of this name; raises NotFound."""
    with database.reading() as connection:
        row = clusters.find_cluster(connection, name) if name.isprintable() else None
    if row is None:
        raise NotFound(f"There is no cluster {name!r}; see: yaptide clusters list")
    values = {entry.name: row._mapping[entry.name] for entry in fields(Cluster)}
    return Cluster(**values | {key: json.loads(values[key]) for key in _JSON})


def add_cluster(database: Database, cluster: Cluster) -> None:
    """Add a cluster; raises InvalidInput for what it cannot have, Conflict if the name is taken."""
    values = _values(check_cluster(cluster))
    try:
        with database.writing() as connection:
            clusters.add_cluster(connection, values)
    except IntegrityError:
        raise Conflict(f"There is a cluster {cluster.cluster_name!r} already") from None


def change_cluster(database: Database, name: str, values: Mapping[str, Any]) -> None:
    """Give some of a cluster's values anew; raises InvalidInput for what it cannot have, NotFound."""
    checked = _values(check_cluster(replace(find_cluster(database, name), **values)))
    with database.writing() as connection:
        clusters.change_cluster(connection, name, {key: checked[key] for key in values})


def remove_cluster(database: Database, name: str) -> None:
    """Remove a cluster; raises NotFound, and Conflict while there are simulations that ran on it."""
    find_cluster(database, name)
    try:
        with database.writing() as connection:
            clusters.remove_cluster(connection, name)
    except IntegrityError:
        raise Conflict(f"Simulations ran on {name}: it stays as long as they are kept") from None


def check_cluster(cluster: Cluster) -> Cluster:
    """The cluster as it can be stored; raises InvalidInput that says what is wrong."""
    check_name(cluster.cluster_name, "cluster")
    if cluster.host is not None and not _HOST.fullmatch(cluster.host):
        raise InvalidInput(f"{cluster.host!r} is no host name")
    if not 1 <= cluster.port <= 65535:
        raise InvalidInput("A port is between 1 and 65535")
    _check_scratch(cluster.scratch_folder)
    for text in (cluster.prologue or "", *cluster.simulators.values()):
        if "\0" in text:
            raise InvalidInput("A text with a null character cannot be sent to a cluster")
    for simulator, path in cluster.simulators.items():
        if not _SIMULATOR.fullmatch(simulator) or not path.isprintable() or not path.strip() or path.startswith("-"):
            raise InvalidInput(f"{simulator}={path}: the name of a simulator and its path are wanted")
    if any(limit is not None and limit < 1 for limit in (cluster.max_tasks, cluster.max_running)):
        raise InvalidInput("A limit of tasks is 1 or more")
    if cluster.keep_failed_days < 0:
        raise InvalidInput("The days for which folders are kept are 0 or more")
    options = get_scheduler().check_options(cluster.sbatch_options)
    return replace(cluster, sbatch_options=options, host_key=_host_key(cluster))


def _check_scratch(folder: str | None) -> None:
    if folder is None:
        return
    plain = folder.replace(_USER, "user")
    if not folder.startswith("/") or not folder.isprintable() or ".." in folder.split("/"):
        raise InvalidInput(f"{folder!r}: the scratch folder is a whole path that begins with /")
    if set("{}%\\") & set(plain):  # a scheduler replaces some of them in paths
        raise InvalidInput(f"{folder!r}: of these characters the scratch folder can have only {_USER}")


def _host_key(cluster: Cluster) -> str | None:
    """The host keys as lines of known_hosts; a public key alone is taken for the cluster's own."""
    if cluster.host_key is None:
        return None
    lines = [line.split() for line in cluster.host_key.splitlines()]
    found = [_known_host(words, cluster) for words in lines if words and not words[0].startswith("#")]
    if not found:
        raise InvalidInput("There is no host key in what was given")
    return "\n".join(found) + "\n"


def _known_host(words: list[str], cluster: Cluster) -> str:
    before = words[:1] if words[0] in _MARKERS else []
    rest = words[len(before) :]
    if rest and _KEY_TYPE.fullmatch(rest[0]):
        if cluster.host is None:
            raise InvalidInput("A host key without a host: say which with --host")
        rest.insert(0, known_as(cluster.host, cluster.port))
    if len(rest) < 3 or not _KEY_TYPE.fullmatch(rest[1]) or not _is_key(rest[1], rest[2]):
        raise InvalidInput(
            f"{' '.join(words)[:60]!r} is no line of known_hosts, such as: login.example.org ssh-rsa AAAA"
        )
    return " ".join([*before, *rest[:3]])


def known_as(host: str, port: int) -> str:
    """How known_hosts calls a host."""
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
