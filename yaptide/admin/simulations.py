"""`yaptide run`, `status`, `list`, `results`, `logs`, `history`, `cancel`, `delete`."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from yaptide.admin.display import (
    Bars,
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
)
from yaptide.admin.interrupts import Interrupts
from yaptide.admin.naming import complete_job, find_job
from yaptide.admin.store import Opened, local_user, open_store
from yaptide.application import make_executor
from yaptide.domain.depth_dose import Range
from yaptide.domain.errors import Conflict, NotFound
from yaptide.domain.estimators import RefusedPage
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.persistence import codec
from yaptide.services import batch, logfiles, results, simulations, users
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.backend import Backend
from yaptide.services.simulations import Page, Status, Submission
from yaptide.services.users import User
from yaptide.simulators import COMMON
from yaptide_client import answers
from yaptide_client.extras import require_extra
from yaptide_client.files import read_folder, read_project
from yaptide_client.results import NO_CURVE, Results

if TYPE_CHECKING:
    from yaptide.platforms.direct.embedded import EmbeddedExecutor
    from yaptide.platforms.direct.outbox import OutboxPublisher

app = typer.Typer()

_LOOK_EVERY = 0.1
#: Bytes of text; of particles there can be gigabytes.
_LONGEST_CURVES = 16 << 20
_PICTURES = (".png", ".pdf", ".svg")

JobId = Annotated[
    str,
    typer.Argument(metavar="JOB_ID", help="Name of the simulation, or its beginning.", autocompletion=complete_job),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _picture(path: Path | None) -> Path | None:
    """A file that a picture can be written to, or wrong usage: said before anything is run, not after."""
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise typer.BadParameter(f"the name of a picture ends in one of {' '.join(_PICTURES)}")
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}")
    if path is not None:
        require_extra("matplotlib", "Drawing")
    return path


Picture = Annotated[Path | None, typer.Option(help="Draw the dose into this file.", callback=_picture)]
UserName = Annotated[str, typer.Option("--user", help="Whose it is; default: you.", show_default=False)]


@app.command("run")
def run_simulation(
    path: Annotated[Path, typer.Argument(help="Folder of input files, or JSON file of a project of the web editor.")],
    tasks: Annotated[int, typer.Option("--tasks", "-n", help="Into how many tasks to split it.")] = 1,
    sim_type: Annotated[str, typer.Option(help="Simulator; common: found out from the files.")] = COMMON,
    title: Annotated[str, typer.Option(help="What to call it; default: the path's name.", show_default=False)] = "",
    user: UserName = "",
    png: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Run a simulation to its end, following every task, and show what came out.

    Example: yaptide run proton-150MeV-water --tasks 4 --png dose.png
    """
    if path.is_file():
        submission = Submission(sim_type, tasks, title or path.stem, input_json=read_project(path))
    else:
        submission = Submission(sim_type, tasks, title or path.resolve().name, read_folder(path))
    at = open_store()
    backend = at.backend
    job_id, status = run_to_the_end(at, submission, user)
    if png is not None and status.simulation.job_state is EntityState.COMPLETED:
        draw_results(backend, job_id, png)
    if as_json:
        print_json(summarize_simulation(backend, job_id))
    else:
        print_summary(backend, job_id)
    if status.simulation.job_state is not EntityState.COMPLETED:
        raise typer.Exit(1)


def run_to_the_end(at: Opened, submission: Submission, user: str) -> tuple[str, Status]:
    """Submit a simulation and follow it to its end; returns its public name and how it ended.

    Raises NotConfigured, with nothing stored, if nobody is there who can run it.
    """
    _, executor = make_executor(at.settings, at.backend)
    executor.announce()
    try:
        submitted = simulations.submit_simulation(at.backend, local_user(at.backend, user), submission)
        job_id = submitted.job_id
        for sentence in submitted.left_out:
            print_message(f"Left out: {sentence}")
        with _executing(at, executor, job_id) as take_over:
            return job_id, follow_simulation(at.backend, job_id, take_over)
    finally:
        executor.withdraw()


@contextmanager
def _executing(
    at: Opened, executor: "EmbeddedExecutor | OutboxPublisher", job_id: str
) -> Iterator[Callable[[], object]]:
    """Have tasks run meanwhile: by this process, or by another one that works on the same data folder already.

    What it gives is to be called again and again: it takes over if that other process has ended, and raises
    KeyboardInterrupt after Ctrl-C.
    """
    with Interrupts(signal.SIGINT) as interrupts:
        runs = executor.start()
        if not runs:
            print_message(
                "Another process runs the tasks of this data folder; this one follows them, and takes over when that "
                "ends"
            )

        def take_over() -> None:
            nonlocal runs
            interrupts.check()
            runs = runs or executor.start()

        try:
            yield take_over
        except KeyboardInterrupt:
            executor.stop()
            print_message(f"The simulation is kept, and {_goes_on(at, runs)}. To cancel it: yaptide cancel {job_id}")
            raise
        finally:
            executor.stop()


def _goes_on(at: Opened, was_run_here: bool) -> str:
    """When a simulation goes on that nobody follows any more."""
    if not was_run_here:
        return "goes on now, run by another process"
    if at.settings.broker_url.get_secret_value():
        return "workers end the tasks that they have; the rest goes on with the next `yaptide up`, `work` or `run`"
    return "its tasks begin anew with the next `yaptide up`, `work` or `run`"


def follow_simulation(backend: Backend, job_id: str, meanwhile: Callable[[], object]) -> Status:
    """Show how far a simulation is until it has ended."""
    print_message(f"Simulation {job_id}")
    with Bars() as bars:
        while True:
            status = simulations.read_status(backend, ADMINISTRATOR, job_id)
            bars.show(status)
            if status.simulation.job_state in FINAL_STATES:
                return status
            time.sleep(_LOOK_EVERY)
            meanwhile()


def summarize_simulation(backend: Backend, job_id: str) -> dict[str, Any]:
    """Everything worth knowing about a simulation, as `--json` prints it; docs/command-line.md documents it."""
    status = simulations.read_status(backend, ADMINISTRATOR, job_id)
    found, tasks = _parts(status)
    seen, no_range = _range(backend, job_id)
    return {
        "job_id": job_id,
        "job_state": found.job_state,
        "title": found.title,
        "user": users.owner_of(backend, job_id).username,
        "sim_type": found.sim_type,
        "platform": found.platform,
        "simulator_version": found.simulator_version,
        "simulator_digest": found.simulator_digest,
        "start_time": found.start_time,
        "end_time": found.end_time,
        "reason": simulations.failure_reason(backend, ADMINISTRATOR, job_id),
        "waiting": status.waiting,
        "queue": batch.waiting_tasks(backend, job_id),
        "requested_primaries": sum(task.requested_primaries for task in tasks),
        "simulated_primaries": sum(task.simulated_primaries for task in tasks),
        "stored_bytes": found.stored_bytes,
        "bragg_peak": seen and asdict(seen),
        "no_range": no_range,
        "refused": orjson.loads(found.refused_pages or "[]"),
        "tasks": [dict(task._mapping) for task in tasks],
    }


def print_summary(backend: Backend, job_id: str) -> None:
    """The same as a table."""
    found = summarize_simulation(backend, job_id)
    peak = found["bragg_peak"] and Range(**found["bragg_peak"])
    states = [task["task_state"] for task in found["tasks"]]
    facts: dict[str, object] = {
        "simulation": f"{job_id} ({found['title']}, {found['sim_type']})",
        "state": format_state(found["job_state"]),
        "reason": found["reason"],
        "waits": found["waiting"],
        "in the queue": found["queue"],
        "tasks": ", ".join(f"{states.count(value)} {value}" for value in dict.fromkeys(states)),
        "primaries": f"{found['simulated_primaries']:,} of {found['requested_primaries']:,}",
        "duration": format_duration(found["start_time"], found["end_time"]),
        "bytes stored": format_bytes(found["stored_bytes"]),
        "Bragg peak at": peak and peak.show(peak.depth_mm),
        "R80": peak and peak.show(peak.r80_mm),
        "depth bins": peak and f"{peak.bin_mm:.6g} mm",
        "no range": found["no_range"],
        "left out": "\n".join(str(RefusedPage(**page)) for page in found["refused"]) or None,
    }
    print_facts({name: value for name, value in facts.items() if value is not None}, "Result")


def _parts(status: Status) -> tuple[Any, list[Any]]:
    return status.simulation, status.tasks


def _range(backend: Backend, job_id: str) -> tuple[Range | None, str | None]:
    """The range that the results tell, or why they tell none; neither if there are no results.

    Estimators are read one after the other, and of each the pages with one axis, up to the first one with a range.
    """
    try:
        estimators = results.pages_metadata(backend, ADMINISTRATOR, job_id)
    except NotFound:
        return None, None
    reasons = []
    for estimator in estimators:
        numbers = [page["page_number"] for page in estimator["pages_metadata"] if page["page_dimension"] == 1]
        curves = _curves(backend, job_id, estimator["name"], numbers) if numbers else Results(())
        if curves.depth_curve() is not None:
            try:
                return curves.find_range(), None
            except NotFound as error:
                reasons.append(str(error))
    return None, reasons[0] if reasons else NO_CURVE


def _curves(backend: Backend, job_id: str, estimator: str, numbers: list[int]) -> Results:
    """Some pages of an estimator, as far as they are curves and not long lists of particles."""
    parts = results.read_pages(backend, ADMINISTRATOR, job_id, estimator, [(number, number) for number in numbers])
    text = bytearray()
    for piece in codec.inflate_parts(parts):
        text += piece
        if len(text) > _LONGEST_CURVES:
            return Results(())
    return Results.from_document({"pages": orjson.loads(text)}, estimator)


def load_results(
    backend: Backend, job_id: str, estimator: str | None = None, pages: str | None = None
) -> tuple[bytes, Results]:
    """Results of a simulation: the JSON text that `GET /results` answers, and the same as arrays."""
    answer = results.read_answer(backend, ADMINISTRATOR, job_id, estimator, pages)
    text = b"".join(codec.inflate_parts(answer))
    found = Results.from_document(answers.with_arrays(text) or orjson.loads(text), estimator)
    for line in found.left_out:
        print_message(f"Left out: {line}")
    return text, found


def draw_results(
    backend: Backend, job_id: str, path: Path, estimator: str | None = None, pages: str | None = None
) -> None:
    """Draw the dose of a simulation into a file."""
    from yaptide_client import plots  # noqa: PLC0415 - matplotlib takes longer to import than all the rest

    title = simulations.read_status(backend, ADMINISTRATOR, job_id).simulation.title
    plots.save_figure(plots.draw_overview(load_results(backend, job_id, estimator, pages)[1], title), path)
    print_message(f"Picture: {path}")


def open_job(beginning: str) -> tuple[Backend, str]:
    """The services, and the name of the simulation that begins so, as `opened` and `find_job` have them."""
    backend = open_store().backend
    return backend, find_job(backend.database, beginning)


@app.command("status")
def show_status(job_id: JobId, as_json: AsJson = False) -> None:
    """Show how a simulation and its tasks stand.

    Example: yaptide status 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    if as_json:
        print_json(summarize_simulation(backend, job_id))
        return
    print_summary(backend, job_id)
    tasks = simulations.read_status(backend, ADMINISTRATOR, job_id).tasks
    rows = [
        (
            task.task_id,
            format_state(task.task_state),
            f"{task.simulated_primaries:,} of {task.requested_primaries:,}",
            format_time(task.start_time),
            format_duration(task.start_time, task.end_time),
        )
        for task in tasks
    ]
    print_table(("task", "state", "primaries", "started", "duration"), rows)


@app.command("list")
def list_simulations(
    user: UserName = "",
    everybody: Annotated[bool, typer.Option("--all", help="Of all users.")] = False,
    page: Annotated[int, typer.Option(min=1, help="Which page.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Simulations on a page.")] = 20,
    title: Annotated[str, typer.Option(help="Only those with this text in the title.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """List simulations, the newest first; with --title, those among the newest 10,000.

    Example: yaptide list --all

    Example: yaptide list --title water
    """
    backend = open_store().backend
    whose = ADMINISTRATOR if everybody else local_user(backend, user)
    found = simulations.list_simulations(backend, whose, Page(page, page_size, title=title))
    if as_json:
        rows = [{**row._mapping, "waiting": found.waiting.get(row.job_id)} for row in found.rows]
        print_json({"simulations_count": found.total, "simulations": rows})
        return
    table = [(r.job_id, format_state(r.job_state), format_time(r.start_time), r.title) for r in found.rows]
    print_table(("simulation", "state", "submitted", "title"), table)
    print_message(f"{len(found.rows)} of {found.total} simulations of {_whose(whose)}")
    for reason, count in Counter(found.waiting.values()).items():
        print_message(f"{format_count(count, 'simulation')} of them: {reason}")


def _whose(user: User) -> str:
    return "all users" if user is ADMINISTRATOR else f"{user.username}; of another user: --user NAME, of all: --all"


@app.command("results")
def show_results(
    job_id: JobId,
    estimator: Annotated[str | None, typer.Option(help="Only those of this estimator.", show_default=False)] = None,
    pages: Annotated[
        str | None, typer.Option(help="Only these pages of it, such as 0-2,5.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what GET /results answers, with all numbers.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every value as a line.")] = False,
    npz: Annotated[Path | None, typer.Option(help="Write the arrays to this numpy file.")] = None,
    png: Picture = None,
) -> None:
    """Show the results of a simulation, or write them to a file; docs/results.md describes the files.

    Example: yaptide results 20260301-100000-...DIRECT --npz dose.npz --png dose.png

    Example: yaptide results 20260301-100000-...DIRECT --estimator Dose --pages 0 --csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    if pages is not None and estimator is None:
        raise typer.BadParameter("--pages needs --estimator")
    backend, job_id = open_job(job_id)
    if png is not None:
        draw_results(backend, job_id, png, estimator, pages)
    if not (as_json or as_csv or npz):
        if png is None:
            _print_pages(backend, job_id, estimator, pages)
        return
    text, found = load_results(backend, job_id, estimator, pages)
    if npz is not None:
        found.save_npz(npz)
        print_message(f"Arrays: {npz}")
    if as_json:
        typer.get_binary_stream("stdout").write(text + b"\n")
    elif as_csv:
        found.write_csv(typer.get_text_stream("stdout"))


def _print_pages(backend: Backend, job_id: str, estimator: str | None, pages: str | None) -> None:
    numbers = None if pages is None else results.parse_page_numbers(pages)
    rows = [
        (found["name"], page["page_number"], page["page_name"], page["page_dimension"])
        for found in results.pages_metadata(backend, ADMINISTRATOR, job_id)
        for page in found["pages_metadata"]
        if estimator in (None, found["name"])
        and (numbers is None or any(first <= page["page_number"] <= last for first, last in numbers))
    ]
    if not rows:
        raise NotFound("Results are unavailable")
    print_table(("estimator", "page", "quantity", "axes"), rows)


@app.command("logs")
def show_logs(job_id: JobId, as_json: AsJson = False) -> None:
    """Print what the simulators of a simulation have printed.

    Example: yaptide logs 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    found = logfiles.read_logfiles(backend, ADMINISTRATOR, job_id)
    if as_json:
        print_json({"logfiles": found})
        return
    for name, text in found.items():
        print_text(name, text)


@app.command("history")
def show_history(job_id: JobId, as_json: AsJson = False) -> None:
    """Print every change of state of a simulation and its tasks: when, who, why.

    Example: yaptide history 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    rows = simulations.read_history(backend, ADMINISTRATOR, job_id)
    if as_json:
        print_json({"job_id": job_id, "history": [dict(row._mapping) for row in rows]})
        return
    table = [
        (
            format_time(row.time),
            "simulation" if row.task_id is None else f"task {row.task_id}",
            row.from_state,
            format_state(row.to_state),
            row.actor,
            row.reason,
        )
        for row in rows
    ]
    print_table(("time", "what", "from", "to", "by", "why"), table)


@app.command("cancel")
def cancel_simulation(job_id: JobId) -> None:
    """Cancel a simulation and all its tasks that have not ended.

    Example: yaptide cancel 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    ended = simulations.cancel_simulation(backend, ADMINISTRATOR, job_id, "canceled on the command line")
    print_message(f"There is nothing to cancel: it is {ended}" if ended else "The simulation was canceled")


@app.command("delete")
def delete_simulation(job_id: JobId, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a simulation with everything about it.

    Example: yaptide delete 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    if not yes:
        owner = users.owner_of(backend, job_id)
        kept = format_bytes(simulations.read_status(backend, ADMINISTRATOR, job_id).simulation.stored_bytes)
        typer.confirm(f"Delete {job_id} of {owner.username} ({kept})?", abort=True, err=True)
    standing = simulations.delete_simulation(backend, ADMINISTRATOR, job_id)
    if standing is not None:
        raise Conflict(f"It is {standing}: cancel it first with yaptide cancel {job_id}")
    print_message("The simulation was deleted")
