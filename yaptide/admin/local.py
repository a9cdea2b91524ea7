"""The local data folder, or the configured database, as a target of commands."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from yaptide.admin import naming
from yaptide.admin.display import print_message
from yaptide.admin.interrupts import Interrupts
from yaptide.admin.store import Opened, local_user, open_store
from yaptide.admin.targets import Following, Request, Selection, Show, TaskProgress
from yaptide.application import make_executor
from yaptide.domain.errors import InvalidInput
from yaptide.domain.states import FINAL_STATES
from yaptide.persistence import codec
from yaptide.services import checks, logfiles, results, simulations, summaries
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.simulations import Page, Submission
from yaptide.services.users import User
from yaptide_client.files import read_input

if TYPE_CHECKING:
    from yaptide.platforms.direct.embedded import EmbeddedExecutor
    from yaptide.platforms.direct.outbox import OutboxPublisher

_POLL_SECONDS = 0.1


class LocalTarget:
    """The database of the settings, and an executor in this process while it runs a simulation."""

    def __init__(self, store: Opened) -> None:
        self._store = store
        self._backend = store.backend

    @classmethod
    def open(cls) -> Self:
        """Open the configured database; raise Conflict if its tables are not current."""
        return cls(open_store())

    def check(self, path: Path, tasks: int | None, sim_type: str) -> dict[str, Any]:
        """See `Target`."""
        submission = _submission(path, tasks, sim_type)
        _, executor = make_executor(self._store.settings, self._backend)
        executor.announce()
        try:
            return checks.check_submission(self._backend, local_user(self._backend, ""), submission).describe()
        finally:
            executor.withdraw()

    def run(self, request: Request, following: Following) -> tuple[str, str]:
        """See `Target`; raises NotConfigured, with nothing stored, if nothing can run the simulation."""
        if request.cluster:
            raise InvalidInput("--cluster needs a server: add --server URL, or sign in with yaptide login URL")
        submission = _submission(request.path, request.tasks, request.sim_type, request.title)
        _, executor = make_executor(self._store.settings, self._backend)
        executor.announce()
        try:
            owner = local_user(self._backend, request.user)
            submitted = simulations.submit_simulation(self._backend, owner, submission)
            for sentence in submitted.left_out:
                print_message(f"Left out: {sentence}")
            job_id = submitted.job_id
            with self._executing(executor, job_id) as keep_running, following(job_id) as show:
                return job_id, self._follow(job_id, show, keep_running)
        finally:
            executor.withdraw()

    def _follow(self, job_id: str, show: Show, meanwhile: Callable[[], object]) -> str:
        """Show the progress of a simulation until it ends, and return its state; call `meanwhile` between updates."""
        while True:
            status = simulations.read_status(self._backend, ADMINISTRATOR, job_id)
            show(status.simulation.job_state, [TaskProgress(*(getattr(t, n) for n in _SHOWN)) for t in status.tasks])
            if status.simulation.job_state in FINAL_STATES:
                return str(status.simulation.job_state)
            time.sleep(_POLL_SECONDS)
            meanwhile()

    @contextmanager
    def _executing(self, executor: "EmbeddedExecutor | OutboxPublisher", job_id: str) -> Iterator[Callable[[], object]]:
        """Run tasks within the block, unless another process on the same data folder runs them already.

        Yields a function to call repeatedly: it starts the executor if that other process has ended, and raises
        KeyboardInterrupt after Ctrl-C.
        """
        with Interrupts(signal.SIGINT) as interrupts:
            is_running = executor.start()
            if not is_running:
                print_message(
                    "Another process runs the tasks of this data folder; this one follows them, and takes over when "
                    "that process ends"
                )

            def keep_running() -> None:
                nonlocal is_running
                interrupts.raise_if_interrupted()
                is_running = is_running or executor.start()

            try:
                yield keep_running
            except KeyboardInterrupt:
                executor.stop()
                print_message(
                    f"The simulation is kept; {self._what_next(is_running)}. Cancel it: yaptide cancel {job_id}"
                )
                raise
            finally:
                executor.stop()

    def _what_next(self, was_run_here: bool) -> str:
        """Return what happens to a simulation after this command stops following it."""
        if not was_run_here:
            return "another process continues it"
        if self._store.settings.broker_url.get_secret_value():
            return "workers finish their current tasks; the rest continues with the next `yaptide up`, `work` or `run`"
        return "its tasks start again with the next `yaptide up`, `work` or `run`"

    def find_job(self, prefix: str) -> str:
        """See `Target`."""
        return naming.find_job(self._backend.database, prefix)

    def summarize(self, job_id: str) -> dict[str, Any]:
        """See `Target`."""
        return summaries.summarize_simulation(self._backend, ADMINISTRATOR, job_id)

    def list_simulations(self, selection: Selection) -> dict[str, Any]:
        """See `Target`."""
        page = Page(selection.page, selection.size, title=selection.title)
        return summaries.list_simulations(self._backend, self._owner(selection), page)

    def describe_owner(self, selection: Selection) -> str:
        """See `Target`."""
        if selection.all_users:
            return "all users"
        return f"{self._owner(selection).username}; other users: --user NAME, all users: --all"

    def _owner(self, selection: Selection) -> User:
        return ADMINISTRATOR if selection.all_users else local_user(self._backend, selection.user)

    def list_pages(self, job_id: str) -> list[dict[str, Any]]:
        """See `Target`."""
        return results.pages_metadata(self._backend, ADMINISTRATOR, job_id)

    def read_results(
        self, job_id: str, estimator: str | None = None, pages: str | None = None, most: int | None = None
    ) -> bytes | None:
        """See `Target`."""
        text = bytearray()
        for piece in codec.inflate_parts(results.read_answer(self._backend, ADMINISTRATOR, job_id, estimator, pages)):
            text += piece
            if most is not None and len(text) > most:
                return None
        return bytes(text)

    def read_logfiles(self, job_id: str) -> dict[str, str]:
        """See `Target`."""
        return logfiles.read_logfiles(self._backend, ADMINISTRATOR, job_id)

    def list_history(self, job_id: str) -> list[dict[str, Any]]:
        """See `Target`."""
        return summaries.list_history(self._backend, ADMINISTRATOR, job_id)

    def cancel(self, job_id: str) -> str | None:
        """See `Target`."""
        return simulations.cancel_simulation(self._backend, ADMINISTRATOR, job_id, "canceled on the command line")

    def delete(self, job_id: str) -> str | None:
        """See `Target`."""
        return simulations.delete_simulation(self._backend, ADMINISTRATOR, job_id)


_SHOWN = TaskProgress._fields


def _submission(path: Path, tasks: int | None, sim_type: str, title: str = "") -> Submission:
    """Return the submission of a folder of input files, or of a project in a JSON file."""
    name, content = read_input(path, print_message)
    return Submission(sim_type, tasks, title or name, content.get("input_files"), content.get("input_json"))
