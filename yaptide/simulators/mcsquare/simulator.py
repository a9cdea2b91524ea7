"""MCsquare as a simulator of yaptide."""

from pathlib import Path

from yaptide.domain.estimators import TaskOutput
from yaptide.domain.slices import Slice
from yaptide.editor.project import Project
from yaptide.simulators.base import (
    Checked,
    Command,
    Converted,
    Image,
    InputFiles,
    Installation,
    Limits,
    ProgressRule,
    Say,
)
from yaptide.simulators.mcsquare import config, conversion, inputs, install, output, sample, slices
from yaptide.simulators.programs import RangedProgram, read_pointer


class MCsquare(RangedProgram):
    """MCsquare 1.1, fast Monte Carlo of proton beams in a CT; docs/mcsquare.md describes its input.

    `yaptide.simulators.base.Simulator` describes the methods.
    """

    name = "mcsquare"
    title = "MCsquare"
    takes_projects = True
    stands_in = True
    progress_rule: ProgressRule | None = output.PROGRESS
    expected_range = 157.7  # mm: CSDA range of 150 MeV protons in water (PSTAR)
    limits = Limits(particles=("proton",), quantities=("Dose", "Energy", "LET"))
    remedy = "an administrator can install it with `yaptide simulators install mcsquare` where tasks run"

    def recognises(self, files: InputFiles) -> bool:
        """Return whether there is a config.txt with a key of MCsquare."""
        return config.looks_like(files.get(config.FILE, ""))

    def check(self, files: InputFiles) -> Checked:
        """Check all files; raise InvalidInput with the file, the line and what to fix."""
        parsed = inputs.parse_inputs(files)
        settings = parsed.config
        return Checked(settings.primaries, config.QUANTUM, settings.seed, parsed.ct.grid.voxels)

    def install(self, folder: Path, say: Say) -> Installation:
        """Download, test and install MCsquare; a working installation is kept. Raises NotConfigured."""
        return install.install_mcsquare(folder, say, self.installation, self.test_program)

    def installation(self, folder: Path) -> Installation:
        """Return the program that was added, or the one installed under `folder`; raise NotConfigured."""
        return read_pointer(folder, self.name) or install.find_installation(folder)

    def version(self, program: Path) -> str:
        """Return the version that the program prints; raise NotConfigured if it cannot run or has no materials."""
        return install.version_of(program)

    def sample(self) -> InputFiles:
        """Return 150 MeV protons in water."""
        return sample.water_sample()

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write the input of a task, for one thread; raise InvalidInput if `files` do not pass the check."""
        inputs.write_inputs(inputs.parse_inputs(files), primaries, seed, folder)

    def command(self, installation: Installation, folder: Path) -> Command:
        """Return the program and its configuration file."""
        return install.run_command(installation)

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Return dose, and if requested energy and LET, each as depth curve, slice and grid; raise SimulationFailed."""
        return output.read_output(folder, exit_code)

    def convert(self, project: Project) -> Converted:
        """Return the input files for a project: voxels, a plan with one field, detectors; raise InvalidInput."""
        return conversion.convert_project(project)

    def slice_geometry(self, files: InputFiles) -> Slice:
        """Return the CT in the plane of the first field; raise InvalidInput."""
        return slices.slice_inputs(inputs.parse_inputs(files))

    def read_image(self, files: InputFiles) -> Image:
        """Return the CT, or the zones of a project; raise InvalidInput."""
        return inputs.read_image(files)
