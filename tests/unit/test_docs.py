"""The documents: those made from the code are up to date, and what the others name exists."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks import report
from scripts import generate_docs
from tests.support.api import of_keycloak
from tests.support.payloads import estimator, page, shieldhit_files
from tests.support.routes import list_api_routes
from yaptide.admin import (
    administration,
    cli,
    clusters,
    database,
    integrity,
    keys,
    local,
    retention,
    stats,
    users,
)
from yaptide.admin.store import Opened
from yaptide.api.errors import STATUS
from yaptide.api.openapi import ERRORS, OWN_ERRORS, WHO
from yaptide.application import create_app
from yaptide.domain.rights import ALLOWED, Action, Scope
from yaptide.domain.states import FINAL_STATES, SIMULATION_TRANSITIONS, TASK_STATES, TASK_TRANSITIONS, EntityState
from yaptide.persistence.diagram import class_diagram
from yaptide.persistence.engine import Database
from yaptide.persistence.models import Base
from yaptide.services import (
    clusters as cluster_services,
    logfiles,
    results_upload,
    simulations as services,
    users as user_services,
)
from yaptide.settings import Settings

ROOT = Path(__file__).parents[2]
MADE = generate_docs.generate_documents()
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [*sorted(ROOT.glob("*.md")), ROOT / "client/README.md", *DOCUMENTS]
OUTSIDE = re.compile(r"https?://")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    match = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in match}


@pytest.mark.parametrize("file", MADE)
def test_generated_documents_are_up_to_date(file):
    assert (ROOT / file).read_text() == MADE[file], "make docs"


def test_check_names_what_differs_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_docs, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["docs"])
    generate_docs.main()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path).as_posix(): path.read_text() for path in written} == MADE
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    with pytest.raises(SystemExit) as ended:
        generate_docs.main()
    assert ended.value.code == 0
    (tmp_path / "docs/api.md").write_text("old")
    (tmp_path / "docs/states.md").unlink()
    with pytest.raises(SystemExit, match=r"docs/states\.md.*\n.*docs/api\.md"):
        generate_docs.main()
    assert (tmp_path / "docs/api.md").read_text() == "old"


def test_every_setting_is_documented():
    in_code = {str(field.validation_alias) for field in Settings.model_fields.values()} | {
        variable
        for path in (ROOT / "yaptide").rglob("*.py")
        for variable in re.findall(r"\b(?:YAPTIDE|FLASK|CELERY|KEYCLOAK|CERT)_[A-Z][A-Z_]+\b", path.read_text())
    } - {
        "YAPTIDE_USER",
        "KEYCLOAK_USER",
        "YAPTIDE_PARENT_PID",
        "YAPTIDE_TASK_ID",
        "YAPTIDE_RUN_NAME",
        "CELERY_SIMULATION",
        "CELERY_TASK",
        "YAPTIDE_URL",
    }  # constants; what `yaptide up` tells its own processes, job scripts on clusters the agent, and users the client
    assert in_code == set(re.findall(r"`((?:YAPTIDE|FLASK|CELERY|KEYCLOAK|CERT)_\w+)`", MADE["docs/settings.md"]))


def commands(command=None, before="yaptide") -> Iterator[str]:
    command = command or get_command(cli.app)
    yield before
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, f"{before} {inner}")


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_documented_and_shows_an_example(command):
    _, _, section = MADE["docs/command-line.md"].partition(f"\n## {command}\n")
    text = " ".join(section.partition("\n## ")[0].split())
    assert f"Usage: {command} " in text
    if "COMMAND [ARGS]" not in text:
        assert re.search(rf"Example: (?:\w+=\S+ )?{command}\b", text)


def edges(diagram: str) -> set[tuple[str, str]]:
    """All arrows of a state diagram; those from the frame for every state in it."""
    inside = re.findall(r"^        ([A-Z_]+)$", diagram, re.MULTILINE)
    match = re.findall(r"(\w+) --> (\w+)", diagram)
    return {(state, to) for origin, to in match for state in (inside if origin == "open" else [origin])}


def test_the_diagrams_show_every_state_and_transition():
    diagrams = blocks(ROOT / "docs" / "states.md", "mermaid")
    tables = [(SIMULATION_TRANSITIONS, frozenset(EntityState)), (TASK_TRANSITIONS, TASK_STATES)]
    for diagram, steps, (transitions, states) in zip(diagrams, generate_docs.STEPS.values(), tables, strict=True):
        arrows = {(origin, to) for origin, targets in transitions.items() for to in targets}
        assert edges(diagram) == arrows
        assert {state for arrow in edges(diagram) for state in arrow} == states
        assert set(steps) == {(origin, to) for origin, to in arrows if to not in FINAL_STATES}
    assert all(f"| `{state}` |" in MADE["docs/states.md"] for state in EntityState)


def test_every_table_and_column_is_documented():
    for table in Base.metadata.tables.values():
        _, _, section = MADE["docs/database.md"].partition(f"\n### {table.name}\n")
        rows = re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", section.partition("\n### ")[0], re.MULTILINE)
        assert [column for column, meaning in rows if meaning.strip()] == [column.name for column in table.columns]


@pytest.mark.parametrize(
    "line",
    [
        'User "1" --> "0..*" Simulation : simulations',
        'Simulation "1" --> "0..*" Task : tasks',
        'Simulation "1" --> "1" Input : input',
        'Simulation "1" --> "0..*" Estimator : estimators',
        'Simulation "1" --> "0..*" Logfiles : logfiles',
        'Estimator "1" --> "0..*" Page : pages',
        'Cluster "1" --> "0..*" BatchSimulation : simulations',
        "User <|-- YaptideUser",
        "User <|-- KeycloakUser",
        "Simulation <|-- CelerySimulation",
        "Simulation <|-- BatchSimulation",
        "Task <|-- CeleryTask",
        "Task <|-- BatchTask",
    ],
)
def test_the_class_diagram_has_the_relations(line):
    assert f"    {line}\n" in class_diagram()


@pytest.fixture(scope="module")
def web():
    return create_app(Settings(_env_file=None, database_uri="sqlite://", signing_key="k" * 32))


#: What is served beside the API.
PAGES = ("/openapi.json", "/docs", "/static/{name}", "/metrics")


def routes(web) -> Iterator[tuple[str, str]]:
    for route in list_api_routes(web):
        yield route.method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)


def test_every_route_is_documented(web):
    titles = re.findall(r"^### (.+)$", MADE["docs/api.md"], re.MULTILINE)
    items = [tuple(route.split()) for title in titles for route in re.findall(r"`(.+?)`", title)]
    assert len(items) == len(set(items))
    assert set(routes(web)) - set(items) == {("GET", path) for path in PAGES}
    assert all(f"`{path}`" in MADE["docs/api.md"] for path in PAGES if path.count("/") == 1)


def test_who_may_call_a_route_is_documented_as_it_is(web):
    project = {"input_type": "files", "ntasks": 1, "sim_type": "fluka"}
    key = {"simulation_id": 1, "update_key": "forged"}
    bodies = {
        ("POST", "/jobs/direct"): project,
        ("POST", "/jobs/batch"): project,
        ("POST", "/user/update"): {},
        ("POST", "/user/password"): {"password": "", "new_password": ""},
        ("POST", "/user/tokens"): {"name": "x"},
        ("DELETE", "/user"): {"username": "x"},
        ("PUT", "/auth/register"): {"username": "", "password": ""},
        ("POST", "/auth/login"): {"username": "nobody", "password": "wrong"},
        ("POST", "/jobs"): {"sim_id": 1, "update_key": "forged"},
        ("POST", "/tasks"): {**key, "task_id": 0, "update_dict": {}},
        ("POST", "/tasks/list"): {**key, "updates": [{"task_id": 0, "update_dict": {}}]},
        ("POST", "/logfiles"): {**key, "logfiles": {}},
        ("POST", "/results"): {**key, "estimators": []},
    }
    for method, path in routes(web):
        if path in PAGES or path.startswith("/worker/"):  # those: tests/integration/test_contract_work.py
            continue
        answer = web.test_client().open(f"{path}?job_id=x&name=x", method=method, json=bodies.get((method, path)))
        response = WHO.get(f"{method} {path}", "signed-in users")
        asks_for_a_token = answer.json["message"] == "No token provided"
        assert asks_for_a_token == (response.startswith("signed-in users") or "cookie" in response), (method, path)
        if "update key" in response:
            assert answer.json["message"] in ("Invalid update key", "Simulation does not exist"), (method, path)
    assert set(WHO) | set(OWN_ERRORS) <= {f"{method} {path}" for method, path in routes(web)}


def test_every_status_of_an_error_is_documented():
    by_the_server_itself = {408, 431, 500}
    assert set(ERRORS) == set(STATUS.values()) | by_the_server_itself


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The commands on a database in memory, with one simulation that has results and log files; its `job_id`."""
    settings = Settings(
        _env_file=None, database_uri="sqlite://", data_dir=tmp_path, signing_key="k" * 32, foreign_codes="shieldhit"
    )
    app = create_app(settings)
    backend = app.extensions["yaptide"]
    user = user_services.ensure_user(backend, "alice")
    of_keycloak(backend, "kim")
    made = services.submit_simulation(backend, user, services.Submission("shieldhit", 2, "Water", shieldhit_files()))
    curve = page(name="Dose", values=(*[1.0] * 30, 9.0, 5.0, 1.0))
    curve["data"]["errors"] = [0.1] * 33
    key = {"simulation_id": made.simulation_id, "update_key": made.update_key}
    logfiles.post_logfiles(backend, **key, logfiles={"a.log": "text"})
    results_upload.post_results(backend, json.dumps({**key, "estimators": [estimator("dose", curve)]}).encode())
    cluster_services.add_cluster(backend.database, cluster_services.Cluster("ares"))
    for module in (local, keys):
        monkeypatch.setattr(module, "open_store", lambda: Opened(settings, backend))
    for module in (users, administration, clusters, integrity, stats, retention):
        monkeypatch.setattr(module, "connect_database", lambda: backend.database)
    monkeypatch.setattr(database, "configured_database", lambda: Database("sqlite://"))
    return made.job_id


def keys_of(document: object, before: str = "") -> Iterator[str]:
    """The keys of a document as `generate_docs.JSON` writes them."""
    opaque = ("metadata", "logfiles", "rows", "simulators", "sbatch_options")
    if isinstance(document, dict) and before.rpartition(".")[2] not in opaque:
        if before == "bragg_peak":  # documented also as what may be null
            yield before
        for key, value in document.items():
            yield from keys_of(value, f"{before}.{key}" if before else key)
    elif isinstance(document, list) and document and isinstance(document[0], dict):
        yield from (key for entry in document for key in keys_of(entry, f"{before}[]"))
    else:
        yield before


#: Further arguments of a command, so that it has something to print.
MORE = {
    "list --json": ["--all"],
    "clusters show --json": ["ares"],
    "purge --json": ["--older-than", "0d", "--states", "COMPLETED", "--dry-run"],
    "db check --json": ["--repair"],
    "users show --json": ["alice"],
    "users link --json": ["kim", "--yes"],
    "simulators show --json": ["mcsquare"],
}


@pytest.mark.parametrize("command", generate_docs.JSON)
def test_the_json_of_commands_has_the_documented_keys(command, kept):
    words = command.rpartition(", ")[2].removeprefix("yaptide ").split()
    if words[0] in ("status", "results", "history", "logs"):
        words.insert(1, kept)
    if words[:2] == ["simulations", "key"]:
        words.insert(2, kept)
    words += MORE.get(" ".join(words), [])
    if words[:2] == ["db", "check"]:
        with users.connect_database().writing() as connection:
            connection.exec_driver_sql('UPDATE "Simulation" SET stored_bytes = 1')
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert set(keys_of(json.loads(done.stdout))) == set(generate_docs.JSON[command])


def test_the_json_of_run_is_that_of_status():
    source = (ROOT / "yaptide/admin/simulations.py").read_text()
    assert len(re.findall(r"print_json\(summarize_simulation\(", source)) == 2


@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not OUTSIDE.match(target):
            file, _, anchor = target.partition("#")
            to = path.parent / file if file else path
            assert to.exists(), target
            assert not anchor or anchor in headings(to), target


@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_every_file_that_is_named_exists(path):
    made_later = {".demo/", "build/site", "share/yaptide/simulators"}
    named = set(re.findall(r"`([\w.]+/[\w./-]*|\w+\.(?:py|md|toml))`", path.read_text())) - made_later
    folders = [ROOT / folder for folder in ("", "docs", "yaptide", "yaptide/simulators")]
    assert not [file for file in named if not any((folder / file).exists() for folder in folders)]


def test_every_layer_is_in_the_table_of_layers():
    text = (ROOT / "docs/architecture.md").read_text()
    parts = [path for path in (ROOT / "yaptide").iterdir() if path.is_dir() or path.suffix == ".py"]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in parts if not path.name.startswith("__")}
    assert names == set(re.findall(r"^\| `([a-z_]+(?:/|\.py))` \|", text, re.MULTILINE))


def test_every_document_is_in_the_index():
    index = set(re.findall(r"\((\S+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert {path.name for path in DOCUMENTS} - {"README.md"} == index


def command_lines(path: Path) -> Iterator[str]:
    """The command lines of ours in the blocks of a document."""
    text = path.read_text()
    for block in (*blocks(path, "sh"), *re.findall(r"(?:^    .+\n)+", text, re.MULTILINE)):
        yield from (line.strip() for line in block.splitlines() if line.strip().startswith("yaptide "))


def found(words: list[str]):
    """The command that words (behind `yaptide`) name, and what is left of them."""
    command = get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", sorted({line for path in WRITTEN for line in command_lines(path)}))
def test_every_command_line_parses(line):
    command, words = found(shlex.split(line, comments=True)[1:])
    assert not hasattr(command, "commands")
    command.make_context(line, words)


@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_every_command_in_the_text_exists(path):
    for line in re.findall(r"`(yaptide [a-z-][^`]*)`", path.read_text()):
        command, words = found(shlex.split(line)[1:])
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, line
        assert not hasattr(command, "commands") or all(word.startswith("-") or word == "..." for word in words), line


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for path in WRITTEN for target in re.findall(r"[`\n]make ([a-z]+)", path.read_text())}
    assert {"demo", "test", "docs"} <= named <= targets
    assert (ROOT / "README.md").read_text().startswith("# yaptide\n\n```sh\nmake demo ")


def test_the_picture_is_small():
    assert (ROOT / "docs/images/demo.png").stat().st_size < 120_000


@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_snippets_are_python_and_shell(path):
    for snippet in blocks(path, "python"):
        compile(snippet, str(path), "exec")
    for snippet in blocks(path, "sh"):
        done = subprocess.run(["bash", "-n"], input=snippet, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_figures_are_those_of_the_run_that_is_kept():
    run = json.loads((ROOT / "benchmarks/results/bench.json").read_text())
    text = (ROOT / "docs/performance.md").read_text()
    assert report.write_into(text, run) == text
    assert not run["quick"]


def test_every_row_that_is_missed_has_a_reason():
    run = json.loads((ROOT / "benchmarks/results/bench.json").read_text())
    text = (ROOT / "docs/performance.md").read_text()
    section = text.partition("## Why a row is not met")[2].partition("\n## ")[0]
    reasons = re.findall(r"^- \*\*`(.+?)`\.\*\*", section, re.MULTILINE)
    missed = [row["name"] for row in run["rows"] if row["met"] is False]
    assert [row for row in missed if not any(reason in row for reason in reasons)] == []


def test_the_table_of_scopes_is_that_of_the_code():
    _, _, section = (ROOT / "docs/accounts.md").read_text().partition("### Scopes")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.+\|$", section, re.MULTILINE)
    ]
    heads = rows[0]
    assert heads[1:] == list(Scope)
    written = {row[0]: {Scope(head) for head, cell in zip(heads[1:], row[1:], strict=True) if cell} for row in rows[2:]}
    assert written == {action: {scope for scope in Scope if action in ALLOWED[scope]} for action in Action}
