"""What goes on, told while it goes on: as log lines, or as bars where there is a terminal."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ingestkit.observe import logging
from ingestkit.pipeline import Progress

EVERY = 10.0
"""Seconds between two log lines about one stage of one model."""


@dataclass(slots=True)
class Told:
    """How far a stage of a model is, and when that was last said."""

    total: int | None
    since: float
    at: float
    moved: int = 0


@dataclass(frozen=True, slots=True)
class LogProgress:
    """Progress as log lines: when a stage begins, now and then while it works, when it ends."""

    now: Callable[[], float] = time.monotonic
    told: dict[tuple[str, str], Told] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def began(self, stage: str, model: str, total: int | None) -> None:
        now = self.now()
        with self.lock:
            self.told[stage, model] = Told(total, now, now)
        logging.logger(stage=stage, model=model).info("began", **({} if total is None else {"total": total}))

    def moved(self, stage: str, model: str, by: int) -> None:
        now = self.now()
        with self.lock:
            told = self.told.setdefault((stage, model), Told(None, now, now))
            told.moved += by
            if now - told.at < EVERY:
                return
            told.at = now
            facts = {"moved": told.moved, "total": told.total}
        logging.logger(stage=stage, model=model).info("working", **facts)

    def ended(self, stage: str, model: str, status: str) -> None:
        now = self.now()
        with self.lock:
            told = self.told.pop((stage, model), None)
        facts = {} if told is None else {"moved": told.moved, "seconds": round(now - told.since, 1)}
        logging.logger(stage=stage, model=model).info("ended", status=status, **facts)

    def said(self, message: str, **facts: Any) -> None:
        logging.logger().info(message, **facts)

    def warned(self, message: str, **facts: Any) -> None:
        logging.logger().warning(message, **facts)


class NoProgress:
    """Progress of what nobody asked to see."""

    def began(self, stage: str, model: str, total: int | None) -> None: ...
    def moved(self, stage: str, model: str, by: int) -> None: ...
    def ended(self, stage: str, model: str, status: str) -> None: ...
    def said(self, message: str, **facts: Any) -> None: ...
    def warned(self, message: str, **facts: Any) -> None: ...


@contextmanager
def shown(*, bars: bool) -> Iterator[Progress]:
    """Progress for the length of a command; `bars` where standard error is a terminal that wants them."""
    if not bars:
        yield LogProgress()
        return
    from rich.console import Console

    from ingestkit.cli.bars import TerminalProgress, drawn

    with drawn(Console(stderr=True)) as above:
        yield TerminalProgress(above)
