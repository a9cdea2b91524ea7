"""FLUKA: checks its input."""

from yaptide.simulators.fluka.simulator import Fluka

__all__ = ["Fluka"]
