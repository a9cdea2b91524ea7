"""Small inputs, right and wrong, each with the chapter that decides: accepted as the code runs it, or refused."""

import re

import pytest

from scripts.decks import read_decks
from yaptide.domain.errors import InvalidInput
from yaptide.services.received import Upload, read_uploads
from yaptide.simulators import COMMON, resolve_simulator
from yaptide.simulators.files import check_names, remove_marks

DECKS = {deck.name: deck for deck in read_decks()}


def check(deck):
    received = read_uploads([Upload(name, data) for name, data in deck.files.items()], 1 << 20)
    files = remove_marks(received.files)
    check_names(files)
    code = resolve_simulator(COMMON, files)
    return code, code.check(files)


@pytest.mark.parametrize("name", DECKS)
def test_deck(name):
    deck = DECKS[name]
    if deck.primaries is None:
        with pytest.raises(InvalidInput) as caught:
            check(deck)
        assert str(caught.value).startswith(deck.message)
        assert "\n" not in str(caught.value)
    else:
        code, checked = check(deck)
        assert (code.name, checked.primaries) == (deck.code, deck.primaries)


def test_refusals_name_the_file():
    """A refusal names the file and, where it is about a line, the line."""
    nameless = [
        deck.name
        for deck in DECKS.values()
        if deck.primaries is None and not re.match(r"\S+(, line|:| is)", deck.message)
    ]
    assert nameless == ["topas-circle", "topas-two-jobs"]  # about several files


def test_the_corpus_covers_every_code():
    codes = [deck.code for deck in DECKS.values()]
    assert min(map(codes.count, ("mcsquare", "topas", "fluka", "shieldhit"))) >= 9
    assert all(deck.manual and deck.input for deck in DECKS.values())
