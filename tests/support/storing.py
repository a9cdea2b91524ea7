"""Simulations and results created with the services, for tests without a simulator."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from tests.support import payloads
from yaptide.domain.estimators import Axis, Estimator, Page, TaskOutput
from yaptide.persistence.engine import Database
from yaptide.persistence.models import Base
from yaptide.persistence.queries.users import User
from yaptide.services import simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission, Submitted
from yaptide.services.tasks import Claim

#: Simulators that external workers run, for tests without a simulator.
FOREIGN = frozenset({"shieldhit", "fluka", "topas"})


@dataclass
class Recorder:
    """A dispatcher that only records its calls."""

    dispatched: list[int] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)

    def dispatch(self, simulation_id: int) -> None:
        """Record a simulation."""
        self.dispatched.append(simulation_id)

    def revoke(self, simulation_id: int) -> None:
        """Record a simulation."""
        self.revoked.append(simulation_id)


def copy_into_memory(path: Path) -> Database:
    """Return an in-memory copy of an SQLite file."""
    database = Database("sqlite://")
    with closing(sqlite3.connect(path)) as source, closing(database.engine.raw_connection()) as target:
        source.backup(target.driver_connection)
    return database


def rows_of(database: Database, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table by id."""
    columns = Base.metadata.tables[table]
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(select(columns).order_by(columns.c.id))]


def submitted(backend: Backend, ntasks: int) -> tuple[User, Submitted]:
    """Submit a simulation of 100 primaries per task; return its user and the result."""
    user = users.ensure_user(backend, "alice")
    files = payloads.shieldhit_files(100 * ntasks)
    return user, simulations.submit_simulation(backend, user, Submission("shieldhit", ntasks, "t", files))


def output(claim: Claim) -> TaskOutput:
    """Return results of a task that do not depend on who runs it."""
    values = np.array([float(claim.seed), 1.0])
    page = Page(0, "DOSE", "MeV/g", (Axis("z", "cm", np.array([0.0, 1.0])),), values)
    return TaskOutput(claim.primaries, (Estimator("dose", "dose_", (page,)),))
