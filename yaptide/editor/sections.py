"""Reads values from a JSON document, with errors that name their location."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from yaptide.domain.errors import InvalidInput
from yaptide.editor.project import Vector

#: Maximum length, angle or energy, in the editor's units.
_FAR = 1e6
_LONGEST_NAME = 80

_Kind = TypeVar("_Kind", bound=Enum)


def quote_text(text: str) -> str:
    """Return a text of the user in quotes, shortened for an error message."""
    return repr(text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "...")


@dataclass(frozen=True, slots=True)
class Section:
    """An object of a document, and its `place` in words. A missing value gets the `default`, if there is one."""

    place: str
    values: Mapping[str, Any]
    document: str = "Project"

    def make_error(self, why: str) -> InvalidInput:
        """Return the error to raise when a value here is invalid."""
        return InvalidInput(f"{self.document}, {self.place}: {why}")

    def read_section(self, key: str) -> "Section":
        """Return the object under `key`; empty if it is missing. Raise InvalidInput if it is not an object."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.make_error(f"{key} must be an object")
        return Section(f"{self.place}, {key}", value or {}, self.document)

    def read_sections(self, key: str, kind: str, most: int) -> Iterator["Section"]:
        """Yield the objects in the list under `key`, located by `kind` and name; raise InvalidInput."""
        for number, value in enumerate(self.read_list(key, most), 1):
            if not isinstance(value, Mapping):
                raise self.make_error(f"{key}, entry {number}: must be an object")
            name = value.get("name")
            place = f"{kind} {quote_text(name) if isinstance(name, str) and name else number}"
            yield Section(place, value, self.document)

    def read_list(self, key: str, most: int) -> Sequence[Any]:
        """Return the list under `key`, empty if missing; raise InvalidInput if it is no list or longer than `most`."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.make_error(f"{key} must be a list")
        if len(value) > most:
            raise self.make_error(f"{key} has {len(value)} entries; the limit is {most}")
        return value

    def read_text(self, key: str, default: str = "") -> str:
        """Return the text under `key`; raise InvalidInput if it is not a text."""
        value = self.values.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.make_error(f"{key} must be a text")
        return value

    def read_flag(self, key: str, default: bool) -> bool:
        """Return the boolean under `key`; raise InvalidInput if it is not one."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.make_error(f"{key} must be true or false")
        return default if value is None else value

    def read_number(self, key: str, default: float | None = None, low: float = -_FAR, high: float = _FAR) -> float:
        """Return the number under `key`, `low` <= number <= `high`; raise InvalidInput."""
        value = self.values.get(key)
        return self._real(key, default if value is None else value, low, high)

    def read_integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """Return the integer under `key`, `low` <= number <= `high`; raise InvalidInput."""
        value = self.read_number(key, default, low, high)
        if not value.is_integer():
            raise self.make_error(f"{key} must be a whole number")
        return int(value)

    def read_vector(self, key: str, default: Vector | None = None) -> Vector:
        """Return the three numbers under `key`; raise InvalidInput."""
        if self.values.get(key) is None and default is not None:
            return default
        parts = self.read_list(key, 4)[:3]  # the order of Euler angles may follow them
        if len(parts) != 3:
            raise self.make_error(f"{key} must be three numbers")
        x, y, z = (self._real(key, part, -_FAR, _FAR) for part in parts)
        return x, y, z

    def read_choice(self, key: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        """Return the member of `kind` whose value is under `key`; raise InvalidInput with the allowed values."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        for member in kind:
            if member.value == value:
                return member
        raise self.make_error(f"{key} must be one of {', '.join(str(member.value) for member in kind)}")

    def resolve_uuid(self, key: str, known: Mapping[str, Any], what: str) -> Any:
        """Return the entry of `known` for the identifier at `key`; raise InvalidInput if `what` does not exist."""
        uuid = self.values.get(key)
        if not isinstance(uuid, str) or uuid not in known:
            named = f" {quote_text(uuid)}" if isinstance(uuid, str) else ""
            raise self.make_error(f"{what}{named} does not exist")
        return known[uuid]

    def read_by_uuid(self, sections: Iterator["Section"], make: Callable[["Section"], Any]) -> dict[str, Any]:
        """Return `make(section)` of each section by its uuid, in order; raise InvalidInput for a duplicate uuid."""
        known: dict[str, Any] = {}
        for section in sections:
            uuid = section.read_text("uuid")
            if uuid in known:
                raise section.make_error(f"duplicate uuid {quote_text(uuid)}")
            known[uuid] = make(section)
        return known

    def _real(self, key: str, value: Any, low: float, high: float) -> float:
        if value is None:
            raise self.make_error(f"{key} is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise self.make_error(f"{key} must be a number")
        if not low <= value <= high:
            raise self.make_error(f"{key} must be between {low:g} and {high:g}")
        return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a double
        return False
