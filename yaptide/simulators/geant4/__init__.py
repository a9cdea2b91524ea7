"""Geant4: projects become geometry in GDML and a macro; yaptide does not run it."""

from yaptide.simulators.geant4.conversion import Geant4

__all__ = ["Geant4"]
