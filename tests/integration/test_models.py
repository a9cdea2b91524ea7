"""The models as scripts use them: with objects and relations, and defaults for derived values."""

import gzip
import json
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from yaptide.persistence import codec
from yaptide.persistence.engine import Database
from yaptide.persistence.models import (
    BatchSimulationModel,
    BatchTaskModel,
    CelerySimulationModel,
    CeleryTaskModel,
    ClusterModel,
    EstimatorModel,
    InputModel,
    LogfilesModel,
    PageModel,
    UserModel,
    YaptideUserModel,
)


def packed(value: object) -> bytes:
    return gzip.compress(json.dumps(value).encode())


def test_a_simulation_and_all_that_hangs_under_it_by_relations(database: Database) -> None:
    user = YaptideUserModel(username="alice", password_hash="-")
    simulation = CelerySimulationModel(job_id="j", user=user, title="t", input_type="FILES", sim_type="fluka")
    simulation.tasks = [CeleryTaskModel(task_id=number, requested_primaries=2**40) for number in range(2)]
    simulation.input = InputModel(compressed_data=packed({"input_files": {}}))
    page = PageModel(page_number=0, page_name="DOSE", page_dimension=0, compressed_data=packed([1.5]))
    simulation.estimators = [EstimatorModel(name="dose", file_name="dose_", compressed_data=packed({}), pages=[page])]
    simulation.logfiles = [LogfilesModel(compressed_data=packed({"a.log": "x"}))]
    with Session(database.engine) as session, session.begin():
        session.add(user)
    with Session(database.engine) as session:
        (result,) = session.query(UserModel).one().simulations
        assert (result.platform, result.job_state, result.tasks[1].task_state) == ("DIRECT", "UNKNOWN", "PENDING")
        assert (datetime.now(UTC) - result.start_time).total_seconds() < 60
        stored = result.estimators[0].pages[0]
        assert codec.decode_payload(stored.compressed_data) == [1.5]
        assert (stored.content_size, stored.content_sha256) == (5, codec.encode_payload([1.5]).sha256)
        assert len(result.logfiles) == 1


def test_a_simulation_on_a_cluster(database: Database) -> None:
    cluster = ClusterModel(cluster_name="ares")
    user = YaptideUserModel(username="bob")
    simulation = BatchSimulationModel(
        job_id="b", user=user, cluster=cluster, title="t", input_type="EDITOR", sim_type="shieldhit", array_id=7
    )
    simulation.tasks = [BatchTaskModel(task_id=1, requested_primaries=1)]
    with Session(database.engine) as session, session.begin():
        session.add(simulation)
    with Session(database.engine) as session:
        (result,) = session.query(ClusterModel).one().simulations
        assert (result.platform, result.array_id, result.tasks[0].platform, result.cluster.port) == (
            "BATCH",
            7,
            "BATCH",
            22,
        )
        session.delete(result)
        session.commit()
        assert session.query(BatchTaskModel).count() == 0
