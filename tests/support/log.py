"""Restores the logging configuration of the process."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

import structlog


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Undo the changes of `yaptide.logs.configure_logging` and `bind` at the end of the block."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(before[0]):
            if type(handler) is logging.StreamHandler:  # those of pytest change with the phases of a test
                root.removeHandler(handler)
        root.setLevel(before[1])
        sys.excepthook, threading.excepthook = before[2:]
        logging.captureWarnings(capture=False)
        structlog.contextvars.clear_contextvars()
