"""The operations: submit, report, store, merge, cancel, delete, sign in. Transactions begin here, and rules live here.

HTTP routes, executors and the command line are thin callers of these functions. The first argument is always the
`Backend`, which holds what an operation needs of its surroundings.
"""
