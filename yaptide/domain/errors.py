"""The errors a user can do something about.

Each class is one kind of refusal. What an HTTP client or a shell sees of it (status code, exit code) is decided once,
at the door where it leaves the program: `yaptide.api.errors` and `yaptide.admin.cli`. The message is written for the
person who caused it, and never holds a secret.
"""


class YaptideError(Exception):
    """Base of everything yaptide refuses on purpose; ``str(error)`` is the message for the user."""


class InvalidInput(YaptideError):
    """The request or the simulation's input is not acceptable as it is; nothing was changed."""


class NotAuthenticated(YaptideError):
    """Nobody is signed in, or the name and password do not belong together."""


class ComeAgain(YaptideError):
    """The server does not even look at this now; it will `seconds` later."""

    def __init__(self, seconds: int, reason: str) -> None:
        self.seconds = seconds
        super().__init__(f"{reason}; wait {seconds} s, then try again")


class TooManyAttempts(ComeAgain):
    """Somebody has guessed passwords in vain, or asked for something, too often."""


class Busy(ComeAgain):
    """Others ask for more at once than this server does; nothing was looked at."""


class Forbidden(YaptideError):
    """Somebody is signed in who may not do this."""


class NotFound(YaptideError):
    """The thing asked for does not exist."""


class Conflict(YaptideError):
    """The thing exists, but its present state does not allow this."""


class TooLarge(YaptideError):
    """The body or the result is larger than this installation accepts."""


class NotConfigured(YaptideError):
    """This installation has no such service."""


class StorageFull(YaptideError):
    """The database or a disk has no room left; nothing was changed."""


class Unavailable(YaptideError):
    """The database cannot be reached or is too busy just now; the same call may work later."""


class ClusterUnavailable(YaptideError):
    """A cluster cannot be reached, or does not answer in time; the same call may work later."""


class ClusterRefused(YaptideError):
    """A cluster does not let somebody in, or is not the one it should be; somebody has to mend that first."""


class Contended(Unavailable):
    """Others were changing the same rows, and the database chose this transaction to give way; nothing was changed."""


class Unreachable(YaptideError):
    """Another service that this one relies on does not answer, or makes no sense; the same call may work later."""


class SimulationFailed(YaptideError):
    """A run of a simulator cannot be believed; the message is the reason kept with the task."""
