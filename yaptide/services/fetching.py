"""Asking other services over HTTP, within limits: a request of ours waits for the answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

from yaptide.domain.errors import Unreachable

#: Seconds for everything, from looking up the name to the last byte. The front end waits 10, and may need two answers.
SECONDS = 4.0
_MAX_BYTES = 2**20


def fetch_json(url: str, token: str | None = None, form: Mapping[str, str] | None = None) -> Any:
    """The JSON document at `url`, asked for with a bearer token if there is one; TLS certificates are verified.

    A `form` is posted there.

    Raises Unreachable if it does not come in time, is too large, or is no JSON; the message is the rest of a sentence
    about the service.
    """
    import httpx  # noqa: PLC0415 - takes longer to import than most commands to run
    import orjson  # noqa: PLC0415

    # Not compressed, since a little can become a lot.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    async def get() -> bytes:
        body = bytearray()
        # A limit for all of it: httpx's own are for each packet, of which there can be many.
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(headers=headers, timeout=None) as client,  # noqa: S113
            client.stream("GET" if form is None else "POST", url, data=form) as response,
        ):
            if response.status_code != 200:
                raise Unreachable(f"answers with status {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise Unreachable("answers with more than can be believed")
        return bytes(body)

    try:
        return orjson.loads(asyncio.run(get()))
    except TimeoutError:
        raise Unreachable(f"does not answer within {SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(f"cannot be reached: {str(error) or type(error).__name__}") from None
    except ValueError:
        raise Unreachable("answers with something that is no JSON") from None
