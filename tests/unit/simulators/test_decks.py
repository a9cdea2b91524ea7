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


SHIELDHIT = DECKS["shieldhit-plain"].files
HISTORIES = "i:So/A/NumberOfHistoriesInRun = 10\n"


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a\\b", "a..b/c", "x" * 200])
@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("detect.dat", "Geometry Cyl\n    Name A\nOutput\n    filename {}\n", 4),
        ("deck.inp", "OPEN            -22.\n* the file\n{}\nSTART            10.\n", 3),
        ("deck.inp", "FREE\nOPEN, 22.\n{}\nSTART, 10.\n", 3),
        ("deck.inp", "#define f {}\nOPEN            -22.\n$f\nSTART            10.\n", 3),
        ("deck.inp", "GEOBEGIN                                     22.\n{}\nGEOEND\nSTART            10.\n", 2),
        ("job.txt", 's:Sc/Dose/OutputFile = "{}"\n' + HISTORIES, 1),
        ("job.txt", 's:Sc/XmlFileName = "{}"\n' + HISTORIES, 1),
        ("job.txt", 's:Sc/Dose/outputfile = "a" + "{}"\n' + HISTORIES, 1),
        ("job.txt", 's:Sc/Dose/OutputFile = My/Name + "_1"\ns:My/Name = My/Other\ns:My/Other = "{}"\n' + HISTORIES, 3),
        ("job.txt", 'sv:Tf/N/Values = 1 "{}"\ns:Sc/Dose/OutputFile = Tf/N/Value\n' + HISTORIES, 1),
    ],
)
def test_output_outside_the_folder_of_a_task_is_refused(file, text, line, name):
    files = {name: data.decode() for name, data in SHIELDHIT.items()} if file == "detect.dat" else {}
    if "#define" in text and len(name) > 100:
        name = "/" * 100
    with pytest.raises(InvalidInput, match=rf"^{file}, line {line}: .*(file name|more than)") as caught:
        check_texts({**files, file: text.format(name)})
    assert len(str(caught.value)) < 300


def test_the_file_of_a_dump_of_fluka_is_in_its_folder():
    text = f"{'USERDUMP':<10}{'100.':>10}{'22.':>10}{'':>40}{{}}\nSTART            10.\n"
    with pytest.raises(InvalidInput, match="line 1: The file of USERDUMP must be"):
        check_texts({"deck.inp": text.format("/etc/evil")})
    assert check_texts({"deck.inp": text.format("dump")}).primaries == 10


@pytest.mark.parametrize(
    "files",
    [
        {"deck.inp": "OPEN            -22.\nmy file-1.dat\nSTART            10.\n"},
        {"deck.inp": f"{'OPEN':<10}{'22.':>10}{'':>50}SCRATCH\nBEAM  ! a/b\nSTART            10.\n"},
        {"deck.inp": "GEOBEGIN\n    0    0          with/without air\nGEOEND\nSTART            10.\n"},
        {"job.txt": 's:Sc/Dose/OutputFile = Ge/Box/Name + "_dose.v2"\ns:Ge/Box/Name = "Box"\n' + HISTORIES},
        {"job.txt": 's:So/A/PhaseSpaceFileName = "/data/beam"\n' + HISTORIES},
    ],
)
def test_plain_names_of_files_pass(files):
    assert check_texts(files).primaries == 10
