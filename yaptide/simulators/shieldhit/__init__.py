"""SHIELD-HIT12A: checks its input."""

from yaptide.simulators.shieldhit.simulator import ShieldHit

__all__ = ["ShieldHit"]
