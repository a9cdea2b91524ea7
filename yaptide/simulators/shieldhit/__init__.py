"""SHIELD-HIT12A: what yaptide knows of it."""

from yaptide.simulators.shieldhit.simulator import ShieldHit

__all__ = ["ShieldHit"]
