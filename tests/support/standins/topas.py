"""Stands in for TOPAS: `topas FILE`. Chapters are those of the TOPAS user guide."""

import re
from pathlib import Path

from tests.support.standins.formats import write_table
from tests.support.standins.running import Refused, curve, fail_within, fault, finish, say, steps

TYPES = {"s", "i", "d", "u", "b", "sv", "iv", "dv", "uv", "bv"}
CATEGORIES = {"ge", "ma", "el", "ph", "so", "sc", "tf", "ts", "gr", "vr", "is"}
LENGTHS = {"mm": 0.1, "cm": 1.0, "m": 100.0}
UNITS = {*LENGTHS, "MeV", "keV", "GeV", "deg", "rad", "mrad", "s", "ms", "g/cm3", "Gy", "eV"}
QUANTITIES = {"DoseToMedium": "Gy", "DoseToWater": "Gy", "EnergyDeposit": "MeV", "Fluence": "/mm2"}
REPORTS = {"Sum", "Mean", "Standard_Deviation", "Count_in_Bin", "Variance", "Histories_with_Scorer_Active"}
MATERIALS = {"Vacuum", "Air", "World", "Carbon", "Aluminum", "Nickel", "Copper", "Iron", "Titanium", "Brass", "Lexan"}


def main(words):
    """Run as the program would; returns the exit code."""
    if len(words) != 1:
        say("TOPAS needs one parameter file")
        return 1
    try:
        return run(read_deck(Path(words[0])))
    except Refused as refused:
        say(f"TOPAS is exiting due to a serious error.\n{refused}")
        return 1


def read_deck(path):
    """Return what the stand-in runs: histories, seed, energy, scorers; raises Refused."""
    values = {name: value for name, (_, value) in read_file(path, ()).items()}
    if not values.get("ge/world/hlz"):
        raise Refused("Geometry, World", "the World has no size")
    if values.get("ts/pausebeforequit") == "True":
        raise Refused("Overall Control, Pausing", "it would wait for a key for ever")
    components = {name.split("/")[1] for name in values if name.startswith("ge/")} | {"world"}
    check_components(values, components)
    sources = sorted({name.split("/")[1] for name in values if name.startswith("so/") and name.endswith("/type")})
    if not sources:
        raise Refused("Particle Sources", "there is no source")
    total = sum(read_source(values, source, components) for source in sources)
    scorers = [read_scorer(values, name.split("/")[1]) for name in values if re.fullmatch("sc/[^/]+/quantity", name)]
    if values.get("ts/numberofthreads", 1) < 1 or values.get("ts/seed", 1) < 0:
        raise Refused("Overall Control", "Ts/Seed and Ts/NumberOfThreads must be positive")
    energy = values.get(f"so/{sources[0]}/beamenergy", 150.0)
    return {"histories": total, "sources": sources, "seed": values.get("ts/seed", 1), "energy": energy} | {
        "interval": values.get("ts/showhistorycountatinterval", 1),
        "scorers": scorers,
    }


def read_file(path, above):
    """Return parameters by name in lower case: type and value; those of a file win over those that it includes."""
    if not path.is_file():
        raise Refused("Parameter File Chains", f"cannot open {path}")
    if path in above:
        raise Refused("Parameter File Chains", f"{path} includes itself")
    own, included = {}, {}
    for line in path.read_bytes().decode("utf-8").split("\n"):
        content = line.partition("#")[0].strip()
        if content.lower().startswith("includefile"):
            for name in content.partition("=")[2].split():
                included = read_file(Path(path.parent, name), (*above, path)) | included
        elif content:
            name, kind, value = read_parameter(content)
            if name in own:
                raise Refused("Parameter File Basics", f"{name} is set twice in {path}")
            own[name] = kind, value
    for name, (kind, _) in own.items():
        if name in included and included[name][0] != kind:
            raise Refused("Parameter File Basics", f"{name} has the type {kind} and {included[name][0]}")
    return included | own


def read_parameter(content):
    """Return name, type and value of a line."""
    match = re.fullmatch(r"([a-z]{1,2}):([A-Za-z]+)/(\S+)\s*=\s*(.*)", content)
    if not match or match[1] not in TYPES:
        raise Refused("Parameter File Basics", f"a line must be type:Group/Name = value: {content!r}")
    kind, group, name, text = match.groups()
    if group.lower() not in CATEGORIES:
        raise Refused("Parameter File Basics", f"no group {group}/")
    return f"{group}/{name}".lower(), kind, read_value(kind, text.strip(), content)


def read_value(kind, text, content):
    """Return the value of a parameter of a type."""
    if kind.endswith("v"):
        count, *parts = text.split()
        size = int(count) if count.isdigit() else -1
        if len(parts) - (kind == "dv") != size:
            raise Refused("Parameter File Basics, Vectors", f"a vector begins with its length: {content!r}")
        return [part.strip('"') for part in parts]
    patterns = {"s": r'"[^"]*"', "b": r'"(?:True|False|t|f|1|0)"', "i": r"[+-]?\d+", "u": r"[+-]?[\d.]+(?:[eE]\S+)?"}
    if kind == "d":
        number, _, unit = text.partition(" ")
        if unit.strip() not in UNITS or not re.fullmatch(r"[+-]?[\d.]+(?:[eE]\S+)?", number):
            raise Refused("Parameter File Basics, Units", f"a number and a unit are needed: {content!r}")
        return float(number) * LENGTHS.get(unit.strip(), 1.0)
    if not re.fullmatch(patterns[kind], text):
        raise Refused("Parameter File Basics, Types", f"{text!r} is not of the type {kind}: {content!r}")
    return text.strip('"') if kind in "sb" else int(text) if kind == "i" else float(text)


def check_components(values, components):
    """Check parents and materials."""
    for component in components - {"world"}:
        if values.get(f"ge/{component}/parent", "World").lower() not in components:
            raise Refused("Geometry, Parent", f"{component} has no parent")
        if f"ge/{component}/type" not in values:
            raise Refused("Geometry, Type", f"{component} has no type")
        material = values.get(f"ge/{component}/material")
        known = not material or material.startswith("G4_") or material in MATERIALS
        if not known and f"ma/{material.lower()}/components" not in values:
            raise Refused("Materials", f"no material {material}")


def read_source(values, source, components):
    """Return the histories of a source."""
    if values.get(f"so/{source}/component", "").lower() not in components:
        raise Refused("Particle Sources, Component", f"the source {source} has no component")
    histories = values.get(f"so/{source}/numberofhistoriesinrun")
    if not isinstance(histories, int) or histories < 0:
        raise Refused("Particle Sources", f"the source {source} has no histories")
    return histories


def read_scorer(values, name):
    """Return a scorer: file, component, quantity, mesh, and what to report."""
    quantity, component = values[f"sc/{name}/quantity"], values.get(f"sc/{name}/component", "").lower()
    if quantity not in QUANTITIES:
        raise Refused("Scoring, Quantity", f"no quantity {quantity}")
    if f"ge/{component}/type" not in values:
        raise Refused("Scoring, Component", f"no component {component!r}")
    report = values.get(f"sc/{name}/report", ["Sum"])
    if not report or not set(report) <= REPORTS:
        raise Refused("Scoring, Report", f"cannot report {report}")
    axes = []
    for letter in "XYZ":
        half = values.get(f"ge/{component}/hl{letter.lower()}", 1.0)
        bins = values.get(f"ge/{component}/{letter.lower()}bins", 1)
        axes.append((letter, bins, 2 * half / bins, "cm"))
    return {"file": values.get(f"sc/{name}/outputfile", name), "name": name, "component": component} | {
        "quantity": quantity,
        "axes": axes,
        "report": report,
    }


def run(deck):
    """Print progress, and write the tables into the working directory."""
    kind, total = fault(), deck["histories"]
    say("Welcome to TOPAS, Tool for Particle Simulation (Version 4.2.p3)")
    for simulated in steps(total):
        shown = simulated // deck["interval"] * deck["interval"]
        say(f"Begin processing for Run: 0, History: {shown}")
        fail_within(kind)
    paths = [write_scorer(scorer, deck) for scorer in deck["scorers"]]
    for source in deck["sources"]:
        say(f"Particle source {source}: Total number of histories: {total}")
    say("\nTOPAS run sequence complete.")
    return finish(kind, paths)


def write_scorer(scorer, deck):
    """Write the table of one scorer; rows go with the last axis fastest."""
    axes, histories = scorer["axes"], deck["histories"]
    depth = curve(0.0, axes[2][1] * axes[2][2], axes[2][1], deck["energy"], deck["seed"], histories)
    means = depth * (axes[0][1] * axes[1][1])
    columns = {"Mean": means, "Sum": [histories * mean for mean in means]}
    other = [0.0] * len(means)
    path = Path(f"{scorer['file']}.csv")
    reported = {name: columns.get(name, other) for name in scorer["report"]}
    write_table(
        path, scorer["name"], scorer["component"], scorer["quantity"], QUANTITIES[scorer["quantity"]], axes, reported
    )
    return path
