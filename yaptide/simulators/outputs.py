"""Maps files of results to outputs of a project of the web editor, and outputs to the names of their files."""

from collections.abc import Sequence

from yaptide.simulators.projects import make_names

_LONGEST = 60


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
