"""HTTP requests to other services, with limits, because a request to this server waits for them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from yaptide.domain.errors import Unreachable

#: Seconds for the whole request, including the name lookup. The front end waits 10 s, and may need two requests.
SECONDS = 4.0
_MAX_BYTES = 2**20


def fetch_json(url: str, token: str | None = None, form: Mapping[str, str] | None = None) -> Any:
    """Return the JSON document at `url`, with an optional bearer token; TLS certificates are verified.

    With a `form`, the request is a POST of it.

    Raises Unreachable if it takes too long, is too large, or is not JSON; the message continues a sentence that begins
    with the name of the service.
    """
    import httpx  # noqa: PLC0415 - slower to import than most commands
    import orjson  # noqa: PLC0415

    # Not compressed, because a small body could expand to a large one.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    async def get() -> bytes:
        body = bytearray()
        # A total limit: those of httpx apply to each packet, of which there can be many.
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(headers=headers, timeout=None) as client,  # noqa: S113
            client.stream("GET" if form is None else "POST", url, data=form) as response,
        ):
            if response.status_code != 200:
                raise Unreachable(f"responded with status {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise Unreachable("sent a response that is too large")
        return bytes(body)

    try:
        return orjson.loads(asyncio.run(get()))
    except TimeoutError:
        raise Unreachable(f"did not respond within {SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(f"cannot be reached: {str(error) or type(error).__name__}") from None
    except ValueError:
        raise Unreachable("sent a response that is not JSON") from None
