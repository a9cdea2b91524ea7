"""Generates documents and other files from the code: `python -m scripts.generate_docs [--check]`."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import CheckConstraint, Constraint, Index, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import KeyedColumnElement
from typer.main import get_command

from scripts.decks import Deck, read_decks
from yaptide.admin import cli, quick_help
from yaptide.admin.diagram import draw_diagram
from yaptide.application import create_app
from yaptide.domain.states import (
    FINAL_STATES,
    SIMULATION_TRANSITIONS,
    TASK_STATES,
    TASK_TRANSITIONS,
    EntityState,
    Transitions,
)
from yaptide.persistence import diagram
from yaptide.settings import Settings
from yaptide.simulators import get_simulator

ROOT = Path(__file__).parents[1]
_DESCRIPTION = quick_help.FILE.relative_to(ROOT).as_posix()
_WIDTH = 100
_TERMINAL_WIDTH = 80
_NOT_OURS = {"--help", "--install-completion", "--show-completion"}
_S = EntityState


def generate_documents() -> dict[str, str]:
    """Return the file name and text of every generated file."""
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "docs/settings.md": _settings,
        "docs/command-line.md": _command_line,
        "docs/states.md": _states,
        "docs/api.md": _api,
        "docs/database.md": _database,
        "docs/codes.md": _codes,
    }
    texts = {name: "\n\n".join(block.strip("\n") for block in maker()) + "\n" for name, maker in makers.items()}
    description = json.dumps(_described(get_command(cli.app), "yaptide", None), indent=1, ensure_ascii=False)
    return texts | {"docs/images/database.svg": draw_diagram("svg").decode(), _DESCRIPTION: f"{description}\n"}


def main() -> None:
    """Write the files, or with `--check` list those that are out of date."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: python -m scripts.generate_docs [--check]")
    documents = generate_documents()
    differing = [
        name for name, text in documents.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != text
    ]
    if check:
        sys.exit("\n".join(f"{name} is out of date: make docs" for name in differing) or 0)
    for name in differing:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(documents[name])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


_CODES = """
# What is passed on to each code

The rule: input that the code itself runs is accepted. Input that the code would read differently from what it says is
refused, with the file, the line and what to correct.

Every row below is a small input in `tests/fixtures/decks`, whose outcome is tested. The last column is the chapter of
the code's manual that decides; *measured* means that the program itself was run.

**Bytes.** The command line, the client and the browser pages decode files in the same way, archives included: by a byte
order mark (UTF-8, UTF-16, UTF-32), which is removed because codes would read it as a part of the first word; otherwise
as UTF-8. Letters of Windows-1252 (Latin-1) are accepted where codes skip them: after `#` or `!`, in lines that begin
with `*`, in titles (the line after `TITLE` or `#PlanName`), and in values of an image header. Other files are binary:
they are sent as base64, and refused where text is needed. Names that end in `.raw` or `.zraw` are always binary. Lines
end with LF or CR LF.

**Files.** Hidden files and backups of editors (`x~`, `#x#`, `~$x`, `.bak`) in a folder or archive are left out. Names
of backups are listed. Files that a program writes itself, of an earlier run in the same folder, are not given to it
again: `shieldhit*.log`, `*.bdo`, `task001*`, tables of TOPAS with the names of its scorers, `output.log`.

Names of output files in the input must be plain: letters, digits and `_ . + -`, without a folder. FLUKA, SHIELD-HIT12A
and TOPAS input from which no results could be read (no scorer, or none in a format that is read) is refused, unless
external workers run it.

MCsquare gets files that are generated from the parsed input. The other codes get their files as they are, apart from
the decoding and LF line ends, with the primaries and the seed of each task: [Programs of a
site](#programs-of-a-site). External workers set these two themselves.

[Projects of the web editor](projects.md) become input files: what each code gets, and how that differs from what other
converters write.
"""
_CODE_NOTES = {
    "mcsquare": "[MCsquare](mcsquare.md) describes its input.",
    "topas": (
        "The job is the file that no other one includes. Primaries: the histories of all sources, multiplied by the "
        "number of sequential times. If they cannot be evaluated from the files, the number is asked for."
    ),
    "fluka": "The deck is the `.inp` file that no other one includes. Primaries: WHAT(1) of START.",
    "shieldhit": "The files are `beam.dat`, `mat.dat`, `geo.dat` and `detect.dat`. Primaries: NSTAT in `beam.dat`.",
}


def _codes() -> Iterator[str]:
    yield _CODES
    yield _SITE_PROGRAMS
    yield _table(("", "SHIELD-HIT12A", "FLUKA", "TOPAS"), _SITE_RUNS)
    yield _SITE_RESULTS
    decks = list(read_decks())
    for code, note in _CODE_NOTES.items():
        yield f"## {get_simulator(code).title}"
        yield note
        rows = [_deck_row(deck) for deck in decks if deck.code == code]
        yield _table(("input", "outcome", "decided by"), sorted(rows, key=lambda row: row[1] != "accepted"))


_SITE_PROGRAMS = """
## Programs of a site

SHIELD-HIT12A, FLUKA and TOPAS are given out under licences of their own, so yaptide cannot install them. A site points
to its own program. The results are read by [pymchelper](https://github.com/DataMedSci/pymchelper) (MIT; its FLUKA
reader has code of flair, which is for non-commercial use), on workers and on the server:

    pip install 'yaptide[codes]'
    yaptide simulators add shieldhit --program /opt/shieldhit/bin/shieldhit
    yaptide simulators add fluka --program /opt/fluka4/bin/rfluka
    yaptide simulators add topas --program /opt/topas/bin/topas
    yaptide simulators test fluka

`add` runs a sample, 150 MeV protons in water, and accepts the program if R80 is within 2 mm of the known range. `test`
does the same later and prints range, expectation and tolerance, with `--json` for scripts; its exit code is 1 if they
differ. On a cluster, the path is a property of the cluster: `yaptide clusters update ares --simulator
fluka=/opt/fluka4/bin/rfluka`. A code that is not set up still runs on [external workers](workers.md).

Programs run with `PATH`, `HOME`, `LANG` and `TMPDIR` only. For others, such as `FLUPRO`, `TOPAS_G4_DATA_DIR` and
`LD_LIBRARY_PATH`, add a script that sets them and ends with `exec /opt/topas/bin/topas "$@"`; on clusters the job
script of the cluster can set them. The stored digest is that of the added file: of the script `rfluka`, not of the
executable that it starts.
"""

_SITE_RUNS = (
    ("command", "`shieldhit .`", "`rfluka -M 1 task.inp`", "`topas yaptide_task.txt`"),
    (
        "primaries and seed",
        "NSTAT and RNDSEED in `beam.dat`",
        "START and RANDOMIZ in the deck, other columns kept; a RANDOMIZ is added if there is none",
        "a file that includes the job, with histories of all sources in their proportions, the seed, one thread",
    ),
    ("seeds", "below 2^31", "reduced to below 9e8, the limit of the manual", "below 2^31"),
    (
        "progress",
        "`shieldhit*.log`: `Primary particle no.`",
        "`task001.out`: particles handled, before `NEXT SEEDS`",
        "output: `History:`; it begins again at each sequential time",
    ),
    (
        "success",
        "`Run time:` in the log",
        "`End of FLUKA ... run` in `task001.out`",
        "`TOPAS run sequence complete`",
    ),
    (
        "results",
        "a `.bdo` file (2019 format) for each `Output` of `detect.dat`",
        "binary files of USRBIN, USRBDX and USRTRACK",
        "`.csv` tables with a mean, or with a sum if there is none",
    ),
    ("estimators", "called like the output", "called like the unit: `21`", "called like the file"),
    ("logs kept", "output, `shieldhit*.log`", "output, `.out`, `.log`, `.err`", "output"),
)

_SITE_RESULTS = """
The exit code alone decides nothing. A run also fails if an output is missing or incomplete, or has another number of
primaries than requested, as in a version for evaluation. Other outputs are not read: the ASCII files of FLUKA and its
other scorers, binary tables, histograms and phase spaces of TOPAS, `.bdo` files of SHIELD-HIT12A before 2019. Pages
with more than three axes are left out and named in the metadata of their estimator (`left_out`).

Pages of tasks are merged as the code's file says (`page_normalized`): 0 takes the first task, 1 is the sum, 2 and 3
the mean weighted by primaries, 4 all particles. TOPAS tables are means (units end in `/prim`) or sums; its LET is a
ratio, also where the table says Sum, and merged like a mean. FLUKA's pages are means per primary; pymchelper converts
GeV to MeV and calls the unit of ENERGY `MeV`, which is per cm3 in a mesh.

Output files are read in a process with limits of memory and time that depend on their size. A file that exceeds them,
or is not what the code writes, fails its task.

**What was verified.** None of the three programs was available when this was written. Readers were tried with real
`.bdo` files of SHIELD-HIT12A 1.0.1 and 1.1.1; units, names and axes were compared with results of recorded runs of
SHIELD-HIT12A 1.0.1 and FLUKA. Everything else was tested with stand-ins in `tests/support/standins`, which check the
input by the manuals, print what the programs print, and write their formats. The merged values equal pymchelper's to
1e-12. The first proof with the real program is `yaptide simulators add`. The known range of SHIELD-HIT12A is 157.1 mm
(recorded, with an energy spread of 1.5 MeV), that of the others 157.7 mm (PSTAR).
"""


def _deck_row(deck: Deck) -> tuple[str, str, str]:
    return deck.input, "accepted" if deck.primaries else f"refused: *{deck.message} ...*", deck.manual


_SETTINGS = """
# Settings

Settings are environment variables, or lines `NAME=value` in a file: `.env` in the working directory, or the file in
`YAPTIDE_ENV_FILE`. Variables override the file. An invalid value stops yaptide with a message.
"""


def _settings() -> Iterator[str]:
    yield _SETTINGS
    yield _table(("variable", "default", "meaning"), map(_setting, Settings.model_fields.values()))


def _setting(field: FieldInfo) -> tuple[str, str, str]:
    """Return a row for a setting. Secret or machine-dependent defaults follow "Default:" in the description."""
    meaning, _, default_text = (field.description or "").partition(" Default: ")
    if default_text:
        default = default_text.removesuffix(".")
    elif isinstance(field.default, SecretStr) or field.default_factory:
        raise ValueError(f"The description of {field.validation_alias} must give its default after 'Default:'")
    else:
        default = f"`{field.default}`"
    return f"`{field.validation_alias}`", default, meaning


_COMMAND_LINE = """
# Command line

Commands use the database of the [settings](settings.md) directly; they do not need a running server. `run`, `list`,
`status`, `results`, `logs`, `history`, `cancel` and `delete` also work on a server, with the same output: the one in
`--server`, else in `YAPTIDE_URL` (with the token in `YAPTIDE_TOKEN`), else the one of the last `yaptide login`. Without
any of them, and with `--server local`, they use the database. A command that works on a server says so on standard
error. There it sees the simulations of its user only. [Scripts that run for days](long-scripts.md) has examples.

Data is printed
to standard output, messages to standard error. Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 130
interrupted.
"""

_JSON = """
## JSON

With `--json` a command prints one JSON object. Times are ISO 8601 with their offset from UTC. Later versions may add
keys. `a[].b` is the key `b` of each entry in the list `a`.
"""

_TASK_KEYS = {
    "tasks[].task_id": "number of the task, from 0",
    "tasks[].task_state": "state",
    "tasks[].requested_primaries": "primaries to simulate",
    "tasks[].simulated_primaries": "primaries simulated so far",
    "tasks[].start_time": "start, or null",
    "tasks[].end_time": "end, or null",
    "tasks[].last_update_time": "last report, or null",
    "tasks[].estimated_time": "seconds left as estimated by the simulator, or null",
}

_USER_KEYS = {
    "users[].id": "number of the user",
    "users[].username": "name for signing in",
    "users[].auth_provider": "`YaptideUser`: password stored here; `KeycloakUser`: signs in through Keycloak",
    "users[].simulations": "number of simulations",
    "users[].stored_bytes": "bytes of the simulations in the database",
    "users[].quota_bytes": "maximum of `stored_bytes`; null: no limit",
    "users[].issuer": "Keycloak realm for signing in; null: none, or not known yet",
    "users[].subject": "user ID in this realm; null: none, or not known yet",
}

#: Keys in the JSON output of commands: `[]` stands for each entry of a list.
JSON: Mapping[str, Mapping[str, str]] = {
    "yaptide run --json, yaptide status --json": {
        "job_id": "job id of the simulation",
        "job_state": "state, see [states.md](states.md)",
        "title": "title given by the user",
        "user": "owner",
        "sim_type": "simulator",
        "platform": "`DIRECT`: executor or workers of the server; `BATCH`: cluster",
        "simulator_version": "version of the simulator; null before the first task",
        "simulator_digest": "SHA-256 of the simulator's program; null before the first task",
        "start_time": "submission",
        "end_time": "end, or null",
        "reason": "why it failed, or null",
        "requested_primaries": "primaries of all tasks",
        "simulated_primaries": "primaries simulated so far",
        "stored_bytes": "bytes of input, results and log files in the database",
        "waiting": "why a PENDING simulation cannot start, or null",
        "queue": "number of tasks waiting on a cluster, with the reason given by the cluster",
        "bragg_peak": "range from the first depth-dose curve (integral or central axis); null if there is none",
        "bragg_peak.depth_mm": "depth of the maximum, in mm whatever the unit of the axis",
        "bragg_peak.r80_mm": "depth behind it where the dose has fallen to 80 % of the maximum, in mm",
        "bragg_peak.bin_mm": "distance of the depths between which R80 is interpolated, in mm",
        "no_range": "why there is no range; null if there is one, or no results yet",
        "refused": "pages left out of the results: `estimator`, `page`, `reason`",
        **_TASK_KEYS,
    },
    "yaptide results --json": {
        "message": "`Results`; with `--pages` the pages follow as `pages[]`, without `estimators`",
        "estimators[].name": "name of the estimator",
        "estimators[].metadata": "other information about it, name to text",
        "estimators[].pages[].dimensions": "number of axes",
        "estimators[].pages[].data.name": "name of the quantity",
        "estimators[].pages[].data.unit": "unit",
        "estimators[].pages[].data.values": "values, first axis fastest",
        "estimators[].pages[].data.errors": "standard error of each value, null where unknown; missing for one task",
        "estimators[].pages[].axis_dim1.name": "name of the first axis; the others are `axis_dim2` and `axis_dim3`",
        "estimators[].pages[].axis_dim1.unit": "unit",
        "estimators[].pages[].axis_dim1.values": "centres of the bins",
        "estimators[].pages[].metadata": "`page_number`, `name`, `unit`, `aggregation` and more, name to text",
    },
    "yaptide list --json": {
        "simulations_count": "total number of simulations",
        "simulations[].job_id": "job id of the simulation",
        "simulations[].title": "title given by the user",
        "simulations[].start_time": "submission",
        "simulations[].end_time": "end, or null",
        "simulations[].platform": "`DIRECT` or `BATCH`",
        "simulations[].input_type": "`FILES` or `EDITOR`",
        "simulations[].sim_type": "simulator",
        "simulations[].job_state": "state",
        "simulations[].waiting": "why a PENDING simulation cannot start, or null",
    },
    "yaptide history --json": {
        "job_id": "job id of the simulation",
        "history[].task_id": "number of the task; null: the simulation itself",
        "history[].from_state": "state before; null: creation",
        "history[].to_state": "state after",
        "history[].time": "time",
        "history[].actor": "a user, an executor, a worker, or the recovery",
        "history[].reason": "reason, or null",
    },
    "yaptide logs --json": {"logfiles": "name of each file to its text"},
    "yaptide users list --json": _USER_KEYS,
    "yaptide users show --json": {
        **{key.removeprefix("users[]."): meaning for key, meaning in _USER_KEYS.items()},
        "has_certificate": "whether there is an SSH certificate",
        "certificate_valid_until": "expiry of the certificate; null: no readable certificate",
    },
    "yaptide users link --json": {
        "username": "name of the account",
        "issuer": "Keycloak realm of the new owner; null: the next user who signs in with the name",
        "subject": "user ID in this realm; null: as above",
    },
    "yaptide simulations list --json": {
        "simulations_count": "total number of simulations",
        "simulations[].job_id": "job id of the simulation",
        "simulations[].username": "owner",
        "simulations[].auth_provider": "how the owner signs in",
        "simulations[].title": "title given by the user",
        "simulations[].sim_type": "simulator",
        "simulations[].platform": "`DIRECT` or `BATCH`",
        "simulations[].job_state": "state",
        "simulations[].start_time": "submission",
        "simulations[].end_time": "end, or null",
        "simulations[].stored_bytes": "bytes in the database",
    },
    "yaptide tasks list --json": {
        "tasks_count": "total number of tasks",
        "tasks[].job_id": "job id of the simulation",
        **{key: meaning for key, meaning in _TASK_KEYS.items() if key != "tasks[].estimated_time"},
        "tasks[].attempts": "number of attempts",
    },
    "yaptide clusters list --json": {
        "clusters[].cluster_name": "name of the cluster",
        "clusters[].host": "host name of the login node, or null",
        "clusters[].port": "port of the SSH server",
        "clusters[].scratch_folder": "folder for job folders, or null",
        "clusters[].simulations": "number of simulations",
    },
    "yaptide clusters show --json": {
        "cluster_name": "name of the cluster",
        "host": "host name of the login node, or null",
        "port": "port of the SSH server",
        "host_key": "host keys or host CA, as lines of known_hosts, or null",
        "scratch_folder": "folder for job folders, or null; `{user}` is the account",
        "prologue": "shell lines that every job runs first, or null",
        "simulators": "paths of simulators by name",
        "sbatch_options": "options of every job, by name",
        "max_tasks": "maximum tasks of one simulation, or null",
        "max_running": "maximum running tasks of one simulation, or null",
        "keep_failed_days": "days for which folders of failed jobs are kept",
    },
    "yaptide simulators list --json": {
        "simulators[].name": "name, as in `--sim-type`",
        "simulators[].title": "official name",
        "simulators[].version": "installed version, or null",
        "simulators[].program": "path of the program, or null",
        "simulators[].digest": "SHA-256 (hexadecimal) of the program, or null",
        "simulators[].note": "why it cannot run here, or null",
    },
    "yaptide simulators show --json": {
        "name": "name, as in `--sim-type`",
        "title": "official name",
        "version": "installed version, or null",
        "program": "path of the program, or null",
        "digest": "SHA-256 (hexadecimal) of the program, or null",
        "note": "why it cannot run here, or null",
        "projects": "whether it accepts projects of the web editor",
        "clusters": "whether it can run on clusters",
        "particles": "beam particles, if known",
        "quantities": "quantities that it scores, if known",
    },
    "yaptide simulations key --json": {
        "job_id": "job id of the simulation",
        "simulation_id": "number of the simulation, for workers",
        "update_key": "update key, for workers' reports",
    },
    "yaptide purge --json": {
        "dry_run": "whether this was a dry run",
        "keep_inputs": "whether only results and log files were selected",
        "simulations[].job_id": "job id of a selected simulation",
        "simulations[].username": "owner",
        "simulations[].job_state": "state",
        "simulations[].end_time": "end",
        "simulations[].stored_bytes": "bytes in the database",
        "simulations[].removed": "whether it, or its results and log files, were removed",
    },
    "yaptide db check --json": {
        "findings[].kind": "violated rule",
        "findings[].where": "row, in terms of job ids and names",
        "findings[].what": "problem",
        "findings[].repairable": "whether `--repair` can repair it",
        "findings[].acknowledged": "whether `db adopt` kept it on purpose; such findings do not count as left",
        "findings[].repaired": "whether it was repaired",
        "left": "number of remaining findings",
    },
    "yaptide db stats --json": {
        "rows": "name of each table to its number of rows",
        "payloads[].kind": "`input`, `estimator`, `page` or `logfiles`",
        "payloads[].payloads": "number of payloads",
        "payloads[].stored_bytes": "bytes in the database",
        "payloads[].text_bytes": "bytes of their JSON text",
        **_USER_KEYS,
        "largest[].job_id": "job id of one of the largest simulations",
        "largest[].username": "owner",
        "largest[].job_state": "state",
        "largest[].stored_bytes": "bytes in the database",
        "disk_bytes": "bytes of the whole database on disk",
    },
    "yaptide db current --json": {
        "revision": "revision of the tables, or null",
        "head": "revision that this version of yaptide needs",
        "condition": "`empty`, `current`, `behind`, or `foreign` (not created by yaptide, or by a newer version)",
    },
}


def _command_line() -> Iterator[str]:
    yield _COMMAND_LINE
    yield from _helps(get_command(cli.app), "yaptide", None)
    yield _JSON
    for command, keys in JSON.items():
        yield f"### {command}"
        yield _table(("key", "meaning"), ((f"`{key}`", meaning) for key, meaning in keys.items()))


def _helps(command: Any, name: str, parent: Any) -> Iterator[str]:
    # The parent's context provides the width and the beginning of the command's name.
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH)
    yield f"## {context.command_path}"
    yield _code(command.get_help(context), "text")
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _helps(subcommand, inner, context)


def _described(command: Any, name: str, parent: Any) -> dict[str, Any]:
    """Return what `yaptide.admin.quick_help` needs to know about a command and its subcommands."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=_TERMINAL_WIDTH)
    options = [option for option in command.get_params(context) if option.param_type_name == "option"]
    description = {
        "help": command.get_help(context),
        "short": command.get_short_help_str(_TERMINAL_WIDTH),
        "options": {
            " ".join([*option.opts, *option.secondary_opts]): [option.help, not option.is_flag]
            for option in options
            if not _NOT_OURS & {*option.opts} and not option.hidden
        },
    }
    commands = getattr(command, "commands", None)
    if commands is None:
        return description
    return description | {
        "commands": {inner: _described(subcommand, inner, context) for inner, subcommand in commands.items()}
    }


_STATES = """
# States

The tables in `yaptide/domain/states.py` define which state may follow which. One function changes the state of a
simulation or task: with a guarded `UPDATE` that does nothing if the transition is not in the table. Each transition
adds a row to the history (`yaptide history`, `GET /jobs/history`) in the same transaction. A final state never changes.
"""

_STATES_END = """
An arrow from the frame starts at every state inside: reports may get lost, so results or a failure can arrive in any of
them. `UNKNOWN` is for simulations added by other programs.
"""

_MEANINGS = {
    _S.UNKNOWN: ("not accepted by the cluster yet", "not accepted by the cluster yet"),
    _S.PENDING: ("no task has started", "waits to be run"),
    _S.RUNNING: ("a task has started, and not all have ended", "is running"),
    _S.MERGING_QUEUED: ("all tasks have ended, and some have results to merge", ""),
    _S.MERGING_RUNNING: ("the results of its tasks are being merged", ""),
    _S.COMPLETED: ("all tasks are completed and the results are stored, or a worker reported so", "has results"),
    _S.FAILED: ("a task or the merge failed; results of other tasks are kept", "failed; its log is kept"),
    _S.CANCELED: ("canceled by its user", "its simulation was canceled"),
}

#: Causes of the transitions to states that are not final.
STEPS = {
    "simulation": {
        (_S.UNKNOWN, _S.PENDING): "the cluster accepted it",
        (_S.UNKNOWN, _S.RUNNING): "a task started",
        (_S.PENDING, _S.RUNNING): "a task started",
        (_S.PENDING, _S.MERGING_QUEUED): "all tasks ended, some completed",
        (_S.PENDING, _S.MERGING_RUNNING): "a worker merges",
        (_S.RUNNING, _S.MERGING_QUEUED): "all tasks ended, some completed",
        (_S.RUNNING, _S.MERGING_RUNNING): "a worker merges",
        (_S.MERGING_QUEUED, _S.MERGING_RUNNING): "merge claimed",
        (_S.MERGING_RUNNING, _S.MERGING_QUEUED): "merge stalled",
    },
    "task": {
        (_S.UNKNOWN, _S.PENDING): "the cluster accepted it",
        (_S.UNKNOWN, _S.RUNNING): "it started",
        (_S.PENDING, _S.RUNNING): "it started",
        (_S.RUNNING, _S.PENDING): "worker stalled or stopped",
    },
}


def _states() -> Iterator[str]:
    yield _STATES
    rows = (
        (f"`{state}`", "yes" if state in FINAL_STATES else "", *(meaning or "-" for meaning in meanings))
        for state, meanings in _MEANINGS.items()
    )
    yield _table(("state", "final", "a simulation", "a task"), rows)
    for heading, transitions, states in (
        ("simulation", SIMULATION_TRANSITIONS, frozenset(EntityState)),
        ("task", TASK_TRANSITIONS, TASK_STATES),
    ):
        yield f"## States of a {heading}"
        yield _code(_state_diagram(transitions, states, STEPS[heading]), "mermaid")
    yield _STATES_END


def _state_diagram(
    transitions: Transitions, states: frozenset[EntityState], steps: Mapping[tuple[EntityState, EntityState], str]
) -> str:
    """Return the diagram of a transition table; transitions from all states that are not final are drawn once."""
    unfinished = [state for state in EntityState if state in states - FINAL_STATES]
    common = frozenset.intersection(*(transitions[state] for state in unfinished))
    lines = ["stateDiagram-v2", "    direction LR", '    state "not ended" as open {']
    lines += [f"        {state}" for state in unfinished]
    for state in unfinished:
        for target in (target for target in EntityState if target in transitions[state] - common):
            lines.append(f"        {state} --> {target} : {steps[state, target]}")
    lines.append("    }")
    lines += [f"    open --> {target}" for target in EntityState if target in common]
    return "\n".join(lines)


_API = """
# REST API

Request and response bodies are JSON. A running server provides the same description at `/openapi.json` (OpenAPI 3.1)
and as a page at `/docs`. `/metrics` is for Prometheus: see [serving](serving.md).

Signing in sets the cookies `access_token_…`, `refresh_token_…` and `known_device_…`, which only records a successful
sign-in from this browser ([serving](serving.md#signing-in)). The suffix of their names distinguishes installations on
one host. Scripts can send the access token as `Authorization: Bearer <token>` instead. `GET /auth/refresh` returns a
new access token. Requests with the cookies of an expired session get 403, `Log in again`; `GET /auth/refresh` gets 401,
as without cookies. Workers do not sign in: they authenticate with the update key of their simulation, which is valid
for that simulation only, and until `YAPTIDE_UPDATE_KEY_DAYS` after its end. [Results as
JSON](command-line.md#yaptide-results---json) describes the estimators and pages of `/results`.

Every error is `{"message": "..."}` with one of these statuses. Each route lists its errors, except those that every
route can return: {}.
"""


_FILE = "application/octet-stream"


def _api() -> Iterator[str]:
    app = create_app(Settings(_env_file=None, database_uri="sqlite://", signing_key=SecretStr("x" * 32)))
    with app.app_context():
        spec = json.loads(json.dumps(app.spec))
    operations = [operation for path in spec["paths"].values() for operation in path.values()]
    anywhere = set.intersection(*(_errors(operation) for operation in operations))
    errors = {
        name.removeprefix("Error"): error["description"] for name, error in spec["components"]["responses"].items()
    }
    yield _API.replace("{}.", f"{', '.join(sorted(anywhere))}.")
    yield _table(("status", "meaning"), errors.items())
    for tag in spec["tags"]:
        yield f"## {tag['name']}"
        for names, operation in _operations(spec, tag["name"]):
            yield from _operation(spec, names, operation, _errors(operation) - anywhere)


def _operations(spec: Any, tag: str) -> list[tuple[list[str], dict[str, Any]]]:
    """Return operations with their routes, in the order of the routes; identical operations are merged."""
    merged: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for path, operations in sorted(spec["paths"].items()):
        for method, operation in sorted(operations.items()):
            name = f"{method.upper()} {path}"
            key = json.dumps([method, operation], sort_keys=True)
            if tag in operation["tags"]:
                merged.setdefault(key, ([], operation))[0].append(name)
    return list(merged.values())


def _errors(operation: Mapping[str, Any]) -> set[str]:
    return {status for status in operation["responses"] if status >= "400"}


def _operation(spec: Any, names: Sequence[str], operation: Mapping[str, Any], errors: Collection[str]) -> Iterator[str]:
    yield "### " + ", ".join(f"`{name}`" for name in names)
    yield "\n".join(filter(None, (operation["summary"], operation.get("description"))))
    lines = [f"- For: {operation['x-for']}"]
    if "x-scope" in operation:
        lines.append(f"- Scope that a token needs: {operation['x-scope']}")
    for status, response in operation["responses"].items():
        if status < "400":
            keys = _content(spec, response["content"]) if response.get("content") else ""
            lines.append(f"- Response {status}: {keys or response['description']}")
    if errors:
        lines.append(f"- Errors: {', '.join(sorted(errors))}")
    yield "\n".join(lines)
    query = [
        (_parameter(parameter), "yes" if parameter["required"] else "", _type(spec, parameter["schema"]))
        for parameter in operation["parameters"]
    ]
    if query:
        yield _table(("query", "required", "value"), query)
    content = operation.get("requestBody", {}).get("content", {})
    if _FILE in content:
        yield "The body is a file."
    elif content:
        schema = content["application/json"]["schema"]
        body = [(f"`{name}`", "yes" if need else "", _type(spec, value)) for name, need, value in _keys(spec, schema)]
        yield _table(("body", "required", "value"), body)


def _parameter(parameter: Mapping[str, Any]) -> str:
    return f"`{parameter['name']}`" + (" (header)" if parameter["in"] == "header" else "")


def _content(spec: Any, content: Mapping[str, Any]) -> str:
    """Return the keys of a response, or that it is a file."""
    if _FILE in content:
        return "a file"
    return ", ".join(f"`{name}`" for name, _, _ in _keys(spec, content["application/json"]["schema"]))


def _resolved(spec: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema behind a reference, or the schema of a value that may also be null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, **_resolved(spec, choices[0])}
    if "$ref" in schema:
        referenced: Mapping[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return referenced
    return schema


def _keys(spec: Any, schema: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """Yield name, whether it is required, and schema of every key of an object, including nested objects."""
    whole = _resolved(spec, schema)
    for name, value in whole.get("properties", {}).items():
        resolved = _resolved(spec, value)
        inner = _resolved(spec, resolved.get("items", {}))
        if "properties" in inner:
            yield from _keys(spec, inner, f"{before}{name}[].")
        elif "properties" in resolved:
            yield from _keys(spec, resolved, f"{before}{name}.")
        else:
            yield f"{before}{name}", name in whole.get("required", ()), resolved


_LIMITS = {"minimum": "at least {}", "maximum": "at most {}", "maxLength": "at most {} characters"}


def _type(spec: Any, schema: Mapping[str, Any]) -> str:
    """Return type, limits, default and meaning of a value as text."""
    resolved = _resolved(spec, schema)
    if "enum" in resolved:
        words = ["one of " + ", ".join(f"`{value}`" for value in resolved["enum"])]
    else:
        words = [
            str(resolved.get("type", "any")),
            *(text.format(resolved[n]) for n, text in _LIMITS.items() if n in resolved),
        ]
    if resolved.get("default") not in (None, ""):
        words.append(f"default `{resolved['default']}`")
    meaning = resolved.get("description", "") if "enum" not in resolved else ""
    return ", ".join(words) + (f". {meaning}" if meaning else "")


_DATABASE = """
# Database

The models in `yaptide/persistence/models/` define the tables; `yaptide db upgrade` creates and upgrades them. They are
the same on SQLite and PostgreSQL. The types below are those of PostgreSQL; SQLite stores times as text in UTC and bytes
as BLOB. PostgreSQL needs quotes around names of tables: `SELECT title FROM "Simulation"`.

A column `compressed_data` contains one gzip member of JSON text, which any tool can read: in Python,
`json.loads(gzip.decompress(data))`. `yaptide/persistence/codec.py` describes its layout.

## Relations

![Tables with columns, inheritance and cardinality](images/database.svg)

The same as text; `yaptide db diagram` prints it and draws the image.

`<|--`: a row of the table below has a row of the same `id` in the table above (joined-table inheritance). `?`: may be
null. PK: primary key. FK: foreign key.
"""


def _database() -> Iterator[str]:
    yield _DATABASE
    yield _code(diagram.class_diagram(), "mermaid")
    yield "## Tables"
    for mapper in diagram.list_mappers():
        yield from _model(mapper)


def _model(mapper: Mapper[Any]) -> Iterator[str]:
    table = mapper.local_table
    yield f"### {table.description}"
    yield " ".join((mapper.class_.__doc__ or "").split())
    yield _table(("column", "type", "null", "key", "meaning"), map(_column, table.columns))
    rules = sorted(filter(None, map(_rule, (*getattr(table, "constraints", ()), *getattr(table, "indexes", ())))))
    if rules:
        yield "\n".join(f"- {rule}" for rule in rules)


def _column(column: KeyedColumnElement[Any]) -> tuple[str, ...]:
    keys = ["primary"] if column.primary_key else []
    for key in column.foreign_keys:
        deleted = "deleted with it" if key.ondelete == "CASCADE" else "prevents its deletion"
        keys.append(f"`{key.target_fullname}`, {deleted}")
    kind = column.type.compile(dialect=postgresql.dialect())
    null = "yes" if getattr(column, "nullable", False) else ""
    return f"`{column.name}`", kind, null, "; ".join(keys), str(getattr(column, "doc", "") or "")


def _rule(rule: Constraint | Index) -> str:
    """Return a constraint or an index as text; empty for keys, which are shown with the columns."""
    if isinstance(rule, UniqueConstraint):
        return f"Unique: {_names(rule.columns)}"
    if isinstance(rule, CheckConstraint):
        text = rule.sqltext.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
        own = f'"{rule.table.name}".'
        return f"Check: `{str(text).removeprefix(own)}`"
    if isinstance(rule, Index):
        only = rule.dialect_options["postgresql"]["where"]
        return f"Index: {_names(rule.columns)}" + ("" if only is None else f", of rows with `{only}`")
    return ""


def _names(columns: Iterable[KeyedColumnElement[Any]]) -> str:
    return ", ".join(f"`{column.name}`" for column in columns)


if __name__ == "__main__":
    main()
