"""A build of the web front end under /editor: what is served, how, and what is refused at start."""

import gzip
from pathlib import Path

import pytest

from tests.support.storing import copy_into_memory
from yaptide.application import create_app, describe_front_end
from yaptide.domain.errors import InvalidInput
from yaptide.settings import Settings

HERE = "http://127.0.0.1:5000"
INDEX = (
    '<!doctype html><html><head><script defer="defer" src="/editor/static/js/main.0a1b2c3d.js"></script>'
    '<link href="/editor/static/css/main.1a2b3c4d.css" rel="stylesheet"></head>'
    '<body><div id="root"></div></body></html>'
)
SCRIPT = f'const BACKEND="{HERE}";fetch(BACKEND+"/auth/status");'


@pytest.fixture
def database(migrated_file):
    """In memory: what is tested here is the same on all."""
    database = copy_into_memory(migrated_file)
    yield database
    database.close()


def read(client, path, **headers):
    """What a browser gets; the answer is read to its end, which closes its file."""
    with client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        assert answer.data is not None
        return answer


def make_build(folder: Path, index: str = INDEX, script: str = SCRIPT) -> Path:
    """A small build, as `npm run build` lays one out."""
    files = {
        "index.html": index,
        "favicon.ico": "icon",
        "manifest.json": "{}",
        "static/js/main.0a1b2c3d.js": script,
        "static/css/main.1a2b3c4d.css": "body { margin: 0 }" * 50,
        "libs/module.wasm": "\0asm",
        ".env": "SECRET=1",
        ".git/config": "secret",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def build(tmp_path):
    return make_build(tmp_path / "build")


def settings(build: Path, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data", ui_dir=build)


@pytest.fixture
def browser(backend, build, tmp_path):
    return create_app(settings(build, tmp_path), backend).test_client()


@pytest.mark.parametrize(
    ("path", "kind", "cached"),
    [
        ("/editor", "text/html", False),
        ("/editor/", "text/html", False),
        ("/editor/index.html", "text/html", False),
        ("/editor/some/client/route", "text/html", False),
        ("/editor/manifest.json", "application/json", False),
        ("/editor/static/js/main.0a1b2c3d.js", "text/javascript", True),
        ("/editor/static/css/main.1a2b3c4d.css", "text/css", True),
        ("/editor/libs/module.wasm", "application/wasm", False),
    ],
)
def test_files_have_their_types_and_are_cached_by_their_names(browser, path, kind, cached):
    answer = read(browser, path)
    assert (answer.status_code, answer.mimetype) == (200, kind)
    assert ("immutable" in answer.headers["Cache-Control"]) is cached
    assert cached or answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert read(browser, path, If_None_Match=answer.headers["ETag"]).status_code == 304
    packed = read(browser, path, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == answer.data
    assert packed.headers["Vary"] == answer.headers["Vary"] == "Accept-Encoding"
    again = read(browser, path, Accept_Encoding="gzip", If_None_Match=packed.headers["ETag"])
    assert again.status_code == 304


def test_a_route_of_the_application_is_its_page(browser):
    assert read(browser, "/editor/a/b").data == read(browser, "/editor/").data == INDEX.encode()


@pytest.mark.parametrize(
    "path",
    [
        "/editor/.env",
        "/editor/.git/config",
        "/editor/../data/signing.key",
        "/editor/..%2fdata/signing.key",
        "/editor/%2e%2e/data/signing.key",
        "/editor//etc/passwd",
        "/editor/outside.txt",
        "/editor/folder/secret.txt",
        "/editor/missing.js",
        "/editor/static/js/main.0a1b2c3d.js/x.js",
    ],
)
def test_nothing_else_is_served(backend, build, tmp_path, path):
    (tmp_path / "secret.txt").write_text("secret")
    (build / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (build / "folder").symlink_to(tmp_path)
    answer = read(create_app(settings(build, tmp_path), backend).test_client(), path)
    assert answer.data == INDEX.encode() or answer.status_code in (404, 308)  # the latter: one slash
    assert b"secret" not in answer.data


def test_a_link_within_the_build_is_served(backend, build, tmp_path):
    (build / "latest.js").symlink_to(build / "static/js/main.0a1b2c3d.js")
    answer = read(create_app(settings(build, tmp_path), backend).test_client(), "/editor/latest.js")
    assert answer.text == SCRIPT


def test_its_policy_lets_it_run_and_nothing_from_elsewhere(backend, tmp_path):
    inline = "window.x=1"
    index = INDEX.replace("<body>", f"<body><script>{inline}</script>")
    build = make_build(tmp_path / "b", index, SCRIPT)
    client = create_app(settings(build, tmp_path), backend).test_client()
    policy = read(client, "/editor/").headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["script-src"].startswith("'self' 'wasm-unsafe-eval' 'sha256-")
    assert "unsafe-inline" not in rules["script-src"]
    assert "http" not in policy
    assert rules["object-src"] == rules["frame-ancestors"] == "'none'"
    assert client.get("/sign-in").headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_python_in_the_browser_is_loaded_from_where_the_build_says(backend, tmp_path):
    script = SCRIPT + 'importScripts("https://cdn.jsdelivr.net/pyodide/v0.21.3/full/pyodide.js")'
    build = make_build(tmp_path / "b", script=script)
    policy = read(create_app(settings(build, tmp_path), backend).test_client(), "/editor").headers
    assert policy["Content-Security-Policy"].count("https://cdn.jsdelivr.net") == 2


def test_without_a_build_there_is_no_editor(app, client):
    assert client.get("/editor").status_code == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": None}, "holds no build of the web front end: index.html is missing"),
        (
            {"index": INDEX.replace("/editor/", "/")},
            "it loads '/static/js/main.0a1b2c3d.js', which does not begin",
        ),
        ({"index": INDEX.replace("/editor/", "./")}, "PUBLIC_URL=/editor"),
    ],
)
def test_a_build_that_cannot_work_is_refused_at_start(tmp_path, change, said):
    build = make_build(tmp_path / "build", change["index"] or INDEX)
    if change["index"] is None:
        (build / "index.html").unlink()
    with pytest.raises(InvalidInput, match=said):
        describe_front_end(settings(build, tmp_path), [HERE])
    with pytest.raises(InvalidInput, match="There is no folder"):
        describe_front_end(settings(tmp_path / "none", tmp_path), [HERE])


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (HERE, None),
        ("http://localhost:5000", None),
        ("http://localhost:8000", "its scripts do not name this server: build it with PUBLIC_URL=/editor and"),
        ("", "its scripts do not name this server"),
    ],
)
def test_a_build_that_calls_another_server_is_told_at_start(tmp_path, calls, said):
    build = make_build(tmp_path / "build", script=f'a="{calls}"')
    message = describe_front_end(settings(build, tmp_path), [HERE, "http://localhost:5000"])
    assert message[0] == f"The web front end is at {calls if said is None else HERE}/editor"
    assert len(message) == (1 if said is None else 2)
    assert said is None or said in message[1]


def test_a_build_without_an_address_calls_the_default(tmp_path):
    build = make_build(tmp_path / "build", script='a="http://localhost:5000"')
    message = describe_front_end(settings(build, tmp_path), ["https://yaptide.example.org"])
    assert "it calls http://localhost:5000" in message[1]
    assert "REACT_APP_BACKEND_URL=https://yaptide.example.org" in message[1]


def test_a_file_that_is_taken_away_is_missing(browser, build):
    (build / "manifest.json").unlink()
    for encoding in ("gzip", "identity"):
        assert read(browser, "/editor/manifest.json", Accept_Encoding=encoding).status_code == 404


def test_a_build_for_a_server_below_a_path(backend, tmp_path):
    index = INDEX.replace('="/editor/', '="/yaptide/editor/')
    build = make_build(tmp_path / "build", index, f'fetch("{HERE}/yaptide");')
    below = settings(build, tmp_path).model_copy(update={"path_prefix": "/yaptide"})
    assert describe_front_end(below, [HERE]) == [f"The web front end is at {HERE}/yaptide/editor"]
    browser = create_app(below, backend).test_client()
    assert read(browser, "/editor/").text == index  # the client of tests sends requests that were moved already
    for prefix, wrong in (("", build), ("/yaptide", make_build(tmp_path / "other"))):
        with pytest.raises(InvalidInput, match=rf"does not begin with {prefix}/editor/; .*PUBLIC_URL={prefix}/editor "):
            describe_front_end(below.model_copy(update={"path_prefix": prefix, "ui_dir": wrong}), [HERE])
