"""Archives of single simulations: to keep them elsewhere, or to move them to another installation.

docs/backup.md documents the format. What is particular to an installation stays there: numbers of rows, update keys
and the names by which its broker and its cluster know the tasks.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from yaptide.domain import description
from yaptide.domain.description import Change, Description, Estimator, JobId, Page, Payload, Task
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
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

FORMAT = Format("yaptide-archive", 1, "an archive of simulations")

#: Is told which simulation is being written or read, how many of its payloads are, and how many there are.
Watch = Callable[[str, int, int], None]

_MIB = 2**20
#: The most that a description may take, and the text in a payload: as much as results may be sent with.
_MOST_DESCRIPTION = 64 * _MIB
_MOST_TEXT = 1024 * _MIB
#: How much larger all entries may be than the file: repetitive JSON comes to a tenth of that.
_MOST_INFLATED = 200


class _About(Struct):
    simulations: list[JobId]


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


def ignore(_what: str, _done: int, _total: int) -> None:
    """Watch nothing."""


def export(backend: Backend, job_ids: Sequence[str], path: Path, watch: Watch = ignore) -> Exported:
    """Write simulations that have ended to a file.

    Raises NotFound, Conflict for one that has not ended, InvalidInput if a stored payload is damaged, StorageFull; then
    nothing is written, and a file of that name stays what it is.
    """
    names = list(dict.fromkeys(job_ids))
    with backend.database.reading() as connection, container.written(path, FORMAT) as writer:
        tables.take_snapshot(connection)
        for job_id in names:
            _write(connection, job_id, writer, watch)
        writer.about = _About(names)
    return Exported(names, path.stat().st_size)


def take_in(backend: Backend, path: Path, username: str, watch: Watch = ignore) -> Imported:
    """Add the simulations in an archive to those of a user, all or none; those that are here already are left alone.

    Raises InvalidInput for a file that is damaged or no archive or that holds what no simulation can be, NotFound if
    there is no such user or cluster, Conflict if there is another simulation of the same name, or no room in the quota.
    """
    with container.opened(path, FORMAT) as reader:
        if reader.total > _MOST_INFLATED * reader.length:
            raise InvalidInput("it is too small for what it says to hold")
        names = container.parse(reader.manifest.about, _About).simulations
        found = [_read(reader, job_id, watch) for job_id in dict.fromkeys(names)]
        with _taken(), backend.database.writing() as connection:
            user = transfer.user_named(connection, username)
            if user is None:
                raise NotFound(f"There is no user {username!r}: add them first")
            new = [simulation for simulation in found if not _is_here(connection, simulation)]
            entries = [payload.entry for simulation in new for payload in simulation.payloads()]
            check_quota(connection, user, sum(map(reader.size, entries)))
            for simulation in new:
                _add(connection, reader, simulation, user)
        imported = [simulation.job_id for simulation in new]
        return Imported(username, imported, [s.job_id for s in found if s.job_id not in imported])


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
    """A simulation (`row` of `transfer.described`) in full."""
    inventory = _Inventory(row.job_id)
    inputs = [inventory.payload(InputModel, found, "input") for found in transfer.inputs(connection, row.id)]
    logs = enumerate(transfer.logfiles(connection, row.id))
    values = {
        **row._mapping,
        "user": row.username,
        "input": inputs[0] if inputs else None,
        "tasks": [_picked(Task, dict(found._mapping)) for found in transfer.tasks(connection, row.id)],
        "history": [_picked(Change, dict(found._mapping)) for found in simulations.history(connection, row.id)],
        "estimators": _estimators(connection, row.id, inventory),
        "logfiles": [inventory.payload(LogfilesModel, found, f"logs/{number}") for number, found in logs],
    }
    return _picked(Description, values), inventory


def _estimators(connection: Connection, simulation_id: int, inventory: _Inventory) -> list[Estimator]:
    found = []
    for number, estimator in enumerate(transfer.estimators(connection, simulation_id)):
        metadata = inventory.payload(EstimatorModel, estimator, f"estimators/{number}")
        pages = [
            Page(
                page.page_number,
                page.page_name,
                page.page_dimension,
                inventory.payload(PageModel, page, f"estimators/{number}/{page.page_number}"),
            )
            for page in transfer.pages(connection, estimator.id)
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


def _write(connection: Connection, job_id: str, writer: Writer, watch: Watch) -> None:
    row = transfer.described(connection, job_id)
    if row is None:
        raise NotFound(f"{NO_SUCH_JOB}: {job_id}")
    if row.job_state not in FINAL_STATES:
        raise Conflict(f"{job_id} is {row.job_state}: only simulations that have ended can be exported")
    simulation, inventory = _described(connection, row)
    description.check(simulation)
    payloads = list(simulation.payloads())
    for done, payload in enumerate(payloads):
        watch(job_id, done, len(payloads))
        data = transfer.data(connection, *inventory.places[payload.entry])
        _check_payload(data, payload)
        writer.add(payload.entry, data, deflated=False)
    text = msgspec.json.format(msgspec.json.encode(simulation))
    writer.add(_entry(job_id), text, deflated=True)
    watch(job_id, len(payloads), len(payloads))


def _entry(job_id: str) -> str:
    """The entry with the description of a simulation."""
    return f"{job_id}/simulation.json"


# Reading


def _read(reader: Reader, job_id: str, watch: Watch) -> Description:
    """A simulation in the file, of which everything has been checked."""
    simulation = container.parse(reader.read(_entry(job_id), _MOST_DESCRIPTION), Description)
    if simulation.job_id != job_id:
        raise InvalidInput(f"it describes another simulation in the place of {job_id}")
    description.check(simulation)
    payloads = list(simulation.payloads())
    for done, payload in enumerate(payloads, start=1):
        text = _check_payload(reader.read(payload.entry, _MOST_DESCRIPTION), payload)
        if payload is simulation.input:
            check_names(container.parse(text, _Input).input_files or {})
        elif payload in simulation.logfiles:
            container.parse(text, dict[str, str])
        watch(job_id, done, len(payloads))
    return simulation


def _check_payload(data: bytes, payload: Payload) -> bytes:
    """The JSON text of a payload as readers get it; raises InvalidInput if it is not what it should be.

    It is inflated to no more than the size it is said to have, before anything trusts it.
    """
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(data, min(payload.size, _MOST_TEXT) + 1)
    except zlib.error as error:
        raise InvalidInput(f"the payload {payload.entry} is damaged") from error
    if not inflater.eof or inflater.unused_data or len(text) != payload.size:
        raise InvalidInput(f"the payload {payload.entry} is damaged, or has more than {_MOST_TEXT} bytes of text")
    if hashlib.sha256(text).hexdigest() != payload.sha256:
        raise InvalidInput(f"the payload {payload.entry} is not what its digest tells")
    # A header that says that it can be joined with others is trusted from here on.
    joined = codec.decode_text(b"".join(codec.stitch([b" ", codec.Stored(data), b" "])))
    container.parse(joined, dict[str, msgspec.Raw])
    return joined


# Adding


def _is_here(connection: Connection, simulation: Description) -> bool:
    """Whether the simulation is here already; raises Conflict if another one has its name."""
    row = transfer.described(connection, simulation.job_id)
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
        transfer.add(connection, InputModel, {"simulation_id": number, **_stored(reader, simulation.input)})
    for logs in simulation.logfiles:
        transfer.add(connection, LogfilesModel, {"simulation_id": number, **_stored(reader, logs)})
    for estimator in simulation.estimators:
        _add_estimator(connection, reader, number, estimator)


def _add_estimator(connection: Connection, reader: Reader, simulation_id: int, estimator: Estimator) -> None:
    values = {"simulation_id": simulation_id, "name": estimator.name, "file_name": estimator.file_name}
    number = transfer.add(connection, EstimatorModel, values | _stored(reader, estimator.metadata))
    for page in estimator.pages:
        values = {"page_number": page.page_number, "page_name": page.page_name, "page_dimension": page.page_dimension}
        transfer.add(connection, PageModel, {"estimator_id": number, **values, **_stored(reader, page.data)})


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
    data = reader.read(payload.entry, _MOST_DESCRIPTION)
    return codec.Payload(data, payload.size, payload.sha256).columns()
