"""FLUKA: what yaptide knows of it."""

from yaptide.simulators.fluka.simulator import Fluka

__all__ = ["Fluka"]
