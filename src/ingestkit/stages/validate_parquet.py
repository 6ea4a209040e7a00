"""Parquet read for validate: records are proven instead of lines, under the same contract as texts."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from ingestkit.contract import RECORD_NUMBER
from ingestkit.csvframe import broken
from ingestkit.csvmarks import LINE_FEED
from ingestkit.header import Compared, compare_header
from ingestkit.model import FileVersion
from ingestkit.parquetvalues import as_json, batches, opened_parquet, texts_of
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_blocks import converted, judge, misfits_of
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import Converted, Facts, Reading


@contextmanager
def read_parquet(ctx: RunContext, file: FileVersion, engine: Engine) -> Iterator[Reading]:
    """Open a raw Parquet file under its model's contract; its schema is its header."""
    if file.raw is None:
        raise broken(file.path, "is not in the lake")
    settings = ctx.pipeline.model(engine.contract.model)
    with ctx.lake.open(file.raw) as raw, opened_parquet(file.path, raw) as found:
        header = compare_header(engine.contract, settings, file.path, file.id, found.schema_arrow.names)
        rows = found.metadata.num_rows
        yield Reading(
            blocks=converted(
                ctx,
                engine,
                ((piece, file.size * piece[0] // max(rows, 1)) for piece in batches(file.path, found)),
                lambda piece: _convert(engine, file, header, *piece),
            ),
            facts=lambda records: _facts(rows, records, header, partial=False),
            seen=lambda records: _facts(0, records, header, partial=True),
            first_line=1,
            extra=header.extra,
        )


def _facts(rows: int, records: int, header: Compared, *, partial: bool) -> Facts:
    """What is known of the file: it must hold as many records as it says; each counts as a line."""
    return Facts(
        lines=rows,
        preamble=0,
        header=0,
        blank=0,
        trailer=0,
        records=records,
        newline=LINE_FEED,
        encoding="utf-8",
        newlines={},
        drift=header.drift,
        extra=header.extra,
        partial=partial,
    )


def _convert(engine: Engine, file: FileVersion, header: Compared, before: int, batch: pa.RecordBatch) -> Converted:
    """Type some records; those that break the contract are kept as objects of JSON."""
    wanted = {*(column.name for column in engine.contract.columns), *header.extra}
    with engine.connection() as db:
        texts, nested = texts_of(db, file.path, batch)
    named = {name: at for at, name in enumerate(header.names) if name in wanted}
    table = pa.table({name: texts[at] for name, at in named.items()})
    lists = {name: texts[at].is_valid().to_numpy(zero_copy_only=False) for name, at in named.items() if nested[at]}
    judged = judge(engine, table, header.extra, misfits_of(engine.contract, table, lists))
    records = np.arange(batch.num_rows)
    good, bad = records, records[:0]
    if judged.valid is not None:
        mask = judged.valid.to_numpy()
        good, bad = records[mask], records[~mask]
    typed = judged.typed.append_column(RECORD_NUMBER, pa.array(good))
    typed = typed.append_column(LINE, pa.array(good + before + 1))
    with engine.connection() as db:
        raw = as_json(db, batch.schema.names, [one.take(pa.array(bad)) for one in texts])
    rejects = pa.table(
        {
            "record": pa.array(bad),
            "line": pa.array(bad + before + 1),
            "byte_start": pa.array(np.zeros(len(bad), np.int64)),
            "byte_length": pa.array(np.zeros(len(bad), np.int64)),
            "raw": raw,
            "errors": judged.errors,
        }
    )
    return Converted(typed, rejects, batch.num_rows, len(good), normalised=judged.normalised)
