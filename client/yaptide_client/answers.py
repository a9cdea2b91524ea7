"""Converts responses of a server to documents, or to the errors that they report."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from yaptide_client.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
    YaptideError,
)

if TYPE_CHECKING:
    import httpx

#: Any other status comes from a proxy or a busy server: Unavailable.
_ERRORS: Mapping[int, type[YaptideError]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidInput,
    507: StorageFull,
}


#: Keys whose values are long lists of numbers.
_NUMBERS = ("values", "errors")

#: Number types of simdjson and numpy, from the strictest to the most general.
_KINDS = {"i": np.int64, "u": np.uint64, "d": np.float64}


def read_results_document(response: "httpx.Response") -> dict[str, Any]:
    """Return the document of a response of `GET /results`, with numpy arrays for its long lists of numbers."""
    document = None if response.is_error else with_arrays(response.content)
    return read_document(response) if document is None else document


def with_arrays(text: bytes) -> dict[str, Any] | None:
    """Return a JSON object with numpy arrays for its long lists of numbers; None if simdjson cannot parse it.

    Lists of integers become integer arrays, because doubles lose digits above 2**53; other lists become arrays of
    doubles.
    """
    import simdjson  # noqa: PLC0415 - only reading results needs it

    with suppress(ValueError, RuntimeError):
        document = simdjson.Parser().parse(text)
        if isinstance(document, simdjson.Object):
            return dict(_copied(document))
    return None


def _copied(element: Any) -> Any:
    """Copy an element of a simdjson document to Python types, which stay valid without the parser."""
    if hasattr(element, "items"):
        # items() would convert all lists to Python lists.
        return {name: _copied_as(name, element[name]) for name in element}
    return [_copied(part) for part in element] if hasattr(element, "as_list") else element


def _copied_as(name: str, element: Any) -> Any:
    if name == "metadata" and hasattr(element, "as_dict"):  # metadata never contains long lists
        return element.as_dict()
    return _array(element) if name in _NUMBERS else _copied(element)


def _array(element: Any) -> Any:
    """Return a list of numbers as an array; anything else as it is, because a list of rows would be flattened."""
    if not hasattr(element, "as_buffer") or (len(element) and hasattr(element[0], "as_list")):
        return _copied(element)
    for kind, dtype in _KINDS.items() if len(element) else ():
        with suppress(TypeError, ValueError):  # another type, which shows at its first number
            return np.frombuffer(element.as_buffer(of_type=kind), dtype)
    return element.as_list()


def needs_session(response: "httpx.Response") -> bool:
    """Return whether the server rejected the request because the session is missing or its token has expired."""
    return response.status_code == 401 or (response.status_code == 403 and b'"Log in again' in response.content)


def read_document(response: "httpx.Response") -> dict[str, Any]:
    """Return the JSON object of a response; raise the error of `yaptide_client.errors` that it reports."""
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(
            f"Unexpected response (HTTP {response.status_code}) from {response.url.host}: not a yaptide server, or a "
            "proxy error"
        )
    if response.is_error:
        raise _ERRORS.get(response.status_code, Unavailable)(str(document.get("message")))
    return document
