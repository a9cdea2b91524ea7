"""Compares the speed of the store with the limits of the machine: `python -m benchmarks`, see docs/performance.md."""
