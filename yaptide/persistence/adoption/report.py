"""The report about a conversion: the decisions, and the numbers of rows."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision.

    `where` names the row (`Task 17`, with its id in the old table), `whose` the simulation (job_id), user or cluster
    that it belongs to, `what` the action and `why` the reason. None of them contains a secret.
    """

    where: str
    whose: str
    what: str
    why: str


@dataclass(slots=True)
class Report:
    """The report about a converted database.

    `revision` is the original one (None: no migration had run). `adopted` is False if it already was a yaptide
    database. `rows` counts the rows of each table after the conversion.
    """

    revision: str | None
    adopted: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
