"""`python -m tests.stress.gdml`: reads written GDML with Geant4 itself, and compares the materials at random points.

Needs the package geant4-pybind (`scripts/setup geant4`), without Geant4's data sets.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.support.geometries import HOLE, VACUUM
from tests.unit.simulators.test_writers import PROJECTS, materials_at, points_of
from yaptide.editor.reading import read_project
from yaptide.simulators import get_converter

#: Run apart, because Geant4 asks on standard input whether to download its data.
_LOCATE = """
import sys
import geant4_pybind as g4
import numpy as np
parser = g4.G4GDMLParser()
parser.Read(sys.argv[1], False)
world = parser.GetWorldVolume()
navigator = g4.G4Navigator()
navigator.SetWorldVolume(world)
is_single = world.GetLogicalVolume().GetNoDaughters() == 1
found = []
for x, y, z in 10 * np.load(sys.argv[2]):
    volume = navigator.LocateGlobalPointAndSetup(g4.G4ThreeVector(x, y, z), None, False, True)
    logical = None if volume is None else volume.GetLogicalVolume()
    name = "BlackHole" if logical is None else str(logical.GetMaterial().GetName())
    if logical is not None and is_single and str(logical.GetName()) == "WorldVolume":
        name = "BlackHole"  # what leaves a convex figure never comes back
    density = {"BlackHole": HOLE, "G4_Galactic": VACUUM}.get(name)
    found.append(logical.GetMaterial().GetDensity() / (g4.g / g4.cm3) if density is None else density)
np.save(sys.argv[2], np.array(found))
"""


def count_differences(name: str, folder: Path) -> int:
    """Return at how many of 10,000 points Geant4 finds another material than the project has."""
    project = read_project(PROJECTS[name])
    points = points_of(project)
    gdml, places = folder / f"{name}.gdml", folder / f"{name}.npy"
    gdml.write_text(get_converter("geant4").convert(project).files["geometry.gdml"])
    np.save(places, points)
    script = _LOCATE.replace("HOLE,", f"{HOLE},").replace("VACUUM}", f"{VACUUM}}}")
    command = [sys.executable, "-c", script, str(gdml), str(places)]
    done = subprocess.run(command, input="n\n" * 20, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"Geant4 cannot read the GDML of {name}: {(done.stderr or done.stdout)[-1000:]}")
    return int((~np.isclose(np.load(places), materials_at(project, points), rtol=1e-6)).sum())


def main() -> None:
    """Print the differences of each project; exit with 1 if there are any."""
    with tempfile.TemporaryDirectory() as folder:
        counts = {name: count_differences(name, Path(folder)) for name in PROJECTS}
    for name, count in counts.items():
        sys.stdout.write(f"{name}: {count} of 10000 points differ\n")
    sys.exit(1 if any(counts.values()) else 0)


if __name__ == "__main__":
    main()
