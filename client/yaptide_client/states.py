"""States of simulations and tasks."""

from enum import StrEnum


class EntityState(StrEnum):
    """State of a simulation or task."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    MERGING_QUEUED = "MERGING_QUEUED"
    MERGING_RUNNING = "MERGING_RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


FINAL_STATES = frozenset({EntityState.COMPLETED, EntityState.FAILED, EntityState.CANCELED})
