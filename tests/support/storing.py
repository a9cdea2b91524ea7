"""Simulations and scores made with the services, for tests that need no simulator."""

import numpy as np

from tests.support import payloads
from yaptide.domain.estimators import Axis, Estimator, Page, TaskOutput
from yaptide.persistence.queries.users import User
from yaptide.services import simulations, users
from yaptide.services.backend import Backend
from yaptide.services.simulations import Submission, Submitted
from yaptide.services.tasks import Claim

#: Simulators whose simulations workers of others take, as tests have it that need no simulator.
FOREIGN = frozenset({"shieldhit", "fluka", "topas"})


def submitted(backend: Backend, ntasks: int) -> tuple[User, Submitted]:
    """A new simulation of 100 primaries in each task, and its user."""
    user = users.ensure(backend, "alice")
    files = payloads.shieldhit_files(100 * ntasks)
    return user, simulations.submit(backend, user, Submission("shieldhit", ntasks, "t", files))


def output(claim: Claim) -> TaskOutput:
    """Scores of a task that are the same whoever runs it."""
    values = np.array([float(claim.seed), 1.0])
    page = Page(0, "DOSE", "MeV/g", (Axis("z", "cm", np.array([0.0, 1.0])),), values)
    return TaskOutput(claim.primaries, (Estimator("dose", "dose_", (page,)),))
