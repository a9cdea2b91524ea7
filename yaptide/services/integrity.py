"""Integrity checks of the store, and repairs that lose nothing.

A check changes nothing and may run while the database is in use. Each kind of finding has one function below.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection

from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_TRANSITIONS, EntityState
from yaptide.persistence import codec, schema
from yaptide.persistence.engine import Database, retry_contended
from yaptide.persistence.queries import integrity as queries, transitions
from yaptide.persistence.queries.integrity import StoredPayload
from yaptide.persistence.queries.transitions import Audit
from yaptide.services import pages
from yaptide.services.backend import utc_now

#: Actor in the history for repairs.
REPAIR = "repair"

Repair = Callable[[Connection], object]
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A violated rule.

    `kind` names the rule, `where` the row, `what` the problem. `repair` fixes it without losing anything; None if that
    is impossible. `acknowledged`: it was kept on purpose when the database was taken over, and reported then.
    """

    kind: str
    where: str
    what: str
    repair: Repair | None = None
    acknowledged: bool = False

    def document(self) -> dict[str, Any]:
        """Return the output of `yaptide db check --json`."""
        facts = {"kind": self.kind, "where": self.where, "what": self.what}
        return {**facts, "repairable": self.repair is not None, "acknowledged": self.acknowledged}


def _ignore_progress(done: int, total: int) -> None:
    """Ignore progress."""


def check_store(database: Database, watch: Watch = _ignore_progress) -> list[Finding]:
    """Return everything that is wrong; `watch` gets the numbers of payloads checked and in total.

    Payloads are read one at a time. Raises Conflict if the tables are not of this version.
    """
    schema.require_current(database)
    findings = [Finding("schema", "tables", difference) for difference in schema.schema_differences(database)]
    for check in (_file, _orphans, _halves, _lacking, _states, _histories, _ends, _open_tasks, _primaries):
        with database.reading() as connection:
            findings += check(connection)
    findings += _payloads(database, watch)
    for check in (_bytes, _sequences):
        with database.reading() as connection:
            findings += check(connection)
    return findings


def repair_findings(database: Database, findings: list[Finding]) -> None:
    """Repair the findings that can be repaired without losing anything. Check again to see what remains."""
    for finding in findings:
        if finding.repair is not None:
            _repair_one(database, finding.repair)


@retry_contended
def _repair_one(database: Database, action: Repair) -> None:
    with database.writing() as connection:
        action(connection)


def _file(connection: Connection) -> Iterator[Finding]:
    for line in queries.check_sqlite_file(connection):
        yield Finding("file", "database file", line)


def _orphans(connection: Connection) -> Iterator[Finding]:
    for table, column, value, parent in queries.find_orphans(connection):
        yield Finding("orphan", f"{table} with {column} {value}", f"{parent} has no such row")


def _halves(connection: Connection) -> Iterator[Finding]:
    for table, number, missing in queries.find_halves(connection):
        yield Finding("half", f"{table} {number}", f"its other half in {missing} is missing")


def _lacking(connection: Connection) -> Iterator[Finding]:
    adopted = queries.adopted_jobs(connection)
    for what, (job_id, estimator) in queries.find_incomplete(connection):
        where = _subject(job_id) if estimator is None else f"{_subject(job_id)}, estimator {estimator!r}"
        yield Finding("lacking", where, f"it has no {what}", acknowledged=estimator is not None and job_id in adopted)


def _states(connection: Connection) -> Iterator[Finding]:
    for row in queries.unknown_states(connection):
        yield Finding("state", _subject(row.job_id, row.task_id), f"{row.state!r} is not a state")


def _histories(connection: Connection) -> Iterator[Finding]:
    for row in queries.find_state_mismatches(connection):
        what = f"it is {row.state}, " + (
            f"its history ends with {row.recorded}" if row.recorded else "and has no history"
        )
        repair = None
        if _may_follow(row.task_id, row.recorded, row.state):
            repair = partial(
                _add_move, simulation_id=row.id, task_id=row.task_id, recorded=row.recorded, state=row.state
            )
        yield Finding("history", _subject(row.job_id, row.task_id), what, repair)
    for row in queries.find_invalid_transitions(connection):
        if row.from_state != row.before:
            what = f"row {row.id} begins with {row.from_state}, but the previous row ended with {row.before}"
        else:
            what = f"row {row.id}: {row.to_state} must not follow {row.from_state}"
        yield Finding("move", _subject(row.job_id, row.task_id), what)


def _may_follow(task_id: int | None, recorded: str | None, state: str) -> bool:
    """Return whether a single row can be missing: if the transition is not allowed, what happened is unknown."""
    if state not in EntityState.__members__:
        return False
    if recorded is None:
        return True
    transitions = SIMULATION_TRANSITIONS if task_id is None else TASK_TRANSITIONS
    return EntityState(state) in transitions[EntityState(recorded)]


def _add_move(
    connection: Connection, *, simulation_id: int, task_id: int | None, recorded: str | None, state: str
) -> None:
    transitions.lock_simulation(connection, simulation_id)
    still = {(row.task_id, row.recorded, row.state) for row in queries.find_state_mismatches(connection, simulation_id)}
    if (task_id, recorded, state) in still:
        audit = Audit(REPAIR, utc_now(), "this row was missing; its time is unknown")
        queries.add_transition(connection, simulation_id, task_id, recorded, state, audit)


def _ends(connection: Connection) -> Iterator[Finding]:
    for row in queries.find_wrong_ends(connection):
        ended = row.state in FINAL_STATES
        what = f"it is {row.state} without an end time" if ended else f"it is {row.state} with an end time"
        yield Finding("end", _subject(row.job_id, row.task_id), what)


def _open_tasks(connection: Connection) -> Iterator[Finding]:
    for row in queries.open_tasks(connection):
        what = f"it is {row.state}, its simulation is {row.job_state}"
        to = EntityState(row.job_state)
        repair = partial(_close_task, simulation_id=row.id, task_id=row.task_id, to=to)
        yield Finding("open-task", _subject(row.job_id, row.task_id), what, repair)


def _close_task(connection: Connection, *, simulation_id: int, task_id: int, to: EntityState) -> None:
    """End a task; its primaries stay as last reported, because nothing more is known."""
    transitions.lock_simulation(connection, simulation_id)
    audit = Audit(REPAIR, utc_now(), f"its simulation was {to}")
    transitions.move_tasks(connection, simulation_id, to, audit, transitions.PRIMARIES_AS_REPORTED, task_id=task_id)


def _primaries(connection: Connection) -> Iterator[Finding]:
    adopted = queries.adopted_jobs(connection)
    for row in queries.miscounted_tasks(connection):
        what = f"it is {row.state} with {row.simulated_primaries} of {row.requested_primaries} primaries"
        yield Finding("primaries", _subject(row.job_id, row.task_id), what, acknowledged=row.job_id in adopted)


def _bytes(connection: Connection) -> Iterator[Finding]:
    for row in queries.find_miscounted(connection):
        what = f"stored_bytes is {row.stored_bytes}, its payloads have {row.taken} bytes"
        yield Finding("bytes", _subject(row.job_id), what, partial(_recount, simulation_id=row.id))


def _recount(connection: Connection, *, simulation_id: int) -> None:
    transitions.lock_simulation(connection, simulation_id)
    queries.recount_bytes(connection, simulation_id)


def _sequences(connection: Connection) -> Iterator[Finding]:
    for table, following, largest in queries.find_late_sequences(connection):
        what = f"the next id would be {following}, but {largest} is in use"
        repair = partial(queries.advance_sequence, table=table)
        yield Finding("sequence", table, what, repair if following else None)


def _payloads(database: Database, watch: Watch) -> Iterator[Finding]:
    with database.reading() as connection:
        counts = queries.count_payloads(connection)
        adopted = queries.adopted_jobs(connection)
    total, done = sum(counts.values()), 0
    watch(done, total)
    for table in queries.PAYLOADS:
        last = 0
        while True:
            with database.reading() as connection:
                stored = queries.next_payload(connection, table, last)
            if stored is None:
                break
            yield from _payload(stored, is_adopted=stored.job_id in adopted)
            last, done = stored.id, done + 1
            watch(done, max(done, total))


def _payload(stored: StoredPayload, *, is_adopted: bool) -> Iterator[Finding]:
    where = _place(stored)
    try:
        text = codec.decode_text(stored.data)
    except InvalidInput as error:
        # A payload that was damaged when it was adopted has the size and digest of its bytes.
        yield Finding("payload", where, str(error), acknowledged=is_adopted and _has_digest(stored, stored.data))
        return
    is_kept = is_adopted and _has_digest(stored, text)
    try:
        value = _value(text, strict=codec.written_here(stored.data))
        codec.check_joinable(stored.data, len(text))
    except InvalidInput as error:
        yield Finding("payload", where, str(error), acknowledged=is_kept)
        return
    yield from _digests(stored, text, where)
    if not isinstance(value, dict):
        yield Finding("payload", where, "it is not a JSON object", acknowledged=is_kept)
        return
    if stored.table == "Page":
        for what in _page(stored, value):
            yield Finding("page", where, what, acknowledged=is_kept)
    if _is_other_order(stored.table, value):
        repair = partial(_reorder_page if stored.table == "Page" else _reorder_estimator, number=stored.id)
        yield Finding(
            "order", where, "the last axis of its values varies fastest, but readers expect the first", repair
        )


def _has_digest(stored: StoredPayload, content: bytes) -> bool:
    """Return whether size and digest of a payload are those of this content."""
    return (stored.size, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def _digests(stored: StoredPayload, text: bytes, where: str) -> Iterator[Finding]:
    size, sha256 = len(text), hashlib.sha256(text).hexdigest()
    repair = partial(queries.correct_payload, stored=stored, size=size, sha256=sha256)
    if stored.size != size:
        yield Finding("size", where, f"content_size is {stored.size}, the text has {size} bytes", repair)
    if stored.sha256 != sha256:
        yield Finding("digest", where, "content_sha256 does not match the text", repair)


def _is_other_order(table: str, value: Mapping[str, Any]) -> bool:
    metadata = value if table == "Estimator" else _mapping(value.get("metadata"))
    return table in ("Estimator", "Page") and metadata.get(pages.ORDER) == pages.OTHER_ORDER


def _reorder_estimator(connection: Connection, *, number: int) -> None:
    """Reorder the values of all pages of an estimator, unless this has been done in the meantime."""
    owner = queries.results_of(connection, number)
    if owner is None:
        return
    simulation_id, page_ids = owner
    transitions.lock_simulation(connection, simulation_id)
    data = queries.payload_of(connection, "Estimator", number)
    metadata = None if data is None else _mapping(codec.decode_payload(data))
    if metadata is None or not _is_other_order("Estimator", metadata):
        return
    for page_id in page_ids:
        _reorder(connection, page_id)
    payload = codec.encode_payload({**metadata, pages.ORDER: pages.OUR_ORDER})
    queries.replace_payload(connection, "Estimator", number, payload)
    queries.recount_bytes(connection, simulation_id)


def _reorder_page(connection: Connection, *, number: int) -> None:
    """Reorder the values of a page whose own metadata asks for it."""
    estimator_id = queries.estimator_of(connection, number)
    owner = None if estimator_id is None else queries.results_of(connection, estimator_id)
    if owner is None:
        return
    transitions.lock_simulation(connection, owner[0])
    data = queries.payload_of(connection, "Page", number)
    if data is not None and _is_other_order("Page", _mapping(codec.decode_payload(data))):
        _reorder(connection, number)
        queries.recount_bytes(connection, owner[0])


def _reorder(connection: Connection, page_id: int) -> None:
    """Encode a page again with the first axis fastest; an unreadable page is left unchanged."""
    data = queries.payload_of(connection, "Page", page_id)
    text = b"".join(codec.inflate_parts([codec.Stored(data)])) if data is not None else b""
    with suppress(InvalidInput):
        reordered = pages.reorder_page(text, Path(tempfile.gettempdir()))
        if reordered is not None:
            queries.replace_payload(connection, "Page", page_id, codec.encode_text(reordered))


def _value(text: bytes, *, strict: bool) -> object:
    """Return the value of a JSON text; unless `strict` it may have NaN, which Python's json module writes."""
    try:
        return orjson.loads(text) if strict else json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"A stored payload is damaged: {error}") from error


def _page(stored: StoredPayload, page: Mapping[str, Any]) -> Iterator[str]:
    metadata, data = (_mapping(page.get(part)) for part in ("metadata", "data"))
    name = str(metadata.get("name", data.get("name")))
    for column, is_stored, in_payload in (
        ("page_dimension", stored.page_dimension, page.get("dimensions")),
        ("page_name", stored.page_name, name),
    ):
        if is_stored != in_payload:
            yield f"{column} is {is_stored!r}, but {in_payload!r} in the payload"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _place(stored: StoredPayload) -> str:
    owner = "no simulation" if stored.job_id is None else _subject(stored.job_id)
    if stored.table == "Page":
        return f"{owner}, page {stored.page_number} of estimator {stored.estimator!r}"
    if stored.table == "Estimator":
        return f"{owner}, estimator {stored.estimator!r}"
    return f"{owner}, {stored.table} {stored.id}"


def _subject(job_id: str, task_id: int | None = None) -> str:
    return job_id if task_id is None else f"{job_id}, task {task_id}"
