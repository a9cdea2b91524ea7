"""How many simulations each user has in each state, known without counting them.

The number is the sum over rows that are only ever added, beside each change and in its transaction: whoever changes
something waits for nobody, and whoever asks reads the same few rows however many simulations there are. `fold_counts`
keeps them few.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, delete, func, insert, literal, select, union_all

from yaptide.domain.states import EntityState
from yaptide.persistence.models import SimulationCountModel, SimulationModel
from yaptide.persistence.models.base import table_of

_SIMULATION = table_of(SimulationModel)
_COUNT = table_of(SimulationCountModel)
_COLUMNS = ("user_id", "job_state", "number")

_ADD = insert(_COUNT)
_MOVES = (_SIMULATION.c.id == bindparam("simulation_id")) & _SIMULATION.c.job_state.in_(
    bindparam("sources", expanding=True)
)
_MOVE = insert(_COUNT).from_select(
    _COLUMNS,
    union_all(
        select(_SIMULATION.c.user_id, _SIMULATION.c.job_state, literal(-1)).where(_MOVES),
        select(_SIMULATION.c.user_id, bindparam("to", type_=_COUNT.c.job_state.type), literal(1)).where(_MOVES),
    ),
)
_OF_USER = _COUNT.c.user_id == bindparam("user")
_BY_STATE = select(_COUNT.c.job_state, func.sum(_COUNT.c.number)).group_by(_COUNT.c.job_state)
_MANY = select(_COUNT.c.user_id).group_by(_COUNT.c.user_id).having(func.count() > bindparam("most"))
_TAKE = delete(_COUNT).where(_OF_USER).returning(_COUNT.c.job_state, _COUNT.c.number)


def add_counts(connection: Connection, changes: Iterable[tuple[int, EntityState, int]]) -> None:
    """Count that users have so many more simulations (fewer, if negative) in states."""
    rows = [dict(zip(_COLUMNS, change, strict=True)) for change in changes]
    if rows:
        connection.execute(_ADD, rows)


def move_count(connection: Connection, simulation_id: int, sources: Iterable[EntityState], to: EntityState) -> None:
    """Count that a simulation, which is locked, is about to be moved to `to`, if it is in one of `sources`."""
    connection.execute(_MOVE, {"simulation_id": simulation_id, "sources": list(sources), "to": to})


def by_state(connection: Connection, user_id: int | None) -> dict[EntityState, int]:
    """How many simulations of a user (None: of all users) there are in which state."""
    query = _BY_STATE if user_id is None else _BY_STATE.where(_OF_USER)
    return {state: int(number) for state, number in connection.execute(query, {"user": user_id}) if number}


def users_with_many(connection: Connection, most: int) -> list[int]:
    """The users of whom there are more than `most` rows."""
    return list(connection.execute(_MANY, {"most": most}).scalars())


def fold_counts(connection: Connection, user_id: int) -> None:
    """Put one row for each state in the place of all rows of a user, who is locked.

    Others go on adding rows: only those that were taken away are added up.
    """
    sums: dict[EntityState, int] = {}
    for state, number in connection.execute(_TAKE, {"user": user_id}):
        sums[state] = sums.get(state, 0) + number
    add_counts(connection, ((user_id, state, number) for state, number in sums.items() if number))
