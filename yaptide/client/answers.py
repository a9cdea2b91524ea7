"""What a server's answer means: its document, or the error that it tells of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
