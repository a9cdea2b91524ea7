"""Errors: whose message tells a user what to do, and which ones of the system mean that there is no room."""

import errno

import pytest

from yaptide.domain import errors
from yaptide.domain.errors import Busy, TooManyAttempts, YaptideError, is_full


@pytest.mark.parametrize("kind", [Busy, TooManyAttempts])
def test_who_has_to_come_again_is_told_when(kind):
    error = kind(7, "Others are before you")
    assert str(error) == "Others are before you; wait 7 s, then try again"
    assert error.seconds == 7


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_on_a_disk_in_a_quota_or_in_a_file(number):
    assert is_full(OSError(number, "no room"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EROFS, None])
def test_what_room_would_not_mend(number):
    assert not is_full(OSError(number, "no way"))


def test_all_of_them_are_caught_as_one():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    assert all(issubclass(kind, YaptideError) for kind in kinds)
