"""The tables that convert Hounsfield units of a CT to densities and materials: lines of ``HU value``."""

from collections.abc import Callable
from dataclasses import dataclass

from yaptide.domain.errors import InvalidInput
from yaptide.simulators.text import Line, filled_lines

#: Labels of materials in MCsquare 1.1. It crashes on other labels, and treats 0 as vacuum.
FIRST_MATERIAL, LAST_MATERIAL = 1, 82


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of (HU, value), HU ascending: a density in g/cm3, or the label of the material from that HU on."""

    rows: tuple[tuple[float, float], ...]

    @property
    def lowest(self) -> float:
        """HU of the first row; below it, MCsquare extrapolates down to density 0."""
        return self.rows[0][0]


def parse_densities(file: str, text: str) -> Table:
    """Parse densities in g/cm3, which MCsquare interpolates; raise InvalidInput."""
    # MCsquare crashes on a single row.
    return _table(file, text, 2, lambda line: line.parse_real(1, "The density in g/cm3", 1e-6, 100))


def parse_materials(file: str, text: str) -> Table:
    """Parse material labels, each valid up to the HU of the next row; raise InvalidInput."""
    return _table(
        file, text, 1, lambda line: line.parse_integer(1, "The material label", FIRST_MATERIAL, LAST_MATERIAL)
    )


def _table(file: str, text: str, least: int, value: Callable[[Line], float]) -> Table:
    rows: list[tuple[float, float]] = []
    for line in filled_lines(file, text):
        if len(line.words) != 2:
            raise line.make_error(f"a HU and a value are needed, but there are {len(line.words)} words")
        hu = line.parse_real(0, "The HU")
        if rows and hu <= rows[-1][0]:
            raise line.make_error("the HU must be larger than in the row before")
        rows.append((hu, value(line)))
    if len(rows) < least:
        raise InvalidInput(f"{file}: at least {least} rows of a HU and a value are needed, but there are {len(rows)}")
    return Table(tuple(rows))


def format_table(table: Table) -> str:
    """Return the text of a table for MCsquare."""
    return "".join(f"{hu!r} {value!r}\n" for hu, value in table.rows)
