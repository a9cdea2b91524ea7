"""The platform DIRECT: tasks run as processes on machines of our own."""
