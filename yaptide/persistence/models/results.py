"""Results of simulations: estimators and their pages."""

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base, PayloadMixin
from yaptide.persistence.models.simulations import SimulationModel


class EstimatorModel(PayloadMixin, Base):
    """The merged output of one scorer; its payload is the metadata of the estimator."""

    __tablename__ = "Estimator"
    __table_args__ = (UniqueConstraint("simulation_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row; increases in order of the estimators")
    simulation_id: Mapped[int] = mapped_column(
        ForeignKey("Simulation.id", ondelete="CASCADE"), doc="Simulation of this estimator"
    )
    name: Mapped[str] = mapped_column(doc="Name given by the user")
    file_name: Mapped[str] = mapped_column(doc="Name given by the simulator")

    simulation: Mapped[SimulationModel] = relationship(back_populates="estimators")
    pages: Mapped[list["PageModel"]] = relationship(
        back_populates="estimator", cascade="all, delete-orphan", passive_deletes=True, order_by="PageModel.page_number"
    )


class PageModel(PayloadMixin, Base):
    """One quantity on a grid; its payload is the page as returned by `GET /results`."""

    __tablename__ = "Page"
    __table_args__ = (
        UniqueConstraint("estimator_id", "page_number"),
        CheckConstraint("page_number >= 0", name="page_number_not_negative"),
        CheckConstraint("page_dimension >= 0", name="page_dimension_not_negative"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the row")
    estimator_id: Mapped[int] = mapped_column(
        ForeignKey("Estimator.id", ondelete="CASCADE"), doc="Estimator of this page"
    )
    page_number: Mapped[int] = mapped_column(doc="Number within the estimator, from 0")
    page_name: Mapped[str] = mapped_column(doc="Name of the quantity")
    page_dimension: Mapped[int] = mapped_column(doc="Number of axes, 0 to 3")

    estimator: Mapped[EstimatorModel] = relationship(back_populates="pages")
