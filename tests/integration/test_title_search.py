"""Simulations are found by a part of their title, on every database."""

import pytest

from tests.support.api import submit
from yaptide.persistence.queries import simulations as queries
from yaptide.services import simulations
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.simulations import Page

TITLES = ("Proton in WATER, 100 % dose_1", "Carbon in bone", r"back\slash")


def found(client, title: str, **query: object) -> list[str]:
    answer = client.get("/user/simulations", query_string={"title": title, "page_size": 100, **query})
    assert answer.status_code == 200
    assert answer.json["simulations_count"] == len(answer.json["simulations"])
    return sorted(item["title"] for item in answer.json["simulations"])


def test_a_part_of_the_title_is_enough(signed_in, stranger, backend):
    jobs = [submit(signed_in, title=title) for title in TITLES]
    submit(stranger, title="water of another user")
    for title, expected in (
        ("water", TITLES[:1]),
        ("IN ", TITLES[1::-1]),
        ("%", TITLES[:1]),
        ("dose_1", TITLES[:1]),
        ("dose%1", ()),
        ("\\", TITLES[2:]),
        ("'; --", ()),
    ):
        assert found(signed_in, title) == sorted(expected), title
    jobs[1].bring_to("FAILED")
    assert found(signed_in, "in", job_state="FAILED,CANCELED") == ["Carbon in bone"]
    everybodys = simulations.list_simulations(backend, ADMINISTRATOR, Page(1, 10, title="Water"))
    assert everybodys.total == len(everybodys.rows) == 2
    first = simulations.list_simulations(backend, ADMINISTRATOR, Page(1, 1, title="Water"))
    assert (first.total, [row.title for row in first.rows]) == (2, ["water of another user"])


def test_only_the_newest_are_searched(signed_in, monkeypatch):
    monkeypatch.setattr(queries, "SEARCHED", 2)
    for number in range(3):
        submit(signed_in, title=f"number {number}")
    assert found(signed_in, "number") == ["number 1", "number 2"]


@pytest.mark.parametrize("title", ["a\0", "a" * 501])
def test_titles_that_cannot_be(signed_in, title):
    assert signed_in.get("/user/simulations", query_string={"title": title}).status_code == 400
