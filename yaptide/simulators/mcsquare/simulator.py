"""MCsquare behind the calls that yaptide makes to any simulator."""

from pathlib import Path

from yaptide.domain.estimators import TaskOutput
from yaptide.simulators.base import Checked, Command, InputFiles, Installation, ProgressRule, Say
from yaptide.simulators.mcsquare import config, inputs, install, output


class MCsquare:
    """MCsquare 1.1, fast Monte Carlo of proton beams in a CT; docs/mcsquare.md says how to give its input.

    See `yaptide.simulators.base.Simulator` for what each call means.
    """

    name = "mcsquare"
    title = "MCsquare"
    takes_projects = False
    progress_rule: ProgressRule | None = output.PROGRESS

    def recognises(self, files: InputFiles) -> bool:
        """Whether there is a config.txt with a key of MCsquare."""
        return config.looks_like(files.get(config.FILE, ""))

    def check(self, files: InputFiles) -> Checked:
        """Check all files; raises InvalidInput naming the file, the line and what to mend."""
        settings = inputs.parse(files).config
        return Checked(settings.primaries, config.QUANTUM, settings.seed)

    def install(self, folder: Path, say: Say) -> Installation:
        """Fetch, prove and put in place; raises NotConfigured."""
        return install.install(folder, say)

    def installation(self, folder: Path) -> Installation:
        """What is installed under `folder`; raises NotConfigured."""
        return install.installation(folder)

    def prepare(self, files: InputFiles, primaries: int, seed: int, folder: Path) -> None:
        """Write a task's input, for one thread; raises InvalidInput if `files` would not pass the check."""
        inputs.write(inputs.parse(files), primaries, seed, folder)

    def command(self, installation: Installation, folder: Path) -> Command:
        """The program and its configuration file."""
        return install.command(installation)

    def progress(self, folder: Path, primaries: int) -> int:
        """Primaries simulated so far, in steps of a tenth."""
        return output.PROGRESS.primaries(folder, primaries)

    def read(self, folder: Path, exit_code: int) -> TaskOutput:
        """Dose, and where asked for Energy and LET, each as depth curve, slice and grid; raises SimulationFailed."""
        return output.read(folder, exit_code)
