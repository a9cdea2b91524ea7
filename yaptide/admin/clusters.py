"""`yaptide clusters`, and the same in `db_manage.py`."""

from pathlib import Path
from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson
from yaptide.admin.connection import connect
from yaptide.admin.display import print_json, print_table, say
from yaptide.services import administration

app = typer.Typer(help="List and add HPC clusters.", no_args_is_help=True)


@app.command("list")
def list_clusters(as_json: AsJson = False) -> None:
    """List the clusters.

    Example: yaptide clusters list
    """
    rows = administration.list_clusters(connect())
    if as_json:
        print_json({"clusters": [dict(row._mapping) for row in rows]})
        return
    table = [(row.cluster_name, row.host or "-", row.port, row.scratch_folder or "-", row.simulations) for row in rows]
    print_table(("cluster", "host", "port", "scratch folder", "simulations"), table)


@app.command("add")
def add_cluster(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What users choose it by.")],
    host: Annotated[str | None, typer.Option(help="Host name of the login node.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of its SSH server.")] = 22,
    scratch_folder: Annotated[
        str | None, typer.Option(help="Where job folders are made there.", show_default=False)
    ] = None,
    host_key_file: Annotated[
        Path | None, typer.Option(help="Its host keys or host CA, as lines of known_hosts.", show_default=False)
    ] = None,
) -> None:
    """Add a cluster.

    Example: yaptide clusters add ares --host login.example.org --scratch-folder /scratch/yaptide
    """
    host_key = None if host_key_file is None else host_key_file.read_text()
    administration.add_cluster(connect(), name, host=host, port=port, host_key=host_key, scratch_folder=scratch_folder)
    say(f"Cluster {name} was added")
