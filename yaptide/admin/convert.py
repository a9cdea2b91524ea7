"""`yaptide convert`: projects of the web editor as input files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.display import format_count, print_json, print_message
from yaptide.domain.errors import Conflict
from yaptide.services.conversion import convert_project
from yaptide_client.files import parse_project, read_project

app = typer.Typer()


@app.command("convert")
def convert_to_folder(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's JSON file (- for standard input).")],
    simulator: Annotated[str, typer.Option("--for", metavar="CODE", help="Whose input files, such as mcsquare.")],
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write them into.")],
    as_json: AsJson = False,
) -> None:
    """Write the input files of a simulator for a project of the web editor, and say what is left out of them.

    Example: yaptide convert project.json --for mcsquare -o beam
    """
    made = convert_project(_document(project), simulator)
    _write(made.files, folder)
    if as_json:
        found = {"simulator": simulator, "folder": str(folder), "files": sorted(made.files)}
        print_json({**found, "resolution": made.resolution, "left_out": list(made.left_out)})
        return
    print_message(f"Wrote {format_count(len(made.files), 'file')} into {folder}: {made.resolution}")
    for sentence in made.left_out:
        print_message(f"Left out: {sentence}")


def _document(file: Path) -> Mapping[str, Any]:
    """The JSON document in a file; raises InvalidInput if it is none."""
    return parse_project(sys.stdin.buffer.read(), "standard input") if str(file) == "-" else read_project(file)


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write new files into a folder, which is made if it is not there; raises Conflict if one of them is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (folder / name).exists():
            raise Conflict(f"{folder / name} exists already: choose another folder")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
