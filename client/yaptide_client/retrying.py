"""Sends requests again until a server responds: connections break, servers and databases restart, proxies time out.

Only requests that may be repeated are: whoever sends one twice gets the same result as once. Others are sent again only
if no connection could be made, because otherwise the server may have received them.
"""

import logging
import random
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from yaptide_client.errors import Unavailable

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

#: Seconds before the first repetition, and the most between two; each pause is twice the one before, and random.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
_LONGEST_REQUESTED = 3600
_PASSING = frozenset({429, 502, 503, 504})


def send_until_answered(
    send: Callable[[], "httpx.Response"], name: str, patience: float, *, may_repeat: bool
) -> tuple["httpx.Response", int]:
    """Return a response that a repetition would not change, and how often the request was sent.

    `name` describes the request in messages. Raises Unavailable if there is no such response within `patience` seconds.
    """
    start, attempts = time.monotonic(), 0
    while True:
        attempts += 1
        response, problem, wait = _send_once(send, may_repeat=may_repeat)
        if response is not None and (wait is None or not may_repeat):
            return response, attempts
        waited = time.monotonic() - start
        pause = max(_pause_after(attempts), wait or 0)
        if wait is None or waited + pause > patience:
            tried = f"; gave up after {attempts} attempts in {waited:.0f} s" if attempts > 1 else ""
            waits = f"; the server asks to wait {wait} s" if wait else ""
            raise Unavailable(f"{name}: {problem}{tried}{waits}")
        if attempts == 1:
            log.warning("%s: %s; trying again for up to %.0f s", name, problem, patience)
        time.sleep(pause)


def _send_once(
    send: Callable[[], "httpx.Response"], *, may_repeat: bool
) -> tuple["httpx.Response | None", str, int | None]:
    """Return the response, the problem in words, and the least seconds before a repetition; None: do not repeat."""
    import httpx  # noqa: PLC0415 - most commands import this package, but do not call a server

    try:
        response = send()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:  # nothing was sent
        return None, f"no connection: {_describe(error)}", None if _is_permanent(error) else 0
    except httpx.UnsupportedProtocol as error:
        return None, str(error), None
    except httpx.TransportError as error:
        return None, f"no response: {_describe(error)}", 0 if may_repeat else None
    except httpx.HTTPError as error:
        return None, f"no usable response: {_describe(error)}", None
    return response, f"the last response was HTTP {response.status_code}{_message(response)}", _wait_of(response)


def _wait_of(response: "httpx.Response") -> int | None:
    """Return the seconds to wait before a repetition; None if it would get the same response.

    A yaptide server that will be available again says when (`Retry-After`): its other errors last. A proxy whose server
    is away may not say anything.
    """
    if response.status_code not in _PASSING:
        return None
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(int(text), _LONGEST_REQUESTED) if len(text) < 10 else _LONGEST_REQUESTED
    is_from_yaptide = response.status_code in (429, 503) and bool(_message(response))
    return None if is_from_yaptide else 0


def _message(response: "httpx.Response") -> str:
    """Return the message of a yaptide server with a colon before it, or nothing for a response of another program."""
    try:
        document = response.json()
    except ValueError:
        return ""
    message = document.get("message") if isinstance(document, dict) else None
    return f": {message}" if isinstance(message, str) else ""


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_permanent(error: BaseException) -> bool:
    """Return whether a certificate was rejected: trying again does not help."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _pause_after(attempts: int) -> float:
    """Return seconds to wait: twice as long after each attempt, and random, so that clients do not return at once."""
    longest = min(_FIRST_PAUSE * 2.0 ** min(attempts, 10), _LONGEST_PAUSE)
    return random.uniform(longest / 2, longest)  # noqa: S311 - not a secret
