"""Platforms, on which tasks run: `direct` on executors and workers of the server, `batch` on HPC clusters."""
