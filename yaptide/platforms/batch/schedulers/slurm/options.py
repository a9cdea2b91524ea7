"""Options of sbatch that users may give to their jobs.

Only options for resources, time limits, queues and mail to the user are accepted. All others could write files, run
other programs, notify others, or interfere with how yaptide follows jobs (--output, --chdir, --wrap, --export, --array,
--dependency, --mail-user, ...). Invalid values are rejected too. An accepted value contains no white space.
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
_NODES = r"[0-9]{1,6}(-[0-9]{1,6})?"
_GPUS = r"([A-Za-z0-9_]{1,40}:)?[0-9]{1,4}"
_EVENT = r"(NONE|BEGIN|END|FAIL|REQUEUE|ALL|INVALID_DEPEND|TIME_LIMIT(_90|_80|_50)?)"
_EVENTS = rf"{_EVENT}(,{_EVENT}){{0,9}}"
_NOTHING = r""

#: Pattern of the value of each option.
_VALUES = {
    "--account": _NAMES,
    "--constraint": _FEATURES,
    "--cpus-per-task": _NUMBER,
    "--exclude": _HOSTS,
    "--exclusive": _NOTHING,
    "--gpus": _GPUS,
    "--gres": _NAMES,
    "--licenses": _NAMES,
    "--mail-type": _EVENTS,
    "--mem": _SIZE,
    "--mem-per-cpu": _SIZE,
    "--nice": _NUMBER,
    "--no-requeue": _NOTHING,
    "--nodelist": _HOSTS,
    "--nodes": _NODES,
    "--ntasks": _NUMBER,
    "--partition": _NAMES,
    "--qos": _NAMES,
    "--requeue": _NOTHING,
    "--reservation": _NAMES,
    "--threads-per-core": _NUMBER,
    "--time": _TIME,
    "--time-min": _TIME,
    "--tmp": _SIZE,
}
_SHORT = {
    "-A": "--account",
    "-C": "--constraint",
    "-G": "--gpus",
    "-L": "--licenses",
    "-N": "--nodes",
    "-c": "--cpus-per-task",
    "-n": "--ntasks",
    "-p": "--partition",
    "-q": "--qos",
    "-t": "--time",
    "-w": "--nodelist",
    "-x": "--exclude",
}
#: Options that exclude each other.
_CONFLICTS = (("--mem", "--mem-per-cpu"), ("--requeue", "--no-requeue"))
_PATTERNS = {name: re.compile(pattern, re.ASCII) for name, pattern in _VALUES.items()}
_DIRECTIVE = re.compile(r"#SBATCH\s+(-[A-Za-z]|--[a-z-]+)(?:[=\s]\s*(\S*))?(?:\s+#.*|\s*)")


def check_options(options: Mapping[str, object]) -> dict[str, str]:
    """The options by their long names, values as strings; raises InvalidInput for an option or value not accepted."""
    checked = {}
    for option, value in options.items():
        name = _SHORT.get(option, option)
        if name not in _PATTERNS:
            raise InvalidInput(f"Jobs cannot have the option {option[:40]!r}; use {', '.join(_VALUES)}")
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if text is None or not _PATTERNS[name].fullmatch(text):
            raise InvalidInput(f"Invalid value of the option {name}: {str(value)[:40]!r}")
        if name in checked:
            raise InvalidInput(f"The option {name} is given twice")
        checked[name] = text
    for one, other in _CONFLICTS:
        if one in checked and other in checked:
            raise InvalidInput(f"The options {one} and {other} exclude each other; give one of them")
    return checked


def merge_options(defaults: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Checked options `own`, with those of the checked `defaults` that they neither replace nor exclude."""
    excluded = {other for pair in _CONFLICTS for one, other in (pair, pair[::-1]) if one in own}
    return {name: value for name, value in defaults.items() if name not in excluded} | dict(own)


def read_header(header: str) -> dict[str, str]:
    """Return the options in the `#SBATCH` lines of a script header, checked as by `check_options`.

    No part of a header reaches a shell: raises InvalidInput for a line that is neither such a line nor a comment.
    """
    options: dict[str, object] = {}
    for line in map(str.strip, header.split("\n")):
        if line.startswith("#SBATCH"):
            directive = _DIRECTIVE.fullmatch(line)
            if directive is None:
                raise InvalidInput(f"Expected one option, such as #SBATCH --time=01:00:00, not {line[:60]!r}")
            if directive[1] in options:
                raise InvalidInput(f"The option {directive[1]} is given twice")
            options[directive[1]] = directive[2] or ""
        elif line and not line.startswith("#"):
            raise InvalidInput(f"A header may contain only #SBATCH lines and comments, not {line[:60]!r}")
    return check_options(options)


def format_arguments(options: Mapping[str, str]) -> list[str]:
    """Checked options as arguments of sbatch."""
    return [f"{name}={value}" if value else name for name, value in sorted(options.items())]
