"""`db`, as scripts written for the older backend use it: a session, and methods of the models.

The session works on the tables of the models, and follows the rules of the server: a state changes only along the
allowed transitions, every change of state is in the history, and the byte counts of simulations are right. As in the
older backend, `update_state` moves one row: a canceled simulation keeps its waiting tasks, and a simulation does not
end with its tasks. Nothing else in yaptide imports this module.
"""

import gzip
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Engine, ExceptionContext, event, inspect, select
from sqlalchemy.orm import Session, UOWTransaction, object_session, scoped_session, sessionmaker

from yaptide.domain.errors import Conflict, Contended, InvalidInput, NotConfigured
from yaptide.domain.states import EntityState
from yaptide.persistence import codec, schema
from yaptide.persistence.adoption.values import to_time
from yaptide.persistence.engine import Database
from yaptide.persistence.models.base import Base, PayloadMixin
from yaptide.persistence.models.results import EstimatorModel, PageModel
from yaptide.persistence.models.simulations import SimulationModel
from yaptide.persistence.models.tables import HISTORY
from yaptide.persistence.models.tasks import TaskModel
from yaptide.persistence.models.users import YaptideUserModel
from yaptide.persistence.queries import integrity, tasks, transitions
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import passwords
from yaptide.services.passwords import Match

#: The same variable as for the server.
VARIABLE = "FLASK_SQLALCHEMY_DATABASE_URI"
#: Actor in the history.
ACTOR = "script"

_STATES = {SimulationModel: "job_state", TaskModel: "task_state"}
_TIMES = ("start_time", "end_time", "last_update_time")


@cache
def _open_engine(url: str) -> Engine:
    database = Database(url)
    schema.require_current(database)
    event.listen(database.engine, "handle_error", _explain_lock)
    # A script that only reads does not keep the server from writing to an SQLite file.
    return database.engine.execution_options(yaptide_reading=True)


def _explain_lock(context: ExceptionContext) -> None:
    """Raise Contended if a script changes what it has read, and another process has changed the SQLite file since."""
    if "database is locked" in str(context.original_exception):
        raise Contended("Another process has changed the database meanwhile: call db.session.rollback(), and try again")


class _Session(Session):
    """A session on the database of the environment."""

    def get_bind(self, *_arguments: Any, **_options: Any) -> Engine:
        """Return the engine; raise NotConfigured without a database, Conflict if its tables are not current."""
        url = os.environ.get(VARIABLE)
        if not url:
            raise NotConfigured(f"Set {VARIABLE} to the URL of the database (see: yaptide db url --show-password)")
        return _open_engine(url)


class ScriptDatabase:
    """The database of a script; `session` is a session for each thread."""

    def __init__(self) -> None:
        self.session = scoped_session(sessionmaker(class_=_Session))


db = ScriptDatabase()


def _update_simulation(self: SimulationModel, update: Mapping[str, Any]) -> bool:
    """Set `job_state` and other columns; return whether the state has changed; raise Conflict if that is forbidden."""
    values, state = _parsed(update, "job_state")
    session = _flushed(self)
    connection = session.connection()
    transitions.lock_simulation(connection, self.id)
    session.refresh(self)
    before = self.job_state
    if state is not None and state is not before:
        if not transitions.move_simulation(connection, self.id, state, _audit()):
            raise _forbidden(f"simulation {self.job_id}", before, state)
        session.refresh(self)
    _set_columns(self, values)
    return self.job_state is not before


def _update_task(self: TaskModel, update: Mapping[str, Any]) -> bool:
    """Set `task_state` and other columns; return whether the state has changed; raise Conflict if that is forbidden.

    Simulated primaries never decrease.
    """
    values, state = _parsed(update, "task_state")
    session = _flushed(self)
    connection = session.connection()
    transitions.lock_simulation(connection, self.simulation_id)
    session.refresh(self)
    before = self.task_state
    requested, simulated = (values.pop(f"{name}_primaries", None) for name in ("requested", "simulated"))
    if requested or simulated is not None:  # 0 requested: not known
        tasks.set_values(connection, self.simulation_id, self.task_id, {}, requested or None, simulated)
    if state is not None and state is not before:
        _move_task(self, state)
    session.refresh(self)
    _set_columns(self, values)
    return self.task_state is not before


def _move_task(task: TaskModel, state: EntityState) -> None:
    connection, number = _flushed(task).connection(), task.task_id
    if not transitions.move_tasks(connection, task.simulation_id, state, _audit(), task_id=number):
        raise _forbidden(f"task {task.task_id} of simulation {task.simulation_id}", task.task_state, state)


def _parsed(update: Mapping[str, Any], state_name: str) -> tuple[dict[str, Any], EntityState | None]:
    """Return the values of an update, with times as such, and its state."""
    values: dict[str, Any] = {name: to_time(value) if name in _TIMES else value for name, value in update.items()}
    word = values.pop(state_name, None)
    try:
        return values, None if word is None else EntityState(word)
    except ValueError:
        raise InvalidInput(f"Unknown state {word!r}; use one of {', '.join(EntityState)}") from None


def _flushed(row: Base) -> Session:
    session = object_session(row)
    if session is None:
        raise InvalidInput("Add the row to db.session before its state is updated")
    session.flush()
    return session


def _set_columns(row: Base, values: Mapping[str, Any]) -> None:
    if unknown := values.keys() - inspect(type(row)).column_attrs.keys():
        raise InvalidInput(f"A {type(row).__name__} has no {', '.join(sorted(unknown))}")
    for name, value in values.items():
        setattr(row, name, value)


def _forbidden(subject: str, before: EntityState, after: EntityState) -> Conflict:
    return Conflict(f"The transition of {subject} from {before} to {after} is forbidden; nothing was changed")


def _audit() -> Audit:
    return Audit(ACTOR, datetime.now(UTC))


def _read_data(self: PayloadMixin) -> Any:
    """Return the decoded payload; raise InvalidInput if it is damaged."""
    return codec.decode_payload(self.compressed_data)


def _write_data(self: PayloadMixin, value: object) -> None:
    """Encode a payload. NaN and infinities are kept as in payloads of the older backend."""
    text = json.dumps(value, default=_as_list).encode()
    if codec.numbers_replaced(text):
        outline = codec.read_outline([gzip.compress(text)])
        self.compressed_data, self.content_size, self.content_sha256 = gzip.compress(text), outline.size, outline.sha256
    else:
        payload = codec.encode_payload(orjson.loads(text))
        self.compressed_data, self.content_size, self.content_sha256 = payload.data, payload.size, payload.sha256


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a numpy array
        return value.tolist()
    raise InvalidInput(f"JSON cannot express a {type(value).__name__}")


def _set_password(self: YaptideUserModel, password: str) -> None:
    """Set the password; raise InvalidInput if it is too short or too long."""
    passwords.check_new(password)
    self.password_hash = passwords.make_hash(password)


def _check_password(self: YaptideUserModel, password: str) -> bool:
    """Return whether this is the password."""
    return self.password_hash is not None and passwords.verify_password(self.password_hash, password) is not Match.NONE


_METHODS: Mapping[type, Mapping[str, Any]] = {
    Base: {"query": db.session.query_property()},
    SimulationModel: {"update_state": _update_simulation},
    TaskModel: {"update_state": _update_task},
    PayloadMixin: {"data": property(_read_data, _write_data)},
    YaptideUserModel: {"set_password": _set_password, "check_password": _check_password},
}
for _model, _methods in _METHODS.items():
    for _name, _method in _methods.items():
        setattr(_model, _name, _method)


@event.listens_for(_Session, "before_flush")
def _check_states(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """Refuse to set a state past the rules."""
    for row in session.dirty:
        for model, column in _STATES.items():
            if isinstance(row, model) and inspect(row).attrs[column].history.has_changes():
                raise Conflict(f"Change the state with update_state({{{column!r}: ...}}), which checks the transition")


@event.listens_for(_Session, "after_flush")
def _keep_books(session: Session, _context: UOWTransaction) -> None:
    """Begin the history of new rows, and count the bytes of simulations whose payloads have changed."""
    connection, audit = session.connection(), _audit()
    new = [row for row in session.new if isinstance(row, SimulationModel | TaskModel)]
    if new:
        connection.execute(HISTORY.insert(), [_first_entry(row, audit) for row in new])
    payloads = {row for row in {*session.new, *session.dirty, *session.deleted} if isinstance(row, PayloadMixin)}
    with session.no_autoflush:
        simulations = {_simulation_of(session, row) for row in payloads} - {None}
    for number in simulations:
        integrity.recount_bytes(connection, number)


def _first_entry(row: SimulationModel | TaskModel, audit: Audit) -> dict[str, Any]:
    if isinstance(row, TaskModel):
        entry = {"simulation_id": row.simulation_id, "task_id": row.task_id, "to_state": row.task_state}
    else:
        entry = {"simulation_id": row.id, "task_id": None, "to_state": row.job_state}
    return {**entry, "from_state": None, "time": audit.time, "actor": audit.actor}


def _simulation_of(session: Session, row: Any) -> Any:
    """Return the id of the simulation of a payload."""
    if not isinstance(row, PageModel):
        return row.simulation_id
    estimator = EstimatorModel.__table__.c
    return (
        session.connection().execute(select(estimator.simulation_id).where(estimator.id == row.estimator_id)).scalar()
    )
