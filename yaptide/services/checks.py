"""The check of an input before it is submitted: what it would become, or what is wrong with it, and where."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from yaptide.domain.errors import Busy, InvalidInput
from yaptide.services.backend import Backend
from yaptide.services.simulations import Preview, Submission, preview_submission
from yaptide.services.users import User
from yaptide.simulators.text import split_lines

_LONGEST_LINE = 200
_RETRY_SECONDS = 5
#: Users, by id, whose input this process is checking. A large CT takes seconds.
_checking = set[int]()
_lock = Lock()


@contextmanager
def reserve_check(user: User) -> Iterator[None]:
    """Let a user have one input checked at a time; raise Busy for another one."""
    with _lock:
        if user.id in _checking:
            raise Busy(_RETRY_SECONDS, "Another input of yours is being checked")
        _checking.add(user.id)
    try:
        yield
    finally:
        with _lock:
            _checking.discard(user.id)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of an input file that an error is about.

    `lines` are that line and those next to it, with their numbers from 1.
    """

    file: str
    number: int
    lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkup:
    """The outcome of a check: what the submission would become, or the `problem` and its `place`, if that is known."""

    preview: Preview | None = None
    problem: str | None = None
    place: Place | None = None

    def describe(self) -> dict[str, Any]:
        """Return the outcome as scripts get it: `is_valid`, `problems`, and of a valid input what it would become."""
        if self.preview is None:
            return {"is_valid": False, "problems": [self._describe_problem()]}
        preview = self.preview
        return {
            "is_valid": True,
            "problems": [],
            "sim_type": preview.sim_type,
            "primaries": preview.primaries,
            "ntasks": preview.tasks,
            "reason": preview.suggestion,
            "left_out": list(preview.left_out),
            "waiting": preview.waits,
        }

    def _describe_problem(self) -> dict[str, Any]:
        place = self.place
        if place is None:
            return {"message": self.problem, "file": None, "line": None, "text": None}
        text = next((text for number, text in place.lines if number == place.number), None)
        return {"message": self.problem, "file": place.file, "line": place.number, "text": text}


def check_submission(backend: Backend, user: User, submission: Submission) -> Checkup:
    """Check a submission as `submit_simulation` does, and store nothing.

    Raises what `submit_simulation` raises, but InvalidInput: that is the problem in the outcome. Raises Busy while
    another input of the user is checked.
    """
    try:
        with reserve_check(user):
            return Checkup(preview_submission(backend, user, submission))
    except InvalidInput as error:
        message = str(error)
        return Checkup(problem=message, place=find_place(message, submission.input_files))


def find_place(message: str, files: Mapping[str, str] | None) -> Place | None:
    """Return the line of an input file that an error names as in `plan.txt, line 7: ...`, if it names one."""
    for name, text in (files or {}).items():
        match = re.match(r", line (\d{1,9}):", message[len(name) :]) if message.startswith(name) else None
        if match:
            number, lines = int(match[1]), split_lines(text)
            near = range(max(1, number - 1), min(len(lines), number + 1) + 1)
            return Place(name, number, [(each, lines[each - 1][:_LONGEST_LINE]) for each in near])
    return None
