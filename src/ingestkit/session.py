"""What a command has open while it works on one pipeline; `project` opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ingestkit.lake import Lake
from ingestkit.model import Artifact, FileVersion, Json, Sight, Work
from ingestkit.observe.measured import Measured
from ingestkit.observe.noticed import Noticed
from ingestkit.observe.tracing import Tracing
from ingestkit.pipeline import Clock, Pipeline, Progress, RunContext, Stop
from ingestkit.ports import Mirror, RunMirror, Source, Transform, Warehouse
from ingestkit.settings import Model, Settings

if TYPE_CHECKING:
    # Commands that open nothing do not pay for the state's libraries.
    from ingestkit.states.engine import StateDatabase
    from ingestkit.states.queue import PendingQueue


class Validate(Protocol):
    def __call__(
        self, ctx: RunContext, model: str, files: Sequence[FileVersion], known: Sequence[Artifact], *, again: bool
    ) -> Work:
        """Validate the whole file set of a model, making only what `known` lacks, or everything `again`."""
        ...


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
    open_warehouse: Callable[[], Warehouse] = field(repr=False)
    """Gives the warehouse. Its engine is imported at the first call: a run that finds nothing new does without."""
    warehouse_file: Path | None
    """The file of an embedded warehouse, which can be looked at without its engine."""
    open_run_mirror: Callable[[], RunMirror] | None = field(repr=False)
    """Gives what shows runs beside the warehouse, where that is wanted."""
    validate: Validate = field(repr=False)
    """The stage that brings an engine with it, imported at its first call too."""
    prove: Callable[[str, Model], None] = field(repr=False)
    """Proves, by the same engine, that it takes a model's contract."""
    meant: Callable[[str, Model], Mapping[str, Mapping[str, tuple[str, ...]]]] = field(repr=False)
    """What `delete_when` and `flag_when` of a model say, each text read by that engine as a cell of its column is."""
    transform: Transform | None = field(repr=False)
    """What builds on the target's tables, where the pipeline says it."""
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
    measured: Measured | None = field(repr=False)
    """What meters will be told, where there are some."""
    tracing: Tracing | None
    """What makes ids of traces, where they are wanted."""
    noticed: Noticed | None = field(repr=False)
    """What people will be told of, where there are any."""
    closing: ExitStack = field(repr=False)
    """Ends what was opened for this session and those it reopened."""
    reopen: Callable[[Json], Session] = field(repr=False)
    """The same session for the configuration a run row kept: its own source, lake and warehouse, all else the same."""

    @property
    def warehouse(self) -> Warehouse:
        return self.open_warehouse()

    def notice(self, kind: str, subject: str, text: str, hint: str | None = None) -> None:
        """Something that happened, which people are told of where they want to be."""
        if self.noticed is not None:
            self.noticed.sights.append(Sight(kind, subject, text, hint, happened=True))

    def tell_now(self, error: BaseException | None = None) -> None:
        """Tell people how a run ended, where this command goes on with others."""
        if self.noticed is not None and self.noticed.tell is not None:
            self.noticed.tell(error)
