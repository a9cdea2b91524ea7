"""The image without an engine for containers: what the Dockerfile does is done below a folder, and used from there.

Dependencies come from the environment of the tests; pip installs yaptide alone, without asking an index.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Folders of the image that the Dockerfile writes to; here they are below a folder.
OURS = re.compile(r"(?<![\w.])/(?:opt/yaptide|usr/local/app|var/lib/yaptide|build)\b")
#: What only root can do, and a test has no need of.
LEFT_OUT = re.compile(r"^(?:groupadd|useradd) ")
OWNER = re.compile(r" -[og] yaptide\b")
#: Root without what makes it root: another user might not get at the tests' Python.
UNPRIVILEGED = [] if os.getuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
SOMEBODY_ELSE = 65533
ONE_LINER = (
    "from yaptide.application import create_app; app = create_app(); app.app_context().push() or "
    'print(app.extensions["sqlalchemy"].engine.url.render_as_string(hide_password=False))'
)


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage of the Dockerfile: name and the rest of the line."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    result: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            stage = result.setdefault(rest.rpartition(" AS ")[2], [])
        else:
            stage.append((name, rest))
    return result


@dataclass
class Image:
    """A folder in place of the root of an image's files."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""

    def here(self, text: str) -> str:
        return OURS.sub(lambda path: f"{self.root}{path[0]}", text)

    def do(self, name: str, rest: str) -> None:
        """Carry out an instruction; those that start nothing and write nothing are for other tests."""
        if name == "ENV":
            path = self.environment.get("PATH", os.environ["PATH"])
            for word in shlex.split(rest.replace("$PATH", path)):
                key, _, value = word.partition("=")
                self.environment[key] = self.here(value)
        elif name == "WORKDIR":
            self.folder = rest
            Path(self.here(rest)).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.user = rest
        elif name == "COPY" and not rest.startswith("--from=build "):  # both stages have the same root here
            self._copy(*rest.split())
        elif name == "RUN":
            self._run(rest)

    def _copy(self, *words: str) -> None:
        *sources, target = words
        there = Path(self.here(self.folder), target)
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, there, dirs_exist_ok=True, ignore=ignored)
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, there)

    def _run(self, script: str) -> None:
        parts = [part for part in re.split(r"\s+&&\s+", script) if not LEFT_OUT.match(part)]
        offline = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}  # 0 means without it
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.root)}
        done = subprocess.run(
            ["sh", "-ec", self.here(OWNER.sub("", " && ".join(parts)))],
            cwd=self.here(self.folder),
            env=environment | self.environment | offline,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        if "-m venv" in script:
            self._borrow_dependencies()

    def _borrow_dependencies(self) -> None:
        (packages,) = self.root.glob("opt/yaptide/lib/python3.*/site-packages")
        (packages / "of-the-tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        for old in packages.glob("setuptools*"):  # pip would take a newer one from the index
            shutil.rmtree(old)

    def exec(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a program as `docker exec` would, as a user who does not own the image's files."""
        return subprocess.run(
            [*UNPRIVILEGED, *command],
            cwd=self.here(self.folder),
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def close(self) -> None:
        """Change the owner of the files, or where only root can, remove all write permissions."""
        for path in [self.root, *self.root.rglob("*")]:
            if UNPRIVILEGED:
                os.chown(path, SOMEBODY_ELSE, SOMEBODY_ELSE, follow_symlinks=False)
            elif not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The server's image."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    made = Image(tmp_path_factory.mktemp("image"))
    made.root.chmod(0o755)
    for name in ("build", "server"):
        for instruction, rest in stages()[name]:
            made.do(instruction, rest.replace("python3.11", python))
    made.close()
    return made


@pytest.fixture
def database(image, tmp_path):
    """Variables of the container, with a database in a folder that is its user's."""
    url = f"sqlite:///{tmp_path}/yaptide.db"
    variables = {"FLASK_SQLALCHEMY_DATABASE_URI": url, "YAPTIDE_DATA_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = image.exec("yaptide", "db", "upgrade", **variables)
    assert done.returncode == 0, done.stderr
    return variables


def test_the_line_that_asks_for_the_url_of_the_database(image, database):
    line = f"cd {image.here('/usr/local/app')} && python -c {shlex.quote(ONE_LINER)}"
    done = image.exec("bash", "-c", line, **database)
    assert (done.stdout, done.stderr) == (f"{database['FLASK_SQLALCHEMY_DATABASE_URI']}\n", "")


def test_the_line_that_lists_users(image, database):
    added = image.exec("sh", "-c", "echo hunter2-hunter2 | yaptide users add alice --password-file -", **database)
    assert added.returncode == 0, added.stderr
    done = image.exec("./yaptide/admin/db_manage.py", "list-users", **database)
    assert (done.returncode, done.stderr) == (0, "")
    assert "alice" in done.stdout


def test_the_code_is_that_of_the_image_and_nobody_can_change_it(image, database):
    asked = "import yaptide; print(yaptide.__file__)"
    for folder in (image.here("/usr/local/app"), "/"):
        done = image.exec("bash", "-c", f"cd {folder} && python -c '{asked}'", **database)
        assert str(image.root) in str(Path(done.stdout.strip()).resolve()), done.stderr
    assert image.exec("touch", "new", **database).returncode
    assert image.exec("sh", "-c", "echo >> ./yaptide/__init__.py", **database).returncode


def test_it_runs_as_a_user_who_owns_the_data_only(image):
    assert (image.user, image.folder) == ("yaptide", "/usr/local/app")
    (line,) = [rest for name, rest in stages()["server"] if name == "RUN"]
    assert "install -d -o yaptide -g yaptide -m 700 /var/lib/yaptide" in line
