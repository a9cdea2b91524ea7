"""The store against a plain-Python model of it: whatever is done in whatever order, both agree.

The model is written from the rules (docs/states.md, docs/architecture.md), not from the code.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from tests.support import payloads
from tests.support.invariants import broken_invariants
from tests.support.storing import FOREIGN, output
from yaptide.domain.errors import Conflict, InvalidInput, YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationModel
from yaptide.services import merging, recovery, results, retention, simulations, tasks, users
from yaptide.services.backend import Backend, utc_now
from yaptide.services.retention import Old
from yaptide.services.simulations import Page, Report, Submission
from yaptide.services.spool import Folder
from yaptide.services.tasks import Claim, Update

FINAL = {"COMPLETED", "FAILED", "CANCELED"}
REQUESTED = 100
OWNER = "host/0/1"
MERGER = "host/0/2"


@dataclass
class Task:
    """What the model knows of a task."""

    state: str = "PENDING"
    simulated: int = 0
    attempt: int = 0
    ours: bool = False
    owner: str = ""


@dataclass
class Simulation:
    """What the model knows of a simulation."""

    id: int
    job_id: str
    key: str
    tasks: list[Task]
    state: str = "PENDING"
    results: str | None = None
    claims: list[Claim] = field(default_factory=list)
    merging: bool = False

    def settle(self) -> None:
        """Follow the tasks, as long as nobody merges and nothing has ended."""
        if self.state not in {"PENDING", "RUNNING"}:
            return
        states = {task.state for task in self.tasks}
        if states <= FINAL:
            self.state = next(s for s in ("COMPLETED", "FAILED", "CANCELED") if s in states)
            self.state = "MERGING_QUEUED" if self.state == "COMPLETED" else self.state
        elif states != {"PENDING"}:
            self.state = "RUNNING"

    def waits_for_merge(self) -> bool:
        """All has ended, and our executors have what completed."""
        done = [task for task in self.tasks if task.state == "COMPLETED"]
        ended = all(task.state in FINAL for task in self.tasks)
        return self.state == "MERGING_QUEUED" and ended and bool(done) and all(task.ours for task in done)

    def end(self, state: str) -> None:
        """End, and with it what has not ended."""
        for task in self.tasks:
            if task.state not in FINAL:
                task.state = state
                if state == "COMPLETED":
                    task.simulated = REQUESTED
        self.state = state


class Store(RuleBasedStateMachine):
    """All operations of the services, by one user and several workers."""

    database: Database
    spool: Folder
    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.backend = Backend(self.database, self.spool, b"0" * 32, foreign_workers=FOREIGN)
        with self.database.writing() as connection:
            connection.execute(delete(SimulationModel))
        self.user = users.ensure_user(self.backend, "alice")
        self.model: dict[int, Simulation] = {}

    @rule(target=known, ntasks=st.integers(1, 3))
    def submit(self, ntasks: int) -> int:
        files = payloads.shieldhit_files(ntasks * REQUESTED)
        submitted = simulations.submit_simulation(self.backend, self.user, Submission("shieldhit", ntasks, "t", files))
        found = Simulation(
            submitted.simulation_id, submitted.job_id, submitted.update_key, [Task() for _ in range(ntasks)]
        )
        self.model[found.id] = found
        return found.id

    @rule(key=known, which=st.integers(0, 2), simulated=st.integers(0, 2 * REQUESTED))
    def report_progress(self, key: int, which: int, simulated: int) -> None:
        found = self.model[key]
        task = found.tasks[which % len(found.tasks)]
        self._report(found, which % len(found.tasks), Update(simulated_primaries=simulated))
        if not task.ours and task.state not in FINAL and found.state not in FINAL:
            task.simulated = max(task.simulated, min(simulated, REQUESTED))

    @rule(
        key=known,
        which=st.integers(0, 2),
        state=st.sampled_from(["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELED"]),
    )
    def report_task(self, key: int, which: int, state: str) -> None:
        found = self.model[key]
        task = found.tasks[which % len(found.tasks)]
        self._report(found, which % len(found.tasks), Update(task_state=EntityState(state)))
        free = not task.ours and task.state not in FINAL and found.state not in FINAL
        if free and state not in {"PENDING", task.state}:
            task.state = state
            task.simulated = REQUESTED if state == "COMPLETED" else task.simulated
            found.settle()

    def _report(self, found: Simulation, which: int, update: Update) -> None:
        tasks.report_task(self.backend, found.id, which, found.key, update)

    @rule(key=known, state=st.sampled_from(["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", *sorted(FINAL)]))
    def report_simulation(self, key: int, state: str) -> None:
        found = self.model[key]
        simulations.report_simulation(self.backend, found.id, found.key, Report(EntityState(state)))
        order = ["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING"]
        if found.state in FINAL:
            return
        if state in FINAL:
            found.end(state)
        elif order.index(state) > order.index(found.state):
            found.state = state

    @rule(key=known, value=st.sampled_from([1.0, 2.0]))
    def post_results(self, key: int, value: float) -> None:
        found = self.model[key]
        body = {"simulation_id": found.id, "update_key": found.key}
        body["estimators"] = [payloads.estimator("dose_", payloads.page(values=(value, 0.5)))]
        accepted = found.results == str(value) or (found.results is None and found.state not in {"FAILED", "CANCELED"})
        self._expect(Conflict, not accepted, lambda: results.post_results(self.backend, json.dumps(body).encode()))
        if accepted and found.results is None:
            found.results = str(value)
            if found.state != "COMPLETED":
                found.end("COMPLETED")
                found.state = "FAILED" if any(task.state != "COMPLETED" for task in found.tasks) else "COMPLETED"

    @rule(key=known)
    def post_with_a_wrong_key(self, key: int) -> None:
        found = self.model[key]
        body = {"simulation_id": found.id, "update_key": "wrong", "estimators": [payloads.estimator()]}
        failed = EntityState.FAILED
        for call in (
            lambda: results.post_results(self.backend, json.dumps(body).encode()),
            lambda: tasks.report_task(self.backend, found.id, 0, "wrong", Update(task_state=failed)),
            lambda: simulations.report_simulation(self.backend, found.id, "wrong", Report(failed)),
        ):
            self._expect(InvalidInput, True, call)

    @rule(key=known)
    def cancel(self, key: int) -> None:
        found = self.model[key]
        ended = simulations.cancel_simulation(self.backend, self.user, found.job_id)
        assert (ended is not None) == (found.state in FINAL)
        if ended is None:
            found.end("CANCELED")

    @rule(key=consumes(known))
    def delete(self, key: int) -> None:
        found = self.model.pop(key)
        refused = simulations.delete_simulation(self.backend, self.user, found.job_id)
        assert (refused is not None) == (found.state in {"PENDING", "RUNNING"})
        if refused is not None:
            simulations.cancel_simulation(self.backend, self.user, found.job_id)
            assert simulations.delete_simulation(self.backend, self.user, found.job_id) is None

    @rule(key=consumes(known))
    def purge(self, key: int) -> None:
        """What has ended is old tomorrow."""
        found = self.model[key]
        old = Old(utc_now() + timedelta(days=1), tuple(map(EntityState, sorted(FINAL))))
        removed = retention.purge_simulations(self.database, self.spool, old, [found.job_id])
        assert bool(removed) == (found.state in FINAL)
        if removed:
            del self.model[key]

    @rule()
    def claim(self) -> None:
        claimed = tasks.claim_task(self.backend, OWNER, ["shieldhit"])
        waiting = [
            (found.id, number)
            for found in self.model.values()
            if found.state in {"PENDING", "RUNNING"}
            for number, task in enumerate(found.tasks)
            if task.state == "PENDING"
        ]
        assert (claimed and (claimed.simulation_id, claimed.task_id)) == (min(waiting) if waiting else None)
        if claimed is not None:
            found = self.model[claimed.simulation_id]
            found.tasks[claimed.task_id].state = "RUNNING"
            found.tasks[claimed.task_id].attempt += 1
            found.tasks[claimed.task_id].ours = True
            found.tasks[claimed.task_id].owner = claimed.owner
            found.claims.append(claimed)
            found.settle()

    def _claimed(self) -> list[tuple[Simulation, Claim]]:
        return [(found, claim) for found in self.model.values() for claim in found.claims]

    @precondition(lambda self: self._claimed())
    @rule(
        data=st.data(),
        how=st.sampled_from(["progress", "complete", "fail", "give back"]),
        simulated=st.integers(0, 100),
    )
    def work(self, data: st.DataObject, how: str, simulated: int) -> None:
        """An executor, which may have lost its claim long ago, goes on with it, or says again how it ended."""
        found, claim = data.draw(st.sampled_from(self._claimed()))
        task = found.tasks[claim.task_id]
        mine = task.ours and task.state == "RUNNING" and task.owner == claim.owner
        if how == "progress":
            assert tasks.report_progress(self.backend, claim, simulated, None) is mine
            task.simulated = max(task.simulated, simulated) if mine else task.simulated
            return
        done = {
            "complete": lambda: tasks.complete_task(self.backend, claim, output(claim)),
            "fail": lambda: tasks.fail_task(self.backend, claim, "broken", {"output.log": "oh"}),
            "give back": lambda: tasks.give_back(self.backend, claim, "stopped"),
        }[how]()
        assert done is mine
        if mine:
            task.state = {"complete": "COMPLETED", "fail": "FAILED", "give back": "PENDING"}[how]
            task.simulated = REQUESTED if how == "complete" else task.simulated
            task.attempt -= how == "give back"
            task.ours = how != "give back"
            found.settle()

    @rule()
    def sweep(self) -> None:
        """Everybody has gone silent."""
        recovery.requeue_stalled(self.backend, utc_now(), dead_owner="host/0/")
        for found in self.model.values():
            if found.state == "MERGING_RUNNING" and found.merging:
                found.state, found.merging = "MERGING_QUEUED", False
            for task in found.tasks:
                if task.state == "RUNNING" and task.ours:
                    given_up = task.attempt >= self.backend.limits.attempts
                    task.state, task.ours = ("FAILED", True) if given_up else ("PENDING", False)
            found.settle()

    @rule(dies=st.booleans())
    def merge(self, dies: bool) -> None:
        """Merge what waits; or begin to, and die."""
        simulation = merging.claim_merge(self.backend, MERGER)
        waiting = [found.id for found in self.model.values() if found.waits_for_merge()]
        assert (simulation and simulation.id) == (min(waiting) if waiting else None)
        if simulation is None:
            return
        found = self.model[simulation.id]
        if dies:
            found.state, found.merging = "MERGING_RUNNING", True
            return
        merging.merge_simulation(self.backend, simulation, MERGER)
        found.results = "merged"
        found.state = "COMPLETED" if all(task.state == "COMPLETED" for task in found.tasks) else "FAILED"

    @invariant()
    def the_store_agrees(self) -> None:
        for found in self.model.values():
            status = simulations.read_status(self.backend, self.user, found.job_id)
            shown = [(task.task_state, task.simulated_primaries) for task in status.tasks]
            assert (str(status.simulation.job_state), shown) == (
                found.state,
                [(t.state, t.simulated) for t in found.tasks],
            )
            try:
                has_results = bool(results.pages_metadata(self.backend, self.user, found.job_id))
            except YaptideError:
                has_results = False
            assert has_results == (found.results is not None)

    @invariant()
    def the_list_tells_how_many_there_are(self) -> None:
        states = Counter(found.state for found in self.model.values())
        for state in EntityState:
            assert simulations.list_simulations(self.backend, self.user, Page(states=(state,)))[0] == states[state]
        assert simulations.list_simulations(self.backend, self.user, Page())[0] == len(self.model)

    def teardown(self) -> None:
        assert broken_invariants(self.database) == []

    @staticmethod
    def _expect(error: type[YaptideError], refused: bool, call: Callable[[], Any]) -> None:
        if refused:
            with pytest.raises(error):
                call()
        else:
            call()


@pytest.mark.parametrize("database", ["memory", "postgresql"], indirect=True)
def test_the_store_does_what_the_model_says(database: Database, tmp_path: Path) -> None:
    Store.database, Store.spool = database, Folder(tmp_path / "spool")
    examples = 60 if database.is_sqlite else 25
    run_state_machine_as_test(Store, settings=settings(max_examples=examples, stateful_step_count=40))
