"""`yaptide check`, `run`, `status`, `list`, `results`, `logs`, `history`, `cancel` and `delete`."""

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
from yaptide.services import batch, checks, logfiles, results, simulations, users
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.backend import Backend
from yaptide.services.simulations import Page, Status, Submission
from yaptide.services.users import User
from yaptide.simulators import COMMON
from yaptide_client import answers
from yaptide_client.extras import require_extra
from yaptide_client.files import read_input
from yaptide_client.results import NO_CURVE, Results

if TYPE_CHECKING:
    from yaptide.platforms.direct.embedded import EmbeddedExecutor
    from yaptide.platforms.direct.outbox import OutboxPublisher

app = typer.Typer()

_POLL_SECONDS = 0.1
#: Maximum bytes of JSON text; lists of particles can have gigabytes.
_MAX_CURVES = 16 << 20
_PICTURES = (".png", ".pdf", ".svg")

JobId = Annotated[
    str,
    typer.Argument(metavar="JOB_ID", help="Job id of the simulation, or its beginning.", autocompletion=complete_job),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
UserName = Annotated[str, typer.Option("--user", help="Owner; default: you.", show_default=False)]


InputPath = Annotated[Path, typer.Argument(help="Folder of input files, or JSON file of a web editor project.")]
SimType = Annotated[str, typer.Option(help="Simulator; common: detect it from the files.")]


@app.command("check")
def check_input(
    path: InputPath,
    tasks: Annotated[
        int | None, typer.Option("--tasks", "-n", help="Number of tasks; default: suggest one.", show_default=False)
    ] = None,
    sim_type: SimType = COMMON,
    as_json: AsJson = False,
) -> None:
    """Check an input as `yaptide run` does, and show what it would become; nothing is simulated.

    Exits with 1 if the input has a problem.

    Example: yaptide check proton-150MeV-water
    """
    submission, store = _submission(path, sim_type, tasks, ""), open_store()
    _, executor = make_executor(store.settings, store.backend)
    executor.announce()
    try:
        checkup = checks.check_submission(store.backend, local_user(store.backend, ""), submission)
    finally:
        executor.withdraw()
    if as_json:
        print_json(checkup.describe())
    else:
        _print_checkup(checkup)
    if checkup.preview is None:
        raise typer.Exit(1)


def _print_checkup(checkup: checks.Checkup) -> None:
    preview = checkup.preview
    if preview is None:
        print_message(f"This input cannot be run: {checkup.problem}")
        for number, text in checkup.place.lines if checkup.place else ():
            print_message(f"{number:>6}  {text}")
        return
    tasks = f"{preview.tasks:,}" + (f" ({preview.suggestion})" if preview.suggestion else "")
    facts: dict[str, object] = {"simulator": preview.title, "primaries": f"{preview.primaries:,}", "tasks": tasks}
    print_facts(facts, "Ready to run")
    for sentence in (*preview.left_out, *filter(None, [preview.waits])):
        print_message(sentence)


def _submission(path: Path, sim_type: str, tasks: int | None, title: str) -> Submission:
    """Return the submission of a folder of input files, or of a project in a JSON file."""
    name, content = read_input(path)
    files, project = content.get("input_files"), content.get("input_json")
    return Submission(sim_type, tasks, title or name, files, project)


@app.command("run")
def run_simulation(
    path: InputPath,
    tasks: Annotated[int, typer.Option("--tasks", "-n", help="Number of tasks.")] = 1,
    sim_type: SimType = COMMON,
    title: Annotated[str, typer.Option(help="Title; default: the name of the path.", show_default=False)] = "",
    user: UserName = "",
    png: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Run a simulation, follow its tasks until it ends, and show a summary.

    Example: yaptide run proton-150MeV-water --tasks 4 --png dose.png
    """
    submission, store = _submission(path, sim_type, tasks, title), open_store()
    backend = store.backend
    job_id, status = run_to_end(store, submission, user)
    if png is not None and status.simulation.job_state is EntityState.COMPLETED:
        draw_results(backend, job_id, png)
    if as_json:
        print_json(summarize_simulation(backend, job_id))
    else:
        print_summary(backend, job_id)
    if status.simulation.job_state is not EntityState.COMPLETED:
        raise typer.Exit(1)


def run_to_end(store: Opened, submission: Submission, user: str) -> tuple[str, Status]:
    """Submit a simulation and follow it until it ends; return its job id and final status.

    Raises NotConfigured, with nothing stored, if nothing can run the simulation.
    """
    _, executor = make_executor(store.settings, store.backend)
    executor.announce()
    try:
        submitted = simulations.submit_simulation(store.backend, local_user(store.backend, user), submission)
        job_id = submitted.job_id
        for sentence in submitted.left_out:
            print_message(f"Left out: {sentence}")
        with _executing(store, executor, job_id) as keep_running:
            return job_id, follow_simulation(store.backend, job_id, keep_running)
    finally:
        executor.withdraw()


@contextmanager
def _executing(
    store: Opened, executor: "EmbeddedExecutor | OutboxPublisher", job_id: str
) -> Iterator[Callable[[], object]]:
    """Run tasks within the block, unless another process on the same data folder runs them already.

    Yields a function to call repeatedly: it starts the executor if that other process has ended, and raises
    KeyboardInterrupt after Ctrl-C.
    """
    with Interrupts(signal.SIGINT) as interrupts:
        is_running = executor.start()
        if not is_running:
            print_message(
                "Another process runs the tasks of this data folder; this one follows them, and takes over when that "
                "process ends"
            )

        def keep_running() -> None:
            nonlocal is_running
            interrupts.raise_if_interrupted()
            is_running = is_running or executor.start()

        try:
            yield keep_running
        except KeyboardInterrupt:
            executor.stop()
            print_message(
                f"The simulation is kept; {_what_next(store, is_running)}. Cancel it: yaptide cancel {job_id}"
            )
            raise
        finally:
            executor.stop()


def _what_next(store: Opened, was_run_here: bool) -> str:
    """Return what happens to a simulation after this command stops following it."""
    if not was_run_here:
        return "another process continues it"
    if store.settings.broker_url.get_secret_value():
        return "workers finish their current tasks; the rest continues with the next `yaptide up`, `work` or `run`"
    return "its tasks start again with the next `yaptide up`, `work` or `run`"


def follow_simulation(backend: Backend, job_id: str, meanwhile: Callable[[], object]) -> Status:
    """Show the progress of a simulation until it ends; call `meanwhile` between updates."""
    print_message(f"Simulation {job_id}")
    with ProgressBars() as bars:
        while True:
            status = simulations.read_status(backend, ADMINISTRATOR, job_id)
            bars.show_status(status)
            if status.simulation.job_state in FINAL_STATES:
                return status
            time.sleep(_POLL_SECONDS)
            meanwhile()


def summarize_simulation(backend: Backend, job_id: str) -> dict[str, Any]:
    """Return a summary of a simulation as `--json` prints it; docs/command-line.md describes the keys."""
    status = simulations.read_status(backend, ADMINISTRATOR, job_id)
    simulation, tasks = _parts(status)
    bragg_peak, no_range = _range(backend, job_id)
    return {
        "job_id": job_id,
        "job_state": simulation.job_state,
        "title": simulation.title,
        "user": users.owner_of(backend, job_id).username,
        "sim_type": simulation.sim_type,
        "platform": simulation.platform,
        "simulator_version": simulation.simulator_version,
        "simulator_digest": simulation.simulator_digest,
        "start_time": simulation.start_time,
        "end_time": simulation.end_time,
        "reason": simulations.failure_reason(backend, ADMINISTRATOR, job_id),
        "waiting": status.waiting,
        "queue": batch.waiting_tasks(backend, job_id),
        "requested_primaries": sum(task.requested_primaries for task in tasks),
        "simulated_primaries": sum(task.simulated_primaries for task in tasks),
        "stored_bytes": simulation.stored_bytes,
        "bragg_peak": bragg_peak and asdict(bragg_peak),
        "no_range": no_range,
        "refused": orjson.loads(simulation.refused_pages or "[]"),
        "tasks": [dict(task._mapping) for task in tasks],
    }


def print_summary(backend: Backend, job_id: str) -> None:
    """Print the summary of a simulation as a table."""
    summary = summarize_simulation(backend, job_id)
    peak = summary["bragg_peak"] and Range(**summary["bragg_peak"])
    states = [task["task_state"] for task in summary["tasks"]]
    facts: dict[str, object] = {
        "simulation": f"{job_id} ({summary['title']}, {summary['sim_type']})",
        "state": format_state(summary["job_state"]),
        "reason": summary["reason"],
        "waiting": summary["waiting"],
        "queue": summary["queue"],
        "tasks": ", ".join(f"{states.count(value)} {value}" for value in dict.fromkeys(states)),
        "primaries": f"{summary['simulated_primaries']:,} of {summary['requested_primaries']:,}",
        "duration": format_duration(summary["start_time"], summary["end_time"]),
        "stored": format_bytes(summary["stored_bytes"]),
        "Bragg peak at": peak and peak.format_length(peak.depth_mm),
        "R80": peak and peak.format_length(peak.r80_mm),
        "depth bins": peak and f"{peak.bin_mm:.6g} mm",
        "no range": summary["no_range"],
        "rejected": "\n".join(str(RefusedPage(**page)) for page in summary["refused"]) or None,
    }
    print_facts({name: value for name, value in facts.items() if value is not None}, "Result")


def _parts(status: Status) -> tuple[Any, list[Any]]:
    return status.simulation, status.tasks


def _range(backend: Backend, job_id: str) -> tuple[Range | None, str | None]:
    """Return the range determined from the results, or the reason why there is none; neither without results.

    Reads one estimator after the other, and of each the pages with one axis, up to the first with a range.
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
    """Return the pages of an estimator as curves; empty if they are too long, such as lists of particles."""
    parts = results.read_pages(backend, ADMINISTRATOR, job_id, estimator, [(number, number) for number in numbers])
    text = bytearray()
    for piece in codec.inflate_parts(parts):
        text += piece
        if len(text) > _MAX_CURVES:
            return Results(())
    return Results.from_document({"pages": orjson.loads(text)}, estimator)


def load_results(
    backend: Backend, job_id: str, estimator: str | None = None, pages: str | None = None
) -> tuple[bytes, Results]:
    """Return the results of a simulation as the JSON text of `GET /results` and as arrays."""
    parts = results.read_answer(backend, ADMINISTRATOR, job_id, estimator, pages)
    text = b"".join(codec.inflate_parts(parts))
    loaded = Results.from_document(answers.with_arrays(text) or orjson.loads(text), estimator)
    for reason in loaded.left_out:
        print_message(f"Left out: {reason}")
    return text, loaded


def draw_results(
    backend: Backend, job_id: str, path: Path, estimator: str | None = None, pages: str | None = None
) -> None:
    """Plot the dose of a simulation to a file."""
    from yaptide_client import plots  # noqa: PLC0415 - importing matplotlib is slow

    title = simulations.read_status(backend, ADMINISTRATOR, job_id).simulation.title
    plots.save_figure(plots.draw_overview(load_results(backend, job_id, estimator, pages)[1], title), path)
    print_message(f"Plot: {path}")


def open_job(prefix: str) -> tuple[Backend, str]:
    """Open the store, and return the services and the job id with this prefix."""
    backend = open_store().backend
    return backend, find_job(backend.database, prefix)


@app.command("status")
def show_status(job_id: JobId, as_json: AsJson = False) -> None:
    """Show the state of a simulation and its tasks.

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
    all_users: Annotated[bool, typer.Option("--all", help="List simulations of all users.")] = False,
    page: Annotated[int, typer.Option(min=1, help="Page number.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Simulations per page.")] = 20,
    title: Annotated[str, typer.Option(help="Only those with this text in the title.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """List simulations, newest first; with --title, those among the newest 10,000.

    Example: yaptide list --all

    Example: yaptide list --title water
    """
    backend = open_store().backend
    owner = ADMINISTRATOR if all_users else local_user(backend, user)
    listing = simulations.list_simulations(backend, owner, Page(page, page_size, title=title))
    if as_json:
        rows = [{**row._mapping, "waiting": listing.waiting.get(row.job_id)} for row in listing.rows]
        print_json({"simulations_count": listing.total, "simulations": rows})
        return
    table = [(r.job_id, format_state(r.job_state), format_time(r.start_time), r.title) for r in listing.rows]
    print_table(("simulation", "state", "submitted", "title"), table)
    print_message(f"{len(listing.rows)} of {listing.total} simulations of {_describe_owner(owner)}")
    for reason, count in Counter(listing.waiting.values()).items():
        print_message(f"{format_count(count, 'simulation')} of them: {reason}")


def _describe_owner(user: User) -> str:
    return "all users" if user is ADMINISTRATOR else f"{user.username}; other users: --user NAME, all users: --all"


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
) -> None:
    """Show the results of a simulation, or write them to a file. docs/results.md describes the files.

    Example: yaptide results 20260301-100000-...DIRECT --npz dose.npz --png dose.png

    Example: yaptide results 20260301-100000-...DIRECT --estimator Dose --pages 0 --csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("use --json or --csv, not both")
    if pages is not None and estimator is None:
        raise typer.BadParameter("--pages needs --estimator")
    backend, job_id = open_job(job_id)
    if png is not None:
        draw_results(backend, job_id, png, estimator, pages)
    if not (as_json or as_csv or npz):
        if png is None:
            _print_pages(backend, job_id, estimator, pages)
        return
    text, loaded = load_results(backend, job_id, estimator, pages)
    if npz is not None:
        loaded.save_npz(npz)
        print_message(f"Arrays: {npz}")
    if as_json:
        typer.get_binary_stream("stdout").write(text + b"\n")
    elif as_csv:
        loaded.write_csv(typer.get_text_stream("stdout"))


def _print_pages(backend: Backend, job_id: str, estimator: str | None, pages: str | None) -> None:
    numbers = None if pages is None else results.parse_page_numbers(pages)
    rows = [
        (metadata["name"], page["page_number"], page["page_name"], page["page_dimension"])
        for metadata in results.pages_metadata(backend, ADMINISTRATOR, job_id)
        for page in metadata["pages_metadata"]
        if estimator in (None, metadata["name"])
        and (numbers is None or any(first <= page["page_number"] <= last for first, last in numbers))
    ]
    if not rows:
        raise NotFound("Results are unavailable")
    print_table(("estimator", "page", "quantity", "axes"), rows)


@app.command("logs")
def show_logs(job_id: JobId, as_json: AsJson = False) -> None:
    """Print the output of the simulators of a simulation.

    Example: yaptide logs 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    texts = logfiles.read_logfiles(backend, ADMINISTRATOR, job_id)
    if as_json:
        print_json({"logfiles": texts})
        return
    for name, text in texts.items():
        print_text(name, text)


@app.command("history")
def show_history(job_id: JobId, as_json: AsJson = False) -> None:
    """Print every state change of a simulation and its tasks: when, by whom, and why.

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
    """Cancel a simulation and all its unfinished tasks.

    Example: yaptide cancel 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    ended = simulations.cancel_simulation(backend, ADMINISTRATOR, job_id, "canceled on the command line")
    print_message(f"Nothing to cancel: the simulation is {ended}" if ended else "Canceled the simulation")


@app.command("delete")
def delete_simulation(
    job_id: JobId, yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False
) -> None:
    """Delete a simulation with all its data.

    Example: yaptide delete 20260301-100000-...DIRECT
    """
    backend, job_id = open_job(job_id)
    if not yes:
        owner = users.owner_of(backend, job_id)
        size = format_bytes(simulations.read_status(backend, ADMINISTRATOR, job_id).simulation.stored_bytes)
        typer.confirm(f"Delete {job_id} of {owner.username} ({size})?", abort=True, err=True)
    state = simulations.delete_simulation(backend, ADMINISTRATOR, job_id)
    if state is not None:
        raise Conflict(f"The simulation is {state}: cancel it first with yaptide cancel {job_id}")
    print_message("Deleted the simulation")
