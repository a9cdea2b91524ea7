"""The Python client, which is a package of its own, `yaptide_client`, for those who need nothing else of yaptide."""

from yaptide_client import Client, Job, Results

__all__ = ["Client", "Job", "Results"]
