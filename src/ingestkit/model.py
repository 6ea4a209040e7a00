"""The values everything else speaks in: frozen, without I/O."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class Stage(StrEnum):
    EXTRACT = "extract"
    VALIDATE = "validate"
    LOAD = "load"
    DBT = "dbt"
    GATE = "gate"
    SYNC = "sync"
    CLEAN = "clean"


ALL_STAGES = (Stage.EXTRACT, Stage.VALIDATE, Stage.LOAD, Stage.DBT, Stage.GATE, Stage.CLEAN)
"""In the order in which they are done; that of dbt by pipelines that say it."""


class RunStatus(StrEnum):
    OPEN = "OPEN"
    SUCCESS = "SUCCESS"
    SUCCESS_WITH_REJECTS = "SUCCESS_WITH_REJECTS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    SUPERSEDED = "SUPERSEDED"


class StageStatus(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


class FileStatus(StrEnum):
    SEEN = "seen"
    LANDED = "landed"
    VALIDATED = "validated"
    LOADED = "loaded"
    SKIPPED = "skipped"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    FORGOTTEN = "forgotten"


class CompletionStatus(StrEnum):
    DONE = "done"
    ABSENT = "absent"
    EMPTY = "empty"
    SKIPPED = "skipped"
    SUPERSEDED = "superseded"


class LoadMode(StrEnum):
    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"
    WINDOW = "window"


class ArtifactKind(StrEnum):
    RAW = "raw"
    VALID = "valid"
    REJECTS = "rejects"


class Verdict(StrEnum):
    PASSED = "PASSED"
    PASSED_WITH_REJECTS = "PASSED_WITH_REJECTS"
    FAILED = "FAILED"


def sha256_of(value: Any) -> str:
    """The hash of a JSON value, the same for equal values whatever their key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def human_duration(seconds: float) -> str:
    """A duration as a person says it: `1h 02m 03s`, `4.2s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def safe_name(text: str) -> str:
    """A caller's text as one path part: what is unsafe or long is replaced, and a hash keeps it unique."""
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:80].strip(".") or "x"
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Window:
    """A batch that is a piece of time: from `start` on, up to but without `end`."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """The batch key: the start in UTC, which sorts as time does."""
        return self.start.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")

    def to_json(self) -> dict[str, str]:
        return {"from": self.start.isoformat(), "to": self.end.isoformat()}

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(instant(row["from"]), instant(row["to"]))

    @classmethod
    def of_key(cls, key: str, end: datetime) -> Self:
        return cls(instant(key), end)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing a source holds for a batch. `models` is empty when no model claims it.

    `ready` is false while the source says itself that it cannot be read yet; `waits_for` says why.
    `digest` is the source's own checksum (sha256) where it gives one, else None and the landed bytes decide.
    `archive` is the path of the archive it is a member of: `path` is `<archive>!<member>`, `mtime` is the archive's.
    `checksum` is the path of the file, or member, beside it that says what its bytes must add up to.
    """

    batch: str
    path: str
    size: int
    mtime: datetime
    models: tuple[str, ...] = ()
    ready: bool = True
    waits_for: str | None = None
    digest: str | None = None
    archive: str | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Announced:
    """What a report of the source says: how many records of each entity a file, an archive or a folder holds.

    `models` are those that claim an entity. Of one that is in `counts` alone there is no model.
    """

    report: str
    of: str
    counts: Mapping[str, int]
    models: Mapping[str, str]
    full: bool | None = None
    """Whether it is all there is, and not what has changed; None where that is not asked of reports."""

    def of_model(self, model: str) -> dict[str, Any]:
        """What it says of one model, as the sidecar of extract keeps it."""
        counts = {entity: count for entity, count in self.counts.items() if self.models.get(entity) == model}
        full = {} if self.full is None else {"full": self.full}
        return {"report": self.report, "of": self.of, "counts": counts, **full}


def lies_in(path: str, of: str) -> bool:
    """Whether a path of the source is this file, or in this archive or folder."""
    return path == of or path.startswith((f"{of}!", f"{of}/"))


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One row of the ledger: one version of one source file."""

    pipeline: str
    path: str
    version: int
    id: str
    batch: str
    model: str | None
    status: FileStatus
    size: int
    mtime: datetime
    sighted_at: datetime
    sha256: str | None = None
    raw: str | None = None
    read: int | None = None
    valid: int | None = None
    rejected: int | None = None
    loaded: int | None = None
    reason: str | None = None
    run_id: str | None = None
    changes: bool | None = None
    """Whether a report of the source said that it holds changes alone; None where none was asked."""
    token: int = 0

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        times = {name: instant(row[name]) for name in ("mtime", "sighted_at")}
        return cls(**{**row, **times, "status": FileStatus(row["status"])})


@dataclass(frozen=True, slots=True)
class Artifact:
    """One immutable file in the lake. `file_id` is the ledger id it came from, None for figures over a whole model."""

    path: str
    pipeline: str
    batch: str
    model: str
    file_id: str | None
    kind: ArtifactKind
    sha256: str
    bytes: int
    rows: int | None
    settings: str
    run_id: str
    token: int
    status: str = "made"

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**{**row, "kind": ArtifactKind(row["kind"])})


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Rejects of one reason in one file: how many, and where three of them stand. Never a cell value."""

    run_id: str
    pipeline: str
    batch: str
    model: str
    file_id: str
    path: str
    column: str
    code: str
    count: int
    samples: tuple[tuple[int, int], ...] = ()
    """(record, line) of up to three of them."""
    status: str = "held"
    token: int = 0

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**{**row, "samples": tuple((int(r), int(n)) for r, n in row["samples"])})


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that somebody may be told of, seen now."""

    kind: str
    subject: str
    """What it is about, where several of a kind are apart."""
    text: str
    hint: str | None = None
    run_id: str | None = None
    happened: bool = False
    """It happened once, and is never over; else it goes on until it is."""

    def key(self, channel: str) -> str:
        return f"{self.kind}/{self.subject}@{channel}"


@dataclass(frozen=True, slots=True)
class Drift:
    """A header that is not what the contract says."""

    model: str
    file_id: str
    kind: str
    column: str
    expected: str | None
    found: str | None
    action: str

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Counts:
    """Figures of a stage; None is unknown, 0 is a counted zero."""

    files: int | None = None
    bytes: int | None = None
    lines: int | None = None
    records: int | None = None
    valid: int | None = None
    rejected: int | None = None
    duplicates: int | None = None
    staged: int | None = None
    loaded: int | None = None
    deleted: int | None = None
    superseded: int | None = None
    filtered: int | None = None
    deletes: int | None = None
    """Rows that say of their key that it is gone."""
    left_behind: int | None = None
    target: int | None = None

    def to_json(self) -> dict[str, int]:
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**row)

    @classmethod
    def total(cls, several: Iterable["Counts"]) -> "Counts":
        sums: dict[str, int] = {}
        for one in several:
            for name, value in one.to_json().items():
                sums[name] = sums.get(name, 0) + value
        return cls(**sums)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as judged: `passed` is None when it had not the history it needs.

    `model` names several where a rule looks at several, with commas between them.
    """

    name: str
    stage: Stage
    model: str
    figure: float | None
    limit: float | None
    passed: bool | None
    approvable: bool = True
    least: bool = False
    """Whether the limit is the least that passes, not the most."""
    contract: bool = False
    """Whether a failure says that data break their contract, not that a gate is closed."""
    basis: str | None = None
    """What the figure was taken from where it moves by itself: the newest instant, of which the figure is the age."""
    approved_by: int | None = None
    """The decision that lets it pass over its limit."""
    told: str | None = None
    """What a person should know of a failure, beyond figure and limit."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.model.split(", "))

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**{**row, "stage": Stage(row["stage"])})


@dataclass(frozen=True, slots=True)
class Built:
    """How one node of a project that builds on the target has ended: a model, a test, a seed, a snapshot."""

    ERRORS: ClassVar = ("error", "runtime error", "partial success")
    TESTS: ClassVar = ("test", "unit_test")

    name: str
    unique: str
    """The name that no other node has."""
    kind: str
    status: str
    failures: int | None
    """How many rows a test has found."""
    limit: float | None
    """How many it may find; None where it only warns, or counts in a way of its own."""
    seconds: float
    tables: tuple[str, ...]
    """The tables of the target that it stands on."""
    told: str | None
    """What may be told of an error: nothing of a row."""


@dataclass(frozen=True, slots=True)
class SqlCheck:
    """A query of one's own over published data, which passes when it returns nothing."""

    name: str
    models: tuple[str, ...]
    query: str


@dataclass(frozen=True, slots=True)
class Completion:
    """(pipeline, batch, model) is done."""

    pipeline: str
    batch: str
    model: str
    status: CompletionStatus
    mode: LoadMode | None
    generation: int
    digest: str | None
    settings: str | None
    run_id: str
    counts: Counts = field(default_factory=Counts)
    token: int = 0
    window_end: datetime | None = None
    """Where the batch ends, if it is a window."""

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        mode, end = row["mode"], row.get("window_end")
        return cls(
            **{
                **row,
                "status": CompletionStatus(row["status"]),
                "mode": LoadMode(mode) if mode else None,
                "counts": Counts.from_json(row["counts"]),
                "window_end": instant(end) if end else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage did for one model: the whole rows the state will hold, and the figures read back from them."""

    counts: Counts = field(default_factory=Counts)
    files: tuple[FileVersion, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    drift: tuple[Drift, ...] = ()
    rules: tuple[Rule, ...] = ()
    completions: tuple[Completion, ...] = ()
    details: Json = field(default_factory=dict)
    skipped: str | None = None
    """Why nothing had to be done, where nothing was."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The JSON a stage leaves behind for one model: its work, whose it is, and which settings it depended on."""

    pipeline: str
    run_id: str
    batch: str
    stage: Stage
    model: str
    token: int
    sequence: int
    settings: str
    at: datetime
    work: Work
    run: Json = field(default_factory=dict)
    """The run row's own facts (attempt, kind, models, configuration), so that a lost state can be rebuilt."""

    def to_json(self) -> dict[str, Any]:
        return {
            "v": 1,
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "batch": self.batch,
            "stage": self.stage.value,
            "model": self.model,
            "token": self.token,
            "sequence": self.sequence,
            "settings": self.settings,
            "at": self.at.isoformat(),
            "run": dict(self.run),
            "counts": self.work.counts.to_json(),
            "files": [row.to_json() for row in self.work.files],
            "artifacts": [row.to_json() for row in self.work.artifacts],
            "quarantine": [row.to_json() for row in self.work.quarantine],
            "drift": [row.to_json() for row in self.work.drift],
            "rules": [row.to_json() for row in self.work.rules],
            "completions": [row.to_json() for row in self.work.completions],
            "details": dict(self.work.details),
            "skipped": self.work.skipped,
        }

    @classmethod
    def from_json(cls, row: Json) -> Self:
        work = Work(
            counts=Counts.from_json(row["counts"]),
            files=tuple(FileVersion.from_json(one) for one in row["files"]),
            artifacts=tuple(Artifact.from_json(one) for one in row["artifacts"]),
            quarantine=tuple(Quarantined.from_json(one) for one in row["quarantine"]),
            drift=tuple(Drift.from_json(one) for one in row["drift"]),
            rules=tuple(Rule.from_json(one) for one in row["rules"]),
            completions=tuple(Completion.from_json(one) for one in row["completions"]),
            details=row["details"],
            skipped=row["skipped"],
        )
        names = ("pipeline", "run_id", "batch", "model", "token", "sequence", "settings", "run")
        return cls(**{name: row[name] for name in names}, stage=Stage(row["stage"]), at=instant(row["at"]), work=work)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a run means to publish for a model; written to the state before the target is touched."""

    model: str
    generation: int
    digest: str
    settings: str
    mode: LoadMode


@dataclass(frozen=True, slots=True)
class Receipt:
    """A row of the target database, written in the transaction that published what it speaks of."""

    pipeline: str
    model: str
    batch: str
    generation: int
    digest: str
    settings: str
    mode: LoadMode
    run_id: str
    token: int
    counts: Counts
    at: datetime

    @property
    def since(self) -> tuple[int, datetime]:
        """What tells which of two was published later: commands by their tokens, and within one command the time."""
        return self.token, self.at

    def answers(self, intent: Intent) -> bool:
        return (self.generation, self.digest, self.settings, self.mode) == (
            intent.generation,
            intent.digest,
            intent.settings,
            intent.mode,
        )


@dataclass(frozen=True, slots=True)
class Fence:
    """A row of the target database: which state, and which of its tokens, may publish into `table`."""

    pipeline: str
    model: str
    state_id: str
    token: int
    table: str


def digest_of(files: Iterable[FileVersion]) -> str:
    """The digest of a model's source files in a batch: their sorted (path, sha256)."""
    return sha256_of(sorted((file.path, file.sha256) for file in files))


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: _jsonable(getattr(value, f.name)) for f in fields(value)}


def _jsonable(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case datetime():
            return value.isoformat()
        case Counts():
            return value.to_json()
        case tuple() | list():
            return [_jsonable(one) for one in value]
        case _:
            return value
