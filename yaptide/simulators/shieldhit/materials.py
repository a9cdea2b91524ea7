"""Writes ``mat.dat``: the media of a project by their ICRU numbers."""

from collections.abc import Iterable

from yaptide.editor.project import Material
from yaptide.editor.substances import find_substance
from yaptide.simulators.projects import comment


def number_media(materials: Iterable[Material]) -> dict[Material, int]:
    """Return the number, from 1, of each medium that is neither a vacuum nor a black hole."""
    media: dict[Material, int] = {}
    for material in materials:
        if not material.is_empty:
            media.setdefault(material, len(media) + 1)
    return media


def format_materials(media: dict[Material, int]) -> str:
    """Return mat.dat; raise InvalidInput for a material without an ICRU number."""
    lines = []
    for material, number in media.items():
        find_substance(material, "SHIELD-HIT12A")
        lines += [
            f"MEDIUM {number}",
            f"ICRU {material.icru}",
            f"RHO {material.density:.10g}  ! {comment(material.name)}",
        ]
        if material.ionisation is not None:
            lines.append(f"IVALUE {material.ionisation:.10g}")
        lines.append("END")
    return "\n".join(lines) + "\n" if lines else "! all zones are empty\n"
