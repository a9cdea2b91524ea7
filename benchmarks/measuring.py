"""What a row of the table is, and how our time and the limit's are taken: in turns, so that both meet the same."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Action = Callable[[], Any]


@dataclass(frozen=True)
class Goal:
    """What a row has to reach; `text` says it, `met` decides on the row's value."""

    kind: str
    bound: float

    @property
    def text(self) -> str:
        """As the table says it."""
        return {
            "share": f">= {self.bound:.0%} of the limit",
            "factor": f"<= {self.bound:g}x the limit",
            "overhead": f"< {self.bound:.0%} more",
            "p95": f"p95 < {self.bound * 1000:g} ms",
            "bytes": f"< {self.bound / 1e6:g} MB",
        }[self.kind]

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.bound if self.kind == "share" else value <= self.bound

    def reached(self, value: float) -> float:
        """How far a value is from the bound: 1 just meets it, less is better."""
        return self.bound / value if self.kind == "share" else value / self.bound


@dataclass
class Row:
    """One line of the table: `ours` and `limit` in seconds for each round (bytes where the goal is one of memory).

    `beside` says in a line what the limit is.
    """

    name: str
    database: str
    ours: list[float]
    limit: list[float] = field(default_factory=list)
    goal: Goal | None = None
    beside: str = ""

    @property
    def ratio(self) -> float | None:
        """Our time in those of the limit: the median over the rounds, each of which took both right after another."""
        pairs = zip(self.ours, self.limit, strict=False)
        return statistics.median(ours / limit for ours, limit in pairs) if self.limit else None

    @property
    def value(self) -> float | None:
        """What the goal is about."""
        if self.goal is None:
            return None
        if self.goal.kind == "p95":
            return quantile(self.ours, 0.95)
        if self.goal.kind == "bytes":
            return max(self.ours)
        ratio = self.ratio or float("nan")
        return {"share": 1 / ratio, "factor": ratio, "overhead": ratio - 1}[self.goal.kind]

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)

    def document(self) -> dict[str, Any]:
        """The row as it is kept."""
        return {
            "name": self.name,
            "database": self.database,
            "rounds": len(self.ours),
            "ours": _spread(self.ours),
            "limit": _spread(self.limit) if self.limit else None,
            "ratio": self.ratio,
            "goal": None if self.goal is None else self.goal.text,
            "value": self.value,
            "reached": None if self.goal is None or self.value is None else self.goal.reached(self.value),
            "met": self.met,
            "beside": self.beside,
        }


def _spread(samples: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(samples), "p95": quantile(samples, 0.95), "least": min(samples)}


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[math.ceil(share * len(ordered)) - 1]


def seconds(action: Action) -> float:
    """How long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_turns(rounds: int, ours: Action, limit: Action, warm: int = 1) -> tuple[list[float], list[float]]:
    """Seconds of both in each round; the first `warm` rounds are not counted."""
    both: tuple[list[float], list[float]] = ([], [])
    for number in range(warm + rounds):
        order = ((0, ours), (1, limit)) if number % 2 else ((1, limit), (0, ours))
        for place, action in order:
            taken = seconds(action)
            if number >= warm:
                both[place].append(taken)
    return both
