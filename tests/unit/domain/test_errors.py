"""Errors: their messages say what a user can do."""

import pytest

from yaptide.domain import errors
from yaptide.domain.errors import Busy, TooManyAttempts, YaptideError


@pytest.mark.parametrize("kind", [Busy, TooManyAttempts])
def test_who_has_to_come_again_is_told_when(kind):
    error = kind(7, "Others are before you")
    assert str(error) == "Others are before you; wait 7 s, then try again"
    assert error.seconds == 7


def test_all_of_them_are_caught_as_one():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    assert all(issubclass(kind, YaptideError) for kind in kinds)
