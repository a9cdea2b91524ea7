"""Queries about runners: which simulators each can currently run."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from yaptide.persistence.engine import Record
from yaptide.persistence.models.tables import RUNNER, RUNNER_SIMULATOR

_JOINED = RUNNER.join(RUNNER_SIMULATOR, RUNNER_SIMULATOR.c.runner_id == RUNNER.c.id)

_BEAT = update(RUNNER).where(RUNNER.c.name == bindparam("runner")).values(heartbeat_time=bindparam("now"))
_LAST = select(func.max(RUNNER.c.heartbeat_time)).where(RUNNER.c.platform == bindparam("platform"))
_LAST_WITH = _LAST.select_from(_JOINED).where(RUNNER_SIMULATOR.c.sim_type == bindparam("sim_type"))


class Program(NamedTuple):
    """Version and digest of a simulator's program; empty if unknown."""

    version: str = ""
    digest: str = ""


def beat_runner(connection: Connection, name: str, now: datetime) -> bool:
    """Record a heartbeat of a runner; False if the runner is unknown."""
    return connection.execute(_BEAT, {"runner": name, "now": now}).rowcount == 1


def put_runner(
    connection: Connection, name: str, platform: str, programs: Mapping[str, Program], now: datetime
) -> None:
    """Insert or update a runner and its programs, by name of simulator."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    values = {"platform": platform, "heartbeat_time": now}
    # Two processes may announce the same runner at once: the second waits for the row.
    statement = (
        dialect.insert(RUNNER).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )
    number = connection.execute(statement.returning(RUNNER.c.id)).scalar_one()
    connection.execute(delete(RUNNER_SIMULATOR).where(RUNNER_SIMULATOR.c.runner_id == number))
    rows = [
        {"runner_id": number, "sim_type": sim_type, "version": program.version, "digest": program.digest}
        for sim_type, program in programs.items()
    ]
    if rows:
        connection.execute(insert(RUNNER_SIMULATOR), rows)


def remove_runner(connection: Connection, name: str) -> None:
    """Delete a runner."""
    connection.execute(delete(RUNNER).where(RUNNER.c.name == name))


def remove_stalled(connection: Connection, stalled_since: datetime, most: int) -> None:
    """Delete the runners without a heartbeat since `stalled_since`, and all but the `most` latest."""
    newest = select(RUNNER.c.id).order_by(RUNNER.c.heartbeat_time.desc()).limit(most)
    connection.execute(delete(RUNNER).where((RUNNER.c.heartbeat_time < stalled_since) | RUNNER.c.id.not_in(newest)))


def last_heard(connection: Connection, platform: str, sim_type: str | None = None) -> datetime | None:
    """Return the last heartbeat of a platform's runners (with this simulator, if given); None if there was none."""
    query, values = (_LAST, {}) if sim_type is None else (_LAST_WITH, {"sim_type": sim_type})
    heartbeat: datetime | None = connection.scalar(query, {"platform": platform, **values})
    return heartbeat


def list_runners(connection: Connection, since: datetime, most: int) -> list[Record]:
    """Those that were heard of `since`, the last first: name, platform, heartbeat_time, sim_type, version.

    A row for each of a runner's simulators, one with None for a runner that has none; at most `most` rows.
    """
    joined = RUNNER.outerjoin(RUNNER_SIMULATOR, RUNNER_SIMULATOR.c.runner_id == RUNNER.c.id)
    columns = (RUNNER.c.name, RUNNER.c.platform, RUNNER.c.heartbeat_time)
    query = (
        select(*columns, RUNNER_SIMULATOR.c.sim_type, RUNNER_SIMULATOR.c.version)
        .select_from(joined)
        .where(RUNNER.c.heartbeat_time >= since)
    )
    return list(connection.execute(query.order_by(RUNNER.c.name, RUNNER_SIMULATOR.c.sim_type).limit(most)).all())


def all_programs(connection: Connection, since: datetime) -> list[Record]:
    """Return programs of runners alive `since`: runner, platform, heartbeat_time, sim_type, version, digest."""
    query = select(
        RUNNER.c.name.label("runner"),
        RUNNER.c.platform,
        RUNNER.c.heartbeat_time,
        RUNNER_SIMULATOR.c.sim_type,
        RUNNER_SIMULATOR.c.version,
        RUNNER_SIMULATOR.c.digest,
    ).select_from(_JOINED)
    recent = query.where(RUNNER.c.heartbeat_time >= since)
    return list(connection.execute(recent.order_by(RUNNER_SIMULATOR.c.sim_type, RUNNER.c.name)).all())
