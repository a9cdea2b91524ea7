"""Simulations and tasks: valid states, times and numbers, and the beginning of their history.

Converted simulations do not continue: the update keys of their workers are unknown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, select, type_coerce
from sqlalchemy.types import NullType

from yaptide.domain.states import FINAL_STATES, TASK_STATES, EntityState
from yaptide.persistence.adoption.values import (
    UNKNOWN_TIME,
    optional_text,
    to_int32,
    to_int64,
    to_state,
    to_text,
    to_time,
    to_times,
    to_word,
    unused_numbers,
)
from yaptide.persistence.adoption.work import ACTOR, Names, Work
from yaptide.persistence.engine import Record
from yaptide.persistence.models.simulations import BATCH, DIRECT, EDITOR, FILES
from yaptide.persistence.models.users import YAPTIDE_USER

#: Owner of simulations without one.
UNOWNED = "unowned"

_S = EntityState


def copy_simulations(work: Work) -> None:
    """Copy simulations and tasks; ids and names do not change."""
    _Simulations(work).copy()


@dataclass(frozen=True, slots=True)
class _Ending:
    """The final state of a row. `old_state` is its old state if that was valid, `reason` why another was chosen."""

    state: EntityState
    old_state: EntityState | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class _Simulation:
    """The values of a simulation that its tasks need."""

    id: int
    job_id: str
    platform: str
    ending: _Ending
    start: datetime
    end: datetime


class _Simulations:
    def __init__(self, work: Work) -> None:
        self.work = work
        self._unowned: int | None = None

    def copy(self) -> None:
        if "update_key_hash" in self.work.old["Simulation"].c:
            reason = "workers of the older backend cannot report to the adopted database"
            self.work.decide("Simulation", "", "update_key_hash not kept", reason)
        for rows in self.work.batches(self._query(), self.work.old["Simulation"].c.id):
            for row in rows:
                simulation = self._copy_one(row)
                _Tasks(self.work, simulation).copy()
                self.work.advance()

    def _query(self) -> Any:
        old = self.work.old
        simulation, celery, batch = (old[name] for name in ("Simulation", "CelerySimulation", "BatchSimulation"))
        estimator, task = old["Estimator"], old["Task"]
        has_results = select(literal(1)).where(estimator.c.simulation_id == simulation.c.id).exists()
        times = [
            select(getattr(func, function_name)(column))
            .where(task.c.simulation_id == simulation.c.id)
            .scalar_subquery()
            for function_name, column in (
                ("min", task.c.start_time),
                ("max", task.c.start_time),
                ("max", task.c.end_time),
                ("max", task.c.last_update_time),
            )
        ]
        return (
            select(simulation, celery.c.id.label("celery"), celery.c.merge_id, batch.c.id.label("batch"))
            .add_columns(batch.c.cluster_id, batch.c.job_dir, batch.c.array_id, batch.c.collect_id)
            .add_columns(has_results.label("has_results"), times[0].label("first_start"))
            .add_columns(*(time.label(f"sign_{number}") for number, time in enumerate(times[1:])))
            .outerjoin(celery, celery.c.id == simulation.c.id)
            .outerjoin(batch, batch.c.id == simulation.c.id)
        )

    def _copy_one(self, row: Record) -> _Simulation:
        location, job_id = f"Simulation {row.id}", to_text(row.job_id) or f"unnamed-{row.id}"
        times = to_times([row.start_time, row.end_time, row.sign_0, row.sign_1, row.sign_2])
        ending = self._ending(row, max(times, default=None))
        if ending.reason:
            self.work.decide(location, job_id, ending.state.value, ending.reason)
        start = self._start(row, job_id)
        end = _end(self.work, location, job_id, start, row.end_time, max(times, default=start))
        platform = self._platform(row, job_id)
        input_type = to_word(row.input_type, EDITOR, FILES)
        if input_type is None:
            input_type = EDITOR
            self.work.decide(location, job_id, f"input type {EDITOR}", f"it was {to_text(row.input_type)!r}")
        if not row.job_id:
            self.work.decide(location, job_id, "named", "its job_id was empty")
        values = {"id": row.id, "job_id": job_id, "user_id": self._owner(row, job_id), "title": to_text(row.title)}
        values |= {"start_time": start, "end_time": end, "platform": platform, "input_type": input_type}
        values |= {"sim_type": to_text(row.sim_type), "job_state": ending.state.value}
        self.work.add("Simulation", [values])
        self._copy_platform(row, platform, job_id)
        simulation = _Simulation(row.id, job_id, platform, ending, start, end)
        self.work.add("StateHistory", list(_history(self.work, simulation, None, ending, start, end)))
        return simulation

    def _ending(self, row: Record, last_time: datetime | None) -> _Ending:
        state = to_state(row.job_state, EntityState)
        if row.id in self.work.placeholders:
            return _Ending(_S.FAILED, None, "a placeholder for rows whose simulation is missing")
        if state in FINAL_STATES:
            return _Ending(state, state, None)
        if state is None:
            results = "it has results" if row.has_results else "it has no results"
            final = _S.COMPLETED if row.has_results else _S.FAILED
            return _Ending(final, None, f"its state was {to_text(row.job_state)!r}, and {results}")
        now, limit = self.work.options.now, self.work.options.stale_after
        if last_time is None or now - last_time > limit:
            since = "ever" if last_time is None else f"since {last_time:%Y-%m-%d %H:%M}"
            return _Ending(_S.FAILED, state, f"it was {state}, without a heartbeat {since}")
        return _Ending(_S.FAILED, state, f"it was {state}; its workers cannot report to the adopted database")

    def _start(self, row: Record, job_id: str) -> datetime:
        start = to_time(row.start_time)
        if start is not None:
            return start
        start = min(to_times([row.first_start, row.end_time]), default=UNKNOWN_TIME)
        why = f"its start_time was {optional_text(row.start_time)!r}"
        self.work.decide(f"Simulation {row.id}", job_id, f"start_time {start.isoformat()}", why)
        return start

    def _platform(self, row: Record, job_id: str) -> str:
        platform = to_word(row.platform, DIRECT, BATCH)
        if platform is None:
            platform = BATCH if row.batch is not None and row.celery is None else DIRECT
            why = f"its platform was {to_text(row.platform)!r}"
            self.work.decide(f"Simulation {row.id}", job_id, f"platform {platform}", why)
        return platform

    def _copy_platform(self, row: Record, platform: str, job_id: str) -> None:
        """Copy the platform-specific values, also of the other platform if there are any."""
        if row.merge_id is not None or platform == DIRECT:
            self.work.add("CelerySimulation", [{"id": row.id, "merge_id": optional_text(row.merge_id)}])
        if row.batch is not None or platform == BATCH:
            values = {"job_dir": optional_text(row.job_dir), "array_id": to_int32(row.array_id)}
            values |= {"collect_id": to_int32(row.collect_id)}
            cluster_id = row.cluster_id if row.batch is not None else self._unknown_cluster(row, job_id)
            self.work.add("BatchSimulation", [{"id": row.id, "cluster_id": cluster_id, **values}])

    def _owner(self, row: Record, job_id: str) -> int:
        if row.user_id is not None:
            return int(row.user_id)
        if self._unowned is None:
            self._unowned = self.work.next_id("User")
            name = _free_name(self.work, "User", "username", UNOWNED)
            self.work.add("User", [{"id": self._unowned, "username": name, "auth_provider": YAPTIDE_USER}])
            self.work.add(YAPTIDE_USER, [{"id": self._unowned, "password_hash": None}])
            self.work.decide(
                f"User {self._unowned}", name, "created without a password", "some simulations had no owner"
            )
        self.work.decide(f"Simulation {row.id}", job_id, f"given to the user {UNOWNED}", "it had no owner")
        return self._unowned

    def _unknown_cluster(self, row: Record, job_id: str) -> int:
        number = self.work.next_id("Cluster")
        name = _free_name(self.work, "Cluster", "cluster_name", "unknown")
        self.work.add("Cluster", [{"id": number, "cluster_name": name}])
        why = "its platform is BATCH, but it had no cluster"
        self.work.decide(f"Simulation {row.id}", job_id, f"cluster {name!r} created for it", why)
        return number


class _Tasks:
    """The tasks of one simulation."""

    def __init__(self, work: Work, simulation: _Simulation) -> None:
        self.work = work
        self.simulation = simulation
        self._numbers: set[int] = set()
        self._unused: Iterator[int] = iter(())

    def copy(self) -> None:
        task, celery = self.work.old["Task"], self.work.old["CeleryTask"]
        in_simulation = task.c.simulation_id == self.simulation.id
        query = select(task, celery.c.celery_id).outerjoin(celery, celery.c.id == task.c.id).where(in_simulation)
        numbers = select(type_coerce(task.c.task_id, NullType())).where(in_simulation)
        self._unused = unused_numbers(self.work.connection.execute(numbers).scalars())
        for rows in self.work.batches(query, task.c.id):
            self._copy_batch(rows)

    def _copy_batch(self, rows: Sequence[Record]) -> None:
        tasks: list[dict[str, Any]] = []
        history: list[dict[str, Any]] = []
        for row in rows:
            ending = self._ending(row)
            if ending.reason:
                self._decide(row, ending.state.value, ending.reason)
            tasks.append(self._values(row, ending))
            begun = tasks[-1]["start_time"] or self.simulation.start
            history += _history(self.work, self.simulation, tasks[-1]["task_id"], ending, begun, tasks[-1]["end_time"])
        self.work.add("Task", tasks)
        direct = self.simulation.platform == DIRECT
        celery_rows = [row for row in rows if row.celery_id is not None or direct]
        self.work.add("CeleryTask", [{"id": row.id, "celery_id": optional_text(row.celery_id)} for row in celery_rows])
        self.work.add("BatchTask", [{"id": row.id} for row in rows if not direct])
        self.work.add("StateHistory", history)

    def _values(self, row: Record, ending: _Ending) -> dict[str, Any]:
        if to_word(row.platform, DIRECT, BATCH) != self.simulation.platform:
            platform = f"platform {self.simulation.platform}"
            self._decide(row, platform, f"its platform was {to_text(row.platform)!r}, unlike its simulation's")
        start, last = to_time(row.start_time), to_time(row.last_update_time)
        default_end = last or self.simulation.end
        end = _end(self.work, f"Task {row.id}", self.simulation.job_id, start, row.end_time, default_end)
        return {
            "id": row.id,
            "simulation_id": self.simulation.id,
            "task_id": self._number(row),
            "requested_primaries": self._primaries(row, "requested_primaries"),
            "simulated_primaries": self._primaries(row, "simulated_primaries"),
            "task_state": ending.state.value,
            "estimated_time": self._estimated(row),
            "start_time": start,
            "end_time": end,
            "platform": self.simulation.platform,
            "last_update_time": last,
        }

    def _ending(self, row: Record) -> _Ending:
        state = to_state(row.task_state, TASK_STATES)
        simulation_state = self.simulation.ending.state
        if state in FINAL_STATES:
            return _Ending(state, state, None)
        if state is not None:
            return _Ending(simulation_state, state, f"it was {state}, but its simulation is {simulation_state}")
        requested, simulated = to_int64(row.requested_primaries) or 0, to_int64(row.simulated_primaries) or 0
        is_done = 0 < requested <= simulated
        final = _S.COMPLETED if is_done or simulation_state is _S.COMPLETED else _S.FAILED
        evidence = f"{simulated} of {requested} primaries were simulated, and its simulation is {simulation_state}"
        return _Ending(final, None, f"its state was {to_text(row.task_state)!r}; {evidence}")

    def _number(self, row: Record) -> int:
        number = to_int32(row.task_id)
        if number is None or number < 0 or number in self._numbers:
            number = next(self._unused)
            self._decide(row, f"task_id {number}", f"{to_text(row.task_id)!r} is invalid or taken")
        self._numbers.add(number)
        return number

    def _primaries(self, row: Record, column: str) -> int:
        value = row._mapping[column]
        number = to_int64(value)
        if number is None or number < 0:
            self._decide(row, f"{column} 0", f"it was {to_text(value)!r}")
            return 0
        return number

    def _estimated(self, row: Record) -> int | None:
        seconds = to_int32(row.estimated_time)
        if row.estimated_time is not None and (seconds is None or seconds < 0):
            self._decide(row, "no estimated_time", f"it was {to_text(row.estimated_time)!r}")
            return None
        return seconds

    def _decide(self, row: Record, what: str, why: str) -> None:
        self.work.decide(f"Task {row.id}", self.simulation.job_id, what, why)


def _end(work: Work, location: str, whose: str, start: datetime | None, value: Any, last_time: datetime) -> datetime:
    """Return the end time: the last known time if there is none, and never before the start."""
    end = to_time(value)
    if end is None:
        end = last_time if start is None else max(start, last_time)
        why = f"it was {optional_text(value)!r}; this is the last known time"
        work.decide(location, whose, f"end_time {end.isoformat()}", why)
    if start is not None and end < start:
        work.decide(location, whose, f"end_time {start.isoformat()}", f"{end.isoformat()} is before its start")
        return start
    return end


def _history(
    work: Work, simulation: _Simulation, task_id: int | None, ending: _Ending, start: datetime, end: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the old state and, if that was not final, the transition that ended it."""
    common = {"simulation_id": simulation.id, "task_id": task_id, "actor": ACTOR}
    first = ending.old_state or ending.state
    closed = first is not ending.state
    yield {
        **common,
        "from_state": None,
        "to_state": first.value,
        "time": start if closed else end,
        "reason": None if closed else ending.reason,
    }
    if closed:
        yield {
            **common,
            "from_state": first.value,
            "to_state": ending.state.value,
            "time": work.options.now,
            "reason": ending.reason,
        }


def _free_name(work: Work, table: str, column: str, name: str) -> str:
    names = Names()
    for taken in work.connection.execute(select(work.new[table].c[column])).scalars():
        names.take(taken)
    return names.take(name)
