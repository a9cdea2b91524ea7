"""Maps files of results to outputs of a project of the web editor."""

from collections.abc import Sequence


def output_by_name(file_name: str, outputs: Sequence[str]) -> int | None:
    """Return the index of the output named like the file, which may end in an underscore; None if there is none."""
    for candidate in (file_name, file_name.removesuffix("_")):
        if candidate in outputs:
            return outputs.index(candidate)
    return None
