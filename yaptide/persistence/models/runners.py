"""Runners (executors, workers, drivers of clusters) and the simulators that they announced."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, one_of
from yaptide.persistence.models.simulations import BATCH, DIRECT


class RunnerModel(Base):
    """A process that runs tasks or has them run; it is deleted when its heartbeat stops."""

    __tablename__ = "Runner"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    name: Mapped[str] = mapped_column(doc="Unique name")
    platform: Mapped[str] = mapped_column(
        one_of(DIRECT, BATCH, name="platform"), doc="DIRECT: runs tasks; BATCH: submits them to clusters"
    )
    heartbeat_time: Mapped[datetime] = mapped_column(doc="Last heartbeat (UTC)")

    simulators: Mapped[list["RunnerSimulatorModel"]] = relationship(
        back_populates="runner", cascade="all, delete-orphan", passive_deletes=True
    )


class RunnerSimulatorModel(Base):
    """A simulator of a runner. The simulators of clusters are in their own table."""

    __tablename__ = "RunnerSimulator"
    __table_args__ = (UniqueConstraint("runner_id", "sim_type"), Index(None, "sim_type"))

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    runner_id: Mapped[int] = mapped_column(
        ForeignKey("Runner.id", ondelete="CASCADE"), doc="Runner that has the simulator"
    )
    sim_type: Mapped[str] = mapped_column(doc="Name of the simulator")
    version: Mapped[str] = mapped_column(doc="Version; empty: unknown")
    digest: Mapped[str] = mapped_column(String(64), doc="SHA-256 (hexadecimal) of the program; empty: unknown")

    runner: Mapped[RunnerModel] = relationship(back_populates="simulators")
