"""Archives of single simulations: to keep them elsewhere, or to move them to another installation.

docs/backup.md documents the format. What is particular to an installation stays there: numbers of rows, update keys
and the names by which its broker and its cluster know the tasks.
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
from sqlalchemy.exc import IntegrityError

from yaptide.domain import manifest
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.manifest import Change, Description, Estimator, JobId, Page, Payload, Task
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence import codec, container
from yaptide.persistence.container import Format, Reader, Writer
from yaptide.persistence.engine import Record
from yaptide.persistence.models import EstimatorModel, InputModel, LogfilesModel, PageModel, SimulationModel
from yaptide.persistence.models.base import Base, table_of
from yaptide.persistence.queries import simulations, tables, transfer
from yaptide.persistence.queries.users import User
from yaptide.services.access import NO_SUCH_JOB
from yaptide.services.backend import Backend
from yaptide.services.simulations import check_quota
from yaptide.simulators.files import check_names

T = TypeVar("T", bound=Struct)

#: Twice as many entries as the largest results have pages.
FORMAT = Format("yaptide-archive", 1, "an archive of simulations", 200_000)

#: Is told which simulation is being written or read, how many of its payloads are, and how many there are.
Watch = Callable[[str, int, int], None]

_MIB = 2**20
#: The most that a description may take, and the text in a payload: as much as results may be sent with. There may be a
#: thousand times as much text as there are bytes: that is what a page of zeros comes to.
_MOST_DESCRIPTION = 64 * _MIB
_MOST_TEXT = 1024 * _MIB
#: The same for payloads that become objects in memory whenever they are read: input, log files and metadata, and all
#: payloads of other writers, whose numbers may have to be written anew.
_MOST_OF_OBJECTS = 256 * _MIB
_MOST_OF_OTHERS = 64 * _MIB
#: How much larger all entries may be than the file: repetitive JSON comes to a tenth of that.
_MOST_INFLATED = 200
#: A payload counts for what its text would take if it were packed no better than most: reading it costs as much.
_TEXT_OF_A_BYTE = 10


class _About(Struct):
    simulations: list[JobId]


class _Object(Struct):
    """Any object of JSON: all of its text is looked at, and nothing is kept."""


class _Input(Struct):
    """What is looked at of an input."""

    input_files: dict[str, str] | None = None


class Exported(Struct):
    """What was written: names of the simulations, and the size of the file."""

    simulations: list[str]
    bytes: int


class Imported(Struct):
    """What was taken in for whom, and what was here already."""

    user: str
    imported: list[str]
    skipped: list[str]


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """Watch nothing."""


def export_simulations(
    backend: Backend, job_ids: Sequence[str], path: Path, watch: Watch = ignore_progress
) -> Exported:
    """Write simulations that have ended to a file.

    Raises NotFound, Conflict for one that has not ended or for too many of them at once, InvalidInput if a stored
    payload is damaged, StorageFull; then nothing is written, and a file of that name stays what it is.
    """
    names = list(dict.fromkeys(job_ids))
    with backend.database.reading() as connection, container.write_container(path, FORMAT) as writer:
        tables.take_snapshot(connection)
        for job_id in names:
            _write(backend.data_dir, connection, job_id, writer, watch)
        writer.about = _About(names)
    return Exported(names, path.stat().st_size)


def take_in(backend: Backend, path: Path, username: str, watch: Watch = ignore_progress) -> Imported:
    """Add the simulations in an archive to those of a user, all or none; those that are here already are left alone.

    Raises InvalidInput for a file that is damaged or no archive or that holds what no simulation can be, NotFound if
    there is no such user or cluster, Conflict if there is another simulation of the same name, or no room in the quota:
    for the bytes, or for what reading their text costs.
    """
    with container.open_container(path, FORMAT) as reader:
        if reader.total > _MOST_INFLATED * reader.length:
            raise InvalidInput("it is too small for what it says to hold")
        names = container.parse_json(reader.manifest.about, _About).simulations
        found = [_described_in(reader, job_id) for job_id in dict.fromkeys(names)]
        _check_named(reader, found)
        with backend.database.writing() as connection:  # before any payload costs anything
            _admit(connection, reader, username, found)
        for simulation in found:
            _check_payloads(backend.data_dir, reader, simulation, watch)
        with _taken(), backend.database.writing() as connection:
            user, new = _admit(connection, reader, username, found)
            for simulation in new:
                _add(connection, reader, simulation, user)
        imported = [simulation.job_id for simulation in new]
        return Imported(username, imported, [s.job_id for s in found if s.job_id not in imported])


def _admit(
    connection: Connection, reader: Reader, username: str, found: Sequence[Description]
) -> tuple[User, list[Description]]:
    """Whose the simulations are going to be, and those that are not here yet; raises as `take_in` does."""
    user = transfer.user_named(connection, username)
    if user is None:
        raise NotFound(f"There is no user {username!r}: add them first")
    new = [simulation for simulation in found if not _is_here(connection, simulation)]
    payloads = [payload for simulation in new for payload in simulation.payloads()]
    check_quota(connection, user, sum(max(reader.size(one.entry), one.size // _TEXT_OF_A_BYTE) for one in payloads))
    return user, new


@contextmanager
def _taken() -> Iterator[None]:
    """What the database does not take is a fault of the archive, or has just been done by somebody else."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(f"The database refuses what the archive holds: {str(error.orig).splitlines()[0]}") from error


# Describing


class _Inventory:
    """The payloads of a simulation, and where each of them is stored."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.places: dict[str, tuple[type[Base], int]] = {}

    def payload(self, model: type[Base], found: Record, name: str) -> Payload:
        """Note a row of `model` that has a payload, under the name of its entry."""
        entry = f"{self.job_id}/{name}.json.gz"
        self.places[entry] = (model, found.id)
        return Payload(entry, found.content_size, found.content_sha256)


def _described(connection: Connection, row: Record) -> tuple[Description, _Inventory]:
    """A simulation (`row` of `transfer.describe_simulation`) in full."""
    inventory = _Inventory(row.job_id)
    inputs = [inventory.payload(InputModel, found, "input") for found in transfer.list_inputs(connection, row.id)]
    logs = enumerate(transfer.list_logfiles(connection, row.id))
    values = {
        **row._mapping,
        "user": row.username,
        "input": inputs[0] if inputs else None,
        "tasks": [_picked(Task, dict(found._mapping)) for found in transfer.list_tasks(connection, row.id)],
        "history": [_picked(Change, dict(found._mapping)) for found in simulations.list_history(connection, row.id)],
        "estimators": _estimators(connection, row.id, inventory),
        "logfiles": [inventory.payload(LogfilesModel, found, f"logs/{number}") for number, found in logs],
    }
    return _picked(Description, values), inventory


def _estimators(connection: Connection, simulation_id: int, inventory: _Inventory) -> list[Estimator]:
    found = []
    for number, estimator in enumerate(transfer.list_estimators(connection, simulation_id)):
        metadata = inventory.payload(EstimatorModel, estimator, f"estimators/{number}")
        pages = [
            Page(
                page.page_number,
                page.page_name,
                page.page_dimension,
                inventory.payload(PageModel, page, f"estimators/{number}/{page.page_number}"),
            )
            for page in transfer.list_pages(connection, estimator.id)
        ]
        found.append(Estimator(estimator.name, estimator.file_name, metadata, pages))
    return found


def _picked(kind: type[T], values: Mapping[str, Any]) -> T:
    """Those of `values` that a `kind` of struct has; raises InvalidInput if they are not what it wants."""
    chosen = {name: values[name] for name in kind.__struct_fields__ if name in values}
    try:
        return msgspec.convert(chosen, kind, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"This simulation cannot be described: {error}") from error


def _content(simulation: Description) -> Description:
    """A simulation without what is different in two descriptions of the same one."""
    copied = deepcopy(simulation)
    copied.user = ""
    for payload in copied.payloads():
        payload.entry = ""
    return copied


# Writing


def _write(folder: Path, connection: Connection, job_id: str, writer: Writer, watch: Watch) -> None:
    row = transfer.describe_simulation(connection, job_id)
    if row is None:
        raise NotFound(f"{NO_SUCH_JOB}: {job_id}")
    if row.job_state not in FINAL_STATES:
        raise Conflict(f"{job_id} is {row.job_state}: only simulations that have ended can be exported")
    simulation, inventory = _described(connection, row)
    manifest.check_manifest(simulation)
    payloads = list(_payloads(simulation))
    for done, (payload, _, most) in enumerate(payloads):
        watch(job_id, done, len(payloads))
        data = transfer.read_payload(connection, *inventory.places[payload.entry])
        _check_payload(folder, data, payload, _Object, most)
        writer.add(payload.entry, data, deflated=False)
    text = msgspec.json.format(msgspec.json.encode(simulation))
    writer.add(_entry(job_id), text, deflated=True)
    watch(job_id, len(payloads), len(payloads))


def _entry(job_id: str) -> str:
    """The entry with the description of a simulation."""
    return f"{job_id}/simulation.json"


# Reading


def _described_in(reader: Reader, job_id: str) -> Description:
    """A simulation as the file describes it, of whose payloads nothing has been looked at yet."""
    simulation = container.parse_json(reader.read(_entry(job_id), _MOST_DESCRIPTION), Description)
    if simulation.job_id != job_id:
        raise InvalidInput(f"it describes another simulation in the place of {job_id}")
    manifest.check_manifest(simulation)
    return simulation


def _check_named(reader: Reader, found: Sequence[Description]) -> None:
    """Raise InvalidInput unless every entry is named by the simulations, and once."""
    named = Counter(payload.entry for simulation in found for payload in simulation.payloads())
    named.update(_entry(simulation.job_id) for simulation in found)
    for entry, times in named.most_common(1):
        if times > 1:
            raise InvalidInput(f"its entry {entry[:200]!r} is named {times} times")
    others = reader.manifest.entries.keys() - named.keys()
    if others:
        raise InvalidInput(f"none of its simulations names {len(others)} of its entries, such as {min(others)[:200]!r}")


def _check_payloads(folder: Path, reader: Reader, simulation: Description, watch: Watch) -> None:
    """Raise InvalidInput for a payload that is not what its description says, or not what it should be."""
    payloads = list(_payloads(simulation))
    for done, (payload, kind, most) in enumerate(payloads, start=1):
        checked = _check_payload(folder, reader.read(payload.entry, 0), payload, kind, most)
        if isinstance(checked, _Input):
            check_names(checked.input_files or {})
        watch(simulation.job_id, done, len(payloads))


def _payloads(simulation: Description) -> Iterator[tuple[Payload, Any, int]]:
    """Each payload, what it has to be, and how much text it may hold."""
    if simulation.input is not None:
        yield simulation.input, _Input, _MOST_OF_OBJECTS
    for logs in simulation.logfiles:
        yield logs, dict[str, str], _MOST_OF_OBJECTS
    for estimator in simulation.estimators:
        yield estimator.metadata, _Object, _MOST_OF_OBJECTS
        for page in estimator.pages:
            yield page.data, _Object, _MOST_TEXT


def _check_payload(folder: Path, data: bytes, payload: Payload, kind: type[T], most: int) -> T:
    """What a payload holds, as readers get it; raises InvalidInput if it is not what it should be.

    It is inflated to no more than the size it is said to have, before anything trusts it. Much text waits in a file in
    `folder`, which never has a name, so that memory does not depend on what is read.
    """
    most = most if codec.written_here(data) else _MOST_OF_OTHERS
    if payload.size > most:
        raise InvalidInput(f"the payload {payload.entry} has more than {most} bytes of text")
    with tempfile.TemporaryFile(dir=folder) if payload.size > codec.LARGE else io.BytesIO() as file:
        _inflate(data, payload, file)
        _check_joined(data, payload)
        with _viewed(file) as text:
            return container.parse_json(text if codec.written_here(data) else codec.readable(data), kind)


def _inflate(data: bytes, payload: Payload, file: IO[bytes]) -> None:
    """Write the text of a payload into a file, and see that it is the one that was described."""
    digest, left = hashlib.sha256(), payload.size
    for piece in codec.inflate_pieces(codec.views(data)):
        left -= len(piece)
        if left < 0:
            raise InvalidInput(f"the payload {payload.entry} has more text than it is said to have")
        digest.update(piece)
        file.write(piece)
    if left or digest.hexdigest() != payload.sha256:
        raise InvalidInput(f"the payload {payload.entry} is not what its size and its digest tell")


def _check_joined(data: bytes, payload: Payload) -> None:
    """See that a payload can be joined with others, as its header may say: from here on that is trusted."""
    stitched = codec.stitch_gzip([codec.Stored(data, payload.size)])
    digest = hashlib.sha256()
    for piece in codec.inflate_pieces(view for chunk in stitched for view in codec.views(chunk)):
        digest.update(piece)
    if codec.written_here(data) and digest.hexdigest() != payload.sha256:
        raise InvalidInput(f"the payload {payload.entry} cannot be joined with others")


@contextmanager
def _viewed(file: IO[bytes]) -> Iterator[memoryview]:
    """All that is in a file, of which no more is in memory than there is room for."""
    if isinstance(file, io.BytesIO):
        with file.getbuffer() as view:
            yield view
        return
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


# Adding


def _is_here(connection: Connection, simulation: Description) -> bool:
    """Whether the simulation is here already; raises Conflict if another one has its name."""
    row = transfer.describe_simulation(connection, simulation.job_id)
    if row is None:
        return False
    if row.job_state in FINAL_STATES:
        standing, _ = _described(connection, row)
        if _content(standing) == _content(simulation):
            return True
    raise Conflict(f"There is another simulation of the name {simulation.job_id}; nothing was imported")


def _add(connection: Connection, reader: Reader, simulation: Description, user: User) -> None:
    values = _columns(simulation, SimulationModel) | {
        "user_id": user.id,
        "update_key_hash": None,
        "stored_bytes": sum(reader.size(payload.entry) for payload in simulation.payloads()),
    }
    number = transfer.add_simulation(connection, values, _cluster(connection, simulation))
    transfer.add_tasks(connection, number, simulation.platform, list(map(structs.asdict, simulation.tasks)))
    transfer.add_history(connection, number, list(map(structs.asdict, simulation.history)))
    if simulation.input is not None:
        transfer.add_row(connection, InputModel, {"simulation_id": number, **_stored(reader, simulation.input)})
    for logs in simulation.logfiles:
        transfer.add_row(connection, LogfilesModel, {"simulation_id": number, **_stored(reader, logs)})
    for estimator in simulation.estimators:
        _add_estimator(connection, reader, number, estimator)


def _add_estimator(connection: Connection, reader: Reader, simulation_id: int, estimator: Estimator) -> None:
    values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
    number = transfer.add_row(connection, EstimatorModel, values | _stored(reader, estimator.metadata))
    for page in estimator.pages:
        values = {"page_number": page.page_number, "page_name": page.page_name, "page_dimension": page.page_dimension}
        transfer.add_row(connection, PageModel, {"estimator_id": number, **values, **_stored(reader, page.data)})


def _cluster(connection: Connection, simulation: Description) -> int | None:
    if simulation.cluster_name is None:
        return None
    number = transfer.cluster_named(connection, simulation.cluster_name)
    if number is None:
        raise NotFound(f"{simulation.job_id} ran on the cluster {simulation.cluster_name!r}: add it here first")
    return number


def _columns(simulation: Description, model: type[Base]) -> dict[str, Any]:
    """What a description says of the columns of its table."""
    told = {name: getattr(simulation, name) for name in simulation.__struct_fields__}
    return {name: value for name, value in told.items() if name in table_of(model).c}


def _stored(reader: Reader, payload: Payload) -> dict[str, Any]:
    """The columns of a payload that was checked before."""
    data = reader.read(payload.entry, 0)
    return codec.Payload(data, payload.size, payload.sha256).columns()
