"""Log files of simulations."""

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, PayloadMixin
from yaptide.persistence.models.simulations import SimulationModel


class LogfilesModel(PayloadMixin, Base):
    """Log files that arrived together, name to text. Later rows count where a name comes again."""

    __tablename__ = "Logfiles"
    __table_args__ = (UniqueConstraint("simulation_id", "content_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="Number of the row; the order of arrival")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), doc="The simulation that wrote them"
    )

    simulation: Mapped[SimulationModel] = relationship(back_populates="logfiles")
