"""A small store with rows in every table, including data that is hard to copy between databases."""

import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert

from yaptide.domain.names import make_skeleton
from yaptide.domain.states import EntityState
from yaptide.persistence import codec
from yaptide.persistence.engine import Database
from yaptide.persistence.models import (
    BatchArrayModel,
    BatchSimulationModel,
    BatchTaskModel,
    CelerySimulationModel,
    CeleryTaskModel,
    ClusterModel,
    EstimatorModel,
    InputModel,
    KeycloakUserModel,
    LogfilesModel,
    PageModel,
    RunnerModel,
    RunnerSimulatorModel,
    SessionModel,
    SimulationModel,
    StateHistoryModel,
    SubmissionKeyModel,
    TaskModel,
    TokenModel,
    UserModel,
    YaptideUserModel,
)

START = datetime(2026, 3, 29, 0, 59, 59, 999999, tzinfo=UTC)  # a microsecond before Europe's clocks change
END = START + timedelta(hours=2, microseconds=1)
#: Cannot be represented as a double.
MANY = 2**53 + 1
WORDS = "żółw 🐢 \"'\\ \n\t\x7f\u2028"
DIRECT_JOB, BATCH_JOB, OPEN_JOB = "20260329-direct.DIRECT", "20260329-batch.BATCH", "20260329-open.DIRECT"
#: There is one simulation in each of them.
STATES = (EntityState.CANCELED, EntityState.COMPLETED, EntityState.RUNNING)
CLUSTER = "ares"
CONNECTION = {
    "host_key": "login.example ssh-ed25519 AAAA",
    "scratch_folder": "/scratch/{user}",
    "prologue": "module load żółw\n",
    "simulators": '{"mcsquare": "/opt/MCsquare"}',
    "sbatch_options": '{"--partition": "main"}',
    "max_tasks": 1000,
    "max_running": 50,
    "keep_failed_days": 0,
}
INPUT = {"input_type": "FILES", "number_of_all_primaries": MANY, "input_files": {"a.dat": WORDS}, "input_json": None}


def ours(value: object) -> dict[str, Any]:
    """Return the columns of a payload written by yaptide."""
    return codec.encode_payload(value).columns()


def foreign(value: object) -> dict[str, Any]:
    """Return the columns of a payload written by another program."""
    text = json.dumps(value).encode()
    digest = hashlib.sha256(text).hexdigest()
    return {"compressed_data": gzip.compress(text, mtime=0), "content_size": len(text), "content_sha256": digest}


def fill(database: Database) -> None:
    """Add three simulations (COMPLETED, CANCELED on a cluster, RUNNING) with all related rows."""
    with database.writing() as connection:
        _add(connection, UserModel, id=3, username="alice", auth_provider="YaptideUser", quota_bytes=2**40)
        local = {"password_hash": "$argon2id$" + WORDS, "name_skeleton": make_skeleton("alice")}
        _add(connection, YaptideUserModel, id=3, known_networks="0123abcd 4567cdef", **local)
        _add(connection, UserModel, id=7, username="alice", auth_provider="KeycloakUser")
        subject = {"issuer": "https://sso.example.org/realms/science", "subject": "5a1c6f0e"}
        _add(connection, KeycloakUserModel, id=7, cert="ssh-rsa-cert", private_key="gAAAA\n" + WORDS, **subject)
        for number in range(9):  # mixed case, which databases sort differently
            place = {"started": START, "address": "203.0.113.9", "device": WORDS} if number % 2 else {}
            _add(connection, SessionModel, id=f"{'aBcD_-'[number % 6]}{number}", user_id=3, expires=END, **place)
        held = {"token_sha256": "ef" * 32, "scope": "submit", "created": START, "expires": END}
        _add(connection, TokenModel, id=5, user_id=3, name=WORDS, **held, last_used=END)
        _add(connection, ClusterModel, id=2, cluster_name=CLUSTER, host="login.example", **CONNECTION)
        _add_direct(connection)
        _add_batch(connection)
        _add_open(connection)
        _add(connection, RunnerModel, id=4, name=WORDS, platform="DIRECT", heartbeat_time=END)
        _add(connection, RunnerModel, id=6, name="driver", platform="BATCH", heartbeat_time=START)
        submitted = {"content_sha256": "ef" * 32, "simulation_id": 5, "job_id": DIRECT_JOB, "sim_type": "shieldhit"}
        _add(connection, SubmissionKeyModel, user_id=3, key="!~Key", left_out=WORDS, time=START, **submitted)
        program = {"sim_type": "mcsquare", "version": "1.1.0", "digest": "ab" * 32}
        _add(connection, RunnerSimulatorModel, runner_id=4, **program)
        # The highest id that was ever used must not be used again.
        _add(connection, SimulationModel, **_simulation(99, "gone", EntityState.FAILED))
        connection.execute(delete(SimulationModel).where(SimulationModel.id == 99))


def _add(connection: Connection, model: Any, **values: Any) -> None:
    connection.execute(insert(model.__table__), values)


def _simulation(number: int, job_id: str, state: EntityState, **changes: Any) -> dict[str, Any]:
    values = {"id": number, "job_id": job_id, "user_id": 3, "start_time": START, "title": WORDS, "platform": "DIRECT"}
    values |= {"input_type": "FILES", "sim_type": "shieldhit", "job_state": state}
    return values | changes


def _task(number: int, simulation: int, task: int, state: EntityState, **changes: Any) -> dict[str, Any]:
    values = {"id": number, "simulation_id": simulation, "task_id": task, "requested_primaries": MANY}
    values |= {"simulated_primaries": MANY, "task_state": state, "platform": "DIRECT", "start_time": START}
    return values | {"end_time": END, "seed": 2**63 - 1, "attempts": 2, "last_update_time": END} | changes


def _history(connection: Connection, simulation: int, task: int | None, *states: EntityState) -> None:
    for before, after in zip((None, *states), states, strict=False):
        row = {"task_id": task, "from_state": before, "to_state": after, "time": START, "actor": "alice"}
        _add(connection, StateHistoryModel, simulation_id=simulation, reason=WORDS if before else None, **row)


def _add_direct(connection: Connection) -> None:
    values = {"end_time": END, "simulator_version": "1.1.0", "simulator_digest": "ab" * 32}
    payload, logs = ours(INPUT), [ours({"a.log": WORDS}), ours({"a.log": "again"})]
    metadata, pages = ours({"a": 1.5}), [foreign({"values": [0.1, -0.0]}), ours({"values": [1e-300] * 50})]
    stored = sum(len(p["compressed_data"]) for p in (payload, *logs, metadata, *pages))
    completed = EntityState.COMPLETED
    _add(connection, SimulationModel, **_simulation(5, DIRECT_JOB, completed, **values, stored_bytes=stored))
    _add(connection, CelerySimulationModel, id=5, merge_id="merge")
    for number in range(2):
        _add(connection, TaskModel, **_task(10 + number, 5, number, completed))
        _add(connection, CeleryTaskModel, id=10 + number, celery_id=f"celery-{number}")
        _history(connection, 5, number, EntityState.PENDING, EntityState.RUNNING, completed)
    _history(connection, 5, None, EntityState.PENDING, EntityState.RUNNING, EntityState.MERGING_QUEUED, completed)
    _add(connection, InputModel, simulation_id=5, **payload)
    _add(connection, EstimatorModel, id=4, simulation_id=5, name="dose", file_name="dose_", **metadata)
    for number, page in enumerate(pages):
        _add(connection, PageModel, estimator_id=4, page_number=number, page_name=WORDS, page_dimension=1, **page)
    for log in logs:
        _add(connection, LogfilesModel, simulation_id=5, **log)


def _add_batch(connection: Connection) -> None:
    canceled, payload = EntityState.CANCELED, foreign(INPUT)
    values = {"platform": "BATCH", "end_time": END, "stored_bytes": len(payload["compressed_data"])}
    _add(connection, SimulationModel, **_simulation(6, BATCH_JOB, canceled, **values))
    _add(
        connection,
        BatchSimulationModel,
        id=6,
        cluster_id=2,
        job_dir="/scratch/x",
        array_id=17,
        collect_id=18,
        options="{}",
        queue_note="it waits",
    )
    _add(connection, BatchArrayModel, simulation_id=6, first_task=1, tasks=1, array_id=17)
    _add(connection, BatchArrayModel, simulation_id=6, first_task=2, tasks=1000)
    _add(connection, TaskModel, **_task(12, 6, 1, canceled, platform="BATCH", seed=-(2**63), simulated_primaries=0))
    _add(connection, BatchTaskModel, id=12)
    _add(connection, InputModel, simulation_id=6, **payload)


def _add_open(connection: Connection) -> None:
    running = {"update_key_hash": "cd" * 32, "owner": "executor-1", "heartbeat_time": END}
    _add(connection, SimulationModel, **_simulation(8, OPEN_JOB, EntityState.RUNNING, **running))
    _add(connection, CelerySimulationModel, id=8)
    values = {"end_time": None, "estimated_time": 3600, "owner": "executor-1", "heartbeat_time": END}
    _add(connection, TaskModel, **_task(13, 8, 0, EntityState.RUNNING, **values))
    _add(connection, CeleryTaskModel, id=13)
    _add(connection, InputModel, simulation_id=8, **ours(INPUT))
