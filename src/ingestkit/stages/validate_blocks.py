"""Blocks of a file typed side by side: valid rows, and those that break the contract set apart with their place."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Event
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestkit.contract import ERRORS, RECORD_NUMBER, Contract
from ingestkit.csvfile import Block, TextFile, reopened
from ingestkit.csvmarks import Flags, Positions
from ingestkit.csvvalues import Flaw, nul_rows, raw_records
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import Converted, Normalised, counted, summed

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The readable records of a block as columns of text, their indexes in it, and what cannot be read."""

    table: pa.Table
    kept: Positions
    flaws: list[Flaw]
    misfits: tuple["Misfit", ...] = ()


@dataclass(frozen=True, slots=True)
class Misfit:
    """A column, and which of the records hold what it cannot whatever its contract says."""

    column: str
    records: Flags
    code: str
    message: str


Parse: TypeAlias = Callable[[Block], Parsed]


def converted(
    ctx: RunContext, engine: Engine, pieces: Iterable[tuple[Piece, int]], convert: Callable[[Piece], Converted]
) -> Generator[Converted, None, None]:
    """Pieces converted side by side, in the order of the file; each comes with where its file is.

    They are read in a thread of their own, a few at a time, since whoever takes them has enough to do with writing.
    """
    ready: Queue[Future[Converted] | None] = Queue(engine.threads)
    left = Event()

    def feed() -> None:
        moved = 0
        try:
            for piece, at in pieces:
                ctx.stop.check()
                ready.put(pool.submit(convert, piece))
                if left.is_set():
                    return
                ctx.progress.moved("validate", engine.contract.model, at - moved)
                moved = at
        finally:
            ready.put(None)

    with ThreadPoolExecutor(engine.threads + 1, thread_name_prefix="validate") as pool:
        feeding = pool.submit(feed)
        try:
            while (one := ready.get()) is not None:
                yield one.result()
            feeding.result()
        finally:
            left.set()
            # Whoever is done early takes what is still put, so that putting comes to its end.
            while not feeding.done():
                with suppress(Empty):
                    unwanted = ready.get(timeout=0.05)
                    if unwanted is not None:
                        unwanted.cancel()


def by_block(raw: BinaryIO, several: Iterable[Block]) -> Iterator[tuple[Block, int]]:
    """Blocks of a file, with how much of it was read for them."""
    for block in several:
        yield block, raw.tell()


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of texts under the contract: those that are valid, typed, and the errors of the others."""

    typed: pa.Table
    valid: pa.ChunkedArray | None
    """Which rows are valid; None for all of them."""
    errors: pa.Array | pa.ChunkedArray
    normalised: Normalised


def misfits_of(contract: Contract, table: pa.Table, nested: Mapping[str, Flags]) -> tuple[Misfit, ...]:
    """Objects and lists in columns of strings, and NULs; of other types neither can be."""
    strings = {column.name for column in contract.columns if column.type == "string"}
    found = [
        Misfit(name, flags, "type", "an object or a list, and no single value")
        for name, flags in nested.items()
        if name in strings and flags.any()
    ]
    nuls = ((name, nul_rows(table.column(name))) for name in table.column_names)
    return (*found, *(Misfit(name, rows, "nul", "holds a NUL") for name, rows in nuls if rows is not None))


def judge(engine: Engine, table: pa.Table, extra: tuple[str, ...], misfits: Sequence[Misfit]) -> Judged:
    """Normalise and type texts; a column of the contract that is not among them is missing in each row."""
    for column in engine.contract.columns:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, pa.string()))
    table, changed = engine.normalised(table)
    typed, valid = engine.typed(table)
    for name in extra:
        typed = typed.append_column(name, table.column(name))
    if misfits:
        fits = pa.chunked_array([pa.array(~np.logical_or.reduce([one.records for one in misfits]))])
        valid = fits if valid is None else pyarrow.compute.and_(valid, fits)
    if valid is None:
        return Judged(typed, None, pa.array([], ERRORS), counted(changed, None))
    broke = pyarrow.compute.invert(valid)
    bad = table.filter(broke)
    errors = engine.errors(bad)
    if misfits:
        errors = _also(errors, bad, misfits, broke.to_numpy())
    return Judged(typed.filter(valid), valid, errors, counted(changed, valid))


def _also(errors: pa.ChunkedArray, bad: pa.Table, misfits: Sequence[Misfit], broke: Flags) -> pa.ChunkedArray:
    """The errors, and in the place of others of its column that of each misfit."""
    told: list[list[dict[str, Any]]] = errors.to_pylist()
    for one in misfits:
        for row in np.flatnonzero(one.records[broke]):
            value = bad.column(one.column)[row].as_py()
            error = {"column": one.column, "code": one.code, "message": one.message, "value": value}
            told[row] = [*(other for other in told[row] if other["column"] != one.column), error]
    return pa.chunked_array([pa.array(told, ERRORS)])


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


def convert_block(text: TextFile, block: Block, engine: Engine, extra: tuple[str, ...], parse: Parse) -> Converted:
    """Type a block. A rejected record of several lines is its first; the others are split and typed by themselves."""
    found = [_sorted(text, block, engine, extra, parse)]
    blank = 0
    while len(found[-1].several):
        block = reopened(text, found[-1].block, found[-1].several)
        blank += block.records.blank
        found.append(_sorted(text, block, engine, extra, parse))
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


def _sorted(text: TextFile, block: Block, engine: Engine, extra: tuple[str, ...], parse: Parse) -> Sorted:
    parsed = parse(block)
    kept, flaws = parsed.kept, parsed.flaws
    judged = judge(engine, parsed.table, extra, parsed.misfits)
    typed, valid = judged.typed, judged.valid
    flawed = np.array([flaw.index for flaw in flaws], np.int64)
    good, bad, rejects = kept, flawed, [_flawed(text, block, flawed, flaws)]
    if valid is not None:
        mask = valid.combine_chunks().to_numpy(zero_copy_only=False)
        good = kept[mask]
        broke = kept[~mask]
        rejects.append(_rejected(text, block, broke, judged.errors))
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
        judged.normalised,
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
