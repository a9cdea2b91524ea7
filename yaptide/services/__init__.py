"""The operations: submit, report, store, merge, cancel, delete, sign in. Transactions and domain rules are here.

HTTP routes, executors and the command line are thin callers of these functions. The first argument is the `Backend`,
with the database, settings and other dependencies of an operation.
"""
