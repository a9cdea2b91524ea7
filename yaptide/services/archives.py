"""Archives of single simulations: to store them elsewhere, or move them to another installation.

docs/backup.md documents the format. What is specific to an installation is left out: row ids, update keys, and the ids
of tasks in its broker and its cluster.
"""

import hashlib
import io
import mmap
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from msgspec import Struct, structs
from sqlalchemy import Connection

from yaptide.domain import manifest
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.manifest import Estimator, HistoryEntry, JobId, Page, Payload, SimulationManifest, Task
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence import codec, container
from yaptide.persistence.container import Format, Reader, Writer
from yaptide.persistence.engine import Record, explain_rejection
from yaptide.persistence.models import EstimatorModel, InputModel, LogfilesModel, PageModel, SimulationModel
from yaptide.persistence.models.base import Base, table_of
from yaptide.persistence.queries import administration, archives as queries, backups, simulations
from yaptide.persistence.queries.users import User
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import Backend
from yaptide.services.simulations import check_quota
from yaptide.simulators.files import check_names

T = TypeVar("T", bound=Struct)

#: Twice as many entries as the largest results have pages.
FORMAT = Format("yaptide-archive", 1, "an archive of simulations", 200_000)

#: Progress callback: job_id, payloads done, payloads in total.
Watch = Callable[[str, int, int], None]

_MIB = 2**20
#: Maximum size of a description, and of the text in a payload: the same as for results that are sent. The text may be a
#: thousand times larger than its bytes, such as that of a page of zeros.
_MOST_DESCRIPTION = 64 * _MIB
_MOST_TEXT = 1024 * _MIB
#: The same for payloads that become objects in memory whenever they are read (input, log files and metadata), and for
#: all payloads of other writers, whose numbers may have to be converted.
_MOST_OF_OBJECTS = 256 * _MIB
_MOST_OF_OTHERS = 64 * _MIB
#: Maximum ratio of all entries to the file: repetitive JSON compresses to a tenth of that.
_MOST_INFLATED = 200
#: For quotas, a payload counts at least this fraction of its text, because reading it costs as much.
_TEXT_OF_A_BYTE = 10


class _About(Struct):
    simulations: list[JobId]


class _Object(Struct):
    """Any JSON object: all of its text is validated, nothing is kept."""


class _Input(Struct):
    """The validated part of an input."""

    input_files: dict[str, str] | None = None


class Exported(Struct):
    """Summary of an export: job_ids, and the size of the file."""

    simulations: list[str]
    bytes: int


class Imported(Struct):
    """Summary of an import: the user, imported job_ids, and those that already existed."""

    user: str
    imported: list[str]
    skipped: list[str]


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """Ignore progress."""


def export_simulations(
    backend: Backend, job_ids: Sequence[str], path: Path, watch: Watch = ignore_progress
) -> Exported:
    """Write ended simulations to a file.

    Raises NotFound, Conflict for a simulation that has not ended or for too many at once, InvalidInput if a stored
    payload is damaged, StorageFull; then nothing is written, and an existing file is unchanged.
    """
    names = list(dict.fromkeys(job_ids))
    with backend.database.reading() as connection, container.write_container(path, FORMAT) as writer:
        backups.take_snapshot(connection)
        for job_id in names:
            _write(backend.data_dir, connection, job_id, writer, watch)
        writer.about = _About(names)
    return Exported(names, path.stat().st_size)


def import_simulations(backend: Backend, path: Path, username: str, watch: Watch = ignore_progress) -> Imported:
    """Import the simulations in an archive for a user, all or none; existing ones are skipped.

    Raises InvalidInput for a file that is damaged, not an archive or has invalid contents, NotFound if the user or a
    cluster does not exist, Conflict if another simulation has the same job_id, or if the quota is too small for the
    bytes, or for the cost of reading their text.
    """
    with container.open_container(path, FORMAT) as reader:
        if reader.total > _MOST_INFLATED * reader.length:
            raise InvalidInput("the archive is truncated")
        names = container.parse_json(reader.manifest.about, _About).simulations
        manifests = [_read_manifest(reader, job_id) for job_id in dict.fromkeys(names)]
        _check_entries(reader, manifests)
        with backend.database.writing() as connection:  # before any expensive payload
            _admit(connection, reader, username, manifests)
        for simulation in manifests:
            _check_payloads(backend.data_dir, reader, simulation, watch)
        with explain_rejection(_reject), backend.database.writing() as connection:
            user, new = _admit(connection, reader, username, manifests)
            for simulation in new:
                _add(connection, reader, simulation, user)
        imported = [simulation.job_id for simulation in new]
        return Imported(username, imported, [s.job_id for s in manifests if s.job_id not in imported])


def _admit(
    connection: Connection, reader: Reader, username: str, manifests: Sequence[SimulationManifest]
) -> tuple[User, list[SimulationManifest]]:
    """Return the user, and the simulations that do not exist yet; raise the errors of `import_simulations`."""
    named = administration.users_named(connection, username)
    if not named:
        raise NotFound(f"Unknown user {username!r}: add the user first")
    user = min(named, key=lambda user: user.is_keycloak)  # the local one, if both have this name
    new = [simulation for simulation in manifests if not _exists(connection, simulation)]
    payloads = [payload for simulation in new for payload in simulation.payloads()]
    check_quota(connection, user, sum(max(reader.size(one.entry), one.size // _TEXT_OF_A_BYTE) for one in payloads))
    return user, new


def _reject(reason: str) -> Conflict:  # the archive is at fault, or a concurrent change
    return Conflict(f"The database rejects the contents of the archive: {reason}")


# Describing


class _Inventory:
    """The payloads of a simulation, and where they are stored."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.places: dict[str, tuple[type[Base], int]] = {}

    def payload(self, model: type[Base], row: Record, name: str) -> Payload:
        """Register a row of `model` with a payload, and return its entry."""
        entry = f"{self.job_id}/{name}.json.gz"
        self.places[entry] = (model, row.id)
        return Payload(entry, row.content_size, row.content_sha256)


def _load_manifest(connection: Connection, row: Record) -> tuple[SimulationManifest, _Inventory]:
    """Return a simulation (`row` of `queries.describe_simulation`) in full."""
    inventory = _Inventory(row.job_id)
    inputs = [inventory.payload(InputModel, each, "input") for each in queries.list_inputs(connection, row.id)]
    logs = enumerate(queries.list_logfiles(connection, row.id))
    values = {
        **row._mapping,
        "user": row.username,
        "input": inputs[0] if inputs else None,
        "tasks": [_convert(Task, dict(each._mapping)) for each in queries.list_tasks(connection, row.id)],
        "history": [
            _convert(HistoryEntry, dict(each._mapping)) for each in simulations.list_history(connection, row.id)
        ],
        "estimators": _estimators(connection, row.id, inventory),
        "logfiles": [inventory.payload(LogfilesModel, each, f"logs/{number}") for number, each in logs],
    }
    return _convert(SimulationManifest, values), inventory


def _estimators(connection: Connection, simulation_id: int, inventory: _Inventory) -> list[Estimator]:
    estimators = []
    for number, estimator in enumerate(queries.list_estimators(connection, simulation_id)):
        metadata = inventory.payload(EstimatorModel, estimator, f"estimators/{number}")
        pages = [
            Page(
                page.page_number,
                page.page_name,
                page.page_dimension,
                inventory.payload(PageModel, page, f"estimators/{number}/{page.page_number}"),
            )
            for page in queries.list_pages(connection, estimator.id)
        ]
        estimators.append(Estimator(estimator.name, estimator.file_name, metadata, pages))
    return estimators


def _convert(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return those of `values` that are fields of `kind`; raise InvalidInput if their types do not match."""
    chosen = {name: values[name] for name in kind.__struct_fields__ if name in values}
    try:
        return msgspec.convert(chosen, kind, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"Cannot describe this simulation: {error}") from error


def _content(simulation: SimulationManifest) -> SimulationManifest:
    """Return a simulation without the values that differ between two descriptions of the same one."""
    copied = deepcopy(simulation)
    copied.user = ""
    for payload in copied.payloads():
        payload.entry = ""
    return copied


# Writing


def _write(folder: Path, connection: Connection, job_id: str, writer: Writer, watch: Watch) -> None:
    row = queries.describe_simulation(connection, job_id)
    if row is None:
        raise NotFound(f"{NO_SUCH_JOB}: {job_id}")
    if row.job_state not in FINAL_STATES:
        raise Conflict(f"{job_id} is {row.job_state}: only simulations that have ended can be exported")
    simulation, inventory = _load_manifest(connection, row)
    manifest.check_manifest(simulation)
    payloads = list(_payloads(simulation))
    for done, (payload, _, most) in enumerate(payloads):
        watch(job_id, done, len(payloads))
        data = queries.read_payload(connection, *inventory.places[payload.entry])
        _check_payload(folder, data, payload, _Object, most)
        writer.add(payload.entry, data, deflated=False)
    text = msgspec.json.format(msgspec.json.encode(simulation))
    writer.add(_entry(job_id), text, deflated=True)
    watch(job_id, len(payloads), len(payloads))


def _entry(job_id: str) -> str:
    """Return the name of the entry with the description of a simulation."""
    return f"{job_id}/simulation.json"


# Reading


def _read_manifest(reader: Reader, job_id: str) -> SimulationManifest:
    """Return a simulation as the file describes it; its payloads are not checked yet."""
    simulation = container.parse_json(reader.read(_entry(job_id), _MOST_DESCRIPTION), SimulationManifest)
    if simulation.job_id != job_id:
        raise InvalidInput(f"the description of {job_id} has another job_id")
    manifest.check_manifest(simulation)
    return simulation


def _check_entries(reader: Reader, manifests: Sequence[SimulationManifest]) -> None:
    """Raise InvalidInput unless the simulations refer to every entry exactly once."""
    named = Counter(payload.entry for simulation in manifests for payload in simulation.payloads())
    named.update(_entry(simulation.job_id) for simulation in manifests)
    for entry, times in named.most_common(1):
        if times > 1:
            raise InvalidInput(f"its entry {entry[:200]!r} is used {times} times")
    others = reader.manifest.entries.keys() - named.keys()
    if others:
        raise InvalidInput(f"{len(others)} of its entries are not used, such as {min(others)[:200]!r}")


def _check_payloads(folder: Path, reader: Reader, simulation: SimulationManifest, watch: Watch) -> None:
    """Raise InvalidInput for a payload that does not match its description, or has invalid contents."""
    payloads = list(_payloads(simulation))
    for done, (payload, kind, most) in enumerate(payloads, start=1):
        checked = _check_payload(folder, reader.read(payload.entry, 0), payload, kind, most)
        if isinstance(checked, _Input):
            check_names(checked.input_files or {})
        watch(simulation.job_id, done, len(payloads))


def _payloads(simulation: SimulationManifest) -> Iterator[tuple[Payload, Any, int]]:
    """Yield each payload, its type, and the maximum size of its text."""
    if simulation.input is not None:
        yield simulation.input, _Input, _MOST_OF_OBJECTS
    for logs in simulation.logfiles:
        yield logs, dict[str, str], _MOST_OF_OBJECTS
    for estimator in simulation.estimators:
        yield estimator.metadata, _Object, _MOST_OF_OBJECTS
        for page in estimator.pages:
            yield page.data, _Object, _MOST_TEXT


def _check_payload(folder: Path, data: bytes, payload: Payload, kind: type[T], most: int) -> T:
    """Return the contents of a payload as readers get it; raise InvalidInput if it is invalid.

    It is decompressed to no more than its declared size before anything trusts it. A large text is kept in an unnamed
    file in `folder`, so that memory use does not depend on the archive.
    """
    most = most if codec.written_here(data) else _MOST_OF_OTHERS
    if payload.size > most:
        raise InvalidInput(f"the payload {payload.entry} has more than {most} bytes of text")
    with tempfile.TemporaryFile(dir=folder) if payload.size > codec.LARGE else io.BytesIO() as file:
        _inflate(data, payload, file)
        _check_joined(data, payload)
        with _view_file(file) as text:
            return container.parse_json(text if codec.written_here(data) else codec.decode_readable(data), kind)


def _inflate(data: bytes, payload: Payload, file: IO[bytes]) -> None:
    """Write the text of a payload into a file, and verify its size and digest."""
    digest, left = hashlib.sha256(), payload.size
    for piece in codec.inflate_pieces(codec.slice_data(data)):
        left -= len(piece)
        if left < 0:
            raise InvalidInput(f"the payload {payload.entry} has more text than declared")
        digest.update(piece)
        file.write(piece)
    if left or digest.hexdigest() != payload.sha256:
        raise InvalidInput(f"the payload {payload.entry} does not match its size and digest")


def _check_joined(data: bytes, payload: Payload) -> None:
    """Check that a payload can be joined with others if its header says so, because this is trusted later."""
    stitched = codec.stitch_gzip([codec.Stored(data, payload.size)])
    digest = hashlib.sha256()
    for piece in codec.inflate_pieces(view for chunk in stitched for view in codec.slice_data(chunk)):
        digest.update(piece)
    if codec.written_here(data) and digest.hexdigest() != payload.sha256:
        raise InvalidInput(f"the payload {payload.entry} cannot be joined with others")


@contextmanager
def _view_file(file: IO[bytes]) -> Iterator[memoryview]:
    """Return a view of a file, memory-mapped if it is on disk."""
    if isinstance(file, io.BytesIO):
        with file.getbuffer() as view:
            yield view
        return
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


# Adding


def _exists(connection: Connection, simulation: SimulationManifest) -> bool:
    """Return whether the simulation already exists; raise Conflict if another one has its job_id."""
    row = queries.describe_simulation(connection, simulation.job_id)
    if row is None:
        return False
    if row.job_state in FINAL_STATES:
        standing, _ = _load_manifest(connection, row)
        if _content(standing) == _content(simulation):
            return True
    raise Conflict(f"Another simulation has the job_id {simulation.job_id}; nothing was imported")


def _add(connection: Connection, reader: Reader, simulation: SimulationManifest, user: User) -> None:
    columns = table_of(SimulationModel).c
    described = {name: getattr(simulation, name) for name in simulation.__struct_fields__ if name in columns}
    values = described | {
        "user_id": user.id,
        "update_key_hash": None,
        "stored_bytes": sum(reader.size(payload.entry) for payload in simulation.payloads()),
    }
    number = queries.add_simulation(connection, values, _cluster(connection, simulation))
    queries.add_tasks(connection, number, simulation.platform, list(map(structs.asdict, simulation.tasks)))
    queries.add_history(connection, number, list(map(structs.asdict, simulation.history)))
    if simulation.input is not None:
        queries.add_row(connection, InputModel, {"simulation_id": number, **_stored(reader, simulation.input)})
    for logs in simulation.logfiles:
        queries.add_row(connection, LogfilesModel, {"simulation_id": number, **_stored(reader, logs)})
    for estimator in simulation.estimators:
        _add_estimator(connection, reader, number, estimator)


def _add_estimator(connection: Connection, reader: Reader, simulation_id: int, estimator: Estimator) -> None:
    values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
    number = queries.add_row(connection, EstimatorModel, values | _stored(reader, estimator.metadata))
    for page in estimator.pages:
        values = {"page_number": page.page_number, "page_name": page.page_name, "page_dimension": page.page_dimension}
        queries.add_row(connection, PageModel, {"estimator_id": number, **values, **_stored(reader, page.data)})


def _cluster(connection: Connection, simulation: SimulationManifest) -> int | None:
    if simulation.cluster_name is None:
        return None
    number = queries.cluster_named(connection, simulation.cluster_name)
    if number is None:
        raise NotFound(f"{simulation.job_id} ran on the cluster {simulation.cluster_name!r}: add the cluster first")
    return number


def _stored(reader: Reader, payload: Payload) -> dict[str, Any]:
    """Return the columns of a payload that was checked before."""
    data = reader.read(payload.entry, 0)
    return codec.Payload(data, payload.size, payload.sha256).columns()
