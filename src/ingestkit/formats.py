"""What a file is written as, told by its model or by its name, and the names of the columns it brings."""

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

import duckdb

from ingestkit import jsonlines
from ingestkit.csvfile import Readable, TextFile, blocks, open_text, unpacked
from ingestkit.errors import ContractError
from ingestkit.parquetvalues import opened_parquet
from ingestkit.settings import Dialect, Format, Model

LINES = Dialect(header=False, quote="none", mixed_newlines="reject")
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def format_of(settings: Model, path: str) -> Format:
    """As the model says, or as the name does, behind whatever it is packed with."""
    return settings.format or format_by_name(path)


def format_by_name(path: str) -> Format:
    name = PurePosixPath(path.lower())
    return SUFFIXES.get(PurePosixPath(name.stem).suffix if name.suffix == ".gz" else name.suffix, "csv")


def open_lines(path: str, stream: Readable) -> TextFile:
    """A file of JSON lines as a text file of records of one line each, which has no header."""
    return open_text(path, stream, LINES, (), max_record_lines=1)


def in_order(keys: Sequence[str], expected: Sequence[str], folded: Callable[[str], str]) -> list[str]:
    """Keys as the contract has them in order, and behind them those in none; of each its first spelling."""
    places = {folded(name): place for place, name in enumerate(expected)}
    spelled = {folded(key): key for key in reversed(keys)}
    once = [key for key in keys if spelled[folded(key)] == key]
    return sorted(once, key=lambda key: places.get(folded(key), sys.maxsize))


def names_in(settings: Model, path: str, file: BinaryIO, *, max_record_lines: int) -> tuple[str, ...]:
    """The names of a file's columns: of its header, of its schema, or of the keys in its first lines."""
    if format_of(settings, path) == "parquet":
        with opened_parquet(path, file) as found:
            return tuple(found.schema_arrow.names)
    with unpacked(path, file) as stream:
        text = opened(settings, path, stream, max_record_lines)
        if format_of(settings, path) == "csv":
            return text.names
        with duckdb.connect(":memory:") as db:
            for block in itertools.islice(blocks(text), 1):
                return jsonlines.objects(db, block.data, *block.records.readable()[1:])[1].keys
    return ()


def records_in(settings: Model, path: str, file: BinaryIO, *, max_record_lines: int) -> int | None:
    """How many records a file that cannot be taken seems to have, or has before it breaks off; None where none do."""
    found = 0
    try:
        if format_of(settings, path) == "parquet":
            with opened_parquet(path, file) as whole:
                return int(whole.metadata.num_rows)
        with unpacked(path, file) as stream:
            # Whether its header fits is no matter here.
            unnamed = settings.model_copy(update={"columns": {}})
            for block in blocks(opened(unnamed, path, stream, max_record_lines)):
                found += len(block.records)
    except ContractError:
        return found or None
    return found


def opened(settings: Model, path: str, stream: Readable, max_record_lines: int) -> TextFile:
    """A file of lines, as its model says it is written."""
    if format_of(settings, path) == "jsonl":
        return open_lines(path, stream)
    return open_text(path, stream, settings.csv, tuple(settings.columns), max_record_lines=max_record_lines)
