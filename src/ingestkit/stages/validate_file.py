"""One raw file made into its valid Parquet and its rejects; figures over several files are the stage's."""

import itertools
import json
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ingestkit import steps
from ingestkit.contract import ERRORS, RECORD_NUMBER, compare_header
from ingestkit.csvfile import Block, Flaw, TextFile, blocks, broken, open_text, raw_records, texts, unpacked
from ingestkit.csvrecords import Positions
from ingestkit.errors import LakeError
from ingestkit.files import shown
from ingestkit.lake import HashingWriter, Landed, made_name
from ingestkit.model import Artifact, ArtifactKind, Drift, FileVersion
from ingestkit.pipeline import RunContext
from ingestkit.stages.validate_engine import Engine

FACTS = b"ingestkit"
ROW_GROUP = 122_880
SAMPLE = 10_000
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What a valid artifact says of the file it came from; kept in it, so that it can be reused."""

    lines: int
    header: int
    blank: int
    valid_lines: int
    records: int
    newline: int
    drift: tuple[Drift, ...] = ()

    def to_bytes(self) -> bytes:
        return json.dumps({**asdict(self), "drift": [one.to_json() for one in self.drift]}).encode()

    @classmethod
    def read(cls, path: Path) -> "Facts":
        found = json.loads(pyarrow.parquet.read_metadata(path).metadata[FACTS])
        return cls(**{**found, "drift": tuple(Drift.from_json(one) for one in found["drift"])})


@dataclass(frozen=True, slots=True)
class Converted:
    """A block as it is written: typed rows and rejects, numbered within the block."""

    typed: pa.Table
    rejects: pa.Table
    records: int
    valid_lines: int


def make_artifacts(ctx: RunContext, model: str, file: FileVersion, engine: Engine) -> tuple[Artifact, Artifact]:
    """Convert one raw file, and publish its valid Parquet and its rejects."""
    if file.raw is None or not ctx.lake.holds(file.raw, file.size):
        raise LakeError(
            f"the lake has lost {file.raw}, which {shown(file.path)} was fetched into",
            hint=f"ingestkit extract {ctx.pipeline.name} --run-id {shlex.quote(ctx.run_id)} --force fetches it again",
        )
    place, name = ctx.place(model), f"{file.id}.parquet"
    valid_name = made_name("valid", place, ctx.batch, name)
    rejects_name = made_name("rejects", place, ctx.batch, name)
    aside = engine.folder / f"{file.id}.rejects"
    try:
        valid = ctx.lake.publish(place, valid_name, lambda into: _convert(ctx, file, engine, into, aside))
        steps.reached("validate.valid_published")
        rejects = ctx.lake.publish(place, rejects_name, lambda into: _copy(aside, into))
        steps.reached("validate.rejects_published")
    finally:
        aside.unlink(missing_ok=True)
    return (
        artifact_of(ctx, model, file.id, ArtifactKind.VALID, valid),
        artifact_of(ctx, model, file.id, ArtifactKind.REJECTS, rejects),
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
        settings=ctx.pipeline.validate_settings(model),
        run_id=ctx.run_id,
        token=ctx.token,
    )


def parquet_into(
    into: HashingWriter | Path, schema: pa.Schema, repeating: Sequence[str] | bool = True
) -> pyarrow.parquet.ParquetWriter:
    """A writer of Parquet, with dictionaries for the columns that repeat themselves."""
    return pyarrow.parquet.ParquetWriter(
        into, schema, compression="zstd", compression_level=1, use_dictionary=repeating
    )


def _repeating(sample: pa.Table) -> list[str]:
    """Columns whose values come again: a dictionary of values that do not is made in vain, and takes more room."""
    few = sample.slice(0, SAMPLE)
    most = few.num_rows // 4
    return [name for name in few.column_names if len(pyarrow.compute.unique(few.column(name))) <= most]


def _copy(aside: Path, into: HashingWriter) -> None:
    with aside.open("rb") as file:
        while block := file.read(1 << 20):
            into.write(block)


def _convert(ctx: RunContext, file: FileVersion, engine: Engine, into: HashingWriter, aside: Path) -> None:
    if file.raw is None:
        raise broken(file.path, "is not in the lake")
    settings = ctx.pipeline.model(engine.contract.model)
    limit = ctx.pipeline.settings.validation.max_record_lines
    with ctx.lake.open(file.raw) as raw, unpacked(file.path, raw) as stream:
        text = open_text(file.path, stream, settings.csv, max_record_lines=limit)
        if not text.names and not settings.allow_empty:
            raise broken(file.path, "is empty: it has not even a header")
        drift = compare_header(engine.contract, file.path, file.id, text.names) if text.names else ()
        groups = _grouped(_converted(ctx, text, engine, raw))
        first = list(itertools.islice(groups, 1))
        repeating = _repeating(first[0].typed) if first else True
        with (
            parquet_into(into, engine.contract.schema, repeating) as valid,
            parquet_into(aside, REJECTS) as rejects,
        ):
            records = valid_lines = 0
            for done in itertools.chain(first, groups):
                valid.write_table(_moved(done.typed, RECORD_NUMBER, records + 1))
                rejects.write_table(_placed(done.rejects, records, file))
                records += done.records
                valid_lines += done.valid_lines
            census = text.census
            facts = Facts(
                census.lines, text.header_lines, census.blank, valid_lines, census.records, text.newline, drift
            )
            valid.add_key_value_metadata({FACTS: facts.to_bytes()})


def _grouped(converted: Iterator[Converted]) -> Iterator[Converted]:
    """Several small blocks as one, so that row groups have a size at which others read them well."""
    held: list[Converted] = []
    rows = 0
    for one in converted:
        held.append(one)
        rows += one.typed.num_rows
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
    lines = sum(one.valid_lines for one in several)
    return Converted(pa.concat_tables(typed), pa.concat_tables(rejects), before, lines)


def _moved(table: pa.Table, column: str, by: int) -> pa.Table:
    """The table with `by` more in one of its columns."""
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pyarrow.compute.add(table.column(at), by))


def _converted(ctx: RunContext, text: TextFile, engine: Engine, raw: BinaryIO) -> Iterator[Converted]:
    """Blocks converted side by side, in the order of the file, a few at a time."""
    model = engine.contract.model
    waiting: deque[Future[Converted]] = deque()
    moved = 0
    with ThreadPoolExecutor(engine.threads, thread_name_prefix="validate") as pool:
        try:
            for block in blocks(text):
                ctx.stop.check()
                waiting.append(pool.submit(_convert_block, text, block, engine))
                at = raw.tell()
                ctx.progress.moved("validate", model, at - moved)
                moved = at
                if len(waiting) > engine.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
        ctx.progress.moved("validate", model, raw.tell() - moved)


def _convert_block(text: TextFile, block: Block, engine: Engine) -> Converted:
    table, kept, flaws = texts(text, block)
    for column in engine.contract.columns:
        if column.name not in text.names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, pa.string()))
    typed, valid = engine.typed(table)
    lines = int(block.records.spans[kept].sum())
    good, rejects = kept, [_flawed(block, flaws)]
    if valid is not None:
        mask = valid.combine_chunks().to_numpy(zero_copy_only=False)
        bad = kept[~mask]
        good = kept[mask]
        typed = typed.filter(valid)
        lines -= int(block.records.spans[bad].sum())
        rejects.append(_rejected(block, bad, engine.errors(table.filter(pyarrow.compute.invert(valid)))))
    typed = typed.append_column(RECORD_NUMBER, pa.array(good))
    together = pa.concat_tables(rejects)
    return Converted(typed, together.sort_by("record") if flaws else together, len(block.records), lines)


def _flawed(block: Block, flaws: list[Flaw]) -> pa.Table:
    errors = [[{"column": "*", "code": flaw.code, "message": flaw.message, "value": None}] for flaw in flaws]
    return _rejected(block, np.array([flaw.index for flaw in flaws], np.int64), pa.array(errors, ERRORS))


def _rejected(block: Block, indexes: Positions, errors: pa.Array | pa.ChunkedArray) -> pa.Table:
    found = list(raw_records(block, indexes))
    raw = [record for _, _, record in found]
    return pa.table(
        {
            "record": pa.array(indexes, pa.int64()),
            "line": pa.array([line for line, _, _ in found], pa.int64()),
            "byte_start": pa.array([byte for _, byte, _ in found], pa.int64()),
            "byte_length": pa.array([len(record) for record in raw], pa.int64()),
            "raw": pa.array(raw, pa.binary()),
            "errors": errors,
        }
    )


def _placed(rejects: pa.Table, before: int, file: FileVersion) -> pa.Table:
    size = rejects.num_rows
    columns = {
        **{name: rejects.column(name) for name in rejects.column_names},
        "file_id": pa.repeat(file.id, size),
        "path": pa.repeat(file.path, size),
        "record": pyarrow.compute.add(rejects.column("record"), before + 1),
    }
    return pa.table({name: cast("Any", columns[name]) for name in REJECTS.names}, schema=REJECTS)
