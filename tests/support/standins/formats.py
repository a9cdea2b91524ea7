"""Writes the output formats of SHIELD-HIT12A (.bdo, 2019), FLUKA (USRBIN) and TOPAS (csv), standard library only.

The order and types of the tokens of a .bdo file are those of files that SHIELD-HIT12A 1.0.1 and 1.1.1 have written;
the records of USRBIN are described in the FLUKA manual, chapter "Binary files", and header lines in the TOPAS user
guide, "Scoring".
"""

import struct
from pathlib import Path

#: Numbers of quantities, their units, and how they are normalized (`page_normalized`), in .bdo files.
QUANTITIES = {
    "dose": (5, 40, "MeV/g", 2),
    "fluence": (2, 14, "/cm^2", 2),
    "dlet": (6, 31, "MeV/cm", 3),
    "tlet": (7, 31, "MeV/cm", 3),
    "avgenergy": (8, 70, "MeV", 3),
    "count": (55, -1, "", 1),
    "rho": (20, 22, "g/cm^3", 0),
    "mcpl": (63, -1, "", 4),
}


def write_bdo(path, version, primaries, geometry, pages):
    """Write a .bdo file.

    `geometry` is (type, name, starts, stops, bins); each page a dictionary with quantity, values, filter, unit,
    number, diff: a list of (start, stop, bins, is_log).
    """
    kind, name, starts, stops, bins = geometry
    parts = [b"xSH12AII" + version.lstrip("v")[:3].encode().ljust(16, b"\0")]
    parts += [_text(0x00, version), _text(0x01, "Mon, 25 Mar 2024 21:34:30 +0100  "), _integers(0x05, 2)]
    parts += [_text(0x02, "Mon, 25 Mar 2024 21:44:45 +0100"), _text(0x03, "nobody"), _text(0x04, "node")]
    parts += [_integers(0xAA00, primaries), _integers(0xAA01, 2), _integers(0xAA02, 2)]
    parts += [_text(0xE000, kind), _text(0xE001, name), _reals(0xE002, *starts), _reals(0xE003, *stops)]
    parts += [_integers(0xE004, *bins), _integers(0xE00A, 10, 10, 10)]
    parts += [_text(0xE009, "cm;cm" if kind == "CYL" else "cm;cm;cm"), _reals(0xE006, 1.0)]
    parts += [_text(0xEE00, Path(path).name), _reals(0xEE03, 1.0), _integers(0xEE02, len(pages))]
    for number, page in enumerate(pages):
        parts += _page(number, page)
    Path(path).write_bytes(b"".join(parts))


def _page(number, page):
    detector, unit_id, unit, normalized = QUANTITIES[page["quantity"].lower()]
    unit, number = page.get("unit", unit), page.get("number", number)
    diff = page.get("diff", [])
    parts = [_text(0xFFCD, "***    NEW PAGE    ***"), _integers(0xDD30, detector), _integers(0xDD31, number)]
    parts += [_integers(0xDD32, normalized), _reals(0xDD33, 1.0), _reals(0xDD34, 0.0)]
    units = unit
    if diff:
        filled = [*diff, (0.0, 0.0, 1, False)][:2]
        parts += [_integers(0xDDD0, *(-1 if each[3] else 1 for each in filled)), _integers(0xDDD1, 27, 27)]
        parts += [_reals(0xDDD2, *(each[0] for each in filled)), _reals(0xDDD3, *(each[1] for each in filled))]
        parts += [_integers(0xDDD4, *(each[2] for each in filled))]
        units = ";".join([unit, *["MeV", "deg"][: len(diff)]])
    parts += [_integers(0xDD37, unit_id, unit_id, unit_id)]
    parts += [_text(0xDDD5, units.replace(";", "/")), _text(0xDDBC, units)]
    if page.get("filter"):
        parts.append(_text(0xDDF0, page["filter"]))
    return [*parts, _reals(0xDDBB, *page["values"])]


def _token(number, kind, count, payload):
    return struct.pack("<Q8sQ", number, kind.encode(), count) + payload


def _text(number, text):
    size = -(-(len(text) + 1) // 8) * 8
    return _token(number, f"S{size}", 1, text.encode().ljust(size, b"\0"))


def _integers(number, *values):
    return _token(number, "<i8", len(values), struct.pack(f"<{len(values)}q", *values))


def _reals(number, *values):
    return _token(number, "<f8", len(values), struct.pack(f"<{len(values)}d", *values))


def write_usrbin(path, title, primaries, detectors):
    """Write a file of USRBIN scorers: dictionaries with name, type, particle, axes (3 of low, high, bins), values."""
    with Path(path).open("wb") as file:
        when = b"DATE: 11/19/24,  TIME: 16:31:47".ljust(32)
        _record(file, struct.pack("=80s32sfiii", title.encode().ljust(80), when, 1.0, primaries, 0, 1))
        for number, each in enumerate(detectors, 1):
            axes = [part for low, high, bins in each["axes"] for part in (low, high, bins, (high - low) / bins)]
            head = struct.pack("=i10sii", number, each["name"].encode().ljust(10), each["type"], each["particle"])
            _record(file, head + struct.pack("=ffifffifffif", *axes) + struct.pack("=ifff", 1, 0.0, 0.0, 0.0))
            _record(file, struct.pack(f"={len(each['values'])}f", *each["values"]))


def _record(file, data):
    size = struct.pack("=i", len(data))
    file.write(size + data + size)


def write_table(path, scorer, component, quantity, unit, axes, columns):
    """Write a TOPAS table: `axes` are three (name, bins, width, unit), `columns` values by statistic.

    The last axis is the fastest.
    """
    lines = ["# TOPAS Version: 4.2.p3", "# Parameter File: yaptide_task.txt", f"# Results for scorer: {scorer}"]
    lines += [f"# Scored in component: {component}"]
    sizes = [bins for _, bins, _, _ in axes]
    if sizes != [1, 1, 1]:
        of_axes = [(name, bins, "s" if bins > 1 else " ", f"{width:g} {of}") for name, bins, width, of in axes]
        lines += [f"# {name} in {bins} bin{plural} of {width}" for name, bins, plural, width in of_axes]
    lines += [f"# {quantity} ( {unit} ) : {'   '.join(columns)}   "]
    for row, values in enumerate(zip(*columns.values(), strict=True)):
        places = (row // (sizes[1] * sizes[2]), row // sizes[2] % sizes[1], row % sizes[2])
        index = [] if sizes == [1, 1, 1] else [str(place) for place in places]
        lines.append(", ".join([*index, *(f"{value:.17g}" for value in values)]))
    Path(path).write_text("\n".join(lines) + "\n")
