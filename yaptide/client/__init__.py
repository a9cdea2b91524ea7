"""The Python client: submit simulations to a yaptide server and get their results as arrays, tables and pictures.

from yaptide.client import Client

with Client("http://localhost:5000") as client:
    client.sign_in("me", "my password")
    job = client.submit("proton-150MeV-water", ntasks=4)
    job.wait()
    dose = job.results().page("Dose", 0)
    print(dose.axes[0].values, dose.values, dose.errors)
"""

from yaptide.client.http import Client, Job
from yaptide.client.results import Results

__all__ = ["Client", "Job", "Results"]
