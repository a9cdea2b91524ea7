"""Inputs of simulations."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, PayloadMixin
from yaptide.persistence.models.simulations import SimulationModel


class InputModel(PayloadMixin, Base):
    """The input of a simulation: `input_type`, `number_of_all_primaries`, `input_files`, `input_json`."""

    __tablename__ = "Input"

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), unique=True, doc="Simulation of this input; each has one"
    )

    simulation: Mapped[SimulationModel] = relationship(back_populates="input")
