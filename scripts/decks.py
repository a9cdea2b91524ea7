"""The corpus of small inputs in `tests/fixtures/decks`: what is passed on to each code, and what is refused.

A deck begins with lines of `key: value`; then each file follows a line `=== name`, after an empty line or the file
before. `outcome` is `passes PRIMARIES` or `refused MESSAGE`, with the beginning of the message. `base: water` is the
sample input of MCsquare, whose files are replaced, or taken away by `remove: NAME`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from yaptide.simulators.mcsquare.sample import water_sample

FOLDER = Path(__file__).parents[1] / "tests/fixtures/decks"

_FILE = re.compile(rb"\n=== (.+)\n")


@dataclass(frozen=True, slots=True)
class Deck:
    """An input: the `code` that it is for, the chapter of its `manual` that decides, what it shows, and the outcome."""

    name: str
    code: str
    manual: str
    input: str
    outcome: str
    files: Mapping[str, bytes]

    @property
    def primaries(self) -> int | None:
        """The primaries that are found, None if the input is refused."""
        kind, _, rest = self.outcome.partition(" ")
        return int(rest) if kind == "passes" else None

    @property
    def message(self) -> str:
        """The beginning of the message of an input that is refused."""
        return self.outcome.removeprefix("refused ")


def read_decks() -> Iterator[Deck]:
    """Yield all decks, by name."""
    for path in sorted(FOLDER.glob("*.deck")):
        head, *parts = _FILE.split(path.read_bytes())
        keys = dict(line.split(": ", 1) for line in head.decode().splitlines())
        files = {name: text.encode() for name, text in water_sample().items()} if "base" in keys else {}
        files |= {name.decode(): data for name, data in zip(parts[::2], parts[1::2], strict=True)}
        files = {name: data for name, data in files.items() if name != keys.get("remove")}
        yield Deck(path.stem, keys["code"], keys["manual"], keys["input"], keys["outcome"], files)
