"""The processes of a storm; see `tests.stress.storm`."""

import json
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support import payloads
from tests.support.storing import FOREIGN, output
from yaptide.domain.errors import YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Database
from yaptide.services import merging, recovery, results, simulations, tasks, users
from yaptide.services.backend import Backend, utc_now
from yaptide.services.simulations import Report, Submission
from yaptide.services.spool import Folder
from yaptide.services.tasks import Update

TASKS = 4
PRIMARIES = 1000
SILENCE = timedelta(seconds=2)
#: Simulations of the first type are run by runners, those of the second by reporters and senders.
OURS, THEIRS = "shieldhit", "fluka"


class Role:
    """A process with its store and the journal of what the store has acknowledged."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.backend = Backend(Database(url), Folder(folder / "spool"), b"0" * 32, foreign_workers=FOREIGN)
        self.user = users.ensure_user(self.backend, "stress")
        self.draw = random.Random(seed)
        self.owner = f"storm/0/{os.getpid()}-{seed}"
        self.folder = folder
        self._journal = (folder / f"{os.getpid()}-{seed}.journal").open("ab", buffering=0)

    def acknowledge(self, did: str, simulation: int, **what: Any) -> None:
        """Record what the store has acknowledged, in one write, so that a kill leaves only complete lines."""
        self._journal.write(json.dumps({"did": did, "simulation": simulation, **what}).encode() + b"\n")

    def pick_simulation(self) -> dict[str, Any] | None:
        """Return one of the recently submitted simulations."""
        path = self.folder / "submitted"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return json.loads(self.draw.choice(lines[-40:])) if lines else None

    def submitter(self) -> None:
        """Submit a simulation, and publish its key."""
        sim_type = self.draw.choice((OURS, THEIRS))
        project = payloads.project("dose", primaries=TASKS * PRIMARIES)
        files = payloads.shieldhit_files(TASKS * PRIMARIES)
        ours, theirs = Submission(OURS, TASKS, "storm", files), Submission(THEIRS, TASKS, "storm", None, project)
        done = simulations.submit_simulation(self.backend, self.user, ours if sim_type == OURS else theirs)
        entry = {"id": done.simulation_id, "job_id": done.job_id, "key": done.update_key, "type": sim_type}
        descriptor = os.open(self.folder / "submitted", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps(entry).encode() + b"\n")
        os.close(descriptor)
        self.acknowledge("submit", done.simulation_id)
        time.sleep(0.05)  # so that other processes work on the same simulations

    def reporter(self) -> None:
        """Report on a task: mostly progress, sometimes a state, possibly an outdated one."""
        simulation = self.pick_simulation()
        if simulation is None or simulation["type"] == OURS:
            return
        task, simulated = self.draw.randrange(TASKS), self.draw.randrange(PRIMARIES)
        state = self.draw.choice([EntityState.RUNNING] * 12 + [EntityState.COMPLETED] * 3 + [EntityState.FAILED])
        after = tasks.report_task(
            self.backend, simulation["id"], task, simulation["key"], Update(state, None, simulated)
        )
        promised = {"simulated": simulated} if after is EntityState.RUNNING else {}
        self.acknowledge("report", simulation["id"], task=task, state=after, **promised)

    def sender(self) -> None:
        """Send results, sometimes twice, or report a failure."""
        simulation = self.pick_simulation()
        if simulation is None or simulation["type"] == OURS or self.draw.random() < 0.5:
            return
        if self.draw.random() < 0.05:
            state = simulations.report_simulation(
                self.backend, simulation["id"], simulation["key"], Report(EntityState.FAILED)
            )
            self.acknowledge("fail", simulation["id"], state=state)
            return
        pages = [payloads.page(number) for number in range(3)]
        estimators = [payloads.estimator("dose", *pages), payloads.estimator("fluence", *pages)]
        body = {"simulation_id": simulation["id"], "update_key": simulation["key"], "estimators": estimators}
        results.post_results(self.backend, json.dumps(body).encode())
        self.acknowledge("results", simulation["id"], pages=6)

    def runner(self) -> None:
        """Merge a waiting simulation, otherwise run a task, like an executor."""
        simulation = merging.claim_merge(self.backend, self.owner)
        if simulation is not None:
            merging.merge_simulation(self.backend, simulation, self.owner)
            self.acknowledge("merge", simulation.id)
            return
        claim = tasks.claim_task(self.backend, self.owner, [OURS])
        if claim is None:
            return
        for simulated in range(0, PRIMARIES, 250):
            if not tasks.report_progress(self.backend, claim, simulated, None):
                return
            time.sleep(0.002)  # leaves time to be killed or canceled
        if self.draw.random() < 0.05:
            tasks.fail_task(self.backend, claim, "bad luck", {"output.log": "bad luck"})
        elif tasks.complete_task(self.backend, claim, output(claim)):
            self.acknowledge("complete", claim.simulation_id, task=claim.task_id, state="COMPLETED")

    def canceller(self) -> None:
        """Cancel a simulation."""
        simulation = self.pick_simulation()
        time.sleep(0.1)
        if (
            simulation is not None
            and simulations.cancel_simulation(self.backend, self.user, simulation["job_id"]) is None
        ):
            self.acknowledge("cancel", simulation["id"], state="CANCELED")

    def deleter(self) -> None:
        """Delete a simulation that has ended."""
        simulation = self.pick_simulation()
        time.sleep(0.1)
        if (
            simulation is not None
            and simulations.delete_simulation(self.backend, self.user, simulation["job_id"]) is None
        ):
            self.acknowledge("delete", simulation["id"])

    def sweeper(self) -> None:
        """Requeue tasks of killed processes."""
        time.sleep(0.2)
        recovery.requeue_stalled(self.backend, utc_now() - SILENCE)
        recovery.clean_up(self.backend)


def play_role(name: str, url: str, folder: Path, seed: int) -> None:
    """Play a role until killed. Errors of yaptide are expected; any other error ends the process."""
    role = Role(url, folder, seed)
    step: Callable[[], None] = getattr(role, name)
    while True:
        try:
            step()
        except YaptideError:
            time.sleep(0.001)
