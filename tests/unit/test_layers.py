"""Imports go down only; see "Layers" in docs/. The rules are the tables below, the rest only reads imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_BEHIND_HTTP = ("domain", "editor", "persistence", "simulators", "services", "platforms")

#: What of ours each layer may import besides itself, wherever in a module the import stands.
LAYERS = {
    "__main__": ("admin",),
    "settings": ("domain", "disk", "services"),
    "logs": (),
    "disk": ("domain",),
    "domain": (),
    "editor": ("domain",),
    "persistence": ("domain", "disk"),
    # For scripts written for the older backend: what they import has these names.
    "persistence.database": ("domain", "persistence", "services.passwords"),
    "utils": ("domain",),
    "simulators": ("domain", "disk", "editor"),
    "platforms.batch.schedulers": ("domain",),
    "services": ("domain", "disk", "editor", "persistence", "simulators", "platforms.batch.schedulers"),
    "platforms": (
        *("domain", "disk", "simulators", "services", "logs"),
        *("persistence.codec", "persistence.task_outputs", "persistence.result_files"),
    ),
    "api": ("domain", "disk", "services", "persistence.codec", "logs"),
    "web": ("domain", "disk", "services", "api.http", "api.cookies", "api.errors"),
    "client": (),
    "admin": (*_BEHIND_HTTP, "application", "settings", "logs"),
    "application": (*_BEHIND_HTTP, "api", "web", "settings", "logs"),
}

_HTTP = ("api", "web", "application")

#: Who may import what of these libraries: everything, or the names listed. Who is not listed may not import them.
LIBRARIES = {
    "sqlalchemy": {
        "persistence": ("sqlalchemy",),
        "persistence.database": ("sqlalchemy",),
        # Transactions begin in services, queries are written below: these are what is handed from one to the other.
        "services": ("sqlalchemy.Connection", "sqlalchemy.Row", "sqlalchemy.exc"),
        "admin": ("sqlalchemy",),
        "application": ("sqlalchemy",),
    },
    "celery": {"platforms": ("celery",)},
    "kombu": {"platforms": ("kombu",)},
    "flask": dict.fromkeys(_HTTP, ("flask",)),
    "apiflask": dict.fromkeys(_HTTP, ("apiflask",)),
    "asyncssh": {"platforms": ("asyncssh",)},
    # The client's own package: the words that the server has in common with it come in by way of the domain.
    "yaptide_client": {
        "client": ("yaptide_client",),
        "domain": tuple(
            f"yaptide_client.{name}" for name in ("errors", "states", "estimators", "depth_dose", "formats")
        ),
        "application": ("yaptide_client.extras",),
        "simulators": ("yaptide_client.texts", "yaptide_client.extras"),
        "services": ("yaptide_client.extras", "yaptide_client.files"),
        "platforms": ("yaptide_client.extras", "yaptide_client.answers"),
        "admin": ("yaptide_client",),
    },
}

#: What the client may import besides the standard library and itself: nothing of yaptide.
CLIENT = ROOT / "client/yaptide_client"
OF_CLIENT = {"httpx", "numpy", "orjson", "simdjson", "matplotlib", "pandas", "xarray", "keyring"}

#: What runs where little is installed, or starts often, and what it must not load.
LIGHT = {
    "yaptide_client": {"httpx", "numpy", "yaptide"},
    "yaptide_client.errors": {"httpx", "numpy", "yaptide"},
    "yaptide_client.http": {"matplotlib", "pandas", "xarray", "yaptide"},
    "yaptide.platforms.direct.running": {"flask", "apiflask", "sqlalchemy", "asyncssh"},
    "yaptide.platforms.direct.worker": {"flask", "apiflask", "sqlalchemy", "asyncssh"},
    "yaptide.simulators": {"flask", "apiflask", "sqlalchemy", "asyncssh"},
    "yaptide.application": {"asyncssh"},
    "yaptide.platforms.batch.schedulers": {"asyncssh", "flask", "sqlalchemy"},
    "yaptide.admin.cli": {"flask", "apiflask", "uvicorn", "httpx", "jwt", "cryptography", "matplotlib", "asyncssh"},
}

#: Where the batch system of clusters is known by name: its own folder, and the module that chooses it.
SCHEDULERS = "yaptide.platforms.batch.schedulers"
#: Words that belong to it. `sbatch_options` is a stored column, and commands have `--sbatch-option` and `--sbatch`.
OF_SLURM = re.compile(r"slurm|(?<!--)sbatch(?![-_]options?\b)|squeue|sacct|scancel|scontrol", re.IGNORECASE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "yaptide").rglob("*.py"))}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports: ``from a import b`` is ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (module in PACKAGES)
                parents = module.split(".")
                base = ".".join([*parents[: len(parents) - up], *filter(None, [base])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def is_within(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(f"{folder}.") for folder in folders)


def layer_of(name: str) -> str:
    """The layer of a module: a layer inside another one has rules of its own."""
    return max((layer for layer in LAYERS if is_within(name, (layer,))), key=len, default=name.partition(".")[0])


def violations(source: str, module: str) -> list[str]:
    """One line for each import that is against the rules, as an editor can jump to."""
    place = "/".join(module.split(".")) + ("/__init__.py" if module in PACKAGES else ".py")
    _, _, inner = module.partition(".")
    layer = layer_of(inner)
    items = []
    for line, name in imports(source, module):
        top, _, below = name.partition(".")
        if top == "yaptide":
            allowed = LAYERS.get(layer, ())
            # yaptide itself holds only the version.
            if below.split(".")[0] in LAYERS and not is_within(below, (layer, *allowed)):
                items.append(
                    f"{place}:{line}: {layer or 'yaptide'} may import of yaptide only"
                    f" {', '.join(allowed) or 'itself'}, not {name}"
                )
        elif top in LIBRARIES:
            allowed = LIBRARIES[top].get(layer, ())
            if not is_within(name, allowed):
                items.append(
                    f"{place}:{line}: {layer or 'yaptide'} may import of {top} only"
                    f" {', '.join(allowed) or 'nothing'}, not {name}"
                )
    return items


def test_imports_go_down_only():
    items = [line for name, path in MODULES.items() for line in violations(path.read_text(), name)]
    assert not items, "\n" + "\n".join(items)


def test_the_client_imports_nothing_of_the_server():
    allowed = OF_CLIENT | {"yaptide_client"} | sys.stdlib_module_names
    for path in CLIENT.rglob("*.py"):
        for line, name in imports(path.read_text(), f"yaptide_client.{path.stem}"):
            assert name.partition(".")[0] in allowed, f"{path}:{line}: {name}"


def test_slurm_is_known_to_its_scheduler_alone():
    known = [name for name in MODULES if is_within(name, (f"{SCHEDULERS}.slurm",)) or name == SCHEDULERS]
    assert len(known) > 2
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (path for name, path in MODULES.items() if name not in known)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if OF_SLURM.search(line)
    ]
    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("line", "belongs"),
    [
        ("Slurm()", True),
        ("run('sbatch')", True),
        ("x = SACCT", True),
        ("sbatch_script", True),
        ("cluster.sbatch_options", False),
        ('"--sbatch-option",', False),
    ],
)
def test_words_of_slurm_are_seen(line, belongs):
    assert bool(OF_SLURM.search(line)) is belongs


def test_every_layer_has_its_rules():
    assert {name.split(".")[1] for name in MODULES if "." in name} <= LAYERS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("yaptide.domain.x", "import yaptide.persistence"),
        ("yaptide.domain.x", "from yaptide import persistence"),
        ("yaptide.domain.x", "from ..persistence import codec"),
        ("yaptide.domain", "from ..persistence import codec"),
        ("yaptide.services.x", "def f():\n    from yaptide.api import errors"),
        ("yaptide.services.x", "if TYPE_CHECKING:\n    from yaptide.settings import Settings"),
        ("yaptide.services.x", "from sqlalchemy import select"),
        ("yaptide.services.x", "import sqlalchemy.orm"),
        ("yaptide.platforms.x", "from yaptide.persistence import codec, models"),
        ("yaptide.platforms.batch.schedulers.x", "from yaptide.services import tasks"),
        ("yaptide.platforms.batch.schedulers", "from yaptide.platforms.batch import ssh"),
        ("yaptide.services.x", "from yaptide.platforms.batch import driver"),
        ("yaptide.api.x", "import sqlalchemy as sa"),
        ("yaptide", "from yaptide.application import create_app"),
    ],
)
def test_what_goes_up_is_seen(module, source):
    (line,) = violations(source, module)
    assert line.split(": ")[0].endswith(f".py:{1 + source.count(chr(10))}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("yaptide.domain.x", "import numpy\nfrom yaptide.domain.states import EntityState"),
        ("yaptide.domain.x", "from .states import EntityState"),
        ("yaptide.domain", "from .states import EntityState"),
        ("yaptide.services.x", "from sqlalchemy import Connection\nfrom sqlalchemy.exc import IntegrityError"),
        ("yaptide.platforms.x", "from yaptide.persistence import codec\nfrom yaptide.persistence.codec import encode"),
        ("yaptide.services.x", "from yaptide.platforms.batch.schedulers import get_scheduler"),
        ("yaptide.platforms.batch.driver", "from yaptide.platforms.batch.schedulers import get_scheduler"),
        ("yaptide.api.x", "from yaptide import __version__"),
    ],
)
def test_what_goes_down_is_left_alone(module, source):
    assert violations(source, module) == []


@pytest.mark.parametrize("module", LIGHT)
def test_what_must_start_light_does(module):
    program = f"import sys, {module}; print(*sorted({LIGHT[module]!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
