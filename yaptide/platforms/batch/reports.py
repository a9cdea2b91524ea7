"""Reads the reports that the agent writes to the folders of tasks (`agent.py`).

They are files of a user on a cluster, so every field is validated.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from yaptide.platforms.batch.schedulers.base import RUN_NAME
from yaptide.platforms.batch.ssh import SshSession

_SHOW = 'cd -- "$1" && xargs cat 2>/dev/null; true'


class Report(msgspec.Struct):
    """The state of one run of a task: name of the run, primaries and seconds left, and how it ended."""

    task: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    worker: Annotated[str, msgspec.Meta(pattern=f"^{RUN_NAME}$")]
    state: Literal["running", "ended", "failed", "stopped", "canceled", "delivered"]
    simulated: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    left: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    version: Annotated[str, msgspec.Meta(max_length=100)] = ""
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")] = ""
    exit_code: Annotated[int, msgspec.Meta(ge=-255, le=255)] = 0
    reason: Annotated[str, msgspec.Meta(max_length=10_000)] = ""


_DECODER = msgspec.json.Decoder(Report)


def read_reports(session: SshSession, folder: str, numbers: Iterable[int]) -> dict[int, Report]:
    """The valid reports of tasks of a job, by task number, by one command."""
    names = "".join(f"task-{number}/report.json\n" for number in numbers)
    answer = session.run_command("sh", "-c", _SHOW, "sh", folder, data=names.encode())
    reports = {}
    for line in answer.out.splitlines():
        try:
            report = _DECODER.decode(line)
        except msgspec.MsgspecError:
            continue
        reports[report.task] = report
    return reports
