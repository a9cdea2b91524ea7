"""MCsquare: fast Monte Carlo for proton therapy (openMCsquare, Apache-2.0)."""

from yaptide.simulators.mcsquare.simulator import MCsquare

__all__ = ["MCsquare"]
