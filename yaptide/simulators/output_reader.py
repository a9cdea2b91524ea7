"""Reads output files of SHIELD-HIT12A, FLUKA and TOPAS with pymchelper, as a process of its own.

`yaptide.simulators.output_files` starts it. Output files may come from anywhere, and a few bytes of them can ask a
reader for any amount of memory or time. This process therefore limits itself, and the worst that it can do is to end.

Arguments: a folder for the answer; memory in bytes; processor time in seconds; the name of the code; the files. The
answer is `values.f8`, the values of all pages, and `index.json`: a list of files with their pages, or `{"error": ...}`.
The exit code is DISK_FULL if there is no space for it.
"""

import errno
import json
import math
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DISK_FULL = 28
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Aggregation by `page_normalized` (`yaptide.domain.estimators.Aggregation`); other pages are means over primaries.
_AGGREGATIONS = {0: "none", 1: "sum", 4: "concatenate"}
_PHASE_SPACE_COLUMNS = 8
_MOST_AXES = 3
#: Page numbers that can be stored (`yaptide.persistence.task_outputs.check_output`).
_NUMBERS = range(10**9)
#: Quantities of TOPAS whose Sum is a ratio of two sums, so that those of several tasks must not be added.
_RATIOS = {"ProtonLET"}
_TOPAS_AXIS = re.compile(r"# (X|Y|Z|R|Phi|Theta) in (\d+) bins? +of (\S+) (\w+)")
_TOPAS_SPECTRUM = re.compile(r"# Binned by (.+) in (\d+) bins? +of \S+ (\w+) from (\S+) (\w+) to (\S+) (\w+)")
#: Values in a row of a spectrum besides its bins: underflow, overflow, and for energies "no incident track".
_OUTSIDE = {"time": 2, "incident track energy": 3}
_TOPAS_RESULTS = re.compile(r"^# (\w+)( +\( .*? \))? *: *([A-Z].*)$")
#: Attributes of pymchelper that are no metadata.
_OF_ESTIMATOR = {"file_counter", "x", "y", "z", "pages", "error_type", "data_order", "file_corename", "user"}
_OF_PAGE = {"estimator", "data_raw", "error_raw", "name", "unit", "diff_axis1", "diff_axis2", "page_number"}
#: SHIELD-HIT12A's numbers of what a differential axis is (`Diff1Type` in detect.dat).
_DIFFERENTIALS = {25: "Angle", 26: "Trace", 27: "Kinetic energy", 28: "Kinetic energy", 29: "Kinetic energy"}


class Unreadable(Exception):
    """A file that is not what the code writes, or not all of it."""


def main() -> int:
    """Read the files within the limits; returns the exit code."""
    folder, memory, seconds, code, *names = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    with suppress(OSError):  # if memory runs out, this process ends and not another one
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        part = Path(folder, "index.part")
        part.write_text(json.dumps(_read_all(code, names, Path(folder))))
        part.replace(Path(folder, "index.json"))
    except OSError as error:
        if error.errno in _FULL:
            return DISK_FULL
        raise
    return 0


def _read_all(code: str, names: list[str], folder: Path) -> Any:
    """Return the index; raises OSError if the disk is full."""
    name = ""
    try:
        with Path(folder, "values.f8").open("wb") as values:
            index = []
            for name in names:
                index.append(_read_file(code, Path(name), folder, values))
    except MemoryError:
        return {"error": f"{Path(name).name} needs too much memory"}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        return {"error": f"{Path(name).name}: {str(error)[:300] or type(error).__name__}"}
    return index


def _read_file(code: str, path: Path, folder: Path, values: BinaryIO) -> dict[str, Any]:
    read = {"topas": _copy_table, "shieldhit": _check_tokens}.get(code)
    try:
        source, notes = read(path, folder) if read else (path, {})
        estimator = _parse(code, str(source))
    except _LeftOut as reason:
        return {"primaries": 0, "metadata": {}, "pages": [], "left_out": [str(reason)]}
    if not estimator.pages:
        raise Unreadable("there are no results in it")
    meshes = _usrbin_meshes(source) if code == "fluka" else {}
    document: dict[str, Any] = {
        "primaries": int(estimator.number_of_primaries),
        "metadata": _metadata(estimator, _OF_ESTIMATOR) | notes,
        "pages": [],
        "left_out": [],
    }
    _check_count(estimator)
    for number, page in enumerate(estimator.pages):
        axes = meshes.get(number) or [estimator.x, estimator.y, estimator.z]
        try:
            document["pages"].append(_read_page(code, number, page, axes, notes, values))
        except _LeftOut as reason:
            document["left_out"].append(f"page {number} ({page.name}): {reason}")
    numbers = {page["number"] for page in document["pages"]}
    if len(numbers) < len(document["pages"]) or not all(number in _NUMBERS for number in numbers):
        document["pages"] = [page | {"number": number} for number, page in enumerate(document["pages"])]
    return document


def _parse(code: str, name: str) -> Any:
    """Read a file with pymchelper's reader for this code; its search for the right one misreads files."""
    from pymchelper.estimator import Estimator  # noqa: PLC0415 - within the limits
    from pymchelper.readers.fluka import FlukaReader  # noqa: PLC0415
    from pymchelper.readers.shieldhit.general import SHReaderFactory  # noqa: PLC0415
    from pymchelper.readers.topas import TopasReader  # noqa: PLC0415

    readers = {"fluka": FlukaReader, "topas": TopasReader}
    reader = readers[code] if code in readers else SHReaderFactory(name).get_reader()
    estimator = Estimator()
    with _whole_rows(Path(name)) if code == "topas" else nullcontext():
        has_results = reader(name).read(estimator)
    if not has_results and code == "topas":  # its rows are complete
        raise _LeftOut("pymchelper does not read its quantity or its bins")
    if not has_results:
        raise Unreadable("there are no results in it")
    return estimator


@contextmanager
def _whole_rows(table: Path) -> Iterator[None]:
    """Have numpy return a table with bins as rows even if it has one: pymchelper wants its columns."""
    original = np.genfromtxt
    if re.search(r"^# (?:Binned by|\w+ in \d+ bins) ", table.read_text("ascii"), re.MULTILINE):
        np.genfromtxt = partial(original, ndmin=2)
    try:
        yield
    finally:
        np.genfromtxt = original


class _LeftOut(Exception):
    """A page that cannot be kept, although its file is sound."""


def _read_page(
    code: str, number: int, page: Any, mesh: list[Any], notes: dict[str, str], values: BinaryIO
) -> dict[str, Any]:
    is_ratio = notes.get("quantity") in _RATIOS
    normalized = int(getattr(page, "page_normalized", 1 if notes.get("statistic") == "Sum" and not is_ratio else 2))
    aggregation = _AGGREGATIONS.get(normalized, "mean")
    unit, diff_units = _units(page)
    metadata = _metadata(page, _OF_PAGE)
    raw = np.asarray(page.data_raw, dtype=np.float64)
    axes: list[Any] = []
    if aggregation == "concatenate":
        if raw.size == 1 and np.isnan(raw).all():  # pymchelper's value of a page without data
            raw = np.zeros(0)
        if raw.size % _PHASE_SPACE_COLUMNS:
            raise Unreadable("a particle of its phase space is incomplete")
        metadata["columns"] = str(_PHASE_SPACE_COLUMNS)
        flat = raw.ravel()
    else:
        flat, axes = _grid(raw, [*mesh, page.diff_axis1, page.diff_axis2], page.data_order)
        axes = [_axis(page, place, axis, diff_units) for place, axis in axes]
    start = values.tell()
    values.write(flat.tobytes())
    return {
        "number": int(getattr(page, "page_number", number)),
        "name": _text(page.name) or notes.get("scorer") or "scores",
        "unit": f"{unit}/prim" if code == "topas" and aggregation == "mean" and not is_ratio else unit,
        "aggregation": aggregation,
        "metadata": metadata,
        "axes": axes,
        "start": start,
        "size": int(flat.size),
    }


def _grid(raw: Any, mesh: list[Any], order: str) -> tuple[Any, list[tuple[int, Any]]]:
    """Return the values, first axis fastest, and the axes that have more than one bin with their places."""
    shape = [int(axis.n) for axis in mesh]
    if raw.size != math.prod(shape):
        if raw.size > math.prod(shape) and order == "F":
            raise _LeftOut("it has more values than its axes describe")  # low-energy neutron groups of FLUKA
        raise Unreadable(f"a page has {raw.size} values, and its axes need {math.prod(shape)}: the file is incomplete")
    axes = [(place, axis) for place, axis in enumerate(mesh) if axis.n > 1]
    if len(axes) > _MOST_AXES:
        raise _LeftOut(f"it has {len(axes)} axes, and results have at most {_MOST_AXES}")
    flat = raw.ravel() if order == "F" else raw.reshape(shape, order=order).ravel(order="F")
    return flat, axes


def _axis(page: Any, place: int, axis: Any, diff_units: list[str]) -> dict[str, Any]:
    name, unit = _text(axis.name), _text(axis.unit)
    if place >= 3 and diff_units:
        unit = diff_units[place - 3] if place - 3 < len(diff_units) else ""
        kinds = np.atleast_1d(getattr(page, "page_diff_type", []))
        kind = int(kinds[place - 3]) if place - 3 < len(kinds) else 0
        name = "Angle" if unit in {"deg", "rad", "mrad"} else _DIFFERENTIALS.get(kind, "")
    centres = np.asarray(axis.data, dtype=np.float64)
    if not np.isfinite(centres).all():
        raise Unreadable("an axis has limits that are not numbers")
    return {"name": name, "unit": unit, "values": centres.tolist()}


def _units(page: Any) -> tuple[str, list[str]]:
    """Return the unit of a page, and those of its differential axes.

    SHIELD-HIT12A writes a unit as ``/cm^2/MeV`` in one of two fields, and its parts as ``/cm^2;MeV`` in the other;
    which is which differs between its versions. A unit per primary ends in ``/prim``.
    """
    unit, written = _text(page.unit), _text(getattr(page, "page_diff_units", ""))
    whole, per = (unit.removesuffix("/prim"), "/prim") if unit.endswith("/prim") else (unit, "")
    parts = next((text.split(";") for text in (written, whole) if ";" in text), [])
    return "/".join(parts) + per if parts else unit, parts[1:]


def _metadata(record: Any, without: set[str]) -> dict[str, str]:
    """Return what pymchelper knows of a file or page, as its own JSON writer would."""
    kept = {name: value for name, value in vars(record).items() if name not in without and value is not None}
    return {name: _text(value) for name, value in kept.items()}


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return "".join(character for character in text if character.isprintable()).strip()[:500]


def _check_count(estimator: Any) -> None:
    declared = getattr(estimator, "page_count", None)
    if declared is not None and int(declared) != len(estimator.pages):
        raise Unreadable(f"it has {len(estimator.pages)} of {int(declared)} pages: the file is incomplete")


def _check_tokens(path: Path, _: Path) -> tuple[Path, dict[str, str]]:
    """Check that a .bdo file ends at the end of a token: pymchelper takes a shorter one for the whole.

    Format: 24 bytes of header, then tokens of a number, a numpy type in 8 characters, a count, and that many items.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != b"xSH12AII":
            raise Unreadable("it is not a .bdo file of a little-endian machine")
        position = 24
        while position < size:
            file.seek(position)
            head = file.read(24)
            if len(head) < 24:
                raise Unreadable("the file is incomplete")
            kind = np.dtype(head[8:16].rstrip(b"\0").decode("ascii"))
            if kind.kind not in "iufS":
                raise Unreadable("it has values of an unknown type")
            position += 24 + kind.itemsize * int.from_bytes(head[16:24], "little")
    if position != size:
        raise Unreadable("the file is incomplete")
    return path, {}


def _copy_table(path: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write a TOPAS table in which the column to read is called Mean: pymchelper reads no other one.

    The name of the parameter file is left out, because pymchelper would open it. Rows must be complete.
    """
    lines = path.read_text("ascii").splitlines(keepends=True)
    statistic, notes, columns = "", {}, list[str]()
    copied = []
    for line in lines:
        match = _TOPAS_RESULTS.match(line.rstrip()) if not statistic else None
        if match and not line.startswith(("# TOPAS", "# Parameter", "# Results", "# Scored", "# Filtered")):
            columns = match[3].split()
            statistic = next((name for name in ("Mean", "Sum") if name in columns), "")
            if not statistic:
                raise Unreadable(f'it has neither a mean nor a sum: add "Mean" to Report of its scorer ({match[1]})')
            notes["quantity"] = match[1]
            renamed = " ".join("Mean" if name == statistic else name for name in columns)
            copied.append(f"# {match[1]}{match[2] or ''} : {renamed}\n")
            continue
        if line.startswith("# Results for scorer"):
            notes["scorer"] = _text(line.removeprefix("# Results for scorer").lstrip(":"))
        if line.startswith("# TOPAS Version:"):
            notes["code_version"] = _text(line.partition(":")[2])
        if line.startswith("# Filtered by:"):
            notes["filter"] = _text(line.partition(":")[2])
        if not line.startswith("# Parameter File:"):
            copied.append(line)
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    _check_rows(rows)
    copied = _plain_table(copied, rows[0].count(",") + 1, len(columns))
    copy = folder / f"{path.stem[:100]}.csv"
    copy.write_text("".join(copied))
    return copy, notes | {"statistic": statistic}


def _plain_table(lines: list[str], fields: int, results: int) -> list[str]:
    """Return a table, of `fields` columns with `results` statistics, as pymchelper reads it.

    It knows no exponents in the limits of bins, and reads a spectrum only if the width of its bins is a whole number
    and its rows do not begin with their place. Raises _LeftOut for a spectrum that it would not take for one.
    """
    width, has_axes, is_spectrum = results, False, False
    copied = []
    for line in lines:
        if axis := _TOPAS_AXIS.match(line):
            has_axes = True
            copied.append(f"# {axis[1]} in {axis[2]} bins of {_positional(axis[3])} {axis[4]}\n")
        elif line.startswith("# Binned by"):
            binned = _TOPAS_SPECTRUM.match(line)
            if not binned or binned[1] not in _OUTSIDE or "-" in binned[4] + binned[6]:
                raise _LeftOut(f"pymchelper does not read its bins ({_text(line[2:])[:100]})")
            limits = f"from {_positional(binned[4])} {binned[5]} to {_positional(binned[6])} {binned[7]}"
            copied.append(f"# Binned by {binned[1]} in {binned[2]} bins of 1 {binned[3]} {limits}\n")
            width, is_spectrum = results * (int(binned[2]) + _OUTSIDE[binned[1]]), True
        else:
            copied.append(line)
    if fields not in (width, width + 3):
        raise Unreadable(f"its rows have {fields} columns, and its header describes {width}")
    if fields == width + 3 and (is_spectrum or not has_axes):
        copied = [line if line.startswith("#") or not line.strip() else line.split(",", 3)[3] for line in copied]
    if fields == width and not is_spectrum:
        copied = [line for line in copied if not _TOPAS_AXIS.match(line)]
    return copied


def _positional(number: str) -> str:
    return np.format_float_positional(float(number), trim="-")


def _check_rows(rows: list[str]) -> None:
    if not rows or len({row.count(",") for row in rows}) > 1 or not rows[-1].endswith("\n"):
        raise Unreadable("the file is incomplete")


def _usrbin_meshes(path: Path) -> dict[int, list[Any]]:
    """Return the axes of each USRBIN of a file: pymchelper gives all of them those of the last one."""
    from pymchelper.axis import MeshAxis  # noqa: PLC0415 - within the limits
    from pymchelper.flair.Data import Usrbin  # noqa: PLC0415
    from pymchelper.readers.fluka import UsrbinScoring  # noqa: PLC0415

    try:
        detectors = Usrbin(str(path)).detector
    except OSError:  # another scorer
        return {}
    return {number: list(_mesh(detector, MeshAxis, UsrbinScoring)) for number, detector in enumerate(detectors)}


def _mesh(detector: Any, axis: Any, scoring: Any) -> Iterator[Any]:
    described = scoring.get_axes_description(detector.type)
    for name in "xyz":
        of_axis = getattr(described, name)
        low, high, bins = (getattr(detector, part) for part in (f"{name}low", f"{name}high", f"n{name}"))
        yield axis(bins, low, high, of_axis.name, of_axis.unit, axis.BinningType.linear)


if __name__ == "__main__":
    sys.exit(main())
