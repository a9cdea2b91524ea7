"""What the stand-ins share: refusing input, failing on purpose, and a depth-dose curve."""

import errno
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

STEPS = 5


class Refused(Exception):
    """The input is not what the code reads; the text names the chapter of its manual."""

    def __init__(self, chapter, why):
        super().__init__(f"{why} [{chapter}]")


def say(text):
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fault():
    """Return how this run has to fail; empty if it has not."""
    kind, once = os.environ.get("STANDIN_FAULT", ""), os.environ.get("STANDIN_ONCE")
    if kind and once:
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return ""
    return kind


def fail_within(kind):
    """Fail in the middle of a run, if this kind of fault does."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(600)
    if kind == "quiet":
        sys.exit(0)
    if kind == "disk":
        say(f"forrtl: {os.strerror(errno.ENOSPC)}")
        sys.exit(29)


def steps(primaries):
    """Yield the primaries after each step of progress."""
    for step in range(1, STEPS + 1):
        time.sleep(float(os.environ.get("STANDIN_PAUSE", "0")))
        yield primaries * step // STEPS


def finish(kind, outputs):
    """Damage an output if this kind of fault does; return the exit code."""
    if kind == "short":
        data = outputs[0].read_bytes()
        outputs[0].write_bytes(data[: len(data) // 2])
    return 3 if kind == "code" else 0


def range_of(energy):
    """Return the range of protons in water in cm, for an energy in MeV (Bragg and Kleeman's rule, fitted at 150)."""
    return 15.77 * (energy / 150.0) ** 1.77


def curve(low, high, bins, energy, seed, primaries):
    """Return a depth-dose curve with the noise of a number of primaries."""
    noise = random.Random(f"{seed}:{low}:{high}:{bins}")
    depths = [low + (high - low) * (index + 0.5) / bins for index in range(bins)]
    return [dose_at(depth, range_of(energy)) * noise.gauss(1.0, 0.3 / math.sqrt(primaries)) for depth in depths]


def dose_at(depth, end):
    """Return a dose that rises slowly to a peak at the end of the range, where it falls off."""
    if depth < 0:
        return 0.0
    return 0.07 * (1.0 + 2.5 * min(depth / end, 1.2) ** 12) / (1.0 + math.exp(min((depth - end - 0.05) / 0.05, 700)))
