"""Reading values out of a JSON document, with refusals that say where they are."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Vector

#: No length, angle or energy is larger than this, in the editor's units.
_FAR = 1e6
_LONGEST_NAME = 80

_Kind = TypeVar("_Kind", bound=Enum)


def short(text: str) -> str:
    """A text of the user's, fit to be shown in an error."""
    return repr(text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "...")


@dataclass(frozen=True, slots=True)
class Section:
    """An object of a document, and its `place` in words. Whatever is missing has the `default`, if there is one."""

    place: str
    values: Mapping[str, Any]
    document: str = "Project"

    def refusal(self, why: str) -> InvalidInput:
        """The error to raise when something here is wrong."""
        return InvalidInput(f"{self.document}, {self.place}: {why}")

    def within(self, key: str) -> "Section":
        """The object under `key`; empty if it is missing. Raises InvalidInput if it is no object."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.refusal(f"{key} has to be an object")
        return Section(f"{self.place}, {key}", value or {}, self.document)

    def items(self, key: str, kind: str, most: int) -> Iterator["Section"]:
        """The objects in the list under `key`, each placed by its `kind` and name; raises InvalidInput."""
        for number, value in enumerate(self.sequence(key, most), 1):
            if not isinstance(value, Mapping):
                raise self.refusal(f"{key}, entry {number}: it has to be an object")
            name = value.get("name")
            place = f"{kind} {short(name) if isinstance(name, str) and name else number}"
            yield Section(place, value, self.document)

    def sequence(self, key: str, most: int) -> Sequence[Any]:
        """The list under `key`, empty if it is missing; raises InvalidInput if it is none, or longer than `most`."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.refusal(f"{key} has to be a list")
        if len(value) > most:
            raise self.refusal(f"{key} has {len(value)} entries, {most} are allowed")
        return value

    def text(self, key: str, default: str = "") -> str:
        """The text under `key`; raises InvalidInput if it is none."""
        value = self.values.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refusal(f"{key} has to be a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """The yes or no under `key`; raises InvalidInput if it is neither."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.refusal(f"{key} has to be true or false")
        return default if value is None else value

    def number(self, key: str, default: float | None = None, low: float = -_FAR, high: float = _FAR) -> float:
        """The number under `key`, `low` <= number <= `high`; raises InvalidInput."""
        value = self.values.get(key)
        return self._real(key, default if value is None else value, low, high)

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        """The whole number under `key`, `low` <= number <= `high`; raises InvalidInput."""
        value = self.number(key, default, low, high)
        if not value.is_integer():
            raise self.refusal(f"{key} has to be a whole number")
        return int(value)

    def vector(self, key: str, default: Vector | None = None) -> Vector:
        """The three numbers under `key`; raises InvalidInput."""
        if self.values.get(key) is None and default is not None:
            return default
        parts = self.sequence(key, 4)[:3]  # Euler angles may have their order behind them
        if len(parts) != 3:
            raise self.refusal(f"{key} has to be three numbers")
        x, y, z = (self._real(key, part, -_FAR, _FAR) for part in parts)
        return x, y, z

    def choice(self, key: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        """The member of `kind` whose value is under `key`; raises InvalidInput with those there are."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        for member in kind:
            if member.value == value:
                return member
        raise self.refusal(f"{key} has to be one of {', '.join(str(member.value) for member in kind)}")

    def found(self, key: str, known: Mapping[str, Any], what: str) -> Any:
        """What `known` has under the identifier at `key`; raises InvalidInput saying that there is no such `what`."""
        uuid = self.values.get(key)
        if not isinstance(uuid, str) or uuid not in known:
            named = f" {short(uuid)}" if isinstance(uuid, str) else ""
            raise self.refusal(f"{what}{named} does not exist")
        return known[uuid]

    def by_uuid(self, sections: Iterator["Section"], made: Callable[["Section"], Any]) -> dict[str, Any]:
        """What is `made` of each section, by its identifier, in their order; raises InvalidInput if two have one."""
        known: dict[str, Any] = {}
        for section in sections:
            uuid = section.text("uuid")
            if uuid in known:
                raise section.refusal(f"another one has its uuid {short(uuid)} too")
            known[uuid] = made(section)
        return known

    def _real(self, key: str, value: Any, low: float, high: float) -> float:
        if value is None:
            raise self.refusal(f"{key} is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise self.refusal(f"{key} has to be a number")
        if not low <= value <= high:
            raise self.refusal(f"{key} has to be between {low:g} and {high:g}")
        return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a double
        return False
