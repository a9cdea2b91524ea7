"""How fast the store is beside what the machine can do: `python -m benchmarks`, see docs/performance.md."""
