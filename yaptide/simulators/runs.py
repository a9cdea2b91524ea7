"""Limits and seeds for runs of every simulator."""

import secrets

#: More primaries would run for years: probably a typing error.
MOST_PRIMARIES = 10**12

#: Integers up to this value are exact as doubles, and therefore in JSON.
LARGEST_SEED = 2**53 - 1


def draw_seed() -> int:
    """Return a random seed in 1 .. 2**31-1, for an input without one."""
    return 1 + secrets.randbelow(2**31 - 1)
