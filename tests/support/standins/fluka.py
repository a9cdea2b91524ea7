"""Stands in for FLUKA: `rfluka [-N 0] -M 1 NAME.inp`. Chapters are those of the FLUKA manual."""

import math
import os
import re
import shutil
from pathlib import Path

from tests.support.standins.formats import write_usrbin
from tests.support.standins.running import Refused, curve, fail_within, fault, finish, say, steps

_NAMES = (
    "TITLE GLOBAL DEFAULTS BEAM BEAMPOS BEAMAXES GEOBEGIN GEOEND ASSIGNMA MATERIAL COMPOUND LOW-MAT USRBIN USRBDX "
    "USRTRACK SCORE RANDOMIZ START STOP FREE FIXED EMF EMFCUT PART-THR PHYSICS IONTRANS HI-PROPE AUXSCORE MAT-PROP "
    "ROT-DEFI STERNHEI DELTARAY"
)
CARDS = frozenset(_NAMES.split())
BODIES = {"SPH": 4, "RPP": 6, "RCC": 7, "XYP": 1, "XZP": 1, "YZP": 1, "TRC": 8, "ZCC": 3, "PLA": 6, "BOX": 12}
_MATERIALS = "BLCKHOLE VACUUM HYDROGEN HELIUM CARBON OXYGEN ALUMINUM IRON COPPER LEAD WATER AIR PMMA"
MATERIALS = frozenset(_MATERIALS.split())
PARTICLES = {"PROTON": 1, "NEUTRON": 8, "PHOTON": 7, "ENERGY": 208, "DOSE": 228, "HEAVYION": -2}
LARGEST_SEED = 9e8


def main(words):
    """Run as the script would: in a folder of its own, whose files are moved at the end."""
    if words[:2] != ["-M", "1"] or len(words) != 3 or not Path(words[2]).is_file():
        say("Usage: rfluka [-N cycle] -M cycles input")
        return 1
    name = words[2].removesuffix(".inp") + "001"
    place = Path(f"fluka_{os.getpid()}")
    place.mkdir()
    code = 0
    try:
        deck = read_deck(Path(words[2]).read_bytes().decode("latin-1"))
        code = run(deck, place, name)
    except Refused as refused:
        (place / f"{name}.err").write_text(f" *** {refused} ***\n")
        (place / f"{name}.out").write_text(f" **** FLUKA stopped: {refused} ****\n")
    for path in place.iterdir():
        shutil.move(path, Path(path.name))
    place.rmdir()
    say("     End of FLUKA run")  # the script says so, whatever has happened
    return code


def read_deck(text):
    """Return primaries, seed, energy and scorers of a deck in fixed columns; raises Refused."""
    if "\r" in text:
        raise Refused("2.3 Input alignment", "the deck has CR LF line ends")
    deck = {"scorers": [], "seed": 54217137, "regions": set(), "assigned": set(), "materials": set(MATERIALS)}
    lines = iter([line for line in text.split("\n") if not line.startswith(("*", "#")) and line.strip()])
    for line in lines:
        card = line[:8].strip()
        if card not in CARDS:
            raise Refused("7 Description of FLUKA input options", f"unknown card {line[:10]!r}")
        if card == "TITLE":
            next(lines, "")
        elif card == "GEOBEGIN":
            deck["regions"] = read_geometry(lines)
        elif card == "STOP":
            return check_deck(deck)
        else:
            read_card(deck, card, read_numbers(line, card), line[70:80].strip())
    raise Refused("7 STOP", "there is no STOP")


def read_card(deck, card, whats, name):
    """Take in one card outside of the geometry."""
    if card == "MATERIAL":
        deck["materials"].add(name)
    elif card == "ASSIGNMA":
        if whats[0] not in deck["materials"] or whats[1] not in deck["regions"]:
            raise Refused("7 ASSIGNMAt", f"no material {whats[0]!r} or region {whats[1]!r}")
        deck["assigned"].add(whats[1])
    elif card == "BEAM":
        deck["energy"] = -1000 * real(whats[0], "7 BEAM")
        if name not in PARTICLES or deck["energy"] <= 0:
            raise Refused("7 BEAM", "a beam needs a particle and a kinetic energy (negative, in GeV)")
    elif card == "RANDOMIZ":
        deck["seed"] = real(whats[1], "7 RANDOMIZe")
        if not 0 <= deck["seed"] < LARGEST_SEED:
            raise Refused("7 RANDOMIZe", f"the seed {deck['seed']} is not below 9E8")
    elif card == "USRBIN":
        read_usrbin(whats, name, deck["scorers"])
    elif card == "START":
        deck["primaries"] = int(real(whats[0], "7 START"))


def check_deck(deck):
    """Check what a deck needs as a whole."""
    regions, assigned = deck["regions"], deck["assigned"]
    if not regions:
        raise Refused("8 Combinatorial Geometry", "there is no geometry")
    if regions - assigned:
        raise Refused("7 ASSIGNMAt", f"no material in {min(regions - assigned)}")
    if "energy" not in deck:
        raise Refused("7 BEAM", "there is no beam")
    if deck.get("primaries", 0) < 1:
        raise Refused("7 START", "there is no START, or it has no primaries")
    if any(len(scorer) == 3 for scorer in deck["scorers"]):
        raise Refused("7 USRBIN", "a USRBIN has no second card")
    return deck


def read_numbers(line, card):
    """Return the six WHATs, which stand in columns of ten characters."""
    if "\t" in line:
        raise Refused("2.3 Input alignment", "a tab in a line of columns")
    if line[8:10].strip():
        raise Refused("2.3 Input alignment", f"columns 9 and 10 of {card} must be blank")
    whats = []
    for begin in range(10, 70, 10):
        field = line[begin : begin + 10]
        if len(field.split()) > 1:
            raise Refused("2.3 Input alignment", f"{field!r} in columns {begin + 1} to {begin + 10} of {card}")
        whole = re.fullmatch(r"\s*[+-]?\d+(\s+)", field)
        if whole:
            raise Refused("2.3 Input alignment", f"{field!r} is an integer that does not end in column {begin + 10}")
        whats.append(field.strip())
    return whats


def real(word, chapter):
    """Return a number as Fortran reads it."""
    try:
        return float(word.upper().replace("D", "E") or 0)
    except ValueError:
        raise Refused(chapter, f"{word!r} is not a number") from None


def read_geometry(lines):
    """Return the regions; the format is COMBNAME."""
    if not re.fullmatch(r"[ \d]{10}.*", next(lines, "")):
        raise Refused("8.2.1 Geometry title card", "the line after GEOBEGIN needs two integers")
    bodies, words = set(), []
    for line in lines:
        if line.split()[0] == "END":
            break
        words += [line.split()] if line[0].isalpha() else []
        if not line[0].isalpha():
            words[-1] += line.split()
    else:
        raise Refused("8.2.4 END card", "the bodies have no END")
    for kind, name, *numbers in words:
        if kind not in BODIES or len(numbers) != BODIES[kind]:
            raise Refused("8.2.3 Body data", f"{kind} {name} has {len(numbers)} numbers, or is no body")
        bodies.add(name)
    return read_regions(lines, bodies)


def read_regions(lines, bodies):
    """Return the names of the regions up to END and GEOEND."""
    regions = set()
    for line in lines:
        if line.split()[0] == "END":
            if next(lines, "").split()[:1] != ["GEOEND"]:
                raise Refused("7 GEOEND", "there is no GEOEND")
            return regions
        name, *rest = line.split()
        terms = rest[1:]
        if not terms or not rest[0].isdigit():
            raise Refused("8.2.5 Region data", f"the region {name} needs a number and bodies")
        for term in terms:
            if term != "|" and term.lstrip("+-|") not in bodies:
                raise Refused("8.2.5 Region data", f"the region {name} has no body {term}")
        regions.add(name)
    raise Refused("8.2.6 END card", "the regions have no END")


def read_usrbin(whats, name, scorers):
    """Add a scorer, or complete one with its second card."""
    if name == "&":
        if not scorers or len(scorers[-1]) != 3:
            raise Refused("7 USRBIN", "a second card without a first one")
        low, bins = [[real(word, "7 USRBIN") for word in part] for part in (whats[:3], whats[3:])]
        if min(bins) < 1:
            raise Refused("7 USRBIN", "each axis needs bins")
        scorers[-1] += (low, bins)
        return
    unit = real(whats[2], "7 USRBIN")
    if not -99 <= unit <= -21:
        raise Refused("7 USRBIN", f"unit {unit:g} is not 21 to 99, binary (negative)")
    if whats[1] not in PARTICLES:
        raise Refused("5 Particle and material codes", f"no particle {whats[1]!r}")
    high = [real(word, "7 USRBIN") for word in whats[3:]]
    scorers.append((name, (int(real(whats[0], "7 USRBIN")), PARTICLES[whats[1]], int(-unit)), high))


def run(deck, place, name):
    """Print progress as FLUKA does, and write its files."""
    kind, primaries = fault(), deck["primaries"]
    with (place / f"{name}.out").open("w") as out:
        out.write(" FLUKA Version 4-3.3 (stand-in)\n1NUMBER OF BEAM        NUMBER OF BEAM        NUMBER OF BEAM\n")
        for simulated in steps(primaries):
            row = f" {simulated:>12d}{primaries - simulated:>20d}{primaries - simulated:>20d}"
            out.write(f"{row}     5.0E-03     1.0E+30{simulated:>12d}\n NEXT SEEDS:       0       0       0\n")
            out.flush()
            fail_within(kind)
        paths = write_units(deck, place, name)
        out.write(" All cases handled by Feeder\n * ======          End of FLUKA 4-3.3 run          ====== *\n")
    (place / f"{name}.log").write_text(" stand-in\n")
    return finish(kind, paths)


def write_units(deck, place, name):
    """Write a file for each unit."""
    units = {}
    for title, (kind, particle, unit), high, low, bins in deck["scorers"]:
        axes = [(a, b, int(n)) for a, b, n in zip(low, high, bins, strict=True)]
        if kind in {1, 11}:
            axes[1] = -math.pi, math.pi, axes[1][2]
        depth = curve(*axes[2], deck["energy"], deck["seed"], deck["primaries"])
        values = [dose / 1000 for dose in depth for _ in range(axes[0][2] * axes[1][2])]
        scorer = {"name": title, "type": kind, "particle": particle, "axes": axes, "values": values}
        units.setdefault(unit, []).append(scorer)
    paths = []
    for unit, scorers in units.items():
        paths.append(place / f"{name}_fort.{unit}")
        write_usrbin(paths[-1], "stand-in", deck["primaries"], scorers)
    return paths
