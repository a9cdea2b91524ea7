"""`yaptide convert`: convert projects of the web editor to input files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

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
    simulator: Annotated[str, typer.Option("--for", metavar="CODE", help="Code to convert for, e.g. shieldhit.")],
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the input files.")],
    as_json: AsJson = False,
) -> None:
    """Convert a project of the web editor to input files of a simulator, and list what they leave out.

    Example: yaptide convert project.json --for mcsquare -o beam
    """
    is_stdin = str(project) == "-"
    document = parse_project(sys.stdin.buffer.read(), "standard input") if is_stdin else read_project(project)
    conversion = convert_project(document, simulator)
    _write(conversion.files, folder)
    if as_json:
        summary = {"simulator": simulator, "folder": str(folder), "files": sorted(conversion.files)}
        print_json({**summary, "resolution": conversion.resolution, "left_out": list(conversion.left_out)})
        return
    print_message(f"Wrote {format_count(len(conversion.files), 'file')} into {folder}: {conversion.resolution}")
    for sentence in conversion.left_out:
        print_message(f"Left out: {sentence}")


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write new files into a folder, creating it if needed; raise Conflict if one of them exists."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (folder / name).exists():
            raise Conflict(f"{folder / name} exists already: choose another folder")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
