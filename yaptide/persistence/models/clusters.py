"""HPC clusters."""

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

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the cluster")
    cluster_name: Mapped[str] = mapped_column(doc="Name by which users choose the cluster")
    host: Mapped[str | None] = mapped_column(doc="Host name of the login node")
    port: Mapped[int] = mapped_column(default=22, server_default="22", doc="Port of its SSH server")
    host_key: Mapped[str | None] = mapped_column(
        Text, doc="Host keys or host CA of the login node, as known_hosts lines"
    )
    scratch_folder: Mapped[str | None] = mapped_column(
        doc="Folder for job folders on the cluster; {user} is replaced by the account"
    )
    prologue: Mapped[str | None] = mapped_column(
        Text, doc="Shell lines at the beginning of each job, such as `module load`; set by administrators"
    )
    simulators: Mapped[str] = mapped_column(
        Text, default="{}", server_default="{}", doc="Paths of simulators on the cluster, JSON: name to path"
    )
    sbatch_options: Mapped[str] = mapped_column(
        Text,
        default="{}",
        server_default="{}",
        doc="Scheduler options of every job, JSON: name such as --partition to value",
    )
    max_tasks: Mapped[int | None] = mapped_column(doc="Maximum number of tasks per simulation; null: no own limit")
    max_running: Mapped[int | None] = mapped_column(
        doc="Maximum number of running tasks per simulation; null: no limit"
    )
    keep_failed_days: Mapped[int] = mapped_column(
        default=7, server_default="7", doc="Days after which the folder of a failed job is deleted"
    )

    simulations: Mapped[list[BatchSimulationModel]] = relationship(back_populates="cluster", passive_deletes="all")
