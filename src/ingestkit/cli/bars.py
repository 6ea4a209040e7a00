"""Progress as bars on a terminal, one per stage and model; imported only where there is one."""

import threading
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

from ingestkit.cli.render import size
from ingestkit.observe import logging

IN_BYTES = frozenset({"extract", "validate"})


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


def drawn(console: Console) -> Progress:
    """The bars, above which whatever is written to standard error stands; standard output is the results'."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, redirect_stdout=False)


def _rows(count: float) -> str:
    return f"{count:,.0f}"
