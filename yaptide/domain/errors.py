"""Errors that a user can act on.

Each class is one kind of error. `yaptide.api.errors` maps it to an HTTP status and `yaptide.admin.cli` to an exit code.
The message is written for the user who caused it and never contains a secret.
"""

from yaptide_client.errors import (
    Conflict as Conflict,
    Forbidden as Forbidden,
    InvalidInput as InvalidInput,
    NotAuthenticated as NotAuthenticated,
    NotConfigured as NotConfigured,
    NotFound as NotFound,
    StorageFull as StorageFull,
    TooLarge as TooLarge,
    Unavailable as Unavailable,
    YaptideError as YaptideError,
)


class RetryLater(YaptideError):
    """The server rejects this request for now; retry after `seconds`."""

    def __init__(self, seconds: int, reason: str) -> None:
        self.seconds = seconds
        super().__init__(f"{reason}; wait {seconds} s, then try again")


class TooManyAttempts(RetryLater):
    """Too many failed sign-ins, or too many requests of one kind."""


class Busy(RetryLater):
    """The server is at its limit; the request was not processed."""


class KeyReused(YaptideError):
    """The idempotency key belongs to another submission; nothing was changed."""


class ClusterUnavailable(YaptideError):
    """A cluster cannot be reached or does not respond in time; the same call may work later."""


class ClusterRefused(YaptideError):
    """A cluster rejects the user's key or its host key is wrong; retrying does not help until this is fixed."""


class Contended(Unavailable):
    """The database aborted this transaction because of concurrent changes to the same rows; nothing was changed."""


class Unreachable(YaptideError):
    """A service that yaptide relies on does not respond, or responds with nonsense; the same call may work later."""


class SimulationFailed(YaptideError):
    """The output of a simulator run cannot be trusted; the message is the reason stored with the task."""
