"""What a server's answer means: its document, or the error that it tells of."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from yaptide.domain.errors import (
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


def results(response: "httpx.Response") -> dict[str, Any]:
    """The same for an answer of `GET /results`, with arrays of numpy for the long lists of numbers in it."""
    import simdjson  # noqa: PLC0415 - only what reads results needs it

    if not response.is_error:
        with suppress(ValueError, RuntimeError):  # whatever is wrong with it, `document` says
            found = simdjson.Parser().parse(response.content)
            if isinstance(found, simdjson.Object):
                return _with_arrays(found)
    return document(response)


def _with_arrays(found: Any) -> Any:
    """A document of simdjson in Python's own types; what it holds is copied, since its parser is gone afterwards."""
    if hasattr(found, "items"):
        # Not by items(), which would make lists of everything.
        return {name: _array(found[name]) if name in _NUMBERS else _with_arrays(found[name]) for name in found}
    return [_with_arrays(part) for part in found] if hasattr(found, "as_list") else found


def _array(found: Any) -> Any:
    try:
        return np.frombuffer(found.as_buffer(of_type="d"))
    except (AttributeError, TypeError):  # it is not what its name says
        return _with_arrays(found)


def document(response: "httpx.Response") -> dict[str, Any]:
    """The JSON object that a server answered with; raises the error of `yaptide.domain.errors` that it tells of."""
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable(f"{response.url.host} answered {response.status_code}, and not as yaptide does")
    if response.is_error:
        raise _ERRORS.get(response.status_code, Unavailable)(str(found.get("message")))
    return found
