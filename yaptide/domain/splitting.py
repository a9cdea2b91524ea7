"""Split a simulation into tasks: the number of primaries and the seed of each."""

import hashlib

from yaptide.domain.errors import InvalidInput

#: The default of the largest seed of a task, 31 bits.
LARGEST_TASK_SEED = 2**31 - 1


def split_primaries(total: int, tasks: int, quantum: int = 1) -> list[int]:
    """Split `total` primaries over at most `tasks` tasks in whole multiples of `quantum`.

    Simulators that run in batches of `quantum` primaries round up. The split rounds up once, so each task simulates
    exactly what is requested of it. There are never more tasks than batches; sizes differ by at most one batch.

    Raises InvalidInput if `total` or `tasks` is less than 1.
    """
    if total < 1 or tasks < 1:
        raise InvalidInput("The number of primaries and the number of tasks must be 1 or more")
    batches = -(-total // quantum)
    tasks = min(tasks, batches)
    share, extra = divmod(batches, tasks)
    return [(share + (index < extra)) * quantum for index in range(tasks)]


def task_seeds(base: int, tasks: int, largest: int = LARGEST_TASK_SEED) -> list[int]:
    """Return distinct seeds in 1 .. `largest` for `tasks` tasks, always the same for the same `base` and `largest`.

    Seeds are hashed, not counted up: otherwise two simulations with seeds 1 and 2 would share the random numbers of all
    but one task. Asking for more tasks never changes the first seeds.
    """
    seeds: dict[int, None] = {}
    counter = 0
    while len(seeds) < tasks:
        digest = hashlib.sha256(f"{base}:{counter}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
        if 1 <= seed <= largest:
            seeds.setdefault(seed)
        counter += 1
    return list(seeds)
