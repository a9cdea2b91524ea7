"""MCsquare behind the calls that yaptide makes to any simulator."""

from pathlib import Path

from yaptide.domain.depth_dose import bragg_peak
from yaptide.domain.errors import NotConfigured
from yaptide.domain.estimators import TaskOutput
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
from yaptide.simulators.mcsquare import config, conversion, inputs, install, output, sample
from yaptide.simulators.programs import PointedProgram, read_pointer

_RANGE, _TOLERANCE = 157.7, 2.0  # mm: CSDA range of 150 MeV protons in water (PSTAR), and what few primaries allow for


class MCsquare(PointedProgram):
    """MCsquare 1.1, fast Monte Carlo of proton beams in a CT; docs/mcsquare.md says how to give its input.

    See `yaptide.simulators.base.Simulator` for what each call means.
    """

    name = "mcsquare"
    title = "MCsquare"
    takes_projects = True
    progress_rule: ProgressRule | None = output.PROGRESS
    limits = Limits(particles=("proton",), quantities=("Dose", "Energy", "LET"))
    remedy = "an administrator can install it with `yaptide simulators install mcsquare` where tasks run"

    def recognises(self, files: InputFiles) -> bool:
        """Whether there is a config.txt with a key of MCsquare."""
        return config.looks_like(files.get(config.FILE, ""))

    def check(self, files: InputFiles) -> Checked:
        """Check all files; raises InvalidInput naming the file, the line and what to mend."""
        settings = inputs.parse_inputs(files).config
        return Checked(settings.primaries, config.QUANTUM, settings.seed)

    def install(self, folder: Path, say: Say) -> Installation:
        """Fetch, prove and put in place; what is there and works is kept. Raises NotConfigured."""
        return install.install_mcsquare(folder, say, self.installation, self.prove)

    def installation(self, folder: Path) -> Installation:
        """The program that was pointed to, or what is installed under `folder`; raises NotConfigured."""
        return read_pointer(folder, self.name) or install.find_installation(folder)

    def version(self, program: Path) -> str:
        """What it calls itself, if it runs on this processor and has its materials beside it; raises NotConfigured."""
        return install.version_of(program)

    def sample(self) -> InputFiles:
        """150 MeV protons in water."""
        return sample.water_sample()

    def judge(self, output: TaskOutput) -> None:
        """They stop where they have to; raises NotConfigured."""
        curve = output.estimators[0].pages[0]
        _, r80 = bragg_peak(curve.axes[0].values, curve.values)
        if abs(r80 - _RANGE) > _TOLERANCE:
            raise NotConfigured(f"protons of 150 MeV stop at {r80:.1f} mm of water instead of {_RANGE} mm")

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write a task's input, for one thread; raises InvalidInput if `files` would not pass the check."""
        inputs.write_inputs(inputs.parse_inputs(files), primaries, seed, folder)

    def command(self, installation: Installation, folder: Path) -> Command:
        """The program and its configuration file."""
        return install.run_command(installation)

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Dose, and where asked for Energy and LET, each as depth curve, slice and grid; raises SimulationFailed."""
        return output.read_output(folder, exit_code)

    def convert(self, project: Project) -> Converted:
        """The input files for a project: voxels, a plan of one field, and the detectors; raises InvalidInput."""
        return conversion.convert_project(project)

    def read_image(self, files: InputFiles) -> Image:
        """The CT, or the zones of a project; raises InvalidInput."""
        return inputs.read_image(files)
