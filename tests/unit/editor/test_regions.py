"""The geometry of a project as regions of bodies: short ones, and a limit for what would take too long."""

import itertools
import random

import pytest

from tests.support import projects
from yaptide.domain.errors import InvalidInput
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
