"""Two things at once where neither has to wait for the other: making the next piece, and working on the last."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def prefetch_items(items: Iterator[T]) -> Iterator[T]:
    """The same items, each of them made by another thread while the one before it is worked on."""
    end = object()
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = maker.submit(next, items, end)
            yield cast("T", item)
