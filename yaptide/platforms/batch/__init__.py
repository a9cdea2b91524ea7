"""Clusters with SLURM, over SSH."""
