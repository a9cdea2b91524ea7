"""The lock of a data folder: only one process runs its simulations."""

import pytest

from yaptide.domain.errors import Conflict
from yaptide.platforms import lock

OURS, OTHER = "sqlite:////data/yaptide.db", "postgresql+psycopg://yaptide:***@host/yaptide"


def test_one_at_a_time(tmp_path):
    assert not lock.is_held(tmp_path)
    with lock.acquire_lock(tmp_path, OURS):
        assert lock.is_held(tmp_path)
        assert lock.acquire_lock(tmp_path, OURS) is None
    assert not lock.is_held(tmp_path)
    with lock.acquire_lock(tmp_path, OTHER):
        assert lock.is_held(tmp_path)


def test_a_folder_that_is_in_use_for_another_database_is_said(tmp_path):
    with (
        lock.acquire_lock(tmp_path, OTHER),
        pytest.raises(Conflict, match=r"is in use for the database postgresql.*YAP"),
    ):
        lock.acquire_lock(tmp_path, OURS)
