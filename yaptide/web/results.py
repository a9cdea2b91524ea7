"""Results of a simulation as pictures: curves, maps, and slices of grids."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import orjson
from flask import Response, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue
from werkzeug.utils import secure_filename

from yaptide.api.http import get_backend, json_response, set_content, stitched_response
from yaptide.domain.depth_dose import is_depth_curve, length_in_mm, read_fall_off, read_range
from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.domain.estimators import Aggregation, Page
from yaptide.services import exports, pictures, results, simulations
from yaptide.services.exports import FileFormat
from yaptide.services.pictures import Numbers, OpenPage, StoredPage
from yaptide.web import rendering, session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("result_pages", __name__)

#: Pages with more JSON text than this are decoded after the page around them is shown.
_AT_ONCE = 4 << 20
#: Values that are listed as numbers.
_MOST_LISTED = 1000
_A_YEAR = 365 * 86400
#: What the dose falls to behind the peak.
_PARTS = (0.9, 0.8, 0.2)
_KINDS = {1: "curve", 2: "map", 3: "planes"}
_LONGEST_NAME = 150
_BINARY = "application/octet-stream"

E = TypeVar("E", Numbers, FileFormat)
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Opens(Protocol[T_co]):
    """A stored page or CT."""

    @property
    def digest(self) -> str:
        """Digest of what is stored."""

    def open(self) -> T_co:
        """Decode it."""


@blueprint.get("/simulations/<job_id>/results")
def show_results(job_id: str) -> ResponseReturnValue:
    """Show one page of results, and a list of all of them."""
    backend, user = get_backend(), session.require_user()
    simulation = simulations.read_status(backend, user, job_id).simulation
    try:
        estimators = results.pages_metadata(backend, user, job_id)
    except NotFound:
        return render_template("results_none.html", simulation=simulation, job_id=job_id)
    name, number = _chosen_page(estimators)
    stored = pictures.find_page(backend, user, job_id, name, number)
    around = {
        "simulation": simulation,
        "job_id": job_id,
        "estimators": estimators,
        "refused": orjson.loads(simulation.refused_pages or "[]"),
        "chosen": (name, number),
        "dimension": stored.dimension,
        "is_large": stored.text_size > _AT_ONCE,
    }
    if not around["is_large"]:
        around |= _describe(job_id, name, number, stored)
    return render_template("results.html", **around)


@blueprint.get("/simulations/<job_id>/results/picture")
def show_picture(job_id: str) -> ResponseReturnValue:
    """Show the part of the page with the picture: of a large page, it comes later."""
    name, number, stored = _asked_page(job_id)
    return render_template(
        "results_picture.html", job_id=job_id, chosen=(name, number), **_describe(job_id, name, number, stored)
    )


@blueprint.get("/simulations/<job_id>/slices")
def show_slice(job_id: str) -> ResponseReturnValue:
    """Return numbers of a page as doubles, little endian (`yaptide.services.pictures.cut_page`)."""
    _, _, stored = _asked_page(job_id)
    numbers, axis, index = _one_of(Numbers, "what", Numbers.VALUES), _number("axis"), _number("index")
    cut = partial(pictures.cut_page, numbers=numbers, axis=axis, index=index)
    return _numbers_response(f"{stored.digest}-{numbers}-{axis}-{index}", stored, cut)


@blueprint.get("/simulations/<job_id>/ct")
def show_ct(job_id: str) -> ResponseReturnValue:
    """Return a slice of the CT as 32-bit floats, or without `axis` and `index` its grid as JSON; 204 without a CT."""
    stored = pictures.find_ct(get_backend(), session.require_user(), job_id)
    axis, index = _number("axis"), _number("index")
    if axis is None or index is None:
        image = stored.find_image()
        if image is None:
            return Response(status=204)
        shape = image.voxels.shape[::-1]
        grid = {"shape": shape, "spacing": image.spacing, "origin": image.origin, "quantity": image.quantity}
        extremes = {"minimum": float(image.voxels.min()), "maximum": float(image.voxels.max())}
        return json_response({**grid, **extremes, "digest": stored.digest})
    return _numbers_response(
        f"{stored.digest}-ct-{axis}-{index}", stored, partial(pictures.cut_ct, axis=axis, index=index)
    )


@blueprint.get("/simulations/<job_id>/results/download")
def download_results(job_id: str) -> ResponseReturnValue:
    """Return all results, those of one estimator, or one page, as a file."""
    backend, user = get_backend(), session.require_user()
    results.pages_metadata(backend, user, job_id)
    name, number = request.args.get("estimator"), _number("page")
    ending = request.args.get("format", "json")
    file_name = secure_filename("-".join(filter(None, (job_id, name, request.args.get("page")))))[:_LONGEST_NAME]
    if ending == "json":
        pages = None if number is None else str(number)
        answer = results.read_answer(backend, user, job_id, name, pages)
        response = stitched_response(answer, answer.length)
        response.headers.set("Content-Disposition", "attachment", filename=f"{file_name}.json")
        return response
    file_format = _one_of(FileFormat, "format", FileFormat.CSV)
    file = exports.export_results(backend, user, job_id, file_format, name, number)
    return send_file(file, _BINARY, as_attachment=True, download_name=f"{file_name}.{file_format}", max_age=0)


def _chosen_page(estimators: list[dict[str, Any]]) -> tuple[str, int]:
    """The page that the address names, or the first one."""
    name = request.args.get("estimator", estimators[0]["name"])
    selected = next((estimator for estimator in estimators if estimator["name"] == name), None)
    if selected is None:
        raise NotFound(f"There is no estimator {name[:80]!r}")
    number = _number("page")
    return name, selected["pages_metadata"][0]["page_number"] if number is None else number


def _asked_page(job_id: str) -> tuple[str, int, StoredPage]:
    """The page that the query names; raises NotFound, Forbidden before anything of the query is judged."""
    name = request.args.get("estimator", "")
    asked = request.args.get("page", "0")
    number = int(asked) if _is_number(asked) else -1
    return name, number, pictures.find_page(get_backend(), session.require_user(), job_id, name, number)


def _number(key: str) -> int | None:
    """A number in the query, from 0; None if it is not given. Raises InvalidInput for anything else."""
    text = request.args.get(key)
    if text is None:
        return None
    if not _is_number(text):
        raise InvalidInput(f"{key} must be a number from 0, not {text[:40]!r}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _one_of(kind: type[E], key: str, default: E) -> E:
    text = request.args.get(key, default)
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{key} must be one of {', '.join(kind)}, not {text[:40]!r}") from None


def _numbers_response(tag: str, stored: Opens[T], cut: Callable[[T], bytes]) -> Response:
    """Answer with numbers of a page or CT, as gzip if the browser accepts it; 304 if it has them."""
    is_compressed = bool(request.accept_encodings["gzip"])
    response = _revalidated(f"{tag}-gzip" if is_compressed else tag, stored.digest)
    if response.status_code != 304:
        set_content(response, cut(stored.open()), as_gzip=is_compressed)
    return response


def _revalidated(tag: str, digest: str) -> Response:
    """An empty answer that browsers keep: for good if the address has the digest, and only for this session."""
    response = Response(mimetype=_BINARY)
    response.set_etag(tag)
    response.headers["Vary"] = "Cookie, Accept-Encoding"
    is_versioned = request.args.get("v") == digest
    response.headers["Cache-Control"] = f"private, max-age={_A_YEAR}, immutable" if is_versioned else "no-cache"
    response.make_conditional(request)
    return response


def _describe(job_id: str, name: str, number: int, stored: StoredPage) -> dict[str, Any]:
    """What the template shows of a page, and what scripts need to draw it."""
    query: dict[str, Any] = {"job_id": job_id, "estimator": name, "page": number}
    described: dict[str, Any] = {"query": query, "problem": None}
    try:
        opened = stored.open()
    except InvalidInput as error:
        return described | {"problem": str(error)}
    page, extremes = opened.page, opened.extremes
    drawing = {
        "kind": _KINDS.get(page.dimension) if extremes.maximum is not None else None,
        "name": page.name,
        "unit": page.unit,
        "axes": [{"name": axis.name, "unit": axis.unit, "bins": axis.values.size} for axis in page.axes],
        "minimum": extremes.minimum,
        "maximum": extremes.maximum,
        "largest": extremes.largest,
        "leastPositive": extremes.least_positive,
        "largestAt": extremes.index,
        "hasErrors": page.errors is not None,
        "marks": _marks(page),
        "slices": url_for("result_pages.show_slice", **query, v=stored.digest),
        "ct": url_for("result_pages.show_ct", job_id=job_id),
        "file": secure_filename(f"{name}-{number}")[:_LONGEST_NAME] or "picture",
    }
    return described | {
        "page": page,
        "drawing": drawing,
        "facts": _facts(opened),
        "rows": _rows(page),
    }


def _facts(opened: OpenPage) -> list[tuple[str, str]]:
    """What is to be said of a page in words: pairs of a name and a text."""
    page, extremes = opened.page, opened.extremes
    facts = [(axis.name or f"Axis {number}", _extent(axis)) for number, axis in enumerate(page.axes, 1)]
    if page.metadata.get("normalisation"):
        facts.append(("Normalisation", str(page.metadata["normalisation"])))
    if page.aggregation is Aggregation.CONCATENATE:
        columns = str(page.metadata.get("columns", ""))
        facts.append(("List", f"{page.values.size} numbers" + (f" in {columns} columns" if columns else "")))
    elif extremes.index is None:
        facts.append(("Values", "(no value)"))
    else:
        label = "Largest value" if page.values.size > 1 else "Value"
        facts.append((label, _value_at(opened, extremes.index)))
    if page.errors is None and page.aggregation is not Aggregation.CONCATENATE:
        facts.append(("Standard errors", "not known: they need two tasks or more"))
    return facts + _range_facts(page)


def _extent(axis: Any) -> str:
    first, last = float(axis.values[0]), float(axis.values[-1])
    bins = "1 bin" if axis.values.size == 1 else f"{axis.values.size} bins"
    return f"{first:.6g} to {last:.6g} {axis.unit} (centres), {bins}"


def _value_at(opened: OpenPage, index: int) -> str:
    page = opened.page
    error = None if page.errors is None else float(page.errors[index])
    place = ", ".join(
        f"{axis.name or 'axis'} {at:.6g} {axis.unit}".strip()
        for axis, at in zip(page.axes, opened.place(index), strict=True)
    )
    value = rendering.format_value(float(page.values[index]), error)
    return f"{value} {page.unit}".strip() + (f" at {place}" if place else "")


def _range_facts(page: Page) -> list[tuple[str, str]]:
    if not is_depth_curve(page):
        return []
    try:
        proton_range = read_range(page)
    except NotFound as error:
        return [("Range", f"none: {error}")]
    depths = read_fall_off(page, _PARTS)
    facts = [("Bragg peak", proton_range.format_length(proton_range.depth_mm))]
    facts += [(f"R{part * 100:.0f}", proton_range.format_length(depths[part])) for part in _PARTS[:2] if part in depths]
    if 0.2 in depths:
        facts.append(("Distal fall-off (80 % to 20 %)", proton_range.format_length(depths[0.2] - depths[0.8])))
    return facts


def _marks(page: Page) -> list[dict[str, Any]]:
    """Depths to be marked in a curve, in the unit of its axis."""
    if not is_depth_curve(page):
        return []
    try:
        proton_range = read_range(page)
    except NotFound:
        return []
    scale = length_in_mm(page.axes[0].unit) or 1.0
    depths = {"Peak": proton_range.depth_mm}
    depths |= {f"R{part * 100:.0f}": depth for part, depth in read_fall_off(page, _PARTS).items()}
    return [
        {"name": name, "at": depth / scale, "text": f"{name} {proton_range.format_length(depth)}"}
        for name, depth in depths.items()
    ]


def _rows(page: Page) -> list[tuple[str, str, str]] | None:
    """The numbers of a short curve; None if the page is not one."""
    if page.dimension != 1 or page.values.size > _MOST_LISTED:
        return None
    errors = [""] * page.values.size if page.errors is None else [f"{error:.3g}" for error in page.errors.tolist()]
    columns = zip(page.axes[0].values.tolist(), page.values.tolist(), errors, strict=True)
    return [
        (f"{at:.6g}", f"{value:.6g}".replace("nan", "(no value)"), error.replace("nan", ""))
        for at, value, error in columns
    ]
