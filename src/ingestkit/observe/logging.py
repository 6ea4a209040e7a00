"""Structured logs on standard error: JSON lines off a terminal, readable ones on it; what is logged is the caller's."""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class StandardError:
    """Writes lines to whatever standard error is now, so that progress bars can stand below them."""

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except OSError:
            # A reader that left or a full disk under a log file is no reason to stop the run that speaks.
            return

    debug = info = warning = error = critical = exception = log = msg


def configure(level: str, *, as_json: bool, colours: bool) -> None:
    """Set up what `logger` gives. Called once, by the command, before anything is logged."""
    drawn: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=44)
    )
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp, drawn],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_standard_error,
        cache_logger_on_first_use=False,
    )


def logger(**facts: Any) -> FilteringBoundLogger:
    """A logger whose lines carry these facts."""
    bound: FilteringBoundLogger = structlog.get_logger(**facts)
    return bound


def bound(**facts: Any) -> AbstractContextManager[None]:
    """Put run id, stage or model on every line logged inside the block, in this thread.

    A thread begins with nothing bound: bind again in the function it runs.
    """
    return structlog.contextvars.bound_contextvars(**facts)


def _standard_error(*_: Any) -> WrappedLogger:
    return StandardError()
