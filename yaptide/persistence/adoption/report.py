"""What was found and what was decided about it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice that had to be made.

    `where` names the row (`Task 17`, with its number in the old table), `whose` the simulation (job_id), the user or
    the cluster that it belongs to, `what` tells what was done and `why` what was found. None of them holds a secret.
    """

    where: str
    whose: str
    what: str
    why: str


@dataclass(slots=True)
class Report:
    """Everything to tell about a database that was taken over.

    `revision` is the one that was found (None: no migration ever ran). `adopted` is False if the database was ours
    already. `rows` counts the rows of each table as they are now.
    """

    revision: str | None
    adopted: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
