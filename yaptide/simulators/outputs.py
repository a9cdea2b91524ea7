"""Maps files of results to outputs of a project of the web editor, and outputs to the names of their files."""

import re
from collections.abc import Sequence

from yaptide.simulators.projects import make_names

_LONGEST, _LONGEST_QUANTITY = 60, 40
#: Name of the file of an output's second or later quantity. Names of outputs in `name_files` have no hyphens.
_LATER = re.compile(r"(.+)-\d+-\w+")


def output_by_name(file_name: str, outputs: Sequence[str]) -> int | None:
    """Return the index of the output named like the file, which may end in an underscore; None if there is none."""
    for names in (list(outputs), name_files(outputs)):
        for candidate in (file_name, file_name.removesuffix("_")):
            if candidate in names:
                return names.index(candidate)
    return None


def name_files(outputs: Sequence[str]) -> list[str]:
    """Return the names, without ending, of the files that written input requests for outputs with these names.

    Names that files can have stay as they are.
    """
    is_changed = [make_names([name], _LONGEST, "") != [name] for name in outputs]
    order = sorted(range(len(outputs)), key=lambda index: is_changed[index])
    names = make_names((outputs[index] for index in order), _LONGEST, "output")
    return [name for _, name in sorted(zip(order, names, strict=True))]


def name_quantity_files(output_file: str, quantities: Sequence[str]) -> list[str]:
    """Return a file for each quantity of an output whose file is `output_file`, which is that of the first one."""
    plain = [make_names([quantity], _LONGEST_QUANTITY, "Quantity")[0] for quantity in quantities]
    return [output_file if number == 1 else f"{output_file}-{number}-{name}" for number, name in enumerate(plain, 1)]


def output_of_quantity(file_name: str, outputs: Sequence[str]) -> int | None:
    """Return the index of the output that a file of one of its quantities belongs to; None if there is none."""
    index = output_by_name(file_name, outputs)
    later = _LATER.fullmatch(file_name)
    return output_by_name(later[1], outputs) if index is None and later else index


def is_later_quantity(file_name: str, outputs: Sequence[str]) -> bool:
    """Return whether a file has the second or a later quantity of an output."""
    return output_by_name(file_name, outputs) is None and output_of_quantity(file_name, outputs) is not None
