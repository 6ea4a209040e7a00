"""A text file read for validate: its records typed block by block, and those that break the contract set apart."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestkit.contract import ERRORS, RECORD_NUMBER
from ingestkit.csvfile import Block, TextFile, blocks, open_text, reopened, unpacked
from ingestkit.csvframe import broken
from ingestkit.csvmarks import Positions
from ingestkit.csvvalues import Flaw, raw_records, texts
from ingestkit.errors import ContractError
from ingestkit.header import Compared, compare_header
from ingestkit.model import FileVersion
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import Converted, Facts, Normalised, Reading, counted, summed


@contextmanager
def read_text(ctx: RunContext, file: FileVersion, engine: Engine) -> Iterator[Reading]:
    """Open a raw text file under its model's contract; what its header lacks is known before a record is read."""
    if file.raw is None:
        raise broken(file.path, "is not in the lake")
    settings = ctx.pipeline.model(engine.contract.model)
    limit = ctx.pipeline.settings.validation.max_record_lines
    columns = [column.name for column in engine.contract.columns]
    with ctx.lake.open(file.raw) as raw, unpacked(file.path, raw) as stream:
        text = open_text(file.path, stream, settings.csv, columns, max_record_lines=limit)
        if not text.names and not settings.allow_empty:
            raise broken(file.path, "is empty: it has not even a header")
        header = Compared((), (), ())
        if text.names:
            header = compare_header(engine.contract, settings, file.path, file.id, text.names)
            text.names = header.names
        yield Reading(
            blocks=_converted(ctx, text, engine, raw, header.extra),
            facts=lambda records: _facts(text, records, header),
            seen=lambda records: _seen(text, records, header),
            first_line=text.preamble_lines + text.header_lines + 1,
            extra=header.extra,
        )


def count_records(ctx: RunContext, file: FileVersion, model: str) -> int | None:
    """How many records a file that cannot be taken seems to have; None where it cannot be split either."""
    settings = ctx.pipeline.model(model)
    limit = ctx.pipeline.settings.validation.max_record_lines
    if file.raw is None:
        return None
    try:
        with ctx.lake.open(file.raw) as raw, unpacked(file.path, raw) as stream:
            text = open_text(file.path, stream, settings.csv, tuple(settings.columns), max_record_lines=limit)
            return sum(len(block.records) for block in blocks(text))
    except ContractError:
        return None


def _seen(text: TextFile, records: int, header: Compared) -> Facts:
    return Facts(
        lines=0,
        preamble=text.preamble_lines,
        header=text.header_lines,
        blank=0,
        trailer=0,
        records=records,
        newline=text.newline,
        encoding=text.encoding,
        newlines={},
        drift=header.drift,
        extra=header.extra,
        partial=True,
    )


def _facts(text: TextFile, records: int, header: Compared) -> Facts:
    """What is known of the file when its last block has been read, `records` of them in all."""
    census = text.census
    said = census.trailer.count
    # What was opened again may have been one record to whoever counted, or as many as lines.
    if said is not None and said not in (census.records, records):
        raise broken(
            text.path, f"says in its trailer that it has {said:,} records, where {census.records:,} were found"
        )
    return Facts(
        lines=census.lines(text.newline),
        preamble=text.preamble_lines,
        header=text.header_lines,
        blank=census.blank + census.trailer.blank,
        trailer=census.trailer.lines,
        records=records,
        newline=text.newline,
        encoding=text.encoding,
        newlines=census.newlines(),
        drift=header.drift,
        extra=header.extra,
    )


def _converted(
    ctx: RunContext, text: TextFile, engine: Engine, raw: BinaryIO, extra: tuple[str, ...]
) -> Iterator[Converted]:
    """Blocks converted side by side, in the order of the file, a few at a time."""
    model = engine.contract.model
    waiting: deque[Future[Converted]] = deque()
    moved = 0
    with ThreadPoolExecutor(engine.threads, thread_name_prefix="validate") as pool:
        try:
            for block in blocks(text):
                ctx.stop.check()
                waiting.append(pool.submit(_convert, text, block, engine, extra))
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


@dataclass(frozen=True, slots=True)
class Sorted:
    """The records of a block told apart: typed rows and rejects, numbered within the block."""

    block: Block
    typed: pa.Table
    rejects: pa.Table
    valid_lines: int
    several: Positions
    """Which of the rejected records have more lines than one."""
    normalised: Normalised


def _convert(text: TextFile, block: Block, engine: Engine, extra: tuple[str, ...]) -> Converted:
    """Type a block. A rejected record of several lines is its first; the others are split and typed by themselves."""
    found = [_sorted(text, block, engine, extra)]
    blank = 0
    while len(found[-1].several):
        block = reopened(text, found[-1].block, found[-1].several)
        blank += block.records.blank
        found.append(_sorted(text, block, engine, extra))
    lines = sum(one.valid_lines for one in found)
    records = sum(len(one.block.records) for one in found)
    normalised = summed(one.normalised for one in found)
    if len(found) == 1:
        return Converted(found[0].typed, found[0].rejects, records, lines, normalised=normalised)
    numbers = _numbers(found)
    typed = pa.concat_tables(_renumbered(one.typed, RECORD_NUMBER, at) for one, at in zip(found, numbers, strict=True))
    rejects = pa.concat_tables(_renumbered(one.rejects, "record", at) for one, at in zip(found, numbers, strict=True))
    return Converted(typed.sort_by(RECORD_NUMBER), rejects.sort_by("record"), records, lines, blank, normalised)


def _numbers(found: list[Sorted]) -> list[Positions]:
    """For each split of a block, the place of its records among those of all."""
    starts = np.concatenate([one.block.records.starts for one in found])
    places = np.empty(len(starts), np.int64)
    places[np.argsort(starts)] = np.arange(len(starts))
    return np.split(places, np.cumsum([len(one.block.records) for one in found])[:-1])


def _renumbered(table: pa.Table, column: str, numbers: Positions) -> pa.Table:
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pa.array(numbers[table.column(at).to_numpy()]))


def _sorted(text: TextFile, block: Block, engine: Engine, extra: tuple[str, ...]) -> Sorted:
    table, kept, flaws = texts(text, block)
    for column in engine.contract.columns:
        if column.name not in text.names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, pa.string()))
    table, changed = engine.normalised(table)
    typed, valid = engine.typed(table)
    for name in extra:
        typed = typed.append_column(name, table.column(name))
    flawed = np.array([flaw.index for flaw in flaws], np.int64)
    good, bad, rejects = kept, flawed, [_flawed(text, block, flawed, flaws)]
    if valid is not None:
        mask = valid.combine_chunks().to_numpy(zero_copy_only=False)
        good, typed = kept[mask], typed.filter(valid)
        broke = kept[~mask]
        rejects.append(_rejected(text, block, broke, engine.errors(table.filter(pyarrow.compute.invert(valid)))))
        bad = np.sort(np.concatenate((flawed, broke)))
    records = block.records
    typed = typed.append_column(RECORD_NUMBER, pa.array(good))
    typed = typed.append_column(LINE, pa.array(block.line + records.lines[good]))
    together = pa.concat_tables(rejects)
    return Sorted(
        block,
        typed,
        together.sort_by("record") if flaws else together,
        int(records.spans[good].sum()),
        bad[records.spans[bad] > 1],
        counted(changed, valid),
    )


def _flawed(text: TextFile, block: Block, indexes: Positions, flaws: list[Flaw]) -> pa.Table:
    errors = [[{"column": "*", "code": flaw.code, "message": flaw.message, "value": None}] for flaw in flaws]
    return _rejected(text, block, indexes, pa.array(errors, ERRORS))


def _rejected(text: TextFile, block: Block, indexes: Positions, errors: pa.Array | pa.ChunkedArray) -> pa.Table:
    lines, places, raw = raw_records(text, block, indexes)
    return pa.table(
        {
            "record": pa.array(indexes, pa.int64()),
            "line": pa.array(lines, pa.int64()),
            "byte_start": pa.array(places, pa.int64()),
            "byte_length": pyarrow.compute.binary_length(raw).cast(pa.int64()),
            "raw": raw,
            "errors": errors,
        }
    )
