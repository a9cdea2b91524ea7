"""Small valid request bodies for tests to modify."""

import struct
from collections.abc import Callable
from typing import Any

PRIMARIES = 1000
#: Size of the blocks in which `yaptide.services.large_json` searches for long lists.
BLOCK = 1 << 15


def project(*outputs: str, primaries: Any = PRIMARIES) -> dict[str, Any]:
    """Return a web editor project for SHIELD-HIT12A with a 1-D dose in each of its `outputs`."""
    scored = [
        {
            "name": name,
            "detectorUuid": "d-1",
            "scoringType": "detector",
            "quantities": [{"name": "q", "keyword": "Dose"}],
        }
        for name in outputs or ("dose", "dose2")
    ]
    return {
        "metadata": {"version": "0.12", "type": "Editor"},
        "hash": "5f2b",
        "project": {"title": "Water phantom", "history": {}},
        "beam": {"energy": 150.0, "energySpread": 1e-3, "position": [0, 0, -1.5], "numberOfParticles": primaries},
        "figureManager": {"figures": []},
        "zoneManager": {"zones": [], "worldZone": {"name": "World zone"}},
        "detectorManager": {"detectors": [{"uuid": "d-1", "name": "Detector"}]},
        "scoringManager": {"outputs": scored, "filters": []},
    }


def submission(*outputs: str, ntasks: Any = 2, primaries: Any = PRIMARIES, **changes: Any) -> dict[str, Any]:
    """Return a body of `POST /jobs/direct` with a `project`."""
    body = {"input_type": "editor", "ntasks": ntasks, "sim_type": "shieldhit", "title": "Water phantom"}
    return body | {"input_json": project(*outputs, primaries=primaries)} | changes


def shieldhit_files(primaries: Any = PRIMARIES) -> dict[str, str]:
    """Return the four input files of SHIELD-HIT12A."""
    return {
        "beam.dat": f"RNDSEED 89736501\nNSTAT {primaries} -1\n",
        "mat.dat": "MEDIUM 1\nICRU 276\nEND\n",
        "geo.dat": "*---\n",
        "detect.dat": "Output\n    Filename dose\n",
    }


def page(number: int = 0, name: str = "DOSE", values: tuple[float, ...] = (0.1, 1 / 3, 2e-300)) -> dict[str, Any]:
    """Return a page with one axis, as written by SHIELD-HIT12A's converter."""
    return {
        "dimensions": 1,
        "data": {"name": name, "unit": "MeV/g", "values": list(values)},
        "axis_dim1": {"name": "Position (Z)", "unit": "cm", "values": [0.5 + n for n in range(len(values))]},
        "metadata": {"page_number": str(number), "name": name, "unit": "MeV/g"},
    }


def estimator(name: str = "dose_", *pages: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator for `POST /results`, by default with one page."""
    return {"name": name, "metadata": {"number_of_primaries": "1000"}, "pages": list(pages or (page(),))}


def with_hidden_numbers(make: Callable[[str, str], bytes]) -> bytes:
    """Return `make` applied to a text without commas and to a name that consists of numbers.

    Little of the name remains where long lists are left out: it begins at the end of a block, and ends just after the
    start of another one.
    """
    name = "1," * (BLOCK + 3) + "1"
    start = make("", name).index(b'"1,1,')
    return make("x" * (-(start + 6) % BLOCK), name)


def bits(number: float) -> bytes:
    """Return the bytes of a double, which distinguish -0.0 from 0.0."""
    return struct.pack("<d", number)
