"""Logging: format, level and context.

Modules log through `logging.getLogger(__name__)`, or `structlog.stdlib.get_logger(__name__)` if fields are useful.
Both, and libraries, write to standard error in one format. `bind_log_context` adds its fields to every line of the
request. No line contains local variables, headers, bodies or the parameters of a statement.
"""

import logging
import sys
import threading
from typing import Any

import structlog
from structlog.types import EventDict, Processor

#: Default levels: someone who starts a program in a terminal only needs to see problems.
LEVELS = {"text": "warning", "json": "info"}

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]

# On import, for `create_app` in another WSGI server: without this, structlog prints to standard output.
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_SHARED,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    logger_factory=structlog.stdlib.LoggerFactory(),
)


def configure_logging(form: str = "text", level: str = "") -> None:
    """Log messages of `level` or higher to standard error, as `text` or `json`; may be called again."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_FORMATS[form]],
        )
    )
    root = logging.getLogger()
    for other in root.handlers[:]:
        if type(other) is logging.StreamHandler:  # one of an earlier call; others, such as those of tests, stay
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel((level or LEVELS[form]).upper())
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # it logs a line for each plugin
    logging.captureWarnings(capture=True)
    json = form == "json"
    sys.excepthook = _last_words if json else sys.__excepthook__
    threading.excepthook = _last_words_of_thread if json else threading.__excepthook__


def bind_log_context(**fields: Any) -> None:
    """Add `fields`, such as `job_id`, to every line until the end of the current request."""
    structlog.contextvars.bind_contextvars(**fields)


def _in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put the common keys first."""
    return {name: event[name] for name in ("time", "level", "logger", "event") if name in event} | dict(event)


def _one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape unprintable characters, so that a value cannot start a new line or control the terminal."""
    return {
        name: "".join(c if c.isprintable() else repr(c)[1:-1] for c in value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _last_words(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("yaptide").critical("unexpected error, the program ends", exc_info=(kind, error, trace))


def _last_words_of_thread(end: threading.ExceptHookArgs) -> None:
    if end.exc_value is not None:
        trouble = (end.exc_type, end.exc_value, end.exc_traceback)
        logging.getLogger("yaptide").critical("unexpected error, a thread ends", exc_info=trouble)


# Neither format shows local variables, which structlog would by default: they contain passwords.
_FORMATS: dict[str, list[Processor]] = {
    "text": [
        _one_line,
        structlog.dev.ConsoleRenderer(
            colors=False, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        ),
    ],
    "json": [
        _in_order,
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(),
    ],
}
