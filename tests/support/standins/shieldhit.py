"""Stands in for SHIELD-HIT12A: `shieldhit [-n N] [-N SEED] [-s] FOLDER`. Chapters are those of its User's Guide."""

import math
import re
from pathlib import Path

from tests.support.standins.formats import QUANTITIES, write_bdo
from tests.support.standins.running import Refused, curve, fail_within, fault, finish, say, steps

BEAM, MAT, GEO, DETECT = "beam.dat", "mat.dat", "geo.dat", "detect.dat"
_NAMES = (
    "APCORR BEAMDIR BEAMDIV BEAMPOS BEAMSAD BEAMSIGMA BMODMC BMODTRANS DELTAE DEMIN EMTRANS EXTSPEC HIPROJ JPART0 "
    "MAKELN MSCAT NEUTRFAST NEUTRLCUT NSTAT NUCRE RNDSEED STRAGG TCUT0 TMAX0 USEBMOD USECBEAM USEPARLEV"
)
KEYWORDS = frozenset(_NAMES.split())
BODIES = {"SPH": 4, "RPP": 6, "RCC": 7, "TRC": 8, "BOX": 12, "WED": 12, "ELL": 7, "REC": 12}


def main(words):
    """Run as the program would; returns the exit code."""
    options = dict(zip(words[:-1:2], words[1::2], strict=False)) if len(words) % 2 else {}
    if not words or not Path(words[-1]).is_dir():
        say("Usage: shieldhit [options] folder")
        return 1
    try:
        deck = read_deck(Path(words[-1]), options)
    except Refused as refused:
        say(f"*** Error: {refused}")
        return 1
    return run(deck)


def read_deck(folder, options=None):
    """Read the four files of a folder as the program does; raises Refused."""
    texts = {}
    for name in (BEAM, MAT, GEO, DETECT):
        if not (folder / name).is_file():
            raise Refused(name, f"cannot open {name}")
        texts[name] = (folder / name).read_bytes().decode("ascii", "replace")
        if "\r" in texts[name]:
            raise Refused(name, f"{name} has CR LF line ends")
    beam = read_beam(texts[BEAM])
    media = read_materials(texts[MAT], folder)
    read_geometry(texts[GEO], media)
    beam["outputs"] = read_detectors(texts[DETECT])
    beam["primaries"] = int((options or {}).get("-n", beam["primaries"]))
    beam["seed"] = int((options or {}).get("-N", beam["seed"]))
    return beam


def read_beam(text):
    """Return primaries, seed and energy."""
    values = {}
    for line in filled(text):
        keyword, *words = line.split()
        if keyword.upper() not in KEYWORDS:
            raise Refused(BEAM, f"unknown keyword {keyword}")
        if not words:
            raise Refused(f"{BEAM}, {keyword}", f"{keyword} has no value")
        values[keyword.upper()] = words
    for keyword in ("NSTAT", "TMAX0", "JPART0"):
        if keyword not in values:
            raise Refused(f"{BEAM}, {keyword}", f"{keyword} is missing")
    primaries, seed = integer(values, "NSTAT"), integer(values, "RNDSEED", "1")
    if primaries < 1:
        raise Refused(f"{BEAM}, NSTAT", "no primaries")
    if not 1 <= seed < 2**31:
        raise Refused(f"{BEAM}, RNDSEED", f"the seed {seed} is not positive, or does not fit")
    if integer(values, "JPART0") == 25 and "HIPROJ" not in values:
        raise Refused(f"{BEAM}, HIPROJ", "JPART0 25 needs HIPROJ")
    energy = number(values["TMAX0"][0], f"{BEAM}, TMAX0")
    if energy <= 0:
        raise Refused(f"{BEAM}, TMAX0", "no energy")
    return {"primaries": primaries, "seed": seed, "energy": energy}


def integer(values, keyword, default="0"):
    """Return an integer value of beam.dat."""
    word = values.get(keyword, [default])[0]
    if not re.fullmatch(r"[+-]?\d+", word):
        raise Refused(f"{BEAM}, {keyword}", f"{keyword} must be an integer, not {word}")
    return int(word)


def number(word, chapter):
    """Return a number."""
    try:
        return float(word)
    except ValueError:
        raise Refused(chapter, f"{word} is not a number") from None


def read_materials(text, folder):
    """Return the numbers of the media."""
    media, is_open = {0, 1000}, False
    for line in filled(text):
        keyword, *words = line.split()
        keyword = keyword.upper()
        if keyword == "MEDIUM" and not is_open:
            if not words or int(words[0]) != len(media) - 1:
                raise Refused(f"{MAT}, MEDIUM", "media must be numbered 1, 2, ...")
            media.add(int(words[0]))
            is_open = True
        elif keyword == "END" and is_open:
            is_open = False
        elif keyword in {"ICRU", "NUCLID", "RHO", "LOADDEDX", "IVALUE", "STATE", "AMASS"} and is_open and words:
            if keyword == "LOADDEDX" and not (folder / words[0].strip("\"'")).is_file():
                raise Refused(f"{MAT}, LOADDEDX", f"cannot open {words[0]}")
        else:
            raise Refused(MAT, f"unexpected {keyword}")
    if is_open or len(media) == 2:
        raise Refused(f"{MAT}, END", "a medium without END, or no medium")
    return media


def read_geometry(text, media):
    """Check bodies, zones and media, which are in fixed columns."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith(("*", "#"))]
    if not lines or not re.fullmatch(r"[ \d]{10}.*", lines[0]):
        raise Refused(f"{GEO}, title", "the first line needs two integers in columns 1 to 10")
    rest = iter(lines[1:])
    bodies = read_bodies(rest)
    zones = 0
    for line in rest:
        if line.strip() == "END":
            break
        if line[2:5].strip():
            zones += 1
        for begin in range(10, len(line.rstrip()), 7):
            term = line[begin : begin + 7].replace("OR", "").strip()
            if not re.fullmatch(r"[+-]\d+", term) or abs(int(term)) not in bodies:
                raise Refused(f"{GEO}, zones", f"no body {term!r} in columns {begin + 1} to {begin + 7}")
    else:
        raise Refused(f"{GEO}, END", "the zones have no END")
    numbers = [int(line[begin : begin + 5]) for line in rest for begin in range(0, len(line.rstrip()), 5)]
    if len(numbers) != 2 * zones:
        raise Refused(f"{GEO}, media", f"{zones} zones need as many numbers and media")
    for medium in numbers[zones:]:
        if medium not in media:
            raise Refused(f"{GEO}, media", f"no medium {medium} in {MAT}")


def read_bodies(lines):
    """Return the numbers of the bodies."""
    bodies, needed = set(), 0
    for line in lines:
        kind = line[2:5].strip()
        if kind == "END":
            if needed > 0:
                raise Refused(f"{GEO}, bodies", "a body has too few numbers")
            return bodies
        if kind:
            if needed > 0 or kind not in BODIES:
                raise Refused(f"{GEO}, bodies", f"no body {kind!r}, or too few numbers before it")
            bodies.add(int(number(line[5:10], f"{GEO}, bodies")))
            needed = BODIES[kind]
        for begin in range(10, min(len(line.rstrip()), 70), 10):
            field = line[begin : begin + 10]
            if len(field.split()) != 1:
                raise Refused(f"{GEO}, bodies", f"columns {begin + 1} to {begin + 10} need one number: {field!r}")
            number(field, f"{GEO}, bodies")
            needed -= 1
    raise Refused(f"{GEO}, END", "the bodies have no END")


def read_detectors(text):
    """Return the outputs of detect.dat."""
    blocks = []
    for line in filled(text):
        words = line.split()
        if words[0].upper() in {"GEOMETRY", "FILTER", "OUTPUT", "SETTINGS"}:
            blocks.append((words[0].upper(), words[1:], []))
        elif not blocks:
            raise Refused(DETECT, f"{words[0]} is outside of a block")
        else:
            blocks[-1][2].append(words)
    geometries = dict(read_mesh(kind, lines) for name, kind, lines in blocks if name == "GEOMETRY")
    filters = {name_of(lines) for name, _, lines in blocks if name == "FILTER"}
    outputs = [read_output(lines, geometries, filters) for name, _, lines in blocks if name == "OUTPUT"]
    if not outputs:
        raise Refused(f"{DETECT}, Output", "nothing is scored")
    return outputs


def name_of(lines):
    """Return the Name of a block."""
    for words in lines:
        if words[0].upper() == "NAME" and len(words) == 2:
            return words[1]
    raise Refused(DETECT, "a block needs a Name of one word")


def read_mesh(kind, lines):
    """Return the name and the axes of a geometry."""
    letters = {"CYL": "RTZ", "MESH": "XYZ"}.get(kind[0].upper() if kind else "")
    if letters is None:
        raise Refused(f"{DETECT}, Geometry", f"no geometry {' '.join(kind)!r}")
    axes = {"T": (0.0, 2 * math.pi, 1)}
    for words in lines:
        if words[0].upper() == "NAME":
            continue
        if words[0].upper() not in letters or len(words) != 4 or int(words[3]) < 1:
            raise Refused(f"{DETECT}, Geometry", f"an axis needs start, stop and bins: {' '.join(words)}")
        axes[words[0].upper()] = (float(words[1]), float(words[2]), int(words[3]))
    if not set(letters) <= axes.keys():
        raise Refused(f"{DETECT}, Geometry", f"axes {letters} are needed")
    name = name_of(lines)
    return name, ("CYL" if letters == "RTZ" else "MSH", name, [axes[letter] for letter in letters])


def read_output(lines, geometries, filters):
    """Return an output: file name, geometry, and quantities with their filter and differential axes."""
    output = {"quantities": []}
    for name, *words in lines:
        keyword = name.upper()
        if keyword == "FILENAME" and words:
            output["file"] = words[0]
        elif keyword == "GEO" and words:
            if words[0] not in geometries:
                raise Refused(f"{DETECT}, Output", f"no geometry {words[0]}")
            output["geometry"] = geometries[words[0]]
        elif keyword == "QUANTITY" and words:
            output["quantities"].append(read_quantity(words, filters))
        elif keyword in {"DIFF1", "DIFF2"} and output["quantities"] and len(words) >= 3:
            low, high, bins = words[:3]
            output["quantities"][-1]["diff"].append((float(low), float(high), int(bins), "log" in words))
        elif keyword not in {"DIFF1TYPE", "DIFF2TYPE", "MEDIUM", "OFFSET", "RESCALE"}:
            raise Refused(f"{DETECT}, Output", f"unexpected {keyword}")
    if not {"file", "geometry"} <= output.keys() or not output["quantities"]:
        raise Refused(f"{DETECT}, Output", "Filename, Geo and Quantity are needed")
    return output


def read_quantity(words, filters):
    """Return a quantity with its filter."""
    if words[0].lower() not in QUANTITIES:
        raise Refused(f"{DETECT}, Quantity", f"no quantity {words[0]}")
    if len(words) > 1 and words[1] not in filters:
        raise Refused(f"{DETECT}, Filter", f"no filter {words[1]}")
    return {"quantity": words[0], "filter": (words[1:] or [""])[0], "diff": []}


def filled(text):
    """Return the lines without comments."""
    lines = (re.split("[!#*]", line, maxsplit=1)[0].strip() for line in text.split("\n"))
    return [line for line in lines if line]


def run(deck):
    """Print progress, and write the outputs into the working directory."""
    kind, primaries = fault(), deck["primaries"]
    say("SHIELD-HIT12A v1.0.1 (stand-in)")
    with Path("shieldhit_0001.log").open("w") as log:
        log.write(f" Requested number of primaries NSTAT: {primaries}\n")
        for simulated in steps(primaries):
            log.write(f" Primary particle no. {simulated} ETR: 0 hour(s) 0 minute(s) 3 second(s)\n")
            log.flush()
            fail_within(kind)
        paths = [write_output(output, deck) for output in deck["outputs"]]
        log.write(" Run time: 0 hour(s) 0 minute(s) 1 second(s)\n")
    return finish(kind, paths)


def write_output(output, deck):
    """Write the file of one output; cumulative quantities are sums over all primaries."""
    primaries, (kind, name, axes) = deck["primaries"], output["geometry"]
    pages = []
    for position, quantity in enumerate(output["quantities"]):
        low, high, bins = axes[2]
        depth = curve(low, high, bins, deck["energy"], f"{deck['seed']}:{position}", primaries)
        lateral = axes[0][2] * axes[1][2]
        extra = math.prod([bins for _, _, bins, _ in quantity["diff"]])
        scale = primaries if QUANTITIES[quantity["quantity"].lower()][3] in {1, 2} else 1
        values = [scale * dose for dose in depth for _ in range(lateral)] * extra
        if quantity["quantity"].lower() == "mcpl":
            values = [float(deck["seed"] % 1000 + index) for index in range(8 * (1 + deck["seed"] % 3))]
        pages.append({**quantity, "values": values})
    stem = output["file"].removesuffix(".bdo")
    path = Path(f"{stem}_0001.bdo")
    starts, stops, bins = zip(*axes, strict=True)
    write_bdo(path, "v1.0.1-stand-in", primaries, (kind, name, starts, stops, bins), pages)
    return path
