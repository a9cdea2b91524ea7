"""The log: how a line looks, how much is said, and what it is about.

Modules log by `logging.getLogger(__name__)`, or by `structlog.stdlib.get_logger(__name__)` where fields are worth
having. Both, and libraries, end up on standard error in one format. What `bind_log_context` binds is in every line
of the request. No line holds a local variable, a header, a body, or what a statement was given.
"""

import logging
import sys
import threading
from typing import Any

import structlog
from structlog.types import EventDict, Processor

#: What is logged unless the settings say otherwise: who starts a program in a terminal wants to hear of trouble only.
LEVELS = {"text": "warning", "json": "info"}

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]

# Done on import, for `create_app` served by another program: by itself, structlog would print on standard output.
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
    """Log to standard error, as `text` or `json`, what is of `level` or worse; may be called again."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_FORMATS[form]],
        )
    )
    root = logging.getLogger()
    for other in root.handlers[:]:
        if type(other) is logging.StreamHandler:  # an earlier one of ours; what tests or a debugger listen with stays
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel((level or LEVELS[form]).upper())
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # a line for each part of itself
    logging.captureWarnings(capture=True)
    json = form == "json"
    sys.excepthook = _last_words if json else sys.__excepthook__
    threading.excepthook = _last_words_of_thread if json else threading.__excepthook__


def bind_log_context(**fields: Any) -> None:
    """Have the lines that are logged until the end of the request tell what they are about, such as `job_id`."""
    structlog.contextvars.bind_contextvars(**fields)


def _in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """What every line has comes first."""
    return {name: event[name] for name in ("time", "level", "logger", "event") if name in event} | dict(event)


def _one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Write out what would begin a new line, or steer the terminal: a reader has to see where a line ends."""
    return {
        name: "".join(c if c.isprintable() else repr(c)[1:-1] for c in value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _last_words(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("yaptide").critical("the program ends by an unexpected error", exc_info=(kind, error, trace))


def _last_words_of_thread(end: threading.ExceptHookArgs) -> None:
    if end.exc_value is not None:
        trouble = (end.exc_type, end.exc_value, end.exc_traceback)
        logging.getLogger("yaptide").critical("a thread ends by an unexpected error", exc_info=trouble)


# Neither shows the values of variables, which structlog would by default: they hold passwords.
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
