"""The domain model, without I/O: states, estimators, splitting and merging.

Nothing in this package opens a file, a database or a socket, so it can be tested by calling it.
"""
