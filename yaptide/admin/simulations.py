"""`yaptide check`, `run`, `status`, `list`, `results`, `logs`, `history`, `cancel` and `delete`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from yaptide.admin.arguments import AsJson, Yes, ask_confirmation, parse_pairs
from yaptide.admin.display import (
    ProgressBars,
    format_bytes,
    format_count,
    format_duration,
    format_state,
    format_time,
    print_facts,
    print_json,
    print_message,
    print_table,
    print_text,
    read_time,
)
from yaptide.admin.naming import complete_job
from yaptide.admin.targets import Request, Selection, Server, Show, Target, open_target
from yaptide.domain.depth_dose import Range
from yaptide.domain.errors import Conflict, InvalidInput, NotFound
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import EntityState
from yaptide.services.results import parse_page_numbers
from yaptide.simulators import COMMON
from yaptide_client import answers
from yaptide_client.extras import require_extra
from yaptide_client.results import NO_CURVE, Results

app = typer.Typer()

#: Maximum bytes of JSON text; lists of particles can have gigabytes.
_MAX_CURVES = 16 << 20
_PICTURES = (".png", ".pdf", ".svg")

JobId = Annotated[
    str,
    typer.Argument(metavar="JOB_ID", help="Job id of the simulation, or its beginning.", autocompletion=complete_job),
]


def _picture(path: Path | None) -> Path | None:
    """Check the name of a picture before the command runs anything; raise BadParameter if it cannot be written."""
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise typer.BadParameter(f"the file name must end in one of {' '.join(_PICTURES)}")
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"no such folder: {path.parent}")
    if path is not None:
        require_extra("matplotlib", "Drawing")
    return path


Picture = Annotated[Path | None, typer.Option(help="Plot the dose to this file.", callback=_picture)]
UserName = Annotated[str, typer.Option("--user", help="Owner; default: you. Not on a server.", show_default=False)]
Cluster = Annotated[
    str, typer.Option("--cluster", metavar="NAME", help="Run on this cluster of the server.", show_default=False)
]
SchedulerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="OPTION=VALUE",
        help="Option of the cluster's scheduler, e.g. time=01:00:00; repeatable.",
        show_default=False,
    ),
]


InputPath = Annotated[Path, typer.Argument(help="Folder of input files, or JSON file of a web editor project.")]
SimType = Annotated[str, typer.Option(help="Simulator; common: detect it from the files.")]


@app.command("check")
def check_input(
    path: InputPath,
    tasks: Annotated[
        int | None, typer.Option("--tasks", "-n", help="Number of tasks; default: suggest one.", show_default=False)
    ] = None,
    sim_type: SimType = COMMON,
    server: Server = "",
    as_json: AsJson = False,
) -> None:
    """Check an input as `yaptide run` does, and show what it would become; nothing is simulated.

    Exits with 1 if the input has a problem.

    Example: yaptide check proton-150MeV-water
    """
    checkup = open_target(server).check(path, tasks, sim_type)
    if as_json:
        print_json(checkup)
    else:
        _print_checkup(checkup)
    if not checkup["is_valid"]:
        raise typer.Exit(1)


def _print_checkup(checkup: dict[str, Any]) -> None:
    for problem in checkup["problems"]:
        print_message(f"This input cannot be run: {problem['message']}")
        if problem["line"] is not None:
            print_message(f"{problem['file']}, line {problem['line']}: {problem['text']}")
    if checkup["is_valid"]:
        tasks = f"{checkup['ntasks']:,}" + (f" ({checkup['reason']})" if checkup["reason"] else "")
        facts = {"simulator": checkup["sim_type"], "primaries": f"{checkup['primaries']:,}", "tasks": tasks}
        print_facts(facts, "Ready to run")
        for sentence in checkup["left_out"]:
            print_message(f"Left out: {sentence}")
        print_message(checkup["waiting"] or "Nothing was stored: submit it with yaptide run")


@app.command("run")
def run_simulation(
    path: InputPath,
    tasks: Annotated[int, typer.Option("--tasks", "-n", help="Number of tasks.")] = 1,
    sim_type: SimType = COMMON,
    title: Annotated[str, typer.Option(help="Title; default: the name of the path.", show_default=False)] = "",
    user: UserName = "",
    png: Picture = None,
    server: Server = "",
    cluster: Cluster = "",
    scheduler_options: SchedulerOptions = None,
    as_json: AsJson = False,
) -> None:
    """Run a simulation, follow its tasks until it ends, and show a summary.

    Example: yaptide run proton-150MeV-water --tasks 4 --png dose.png

    Example: yaptide run proton-150MeV-water --server https://yaptide.example.org

    Example: yaptide run proton-150MeV-water --cluster ares --sbatch time=01:00:00 --sbatch mem=2G
    """
    if scheduler_options and not cluster:
        raise InvalidInput("--sbatch needs --cluster")
    target = open_target(server)
    request = Request(path, tasks, sim_type, title, user, cluster, parse_pairs(scheduler_options or ()))
    job_id, state = run_to_end(target, request)
    if png is not None and state == EntityState.COMPLETED:
        draw_results(target, job_id, png)
    if as_json:
        print_json(summarize_simulation(target, job_id))
    else:
        print_summary(target, job_id)
    if state != EntityState.COMPLETED:
        raise typer.Exit(1)


def run_to_end(target: Target, request: Request) -> tuple[str, str]:
    """Submit a simulation and show its progress until it ends; return its job id and state."""
    return target.run(request, _showing_progress)


@contextmanager
def _showing_progress(job_id: str) -> Iterator[Show]:
    print_message(f"Simulation {job_id}")
    with ProgressBars() as bars:
        yield bars.show_status


def summarize_simulation(target: Target, job_id: str) -> dict[str, Any]:
    """Return a summary of a simulation as `--json` prints it; docs/command-line.md describes the keys."""
    bragg_peak, no_range = _range(target, job_id)
    return {**target.summarize(job_id), "bragg_peak": bragg_peak and asdict(bragg_peak), "no_range": no_range}


def print_summary(target: Target, job_id: str) -> dict[str, Any]:
    """Print the summary of a simulation as a table, and return it."""
    summary = summarize_simulation(target, job_id)
    peak = summary["bragg_peak"] and Range(**summary["bragg_peak"])
    states = [task["task_state"] for task in summary["tasks"]]
    facts: dict[str, object] = {
        "simulation": f"{job_id} ({summary['title']}, {summary['sim_type']})",
        "state": format_state(summary["job_state"]),
        "reason": summary["reason"],
        "waiting": None if (summary["waiting"] or "") in (summary["queue"] or "") else summary["waiting"],
        "queue": summary["queue"],
        "tasks": ", ".join(f"{states.count(value)} {value}" for value in dict.fromkeys(states)),
        "primaries": f"{summary['simulated_primaries']:,} of {summary['requested_primaries']:,}",
        "duration": format_duration(read_time(summary["start_time"]), read_time(summary["end_time"])),
        "stored": format_bytes(summary["stored_bytes"]),
        "Bragg peak at": peak and peak.format_length(peak.depth_mm),
        "R80": peak and peak.format_length(peak.r80_mm),
        "depth bins": peak and f"{peak.bin_mm:.6g} mm",
        "no range": summary["no_range"],
        "rejected": "\n".join(str(RefusedPage(**page)) for page in summary["refused"]) or None,
    }
    print_facts({name: value for name, value in facts.items() if value is not None}, "Result")
    return summary


def _range(target: Target, job_id: str) -> tuple[Range | None, str | None]:
    """Return the range determined from the results, or the reason why there is none; neither without results.

    Reads one estimator after the other, and of each the pages with one axis, up to the first with a range.
    """
    try:
        estimators = target.list_pages(job_id)
    except NotFound:
        return None, None
    reasons = []
    for estimator in estimators:
        numbers = [page["page_number"] for page in estimator["pages_metadata"] if page["page_dimension"] == 1]
        curves = _curves(target, job_id, estimator["name"], numbers) if numbers else Results(())
        if curves.depth_curve() is not None:
            try:
                return curves.find_range(), None
            except NotFound as error:
                reasons.append(str(error))
    return None, reasons[0] if reasons else NO_CURVE


def _curves(target: Target, job_id: str, estimator: str, numbers: list[int]) -> Results:
    """Return the pages of an estimator as curves; empty if they are too long, such as lists of particles."""
    text = target.read_results(job_id, estimator, _ranges_text(numbers), _MAX_CURVES)
    return Results(()) if text is None else Results.from_document(orjson.loads(text), estimator)


def _ranges_text(numbers: Iterable[int]) -> str:
    """Return ascending page numbers as text, with ranges: `0-2,5`."""
    ranges = list[list[int]]()
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def load_results(
    target: Target, job_id: str, estimator: str | None = None, pages: str | None = None
) -> tuple[bytes, Results]:
    """Return the results of a simulation as the JSON text of `GET /results` and as arrays."""
    text = target.read_results(job_id, estimator, pages) or b"{}"
    loaded = Results.from_document(answers.with_arrays(text) or orjson.loads(text), estimator)
    for reason in loaded.left_out:
        print_message(f"Left out: {reason}")
    return text, loaded


def draw_results(
    target: Target, job_id: str, path: Path, estimator: str | None = None, pages: str | None = None
) -> None:
    """Plot the dose of a simulation to a file."""
    from yaptide_client import plots  # noqa: PLC0415 - importing matplotlib is slow

    title = target.summarize(job_id)["title"]
    plots.save_figure(plots.draw_overview(load_results(target, job_id, estimator, pages)[1], title), path)
    print_message(f"Plot: {path}")


def open_job(server: str, prefix: str) -> tuple[Target, str]:
    """Return what the command works on, and the job id with this prefix."""
    target = open_target(server)
    return target, target.find_job(prefix)


@app.command("status")
def show_status(job_id: JobId, server: Server = "", as_json: AsJson = False) -> None:
    """Show the state of a simulation and its tasks.

    Example: yaptide status 20260301-100000-...DIRECT
    """
    target, job_id = open_job(server, job_id)
    if as_json:
        print_json(summarize_simulation(target, job_id))
        return
    rows = [
        (
            task["task_id"],
            format_state(task["task_state"]),
            f"{task['simulated_primaries']:,} of {task['requested_primaries']:,}",
            format_time(read_time(task["start_time"])),
            format_duration(read_time(task["start_time"]), read_time(task["end_time"])),
        )
        for task in print_summary(target, job_id)["tasks"]
    ]
    print_table(("task", "state", "primaries", "started", "duration"), rows)


@app.command("list")
def list_simulations(
    user: UserName = "",
    all_users: Annotated[bool, typer.Option("--all", help="List simulations of all users. Not on a server.")] = False,
    page: Annotated[int, typer.Option(min=1, help="Page number.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Simulations per page.")] = 20,
    title: Annotated[str, typer.Option(help="Only those with this text in the title.", show_default=False)] = "",
    server: Server = "",
    as_json: AsJson = False,
) -> None:
    """List simulations, newest first; with --title, those among the newest 10,000.

    Example: yaptide list --all

    Example: yaptide list --title water
    """
    target, selection = open_target(server), Selection(page, page_size, title, user, all_users)
    listing = target.list_simulations(selection)
    if as_json:
        print_json(listing)
        return
    rows = listing["simulations"]
    table = [
        (row["job_id"], format_state(row["job_state"]), format_time(read_time(row["start_time"])), row["title"])
        for row in rows
    ]
    print_table(("simulation", "state", "submitted", "title"), table)
    total = listing["simulations_count"]
    print_message(f"{len(rows)} of {total} simulations of {target.describe_owner(selection)}")
    for reason, count in Counter(filter(None, (row["waiting"] for row in rows))).items():
        print_message(f"{format_count(count, 'simulation')} of them: {reason}")


@app.command("results")
def show_results(
    job_id: JobId,
    estimator: Annotated[str | None, typer.Option(help="Only this estimator.", show_default=False)] = None,
    pages: Annotated[
        str | None, typer.Option(help="Only these pages of the estimator, e.g. 0-2,5.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the response of GET /results, with all values.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per value.")] = False,
    npz: Annotated[Path | None, typer.Option(help="Write the arrays to this NumPy file.")] = None,
    png: Picture = None,
    server: Server = "",
) -> None:
    """Show the results of a simulation, or write them to a file. docs/results.md describes the files.

    Example: yaptide results 20260301-100000-...DIRECT --npz dose.npz --png dose.png

    Example: yaptide results 20260301-100000-...DIRECT --estimator Dose --pages 0 --csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("use --json or --csv, not both")
    if pages is not None and estimator is None:
        raise typer.BadParameter("--pages needs --estimator")
    target, job_id = open_job(server, job_id)
    if png is not None:
        draw_results(target, job_id, png, estimator, pages)
    if not (as_json or as_csv or npz):
        if png is None:
            _print_pages(target, job_id, estimator, pages)
        return
    text, loaded = load_results(target, job_id, estimator, pages)
    if npz is not None:
        loaded.save_npz(npz)
        print_message(f"Arrays: {npz}")
    if as_json:
        typer.get_binary_stream("stdout").write(text + b"\n")
    elif as_csv:
        loaded.write_csv(typer.get_text_stream("stdout"))


def _print_pages(target: Target, job_id: str, estimator: str | None, pages: str | None) -> None:
    numbers = None if pages is None else parse_page_numbers(pages)
    rows = [
        (metadata["name"], page["page_number"], page["page_name"], page["page_dimension"])
        for metadata in target.list_pages(job_id)
        for page in metadata["pages_metadata"]
        if estimator in (None, metadata["name"])
        and (numbers is None or any(first <= page["page_number"] <= last for first, last in numbers))
    ]
    if not rows:
        raise NotFound("Results are unavailable")
    print_table(("estimator", "page", "quantity", "axes"), rows)


@app.command("logs")
def show_logs(job_id: JobId, server: Server = "", as_json: AsJson = False) -> None:
    """Print the output of the simulators of a simulation.

    Example: yaptide logs 20260301-100000-...DIRECT
    """
    target, job_id = open_job(server, job_id)
    texts = target.read_logfiles(job_id)
    if as_json:
        print_json({"logfiles": texts})
        return
    for name, text in texts.items():
        print_text(name, text)


@app.command("history")
def show_history(job_id: JobId, server: Server = "", as_json: AsJson = False) -> None:
    """Print every state change of a simulation and its tasks: when, by whom, and why.

    Example: yaptide history 20260301-100000-...DIRECT
    """
    target, job_id = open_job(server, job_id)
    rows = target.list_history(job_id)
    if as_json:
        print_json({"job_id": job_id, "history": rows})
        return
    table = [
        (
            format_time(read_time(row["time"])),
            "simulation" if row["task_id"] is None else f"task {row['task_id']}",
            row["from_state"],
            format_state(row["to_state"]),
            row["actor"],
            row["reason"],
        )
        for row in rows
    ]
    print_table(("time", "what", "from", "to", "by", "why"), table)


@app.command("cancel")
def cancel_simulation(job_id: JobId, server: Server = "") -> None:
    """Cancel a simulation and all its unfinished tasks.

    Example: yaptide cancel 20260301-100000-...DIRECT
    """
    target, job_id = open_job(server, job_id)
    ended = target.cancel(job_id)
    print_message(f"Nothing to cancel: the simulation is {ended}" if ended else "Canceled the simulation")


@app.command("delete")
def delete_simulation(job_id: JobId, yes: Yes = False, server: Server = "") -> None:
    """Delete a simulation with all its data.

    Example: yaptide delete 20260301-100000-...DIRECT
    """
    target, job_id = open_job(server, job_id)
    if not yes:
        summary = target.summarize(job_id)
        size = format_bytes(summary["stored_bytes"])
        ask_confirmation(f"Delete {job_id} of {summary['user']} ({size})?", yes)
    state = target.delete(job_id)
    if state is not None:
        raise Conflict(f"The simulation is {state}: cancel it first with yaptide cancel {job_id}")
    print_message("Deleted the simulation")
