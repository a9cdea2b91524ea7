"""The platform DIRECT: the embedded executor, and Celery workers, run tasks as processes."""
