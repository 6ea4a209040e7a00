"""What goes on, told while it goes on: progress bars above which log lines stand, or log lines alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ingestkit import pipeline
from ingestkit.cli.render import size
from ingestkit.observe import logging

IN_BYTES = frozenset({"extract", "validate"})
EVERY = 10.0
"""Seconds between two log lines about one stage of one model."""


@dataclass(slots=True)
class Told:
    """How far a stage of a model is, and when that was last said."""

    total: int | None
    moved: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class LogProgress:
    """Progress as log lines: when a stage begins, now and then while it works, when it ends."""

    now: Callable[[], float] = time.monotonic
    told: dict[tuple[str, str], Told] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def began(self, stage: str, model: str, total: int | None) -> None:
        with self.lock:
            self.told[stage, model] = Told(total, at=self.now())
        logging.logger(stage=stage, model=model).info("began", **({} if total is None else {"total": total}))

    def moved(self, stage: str, model: str, by: int) -> None:
        now = self.now()
        with self.lock:
            told = self.told.setdefault((stage, model), Told(None, at=now))
            told.moved += by
            if now - told.at < EVERY:
                return
            told.at = now
            facts = {"moved": told.moved, "total": told.total}
        logging.logger(stage=stage, model=model).info("working", **facts)

    def ended(self, stage: str, model: str, status: str) -> None:
        with self.lock:
            told = self.told.pop((stage, model), Told(None))
        logging.logger(stage=stage, model=model).info("ended", status=status, moved=told.moved)

    def said(self, message: str, **facts: Any) -> None:
        logging.logger().info(message, **facts)

    def warned(self, message: str, **facts: Any) -> None:
        logging.logger().warning(message, **facts)


@dataclass(frozen=True, slots=True)
class TerminalProgress:
    """Progress as a bar per stage and model, gone when the stage has ended; what is said stands above the bars."""

    bars: Progress
    tasks: dict[tuple[str, str], TaskID] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def began(self, stage: str, model: str, total: int | None) -> None:
        with self.lock:
            if (known := self.tasks.pop((stage, model), None)) is not None:
                self.bars.remove_task(known)
            self.tasks[stage, model] = self.bars.add_task(f"{stage} {model}", total=total, stage=stage)

    def moved(self, stage: str, model: str, by: int) -> None:
        with self.lock:
            task = self.tasks.get((stage, model))
        if task is not None:
            self.bars.advance(task, by)

    def ended(self, stage: str, model: str, status: str) -> None:
        with self.lock:
            task = self.tasks.pop((stage, model), None)
        if task is not None:
            self.bars.remove_task(task)
        logging.logger(stage=stage, model=model).info("ended", status=status)

    def said(self, message: str, **facts: Any) -> None:
        logging.logger().info(message, **facts)

    def warned(self, message: str, **facts: Any) -> None:
        logging.logger().warning(message, **facts)


class Amount(ProgressColumn):
    """How much of how much, in bytes or rows."""

    def render(self, task: Task) -> Text:
        shown = size if task.fields["stage"] in IN_BYTES else _rows
        total = "" if task.total is None else f" of {shown(task.total)}"
        return Text(f"{shown(task.completed)}{total}")


@contextmanager
def shown(*, bars: bool) -> Iterator[pipeline.Progress]:
    """Progress for the length of a command; `bars` where standard error is a terminal that wants them."""
    if not bars:
        yield LogProgress()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as drawn:
        yield TerminalProgress(drawn)


def _rows(count: float) -> str:
    return f"{count:,.0f}"
