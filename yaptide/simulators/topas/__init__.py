"""TOPAS: checks its input."""

from yaptide.simulators.topas.simulator import Topas

__all__ = ["Topas"]
