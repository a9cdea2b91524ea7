"""HPC sites."""

from sqlalchemy import CheckConstraint, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from yaptide.persistence.models.base import Base
from yaptide.persistence.models.simulations import BatchSimulationModel


class ClusterModel(Base):
    """An HPC cluster that runs simulations of the platform BATCH."""

    __tablename__ = "Cluster"
    __table_args__ = (
        UniqueConstraint("cluster_name"),
        CheckConstraint("cluster_name <> ''", name="cluster_name_not_empty"),
        CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
        CheckConstraint("max_tasks >= 1", name="max_tasks_positive"),
        CheckConstraint("max_running >= 1", name="max_running_positive"),
        CheckConstraint("keep_failed_days >= 0", name="keep_failed_days_not_negative"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, doc="Number of the cluster")
    cluster_name: Mapped[str] = mapped_column(doc="Name that users choose it by")
    host: Mapped[str | None] = mapped_column(doc="Host name of the login node")
    port: Mapped[int] = mapped_column(default=22, server_default="22", doc="Port of its SSH server")
    host_key: Mapped[str | None] = mapped_column(Text, doc="Its host keys or host CA, as known_hosts lines")
    scratch_folder: Mapped[str | None] = mapped_column(
        doc="Where job folders are made on the cluster; {user} in it stands for the account"
    )
    prologue: Mapped[str | None] = mapped_column(
        Text, doc="Shell lines that jobs begin with, such as `module load`; its administrator's own"
    )
    simulators: Mapped[str] = mapped_column(
        Text, default="{}", server_default="{}", doc="Paths of simulators there, JSON: name to path"
    )
    sbatch_options: Mapped[str] = mapped_column(
        Text, default="{}", server_default="{}", doc="Options of every job, JSON: name such as --partition to value"
    )
    max_tasks: Mapped[int | None] = mapped_column(doc="Most tasks of one simulation; null: no limit of its own")
    max_running: Mapped[int | None] = mapped_column(doc="Most tasks of one simulation that run at once; null: no limit")
    keep_failed_days: Mapped[int] = mapped_column(
        default=7, server_default="7", doc="Days for which the folder of a failed job is kept"
    )

    simulations: Mapped[list[BatchSimulationModel]] = relationship(back_populates="cluster", passive_deletes="all")
