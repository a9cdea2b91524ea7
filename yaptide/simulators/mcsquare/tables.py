"""The two tables that turn the Hounsfield units of a CT into densities and materials: lines of ``HU value``."""

from collections.abc import Callable
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.text import Line, filled_lines

#: Labels in the list of materials that comes with MCsquare 1.1. It crashes on any other label, and takes 0 for vacuum.
FIRST_MATERIAL, LAST_MATERIAL = 1, 82


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of (HU, value), HU ascending: a density in g/cm3, or the label of the material from that HU on."""

    rows: tuple[tuple[float, float], ...]

    @property
    def lowest(self) -> float:
        """HU of the first row; below it, MCsquare extrapolates down to no density at all."""
        return self.rows[0][0]


def parse_densities(file: str, text: str) -> Table:
    """Read densities in g/cm3, between which MCsquare interpolates; raises InvalidInput."""
    # With a single row, MCsquare crashes.
    return _table(file, text, 2, lambda line: line.real(1, "The density in g/cm3", 1e-6, 100))


def parse_materials(file: str, text: str) -> Table:
    """Read material labels, each of which holds up to the HU of the next row; raises InvalidInput."""
    return _table(file, text, 1, lambda line: line.integer(1, "The material label", FIRST_MATERIAL, LAST_MATERIAL))


def _table(file: str, text: str, least: int, value: Callable[[Line], float]) -> Table:
    rows: list[tuple[float, float]] = []
    for line in filled_lines(file, text):
        if len(line.words) != 2:
            raise line.refusal(f"a HU and a value are needed, found {len(line.words)} words")
        hu = line.real(0, "The HU")
        if rows and hu <= rows[-1][0]:
            raise line.refusal("the HU must be larger than that of the row before")
        rows.append((hu, value(line)))
    if len(rows) < least:
        raise InvalidInput(f"{file}: rows of a HU and a value are needed, {least} or more, found {len(rows)}")
    return Table(tuple(rows))


def format_table(table: Table) -> str:
    """The table as MCsquare reads it."""
    return "".join(f"{hu!r} {value!r}\n" for hu, value in table.rows)
