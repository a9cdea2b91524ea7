"""Reports that the agent leaves in the folders of tasks; see `agent.py`, which writes them.

They are files of a user's on a cluster: nothing in them is believed to be what it should be.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from yaptide.platforms.batch.ssh import SshSession

_SHOW = 'cd -- "$1" && xargs cat 2>/dev/null; true'


class Report(msgspec.Struct):
    """How far a run of a task is: `state`, the worker's name, primaries and seconds left, and how it ended."""

    task: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    worker: Annotated[str, msgspec.Meta(pattern="^slurm-[0-9]{1,10}_[0-9]{1,7}-[0-9]{1,9}$")]
    state: Literal["running", "ended", "failed", "stopped", "canceled", "delivered"]
    simulated: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    left: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    version: Annotated[str, msgspec.Meta(max_length=100)] = ""
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")] = ""
    exit_code: Annotated[int, msgspec.Meta(ge=-255, le=255)] = 0
    reason: Annotated[str, msgspec.Meta(max_length=10_000)] = ""


_DECODER = msgspec.json.Decoder(Report)


def read_reports(remote: SshSession, folder: str, numbers: Iterable[int]) -> dict[int, Report]:
    """The reports that there are of tasks of a job, by number: one command, however many."""
    names = "".join(f"task-{number}/report.json\n" for number in numbers)
    answer = remote.run("sh", "-c", _SHOW, "sh", folder, data=names.encode())
    found = {}
    for line in answer.out.splitlines():
        try:
            report = _DECODER.decode(line)
        except msgspec.MsgspecError:
            continue
        found[report.task] = report
    return found
