"""The picture of the tables: everything is in it, it is the same every time, and it is written where it is wanted."""

import re

import pytest
from typer.testing import CliRunner

from yaptide.admin import cli
from yaptide.admin.database import Format, show_diagram
from yaptide.admin.diagram import draw_diagram
from yaptide.domain.errors import InvalidInput
from yaptide.persistence import diagram
from yaptide.persistence.diagram import class_diagram


def test_the_picture_shows_every_table_column_and_relation():
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", draw_diagram("svg").decode())
    for mapper in diagram.list_mappers():
        assert mapper.local_table.description in texts
        for column in mapper.local_table.columns:
            assert {column.name, diagram.column_field(column)[0]} <= set(texts)
    relations = [relation for mapper in diagram.list_mappers() for relation in diagram.owned_relationships(mapper)]
    for relation in relations:
        assert relation.key in texts
    ends = [end for relation in relations for end in diagram.relationship_cardinality(relation)]
    assert sorted(text for text in texts if text in ("1", "0..1", "0..*")) == sorted(ends)


def test_the_picture_is_the_same_every_time():
    first = draw_diagram("svg")
    assert draw_diagram("svg") == first
    assert b"dc:date" not in first
    assert draw_diagram("png").startswith(b"\x89PNG")


def test_the_command_writes_what_is_asked_for(tmp_path):
    run = CliRunner().invoke
    assert run(cli.app, ["db", "diagram"]).stdout == class_diagram()
    assert run(cli.app, ["db", "diagram", "--format", "svg"]).stdout_bytes == draw_diagram("svg")
    assert run(cli.app, ["db", "diagram", "--format", "png", str(tmp_path / "a.png")]).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == draw_diagram("png")
    assert run(cli.app, ["db", "diagram", "--format", "gif"]).exit_code == 2
    assert isinstance(run(cli.app, ["db", "diagram", str(tmp_path / "no" / "a")]).exception, OSError)


def test_a_terminal_gets_no_picture(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(InvalidInput, match="needs a file name"):
        show_diagram(None, Format.PNG)
