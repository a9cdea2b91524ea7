"""Small inputs, right and wrong, each with the chapter that decides: accepted as the code runs it, or refused."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from scripts.decks import read_decks
from yaptide.domain.errors import InvalidInput
from yaptide.services.input_upload import Upload, read_uploads
from yaptide.simulators import COMMON, resolve_simulator
from yaptide.simulators.files import check_names, remove_marks

DECKS = {deck.name: deck for deck in read_decks()}
PIECES = [
    b"#",
    b"=",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"9" * 400,
    b"-1",
    b"1e999",
    b"nan",
    b"$",
    b"#if A\n",
    b"*",
    b"/",
    b"..",
    b"\xef\xbb\xbf",
]


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


@given(st.data())
def test_changed_bytes_give_a_result_or_one_clear_error(data):
    deck = DECKS[data.draw(st.sampled_from(sorted(DECKS)))]
    name = data.draw(st.sampled_from(sorted(deck.files)))
    content = deck.files[name]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(begin + 20, len(content))))
    piece = data.draw(st.binary(max_size=8) | st.sampled_from(PIECES))
    changed = replace(deck, files={**deck.files, name: content[:begin] + piece + content[end:]})
    message = find_error(changed)
    assert "\n" not in message
    assert len(message) < 500


def find_error(deck):
    try:
        check(deck)
    except InvalidInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize("depth", [10, 1000])
def test_long_chains_of_files_and_references_end(depth):
    files = {f"f{n}.txt": f"includeFile = f{n + 1}.txt f{n + 1}.txt\n" for n in range(depth)}
    with pytest.raises(InvalidInput, match=r"files are included|over too many levels"):
        check_texts({**files, f"f{depth}.txt": "i:So/A/NumberOfHistoriesInRun = 1\n"})
    lines = [f"i:My/P{n} = My/P{n + 1} + My/P{n + 1}" for n in range(depth)]
    text = "\n".join(["i:So/A/NumberOfHistoriesInRun = My/P0", *lines, f"i:My/P{depth} = 1\n"])
    if depth == 10:
        assert check_texts({"job.txt": text}).primaries == 2**10
    else:
        with pytest.raises(InvalidInput, match="through too many parameters"):
            check_texts({"job.txt": text})
    with pytest.raises(InvalidInput, match="levels"):
        check_texts({"deck.inp": "#include deck.inc\n", "deck.inc": "#include deck.inc\n"})


def check_texts(files):
    return resolve_simulator(COMMON, files).check(files)
