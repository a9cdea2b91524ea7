"""`yaptide simulations` and `yaptide tasks`: simulations and tasks of all users; also in `db_manage.py`."""

from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson, JobId, Limit, Provider, States, Yes, ask_confirmation, parse_states
from yaptide.admin.display import (
    format_bytes,
    format_count,
    format_name,
    format_state,
    format_time,
    print_json,
    print_message,
    print_table,
)
from yaptide.admin.store import connect_database
from yaptide.persistence.queries.administration import Contents
from yaptide.services import administration
from yaptide.services.administration import TaskSeen

OfUser = Annotated[str, typer.Option(help="Only of this user.", show_default=False)]

simulations = typer.Typer(help="List and remove simulations of all users.", no_args_is_help=True)
tasks = typer.Typer(help="List and remove tasks of simulations.", no_args_is_help=True)


@simulations.command("list")
def list_simulations(
    user: OfUser = "",
    provider: Provider = "",
    states: States = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List the simulations of all users, newest first.

    Example: yaptide simulations list --user alice --states RUNNING,PENDING
    """
    selected_states = parse_states(states)
    database = connect_database()
    owners = administration.find_owners(database, user, provider)
    total, rows = administration.list_simulations(database, owners, selected_states, limit)
    if as_json:
        print_json({"simulations_count": total, "simulations": [dict(row._mapping) for row in rows]})
        return
    table = [
        (
            r.job_id,
            format_name(r.username),
            format_state(r.job_state),
            format_time(r.start_time),
            format_bytes(r.stored_bytes),
        )
        for r in rows
    ]
    print_table(("simulation", "user", "state", "submitted", "stored"), table)
    print_message(f"{len(rows)} of {total}")


@simulations.command("remove")
def remove_simulation(
    job_id: JobId,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if its tasks may still run.")] = False,
) -> None:
    """Remove a simulation with all its data, after showing how much it is.

    Example: yaptide simulations remove 20260301-100000-...DIRECT
    """
    database = connect_database()
    contents = administration.count_contents(database, job_id)
    ask_confirmation(f"Remove {job_id} ({contents.job_state}) with {_describe_contents(contents)}?", yes)
    administration.remove_simulation(database, job_id, contents, force=force)
    print_message(f"Removed simulation {job_id} with {_describe_contents(contents)}")


def _describe_contents(contents: Contents) -> str:
    results = f"{format_count(contents.estimators, 'estimator')}, {format_count(contents.pages, 'page')}"
    rest = f"{format_count(contents.logfiles, 'log')} ({format_bytes(contents.stored_bytes)})"
    return f"{format_count(contents.tasks, 'task')}, {results}, {rest}"


@tasks.command("list")
def list_tasks(
    job_id: Annotated[str | None, typer.Argument(metavar="JOB_ID", help="Only of this simulation.")] = None,
    user: OfUser = "",
    provider: Provider = "",
    states: States = "",
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """List the tasks of a simulation, or of all simulations.

    Example: yaptide tasks list --states RUNNING
    """
    selected_states = parse_states(states)
    database = connect_database()
    owners = administration.find_owners(database, user, provider)
    total, rows = administration.list_tasks(database, job_id, owners, selected_states, limit)
    if as_json:
        print_json({"tasks_count": total, "tasks": [dict(row._mapping) for row in rows]})
        return
    table = [
        (
            row.job_id,
            row.task_id,
            format_state(row.task_state),
            f"{row.simulated_primaries:,} of {row.requested_primaries:,}",
            format_time(row.last_update_time),
        )
        for row in rows
    ]
    print_table(("simulation", "task", "state", "primaries", "last report"), table)
    print_message(f"{len(rows)} of {total}")


@tasks.command("remove")
def remove_task(
    job_id: JobId,
    task_id: Annotated[int, typer.Argument(metavar="TASK", min=0, help="Number of the task in the simulation.")],
    yes: Yes = False,
) -> None:
    """Remove a task of a simulation, after showing it. Stored results are kept.

    A task cannot be removed while it may still run, while its results are being merged, or if it is the only one.

    Example: yaptide tasks remove 20260301-100000-...DIRECT 3
    """
    database = connect_database()
    task = administration.find_task(database, job_id, task_id)
    ask_confirmation(f"Remove {_described(task)} of {job_id}?", yes)
    administration.remove_task(database, job_id, task_id, task)
    print_message(f"Removed {_described(task)} of {job_id}")


def _described(seen: TaskSeen) -> str:
    task = seen.task
    primaries = f"{task.simulated_primaries:,} of {task.requested_primaries:,} primaries"
    return f"task {task.task_id} ({task.task_state}, {primaries}) with {format_count(seen.history, 'row')} of history"
