"""Prefetching: produce the next item in another thread while the current one is processed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def prefetch_items(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items; a thread produces each while the previous one is processed."""
    end = object()
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = maker.submit(next, items, end)
            yield cast("T", item)
