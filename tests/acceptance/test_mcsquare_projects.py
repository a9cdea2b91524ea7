"""Projects of the web editor on MCsquare itself: what is drawn is what the protons meet."""

import json
import subprocess

import numpy as np
import pytest

from tests.support import processes, projects
from tests.support.processes import DEADLINE, place
from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.states import EntityState
from yaptide.editor.reading import read_project
from yaptide.simulators.base import OUTPUT_LOG
from yaptide.simulators.mcsquare import MCsquare
from yaptide.simulators.mcsquare.sample import water_sample

#: Ranges of protons in mm of water as MCsquare has them: its stopping powers give 0.3 mm more at 150 MeV than PSTAR's.
R80 = {100.0: 77.3, 150.0: 158.1}


def run(files, folder, primaries=3200):
    """The output of input files, by name of estimator."""
    code, installation = MCsquare(), processes.installation()
    code.check(files)
    code.prepare(files, primaries, 1, folder)
    command = code.command(installation, folder)
    command.make_links(folder)
    with (folder / OUTPUT_LOG).open("wb") as log:
        done = subprocess.run(
            command.arguments,
            cwd=folder,
            env=command.whole_environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=processes.DEADLINE,
            check=False,
        )
    return {estimator.name: estimator.pages for estimator in code.read(folder, done.returncode).estimators}


@pytest.fixture
def scores(tmp_path):
    """Pages of a run of a project by estimator."""

    def simulate(document, primaries=3200):
        return run(MCsquare().convert(read_project(document)).files, tmp_path, primaries)

    return simulate


def r80(page):
    return 10 * bragg_peak(page.axes[0].values, page.values)[1]


def block(*figures, zones=(), size=10.0, **beam):
    """A cube of water around 0 and what is in it, and the dose in it on a grid of 2 mm."""
    bins = round(size / 0.2)
    return projects.project(
        projects.box("block", (size, size, size)),
        *figures,
        zones=[*zones, projects.zone("Water", projects.WATER, "block")],
        around=projects.world((size, size, size), projects.AIR),
        detectors=[projects.mesh("grid", (size, size, size), (bins, bins, bins))],
        outputs=[projects.output("grid", "grid")],
        **beam,
    )


def places(page):
    """The points of a grid, shape (n, 3), in cm, and the dose at each."""
    x, y, z = (axis.values for axis in page.axes)
    points = np.stack([each.ravel() for each in np.meshgrid(z, y, x, indexing="ij")][::-1], axis=1)
    return points, page.values


def test_a_phantom_of_water(scores, tmp_path):
    """Range, dose in absolute terms, and the LET of protons, which SHIELD-HIT12A has at 6.2 MeV/cm where they enter."""
    pages = scores(
        projects.water_phantom(energy=150, energySpread=1.5, sigma={"type": "Gaussian", "x": 0, "y": 0}), 8000
    )
    assert set(pages) == {"z_profile", "yz_profile", "entrance", "entrance: dLETProtons"}
    assert r80(pages["z_profile"][0]) == pytest.approx(R80[150.0], abs=0.5)
    assert pages["entrance"][0].values == pytest.approx([0.072], rel=0.04)
    assert pages["entrance: dLETProtons"][0].values == pytest.approx([6.1], rel=0.1)


def test_the_range_is_that_of_the_same_beam_given_as_files(scores, tmp_path_factory):
    """The nozzle of the files is at the block: MCsquare has air before it, which a project has not."""
    files = water_sample(energy=100, primaries=16000)
    columns = "0.3 1e8 1 3 1e-5 0.5 3 1e-5 0.5 0 3 1e-5 0.5 3 1e-5 0.5"
    library = files["BDL.txt"].partition("Beam parameters")[0].replace("\n400\n", "\n0.001\n")
    names = files["BDL.txt"].splitlines()[-4]
    files["BDL.txt"] = f"{library}Beam parameters\n1 energies\n\n{names}\n100 100 {columns}\n"
    files["plan.txt"] = files["plan.txt"].replace("60 100 60", "60 200 60")
    given = run(files, tmp_path_factory.mktemp("files"), 16000)["Dose"][0]
    drawn = projects.project(
        projects.box("block", (12, 12, 20), at=(0, 0, 10)),
        zones=[projects.zone("Water", projects.WATER, "block")],
        around=projects.world((14, 14, 22), at=(0, 0, 10)),
        detectors=[projects.mesh("along", (12, 12, 20), (1, 1, 200), at=(0, 0, 10))],
        outputs=[projects.output("along", "along")],
        energySpread=0.3,
    )
    expected = bragg_peak(given.axes[0].values, given.values)[1]
    assert r80(scores(drawn, 16000)["along"][0]) == pytest.approx(expected, abs=0.3)
    assert expected == pytest.approx(R80[100.0], abs=0.5)


@pytest.mark.parametrize(
    ("material", "stopping"),
    [(projects.BONE, 1.68), (projects.AIR, 0.001), (projects.PMMA, 1.16), (projects.VACUUM, 0.0)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_range_through_a_slab(scores, material, stopping):
    """1.5 cm of something in water; `stopping` is its stopping power relative to that of water."""
    document = projects.project(
        projects.box("slab", (8, 8, 1.5), at=(0, 0, 2.75)),
        projects.box("tank", (8, 8, 12), at=(0, 0, 6)),
        zones=[projects.zone("Slab", material, "slab"), projects.zone("Water", projects.WATER, "tank - slab")],
        around=projects.world((9, 9, 13), at=(0, 0, 6)),
        detectors=[projects.mesh("along", (8, 8, 12), (1, 1, 120), at=(0, 0, 6))],
        outputs=[projects.output("along", "along")],
    )
    expected = R80[100.0] + 15 * (1 - stopping)
    assert r80(scores(document, 4800)["along"][0]) == pytest.approx(expected, abs=0.8)


@pytest.mark.parametrize("direction", [(0, 0, -1), (1, 0, 0), (0, -1, 0), (1, 2, 2), (-3, 1, -2)])
def test_protons_fly_in_their_direction_from_where_they_start(scores, direction):
    along = np.array(direction) / np.linalg.norm(direction)
    start = -4 * along + (0.5, -0.3, 0.2)
    pages = scores(block(position=start.tolist(), direction=[*direction], energy=90))
    points, dose = places(pages["grid"][0])
    line = points - start
    depth = line @ along
    beside = line - np.outer(depth, along)
    assert (dose[:, None] * beside).sum(axis=0) / dose.sum() == pytest.approx((0, 0, 0), abs=0.03)
    assert np.average(depth, weights=dose) == pytest.approx(4.0, abs=0.2)  # range is 6.4 cm
    assert dose[(depth < -0.2) | (depth > 7)].sum() / dose.sum() < 0.002


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, 0), (1, 1, 1)])
def test_a_gaussian_has_its_sizes_along_its_own_axes(scores, direction):
    along = np.array(direction) / np.linalg.norm(direction)
    sizes = {"type": "Gaussian", "x": 1.0, "y": 0.3}
    document = block(position=(-3 * along).tolist(), direction=[*direction], energy=150, sigma=sizes)
    document["physic"]["enableNuclearReactions"] = False  # whose protons fly far
    points, dose = places(scores(document)["grid"][0])
    axes = np.array(read_project(document).beam.axes)
    near = np.abs(points @ along) < 2
    across = points[near] @ axes.T
    spread = np.sqrt(np.average(across**2, axis=0, weights=dose[near]))
    assert spread == pytest.approx((1.0, 0.33), rel=0.15)


@pytest.mark.parametrize(
    ("shape", "spread"), [("Flat square", (2 / 3**0.5, 1 / 3**0.5)), ("Flat circular", (0.5, 0.5))]
)
def test_flat_beams_are_flat(scores, shape, spread):
    """The spread is that of a uniform distribution: half a side by the root of 3, half a radius."""
    document = block(position=[0, 0, -4], energy=150, sigma={"type": shape, "x": 2, "y": 1})
    points, dose = places(scores(document)["grid"][0])
    entrance = points[:, 2] < -2
    items = [np.sqrt(np.average(points[entrance, axis] ** 2, weights=dose[entrance])) for axis in range(2)]
    assert items == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 0, 0)])
def test_a_divergent_beam_gets_wider_along_one_of_its_axes(scores, direction):
    """50 mrad through 7 cm of vacuum, into a slab."""
    slab = projects.box(
        "slab", (10, 10, 2) if direction[2] else (2, 10, 10), at=tuple((3 * np.array(direction)).tolist())
    )
    document = block(
        zones=[],
        position=(-4 * np.array(direction)).tolist(),
        direction=[*direction],
        energy=150,
        sigma={"type": "Gaussian", "x": 0, "y": 0},
        divergence={"x": 50, "y": 0, "distanceToFocal": 0},
    )
    document["figureManager"]["figures"].append(slab)
    document["zoneManager"]["zones"] = [projects.zone("Slab", projects.WATER, "slab")]
    document["zoneManager"]["worldZone"]["materialUuid"] = projects.VACUUM[0]
    document["physic"]["enableNuclearReactions"] = False
    points, dose = places(scores(document)["grid"][0])
    axes = np.array(read_project(document).beam.axes)
    spread = np.sqrt(np.average((points @ axes.T) ** 2, axis=0, weights=dose))
    assert spread[0] == pytest.approx(0.35, rel=0.1)
    assert spread[1] < 0.12  # the voxels beside the beam have their centres at 0.1


def test_a_hollow_cylinder_of_lead_lets_protons_through_its_hole_only(scores):
    """A ring across the beam, turned with the beam along x."""
    ring = projects.tube("ring", 4, 2, at=(-3, 0, 0), rotation=(0, 90, 0), inner=1)
    document = block(
        ring,
        zones=[projects.zone("Ring", projects.LEAD, "ring")],
        position=[-4.9, 0, 0],
        direction=[1, 0, 0],
        energy=80,
        sigma={"type": "Flat circular", "x": 0, "y": 3},
    )
    points, dose = places(scores(document)["grid"][0])
    behind = points[:, 0] > -1.5
    radius = np.hypot(points[:, 1], points[:, 2])
    assert dose[behind & (radius > 1.6)].sum() < 0.02 * dose[behind].sum()
    assert dose[behind & (radius < 1)].mean() > 0


def test_nothing_comes_out_of_a_black_hole(scores):
    wall = projects.box("wall", (10, 10, 0.4), at=(0, 0, 0))
    document = block(wall, zones=[projects.zone("Wall", projects.BLACK_HOLE, "wall")], position=[0, 0, -4], energy=200)
    points, dose = places(scores(document)["grid"][0])
    assert dose[points[:, 2] > -0.2].sum() == 0
    assert dose[points[:, 2] < -0.2].sum() > 0


def test_detectors_agree_with_each_other(scores):
    """Energy in a zone, in everything, in a mesh, and in rings; and the dose as its mean over the mass."""
    document = block(position=[0, 0, -4], energy=80)
    energy, dose = projects.quantity("Energy"), projects.quantity("Dose")
    document["detectorManager"]["detectors"] += [
        projects.zone_detector("zone", "Water"),
        projects.everywhere("all"),
        projects.rings("rings", 5, 10, (5, 20)),
        projects.mesh("coarse", (10, 10, 10), (3, 7, 1)),
    ]
    document["scoringManager"]["outputs"] = [
        projects.output("zone", "zone", energy, dose),
        projects.output("all", "all", energy),
        projects.output("rings", "rings", energy),
        projects.output("coarse", "coarse", energy, dose),
    ]
    pages = scores(document)
    total = pages["all"][0].values[0]
    assert total == pytest.approx(80, rel=0.05)
    assert pages["zone"][0].values[0] == pytest.approx(total, rel=1e-3)
    assert pages["rings"][0].values.sum() == pytest.approx(total, rel=0.01)
    assert pages["coarse"][0].values.sum() == pytest.approx(total, rel=1e-3)
    assert pages["coarse"][1].values.mean() == pytest.approx(total / 1000, rel=1e-3)
    assert pages["zone"][1].values[0] == pytest.approx(total / 1000, rel=1e-3)


def test_a_project_goes_from_submission_to_results_under_its_outputs(tmp_path):
    """As the front end submits it, for a code that is not here; then from the command line."""
    file = tmp_path / "water.json"
    file.write_text(json.dumps(projects.water_phantom(numberOfParticles=4000)))
    with place(tmp_path / "place") as there:
        server = there.up().register()
        with server.client() as client:
            job = client.submit(file, ntasks=2, sim_type="shieldhit")
            assert job.wait(DEADLINE, every=0.1) is EntityState.COMPLETED
            assert job.status()["job_state"] == "COMPLETED"
            names = [result.name for result in job.results().estimators]
            assert names == ["z_profile", "yz_profile", "entrance", "entrance: dLETProtons"]
            page = job.results().page("z_profile", 0)
            assert (page.unit, page.axes[0].unit, page.values.shape) == ("MeV/g", "cm", (400,))
            (row,) = client.simulations()
            assert row["title"] == "water (MCsquare)"
            assert (
                client.convert(file, "mcsquare")["left_out"]
                == client._http.get("/inputs", params={"job_id": job.job_id}).json()["input"]["left_out"]
            )
        done = there.run("run", file, "--json")
        assert (done.code, done.json["title"], done.json["sim_type"]) == (0, "water", "mcsquare"), done.err
        assert "Left out: Output 'z_profile', quantity 'FluenceProtons'" in done.err
        made = there.run("convert", file, "--for", "mcsquare", "-o", tmp_path / "made", "--json")
        assert (tmp_path / "made" / "scoring.json").exists(), made.err
