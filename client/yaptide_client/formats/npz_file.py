"""NPZ: compressed arrays of numpy, with an index in JSON."""

import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from yaptide_client.estimators import Estimator, Page
from yaptide_client.formats.layout import index_columns


def write_npz(estimators: Sequence[Estimator], file: IO[bytes]) -> None:
    """Write arrays under keys such as `e0_p0_values`, and under `index` a JSON text that describes each of them."""
    arrays: dict[str, Any] = {}
    index = [
        {
            "name": estimator.name,
            "metadata": dict(estimator.metadata),
            "pages": [_add_page(arrays, f"e{e}_p{p}", page) for p, page in enumerate(estimator.pages)],
        }
        for e, estimator in enumerate(estimators)
    ]
    arrays["index"] = np.array(json.dumps({"layout": 1, "estimators": index}, ensure_ascii=False))
    np.savez_compressed(file, **arrays)


def _add_page(arrays: dict[str, Any], stem: str, page: Page) -> dict[str, Any]:
    """Add the arrays of a page, with one index per axis; returns the page's entry in the index."""
    keys: dict[str, Any] = {"values": f"{stem}_values", "errors": None}
    arrays[keys["values"]] = index_columns(page, page.values)
    if page.errors is not None:
        keys["errors"] = f"{stem}_errors"
        arrays[keys["errors"]] = index_columns(page, page.errors)
    axes = []
    for number, axis in enumerate(page.axes, start=1):
        axes.append({"name": axis.name, "unit": axis.unit, "values": f"{stem}_axis{number}"})
        arrays[axes[-1]["values"]] = axis.values
    about = {"number": page.number, "name": page.name, "unit": page.unit}
    return about | keys | {"axes": axes, "metadata": dict(page.metadata)}
