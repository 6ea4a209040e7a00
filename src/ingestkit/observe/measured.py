"""What a command has counted and timed for its meters so far; what is told of it and when is `metering`'s."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ingestkit.ports import Meter, Span

FILES = 1000
"""So many files have a span in one command; those behind them are only counted."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The meters of a command, and what it will tell them. Threads may add to it."""

    meters: Mapping[str, Callable[[], Meter]] = field(repr=False)
    """By the name of their settings; opened when they are told something, and not before."""
    patience: float
    tags: Mapping[str, str] = field(default_factory=dict)
    traced: bool = False
    grown: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By stage, model and figure."""
    spans: list[Span] = field(default_factory=list)
    files: list[Span] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def grew(self, stage: str, model: str, added: Mapping[str, float]) -> None:
        with self.lock:
            for name, by in added.items():
                self.grown[stage, model, name] = self.grown.get((stage, model, name), 0) + by

    def spent(self, span: Span) -> None:
        with self.lock:
            self.spans.append(span)

    def spent_on_file(self, span: Span) -> None:
        with self.lock:
            if len(self.files) < FILES:
                self.files.append(span)
