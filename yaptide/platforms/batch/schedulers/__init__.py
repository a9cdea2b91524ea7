"""Batch systems of clusters: a folder for each, behind the protocol `Scheduler` in `base.py`.

To add a batch system such as PBS, add a folder beside `slurm` with a class that implements `Scheduler`, and choose it
in `get_scheduler`. No other module knows a batch system by name; a test checks this.
"""

from yaptide.platforms.batch.schedulers.base import Scheduler
from yaptide.platforms.batch.schedulers.slurm import Slurm

__all__ = ["get_scheduler"]


def get_scheduler() -> Scheduler:
    """The batch system of all clusters: SLURM is the only one today."""
    return Slurm()
