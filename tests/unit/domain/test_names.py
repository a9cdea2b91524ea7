"""Equivalent names, and names that look alike."""

import time

import pytest

from yaptide.domain import names


def test_accents_are_spelled_in_one_way():
    assert names.normalize_name("z\u030cofie") == "\u017eofie"


def test_what_is_too_long_for_a_name_takes_no_time():
    begun = time.monotonic()
    names.normalize_name("a" + "\u0301\u0323" * 250_000)
    assert time.monotonic() - begun < 1


def test_names_of_up_to_1024_characters_are_normalized():
    accented = "z\u030c" + "x" * 1022
    assert names.normalize_name(accented) == "\u017e" + "x" * 1022
    assert names.normalize_name(accented + "x") == accented + "x"


@pytest.mark.parametrize(
    "alike",
    [
        ["alice", "Alice", "ALICE", "aIice", "a1ice", "al\u0131ce"],
        ["alice", "\uff41\uff4c\uff49\uff43\uff45", "\U0001d41a\U0001d425\U0001d422\U0001d41c\U0001d41e"],
        ["apple", "\u0430\u0440\u0440\u04cf\u0435"],
        ["pop", "\u03c1\u03bf\u03c1", "p0p"],
        ["barnes", "bames"],
        ["wendy", "vvendy"],
        ["x-y", "x\u2010y", "x\u2212y"],
        ["a b", "a  b"],
        ["a", "a\ufe0f", "a\u3164", "a\u034f"],
        ["stra\u00dfe", "STRASSE"],
        ["\u017eofie", "z\u030cofie"],
    ],
    ids=str,
)
def test_what_looks_alike_has_one_skeleton(alike):
    assert len({names.make_skeleton(name) for name in alike}) == 1


def test_what_can_be_told_apart_has_skeletons_of_its_own():
    apart = ["alice", "alicja", "al", "bob", "rob", "pawel", "pawe\u0142", "user2", "user3", "user23", "\u7530\u4e2d"]
    assert len({names.make_skeleton(name) for name in apart}) == len(apart)


@pytest.mark.parametrize(
    ("name", "scripts"),
    [
        ("alice-2", ["LATIN"]),
        ("pawe\u0142 \u017c\u00f3\u0142w", ["LATIN"]),
        ("\u0430lice", ["CYRILLIC", "LATIN"]),
        ("alice\u03bf", ["LATIN", "GREEK"]),
        ("\u7530\u4e2d\u3055\u3093 Tanaka", ["LATIN"]),
        ("\uff41\uff4c", ["LATIN"]),
        ("42", []),
    ],
)
def test_scripts_of_a_name(name, scripts):
    assert names.list_scripts(name) == scripts


@pytest.mark.parametrize(("name", "unseen"), [("alice", False), ("alice\ufe0f", True), ("\u3164", True)])
def test_what_cannot_be_seen(name, unseen):
    assert names.has_unseen(name) is unseen
