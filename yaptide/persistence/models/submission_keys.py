"""Idempotency keys of submissions."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.schema import SchemaItem

from yaptide.persistence.models.base import Base


class SubmissionKeyModel(Base):
    """The key of a submission, and what is needed to answer it again. It stays when its simulation is deleted."""

    __tablename__ = "SubmissionKey"
    __table_args__: tuple[SchemaItem, ...] = (UniqueConstraint("user_id", "key"), Index(None, "time"))

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the key")
    user_id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), doc="User who submitted")
    key: Mapped[str] = mapped_column(String(255), doc="The key, chosen by the sender; unique for the user")
    content_sha256: Mapped[str] = mapped_column(String(64), doc="SHA-256 of what was submitted, hexadecimal")
    simulation_id: Mapped[int] = mapped_column(doc="ID of the simulation, which may have been deleted since")
    job_id: Mapped[str] = mapped_column(doc="Public identifier of the simulation")
    sim_type: Mapped[str] = mapped_column(doc="Name of the simulator")
    left_out: Mapped[str | None] = mapped_column(
        Text, doc="JSON list of sentences about parts of the project that are not simulated; null: none"
    )
    time: Mapped[datetime] = mapped_column(doc="Time of the submission (UTC)")
