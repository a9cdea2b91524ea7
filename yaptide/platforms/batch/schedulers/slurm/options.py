"""Options that somebody may give to jobs on a cluster.

Those that say how much, how long and where are harmless. Everything else could write or run elsewhere, report to
others or get in the way of how jobs are followed (--output, --chdir, --wrap, --export, --array, --dependency, ...), and
is refused, as is a value that the option cannot have. What is accepted has no white space in it.
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

#: What a value may look like, for each option.
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
    """The options by their long names, values as texts; raises InvalidInput for any that is not harmless."""
    checked = {}
    for given, value in options.items():
        name = _SHORT.get(given, given)
        if name not in _PATTERNS:
            raise InvalidInput(f"{given[:40]!r} is no option that jobs may have; there are {', '.join(_VALUES)}")
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if text is None or not _PATTERNS[name].fullmatch(text):
            raise InvalidInput(f"{str(value)[:40]!r} is no value of the option {name}")
        if name in checked:
            raise InvalidInput(f"The option {name} is given twice")
        checked[name] = text
    return checked


def read_header(header: str) -> dict[str, str]:
    """The options in the `#SBATCH` lines of a script's header, checked as by `check_options`.

    Nothing of it ever reaches a shell: raises InvalidInput for a line that is neither such a line nor a comment.
    """
    options: dict[str, object] = {}
    for line in map(str.strip, header.split("\n")):
        if line.startswith("#SBATCH"):
            found = _DIRECTIVE.fullmatch(line)
            if found is None:
                raise InvalidInput(f"{line[:60]!r} should be one option, such as: #SBATCH --time=01:00:00")
            if found[1] in options:
                raise InvalidInput(f"The option {found[1]} is given twice")
            options[found[1]] = found[2] or ""
        elif line and not line.startswith("#"):
            raise InvalidInput(f"{line[:60]!r}: a header holds #SBATCH lines and comments, and no commands")
    return check_options(options)


def sbatch_arguments(options: Mapping[str, str]) -> list[str]:
    """Checked options as arguments of sbatch."""
    return [f"{name}={value}" if value else name for name, value in sorted(options.items())]
