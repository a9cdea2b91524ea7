"""Writes what is made from the code, documents above all: `python -m scripts.generate_docs [--check]`."""

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

ROOT = Path(__file__).parents[1]
_DESCRIPTION = quick_help.FILE.relative_to(ROOT).as_posix()
_WIDTH = 100
_TERMINAL_WIDTH = 80
_NOT_OURS = {"--help", "--install-completion", "--show-completion"}
_S = EntityState


def generate_documents() -> dict[str, str]:
    """File name and text of every generated document."""
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "docs/settings.md": _settings,
        "docs/command-line.md": _command_line,
        "docs/states.md": _states,
        "docs/api.md": _api,
        "docs/database.md": _database,
    }
    texts = {name: "\n\n".join(block.strip("\n") for block in maker()) + "\n" for name, maker in makers.items()}
    described = json.dumps(_described(get_command(cli.app), "yaptide", None), indent=1, ensure_ascii=False)
    return texts | {"docs/images/database.svg": draw_diagram("svg").decode(), _DESCRIPTION: f"{described}\n"}


def main() -> None:
    """Write the documents, or with `--check` name those that are not as the code would have them."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: python -m scripts.generate_docs [--check]")
    made = generate_documents()
    differing = [
        name for name, text in made.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != text
    ]
    if check:
        sys.exit("\n".join(f"{name} is out of date: make docs" for name in differing) or 0)
    for name in differing:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(made[name])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


_SETTINGS = """
# Settings

Settings are environment variables, or lines `NAME=value` in a file: `.env` in the working directory, or the one that
`YAPTIDE_ENV_FILE` names. A variable wins over the file. A value that cannot be used stops yaptide with a message.
"""


def _settings() -> Iterator[str]:
    yield _SETTINGS
    yield _table(("variable", "default", "meaning"), map(_setting, Settings.model_fields.values()))


def _setting(field: FieldInfo) -> tuple[str, str, str]:
    """What depends on the machine or is secret is told in words, after "Default:" in the description."""
    meaning, _, told = (field.description or "").partition(" Default: ")
    if told:
        default = told.removesuffix(".")
    elif isinstance(field.default, SecretStr) or field.default_factory:
        raise ValueError(f"The description of {field.validation_alias} has to tell its default in words")
    else:
        default = f"`{field.default}`"
    return f"`{field.validation_alias}`", default, meaning


_COMMAND_LINE = """
# Command line

Commands work on the database of the [settings](settings.md) directly; none of them needs a running server.
Data goes to standard output, everything said about it to standard error.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

_JSON = """
## JSON

With `--json` a command prints one JSON object. Times are ISO 8601 with their offset from UTC. Later versions may add
keys. `a[].b` is the key `b` of each entry of the list `a`.
"""

_TASK_KEYS = {
    "tasks[].task_id": "number of the task, from 0",
    "tasks[].task_state": "its state",
    "tasks[].requested_primaries": "primaries it has to simulate",
    "tasks[].simulated_primaries": "primaries it has simulated so far",
    "tasks[].start_time": "when it began to run, or null",
    "tasks[].end_time": "when it ended, or null",
    "tasks[].last_update_time": "when it last reported, or null",
    "tasks[].estimated_time": "seconds left as its simulator sees it, or null",
}

_USER_KEYS = {
    "users[].id": "number of the user",
    "users[].username": "name to sign in with",
    "users[].auth_provider": "`YaptideUser`: a password kept here; `KeycloakUser`: signs in through Keycloak",
    "users[].simulations": "number of simulations",
    "users[].stored_bytes": "bytes that these take in the store",
    "users[].quota_bytes": "bytes that they may take; null: no limit",
    "users[].issuer": "realm of Keycloak in which they sign in; null: none, or not known yet",
    "users[].subject": "their ID there; null: none, or not known yet",
}

#: Keys of what commands print with `--json`: `[]` stands for each entry of a list.
JSON: Mapping[str, Mapping[str, str]] = {
    "yaptide run --json, yaptide status --json": {
        "job_id": "public name of the simulation",
        "job_state": "its state, see [states.md](states.md)",
        "title": "what its user calls it",
        "user": "whose it is",
        "sim_type": "simulator",
        "platform": "`DIRECT`: own workers; `BATCH`: a cluster",
        "simulator_version": "version of the simulator that ran it; null before the first task",
        "simulator_digest": "SHA-256 of the simulator's program; null before the first task",
        "start_time": "when it was submitted",
        "end_time": "when it ended, or null",
        "reason": "why it failed, or null",
        "requested_primaries": "primaries of all tasks",
        "simulated_primaries": "primaries simulated so far",
        "stored_bytes": "bytes that its input, results and log files take in the store",
        "waiting": "why nobody who is there can take it, or null; only of what is PENDING",
        "queue": "of tasks that wait on a cluster: how many, and what the cluster says of them",
        "bragg_peak": "what the first depth-dose curve tells; null if there is no range",
        "bragg_peak.depth_mm": "depth of the maximum, in mm whatever the unit of the axis",
        "bragg_peak.r80_mm": "depth behind it where 80 % of the maximum are left, in mm",
        "bragg_peak.bin_mm": "distance of the depths that this is interpolated between, in mm",
        "no_range": "why the results tell no range; null if they do, or if there are no results yet",
        "refused": "pages of the results that could not be kept: `estimator`, `page`, `reason`",
        **_TASK_KEYS,
    },
    "yaptide results --json": {
        "message": "`Results`; with `--pages` the pages follow as `pages[]`, without `estimators`",
        "estimators[].name": "name of the estimator",
        "estimators[].metadata": "what else is known of it, name to text",
        "estimators[].pages[].dimensions": "number of axes",
        "estimators[].pages[].data.name": "name of the quantity",
        "estimators[].pages[].data.unit": "its unit",
        "estimators[].pages[].data.values": "values, the first axis fastest",
        "estimators[].pages[].data.errors": "standard error of each value, null where unknown; left out for one task",
        "estimators[].pages[].axis_dim1.name": "name of the first axis; the others are `axis_dim2` and `axis_dim3`",
        "estimators[].pages[].axis_dim1.unit": "its unit",
        "estimators[].pages[].axis_dim1.values": "centres of its bins",
        "estimators[].pages[].metadata": "`page_number`, `name`, `unit`, `aggregation` and more, name to text",
    },
    "yaptide list --json": {
        "simulations_count": "how many there are in all",
        "simulations[].job_id": "public name of the simulation",
        "simulations[].title": "what its user calls it",
        "simulations[].start_time": "when it was submitted",
        "simulations[].end_time": "when it ended, or null",
        "simulations[].platform": "`DIRECT` or `BATCH`",
        "simulations[].input_type": "`FILES` or `EDITOR`",
        "simulations[].sim_type": "simulator",
        "simulations[].job_state": "its state",
        "simulations[].waiting": "why nobody who is there can take it, or null",
    },
    "yaptide history --json": {
        "job_id": "public name of the simulation",
        "history[].task_id": "number of the task; null: the simulation itself",
        "history[].from_state": "state before; null: it was made",
        "history[].to_state": "state after",
        "history[].time": "when",
        "history[].actor": "who: a user, an executor, a worker, the recovery",
        "history[].reason": "why, or null",
    },
    "yaptide logs --json": {"logfiles": "name of the file to its text"},
    "yaptide users list --json": _USER_KEYS,
    "yaptide users show --json": {
        **{key.removeprefix("users[]."): meaning for key, meaning in _USER_KEYS.items()},
        "has_certificate": "whether there is an SSH certificate",
        "certificate_valid_until": "when it ends; null: there is none that can be read",
    },
    "yaptide users link --json": {
        "username": "name of the account",
        "issuer": "realm of Keycloak in which its user signs in; null: whoever signs in next by its name",
        "subject": "their ID there; null: as above",
    },
    "yaptide simulations list --json": {
        "simulations_count": "how many there are in all",
        "simulations[].job_id": "public name of the simulation",
        "simulations[].username": "whose it is",
        "simulations[].auth_provider": "how that user signs in",
        "simulations[].title": "what its user calls it",
        "simulations[].sim_type": "simulator",
        "simulations[].platform": "`DIRECT` or `BATCH`",
        "simulations[].job_state": "its state",
        "simulations[].start_time": "when it was submitted",
        "simulations[].end_time": "when it ended, or null",
        "simulations[].stored_bytes": "bytes that it takes in the store",
    },
    "yaptide tasks list --json": {
        "tasks_count": "how many there are in all",
        "tasks[].job_id": "public name of the simulation",
        **{key: meaning for key, meaning in _TASK_KEYS.items() if key != "tasks[].estimated_time"},
        "tasks[].attempts": "how often it was begun",
    },
    "yaptide clusters list --json": {
        "clusters[].cluster_name": "what users choose it by",
        "clusters[].host": "host name of its login node, or null",
        "clusters[].port": "port of its SSH server",
        "clusters[].scratch_folder": "where job folders are made there, or null",
        "clusters[].simulations": "number of simulations",
    },
    "yaptide clusters show --json": {
        "cluster_name": "what users choose it by",
        "host": "host name of its login node, or null",
        "port": "port of its SSH server",
        "host_key": "its host keys or host CA, as lines of known_hosts, or null",
        "scratch_folder": "where job folders are made there, or null; `{user}` is the account",
        "prologue": "shell lines that jobs begin with, or null",
        "simulators": "paths of simulators there, by name",
        "sbatch_options": "options of every job, by name",
        "max_tasks": "most tasks of one simulation, or null",
        "max_running": "most tasks of one simulation that run at once, or null",
        "keep_failed_days": "days for which the folder of a failed job is kept",
    },
    "yaptide simulators list --json": {
        "simulators[].name": "its name, as in `--sim-type`",
        "simulators[].title": "its name as its authors write it",
        "simulators[].version": "version installed here, or null",
        "simulators[].program": "path of the program, or null",
        "simulators[].digest": "SHA-256 (hexadecimal) of the program, or null",
        "simulators[].note": "why it cannot be run here, or null",
    },
    "yaptide simulators show --json": {
        "name": "its name, as in `--sim-type`",
        "title": "its name as its authors write it",
        "version": "version installed here, or null",
        "program": "path of the program, or null",
        "digest": "SHA-256 (hexadecimal) of the program, or null",
        "note": "why it cannot be run here, or null",
        "projects": "whether projects of the web editor are made for it",
        "clusters": "whether it can be run on clusters",
        "particles": "what it has beams of, as far as it is told",
        "quantities": "what it scores, as far as it is told",
    },
    "yaptide simulations key --json": {
        "job_id": "public name of the simulation",
        "simulation_id": "its number, by which workers call it",
        "update_key": "the key with which they report",
    },
    "yaptide purge --json": {
        "dry_run": "whether nothing was to be removed",
        "keep_inputs": "whether only results and log files were to be removed",
        "simulations[].job_id": "public name of an old simulation",
        "simulations[].username": "whose it is",
        "simulations[].job_state": "its state",
        "simulations[].end_time": "when it ended",
        "simulations[].stored_bytes": "bytes that it takes in the store",
        "simulations[].removed": "whether it, or its outputs, were removed",
    },
    "yaptide db check --json": {
        "findings[].kind": "which rule is broken",
        "findings[].where": "the row, as an operator knows it",
        "findings[].what": "what is wrong with it",
        "findings[].repairable": "whether `--repair` mends it",
        "findings[].repaired": "whether it did",
        "left": "number of findings that are left",
    },
    "yaptide db stats --json": {
        "rows": "name of the table to its number of rows",
        "payloads[].kind": "`input`, `estimator`, `page` or `logfiles`",
        "payloads[].payloads": "how many there are",
        "payloads[].stored_bytes": "bytes that they take in the store",
        "payloads[].text_bytes": "bytes of their JSON text",
        **_USER_KEYS,
        "largest[].job_id": "public name of one of the largest simulations",
        "largest[].username": "whose it is",
        "largest[].job_state": "its state",
        "largest[].stored_bytes": "bytes that it takes in the store",
        "disk_bytes": "bytes that the whole database takes on its disk",
    },
    "yaptide db current --json": {
        "revision": "revision of the tables, or null",
        "head": "revision that this version of yaptide works on",
        "condition": "`empty`, `current`, `behind`, or `foreign` (not made by yaptide, or by a newer one)",
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
    # The parent's context brings the width and the beginning of the command's name.
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH)
    yield f"## {context.command_path}"
    yield _code(command.get_help(context), "text")
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _helps(subcommand, inner, context)


def _described(command: Any, name: str, parent: Any) -> dict[str, Any]:
    """What `yaptide.admin.quick_help` has to know of a command and those below it."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=_TERMINAL_WIDTH)
    options = [option for option in command.get_params(context) if option.param_type_name == "option"]
    found = {
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
        return found
    return found | {"commands": {inner: _described(below, inner, context) for inner, below in commands.items()}}


_STATES = """
# States

The tables in `yaptide/domain/states.py` say which state may follow which. One function moves a simulation or a task:
a guarded `UPDATE`, which finds nothing to do if the step is not in the table. Each step leaves a row in the history
(`yaptide history`, `GET /jobs/history`) in the same transaction. A final state never changes.
"""

_STATES_END = """
An arrow from the frame begins at every state inside: since reports get lost, results or a failure can arrive in any of
them. `UNKNOWN` is for simulations that another program has put here.
"""

_MEANINGS = {
    _S.UNKNOWN: ("a cluster has not accepted it yet", "a cluster has not accepted it yet"),
    _S.PENDING: ("no task has begun", "waits for somebody to run it"),
    _S.RUNNING: ("a task has begun, and not all have ended", "somebody runs it"),
    _S.MERGING_QUEUED: ("all tasks have ended, and some left scores to merge", ""),
    _S.MERGING_RUNNING: ("somebody merges the scores of its tasks", ""),
    _S.COMPLETED: ("every task is completed and the results are stored, or its worker says so", "it left its scores"),
    _S.FAILED: ("a task failed, or the merge; results of the other tasks are kept", "it failed; its log is kept"),
    _S.CANCELED: ("its user canceled it", "its simulation was canceled"),
}

#: When each step happens that does not end a simulation or task.
STEPS = {
    "simulation": {
        (_S.UNKNOWN, _S.PENDING): "the cluster accepted it",
        (_S.UNKNOWN, _S.RUNNING): "a task began",
        (_S.PENDING, _S.RUNNING): "a task began",
        (_S.PENDING, _S.MERGING_QUEUED): "all tasks ended, some completed",
        (_S.PENDING, _S.MERGING_RUNNING): "a worker merges",
        (_S.RUNNING, _S.MERGING_QUEUED): "all tasks ended, some completed",
        (_S.RUNNING, _S.MERGING_RUNNING): "a worker merges",
        (_S.MERGING_QUEUED, _S.MERGING_RUNNING): "somebody merges",
        (_S.MERGING_RUNNING, _S.MERGING_QUEUED): "who merged went silent",
    },
    "task": {
        (_S.UNKNOWN, _S.PENDING): "the cluster accepted it",
        (_S.UNKNOWN, _S.RUNNING): "it began",
        (_S.PENDING, _S.RUNNING): "it began",
        (_S.RUNNING, _S.PENDING): "who ran it went silent or was stopped",
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
    """The diagram of a table of transitions; what may follow every state that is not final is drawn once."""
    begun = [state for state in EntityState if state in states - FINAL_STATES]
    common = frozenset.intersection(*(transitions[state] for state in begun))
    lines = ["stateDiagram-v2", "    direction LR", '    state "not ended" as open {']
    lines += [f"        {state}" for state in begun]
    for state in begun:
        for target in (target for target in EntityState if target in transitions[state] - common):
            lines.append(f"        {state} --> {target} : {steps[state, target]}")
    lines.append("    }")
    lines += [f"    open --> {target}" for target in EntityState if target in common]
    return "\n".join(lines)


_API = """
# REST API

Bodies and answers are JSON. A running server describes the same at `/openapi.json` (OpenAPI 3.1) and, to read, at
`/docs`. `/metrics` is for Prometheus: see [serving](serving.md).

Signing in sets the cookies `access_token_…` and `refresh_token_…`, and `known_device_…`, which only says that
somebody has signed in there ([serving](serving.md#signing-in)). The end of their names tells installations on one
host apart. Scripts may send the access token as `Authorization: Bearer <token>` instead. `GET /auth/refresh` makes a
new access token. Whoever comes with the cookies of a session that has ended is answered 403, `Log in again`, and 401
by `GET /auth/refresh`, as if there were none. A worker is no user: it proves itself by the update key of its
simulation, which is good for that simulation and for `YAPTIDE_UPDATE_KEY_DAYS` only. [Results as
JSON](command-line.md#yaptide-results---json) says what the estimators and pages of `/results` look like.

Every error is `{"message": "..."}` with one of these statuses. Each route says which it can answer, beside those that
any can: {}.
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
    """Operations with their routes, in the order of the routes; what several routes do alike is one entry."""
    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for path, operations in sorted(spec["paths"].items()):
        for method, operation in sorted(operations.items()):
            name = f"{method.upper()} {path}"
            key = json.dumps([method, operation], sort_keys=True)
            if tag in operation["tags"]:
                found.setdefault(key, ([], operation))[0].append(name)
    return list(found.values())


def _errors(operation: Mapping[str, Any]) -> set[str]:
    return {status for status in operation["responses"] if not status.startswith("2")}


def _operation(spec: Any, names: Sequence[str], operation: Mapping[str, Any], errors: Collection[str]) -> Iterator[str]:
    yield "### " + ", ".join(f"`{name}`" for name in names)
    yield "\n".join(filter(None, (operation["summary"], operation.get("description"))))
    lines = [f"- For: {operation['x-for']}"]
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            lines.append(f"- Answers {status}: {_content(spec, response['content'])}")
    if errors:
        lines.append(f"- Refuses with {', '.join(sorted(errors))}")
    yield "\n".join(lines)
    query = [
        (f"`{found['name']}`", "yes" if found["required"] else "", _type(spec, found["schema"]))
        for found in operation["parameters"]
    ]
    if query:
        yield _table(("query", "required", "value"), query)
    content = operation.get("requestBody", {}).get("content", {})
    if _FILE in content:
        yield "The body is a file."
    elif content:
        schema = content["application/json"]["schema"]
        body = [(f"`{name}`", "yes" if need else "", _type(spec, found)) for name, need, found in _keys(spec, schema)]
        yield _table(("body", "required", "value"), body)


def _content(spec: Any, content: Mapping[str, Any]) -> str:
    """The keys of an answer, or that it is a file."""
    if _FILE in content:
        return "a file"
    return ", ".join(f"`{name}`" for name, _, _ in _keys(spec, content["application/json"]["schema"]))


def _resolved(spec: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, for a reference, or for something that may be null as well."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, **_resolved(spec, choices[0])}
    if "$ref" in schema:
        found: Mapping[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _keys(spec: Any, schema: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """Name, whether it is required, and schema of every key of an object, and of the objects in it."""
    whole = _resolved(spec, schema)
    for name, value in whole.get("properties", {}).items():
        found = _resolved(spec, value)
        inner = _resolved(spec, found.get("items", {}))
        if "properties" in inner:
            yield from _keys(spec, inner, f"{before}{name}[].")
        elif "properties" in found:
            yield from _keys(spec, found, f"{before}{name}.")
        else:
            yield f"{before}{name}", name in whole.get("required", ()), found


_LIMITS = {"minimum": "at least {}", "maximum": "at most {}", "maxLength": "at most {} characters"}


def _type(spec: Any, schema: Mapping[str, Any]) -> str:
    """Type, limits, default and meaning of a value in words."""
    found = _resolved(spec, schema)
    if "enum" in found:
        words = ["one of " + ", ".join(f"`{value}`" for value in found["enum"])]
    else:
        words = [str(found.get("type", "any")), *(text.format(found[n]) for n, text in _LIMITS.items() if n in found)]
    if found.get("default") not in (None, ""):
        words.append(f"default `{found['default']}`")
    meaning = found.get("description", "") if "enum" not in found else ""
    return ", ".join(words) + (f". {meaning}" if meaning else "")


_DATABASE = """
# Database

The models in `yaptide/persistence/models/` describe the tables; `yaptide db upgrade` makes them and brings them up to
date. They are the same on SQLite and PostgreSQL. Types below are those of PostgreSQL; SQLite keeps times as text in UTC
and bytes as a BLOB. PostgreSQL wants the names of tables in quotes: `SELECT title FROM "Simulation"`.

A column `compressed_data` is one gzip member of JSON text, which any tool reads: in Python,
`json.loads(gzip.decompress(data))`. `yaptide/persistence/codec.py` says how it is written.

## Relations

![The tables with their columns, what inherits from what, and how many belong to how many](images/database.svg)

The same as text; `yaptide db diagram` prints it, and draws the picture.

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
        deleted = "deleted with it" if key.ondelete == "CASCADE" else "keeps it from being deleted"
        keys.append(f"`{key.target_fullname}`, {deleted}")
    kind = column.type.compile(dialect=postgresql.dialect())
    null = "yes" if getattr(column, "nullable", False) else ""
    return f"`{column.name}`", kind, null, "; ".join(keys), str(getattr(column, "doc", "") or "")


def _rule(rule: Constraint | Index) -> str:
    """A constraint or an index in words; nothing for the keys, which the columns tell."""
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
