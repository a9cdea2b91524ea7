"""Small valid bodies of requests, to be changed where a test wants to."""

import struct
from collections.abc import Callable
from typing import Any

PRIMARIES = 1000
#: Bytes that are looked at together where long lists are left out: `yaptide.services.large_json`.
BLOCK = 1 << 15


def project(*outputs: str, primaries: Any = PRIMARIES) -> dict[str, Any]:
    """A project of the web editor for SHIELD-HIT12A with a 1-D dose in each of its `outputs`."""
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
    """A body of `POST /jobs/direct` with a `project`."""
    body = {"input_type": "editor", "ntasks": ntasks, "sim_type": "shieldhit", "title": "Water phantom"}
    return body | {"input_json": project(*outputs, primaries=primaries)} | changes


def shieldhit_files(primaries: Any = PRIMARIES) -> dict[str, str]:
    """The four input files of SHIELD-HIT12A."""
    return {
        "beam.dat": f"RNDSEED 89736501\nNSTAT {primaries} -1\n",
        "mat.dat": "MEDIUM 1\nICRU 276\nEND\n",
        "geo.dat": "*---\n",
        "detect.dat": "Output\n    Filename dose\n",
    }


def page(number: int = 0, name: str = "DOSE", values: tuple[float, ...] = (0.1, 1 / 3, 2e-300)) -> dict[str, Any]:
    """A page with one axis, as SHIELD-HIT12A's converter writes it."""
    return {
        "dimensions": 1,
        "data": {"name": name, "unit": "MeV/g", "values": list(values)},
        "axis_dim1": {"name": "Position (Z)", "unit": "cm", "values": [0.5 + n for n in range(len(values))]},
        "metadata": {"page_number": str(number), "name": name, "unit": "MeV/g"},
    }


def estimator(name: str = "dose_", *pages: dict[str, Any]) -> dict[str, Any]:
    """An estimator of `POST /results`, by default with one page."""
    return {"name": name, "metadata": {"number_of_primaries": "1000"}, "pages": list(pages or (page(),))}


def with_hidden_numbers(make: Callable[[str, str], bytes]) -> bytes:
    """What `make` makes of a text without commas and, after that, of a name that is nothing but numbers.

    Of the name, little is left where long lists are left out: it begins at the end of a block, and ends soon after
    another one began.
    """
    name = "1," * (BLOCK + 3) + "1"
    start = make("", name).index(b'"1,1,')
    return make("x" * (-(start + 6) % BLOCK), name)


def bits(number: float) -> bytes:
    """The bits of a double: -0.0 is not 0.0."""
    return struct.pack("<d", number)
