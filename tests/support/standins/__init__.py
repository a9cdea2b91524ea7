"""Programs that stand in for SHIELD-HIT12A, FLUKA and TOPAS, which cannot be had without a licence.

Each insists on what the real one insists on, prints progress as it does, and writes its real file formats. Its dose is
a depth-dose curve of roughly the right range with random noise: it shows how runs are started, followed and read, and
nothing about physics.

`make_program` writes an executable. STANDIN_FAULT chooses how it fails: ``kill`` ends it by a signal, ``hang`` never
ends, ``code`` ends well with exit code 3, ``short`` cuts an output file in half, ``disk`` has no space left, ``quiet``
ends with exit code 0 in the middle. With STANDIN_ONCE, only the first run that can create that file fails.
STANDIN_PAUSE is the time (s) between two steps of progress.
"""

import shlex
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
#: File name of the program of each code.
PROGRAMS = {"shieldhit": "shieldhit", "fluka": "rfluka", "topas": "topas"}


def make_program(folder: Path, code: str, python: str = sys.executable, **settings: object) -> Path:
    """Write the program of a code into `folder`; settings such as `fault` become variables STANDIN_FAULT ...

    Other accounts can run it, with a `python` of theirs: it has a copy of these modules beside it, and needs only the
    standard library.
    """
    modules = folder / "tests/support/standins"
    modules.mkdir(parents=True, exist_ok=True)
    for module in FOLDER.glob("*.py"):
        shutil.copyfile(module, modules / module.name)
    variables = "".join(f"STANDIN_{name.upper()}={shlex.quote(str(value))} " for name, value in settings.items())
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); from tests.support.standins.{code} import main; "
    script = shlex.join([python, "-I", "-c", f"{start}sys.exit(main(sys.argv[1:]))"])
    program = folder / PROGRAMS[code]
    program.write_text(f'#!/bin/sh\nexec env {variables}{script} "$@"\n')
    program.chmod(0o755)
    return program
