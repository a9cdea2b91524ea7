"""`yaptide clusters`. `db_manage.py` has the same commands, except `test`, which connects to the cluster."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from yaptide.admin.arguments import AsJson, Yes, ask_confirmation, parse_pairs
from yaptide.admin.display import print_facts, print_json, print_message, print_table
from yaptide.admin.store import connect_database
from yaptide.domain.errors import InvalidInput
from yaptide.services import clusters
from yaptide.services.clusters import Cluster, known_as

app = typer.Typer(help="List, add, change, remove and test HPC clusters.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]
Host = Annotated[str | None, typer.Option(help="Host name of the login node.", show_default=False)]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the SSH server [22].", show_default=False)]
Scratch = Annotated[
    str | None,
    typer.Option(
        help="Folder for job folders on the cluster, e.g. /scratch/{user}/yaptide; {user} is the account.",
        show_default=False,
    ),
]
HostKeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the host keys or host CA: known_hosts lines, or a .pub file.", show_default=False),
]
Scan = Annotated[bool, typer.Option("--scan", help="Fetch the host key and ask you to confirm its fingerprint.")]
Simulators = Annotated[
    list[str] | None,
    typer.Option("--simulator", metavar="NAME=PATH", help="Path of a simulator there; repeatable.", show_default=False),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch-option",
        metavar="OPTION=VALUE",
        help="Option of the batch system for every job, e.g. --sbatch-option=--partition=plgrid; repeatable.",
        show_default=False,
    ),
]
PrologueFile = Annotated[
    Path | None,
    typer.Option(help="File with shell lines to start jobs with, e.g. module load x.", show_default=False),
]
MaxTasks = Annotated[int | None, typer.Option(min=1, help="Maximum tasks of one simulation.", show_default=False)]
MaxRunning = Annotated[
    int | None, typer.Option(min=1, help="Maximum running tasks of one simulation.", show_default=False)
]
KeepDays = Annotated[
    int | None,
    typer.Option("--keep-failed-days", min=0, help="Days to keep folders of failed jobs [7].", show_default=False),
]


@app.command("list")
def list_clusters(as_json: AsJson = False) -> None:
    """List the clusters.

    Example: yaptide clusters list
    """
    rows = clusters.list_clusters(connect_database())
    if as_json:
        print_json({"clusters": [dict(row._mapping) for row in rows]})
        return
    table = [(row.cluster_name, row.host or "-", row.port, row.scratch_folder or "-", row.simulations) for row in rows]
    print_table(("cluster", "host", "port", "scratch folder", "simulations"), table)


@app.command("show")
def show_cluster(name: Name, as_json: AsJson = False) -> None:
    """Show the configuration of a cluster.

    Example: yaptide clusters show ares
    """
    facts = asdict(clusters.find_cluster(connect_database(), name))
    if as_json:
        print_json(facts)
        return
    shown = {key: _lines(value) for key, value in facts.items()}
    print_facts({key.replace("_", " "): value for key, value in shown.items()}, f"Cluster {name}")


@app.command("add")
def add_cluster(
    name: Name,
    host: Host = None,
    port: Port = None,
    scratch_folder: Scratch = None,
    host_key_file: HostKeyFile = None,
    scan: Scan = False,
    simulator: Simulators = None,
    sbatch_option: Options = None,
    prologue_file: PrologueFile = None,
    max_tasks: MaxTasks = None,
    max_running: MaxRunning = None,
    keep_failed_days: KeepDays = None,
) -> None:
    """Add a cluster. Then check it with `yaptide clusters test`.

    Example: yaptide clusters add ares --host login.example.org --scan --scratch-folder '/scratch/{user}'
    """
    values = _cluster_values(locals())
    database = connect_database()
    cluster = clusters.check_cluster(Cluster(name, **values))
    if scan:
        cluster = replace(cluster, host_key=_confirm_host_key(cluster))
    clusters.add_cluster(database, cluster)
    print_message(f"Added cluster {name}")


@app.command("update")
def update_cluster(
    name: Name,
    host: Host = None,
    port: Port = None,
    scratch_folder: Scratch = None,
    host_key_file: HostKeyFile = None,
    scan: Scan = False,
    simulator: Simulators = None,
    sbatch_option: Options = None,
    prologue_file: PrologueFile = None,
    max_tasks: MaxTasks = None,
    max_running: MaxRunning = None,
    keep_failed_days: KeepDays = None,
) -> None:
    """Change the given values of a cluster. Given simulators or options replace all existing ones.

    Example: yaptide clusters update ares --sbatch-option=--partition=plgrid --sbatch-option=--account=plgyaptide
    """
    values = _cluster_values(locals())
    database = connect_database()
    if scan:
        cluster = clusters.check_cluster(replace(clusters.find_cluster(database, name), **values))
        values["host_key"] = _confirm_host_key(cluster)
    if not values:
        raise InvalidInput("No values to change; see: yaptide clusters update --help")
    clusters.change_cluster(database, name, values)
    print_message(f"Changed cluster {name}")


@app.command("remove")
def remove_cluster(name: Name, yes: Yes = False) -> None:
    """Remove a cluster. A cluster that stored simulations refer to cannot be removed.

    Example: yaptide clusters remove ares
    """
    database = connect_database()
    clusters.find_cluster(database, name)
    ask_confirmation(f"Remove the cluster {name}?", yes)
    clusters.remove_cluster(database, name)
    print_message(f"Removed cluster {name}")


@app.command("test")
def try_cluster(
    name: Name,
    login: Annotated[str, typer.Option(help="Account on the cluster.", show_default=False)],
    private_key_file: Annotated[Path, typer.Option(help="Private SSH key of the account.", show_default=False)],
    certificate_file: Annotated[
        Path | None, typer.Option(help="SSH certificate of the key, if it has one.", show_default=False)
    ] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the job to start and finish.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Test a cluster: connect, check what simulations need, and run a one-second job.

    Example: yaptide clusters test ares --login plgalice --private-key-file id_ed25519
    """
    from yaptide.platforms.batch import checking, ssh  # noqa: PLC0415 - other commands need no SSH

    cluster = clusters.find_cluster(connect_database(), name)
    if cluster.host is None:
        raise InvalidInput(f"Cluster {name} has no host; set it with: yaptide clusters update {name} --host HOST")
    certificate = "" if certificate_file is None else certificate_file.read_text()
    connections = ssh.Connections()
    try:
        server = ssh.Server(cluster.host, cluster.port, cluster.host_key or "")
        remote = connections.open_session(server, ssh.Login(login, private_key_file.read_text(), certificate))
        steps = list(checking.run_checks(remote, cluster, wait))
    finally:
        connections.close()
    passed = all(step.passed for step in steps)
    if as_json:
        print_json({"cluster_name": name, "passed": passed, "steps": [asdict(step) for step in steps]})
    else:
        rows = [(step.name, "ok" if step.passed else "FAILED", step.found, step.advice) for step in steps]
        print_table(("step", "", "found", "what to do"), rows)
    if not passed:
        raise typer.Exit(1)


def _cluster_values(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a cluster that were given on the command line."""
    known = {entry.name for entry in fields(Cluster)}
    values = {key: value for key, value in arguments.items() if key in known and value is not None}
    if arguments["scan"] and arguments["host_key_file"] is not None:
        raise InvalidInput("Use --scan or --host-key-file, not both")
    for name in ("host_key", "prologue"):
        if arguments[f"{name}_file"] is not None:
            values[name] = arguments[f"{name}_file"].read_text()
    if arguments["simulator"]:
        values["simulators"] = parse_pairs(arguments["simulator"])
    if arguments["sbatch_option"]:
        values["sbatch_options"] = parse_pairs(arguments["sbatch_option"])
    return values


def _confirm_host_key(cluster: Cluster) -> str:
    """Fetch the host key and return it as a known_hosts line, after a human has confirmed its fingerprint."""
    from yaptide.platforms.batch import ssh  # noqa: PLC0415 - other commands need no SSH

    if cluster.host is None:
        raise InvalidInput("Cluster has no host: give --host")
    key, fingerprint = ssh.scan_host_key(cluster.host, cluster.port)
    print_message(f"{cluster.host} presents the host key {key.split()[0]} {fingerprint}")
    ask_confirmation("Does this fingerprint match the one published by its administrators?", yes=False)
    return f"{known_as(cluster.host, cluster.port)} {key}"


def _lines(value: object) -> object:
    if isinstance(value, dict):
        return "\n".join(f"{name}={text}" for name, text in value.items()) or "-"
    return "-" if value is None else value
