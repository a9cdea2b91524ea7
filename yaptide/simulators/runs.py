"""What is the same for the runs of every simulator."""

import secrets

#: A run of that many primaries takes years; more of them are a typing error.
MOST_PRIMARIES = 10**12

#: Whole numbers up to here are exact in every language that may meet them on their way.
LARGEST_SEED = 2**53 - 1


def drawn_seed() -> int:
    """A seed in 1 .. 2**31-1 for an input that has none."""
    return 1 + secrets.randbelow(2**31 - 1)
