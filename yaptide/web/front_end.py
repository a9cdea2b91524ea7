"""A build of the web front end (a React application), served under `/editor` from a folder of the administrator's.

Only files that were in the folder at start are served: an address is a key of a table, and never becomes a path. Links
that lead out of the folder, and files and folders whose names begin with a dot, are not in the table.

The build decides where its scripts look for the API and for their own files, so `load_build` reads it at start.
"""

import base64
import gzip
import hashlib
import mimetypes
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from apiflask import APIBlueprint, APIFlask
from flask import Response, request, send_file
from werkzeug.exceptions import NotFound

from yaptide.domain.errors import InvalidInput

PREFIX = "/editor"
_INDEX = "index.html"
_MOST_FILES = 20_000
_MOST_READ = 64 << 20
_A_YEAR = 365 * 86400
#: Names with a digest of the content, as bundlers write them: main.1a2b3c4d.js, index-Bx3kQ9aZ.css.
_HASHED = re.compile(r".*[.-](?=[\w-]*\d)[\w-]{8,}\.(chunk\.)?[a-z0-9]{2,5}", re.IGNORECASE)
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
_COMPRESSED = frozenset({".js", ".mjs", ".css", ".html", ".json", ".map", ".svg", ".wasm", ".webmanifest", ".txt"})
#: Bytes; larger files are sent as they are. So many compressed ones are kept.
_MOST_COMPRESSED, _KEPT = 32 << 20, 128

_LOCAL_LINK = re.compile(
    r"""<(?:script|link)\b[^>]*?\b(?:src|href)\s*=\s*["']?(?!https?:|data:|//)([^"'\s>]+)""", re.IGNORECASE
)
_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc\b)[^>]*>(.*?)</script>", re.IGNORECASE | re.DOTALL)
_ORIGIN = re.compile(r"""["'`](https?://[A-Za-z0-9.\-\[\]:]+)(?:/[\w.~/-]*)?["'`]""")
#: What a build calls that was made without REACT_APP_BACKEND_URL.
_DEFAULT_ORIGIN = "http://localhost:5000"
#: Where builds load Python from, if they name it.
_OUTSIDE = ("https://cdn.jsdelivr.net",)
_REMEDY = "build it with PUBLIC_URL={public} and REACT_APP_BACKEND_URL={url}"


@dataclass(frozen=True)
class Build:
    """A build: its files by address below `public`, the origins that its scripts name, and its CSP."""

    folder: Path
    public: str
    files: Mapping[str, Path]
    origins: frozenset[str]
    policy: str = field(repr=False)


def load_build(folder: Path, issuers: Collection[str] = (), prefix: str = "") -> Build:
    """Return the build in `folder` for a server below the path `prefix`; its pages may call `issuers` of Keycloak.

    Raises InvalidInput, with what to do, if there is none, or if it was made for another address.
    """
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}: give the build folder of the web front end (--ui)")
    files = dict(_list_files(folder.resolve()))
    if _INDEX not in files:
        raise InvalidInput(
            f"{folder} holds no build of the web front end: {_INDEX} is missing; give the folder that its "
            "`npm run build` makes, such as ui/build"
        )
    public, index = f"{prefix}{PREFIX}", files[_INDEX].read_text(encoding="utf-8", errors="replace")
    wrong = next((link for link in _LOCAL_LINK.findall(index) if not link.startswith(f"{public}/")), None)
    if wrong is not None:
        raise InvalidInput(
            f"The web front end in {folder} was built for another address: it loads {wrong[:80]!r}, which does not "
            f"begin with {public}/; {_REMEDY.format(public=public, url='URL_OF_THIS_SERVER')}"
        )
    scripts = "".join(_read_scripts(files))
    outside = [origin for origin in _OUTSIDE if origin in scripts]
    return Build(folder, public, files, frozenset(_ORIGIN.findall(scripts)), _policy(index, outside, issuers))


def explain_backend(build: Build, urls: Collection[str]) -> str | None:
    """Return what is wrong if a build calls none of the origins of `urls`, under which this server is reached."""
    wanted = dict.fromkeys(f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls))
    if not wanted.keys().isdisjoint(build.origins):
        return None
    calls = f"it calls {_DEFAULT_ORIGIN}" if _DEFAULT_ORIGIN in build.origins else "its scripts do not name this server"
    remedy = _REMEDY.format(public=build.public, url=next(iter(wanted)))
    return (
        f"The web front end in {build.folder} may not reach this server, since {calls}: "
        f"{remedy}, or the address by which browsers reach this server"
    )


def find_address(build: Build, urls: Collection[str]) -> str:
    """Return where to open the front end: at the origin that it calls, since it is a stranger at any other."""
    origins = [f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)]
    return next((origin for origin in origins if origin in build.origins), origins[0]) + build.public


def register(app: APIFlask, build: Build) -> None:
    """Serve a build."""
    blueprint = APIBlueprint("front_end", __name__, enable_openapi=False)
    blueprint.add_url_rule(PREFIX, "show_index", lambda: _serve(build, _INDEX))
    blueprint.add_url_rule(f"{PREFIX}/", "show_root", lambda: _serve(build, _INDEX))
    blueprint.add_url_rule(f"{PREFIX}/<path:name>", "show_file", lambda name: _find(build, name))
    app.register_blueprint(blueprint)


def _list_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Address and path of each file that may be served."""
    count = 0
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root):
            continue
        count += 1
        if count > _MOST_FILES:
            raise InvalidInput(f"{root} has more than {_MOST_FILES} files, which no build of the web front end has")
        yield "/".join(parts), path


def _read_scripts(files: Mapping[str, Path]) -> Iterator[str]:
    """The scripts, until so much was read."""
    left = _MOST_READ
    for name, path in files.items():
        if name.endswith((".js", ".mjs")) and left > 0:
            with path.open("rb") as file:
                data = file.read(left)
            left -= len(data)
            yield data.decode("utf-8", "replace")


def _policy(index: str, outside: Collection[str], issuers: Collection[str]) -> str:
    """The CSP: what such an application needs, and the scripts in its page by their digests."""
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(index)
        if script.strip()
    ]
    sso = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, issuers)})
    rules = {
        "default-src": ["'self'"],
        "script-src": ["'self'", "'wasm-unsafe-eval'", *digests, *outside],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:", "blob:"],
        "font-src": ["'self'", "data:"],
        "connect-src": ["'self'", "data:", "blob:", *outside, *sso],
        "worker-src": ["'self'", "blob:"],
        "frame-src": ["'self'", *sso],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'", *sso],
        "frame-ancestors": ["'self'" if sso else "'none'"],  # Keycloak's adapter looks after its session in a frame
    }
    return "; ".join(f"{name} {' '.join(values)}" for name, values in rules.items())


def _find(build: Build, name: str) -> Response:
    """A file, or for an address that only the application knows its page; a file that is missing is an error."""
    if name in build.files:
        return _serve(build, name)
    if "." in name.rpartition("/")[2]:
        raise NotFound
    return _serve(build, _INDEX)


def _serve(build: Build, name: str) -> Response:
    path = build.files[name]
    kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    response = _compressed(path, kind) or _whole(path, kind)
    response.headers["Vary"] = "Accept-Encoding"
    is_fixed = name != _INDEX and _HASHED.fullmatch(path.name)
    response.headers["Cache-Control"] = f"public, max-age={_A_YEAR}, immutable" if is_fixed else "no-cache"
    response.headers["Content-Security-Policy"] = build.policy
    return response


def _whole(path: Path, kind: str) -> Response:
    try:
        return send_file(path, mimetype=kind, conditional=True, etag=True)
    except OSError:
        raise NotFound from None  # it has been taken away meanwhile


def _compressed(path: Path, kind: str) -> Response | None:
    """The file as gzip; None if the browser or the file is not for that."""
    if not request.accept_encodings["gzip"] or path.suffix.lower() not in _COMPRESSED or "Range" in request.headers:
        return None
    try:
        seen = path.stat()
        if seen.st_size > _MOST_COMPRESSED:
            return None
        data, etag = _gzip(path, seen.st_mtime_ns, seen.st_size)
    except OSError:
        raise NotFound from None
    response = Response(data, mimetype=kind, headers={"Content-Encoding": "gzip"})
    response.set_etag(etag)
    response.make_conditional(request)
    return response


@lru_cache(_KEPT)
def _gzip(path: Path, _time: int, _size: int) -> tuple[bytes, str]:
    """The content of a file as gzip, and a digest; made anew when the file is another."""
    data = path.read_bytes()
    return gzip.compress(data, 6, mtime=0), f"{hashlib.sha256(data).hexdigest()[:16]}-gzip"
