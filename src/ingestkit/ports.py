"""The contracts between the engine and the outside: what a caller may rely on, what an adapter must do.

Adapters translate their vendor's exceptions at once into `errors`; they do not retry, print, read settings or swallow.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

from ingestkit.model import Announced, Built, Counts, Fence, FileVersion, Intent, Item, LoadMode, Receipt, Window
from ingestkit.settings import LINEAGE


class Source(Protocol):
    """Where batches come from."""

    def check(self) -> None:
        """Prove that the source answers and may be read. SourceError says what is missing."""
        ...

    def batches(self, after: str | None) -> Iterator[str]:
        """The keys of all batches that sort after `after` (None: all), oldest first, each once.

        Not asked of a pipeline of windows: there the calendar says which batches there are.
        """
        ...

    def strays(self) -> Sequence[str]:
        """What the last listing saw that is in no batch, by its topmost folder; what is ignored is not told."""
        ...

    def items(self, batch: str, window: Window | None = None) -> Iterator[Item]:
        """What the batch holds now, in path order: mapped, unmapped and not yet readable alike, each path once.

        Of a pipeline of windows, `window` is the piece of time the batch is, and what belongs to none is in no batch.

        Members of a zip archive are items of their own, and the archive is none: they are claimed by their own names,
        an only one also by the archive's. Two models claiming one item is a ConfigError that names both.
        NotArrived when an archive is no whole one yet; SourceError when it is damaged, or not safe to open.
        """
        ...

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        """The bytes of the item, as a stream.

        Leaving the block without an error promises that size and mtime were the item's before and after the reading;
        otherwise a transient SourceError says that it changed. A missing item is a SourceError, and so is a member
        that does not fit its checksum.
        """
        ...

    def announced(self, batch: str, window: Window | None = None) -> Iterator[Announced]:
        """What reports say of how many records the batch holds now, by report; none where none are to come.

        A report is no item, and items are not ready before theirs has come. NotArrived when one may be still being
        written; SourceError when it is none. Two models claiming what it counts is a ConfigError that names both.
        """
        ...

    def release(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        """Move, rename or delete files of a batch, as the pipeline says, and tell of each what became of it.

        Only what is still the version given, or was by an earlier call that could not tell; another one stays and is
        not told of. An archive stays while it holds one of the `others`. What cannot be done is a SourceError, raised
        behind what could. Asked only of a source that is to do something.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a store lists it."""

    name: str
    bytes: int
    at: datetime


@dataclass(frozen=True, slots=True)
class LakeRule:
    """What a service is to do by itself, by age alone, with what is below a prefix of the lake."""

    name: str
    does: Literal["expire", "expire_noncurrent", "abort_uploads"]
    prefix: str
    days: int


@dataclass(frozen=True, slots=True)
class Need:
    """How long what is below a prefix of the lake may be needed; None is without an end."""

    prefix: str
    kept: timedelta | None
    why: str


@dataclass(frozen=True, slots=True)
class Loss:
    """What a rule does so that something below a prefix of the lake can be read no more, and after how many days."""

    does: Literal["removes", "archives"]
    prefix: str
    days: int


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """A rule as a service words it."""

    name: str
    text: str
    meaning: str
    """Equal for rules that do the same, whatever their words' order."""
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules at one moment."""

    rules: tuple[ServiceRule, ...]
    document: str = field(repr=False)
    """As the service gave it, with what belongs to no rule."""


class Lifecycle(Protocol):
    """The lifecycle rules of the bucket or account that a lake lies in; they may be written only all at once."""

    @property
    def place(self) -> str: ...

    @property
    def prefix(self) -> str:
        """Where in it the lake lies: two lakes may share it."""
        ...

    @property
    def inflight(self) -> Need:
        """How long what is in flight may be of an upload that goes on."""
        ...

    def read(self) -> Policy: ...

    def worded(self, rules: Sequence[LakeRule], beside: Sequence[ServiceRule]) -> list[ServiceRule]:
        """The rules in the service's words, so that they may stand beside those of others. LakeError: they may not."""
        ...

    def write(self, before: Policy, drop: Collection[str], put: Sequence[ServiceRule]) -> None:
        """Replace the policy by one without the rules of these names and with these. All else stays to the letter."""
        ...


class Store(Protocol):
    """A dumb place for immutable objects. Names are relative, with `/` between their parts."""

    def check(self) -> None:
        """Prove that the store answers and may be written to. LakeError says what is missing."""
        ...

    def expect(self, incoming: int) -> None:
        """Prove that there is room for what so many bytes of a source become. LakeError says where there is none."""
        ...

    def write(self, inflight: str) -> AbstractContextManager[BinaryIO]:
        """Open an in-flight object for writing. No listing of published names ever shows it.

        After an error it is removed.
        """
        ...

    def publish(self, inflight: str, name: str, sha256: str) -> None:
        """Make the in-flight object, of bytes with this hash, appear under `name`, whole and durable, in one step.

        ObjectExists when the name is taken: the object there stays as it is, and the in-flight one is gone.
        """
        ...

    @property
    def keeps_names(self) -> bool:
        """Whether `publish` finds out by itself, at that moment, that a name is taken; else two could race for one."""
        ...

    @property
    def at_once(self) -> int:
        """How many objects it is best given, or asked for, at the same time."""
        ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """The bytes of an object, as a stream. LakeError when there is none."""
        ...

    def stat(self, name: str) -> Stored | None:
        """The object of that name, or None."""
        ...

    def sha256(self, name: str) -> str:
        """The hash of the object's bytes, as stored with it or as read."""
        ...

    def path(self, name: str) -> Path:
        """A path on this machine at which the object's bytes can be read."""
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """Published objects below `prefix`, in name order, whole ones only."""
        ...

    def inflight(self, prefix: str) -> Iterator[str]:
        """Names of in-flight objects below `prefix`, left by whoever died over them."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object, published or in flight; one that is gone already is no error."""
        ...

    def let_go(self) -> None:
        """Forget copies that were kept at hand for the stages that come next."""
        ...


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column as the contract knows it: `type` is the contract's (`decimal(10,2)`), not a vendor's."""

    name: str
    type: str
    max_length: int | None = None
    """As many characters as a text may have by the contract; warehouses whose texts have no length keep none."""


@dataclass(frozen=True, slots=True)
class ValidFile:
    """A valid artifact to load: Parquet with the contract's columns, `_record_no`, and others that no table has."""

    path: Path
    source_file: str
    file_id: str
    rows: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which values the rows of a window lie, half-open: instants, or days where the column is a date."""

    column: str
    low: datetime | date
    high: datetime | date


@dataclass(frozen=True, slots=True)
class Said:
    """Which keys some batches have spoken of: their valid files, without the records that `losers` name."""

    files: tuple[ValidFile, ...] = ()
    losers: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Copying:
    """How rows go into a warehouse that loads from staged files; None: as its connection says."""

    file_size: str | None = None
    parallel: int | None = None
    vectorized: bool = False


@dataclass(frozen=True, slots=True)
class Rejects:
    """A table beside the target with what was rejected of a batch: a row for each reason of each record."""

    table: str
    files: tuple[Path, ...] = ()
    """Parquet with path, record, line, raw and errors of records that break the contract."""
    losers: Path | None = None
    """The same, without raw, of records left out because their key came before."""
    raw: bool = False
    """Whether the records' texts are for the table too."""

    lineage: tuple[str, ...] = LINEAGE

    @property
    def columns(self) -> tuple[TargetColumn, ...]:
        texts = ("column", "code", "message", *(["raw"] if self.raw else []))
        return (TargetColumn("line", "integer"), *(TargetColumn(name, "string") for name in texts))


@dataclass(frozen=True, slots=True)
class Load:
    """All that publishes one table: that of a model, or one of a model of many tables.

    `newer` is what newer batches have said, where `mode` is merge.
    """

    intent: Intent
    table: str
    columns: tuple[TargetColumn, ...]
    key: tuple[str, ...]
    files: tuple[ValidFile, ...]
    losers: Path | None
    """Parquet of (file_id, record_no): records left out because their key came before."""
    newer: Said = Said()
    previous: Said | None = Said()
    """What this batch's earlier generation said, for what a redone merge leaves behind; None: it is gone."""
    lineage: tuple[str, ...] = LINEAGE
    deletes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column, the values (as text) of rows that are not written, and where `mode` is merge remove their key."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The same of rows that are written, and flagged in the one of `columns` that no file has."""
    bounds: Bounds | None = None
    """Where `mode` is window: whose rows are replaced. None of the files' rows lies outside."""
    evolved: tuple[str, ...] = ()
    """Those of `columns` that some file added once: texts, and null for files that lack them."""
    copying: Copying = Copying()
    rejects: Rejects | None = None
    part: str = ""
    """Which table of a model of many this is: all its loads stand under one fence row and have one receipt."""
    removed: tuple[ValidFile, ...] = ()
    """Of a merge: files of keys, whose rows go before any is written."""
    marks: str | None = None
    """Rows of removed keys stay, and get the time in this column of those files; rows that are written have none."""
    remade: tuple[str, ...] = ()
    """Columns that were gone and have come again, some of them perhaps not: no row of before keeps a value in them."""
    afresh: bool = False
    """Whether no row of before stays, whatever the model's mode."""
    beside: tuple[TargetColumn, ...] = ()
    """Columns of the files without a value, which are written where the table has them: an older one would stay."""

    @property
    def mode(self) -> LoadMode:
        return LoadMode.REPLACE if self.afresh else self.intent.mode

    @property
    def name(self) -> str:
        return self.part or self.intent.model

    def fenced(self, pipeline: str) -> str:
        """The table that the model's fence row names."""
        return many_tables(pipeline) if self.part else self.table


def many_tables(pipeline: str) -> str:
    """What the fence row of a model of many tables names, where others name their table. No table is called so."""
    return f"{pipeline}.*"


def forget(model: str, facts: Mapping[str, Any]) -> None:
    """Nobody wants to know."""
    del model, facts


@dataclass(frozen=True, slots=True)
class Publication:
    """One publishing transaction: every load in it, or none."""

    pipeline: str
    batch: str
    run_id: str
    state_id: str
    token: int
    loads: tuple[Load, ...]
    judge: Callable[[str, Counts, Mapping[str, int]], None]
    """Called per load before COMMIT with its counts and facts (`key_nulls`, `key_duplicates`, `expected_target`);
    raises to roll the transaction back."""
    told: Callable[[str, Mapping[str, Any]], None] = forget
    """Called per load after COMMIT, where the warehouse has something to look it up by, such as ids of queries."""


class Warehouse(Protocol):
    """Where models become tables."""

    def present(self) -> bool:
        """False when an embedded warehouse's file is gone; asks nothing of a remote one."""
        ...

    def check(self) -> None:
        """Prove that the warehouse answers and that fence and receipt tables exist, making them where they are missing.

        WarehouseError, or Busy when somebody else holds it longer than its lock time-out.
        """
        ...

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        """The pipeline's fence rows by model; empty where the tables do not exist."""
        ...

    def table_owner(self, table: str) -> tuple[str, str] | None:
        """Which (pipeline, model) owns a target table, or None."""
        ...

    def fence(self, fences: tuple[Fence, ...], *, adopt: bool = False) -> None:
        """Insert fence rows that are missing. With `adopt`, also overwrite state id and token of those that are there.

        Without `adopt` an existing row is never touched; only `publish` raises its token.
        """
        ...

    def receipts(self, pipeline: str) -> tuple[Receipt, ...]:
        """All receipts of the pipeline."""
        ...

    def evolve(
        self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...], *, mine: Fence | None = None
    ) -> tuple[str, ...]:
        """Make the table, or add and widen columns; never drop or narrow. Returns the statements run.

        A change that would lose data (narrower, other type) is a WarehouseError that names the column. Who asks may say
        its own fence: what earlier owners of the model died with is then not waited for as if they were at work.
        """
        ...

    def planned(self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...]) -> tuple[str, ...]:
        """The statements `evolve` would run; nothing is changed, nor made where there is nothing."""
        ...

    def remarks(self, pipeline: str, tables: Mapping[str, Collection[LoadMode]]) -> tuple[str, ...]:
        """What somebody has set on a pipeline's targets that changes what publishing into them means; one line each.

        `tables` says of each by which modes it may be loaded.

        Nothing of it loses a row. Asks, and changes nothing; tables that do not exist are nothing to remark on.
        WarehouseError where nothing could be published at all.
        """
        ...

    def publish(self, publication: Publication) -> Mapping[str, Receipt]:
        """Publish all loads in one transaction, and return the receipts that now stand, by model.

        In this order: raise the fence of each model, in name order (Fenced when one does not answer exactly once); look
        at each receipt (one that answers the intent is returned as it is; a generation not below the intended one is
        PlanAgain); write rows; count; `judge`; write receipts; commit. Any error rolls everything back. A full load of
        a model of many tables removes its other receipts: what they speak of begins anew with it.
        """
        ...

    def missing(self, tables: tuple[str, ...]) -> frozenset[str]:
        """Which of these target tables do not exist."""
        ...

    def void(self, fence: Fence) -> None:
        """Remove the receipts of a model whose table is gone, since they speak of nothing.

        In one transaction that begins with the fence, as `publish` does: Fenced when it does not answer.
        """
        ...

    def newest(self, table: str, column: str) -> Any:
        """The greatest value of a column, or None where the table has none."""
        ...

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a read-only statement."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a table is to hold."""

    table: str
    columns: tuple[TargetColumn, ...]
    lineage: tuple[str, ...] = LINEAGE


@runtime_checkable
class ManyTables(Protocol):
    """A warehouse that takes models of many tables, which may lose columns, or be gone altogether."""

    def evolve_all(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[str, ...]]:
        """As `evolve`, of many tables at once; by table, the statements run. Those that fit are only looked at."""
        ...

    def drop(self, mine: Fence, table: str, columns: Collection[str] = ()) -> tuple[str, ...]:
        """Remove columns of a table, or where none is named the table and the fence row that says whose it is.

        In one transaction, which begins with the fence as `publish` does: Fenced when it does not answer. What is gone
        already is no error. Returns the statements run. WarehouseError names what depends on it and keeps it.
        """
        ...


class Mirror(Protocol):
    """A copy of the state for others to read. Level-triggered; never read to decide anything but one refusal."""

    def read(self, pipeline: str) -> Mapping[str, Any] | None:
        """What the mirror shows of the pipeline, or None."""
        ...

    def write(self, pipeline: str, shown: Mapping[str, Any]) -> None:
        """Replace what it shows, whole or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class RunEvent:
    """How a run stood at a moment."""

    event_id: str
    run_id: str
    token: int
    touched_at: datetime
    run: Mapping[str, Any]
    """What there is to say of it, as JSON; what is unknown is left out."""


class RunMirror(Protocol):
    """Where others read of all runs. Events are only ever added; of a run, that of the highest token and time counts.

    Level-triggered: never read but to find out what is missing there.
    """

    def check(self) -> None:
        """Prove that it is there, and may be read and added to. WarehouseError says what is missing."""
        ...

    def add_missing(
        self, pipeline: str, events: Collection[str], told: Callable[[Collection[str]], Sequence[RunEvent]]
    ) -> int:
        """Add those of the events that are not there yet, as they are told when asked for, and say how many.

        Who does so at the same time may add one twice.
        """
        ...


class Stopping(Protocol):
    """Whether the work is asked to end."""

    @property
    def requested(self) -> bool: ...

    def check(self) -> None:
        """Raise the reason when asked to stop."""
        ...


class Transform(Protocol):
    """What builds on the target's tables, as a project of its own."""

    def check(self) -> None:
        """Prove that its program and its project are where they are said to be; nothing is started."""
        ...

    def prove(self, scratch: Path, stop: Stopping) -> None:
        """Have it read its project; ConfigError says what it does not take. The target is asked nothing."""
        ...

    def build(self, scratch: Path, stop: Stopping, tell: Callable[[str], None]) -> Sequence[Built]:
        """Build it, and run its tests; how each node ended. `tell` hears of each as it ends.

        A build that is cut short may be done again. Asked to stop, it ends with all it has started; killed, too. What
        could not begin is ConfigError, a target that does not answer WarehouseError. No value of a row is told.
        """
        ...


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure as meters are told it: a `total` only ever grows, a `level` moves, a `moment` is an instant."""

    name: str
    """With dots; each meter adds what its world puts before and behind a name."""
    kind: Literal["total", "level", "moment"]
    unit: Literal["", "s", "By"]
    shows: str
    tags: Mapping[str, str]
    value: float | datetime
    since: datetime | None = None
    """Since when a total is counted."""
    grew: float = 0
    """By how much this command made a total grow."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work with its time, as tracing knows it; ids are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    began: datetime
    ended: datetime
    tags: Mapping[str, str | int]
    failed: bool = False


class Meter(Protocol):
    """Who is told the figures of a pipeline, once, at the end of a command."""

    def tell(self, at: datetime, measures: Sequence[Measure], spans: Sequence[Span]) -> None:
        """Tell all figures as they stood at this instant, and what took which time where spans are wanted.

        Nothing is tried twice: totals are those of the state, and the next command tells them again. TargetError says
        what went wrong, without an address, a header, or a word of the other side; ConfigError what is to be put right.
        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """What an alert says: of one incident of one pipeline, in lines that hold no cell value and no secret."""

    kind: str
    status: Literal["open", "happened", "recovered", "test"]
    pipeline: str
    text: str
    at: datetime
    """When it was seen last, or was over."""
    since: datetime
    hint: str | None = None
    count: int = 1
    run_id: str | None = None
    owner: str | None = None
    emails: tuple[str, ...] = ()
    """Who is to have it beside those the channel names, where it is mail."""

    @property
    def title(self) -> str:
        said = {"recovered": f"recovered ({self.kind})", "test": "a test"}.get(self.status, self.kind)
        return f"ingestkit: {self.pipeline}: {said}"

    @property
    def lines(self) -> tuple[str, ...]:
        since = f"{'at' if self.status == 'happened' else 'since'} {self.since:%Y-%m-%d %H:%M:%S}Z"
        times = f", seen {self.count} times" if self.count > 1 else ""
        found = [self.text, since + times, *([f"next: {self.hint}"] if self.hint else [])]
        found += [f"run: {self.run_id}"] if self.run_id else []
        return (*found, *([f"owner: {self.owner}"] if self.owner else []))

    def facts(self) -> dict[str, str | int | None]:
        """The same in parts, for programs."""
        return {
            "kind": self.kind,
            "status": self.status,
            "pipeline": self.pipeline,
            "text": self.text,
            "hint": self.hint,
            "count": self.count,
            "since": self.since.isoformat(),
            "at": self.at.isoformat(),
            "run_id": self.run_id,
            "owner": self.owner,
        }


class Alert(Protocol):
    """Somebody who is told of incidents."""

    def send(self, message: Message) -> None:
        """Hand the message over, in about the time the settings grant; when it returns, the other side has taken it.

        Nothing is tried twice: who calls keeps what was not taken, and sends it later, so that it may come twice and is
        never lost. TargetError says what went wrong, without an address, a header, or a word of the other side.
        """
        ...
