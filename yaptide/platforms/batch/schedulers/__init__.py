"""Batch systems of clusters."""
