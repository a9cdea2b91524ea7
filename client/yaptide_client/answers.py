"""What a server's answer means: its document, or the error that it tells of."""

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

#: Every other status is of something between us and the server, or of a server that is busy: Unavailable.
_ERRORS: Mapping[int, type[YaptideError]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    507: StorageFull,
}


#: Keys whose values are lists of numbers, of any length.
_NUMBERS = ("values", "errors")

#: Kinds of numbers for simdjson, and as numpy calls them, the strictest first.
_KINDS = {"i": np.int64, "u": np.uint64, "d": np.float64}


def read_results_document(response: "httpx.Response") -> dict[str, Any]:
    """The same for an answer of `GET /results`, with arrays of numpy for the long lists of numbers in it."""
    found = None if response.is_error else with_arrays(response.content)
    return read_document(response) if found is None else found


def with_arrays(text: bytes) -> dict[str, Any] | None:
    """A JSON object with arrays of numpy for the long lists of numbers in it; None if simdjson cannot read it as one.

    A list of integers becomes an array of integers, since doubles lose digits above 2**53; any other is of doubles.
    """
    import simdjson  # noqa: PLC0415 - only what reads results needs it

    with suppress(ValueError, RuntimeError):
        found = simdjson.Parser().parse(text)
        if isinstance(found, simdjson.Object):
            return dict(_copied(found))
    return None


def _copied(found: Any) -> Any:
    """A part of a document of simdjson in Python's own types; its parser is gone afterwards."""
    if hasattr(found, "items"):
        # Not by items(), which would make lists of everything.
        return {name: _copied_as(name, found[name]) for name in found}
    return [_copied(part) for part in found] if hasattr(found, "as_list") else found


def _copied_as(name: str, found: Any) -> Any:
    if name == "metadata" and hasattr(found, "as_dict"):  # whatever it holds, it is no long list
        return found.as_dict()
    return _array(found) if name in _NUMBERS else _copied(found)


def _array(found: Any) -> Any:
    """A list of numbers as an array; whatever else it is, as it is: lists of rows would become one list."""
    if not hasattr(found, "as_buffer") or (len(found) and hasattr(found[0], "as_list")):
        return _copied(found)
    for kind, dtype in _KINDS.items() if len(found) else ():
        with suppress(TypeError, ValueError):  # it is of another kind, which shows at its first number
            return np.frombuffer(found.as_buffer(of_type=kind), dtype)
    return found.as_list()


def wants_a_session(response: "httpx.Response") -> bool:
    """Whether a server wants to be shown a session that goes on: none came along, or one whose token has ended."""
    return response.status_code == 401 or (response.status_code == 403 and b'"Log in again' in response.content)


def read_document(response: "httpx.Response") -> dict[str, Any]:
    """The JSON object that a server answered with; raises the error of `yaptide_client.errors` that it tells of."""
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable(f"{response.url.host} answered {response.status_code}, and not as yaptide does")
    if response.is_error:
        raise _ERRORS.get(response.status_code, Unavailable)(str(found.get("message")))
    return found
