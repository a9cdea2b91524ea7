"""Options that users may pass to SLURM jobs.

Options for resources, time limits and nodes are harmless. Everything else could write files or run code elsewhere, send
reports to others, or break the tracking of jobs (--output, --chdir, --wrap, --export, --array, --dependency, ...) and
is rejected, as is an invalid value. Accepted options contain no white space.
"""

import re
from collections.abc import Mapping

from yaptide.domain.errors import InvalidInput

_NUMBER = r"[0-9]{1,9}"
_SIZE = r"[0-9]{1,9}[KMGT]?"
_TIME = r"[0-9]{1,6}(:[0-9]{1,2}){0,2}|[0-9]{1,4}-[0-9]{1,2}(:[0-9]{1,2}){0,2}"
_NAMES = r"[A-Za-z0-9_][A-Za-z0-9_.,:@+-]{0,199}"
_HOSTS = r"[A-Za-z0-9_][A-Za-z0-9_.,\[\]-]{0,199}"
_FEATURES = r"[A-Za-z0-9_\[(][A-Za-z0-9_.,:=*&|!()\[\]-]{0,199}"
_NOTHING = r""

#: Pattern of the value of each option.
_VALUES = {
    "--account": _NAMES,
    "--constraint": _FEATURES,
    "--cpus-per-task": _NUMBER,
    "--exclude": _HOSTS,
    "--exclusive": _NOTHING,
    "--gres": _NAMES,
    "--licenses": _NAMES,
    "--mem": _SIZE,
    "--mem-per-cpu": _SIZE,
    "--nice": _NUMBER,
    "--nodelist": _HOSTS,
    "--partition": _NAMES,
    "--qos": _NAMES,
    "--reservation": _NAMES,
    "--threads-per-core": _NUMBER,
    "--time": _TIME,
    "--time-min": _TIME,
    "--tmp": _SIZE,
}
_SHORT = {
    "-A": "--account",
    "-C": "--constraint",
    "-L": "--licenses",
    "-c": "--cpus-per-task",
    "-p": "--partition",
    "-q": "--qos",
    "-t": "--time",
    "-w": "--nodelist",
    "-x": "--exclude",
}
_PATTERNS = {name: re.compile(pattern, re.ASCII) for name, pattern in _VALUES.items()}
_DIRECTIVE = re.compile(r"#SBATCH\s+(-[A-Za-z]|--[a-z-]+)(?:[=\s]\s*(\S*))?(?:\s+#.*|\s*)")


def check_options(options: Mapping[str, object]) -> dict[str, str]:
    """Return the options with their long names and string values; raise InvalidInput for any that is not allowed."""
    checked = {}
    for option, value in options.items():
        name = _SHORT.get(option, option)
        if name not in _PATTERNS:
            raise InvalidInput(f"{option[:40]!r} is not an allowed option; use {', '.join(_VALUES)}")
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if text is None or not _PATTERNS[name].fullmatch(text):
            raise InvalidInput(f"Invalid value {str(value)[:40]!r} for the option {name}")
        if name in checked:
            raise InvalidInput(f"The option {name} is given twice")
        checked[name] = text
    return checked


def read_header(header: str) -> dict[str, str]:
    """Return the options in the `#SBATCH` lines of a script header, checked as by `check_options`.

    No part of the header reaches a shell. Raises InvalidInput for any line that is neither `#SBATCH` nor a comment.
    """
    options: dict[str, object] = {}
    for line in map(str.strip, header.split("\n")):
        if line.startswith("#SBATCH"):
            match = _DIRECTIVE.fullmatch(line)
            if match is None:
                raise InvalidInput(f"{line[:60]!r}: use one option per line, e.g. #SBATCH --time=01:00:00")
            if match[1] in options:
                raise InvalidInput(f"The option {match[1]} is given twice")
            options[match[1]] = match[2] or ""
        elif line and not line.startswith("#"):
            raise InvalidInput(f"{line[:60]!r}: a header may contain only #SBATCH lines and comments")
    return check_options(options)


def sbatch_arguments(options: Mapping[str, str]) -> list[str]:
    """Return checked options as arguments of sbatch."""
    return [f"{name}={value}" if value else name for name, value in sorted(options.items())]
