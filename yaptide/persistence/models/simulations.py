"""Simulations and their history."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.schema import SchemaItem

from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence.models.base import Base, ClaimMixin, one_of, state_column

if TYPE_CHECKING:
    from yaptide.persistence.models.clusters import ClusterModel
    from yaptide.persistence.models.inputs import InputModel
    from yaptide.persistence.models.logfiles import LogfilesModel
    from yaptide.persistence.models.results import EstimatorModel
    from yaptide.persistence.models.tasks import TaskModel
    from yaptide.persistence.models.users import UserModel

DIRECT = "DIRECT"
BATCH = "BATCH"
EDITOR = "EDITOR"
FILES = "FILES"

#: Not ended, in the exact words of the partial index: otherwise the database does not use it.
OPEN = text(f"job_state NOT IN ({', '.join(repr(str(state)) for state in sorted(FINAL_STATES))})")
#: Has a folder on its cluster, and was submitted by this server, in the exact words of the partial index.
LEFT = text("job_dir IS NOT NULL AND options IS NOT NULL")


class SimulationModel(ClaimMixin, Base):
    """One simulation, as submitted by its user, with its tasks.

    `owner` submits it to its cluster, and later merges its results.
    """

    __tablename__ = "Simulation"
    __table_args__: tuple[SchemaItem | dict[str, bool], ...] = (
        CheckConstraint("end_time >= start_time", name="end_after_start"),
        CheckConstraint("stored_bytes >= 0", name="stored_not_negative"),
        Index(None, "user_id", "start_time", "id"),
        Index(None, "user_id", "end_time", "id"),
        Index(None, "user_id", "job_state"),  # to count them: PostgreSQL keeps it ten times smaller than the next
        Index(None, "user_id", "job_state", "start_time", "id"),
        Index(None, "user_id", "job_state", "end_time", "id"),
        Index(None, "user_id", "stored_bytes"),
        Index("ix_Simulation_open", "job_state", "id", postgresql_where=OPEN, sqlite_where=OPEN),
        # Ids are never reused, so that a late report cannot reach another simulation.
        {"sqlite_autoincrement": True},
    )
    __mapper_args__ = {"polymorphic_on": "platform"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the simulation, also used by its workers")
    job_id: Mapped[str] = mapped_column(unique=True, doc="Public identifier of the simulation")
    user_id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), doc="User who submitted it")
    start_time: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC), doc="Time of submission (UTC)")
    end_time: Mapped[datetime | None] = mapped_column(doc="Time when it reached a final state (UTC)")
    title: Mapped[str] = mapped_column(doc="Title given by the user")
    platform: Mapped[str] = mapped_column(
        one_of(DIRECT, BATCH, name="platform"), doc="DIRECT: own workers; BATCH: a cluster"
    )
    input_type: Mapped[str] = mapped_column(
        one_of(EDITOR, FILES, name="input_type"), doc="EDITOR: a project of the web editor; FILES: input files"
    )
    sim_type: Mapped[str] = mapped_column(doc="Name of the simulator")
    job_state: Mapped[EntityState] = mapped_column(
        state_column("job_state"), default=EntityState.UNKNOWN, doc="State; final states never change"
    )
    update_key_hash: Mapped[str | None] = mapped_column(
        String(64), doc="SHA-256 (hexadecimal) of the update key of its workers; null: no reports allowed"
    )
    stored_bytes: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0", doc="Bytes of all its payloads as stored"
    )
    simulator_version: Mapped[str | None] = mapped_column(doc="Version of the simulator that ran the tasks")
    simulator_digest: Mapped[str | None] = mapped_column(
        String(64), doc="SHA-256 (hexadecimal) of the simulator's program"
    )
    refused_pages: Mapped[str | None] = mapped_column(
        Text, doc="JSON list of rejected pages of the results: estimator, page, reason; null: none"
    )

    user: Mapped["UserModel"] = relationship(back_populates="simulations")
    tasks: Mapped[list["TaskModel"]] = relationship(
        back_populates="simulation", cascade="all, delete-orphan", passive_deletes=True, order_by="TaskModel.task_id"
    )
    input: Mapped["InputModel"] = relationship(
        back_populates="simulation", cascade="all, delete-orphan", passive_deletes=True
    )
    estimators: Mapped[list["EstimatorModel"]] = relationship(
        back_populates="simulation", cascade="all, delete-orphan", passive_deletes=True, order_by="EstimatorModel.id"
    )
    logfiles: Mapped[list["LogfilesModel"]] = relationship(
        back_populates="simulation", cascade="all, delete-orphan", passive_deletes=True, order_by="LogfilesModel.id"
    )
    history: Mapped[list["StateHistoryModel"]] = relationship(
        back_populates="simulation", cascade="all, delete-orphan", passive_deletes=True, order_by="StateHistoryModel.id"
    )


class CelerySimulationModel(SimulationModel):
    """A simulation on the platform DIRECT."""

    __tablename__ = "CelerySimulation"
    __mapper_args__ = {"polymorphic_identity": DIRECT}  # noqa: RUF012

    id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), primary_key=True, doc="ID of the simulation"
    )
    merge_id: Mapped[str | None] = mapped_column(doc="Celery id of the task that merges the results")


class BatchSimulationModel(SimulationModel):
    """A simulation on the platform BATCH."""

    __tablename__ = "BatchSimulation"
    __table_args__: tuple[SchemaItem | dict[str, bool], ...] = (
        Index(None, "cluster_id"),
        Index("ix_BatchSimulation_left", "id", postgresql_where=LEFT, sqlite_where=LEFT),
    )
    __mapper_args__ = {"polymorphic_identity": BATCH}  # noqa: RUF012

    id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), primary_key=True, doc="ID of the simulation"
    )
    cluster_id: Mapped[int] = mapped_column(
        ForeignKey("Cluster.id", ondelete="RESTRICT"), doc="Cluster on which it runs"
    )
    job_dir: Mapped[str | None] = mapped_column(doc="Job folder on the cluster")
    array_id: Mapped[int | None] = mapped_column(
        doc="The scheduler's number of the array job that simulates; the newest, if there are several"
    )
    collect_id: Mapped[int | None] = mapped_column(
        doc="The scheduler's number of the job that runs when the array has ended"
    )
    options: Mapped[str | None] = mapped_column(
        Text, doc="Options of the scheduler for the two jobs, JSON: array and collect; null: it was not submitted here"
    )
    queue_note: Mapped[str | None] = mapped_column(Text, doc="Reason from the cluster why tasks wait")

    cluster: Mapped["ClusterModel"] = relationship(back_populates="simulations")


class BatchArrayModel(Base):
    """An array job of a simulation on a cluster: all its tasks, or some if the cluster does not accept all at once."""

    __tablename__ = "BatchArray"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("simulation_id", "first_task"),
        CheckConstraint("first_task > 0", name="first_task_positive"),
        CheckConstraint("tasks > 0", name="tasks_positive"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("BatchSimulation.id", ondelete="CASCADE"), doc="Simulation of this array"
    )
    first_task: Mapped[int] = mapped_column(doc="Number of its first task")
    tasks: Mapped[int] = mapped_column(doc="How many tasks it has, from the first on")
    array_id: Mapped[int | None] = mapped_column(doc="The scheduler's number; null: it is being submitted")


class StateHistoryModel(Base):
    """A transition of a simulation or one of its tasks, inserted in the transaction of the state change.

    Audit notes have the same state twice: that of the simulation.
    """

    __tablename__ = "StateHistory"
    __table_args__: tuple[SchemaItem | dict[str, bool], ...] = (Index(None, "simulation_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID; increases with time within a simulation")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), doc="Simulation of this entry"
    )
    task_id: Mapped[int | None] = mapped_column(doc="Number of the task; null: the simulation itself")
    from_state: Mapped[EntityState | None] = mapped_column(
        state_column("from_state"), doc="State before; null: created"
    )
    to_state: Mapped[EntityState] = mapped_column(state_column("to_state"), doc="State after")
    time: Mapped[datetime] = mapped_column(doc="Time (UTC)")
    actor: Mapped[str] = mapped_column(doc="Actor: a user, an executor, a worker with the update key")
    reason: Mapped[str | None] = mapped_column(Text, doc="Reason, if there is one")

    simulation: Mapped[SimulationModel] = relationship(back_populates="history")
