"""Run particle-therapy Monte Carlo simulations as parallel tasks, and keep everything about them."""

__version__ = "0.1.0"
