"""Splitting one simulation into tasks: how many primaries and which seed each of them gets."""

import hashlib

from yaptide.domain.errors import InvalidInput


def split_primaries(total: int, tasks: int, quantum: int = 1) -> list[int]:
    """Split `total` primaries over at most `tasks` tasks in whole multiples of `quantum`.

    Simulators that work in batches (`quantum` primaries each) round up: so does the split, once, so that what is
    requested of a task is what it simulates. Never more tasks than batches; sizes differ by one batch at most.

    Raises InvalidInput if there is nothing to split.
    """
    if total < 1 or tasks < 1:
        raise InvalidInput("The number of primaries and the number of tasks must be 1 or more")
    batches = -(-total // quantum)
    tasks = min(tasks, batches)
    share, extra = divmod(batches, tasks)
    return [(share + (index < extra)) * quantum for index in range(tasks)]


def task_seeds(base: int, tasks: int) -> list[int]:
    """Distinct seeds in 1 .. 2**31-1 for `tasks` tasks, the same ones for the same `base`.

    They are hashed and not counted up, because two simulations with the seeds 1 and 2 would otherwise share all of
    their random numbers but one task's. Asking for more tasks never changes the seeds of the first ones.
    """
    seeds: dict[int, None] = {}
    counter = 0
    while len(seeds) < tasks:
        digest = hashlib.sha256(f"{base}:{counter}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
        if seed:
            seeds.setdefault(seed)
        counter += 1
    return list(seeds)
