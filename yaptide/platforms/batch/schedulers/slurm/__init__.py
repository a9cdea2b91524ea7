"""SLURM: `scheduler.py` submits, queries and cancels jobs, `answers.py` reads output, `options.py` checks options."""

from yaptide.platforms.batch.schedulers.slurm.scheduler import Slurm as Slurm
