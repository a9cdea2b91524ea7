"""Untrusted text cannot move the cursor, change colours or act as markup, wherever it is printed."""

import json

import pytest

from yaptide.admin import display

HOSTILE = "[/a] [red]x \x1b[2J\x1b]0;title\x07 \x9b31m \u202eright to left"


@pytest.mark.parametrize(
    "show",
    [
        display.print_message,
        display.print_error,
        lambda text: display.print_table(("a", "b"), [(text, text)], title=text),
        lambda text: display.print_text(text, text),
        lambda text: display.print_json({"title": text}),
    ],
    ids=["say", "complain", "table", "text", "JSON"],
)
def test_nothing_that_is_printed_controls_a_terminal(show, capsys):
    show(HOSTILE)
    printed = "".join(capsys.readouterr())
    assert "[/a] [red]x" in printed
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)


def test_lines_and_columns_of_a_text_stay(capsys):
    display.print_text("output.log", "a\tb\nc\n")
    assert capsys.readouterr().out.endswith("a       b\nc\n\n")


def test_json_says_what_there_is(capsys):
    display.print_json({"title": HOSTILE, "name": "Göttingen"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"title": HOSTILE, "name": "Göttingen"}
    assert "Göttingen" in out
