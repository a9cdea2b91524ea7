"""Which output of a project of the web editor the results belong to that a simulator has written into a file."""

from collections.abc import Sequence


def output_by_name(file_name: str, outputs: Sequence[str]) -> int | None:
    """The place of the output that is called like the file; some simulators add an underscore. None: it is of none."""
    for candidate in (file_name, file_name.removesuffix("_")):
        if candidate in outputs:
            return outputs.index(candidate)
    return None
