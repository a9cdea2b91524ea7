"""Errors that users can fix.

Each class is one kind of rejection. The message tells the user what to do, and never contains a secret.
"""


class YaptideError(Exception):
    """Base class of all errors that yaptide raises on purpose; ``str(error)`` is the message for the user."""


class InvalidInput(YaptideError):
    """The request or the input of the simulation is invalid; nothing was changed."""


class NotAuthenticated(YaptideError):
    """No user is signed in, or the name or password is wrong."""


class Forbidden(YaptideError):
    """The user is not allowed to do this."""


class NotFound(YaptideError):
    """The requested object does not exist."""


class Conflict(YaptideError):
    """The current state of the object does not allow this."""


class TooLarge(YaptideError):
    """The body or the results are larger than this installation accepts."""


class NotConfigured(YaptideError):
    """This service is not configured or not installed."""


class StorageFull(YaptideError):
    """The database or a disk is full; nothing was changed."""


class Unavailable(YaptideError):
    """The server or the database is unreachable or too busy; the same call may succeed later."""
