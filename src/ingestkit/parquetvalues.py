"""Columns of Parquet as text: each value as its type is written exactly, so that one contract judges every format."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ingestkit.columnsql import literal
from ingestkit.csvframe import broken

BATCH = 65_536


@contextlib.contextmanager
def opened_parquet(path: str, file: BinaryIO) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A Parquet file whose pages are proven as they are read, if they can be. A broken one is a ContractError."""
    with _whole(path):
        found = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
    with found:
        yield found


def batches(path: str, found: pyarrow.parquet.ParquetFile) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Its records a few at a time, with how many there are before them."""
    before = 0
    with _whole(path):
        several = found.iter_batches(BATCH)
    while True:
        with _whole(path):
            batch = next(several, None)
        if batch is None:
            return
        yield before, batch
        before += batch.num_rows


def texts_of(db: duckdb.DuckDBPyConnection, path: str, batch: pa.RecordBatch) -> tuple[list[pa.Array], list[bool]]:
    """The columns of a batch as texts, and which of them hold objects or lists."""
    plain = pa.table({f"c{at}": _known(column) for at, column in enumerate(batch.columns)})
    with _registered(db, plain):
        kinds = [str(kind) for kind in db.sql("SELECT * FROM batch").types]
        for name, kind in zip(batch.schema.names, kinds, strict=True):
            if kind == "BLOB":
                raise broken(path, f"has bytes in column {name!r}, which are no text")
        each = [
            f"{_text(f'c{at}', kind, column)} AS c{at}"
            for at, (kind, column) in enumerate(zip(kinds, batch.columns, strict=True))
        ]
        found = db.sql(f"SELECT {', '.join(each)} FROM batch").to_arrow_table()
    return [column.combine_chunks() for column in found.columns], [_nested(kind) for kind in kinds]


def as_json(db: duckdb.DuckDBPyConnection, names: Sequence[str], texts: Sequence[pa.Array]) -> pa.Array:
    """Rows of texts as one JSON object each."""
    plain = pa.table({f"c{at}": one for at, one in enumerate(texts)})
    pairs = ", ".join(f"{literal(name)}, c{at}" for at, name in enumerate(names))
    with _registered(db, plain):
        found = db.sql(f"SELECT CAST(json_object({pairs}) AS VARCHAR) AS raw FROM batch").to_arrow_table()
    return found.column("raw").combine_chunks().cast(pa.binary())


def _known(column: pa.Array) -> pa.Array:
    """A column of a type that the engine takes as it is, without a digit less."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz is not None:
        return column.cast(pa.timestamp("ns"))
    if pa.types.is_decimal256(kind):
        return column.cast(pa.string())
    if pa.types.is_float16(kind):
        return column.cast(pa.float64())
    return column


def _text(name: str, kind: str, column: pa.Array) -> str:
    if _nested(kind):
        return f"CAST(to_json({name}) AS VARCHAR)"
    if kind == "FLOAT":
        # The shortest text of a float of 32 bits is another number in 64.
        return f"CAST(CAST({name} AS DOUBLE) AS VARCHAR)"
    if kind == "TIMESTAMP_NS" and column.type.tz is not None:
        return f"CAST({name} AS VARCHAR) || 'Z'"
    return f"CAST({name} AS VARCHAR)"


def _nested(kind: str) -> bool:
    return kind.startswith(("STRUCT", "MAP", "UNION")) or kind.endswith("]")


@contextlib.contextmanager
def _registered(db: duckdb.DuckDBPyConnection, table: pa.Table) -> Iterator[None]:
    db.register("batch", table)
    try:
        yield
    finally:
        db.unregister("batch")


@contextlib.contextmanager
def _whole(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise broken(path, f"is no whole Parquet file: {str(error).splitlines()[0].rstrip('.')}") from error
