"""One raw file made into its valid Parquet and its rejects; figures over several files are the stage's."""

import itertools
import json
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ingestkit import steps
from ingestkit.contract import ERRORS, RECORD_NUMBER
from ingestkit.csvvalues import line_ends_within
from ingestkit.errors import LakeError
from ingestkit.files import shown
from ingestkit.lake import HashingWriter, Landed
from ingestkit.model import Artifact, ArtifactKind, Drift, FileVersion
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_engine import Engine, parquet
from ingestkit.stages.validate_rules import percent

FACTS = b"ingestkit"
ROW_GROUP = 122_880
SAMPLE = 10_000
DETAILS = 1_000
"""So many rejects of a file that is quarantined whole are kept; all of them are counted."""
REJECTS = pa.schema(
    [
        ("file_id", pa.string()),
        ("path", pa.string()),
        ("record", pa.int64()),
        ("line", pa.int64()),
        ("byte_start", pa.int64()),
        ("byte_length", pa.int64()),
        ("raw", pa.binary()),
        ("errors", ERRORS),
    ]
)


Normalised: TypeAlias = Mapping[str, Mapping[str, int]]
"""By column and step: how many values of valid rows were changed."""


def counted(changed: Mapping[str, Mapping[str, pa.ChunkedArray]], valid: pa.ChunkedArray | None) -> Normalised:
    """How many of the valid rows each step has changed."""
    return {column: {step: _how_many(each, valid) for step, each in found.items()} for column, found in changed.items()}


def _how_many(changed: pa.ChunkedArray, valid: pa.ChunkedArray | None) -> int:
    kept = changed if valid is None else pyarrow.compute.and_(changed, valid)
    return int(pyarrow.compute.sum(kept).as_py() or 0)


def summed(several: Iterable[Normalised]) -> Normalised:
    total: dict[str, dict[str, int]] = {}
    for one in several:
        for column, each in one.items():
            for step, count in each.items():
                place = total.setdefault(column, {})
                place[step] = place.get(step, 0) + count
    return total


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """How often a column broke a rule, and the first records and lines where it did."""

    column: str
    code: str
    count: int
    samples: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a rejects artifact would tell if not only its first records were kept."""

    rows: int
    lines: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a valid artifact says of the file it came from; kept in it, so that it can be reused."""

    lines: int
    preamble: int
    header: int
    blank: int
    trailer: int
    records: int
    newline: int
    encoding: str
    newlines: Mapping[str, int]
    valid_lines: int = 0
    drift: tuple[Drift, ...] = ()
    cut: Cut | None = None
    extra: tuple[str, ...] = ()
    """Columns beyond the contract's that the artifact carries, as texts."""
    normalised: Normalised = field(default_factory=dict)
    partial: bool = False
    """Whether only the first records of the file were read, so that nothing of the whole can be told."""

    @property
    def lines_before(self) -> int:
        """How many lines stand before the first record."""
        return self.preamble + self.header

    def to_bytes(self) -> bytes:
        return json.dumps({**asdict(self), "drift": [one.to_json() for one in self.drift]}).encode()

    @classmethod
    def read(cls, path: Path) -> "Facts":
        found = json.loads(pyarrow.parquet.read_metadata(path).metadata[FACTS])
        drift = tuple(Drift.from_json(one) for one in found["drift"])
        return cls(**{**found, "drift": drift, "cut": _cut_from_json(found["cut"]), "extra": tuple(found["extra"])})


def _cut_from_json(found: Mapping[str, Any] | None) -> Cut | None:
    if found is None:
        return None
    reasons = ({**one, "samples": tuple((record, line) for record, line in one["samples"])} for one in found["reasons"])
    return Cut(found["rows"], found["lines"], tuple(Reason(**one) for one in reasons))


@dataclass(frozen=True, slots=True)
class Converted:
    """A block as it is written: typed rows and rejects, numbered within the block."""

    typed: pa.Table
    """Values, record numbers, and the lines on which the records begin."""
    rejects: pa.Table
    records: int
    valid_lines: int
    blank: int = 0
    """Lines found blank when rejected records were opened again."""
    normalised: Normalised = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """An opened file of whatever format: converted blocks, and when the last has come, facts of so many records."""

    blocks: Generator[Converted, None, None]
    facts: Callable[[int], Facts]
    first_line: int
    seen: Callable[[int], Facts]
    """What can be said when only so many records were read."""
    extra: tuple[str, ...] = ()
    """Columns beyond the contract's that the blocks carry behind its own."""


Reader: TypeAlias = Callable[[RunContext, FileVersion, Engine], AbstractContextManager[Reading]]


def make_artifacts(
    ctx: RunContext, model: str, file: FileVersion, engine: Engine, read: Reader
) -> tuple[Artifact, Artifact]:
    """Convert one raw file, and publish its valid Parquet and its rejects."""
    prove_landed(ctx, file)
    valid, aside = publish_valid(ctx, model, file, file.id, engine, read)
    return valid, publish_rejects(ctx, model, file, file.id, aside, ctx.lake.store.path(valid.path))


def prove_landed(ctx: RunContext, file: FileVersion) -> None:
    """That the lake holds what the file was fetched into."""
    if file.raw is None or not ctx.lake.holds(file.raw, file.size):
        raise _lost(ctx, f"the lake has lost {file.raw}, which {shown(file.path)} was fetched into")
    if not ctx.is_ours(file) and ctx.lake.digest(file.raw) != file.sha256:
        told = f"{file.raw} in the lake is not what {shown(file.path)} was fetched into: its bytes are others"
        raise _lost(ctx, told)


def publish_valid(
    ctx: RunContext, model: str, file: FileVersion, name: str, engine: Engine, read: Reader
) -> tuple[Artifact, Path]:
    """Convert what is read of a file, and publish the valid Parquet under a name; the rejects are left aside."""
    place, aside = ctx.place(model), engine.folder / f"{name}.rejects"
    valid_name = ctx.lake.made_name("valid", place, ctx.batch, f"{name}.parquet")
    valid = ctx.lake.publish(place, valid_name, lambda into: _convert(ctx, file, engine, read, into, aside))
    steps.reached("validate.valid_published")
    return artifact_of(ctx, model, file.id, ArtifactKind.VALID, valid), aside


def publish_rejects(ctx: RunContext, model: str, file: FileVersion, name: str, aside: Path, valid: Path) -> Artifact:
    """What was left aside while the valid Parquet was made."""
    place = ctx.place(model)
    rejects_name = ctx.lake.made_name("rejects", place, ctx.batch, f"{name}.parquet")
    rejects = ctx.lake.publish(place, rejects_name, lambda into: _keep(aside, into, valid))
    steps.reached("validate.rejects_published")
    aside.unlink()
    return artifact_of(ctx, model, file.id, ArtifactKind.REJECTS, rejects)


def _lost(ctx: RunContext, told: str) -> LakeError:
    named = f"{ctx.pipeline.name} --run-id {shlex.quote(ctx.run_id)}"
    return LakeError(
        told,
        hint=f"to fetch it again: ingestkit extract {named} --force; then: ingestkit run {named} "
        "(docs/lakes.md: what the lake has lost)",
    )


def artifact_of(ctx: RunContext, model: str, file_id: str | None, kind: ArtifactKind, landed: Landed) -> Artifact:
    """The artifact of a Parquet file just published; its rows are read from it."""
    return Artifact(
        path=landed.name,
        pipeline=ctx.pipeline.name,
        batch=ctx.batch,
        model=model,
        file_id=file_id,
        kind=kind,
        sha256=landed.sha256,
        bytes=landed.bytes,
        rows=pyarrow.parquet.read_metadata(ctx.lake.store.path(landed.name)).num_rows,
        settings=ctx.pipeline.validate_settings(model, ctx.window),
        run_id=ctx.run_id,
        token=ctx.token,
    )


def parquet_into(
    into: HashingWriter | Path, schema: pa.Schema, repeating: Sequence[str] | bool = True
) -> pyarrow.parquet.ParquetWriter:
    """A writer of Parquet, with dictionaries for the columns that repeat themselves, and steps for those that count."""
    counting = [name for name in (RECORD_NUMBER, LINE) if name in schema.names]
    if repeating is True and counting:
        repeating = schema.names
    if not isinstance(repeating, bool):
        repeating = [name for name in repeating if name not in counting]
    return pyarrow.parquet.ParquetWriter(
        into,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeating,
        column_encoding=dict.fromkeys(counting, "DELTA_BINARY_PACKED") or None,
    )


def _repeating(sample: pa.Table) -> list[str]:
    """Columns whose values come again: a dictionary of values that do not is made in vain, and takes more room."""
    few = sample.slice(0, SAMPLE)
    most = few.num_rows // 4
    return [name for name in few.column_names if len(pyarrow.compute.unique(few.column(name))) <= most]


def _convert(
    ctx: RunContext, file: FileVersion, engine: Engine, read: Reader, into: HashingWriter, aside: Path
) -> None:
    with ExitStack() as stack:
        reading = stack.enter_context(read(ctx, file, engine))
        # Closed before their file is, since it is read in a thread.
        groups = _grouped(stack.enter_context(closing(reading.blocks)))
        first = list(itertools.islice(groups, 1))
        repeating = _repeating(first[0].typed) if first else True
        valid = stack.enter_context(parquet_into(into, engine.contract.schema_with(reading.extra), repeating))
        rejects = stack.enter_context(parquet_into(aside, REJECTS))
        records = valid_lines = blank = 0
        normalised: Normalised = {}
        most: int | None = ctx.facts.get("rows_at_most")
        for one in itertools.chain(first, groups):
            done = one if most is None else _first_of(one, most - records)
            typed = _moved(done.typed, RECORD_NUMBER, records + 1)
            valid.write_table(_lines_where_they_tell(typed, reading.first_line - 1))
            rejects.write_table(_placed(done.rejects, records, file))
            records += done.records
            valid_lines += done.valid_lines
            blank += done.blank
            normalised = summed((normalised, done.normalised))
            if done is not one:
                break
        rejects.close()
        facts = reading.facts(records) if most is None else reading.seen(records)
        facts = replace(facts, valid_lines=valid_lines, blank=facts.blank + blank, normalised=normalised)
        facts = replace(facts, cut=_cut(ctx, engine, aside, facts))
        valid.add_key_value_metadata({FACTS: facts.to_bytes()})


def _first_of(converted: Converted, most: int) -> Converted:
    """The first records of a group; the same where it has no more."""
    if converted.records <= most:
        return converted
    typed, rejects = (
        table.filter(pyarrow.compute.less(table.column(name), most))
        for table, name in ((converted.typed, RECORD_NUMBER), (converted.rejects, "record"))
    )
    return Converted(typed, rejects, most, typed.num_rows)


def _cut(ctx: RunContext, engine: Engine, aside: Path, facts: Facts) -> Cut | None:
    """What to keep of the rejects of a file that is quarantined whole, where not all of them are kept."""
    rows, lines = rejected_in(aside, facts)
    if rows <= DETAILS or percent(rows, facts.records) <= ctx.pipeline.settings.validation.max_file_reject_pct:
        return None
    found = engine.reasons(f"SELECT file_id, path, record, line, errors FROM {parquet(aside)}")
    return Cut(rows, lines, tuple(sorted(Reason(*one[2:]) for one in found)))


def rejected_in(path: Path, facts: Facts) -> tuple[int, int]:
    """How many records were rejected, and how many lines they have."""
    rows = lines = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["raw"]):
            rows += batch.num_rows
            lines += batch.num_rows + line_ends_within(batch.column(0), facts.newline, facts.encoding)
    return rows, lines


def _keep(aside: Path, into: HashingWriter, valid: Path) -> None:
    """The rejects as they are, or the first of them."""
    if Facts.read(valid).cut is None:
        with aside.open("rb") as file:
            while block := file.read(1 << 20):
                into.write(block)
        return
    left = DETAILS
    with pyarrow.parquet.ParquetFile(aside) as found, parquet_into(into, REJECTS) as writer:
        for batch in found.iter_batches(batch_size=DETAILS):
            writer.write_batch(batch.slice(0, left))
            left -= min(left, batch.num_rows)
            if not left:
                return


def _grouped(converted: Iterator[Converted]) -> Iterator[Converted]:
    """Several small blocks as one, so that row groups have a size at which others read them well."""
    held: list[Converted] = []
    rows = 0
    for one in converted:
        held.append(one)
        rows += one.records
        if rows >= ROW_GROUP:
            yield _joined(held)
            held, rows = [], 0
    if held:
        yield _joined(held)


def _joined(several: list[Converted]) -> Converted:
    before = 0
    typed, rejects = [], []
    for one in several:
        typed.append(_moved(one.typed, RECORD_NUMBER, before))
        rejects.append(_moved(one.rejects, "record", before))
        before += one.records
    return Converted(
        pa.concat_tables(typed),
        pa.concat_tables(rejects),
        before,
        sum(one.valid_lines for one in several),
        sum(one.blank for one in several),
        summed(one.normalised for one in several),
    )


def _moved(table: pa.Table, column: str, by: int) -> pa.Table:
    """The table with `by` more in one of its columns."""
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pyarrow.compute.add(table.column(at), by))


def _lines_where_they_tell(table: pa.Table, before: int) -> pa.Table:
    """The table with null for each line that follows from the record's number and the lines before the first record."""
    lines = table.column(LINE)
    follows = pyarrow.compute.equal(lines, pyarrow.compute.add(table.column(RECORD_NUMBER), before))
    told = pyarrow.compute.if_else(follows, pa.scalar(None, pa.int64()), lines)
    return table.set_column(table.schema.get_field_index(LINE), LINE, told)


def _placed(rejects: pa.Table, before: int, file: FileVersion) -> pa.Table:
    size = rejects.num_rows
    columns = {
        **{name: rejects.column(name) for name in rejects.column_names},
        "file_id": pa.repeat(file.id, size),
        "path": pa.repeat(file.path, size),
        "record": pyarrow.compute.add(rejects.column("record"), before + 1),
    }
    return pa.table({name: cast("Any", columns[name]) for name in REJECTS.names}, schema=REJECTS)
