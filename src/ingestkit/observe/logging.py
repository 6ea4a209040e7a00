"""Structured logs on standard error: JSON lines off a terminal, readable ones on it; what is logged is the caller's."""

import logging
import sys
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from ingestkit.observe.text import printable

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
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str) if as_json else partial(readable, colours)
    )
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    if not (root := logging.getLogger()).handlers:
        # What a library says of an error of its own, ours says in one line: its lines would stand beside it.
        root.addHandler(logging.NullHandler())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp, drawn],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_standard_error,
        cache_logger_on_first_use=False,
    )


def readable(colours: bool, _logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """A line for people: when, which stage of which model, what, and the facts behind it."""
    level, stamp, event = line.pop("level"), line.pop("timestamp"), line.pop("event")
    where = " ".join(str(part) for name in ("stage", "model") if (part := line.pop(name, None)) not in {None, "*"})
    facts = " ".join(f"{name}={printable(str(value))}" for name, value in line.items() if value is not None)
    marks = {"warning": "\x1b[33m", "error": "\x1b[31m"} if colours else {}
    dim, plain = ("\x1b[2m", "\x1b[0m") if colours else ("", "")
    mark = "" if level == "info" else f"{marks.get(level, '')}{level}{plain if level in marks else ''}: "
    said = printable(f"{where}: {event}" if where else str(event), lines=True)
    return f"{dim}{stamp}{plain} {mark}{said}" + (f"  {dim}{facts}{plain}" if facts else "")


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
