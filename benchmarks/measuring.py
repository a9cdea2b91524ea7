"""Defines rows of the table, and measures yaptide and the limit alternately, so that both see the same conditions."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Action = Callable[[], Any]


@dataclass(frozen=True)
class Goal:
    """The goal of a row, as text and as a condition on the row's value."""

    kind: str
    bound: float

    @property
    def text(self) -> str:
        """The goal as text for the table."""
        return {
            "share": f">= {self.bound:.0%} of the limit",
            "factor": f"<= {self.bound:g}x the limit",
            "overhead": f"< {self.bound:.0%} more",
            "p95": f"p95 < {self.bound * 1000:g} ms",
            "bytes": f"< {self.bound / 1e6:g} MB",
        }[self.kind]

    def is_met(self, value: float) -> bool:
        """Return whether a value meets the goal."""
        return value >= self.bound if self.kind == "share" else value <= self.bound

    def relative_value(self, value: float) -> float:
        """Return a value relative to the bound: 1 just meets it, less is better."""
        return self.bound / value if self.kind == "share" else value / self.bound


@dataclass
class Row:
    """A line of the table: `ours` and `limit` in seconds for each round (bytes for goals about memory).

    `beside` describes the limit in a line.
    """

    name: str
    database: str
    ours: list[float]
    limit: list[float] = field(default_factory=list)
    goal: Goal | None = None
    beside: str = ""

    @property
    def ratio(self) -> float | None:
        """Our time divided by the limit's: the median over the rounds, each of which measures both in succession."""
        pairs = zip(self.ours, self.limit, strict=False)
        return statistics.median(ours / limit for ours, limit in pairs) if self.limit else None

    @property
    def value(self) -> float | None:
        """The value that the goal refers to."""
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
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None or self.value is None else self.goal.is_met(self.value)

    def document(self) -> dict[str, Any]:
        """Return the row as it is stored."""
        return {
            "name": self.name,
            "database": self.database,
            "rounds": len(self.ours),
            "ours": _spread(self.ours),
            "limit": _spread(self.limit) if self.limit else None,
            "ratio": self.ratio,
            "goal": None if self.goal is None else self.goal.text,
            "value": self.value,
            "reached": None if self.goal is None or self.value is None else self.goal.relative_value(self.value),
            "met": self.met,
            "beside": self.beside,
        }


def _spread(samples: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(samples), "p95": quantile(samples, 0.95), "least": min(samples)}


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least `share` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[math.ceil(share * len(ordered)) - 1]


def measure_seconds(action: Action) -> float:
    """Return the duration of an action in seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_turns(rounds: int, ours: Action, limit: Action, warm: int = 1) -> tuple[list[float], list[float]]:
    """Return the seconds of both in each round, without the first `warm` rounds."""
    both: tuple[list[float], list[float]] = ([], [])
    for number in range(warm + rounds):
        order = ((0, ours), (1, limit)) if number % 2 else ((1, limit), (0, ours))
        for place, action in order:
            duration = measure_seconds(action)
            if number >= warm:
                both[place].append(duration)
    return both
