"""What SHIELD-HIT12A, FLUKA and TOPAS have in common: a site installs them, pymchelper reads their output.

They have no exit code that means success: each run must contain the words that the code writes at its end.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from yaptide.domain.errors import SimulationFailed
from yaptide.domain.estimators import Estimator, TaskOutput
from yaptide.simulators.base import OUTPUT_LOG, InputFiles, find_logs
from yaptide.simulators.output_files import read_output_files
from yaptide.simulators.programs import RangedProgram
from yaptide.simulators.text import BASE64, decode_base64, quote_word
from yaptide_client.extras import require_extra

#: Names of input files do not begin with a dot.
_TASK = ".yaptide-task.json"
_TAIL = 256 * 1024
_MOST_REASON = 300
_LONGEST_LINE = 4096


class LicensedProgram(RangedProgram):
    """A code that a site has a licence for; see `yaptide.simulators.base.Simulator`."""

    takes_projects = True

    @property
    def remedy(self) -> str:
        """What an administrator can do."""
        return (
            f"{super().remedy}; or, if external workers have {self.title}, allow them to run it: "
            f"YAPTIDE_FOREIGN_WORKERS={self.name}"
        )

    def version(self, program: Path) -> str:
        """Return an empty text: the code writes its version into its results."""
        return ""

    def require_reader(self) -> None:
        """Raise NotConfigured if the library that reads the output is not installed."""
        require_extra("pymchelper", f"Reading the output of {self.title}")

    def require_end(self, folder: Path, exit_code: int, patterns: Iterable[str], end: str) -> None:
        """Raise SimulationFailed unless a log file that matches one of `patterns` has a line that matches `end`."""
        last = ""
        for path in find_logs(folder, patterns):
            text = _tail(path)
            if re.search(end, text, re.MULTILINE):
                return
            last = _last_line(text) or last
        last = _last_line(_tail(folder / OUTPUT_LOG)) or last
        said = f"; its last words: {last[:_MOST_REASON]}" if last else ""
        raise SimulationFailed(f"{self.title} did not run to its end (exit code {exit_code}){said}")

    def require_outputs(self, expected: Iterable[str], written: Sequence["Written"]) -> None:
        """Raise SimulationFailed unless each expected output was written once."""
        counts = Counter(output.name for output in written)
        if missing := [quote_word(name) for name in expected if not counts[name]]:
            raise SimulationFailed(f"{self.title} has not written {', '.join(missing[:5])}")
        if not written:
            raise SimulationFailed(f"{self.title} has not written any output")
        if twice := [name for name, count in counts.items() if count > 1]:
            raise SimulationFailed(f"{self.title} has written {quote_word(twice[0])} more than once")

    def read_files(
        self, written: Sequence["Written"], folder: Path, primaries: int, version_key: str = ""
    ) -> TaskOutput:
        """Return the results in output files.

        `primaries` are those of the task; `version_key` is the metadata of the code's version. Files of which
        nothing can be kept are listed in `left_out` of the first estimator. Raises what `read_output_files` does,
        SimulationFailed also if a file counts other primaries.
        """
        estimators, left_out = list[Estimator](), list[str]()
        contents = read_output_files(self.name, [output.path for output in written], folder)
        for output, content in zip(written, contents, strict=True):
            if content.primaries not in (0, primaries):
                raise SimulationFailed(
                    f"{self.title} has simulated {content.primaries} of {primaries} primaries ({output.path.name})"
                )
            metadata = dict(content.metadata)
            if not content.pages:
                left_out.append(f"{output.path.name}: {metadata['left_out']}")
                continue
            if version := metadata.get(version_key):
                metadata["code_version"] = version
            estimators.append(Estimator(output.name, output.file_name, content.pages, metadata))
        if not estimators:
            raise SimulationFailed(f"its output cannot be kept: {left_out[0]}")
        if left_out:
            reasons = "; ".join(filter(None, (estimators[0].metadata.get("left_out"), *left_out)))
            estimators[0] = replace(estimators[0], metadata={**estimators[0].metadata, "left_out": reasons})
        return TaskOutput(primaries, tuple(estimators))


@dataclass(frozen=True, slots=True)
class Task:
    """What a task was prepared for: its primaries, names of outputs that it must write, and its input files."""

    primaries: int
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


class Written(NamedTuple):
    """An output file: the name of its estimator, what the code calls it, and where it is."""

    name: str
    file_name: str
    path: Path


def write_task(
    files: InputFiles, primaries: int, outputs: Iterable[str], folder: Path, written: Sequence[str] = ()
) -> None:
    """Write the input files of a task, and what is expected of it for `read_task`.

    Files that the run writes itself, with names that match the patterns `written`, are left out: those of an earlier
    run would be taken for its success and its results.

    Texts get LF line ends; binary files, which are base64 in a submission, are written as bytes.
    """
    names = []
    for name, text in files.items():
        is_binary = name.endswith(BASE64)
        if any(fnmatchcase(name.removesuffix(BASE64), pattern) for pattern in (OUTPUT_LOG, *written)):
            continue
        names.append(name.removesuffix(BASE64))
        content = decode_base64(name, text) if is_binary else text.replace("\r\n", "\n").encode()
        (folder / names[-1]).write_bytes(content)
    document = {"primaries": primaries, "outputs": list(outputs), "inputs": names}
    (folder / _TASK).write_text(json.dumps(document))


def read_task(folder: Path) -> Task:
    """Return what the task in `folder` was prepared for; raise SimulationFailed if the run has changed that file."""
    try:
        document = json.loads((folder / _TASK).read_bytes())
        return Task(document["primaries"], tuple(document["outputs"]), tuple(document["inputs"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise SimulationFailed(f"its run has changed or removed {_TASK}") from None


def _last_line(text: str) -> str:
    """Return the end of the last line that is not blank; empty if there is none."""
    lines = text.rstrip()[-_LONGEST_LINE:].splitlines()
    return lines[-1].strip() if lines else ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
