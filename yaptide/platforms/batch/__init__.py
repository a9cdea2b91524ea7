"""Simulations on HPC clusters, over SSH; `schedulers` has the batch systems of clusters."""
