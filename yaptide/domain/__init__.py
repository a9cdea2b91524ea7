"""What yaptide is about, free of any input or output: states, scores, splitting and merging.

Nothing in here opens a file, a database or a socket, so everything in here can be tested by calling it.
"""
