"""Packages: version, licence, and imports."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import yaptide_client
from yaptide import __version__

ROOT = Path(__file__).parents[2]
#: The folder of each package, with what its pyproject.toml says.
PROJECTS = {
    folder: tomllib.loads((folder.parent / "pyproject.toml").read_text())["project"]
    for folder in (ROOT / "yaptide", ROOT / "client/yaptide_client")
}
PROJECT, CLIENT = PROJECTS.values()

#: Declared, and imported by others on our behalf: SQLAlchemy's driver for PostgreSQL, uvicorn's event loop and parser.
DRIVERS = {"psycopg", "uvloop", "httptools"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project) -> list[str]:
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]


def names(project) -> set[str]:
    match = {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements(project)}
    return match - {normalized(project["name"])}


def imported(folder: Path) -> Iterator[str]:
    """The top-level packages that the modules in a folder import, wherever the import stands."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.split(".")[0]


def distributions(folder: Path) -> set[str]:
    """The distributions that the modules in a folder import from."""
    by_package = packages_distributions()
    others = set(imported(folder)) - set(sys.stdlib_module_names) - {folder.name}
    assert others <= by_package.keys()
    return {normalized(by_package[package][0]) for package in others}


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_what_is_imported_is_declared_and_nothing_else(folder):
    assert distributions(folder) == names(PROJECTS[folder]) - DRIVERS


@pytest.mark.parametrize("requirement", sorted({*requirements(PROJECT), *requirements(CLIENT)}))
def test_every_requirement_has_a_lower_bound(requirement):
    """But for our own, which have to be of the same version."""
    ours = rf"yaptide-client=={re.escape(__version__)}|yaptide(?:-client)?\[[\w,]+\]"
    assert re.fullmatch(rf"{ours}|[\w.-]+(?:\[\w+\])?>=[\d.]+", requirement)


def test_both_packages_need_the_same_of_a_library():
    for library in {*requirements(PROJECT), *requirements(CLIENT)}:
        name = re.match(r"[\w.-]+", library)[0]
        bounds = {each for each in (*requirements(PROJECT), *requirements(CLIENT)) if re.match(rf"{name}[=>]", each)}
        assert len(bounds) <= 1, bounds


def test_both_packages_are_of_one_version_and_licence():
    assert yaptide_client.__version__ == __version__
    assert (ROOT / "client/LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    for key in ("license", "authors", "requires-python"):
        assert CLIENT[key] == PROJECT[key]


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert citation["authors"] == PROJECT["authors"]
    assert (ROOT / "LICENSE").read_text().count("END OF TERMS AND CONDITIONS") == 1


def test_the_changelog_has_every_part_it_should():
    versions = re.findall(r"^## \[([\w.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert __version__ in versions


@pytest.mark.parametrize("file", ["README.md", "docs/README.md", "yaptide/web/templates/docs.html"])
def test_people_are_told_what_it_is_not(file):
    assert "not a medical device" in (ROOT / file).read_text().lower()
