"""Ages and lifetimes as users write them."""

from datetime import timedelta

import pytest

from yaptide.domain.ages import parse_age
from yaptide.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        ("4w", timedelta(days=28)),
        ("0d", timedelta()),
        ("99999h", timedelta(hours=99_999)),
    ],
)
def test_ages(text, age):
    assert parse_age(text) == age


@pytest.mark.parametrize(
    "text", ["", "d", "90", "-1d", "+1d", "1.5d", "90 d", "90D", "1m", "100000h", "\u0663d", "\xb2d"]
)
def test_texts_that_are_not_ages(text):
    with pytest.raises(InvalidInput, match=r"use e\.g\. 90d, 12h"):
        parse_age(text)


@pytest.mark.parametrize(("text", "shown"), [("x" * 40, "x" * 40), ("x" * 41, "x" * 40)])
def test_the_beginning_of_a_wrong_age_is_shown(text, shown):
    with pytest.raises(InvalidInput, match=f"^Invalid age '{shown}': use"):
        parse_age(text)
