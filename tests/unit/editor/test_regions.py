"""The geometry of a project as regions of bodies: short ones, and a limit for what would take too long."""

import itertools
import random

import pytest

from tests.support import projects
from yaptide.domain.errors import InvalidInput
from yaptide.editor import nesting
from yaptide.editor.nesting import place_figures
from yaptide.editor.reading import read_project
from yaptide.editor.regions import make_regions


def drawn(*figures, zones, around=None):
    document = projects.project(
        *figures, zones=zones, around=around or projects.world((90, 90, 90), projects.AIR), detectors=[], outputs=[]
    )
    return read_project(document)


def terms(project):
    return [(region.name, [sorted(term) for term in region.terms]) for region in make_regions(project).regions]


def test_conditions_that_always_hold_are_left_out():
    project = drawn(
        projects.box("outer", (8, 8, 8)),
        projects.box("inner", (4, 4, 4)),
        projects.ball("far", 1, at=(20, 0, 0)),
        zones=[
            projects.zone("Inner", projects.LEAD, "inner & outer - far"),
            projects.zone("Outer", projects.WATER, "outer - inner - far"),
            projects.zone("Far", projects.PMMA, "far"),
            projects.zone("Nothing", projects.PMMA, "far & inner", "inner - outer"),
        ],
    )
    # 1 inner, 2 outer, 3 far, 4 world, 5 surroundings
    assert terms(project) == [
        *[("Inner", [[1]]), ("Outer", [[-1, 2]]), ("Far", [[3]]), ("World", [[-3, -2, 4]]), ("Black hole", [[-4, 5]])],
    ]
    assert make_regions(project).number_of_zone(2) == 3
    assert make_regions(project).number_of_zone(3) is None


def test_a_pipe_is_two_bodies_and_its_bore_belongs_to_the_world():
    project = drawn(projects.tube("pipe", 2, 9, inner=1), zones=[projects.zone("Pipe", projects.LEAD, "pipe")])
    assert terms(project) == [("Pipe", [[-2, 1]]), ("World", [[-1, 3], [2]]), ("Black hole", [[-3, 4]])]
    (world,) = place_figures(make_regions(project), "TOPAS")
    (pipe,) = world.children
    assert [placed.material.name for placed in (world, pipe, *pipe.children)] == [
        *("AIR, DRY (NEAR SEA LEVEL)", "LEAD", "AIR, DRY (NEAR SEA LEVEL)"),
    ]


def test_figures_without_a_volume_are_left_out():
    project = drawn(
        projects.box("flat", (5, 5, 0)),
        projects.ball("ball", 1),
        zones=[projects.zone("Ball", projects.LEAD, "flat", "ball - flat")],
    )
    assert terms(project)[0] == ("Ball", [[1]])


def test_hundreds_of_figures_side_by_side_are_written():
    places = itertools.product(range(6), range(6), range(6))
    figures = [projects.box(f"b{n}", (1, 1, 1), at=at) for n, at in enumerate(places)]
    project = drawn(
        *figures, zones=[projects.zone(figure["name"], projects.LEAD, figure["name"]) for figure in figures]
    )
    regions = make_regions(project)
    assert len(regions.regions) == len(figures) + 2
    assert len(next(iter(regions.regions[-2].terms))) == len(figures) + 1


def test_figures_that_overlap_in_too_many_ways_are_refused_soon():
    draw = random.Random(1)
    figures = [
        projects.box(f"b{n}", (5, 5, 5), [draw.uniform(-2, 2) for _ in "xyz"], [draw.uniform(0, 90) for _ in "xyz"])
        for n in range(100)
    ]
    rows = [f"b{draw.randrange(100)} {draw.choice('+-&')} b{draw.randrange(100)}" for _ in range(1000)]
    project = drawn(*figures, zones=[projects.zone(f"Z{n}", projects.LEAD, row) for n, row in enumerate(rows)])
    with pytest.raises(
        InvalidInput, match=r"^Project, zone.*: its figures overlap in too many ways: use fewer figures$"
    ):
        make_regions(project)


TANK = projects.tube("tank", 6, 22, at=(0, 0, 10.5))
WORLDS = {
    "equal": projects.tube("World Zone", 6, 22, at=(0, 0, 10.5)),
    "touching": projects.tube("World Zone", 8, 22, at=(0, 0, 10.5)),
    "thin gap": projects.tube("World Zone", 6.0001, 30, at=(0, 0, 10.5)),
    "apart": projects.tube("World Zone", 7, 30, at=(0, 0, 10.5)),
    "smaller": projects.tube("World Zone", 5, 10, at=(0, 0, 10.5)),
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_black_hole_surrounds_the_zones_whatever_the_size_of_the_world(world):
    around = {**WORLDS[world], "materialUuid": projects.BLACK_HOLE[0], "autoCalculate": False}
    project = drawn(TANK, zones=[projects.zone("Tank", projects.WATER, "tank")], around=around)
    regions = make_regions(project)
    assert [region.name for region in regions.regions] == ["Tank", "Black hole"]
    assert all(region.terms for region in regions.regions)
    assert regions.regions[-1].terms == (frozenset({regions.surroundings, -1}),)
    assert (regions.bodies[regions.surroundings - 1].name == "World Zone") == (world == "apart")
    (tank,) = place_figures(regions, "TOPAS")
    assert tank.name == "Tank"


def test_placing_many_figures_compares_only_those_that_are_close(monkeypatch):
    compared = []
    are_apart = nesting.are_apart
    monkeypatch.setattr(nesting, "are_apart", lambda *pair: compared.append(pair) or are_apart(*pair))
    places = itertools.product(range(6), range(6), range(6))
    figures = [projects.box(f"b{n}", (1, 1, 1), [1.5 * place for place in at]) for n, at in enumerate(places)]
    zones = [projects.zone(figure["name"], projects.LEAD, figure["name"]) for figure in figures]
    (world,) = place_figures(make_regions(drawn(*figures, zones=zones)), "TOPAS")
    assert len(world.children) == len(figures)
    assert len(compared) == len(figures)  # each with the world


def test_placing_too_many_figures_inside_of_each_other_is_refused(monkeypatch):
    monkeypatch.setattr(nesting, "MOST_TESTS", 50)
    figures = [projects.box(f"b{n}", (n + 1, n + 1, n + 1)) for n in range(6)]
    zones = [projects.zone(figure["name"], projects.LEAD, figure["name"]) for figure in figures]
    with pytest.raises(InvalidInput, match=r"^Project, zones: too many figures are close to each other to place them"):
        place_figures(make_regions(drawn(*figures, zones=zones)), "TOPAS")
