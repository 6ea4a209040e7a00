"""Pipeline and RunContext: what a stage is given. No stage knows more than this."""

import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

from ingestkit.errors import ConfigError, ContractError, IngestkitError, UsageError
from ingestkit.files import shown
from ingestkit.lake import Lake, Place
from ingestkit.model import Artifact, FileVersion, LoadMode, SqlCheck, Stage, Window, sha256_of
from ingestkit.ports import Bounds, Copying, Rejects, Source, TargetColumn, Warehouse, many_tables
from ingestkit.settings import FLAG, LINEAGE, Freshness, Model, PipelineSettings, rejects_beside
from ingestkit.windows import days_within, zone_of

ROW_DELTA_OF_REPLACE = 50.0
"""By how much a model that is replaced may grow or shrink where nobody has said it, in percent."""
OF_VALID_ROWS = {"key", "csv", "format", "columns", "header", "drift", "nulls", "normalise"}
"""What of a model's settings its valid rows depend on."""
VALIDATE_VERSION = 2
"""Raised when validate would make other artifacts from the same raw bytes and settings."""
LOAD_VERSION = 1
"""Raised when load would write other rows from the same artifacts and settings."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gates ask of one model; None is not judged."""

    max_reject_pct: float
    row_delta_pct: float | None
    min_rows: int | None
    max_loss_pct: float | None
    freshness: Freshness | None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline's settings, with the answers stages ask of them."""

    settings: PipelineSettings
    checks: tuple[SqlCheck, ...] = ()

    @property
    def name(self) -> str:
        return self.settings.pipeline

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.settings.models)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.settings.stages

    @property
    def many(self) -> bool:
        """Whether its archives say which tables there are, so that one model is all of them."""
        return self.settings.tables is not None

    def model(self, name: str) -> Model:
        return self.settings.models[name]

    @property
    def keeps(self) -> bool:
        """Whether batches that are done can be done again from the lake."""
        return self.settings.keep == "all"

    def done_again(self, batch: str, *flags: str) -> str:
        """The command that does a done batch again: from the lake, or from the source where that keeps nothing."""
        words = ["ingestkit", "backfill", self.name, "--batch", shlex.quote(batch), *flags]
        return " ".join([*words, *(["--from-lake"] if self.keeps else [])])

    def table(self, model: str) -> str:
        """The table that the model's fence row names."""
        return many_tables(self.name) if self.many else self.settings.models[model].table or model

    def mode(self, model: str, files: Iterable[FileVersion]) -> LoadMode:
        """How these files, which are all that a batch has of a model, are loaded."""
        settings = self.model(model)
        kinds = {self._holds_changes(model, file): file.path for file in files}
        if len(kinds) > 1:
            by = "its report" if settings.delta_by_report else "its name"
            raise ContractError(
                f"{model}: {shown(kinds[True])} holds changes by {by}, and {shown(kinds[False])} of the same batch "
                "all there is",
                hint="have them delivered in batches of their own"
                + ("" if settings.delta_by_report else ", or make `delta` of the model match both or neither"),
            )
        return LoadMode.MERGE if True in kinds else settings.load

    def modes(self, model: str) -> frozenset[LoadMode]:
        """All by which its files may be loaded, as they are named."""
        settings = self.model(model)
        return frozenset((settings.load, *([LoadMode.MERGE] if settings.takes_changes else [])))

    def _holds_changes(self, model: str, file: FileVersion) -> bool:
        """Whether a file of a model that is replaced holds what has changed alone."""
        settings = self.model(model)
        if settings.delta_by_report and file.changes is None:
            raise ContractError(
                f"{model}: no report said whether {shown(file.path)} holds all there is or changes alone",
                hint=f"ingestkit extract {self.name} --batch {shlex.quote(file.batch)} --force fetches it beside its "
                "report; or tell the two by names, with `delta`",
            )
        if settings.delta_by_report:
            return file.changes is True
        return settings.delta is not None and re.search(settings.delta, file.path) is not None

    def order(self, batch: str) -> tuple[int, str]:
        """Where a batch key stands among others; keys of one pipeline are of one kind."""
        return self.settings.source.batches.order(batch)

    def lineage(self) -> tuple[str, ...]:
        wanted = self.settings.lineage
        chosen = (True, wanted.run_id, wanted.source_file, wanted.record_no)
        return tuple(compress(LINEAGE, chosen))

    def columns(self, model: str) -> tuple[TargetColumn, ...]:
        """The target's columns by the contract, and the one that says which rows are flagged where some may be."""
        settings = self.model(model)
        flag = [TargetColumn(FLAG, "boolean")] if settings.flag_when else []
        said = settings.columns.items()
        return (*(TargetColumn(name, column.type, column.max_length) for name, column in said), *flag)

    def personal(self, model: str) -> set[str]:
        """The columns whose values not everybody is to see."""
        said = self.settings.tables
        every = [self.model(model).columns, *(said.contracts.values() if said is not None else ())]
        return {name for columns in every for name, column in columns.items() if column.pii}

    def rejects(self, model: str) -> Rejects | None:
        """The table of the model's rejects, nothing in it; None where it is to have none."""
        said = self.model(model).rejects_table
        return None if said == "off" else Rejects(rejects_beside(self.table(model)), raw=said == "raw")

    def written(self, model: str) -> dict[str, frozenset[LoadMode]]:
        """The tables that loads of the model write, and by which modes, where that is known before there is a file."""
        if self.many:
            return {}
        beside = self.rejects(model)
        return {self.table(model): self.modes(model)} | ({beside.table: frozenset({LoadMode.APPEND})} if beside else {})

    def copying(self, model: str) -> Copying:
        said = self.model(model).copy_
        return Copying(said.file_size, said.parallel, said.scanner == "vectorized")

    def bounds(self, model: str, window: Window | None) -> Bounds | None:
        """Between which values of which column the rows of a window lie, where a model's rows belong to windows."""
        settings = self.model(model)
        if settings.window_column is None:
            return None
        if window is None:
            raise ConfigError(
                f"model {model} has load: window, and its batch was taken when the pipeline had no windows",
                hint="give the model the load it had, until the batch is done",
            )
        name, low, high = settings.window_column, window.start, window.end
        if settings.columns[name].type == "timestamp":
            return Bounds(name, low, high)
        return Bounds(name, *days_within(window, zone_of(self.settings.source.batches.timezone)))

    def validate_settings(self, model: str, window: Window | None) -> str:
        """The hash of what a valid artifact depends on."""
        shown = self._shown(model, OF_VALID_ROWS)
        validation = self.settings.validation.model_dump(mode="json")
        return sha256_of([VALIDATE_VERSION, model, shown, validation, *self._bounded(model, window), *self._many()])

    def _many(self) -> list[Any]:
        """What else rows depend on where archives say what their tables are."""
        return [] if self.settings.tables is None else [self.settings.tables.model_dump(mode="json")]

    def _bounded(self, model: str, window: Window | None) -> list[str]:
        bounds = self.bounds(model, window)
        return [] if bounds is None else [bounds.column, str(bounds.low), str(bounds.high)]

    def _shown(self, model: str, names: set[str]) -> dict[str, Any]:
        """What a model says that its rows depend on; who may see a value, and what it refers to, is nothing of it."""
        # There what else a model is called is taken off its columns.
        names = names | {"names"} if self.model(model).header.style == "report" else names
        beside = {"columns": {"__all__": {"pii", "references"}}}
        return self.model(model).model_dump(mode="json", include=names, exclude=beside)

    def load_settings(self, model: str, window: Window | None, mode: LoadMode | None = None) -> str:
        """The hash of what published rows depend on: contract, dialect, keys, mode and load."""
        flagged = ["flag_when"] if self.model(model).flag_when else []
        shown = self._shown(model, {*OF_VALID_ROWS, "load", "table", "delete_when", *flagged})
        validation = self.settings.validation.model_dump(mode="json")
        versions = [VALIDATE_VERSION, LOAD_VERSION]
        chosen = [mode.value] if mode is not None and self.model(model).takes_changes else []
        return sha256_of(
            [*versions, model, shown, validation, self.lineage(), *self._bounded(model, window), *chosen, *self._many()]
        )

    def extract_settings(self) -> str:
        return sha256_of(self.settings.source.model_dump(mode="json"))

    def gate_settings(self) -> str:
        models = {name: one.gate.model_dump(mode="json") for name, one in self.settings.models.items()}
        checks = [(one.name, one.models, one.query) for one in self.checks]
        return sha256_of([self.settings.gate.model_dump(mode="json"), models, checks])

    def dbt_settings(self) -> str:
        return sha256_of(None if self.settings.dbt is None else self.settings.dbt.model_dump(mode="json"))

    def limits(self, model: str) -> Limits:
        """The model's own limits, and the pipeline's where it has none."""
        said, own = self.settings.gate, self.model(model)
        delta = said.row_delta_pct if own.gate.row_delta_pct is None else own.gate.row_delta_pct
        if delta is None and own.load is LoadMode.REPLACE:
            delta = ROW_DELTA_OF_REPLACE
        return Limits(
            max_reject_pct=said.max_reject_pct if own.gate.max_reject_pct is None else own.gate.max_reject_pct,
            row_delta_pct=None if delta == "never" else delta,
            min_rows=own.gate.min_rows if own.gate.min_rows is not None else said.min_rows,
            max_loss_pct=own.gate.max_loss_pct if own.gate.max_loss_pct is not None else said.max_loss_pct,
            freshness=own.gate.freshness,
        )

    def check_models(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The models a command works on: those named, or all."""
        for name in wanted:
            if name not in self.settings.models:
                raise UsageError(f"pipeline {self.name} has no model {name!r}; it has {', '.join(self.models)}")
        return tuple(sorted(set(wanted or self.models)))


class Clock(Protocol):
    """Time, passed in."""

    def now(self) -> datetime:
        """The moment people mean. Somebody may set it forward or back, so that no wait is measured by it."""
        ...

    def elapsed(self) -> float:
        """Seconds since a moment that never moves."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Stop:
    """A request to end at the next safe point; a signal, a time-out or a lost lease makes it."""

    def __init__(self, end_process: Callable[[IngestkitError], None] | None = None) -> None:
        self._requested = threading.Event()
        self._reasons: list[Callable[[], Exception]] = []
        self._end_process = end_process

    def request(self, reason: Callable[[], Exception]) -> None:
        """Ask to stop; the first reason stands."""
        self._reasons.append(reason)
        self._requested.set()

    def withdraw(self, reason: Callable[[], Exception]) -> None:
        """Take a request back: what it was about has ended. Those of others stand."""
        self._reasons = [one for one in self._reasons if one is not reason]
        self._requested.clear()
        if self._reasons:
            self._requested.set()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def check(self) -> None:
        """A safe point: raise when asked to stop."""
        for reason in self._reasons:
            raise reason()

    def abort(self, error: IngestkitError) -> None:
        """End the process, for one that did not come to a safe point when it was asked to."""
        if self._end_process is not None:
            self._end_process(error)

    def wait(self, seconds: float) -> None:
        """Sleep, unless asked to stop; then raise."""
        self._requested.wait(seconds)
        self.check()


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's time. A sleep ends when the process is asked to stop, with that reason."""

    stop: Stop = field(default_factory=Stop)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.stop.wait(seconds)


class Progress(Protocol):
    """Who is told what goes on; a terminal, a log, a test."""

    def began(self, stage: str, model: str, total: int | None) -> None:
        """A stage began on a model; `total` bytes or rows lie ahead, where known."""
        ...

    def moved(self, stage: str, model: str, by: int) -> None: ...

    def ended(self, stage: str, model: str, status: str) -> None: ...

    def said(self, message: str, **facts: Any) -> None:
        """A line worth telling: a wait, a skip, a warning."""
        ...

    def warned(self, message: str, **facts: Any) -> None: ...


def unwatched(file: FileVersion) -> AbstractContextManager[None]:
    """Nobody wants to know how long a file takes."""
    del file
    return nullcontext()


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a stage is given for one run of one batch."""

    pipeline: Pipeline
    run_id: str
    batch: str
    token: int
    state_id: str
    source: Source
    lake: Lake
    warehouse: Warehouse
    scratch: Path
    clock: Clock
    stop: Stop
    progress: Progress
    threads: int = 2
    memory_limit: str = "600MiB"
    window: Window | None = None
    """Which piece of time the batch is, of a pipeline of windows."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    watched: Callable[[FileVersion], AbstractContextManager[None]] = unwatched
    """Around the work on one file."""

    def place(self, model: str) -> Place:
        return Place(self.pipeline.name, model, self.run_id, self.token)

    def holds(self, artifact: Artifact) -> bool:
        """Whether the lake has an artifact as it was made; the bytes are looked at of what others have made."""
        if self.is_ours(artifact):
            return self.lake.holds(artifact.path, artifact.bytes)
        return self.lake.is_whole(artifact)

    def is_ours(self, made: Artifact | FileVersion) -> bool:
        """Whether this process left it in this run. Another of the same run may have done so days ago, elsewhere."""
        return (made.run_id, made.token) == (self.run_id, self.token)
