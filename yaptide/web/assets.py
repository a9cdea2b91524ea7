"""Scripts and style sheets: files of the package, compressed once and cached by browsers until they change."""

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from apiflask import APIBlueprint, APIFlask
from flask import Response, request, url_for
from werkzeug.exceptions import NotFound

blueprint = APIBlueprint("assets", __name__, enable_openapi=False)

_A_YEAR = 365 * 86400


class Asset(NamedTuple):
    """A file in `static/`: its content, the same as gzip, its type, and a version that changes with the content."""

    content: bytes
    compressed: bytes
    mimetype: str
    version: str


def prepare(app: APIFlask) -> None:
    """Let templates write the addresses of assets: `{{ asset_url("yaptide.css") }}`."""
    app.add_template_global(asset_url)


@cache
def load_asset(name: str) -> Asset | None:
    """Return the file `name` below `static/`, or None if there is no such file."""
    if name not in _names():
        return None
    content = files(__package__).joinpath("static", name).read_bytes()
    mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
    version = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, gzip.compress(content, 9, mtime=0), mimetype, version)


@cache
def _names() -> frozenset[str]:
    root = files(__package__).joinpath("static")
    vendor = (f"vendor/{file.name}" for file in root.joinpath("vendor").iterdir())
    return frozenset({*(file.name for file in root.iterdir() if file.is_file()), *vendor})


def asset_url(name: str) -> str:
    """Return the address of an asset; raises LookupError if there is no such file."""
    asset = load_asset(name)
    if asset is None:
        raise LookupError(f"no asset {name}")
    return url_for("assets.show_asset", name=name, v=asset.version)


@blueprint.get("/static/<path:name>")
def show_asset(name: str) -> Response:
    """Return a script or style sheet."""
    asset = load_asset(name)
    if asset is None:
        raise NotFound
    response = Response(asset.content, mimetype=asset.mimetype)
    if request.accept_encodings["gzip"]:
        response.data = asset.compressed
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    is_versioned = request.args.get("v") == asset.version
    response.headers["Cache-Control"] = f"public, max-age={_A_YEAR}, immutable" if is_versioned else "no-cache"
    return response
