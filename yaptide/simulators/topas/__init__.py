"""TOPAS: what yaptide knows of it."""

from yaptide.simulators.topas.simulator import Topas

__all__ = ["Topas"]
