"""Libraries that only some need come with extras of the package, such as `pip install 'yaptide[hpc]'`."""

from importlib.util import find_spec
from types import TracebackType

from yaptide_client.errors import NotConfigured

#: The extra that brings a library, by the name under which that is imported.
EXTRAS = {
    "celery": "workers",
    "kombu": "workers",
    "asyncssh": "hpc",
    "obstore": "s3",
    "matplotlib": "plots",
    "pandas": "tables",
    "xarray": "tables",
}


class needed_for:  # noqa: N801 - it reads as words: with needed_for("Drawing"): import matplotlib
    """Around imports: raises NotConfigured, with the extra to install, if a library of one is missing.

    `purpose` is what cannot be done without it, as the beginning of a sentence.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose

    def __enter__(self) -> None:
        """Nothing is done before."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Any other error, such as a module of ours that is missing, stays as it is."""
        if isinstance(error, ModuleNotFoundError):
            library = (error.name or "").partition(".")[0]
            if library in EXTRAS:
                raise _missing(library, self._purpose) from error


def require_extra(library: str, purpose: str) -> None:
    """The same for a library of an extra that somebody else is going to import."""
    if not is_installed(library):
        raise _missing(library, purpose)


def is_installed(library: str) -> bool:
    """Whether a library could be imported; it is not."""
    return find_spec(library) is not None


def _missing(library: str, purpose: str) -> NotConfigured:
    package = f"{'yaptide' if is_installed('yaptide') else 'yaptide-client'}[{EXTRAS[library]}]"
    return NotConfigured(f"{purpose} needs {library}, which is not installed: pip install '{package}'")
