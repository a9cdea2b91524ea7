"""The path below which a reverse proxy shows the server, such as `/yaptide`: addresses in answers begin with it.

It comes from the settings, not from a header that clients could send.
"""

from collections.abc import Callable
from typing import Any

Environ = dict[str, Any]


def move_below(environ: Environ, prefix: str) -> None:
    """Let a request (PEP 3333) be one for an application below `prefix`, whether or not its path has it.

    A request that was moved already is unchanged: what remains of its path may begin like the prefix.
    """
    if prefix and environ["SCRIPT_NAME"] == prefix:
        return
    path = environ["PATH_INFO"]
    environ["SCRIPT_NAME"] = prefix
    if path == prefix or path.startswith(f"{prefix}/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"


def serve_below(app: Callable[..., Any], prefix: str) -> Callable[..., Any]:
    """Return a WSGI application that is `app` below `prefix`."""

    def moved(environ: Environ, start_response: Callable[..., Any]) -> Any:
        move_below(environ, prefix)
        return app(environ, start_response)

    return moved
