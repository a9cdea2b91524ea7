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
from tests.support.examples import EXAMPLES
from tests.support.invariants import broken_invariants
from tests.support.storing import FOREIGN, output
from yaptide.domain.errors import Conflict, InvalidInput, YaptideError
from yaptide.domain.states import EntityState
from yaptide.persistence.engine import Database
from yaptide.persistence.models import SimulationModel
from yaptide.services import merging, recovery, results, results_upload, retention, simulations, tasks, users
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
        """Follow the tasks until a merge begins or the simulation ends."""
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
        result = Simulation(
            submitted.simulation_id, submitted.job_id, submitted.update_key, [Task() for _ in range(ntasks)]
        )
        self.model[result.id] = result
        return result.id

    @rule(key=known, which=st.integers(0, 2), simulated=st.integers(0, 2 * REQUESTED))
    def report_progress(self, key: int, which: int, simulated: int) -> None:
        result = self.model[key]
        task = result.tasks[which % len(result.tasks)]
        self._report(result, which % len(result.tasks), Update(simulated_primaries=simulated))
        if not task.ours and task.state not in FINAL and result.state not in FINAL:
            task.simulated = max(task.simulated, min(simulated, REQUESTED))

    @rule(
        key=known,
        which=st.integers(0, 2),
        state=st.sampled_from(["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELED"]),
    )
    def report_task(self, key: int, which: int, state: str) -> None:
        result = self.model[key]
        task = result.tasks[which % len(result.tasks)]
        self._report(result, which % len(result.tasks), Update(task_state=EntityState(state)))
        free = not task.ours and task.state not in FINAL and result.state not in FINAL
        if free and state not in {"PENDING", task.state}:
            task.state = state
            task.simulated = REQUESTED if state == "COMPLETED" else task.simulated
            result.settle()

    def _report(self, result: Simulation, which: int, update: Update) -> None:
        tasks.report_task(self.backend, result.id, which, result.key, update)

    @rule(key=known, state=st.sampled_from(["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING", *sorted(FINAL)]))
    def report_simulation(self, key: int, state: str) -> None:
        result = self.model[key]
        simulations.report_simulation(self.backend, result.id, result.key, Report(EntityState(state)))
        order = ["PENDING", "RUNNING", "MERGING_QUEUED", "MERGING_RUNNING"]
        if result.state in FINAL:
            return
        if state in FINAL:
            result.end(state)
        elif order.index(state) > order.index(result.state):
            result.state = state

    @rule(key=known, value=st.sampled_from([1.0, 2.0]))
    def post_results(self, key: int, value: float) -> None:
        result = self.model[key]
        body = {"simulation_id": result.id, "update_key": result.key}
        body["estimators"] = [payloads.estimator("dose_", payloads.page(values=(value, 0.5)))]
        accepted = result.results == str(value) or (
            result.results is None and result.state not in {"FAILED", "CANCELED"}
        )
        self._expect(
            Conflict, not accepted, lambda: results_upload.post_results(self.backend, json.dumps(body).encode())
        )
        if accepted and result.results is None:
            result.results = str(value)
            if result.state != "COMPLETED":
                result.end("COMPLETED")
                result.state = "FAILED" if any(task.state != "COMPLETED" for task in result.tasks) else "COMPLETED"

    @rule(key=known)
    def post_with_a_wrong_key(self, key: int) -> None:
        result = self.model[key]
        body = {"simulation_id": result.id, "update_key": "wrong", "estimators": [payloads.estimator()]}
        failed = EntityState.FAILED
        for call in (
            lambda: results_upload.post_results(self.backend, json.dumps(body).encode()),
            lambda: tasks.report_task(self.backend, result.id, 0, "wrong", Update(task_state=failed)),
            lambda: simulations.report_simulation(self.backend, result.id, "wrong", Report(failed)),
        ):
            self._expect(InvalidInput, True, call)

    @rule(key=known)
    def cancel(self, key: int) -> None:
        result = self.model[key]
        ended = simulations.cancel_simulation(self.backend, self.user, result.job_id)
        assert (ended is not None) == (result.state in FINAL)
        if ended is None:
            result.end("CANCELED")

    @rule(key=consumes(known))
    def delete(self, key: int) -> None:
        result = self.model.pop(key)
        refused = simulations.delete_simulation(self.backend, self.user, result.job_id)
        assert (refused is not None) == (result.state in {"PENDING", "RUNNING"})
        if refused is not None:
            simulations.cancel_simulation(self.backend, self.user, result.job_id)
            assert simulations.delete_simulation(self.backend, self.user, result.job_id) is None

    @rule(key=consumes(known))
    def purge(self, key: int) -> None:
        """What has ended is old tomorrow."""
        result = self.model[key]
        old = Old(utc_now() + timedelta(days=1), tuple(map(EntityState, sorted(FINAL))))
        removed = retention.purge_simulations(self.database, self.spool, old, [result.job_id])
        assert bool(removed) == (result.state in FINAL)
        if removed:
            del self.model[key]

    @rule()
    def claim(self) -> None:
        claimed = tasks.claim_task(self.backend, OWNER, ["shieldhit"])
        waiting = [
            (claim.id, number)
            for claim in self.model.values()
            if claim.state in {"PENDING", "RUNNING"}
            for number, task in enumerate(claim.tasks)
            if task.state == "PENDING"
        ]
        assert (claimed and (claimed.simulation_id, claimed.task_id)) == (min(waiting) if waiting else None)
        if claimed is not None:
            claim = self.model[claimed.simulation_id]
            claim.tasks[claimed.task_id].state = "RUNNING"
            claim.tasks[claimed.task_id].attempt += 1
            claim.tasks[claimed.task_id].ours = True
            claim.tasks[claimed.task_id].owner = claimed.owner
            claim.claims.append(claimed)
            claim.settle()

    def _claimed(self) -> list[tuple[Simulation, Claim]]:
        return [(result, claim) for result in self.model.values() for claim in result.claims]

    @precondition(lambda self: self._claimed())
    @rule(
        data=st.data(),
        how=st.sampled_from(["progress", "complete", "fail", "give back"]),
        simulated=st.integers(0, 100),
    )
    def work(self, data: st.DataObject, how: str, simulated: int) -> None:
        """An executor, which may have lost its claim long ago, goes on with it, or says again how it ended."""
        result, claim = data.draw(st.sampled_from(self._claimed()))
        task = result.tasks[claim.task_id]
        own = task.ours and task.state == "RUNNING" and task.owner == claim.owner
        if how == "progress":
            assert tasks.report_progress(self.backend, claim, simulated, None) is own
            task.simulated = max(task.simulated, simulated) if own else task.simulated
            return
        done = {
            "complete": lambda: tasks.complete_task(self.backend, claim, output(claim)),
            "fail": lambda: tasks.fail_task(self.backend, claim, "broken", {"output.log": "oh"}),
            "give back": lambda: tasks.give_back(self.backend, claim, "stopped"),
        }[how]()
        assert done is own
        if own:
            task.state = {"complete": "COMPLETED", "fail": "FAILED", "give back": "PENDING"}[how]
            task.simulated = REQUESTED if how == "complete" else task.simulated
            task.attempt -= how == "give back"
            task.ours = how != "give back"
            result.settle()

    @rule()
    def sweep(self) -> None:
        """Everybody has gone silent."""
        recovery.requeue_stalled(self.backend, utc_now(), dead_owner="host/0/")
        for result in self.model.values():
            if result.state == "MERGING_RUNNING" and result.merging:
                result.state, result.merging = "MERGING_QUEUED", False
            for task in result.tasks:
                if task.state == "RUNNING" and task.ours:
                    given_up = task.attempt >= self.backend.limits.attempts
                    task.state, task.ours = ("FAILED", True) if given_up else ("PENDING", False)
            result.settle()

    @rule(dies=st.booleans())
    def merge(self, dies: bool) -> None:
        """Merge what waits; or begin to, and die."""
        simulation = merging.claim_merge(self.backend, MERGER)
        waiting = [result.id for result in self.model.values() if result.waits_for_merge()]
        assert (simulation and simulation.id) == (min(waiting) if waiting else None)
        if simulation is None:
            return
        result = self.model[simulation.id]
        if dies:
            result.state, result.merging = "MERGING_RUNNING", True
            return
        merging.merge_simulation(self.backend, simulation, MERGER)
        result.results = "merged"
        result.state = "COMPLETED" if all(task.state == "COMPLETED" for task in result.tasks) else "FAILED"

    @invariant()
    def the_store_agrees(self) -> None:
        for result in self.model.values():
            status = simulations.read_status(self.backend, self.user, result.job_id)
            shown = [(task.task_state, task.simulated_primaries) for task in status.tasks]
            assert (str(status.simulation.job_state), shown) == (
                result.state,
                [(t.state, t.simulated) for t in result.tasks],
            )
            try:
                has_results = bool(results.pages_metadata(self.backend, self.user, result.job_id))
            except YaptideError:
                has_results = False
            assert has_results == (result.results is not None)

    @invariant()
    def the_list_tells_how_many_there_are(self) -> None:
        states = Counter(result.state for result in self.model.values())
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
    examples = EXAMPLES * (30 if database.is_sqlite else 12)
    run_state_machine_as_test(Store, settings=settings(max_examples=examples, stateful_step_count=40))
