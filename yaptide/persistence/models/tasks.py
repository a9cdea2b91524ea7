"""Tasks, the parts that a simulation is split into."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.domain.states import TASK_STATES, EntityState
from yaptide.persistence.models.base import Base, ClaimMixin, one_of, state_column
from yaptide.persistence.models.simulations import BATCH, DIRECT, SimulationModel

#: Waiting or running, in the exact words of the partial index: otherwise the database does not use it.
WAITING = text("task_state IN ('PENDING', 'RUNNING')")
_STATES = ", ".join(repr(str(state)) for state in sorted(TASK_STATES))


class TaskModel(ClaimMixin, Base):
    """One part of a simulation: the same input with its own seed and share of the primaries."""

    __tablename__ = "Task"
    __table_args__ = (
        UniqueConstraint("simulation_id", "task_id"),
        CheckConstraint("task_id >= 0", name="task_id_not_negative"),
        CheckConstraint("requested_primaries >= 0", name="requested_not_negative"),
        CheckConstraint("simulated_primaries >= 0", name="simulated_not_negative"),
        CheckConstraint("estimated_time >= 0", name="estimated_not_negative"),
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint("end_time >= start_time", name="end_after_start"),
        CheckConstraint(f"task_state IN ({_STATES})", name="task_state"),
        Index("ix_Task_waiting", "task_state", "id", postgresql_where=WAITING, sqlite_where=WAITING),
    )
    __mapper_args__ = {"polymorphic_on": "platform"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), doc="Simulation of this task"
    )
    task_id: Mapped[int] = mapped_column(doc="Number within the simulation: from 0 (DIRECT) or from 1 (BATCH)")
    requested_primaries: Mapped[int] = mapped_column(BigInteger, doc="Primaries to simulate")
    simulated_primaries: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0", doc="Primaries simulated so far; never decreases"
    )
    task_state: Mapped[EntityState] = mapped_column(
        state_column("task_state", checked=False),
        default=EntityState.PENDING,
        doc="State; final states never change",
    )
    estimated_time: Mapped[int | None] = mapped_column(doc="Remaining time estimated by the simulator, seconds")
    start_time: Mapped[datetime | None] = mapped_column(doc="Time when it started (UTC)")
    end_time: Mapped[datetime | None] = mapped_column(doc="Time when it reached a final state (UTC)")
    platform: Mapped[str] = mapped_column(one_of(DIRECT, BATCH, name="platform"), doc="Platform of its simulation")
    last_update_time: Mapped[datetime | None] = mapped_column(doc="Time of the last report (UTC)")
    seed: Mapped[int | None] = mapped_column(BigInteger, doc="Random seed, unique within a simulation")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0", doc="Number of times it was started")

    simulation: Mapped[SimulationModel] = relationship(back_populates="tasks")


class CeleryTaskModel(TaskModel):
    """A task on the platform DIRECT."""

    __tablename__ = "CeleryTask"
    __mapper_args__ = {"polymorphic_identity": DIRECT}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("Task.id", ondelete="CASCADE"), primary_key=True, doc="ID of the task")
    celery_id: Mapped[str | None] = mapped_column(doc="Celery id of the task; null with the embedded executor")


class BatchTaskModel(TaskModel):
    """A task on the platform BATCH."""

    __tablename__ = "BatchTask"
    __mapper_args__ = {"polymorphic_identity": BATCH}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("Task.id", ondelete="CASCADE"), primary_key=True, doc="ID of the task")
