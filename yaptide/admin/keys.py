"""`yaptide simulations key`: the key with which workers of others report about a simulation."""

import typer

from yaptide.admin.arguments import AsJson, JobId
from yaptide.admin.display import out, print_json, print_message
from yaptide.admin.store import open_store
from yaptide.services import simulations
from yaptide.services.access import ADMINISTRATOR

app = typer.Typer()


@app.command("key")
def show_key(job_id: JobId, as_json: AsJson = False) -> None:
    """Print the update key of a simulation, and nothing else on standard output: whoever has it can report.

    It is the same each time, unless the key that signs tokens was changed: then it is a new one, and the old one is
    good for nothing. docs/workers.md says what is reported with it.

    Example: yaptide simulations key 20260301-100000-...DIRECT
    """
    backend = open_store().backend
    number, key = simulations.read_update_key(backend, ADMINISTRATOR, job_id)
    if as_json:
        print_json({"job_id": job_id, "simulation_id": number, "update_key": key})
        return
    print_message(f"Simulation number {number}, update key:")
    out.print(key, markup=False, highlight=False, soft_wrap=True)
