"""Log files of simulations: store each once, and return them."""

from collections.abc import Mapping

from sqlalchemy import Connection

from yaptide.domain.errors import NotFound, TooLarge
from yaptide.persistence import codec
from yaptide.persistence.engine import retry_contended
from yaptide.persistence.queries import simulations, transitions, users
from yaptide.persistence.queries.transitions import Locked
from yaptide.persistence.queries.users import User
from yaptide.services.access import find_readable
from yaptide.services.backend import Backend
from yaptide.services.lifecycle import check_update_key

_PART = 16


@retry_contended
def post_logfiles(backend: Backend, simulation_id: int, update_key: str, logfiles: Mapping[str, str]) -> None:
    """Store log files from a worker, also after the end of the simulation, because they explain it.

    Raises InvalidInput for a wrong key, TooLarge if the simulation already has too many.
    """
    payload = codec.encode_payload(logfiles)
    with backend.database.writing() as connection:
        simulation = check_update_key(backend, transitions.lock_simulation(connection, simulation_id), update_key)
        keep_logfiles(backend, connection, simulation.id, payload)


def keep_logfiles(backend: Backend, connection: Connection, simulation_id: int, payload: codec.Payload) -> None:
    """Store encoded log files of a simulation in the current transaction; repeats change nothing."""
    if simulations.logfiles_size(connection, simulation_id) + payload.size > backend.limits.logfiles:
        raise TooLarge(f"The log files of a simulation may have {backend.limits.logfiles} bytes in total")
    simulations.add_logfiles(connection, simulation_id, payload)


def keep_success_logs(backend: Backend, connection: Connection, simulation: Locked, payload: codec.Payload) -> None:
    """Store encoded log files of a completed task, if its user and its simulation have space for them.

    They may use a small part of a simulation's limit; the rest is for log files that explain a failure.
    """
    quota = users.get_quota(connection, simulation.user_id)
    if quota is not None and users.count_used_bytes(connection, simulation.user_id) + len(payload.data) > quota:
        return
    if simulations.logfiles_size(connection, simulation.id) + payload.size <= backend.limits.logfiles // _PART:
        simulations.add_logfiles(connection, simulation.id, payload)


def read_logfiles(backend: Backend, user: User, job_id: str) -> dict[str, str]:
    """Return the log files of a simulation, name to text; raise NotFound if there are none."""
    with backend.database.reading() as connection:
        simulation = find_readable(connection, user, job_id)
        payloads = simulations.logfiles_of(connection, simulation.id)
    if not payloads:
        raise NotFound("Logfiles not found")
    logfiles: dict[str, str] = {}
    for payload in payloads:
        logfiles |= codec.decode_payload(payload)
    return logfiles
