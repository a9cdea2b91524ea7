"""Fixtures of unit tests of services: a simulation, and results posted for it."""

import tempfile

import pytest

from tests.support.posting import body
from tests.support.storing import submitted
from yaptide.persistence import codec
from yaptide.services import results_upload


@pytest.fixture
def user_and_job(backend, clock):
    """A simulation of two tasks with 100 primaries each, and its user."""
    return submitted(backend, 2)


@pytest.fixture
def user(user_and_job):
    return user_and_job[0]


@pytest.fixture
def job(user_and_job):
    return user_and_job[1]


@pytest.fixture(params=["in memory", "in a file"])
def post(request, backend, job, monkeypatch):
    """Post results that are held in memory, or that are too large for that."""
    monkeypatch.setattr(codec, "LARGE", 5_000)

    def posting(*estimators, **changes):
        data = body(job, *estimators, **changes)
        if request.param == "in memory":
            return results_upload.post_results(backend, data)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            return results_upload.post_results(backend, file)

    return posting
