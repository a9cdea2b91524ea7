"""Who can run tasks just now, and with which simulators: what executors, workers and drivers of clusters announce."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, one_of
from yaptide.persistence.models.simulations import BATCH, DIRECT


class RunnerModel(Base):
    """Somebody who has tasks run, and was there at its last sign of life; one that stays silent is forgotten."""

    __tablename__ = "Runner"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="Number of the row")
    name: Mapped[str] = mapped_column(doc="Name that no other has")
    platform: Mapped[str] = mapped_column(
        one_of(DIRECT, BATCH, name="platform"), doc="DIRECT: runs tasks; BATCH: submits them to clusters"
    )
    heartbeat_time: Mapped[datetime] = mapped_column(doc="Last sign of life (UTC)")

    simulators: Mapped[list["RunnerSimulatorModel"]] = relationship(
        back_populates="runner", cascade="all, delete-orphan", passive_deletes=True
    )


class RunnerSimulatorModel(Base):
    """A simulator that a runner has. What clusters have is in their own table."""

    __tablename__ = "RunnerSimulator"
    __table_args__ = (UniqueConstraint("runner_id", "sim_type"), Index(None, "sim_type"))

    id: Mapped[int] = mapped_column(primary_key=True, doc="Number of the row")
    runner_id: Mapped[int] = mapped_column(ForeignKey("Runner.id", ondelete="CASCADE"), doc="Who has it")
    sim_type: Mapped[str] = mapped_column(doc="Name of the simulator")
    version: Mapped[str] = mapped_column(doc="Its version; empty: not known")
    digest: Mapped[str] = mapped_column(String(64), doc="SHA-256 (hexadecimal) of its program; empty: not known")

    runner: Mapped[RunnerModel] = relationship(back_populates="simulators")
