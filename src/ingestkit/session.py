"""What a command has open while it works on one pipeline; `project` opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestkit.lake import Lake
from ingestkit.model import Json
from ingestkit.pipeline import Clock, Pipeline, Progress, Stop
from ingestkit.ports import Mirror, Source, Warehouse
from ingestkit.settings import Settings

if TYPE_CHECKING:
    # Commands that open nothing do not pay for the state's libraries.
    from ingestkit.states.engine import StateDatabase
    from ingestkit.states.queue import PendingQueue


@dataclass(frozen=True, slots=True)
class Session:
    """One pipeline with everything it names, opened."""

    settings: Settings
    pipeline: Pipeline
    config: Mapping[str, Any]
    """What a run row keeps: profile, pipeline and the connections it uses, with references, never values."""
    config_hash: str
    source: Source = field(repr=False)
    lake: Lake = field(repr=False)
    warehouse: Warehouse = field(repr=False)
    state: StateDatabase = field(repr=False)
    queue: PendingQueue = field(repr=False)
    mirror: Mirror = field(repr=False)
    root: Path
    folder: Path
    """Where the pending queue, the mirror and the sidecars for people live."""
    scratch: Path
    clock: Clock
    stop: Stop
    progress: Progress
    jobs: int
    reopen: Callable[[Json], Session] = field(repr=False)
    """The same session for the configuration a run row kept: its own source, lake and warehouse, all else the same."""
