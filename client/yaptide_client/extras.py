"""Optional libraries come with extras of the package, e.g. `pip install 'yaptide[hpc]'`."""

from importlib.util import find_spec
from types import TracebackType

from yaptide_client.errors import NotConfigured

#: Extra of each library, by its import name.
EXTRAS = {
    "celery": "workers",
    "kombu": "workers",
    "asyncssh": "hpc",
    "obstore": "s3",
    "pymchelper": "codes",
    "matplotlib": "plots",
    "pandas": "tables",
    "xarray": "tables",
}


class needed_for:  # noqa: N801 - used like a function: with needed_for("Drawing"): import matplotlib
    """Raise NotConfigured, with the extra to install, if an import within the block lacks a library.

    `purpose` is what needs the library, as the beginning of a sentence.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Convert a missing library to NotConfigured; other errors, such as a missing module of yaptide, stay."""
        if isinstance(error, ModuleNotFoundError):
            library = (error.name or "").partition(".")[0]
            if library in EXTRAS:
                raise _missing(library, self._purpose) from error


def require_extra(library: str, purpose: str) -> None:
    """Raise NotConfigured if a library of an extra is not installed, before other code imports it."""
    if not is_installed(library):
        raise _missing(library, purpose)


def is_installed(library: str) -> bool:
    """Return whether a library is installed, without importing it."""
    return find_spec(library) is not None


def _missing(library: str, purpose: str) -> NotConfigured:
    package = f"{'yaptide' if is_installed('yaptide') else 'yaptide-client'}[{EXTRAS[library]}]"
    return NotConfigured(f"{purpose} needs {library}, which is not installed: pip install '{package}'")
