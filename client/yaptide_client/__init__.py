"""The Python client: submit simulations to a yaptide server and get their results as arrays, tables and plots.

from yaptide_client import Client

with Client("http://localhost:5000") as client:
    client.sign_in("me", "my password")
    job = client.submit("proton-150MeV-water", ntasks=4)
    job.wait()
    dose = job.results().page("Dose", 0)
    print(dose.axes[0].values, dose.values, dose.errors)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaptide_client.http import Client, Job
    from yaptide_client.results import Results

__all__ = ["Client", "Job", "Results"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the classes above on first access: importing only the errors or states does not load numpy."""
    if name in ("Client", "Job"):
        from yaptide_client import http  # noqa: PLC0415 - see above

        return getattr(http, name)
    if name == "Results":
        from yaptide_client.results import Results  # noqa: PLC0415 - see above

        return Results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
