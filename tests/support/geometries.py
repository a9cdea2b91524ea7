"""Reads the geometry out of input files, as each code does, and finds the material at points.

A material is its density in g/cm3; VACUUM and HOLE (a black hole) stand for themselves. Only what the writers use is
understood, and everything else is an error.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

import numpy as np

VACUUM, HOLE = 0.0, -1.0

#: Densities of materials that the codes define themselves.
_OF_FLUKA = {"BLCKHOLE": HOLE, "VACUUM": VACUUM, "WATER": 1.0, "AIR": 0.00120479, "LEAD": 11.35, "PMMA": 1.19}
_OF_FLUKA |= {"BONECORT": 1.85}
_OF_GEANT4 = {"G4_Galactic": VACUUM, "BlackHole": HOLE, "G4_WATER": 1.0, "G4_AIR": 0.00120479, "G4_Pb": 11.35}
_OF_GEANT4 |= {"G4_PLEXIGLASS": 1.19, "G4_BONE_CORTICAL_ICRP": 1.92}


def in_body(kind, values, points):
    """Return whether points are in a body of combinatorial geometry."""
    values = np.array(values)
    if kind == "RPP":
        low, high = values[::2], values[1::2]
        assert (low < high).all()
        return ((points >= low) & (points <= high)).all(axis=1)
    if kind == "SPH":
        return np.linalg.norm(points - values[:3], axis=1) <= values[3]
    if kind == "RCC":
        axis = values[3:6]
        along = (points - values[:3]) @ axis / (axis @ axis)
        across = np.linalg.norm(points - values[:3] - along[:, None] * axis, axis=1)
        return (along >= 0) & (along <= 1) & (across <= values[6])
    assert kind == "BOX", kind
    edges = values[3:].reshape(3, 3)
    assert np.abs(edges @ edges.T - np.diag(np.diag(edges @ edges.T))).max() < 1e-4
    along = (points - values[:3]) @ edges.T / (edges**2).sum(axis=1)
    return ((along >= 0) & (along <= 1)).all(axis=1)


def _in_zones(zones, bodies, points):
    """Return the number of the zone of each point; every point must be in one and only one."""
    inside = {number: in_body(*body, points) for number, body in bodies.items()}
    numbers, counts = np.full(len(points), -1), np.zeros(len(points), dtype=int)
    for index, terms in enumerate(zones):
        part = np.zeros(len(points), dtype=bool)
        for term in terms:
            assert term
            part |= np.all([inside[name] if is_in else ~inside[name] for is_in, name in term], axis=0)
        numbers[part] = index
        counts += part
    return numbers, counts


def _cut(line, width, first=0):
    text = line[first:]
    return [text[at : at + width] for at in range(0, len(text), width)]


def read_shieldhit(files, points):
    """Return materials by ``geo.dat`` and ``mat.dat``, read by their columns, and in how many zones a point is."""
    lines = [line for line in files["geo.dat"].splitlines() if not line.startswith("*")]
    assert [int(part) for part in (lines[0][:5], lines[0][5:10])] == [0, 0]
    first, second = (at for at, line in enumerate(lines) if line == "  END")
    bodies, zones = {}, []
    for line in lines[1:first]:
        kind, values = line[2:5], [float(part) for part in _cut(line, 10, 10)]
        if kind.strip():
            number = int(line[5:10])
            assert number == len(bodies) + 1
            bodies[number] = (kind, values)
        else:
            bodies[number][1].extend(values)
    for line in lines[first + 1 : second]:
        if line[2:5].strip():
            assert int(line[2:5]) == len(zones) + 1
            zones.append([])
        for part in _cut(line, 7, 10):
            mark, number = part[:2], int(part[2:7])
            if mark == "OR" or not zones[-1]:
                zones[-1].append([])
            zones[-1][-1].append((number > 0, abs(number)))
    rows = [int(part) for line in lines[second + 1 :] for part in _cut(line, 5)]
    numbers, media = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert numbers == list(range(1, len(zones) + 1))
    densities = {0: HOLE, 1000: VACUUM} | _media(files["mat.dat"])
    where, counts = _in_zones(zones, bodies, points)
    return np.array([*(densities[medium] for medium in media), HOLE])[where], counts


def _media(text):
    densities = {}
    for block in re.findall(r"^MEDIUM (\d+)\nICRU \d+\nRHO (\S+).*\n(?:IVALUE \S+\n)?END$", text, re.MULTILINE):
        densities[int(block[0])] = float(block[1])
    assert text.count("MEDIUM") == len(densities)
    return densities


def read_fluka(deck, points):
    """Return materials by a deck of FLUKA, and how many regions a point is in."""
    lines = [line for line in deck.splitlines() if not line.startswith("*")]
    begin, end = (next(at for at, line in enumerate(lines) if line.startswith(word)) for word in ("GEOBEGIN", "GEOEND"))
    assert lines[begin][70:] == "COMBNAME"
    geometry = lines[begin + 2 : end]
    first, second = (at for at, line in enumerate(geometry) if line == "END")
    assert second == len(geometry) - 1
    bodies, regions, names = {}, [], []
    for words in _joined(geometry[:first]):
        bodies[words[1]] = (words[0], [float(word) for word in words[2:]])
    for words in _joined(geometry[first + 1 : second]):
        names.append(words[0])
        assert words[1] == "5"
        texts = " ".join(words[2:]).split("|")
        regions.append([[(word[0] == "+", word[1:]) for word in text.split()] for text in texts if text.strip()])
    densities, materials = dict(_OF_FLUKA), {}
    for line in lines[end + 1 :]:
        if line.startswith("MATERIAL"):
            densities[line[70:].strip()] = float(line[30:40])
        elif line.startswith("ASSIGNMA"):
            materials[line[20:30].strip()] = densities[line[10:20].strip()]
    assert list(materials) == names
    where, counts = _in_zones(regions, bodies, points)
    return np.array([*(materials[name] for name in names), HOLE])[where], counts


def _joined(lines):
    joined = []
    for line in lines:
        if line.startswith(" "):
            joined[-1] += line.split()
        else:
            joined.append(line.split())
    return joined


def _turn(angles):
    """Return Rz Ry Rx for angles in degrees."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def _triple(element):
    return np.zeros(3) if element is None else np.array([float(element.get(axis)) for axis in "xyz"])


class _Gdml:
    def __init__(self, text):
        root = ET.fromstring(text)  # noqa: S314 - written by the tests
        self.solids = {solid.get("name"): solid for solid in root.find("solids")}
        self.volumes = {volume.get("name"): volume for volume in root.find("structure")}
        self.world = root.find("setup/world").get("ref")
        self.densities = dict(_OF_GEANT4)
        for material in root.findall("materials/material"):
            if material.get("name") != "BlackHole":
                self.densities[material.get("name")] = float(material.find("D").get("value"))

    def inside(self, name, points):
        solid = self.solids[name]
        size = {key: float(solid.get(key)) for key in ("x", "y", "z", "rmax") if solid.get(key)}
        if solid.tag == "box":
            return (np.abs(points) <= np.array([size[axis] for axis in "xyz"]) / 2).all(axis=1)
        if solid.tag == "tube":
            return (np.hypot(points[:, 0], points[:, 1]) <= size["rmax"]) & (np.abs(points[:, 2]) <= size["z"] / 2)
        if solid.tag == "sphere":
            return np.linalg.norm(points, axis=1) <= size["rmax"]
        # The angles of a part of a solid turn it, those of a volume turn what is around it.
        first, second = (
            self.inside(
                solid.find(part).get("ref"),
                (points - _triple(solid.find(f"{prefix}position"))) @ _turn(_triple(solid.find(f"{prefix}rotation"))),
            )
            for part, prefix in (("first", "first"), ("second", ""))
        )
        return {"union": first | second, "intersection": first & second, "subtraction": first & ~second}[solid.tag]

    def fill(self, name, points, found, counts, which):
        volume = self.volumes[name]
        found[which] = self.densities[volume.find("materialref").get("ref")]
        taken = np.zeros(len(points), dtype=int)
        for child in volume.findall("physvol"):
            local = (points - _triple(child.find("position"))) @ _turn(_triple(child.find("rotation"))).T
            inner = child.find("volumeref").get("ref")
            inside = self.inside(self.volumes[inner].find("solidref").get("ref"), local)
            taken += inside
            self.fill(inner, local[inside], found, counts, which[inside])
        counts[which] = np.maximum(counts[which], taken)


def read_gdml(text, points):
    """Return materials by GDML, and in how many volumes side by side a point is."""
    gdml = _Gdml(text)
    found, counts = np.full(len(points), HOLE), np.zeros(len(points), dtype=int)
    inside = gdml.inside(gdml.volumes[gdml.world].find("solidref").get("ref"), 10 * points)
    which = np.flatnonzero(inside)
    if len(gdml.volumes[gdml.world].findall("physvol")) == 1:  # what leaves a convex figure never comes back
        gdml.volumes[gdml.world].find("materialref").set("ref", "BlackHole")
    gdml.fill(gdml.world, 10 * points[which], found, counts, which)
    return found, np.maximum(counts, 1)


def read_parameters(text):
    """Return the parameters of a TOPAS job: numbers in cm, degrees, g/cm3, or texts."""
    values: dict[str, float | str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+):(\w+/\w+/\w+) = (.*)", line.partition("#")[0].rstrip())
        if match:
            kind, name, value = match.groups()
            assert name not in values
            values[name] = (
                value.strip('"') if kind in ("s", "sv", "uv") else float(value.split()[0]) if kind != "b" else value
            )
    return values


def read_topas(text, points):
    """Return materials by a TOPAS job, and in how many components side by side a point is."""
    values = read_parameters(text)
    densities = _OF_GEANT4 | {
        name.split("/")[1]: value
        for name, value in values.items()
        if name.startswith("Ma/") and name.endswith("Density")
    }
    densities["BlackHole"] = HOLE
    children: dict[str, list[str]] = {}
    for name, value in values.items():
        own = name.split("/")[1]
        if name.endswith("/Parent") and values[f"Ge/{own}/Type"] != "Group" and f"Ge/{own}/IsParallel" not in values:
            children.setdefault(str(value), []).append(own)
    found, counts = np.full(len(points), HOLE), np.zeros(len(points), dtype=int)
    if len(children["World"]) == 1:  # what leaves a convex figure never comes back
        values["Ge/World/Material"] = "BlackHole"
    which = np.flatnonzero((np.abs(points) <= [values[f"Ge/World/HL{axis}"] for axis in "XYZ"]).all(axis=1))
    _fill_topas("World", points[which], which, values, densities, children, found, counts)
    return found, np.maximum(counts, 1)


def _fill_topas(name, points, which, values: Mapping, densities, children, found, counts):
    found[which] = densities[values[f"Ge/{name}/Material"]]
    taken = np.zeros(len(points), dtype=int)
    for child in children.get(name, []):
        size = {key: values.get(f"Ge/{child}/{key}") for key in ("HLX", "HLY", "HLZ", "HL", "RMax")}
        place, angles = ([values[f"Ge/{child}/{what}{axis}"] for axis in "XYZ"] for what in ("Trans", "Rot"))
        local = (points - place) @ _turn(angles).T
        if values[f"Ge/{child}/Type"] == "TsBox":
            inside = (np.abs(local) <= [size[f"HL{axis}"] for axis in "XYZ"]).all(axis=1)
        elif values[f"Ge/{child}/Type"] == "TsCylinder":
            inside = (np.hypot(local[:, 0], local[:, 1]) <= size["RMax"]) & (np.abs(local[:, 2]) <= size["HL"])
        else:
            inside = np.linalg.norm(local, axis=1) <= size["RMax"]
        taken += inside
        _fill_topas(child, local[inside], which[inside], values, densities, children, found, counts)
    counts[which] = np.maximum(counts[which], taken)
