"""The geometry of a project as codes with combinatorial geometry need it: bodies, and regions that do not overlap.

A region is a union of intersections of bodies and of what is outside of bodies. Zones with a higher priority are cut
out of those with a lower one, a hollow cylinder becomes two bodies, and everything outside is a black hole.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from yaptide.domain.errors import InvalidInput
from yaptide.editor.containment import is_inside
from yaptide.editor.geometry import NOTHING, box_of_figure, box_of_project
from yaptide.editor.project import Doubles, Figure, Material, Mode, Project, Solid, Zone
from yaptide.editor.sections import quote_text

#: Numbers of bodies, from 1: positive inside, negative outside.
Term = frozenset[int]

_MOST_TERMS = 500
MOST_TESTS = 100_000  # of terms: some seconds
#: Bodies of a term, and comparisons with other terms, that take as long as one test.
_BODIES, _COMPARISONS = 5, 50
#: Smallest thickness (cm) of a body, and of the overlap of two of them; codes cannot resolve thinner ones.
_THIN = 1e-7
#: Space around everything, relative to its size, and at least, in cm.
_MARGIN, _LEAST_MARGIN = 0.1, 1.0
#: Twice the least distance, cm, of zones to the world that surrounds them: codes round lengths.
_GAP = 2e-3


@dataclass(frozen=True, slots=True)
class Region:
    """A part of space made of one material: the union of `terms`, in which all conditions hold.

    `zone` is the index of the project's zone, None for the world and what is around it.
    """

    name: str
    material: Material
    terms: tuple[Term, ...]
    zone: int | None = None


@dataclass(frozen=True, slots=True)
class Regions:
    """Bodies, numbered from 1, and regions. Every point inside the body `surroundings` is in one region.

    The last region is the black hole around the world.
    """

    bodies: tuple[Figure, ...]
    regions: tuple[Region, ...]
    surroundings: int

    def number_of_zone(self, zone: int) -> int | None:
        """Return the number, from 1, of the region of a project's zone; None if the zone is empty."""
        return next((number for number, region in enumerate(self.regions, 1) if region.zone == zone), None)


def make_regions(project: Project) -> Regions:
    """Return bodies and regions of a project; raise InvalidInput for a zone that needs too many terms."""
    bodies = _Bodies()
    occupied: list[Term] = []
    regions: list[Region] = []
    for index, zone in enumerate(project.zones):
        whole = _terms_of_zone(zone, bodies)
        terms = _cut(whole, occupied, bodies, f"zone {quote_text(zone.name)}")
        occupied += whole
        if terms:
            regions.append(Region(zone.name, zone.material, bodies.tidy(terms), index))
    world = bodies.inside(project.world.figure)
    if not project.world.material.is_black_hole:
        terms = _cut(world, occupied, bodies, "the world zone")
        occupied += world
        if terms:
            regions.append(Region("World", project.world.material, bodies.tidy(terms)))
    surroundings = bodies.inside(_surroundings(project, occupied, bodies))
    around = _cut(surroundings, occupied, bodies, "the space around the zones")
    ((number,),) = surroundings
    return bodies.number([*regions, Region("Black hole", NOTHING, bodies.tidy(around))], number)


def _surroundings(project: Project, occupied: Iterable[Term], bodies: "_Bodies") -> Figure:
    """Return a box around everything, or the world if that is a black hole and all zones are inside, with a gap."""
    box, world = box_of_project(project), project.world.figure
    within = replace(
        world, radius=world.radius - _GAP, size=(world.size[0] - _GAP, world.size[1] - _GAP, world.size[2] - _GAP)
    )
    inside = all(
        any(number > 0 and is_inside(bodies.figures[number - 1], within) for number in term) for term in occupied
    )
    is_full = is_solid(world) and is_solid(within) and not world.inner
    if project.world.material.is_black_hole and is_full and inside:
        return world
    margin = max(_LEAST_MARGIN, _MARGIN * float((box[1] - box[0]).max()))
    x, y, z = (float(part) for part in box.mean(axis=0))
    width, height, depth = (float(part) for part in box[1] - box[0] + 2 * margin)
    return Figure("Surroundings", Solid.BOX, (x, y, z), np.eye(3), (width, height, depth))


def is_solid(figure: Figure) -> bool:
    """Return whether a figure has a volume."""
    if figure.solid is Solid.BOX:
        return min(figure.size) > _THIN
    thick = figure.solid is Solid.SPHERE or figure.size[2] > _THIN
    return thick and figure.radius - figure.inner > _THIN


@dataclass
class _Bodies:
    """The bodies of a project by number, and the boxes around them."""

    figures: list[Figure] = field(default_factory=list)
    boxes: list[Doubles] = field(default_factory=list)
    known: dict[tuple[int, bool], tuple[int, Figure]] = field(default_factory=dict)
    """Numbers by identity of a figure, and the figure, so that no other one gets its identity."""
    nested: dict[tuple[int, int], bool] = field(default_factory=dict)
    corners: list[list[float]] = field(default_factory=list)
    """Lowest and highest corner of the boxes around the bodies."""
    volumes: list[float] = field(default_factory=list)
    """Volumes of the boxes around the bodies."""
    tests: int = 0

    def inside(self, figure: Figure) -> list[Term]:
        """Return the terms of a figure; none without a volume."""
        if not is_solid(figure):
            return []
        outer = self._number(figure, is_inner=False)
        return [frozenset({outer, -self._number(figure, is_inner=True)} if figure.inner > _THIN else {outer})]

    def outside(self, figure: Figure) -> list[Term]:
        """Return the terms of the space outside of a figure."""
        return [frozenset({-number}) for term in self.inside(figure) for number in term] or [frozenset()]

    def _number(self, figure: Figure, *, is_inner: bool) -> int:
        key = (id(figure), is_inner)
        if key not in self.known:
            size = (2 * figure.inner, 2 * figure.inner, figure.size[2]) if is_inner else figure.size
            body = replace(figure, radius=figure.inner if is_inner else figure.radius, inner=0.0, size=size)
            self.figures.append(body)
            self.boxes.append(box := box_of_figure(body))
            self.corners.append(box.ravel().tolist())
            self.volumes.append(float(np.prod(box[1] - box[0])))
            self.known[key] = len(self.figures), figure
        return self.known[key][0]

    def count_tests(self, more: int) -> None:
        """Count tests of terms; raise InvalidInput for too many."""
        self.tests += more
        if self.tests > MOST_TESTS:
            raise InvalidInput("Project, zones: their figures overlap in too many ways: use fewer figures")

    def simplify(self, term: Term) -> Term | None:
        """Return an equal term without conditions that always hold; None if nothing fulfils it."""
        if any(-number in term for number in term):
            return None
        positive, negative = [n for n in term if n > 0], [-n for n in term if n < 0]
        if any(self._is_in(one, other) for one in positive for other in negative):
            return None
        if not positive:
            return term
        boxes = np.array([self.boxes[number - 1] for number in positive])
        low, high = boxes[:, 0].max(axis=0), boxes[:, 1].min(axis=0)
        if (high - low <= _THIN).any():
            return None
        needed = self._without_implied(positive, smallest=True)
        return frozenset(needed) | frozenset(-number for number in self._list_meeting(negative, low, high))

    def tidy(self, terms: Iterable[Term]) -> tuple[Term, ...]:
        """Return terms in which no body is cut out that is in another one."""
        return tuple(
            frozenset(number for number in term if number > 0)
            | frozenset(-number for number in self._without_implied([-n for n in term if n < 0], smallest=False))
            for term in terms
        )

    def list_near(self, terms: Sequence[Term], others: Sequence[Term]) -> list[Term]:
        """Return those of other terms whose boxes meet that of a term."""
        if not terms or not others:
            return []
        boxes, mine = (np.array([self._box(term) for term in group]) for group in (others, terms))
        low, high = mine[:, 0].min(axis=0), mine[:, 1].max(axis=0)
        near = (np.minimum(boxes[:, 1], high) - np.maximum(boxes[:, 0], low) > _THIN).all(axis=1)
        return [other for other, is_near in zip(others, near, strict=True) if is_near]

    def _box(self, term: Term) -> Doubles:
        """Return the box around a term: that of its smallest body."""
        smallest = min((number for number in term if number > 0), key=lambda number: self.volumes[number - 1])
        return self.boxes[smallest - 1]

    def _without_implied(self, numbers: list[int], *, smallest: bool) -> list[int]:
        """Return bodies without those that contain another one, or those that are in another one."""
        kept: list[int] = []
        for number in sorted(numbers, key=lambda number: self.volumes[number - 1], reverse=not smallest):
            if not any(self._is_in(*((other, number) if smallest else (number, other))) for other in kept):
                kept.append(number)
        return kept

    def _is_in(self, one: int, other: int) -> bool:
        """Return whether a body is certainly in another one."""
        is_in = self.nested.get((one, other))
        if is_in is None:
            is_in = self._is_box_in(one, other) and is_inside(self.figures[one - 1], self.figures[other - 1])
            self.nested[one, other] = is_in
        return is_in

    def _is_box_in(self, one: int, other: int) -> bool:
        """Return whether the box around a body is in that around another one, which is faster to see."""
        mine, others = self.corners[one - 1], self.corners[other - 1]
        is_above = all(low > limit - _THIN for low, limit in zip(mine[:3], others[:3], strict=True))
        return is_above and all(high < limit + _THIN for high, limit in zip(mine[3:], others[3:], strict=True))

    def _list_meeting(self, numbers: list[int], low: Doubles, high: Doubles) -> list[int]:
        """Return the bodies whose boxes meet a box."""
        if not numbers:
            return []
        boxes = np.array([self.boxes[number - 1] for number in numbers])
        meeting = (np.minimum(high, boxes[:, 1]) - np.maximum(low, boxes[:, 0]) > _THIN).all(axis=1)
        return [number for number, is_near in zip(numbers, meeting, strict=True) if is_near]

    def number(self, regions: Sequence[Region], surroundings: int) -> Regions:
        """Return the regions with the bodies that they use, numbered in order of appearance."""
        used = sorted({surroundings} | {abs(number) for region in regions for term in region.terms for number in term})
        new = {old: position for position, old in enumerate(used, 1)}
        renumbered = tuple(
            replace(region, terms=tuple(_renumber(term, new) for term in region.terms)) for region in regions
        )
        return Regions(tuple(self.figures[old - 1] for old in used), renumbered, new[surroundings])


def _renumber(term: Term, new: dict[int, int]) -> Term:
    return frozenset(new[number] if number > 0 else -new[-number] for number in term)


def _terms_of_zone(zone: Zone, bodies: _Bodies) -> list[Term]:
    """Return the terms of a zone, before others are cut out."""
    where = f"zone {quote_text(zone.name)}"
    terms: list[Term] = []
    for operations in zone.terms:
        part: list[Term] = []
        for mode, figure in operations:
            if mode is Mode.UNION:
                part = _reduce([*part, *bodies.inside(figure)], bodies, where)
            else:
                other = bodies.inside(figure) if mode is Mode.INTERSECTION else bodies.outside(figure)
                part = _reduce((one | two for one in part for two in other), bodies, where)
        terms = _reduce([*terms, *part], bodies, where)
    return terms


def _cut(terms: Iterable[Term], others: Sequence[Term], bodies: _Bodies, where: str) -> list[Term]:
    """Return what remains of terms outside of the others."""
    remaining = list(terms)
    for other in bodies.list_near(remaining, others):
        remaining = _reduce(_outside(remaining, other, bodies), bodies, where)
    return remaining


def _outside(terms: Iterable[Term], other: Term, bodies: _Bodies) -> Iterator[Term]:
    for term in terms:
        if bodies.simplify(term | other) is None:
            yield term
        else:
            yield from (term | {-number} for number in sorted(other, key=abs))


def _reduce(terms: Iterable[Term], bodies: _Bodies, where: str) -> list[Term]:
    """Return terms that are not empty, without those that are part of another one; raise InvalidInput for many."""
    kept: list[Term] = []
    for term in terms:
        bodies.count_tests(1 + len(term) // _BODIES + len(kept) // _COMPARISONS)
        simple = bodies.simplify(term)
        if simple is None or any(other <= simple for other in kept):
            continue
        kept = [other for other in kept if not simple <= other]
        kept.append(simple)
        if len(kept) > _MOST_TERMS:
            raise InvalidInput(f"Project, {where}: its figures overlap in too many ways: use fewer figures")
    return kept
