"""Log files of simulations."""

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, PayloadMixin
from yaptide.persistence.models.simulations import SimulationModel


class LogfilesModel(PayloadMixin, Base):
    """Log files that arrived together, name to text. If a name appears again, the later row applies."""

    __tablename__ = "Logfiles"
    __table_args__ = (UniqueConstraint("simulation_id", "content_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row; increases in order of arrival")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), doc="Simulation of these log files"
    )

    simulation: Mapped[SimulationModel] = relationship(back_populates="logfiles")
