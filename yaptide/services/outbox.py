"""The outbox: messages for workers; `yaptide.platforms.direct.outbox` publishes them through the broker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from yaptide.domain.states import EntityState
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import outbox, transitions
from yaptide.services import lifecycle
from yaptide.services.backend import Backend


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message about one simulation: tasks to run (number, message id), and whether to merge."""

    simulation_id: int
    sim_type: str
    update_key: str = field(repr=False)
    tasks: list[tuple[int, str]]
    merge: str | None = None
    """Id of the message that requests the merge, if there is one."""

    @property
    def names(self) -> list[str]:
        """Ids of all messages."""
        return [name for _, name in self.tasks] + ([self.merge] if self.merge else [])


def list_unsent(backend: Backend, most: int) -> Iterator[OutboxMessage]:
    """Yield the unsent messages. Their ids are stored before, so that each message is sent once."""
    place = backend.spool.place
    with backend.database.reading() as connection:
        simulations = outbox.list_unsent(connection, place, most) + outbox.unsent_merges(connection, place)
    for simulation_id in simulations:
        message = _create_message(backend, simulation_id)
        if message is not None:
            yield message


@retry_contended
def _create_message(backend: Backend, simulation_id: int) -> OutboxMessage | None:
    with backend.database.writing() as connection:
        simulation = transitions.lock_simulation(connection, simulation_id)
        if simulation is None:
            return None
        tasks = outbox.name_tasks(connection, simulation_id)
        waits = simulation.job_state is EntityState.MERGING_QUEUED
        merge = outbox.name_merge(connection, simulation_id) if waits else None
        if not tasks and merge is None:
            return None
        key = lifecycle.known_update_key(backend, connection, simulation)
    return OutboxMessage(simulation.id, simulation.sim_type, key, tasks, merge)


def list_sent(backend: Backend) -> tuple[dict[str, set[str]], set[str]]:
    """Return the ids of the messages about waiting tasks, by simulator, and about waiting merges."""
    with backend.database.reading() as connection:
        tasks = {name: outbox.list_sent(connection, name) for name in outbox.waiting_types(connection)}
        return tasks, outbox.sent_merges(connection, backend.spool.place)


@retry_contended
def forget_sent(backend: Backend, names: Sequence[str]) -> None:
    """Have messages with these ids sent again."""
    with backend.database.writing() as connection:
        outbox.forget_named(connection, names)
