"""The errors of which a server or a client says what to do about them.

Each class is one kind of refusal. The message is written for the person who caused it, and never holds a secret.
"""


class YaptideError(Exception):
    """Base of everything yaptide refuses on purpose; ``str(error)`` is the message for the user."""


class InvalidInput(YaptideError):
    """The request or the simulation's input is not acceptable as it is; nothing was changed."""


class NotAuthenticated(YaptideError):
    """Nobody is signed in, or the name and password do not belong together."""


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
