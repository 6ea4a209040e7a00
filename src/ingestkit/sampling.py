"""A sample of any format, looked at without a contract: how it is written, and all of its records as text."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from ingestkit import jsonlines
from ingestkit.csvfile import TextFile, blocks, open_text, unpacked
from ingestkit.csvvalues import nul_rows, texts
from ingestkit.errors import ContractError, UsageError
from ingestkit.formats import format_by_name, open_lines
from ingestkit.parquetvalues import batches, opened_parquet, texts_of
from ingestkit.settings import Dialect, Validation

HEAD = 1 << 20
DELIMITERS = (",", ";", "\t", "|")
ENCODINGS = (("utf-8", "utf-8"), ("cp1252", "cp1252"), ("latin-1", "latin-1"))
VARIANTS: tuple[dict[str, Any], ...] = ({}, {"escape": "backslash"}, {"quote": "none"})
MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, slots=True)
class Sample:
    """Every record of a sample as text, and what its format tells of the columns by itself."""

    table: pa.Table
    types: Mapping[str, str]


def sampled(path: Path) -> tuple[dict[str, Any], Sample]:
    """A sample's dialect, where it is a text and not written as usual, and its records."""
    kind = format_by_name(path.name)
    dialect: dict[str, Any] = {}
    if kind == "csv":
        content = _head(path)
        if not content.strip():
            raise UsageError(f"{path} is empty: there is nothing to propose from")
        dialect = _dialect(content)
    with path.open("rb") as file:
        match kind:
            case "csv":
                dialect, sample = _first_that_reads(path, file, dialect)
            case "jsonl":
                sample = _objects(path, file)
            case "parquet":
                sample = _typed(path, file)
    _check(path, sample.table)
    return dialect, sample


def _first_that_reads(path: Path, file: BinaryIO, dialect: dict[str, Any]) -> tuple[dict[str, Any], Sample]:
    """A text in the first dialect in which every record of it can be read."""
    refused: ContractError | None = None
    for variant in VARIANTS:
        file.seek(0)
        try:
            return {**dialect, **variant}, Sample(_texts(path, file, Dialect.model_validate(dialect | variant)), {})
        except ContractError as error:
            refused = refused or error
    raise refused or AssertionError("there is a dialect to try")


def _check(path: Path, table: pa.Table) -> None:
    """Whether there is anything to propose from, and no column of it that nobody could name or publish."""
    names = table.column_names
    doubled = [
        name for name, count in Counter(one.casefold() for one in names).items() if count > 1 or not name.strip()
    ]
    if doubled:
        raise ContractError(f"a column called {doubled[0]!r} stands there twice, or has no name")
    if not table.num_rows:
        raise UsageError(f"{path} has no record: there is nothing to propose from")
    for name in names:
        if (rows := nul_rows(table.column(name))) is not None:
            raise ContractError(f"record {rows.argmax() + 1} holds a NUL in {name!r}")


def _head(path: Path) -> bytes:
    with path.open("rb") as file, unpacked(path.name, file) as stream:
        return stream.read(HEAD)


def _dialect(content: bytes) -> dict[str, Any]:
    """Encoding, delimiter and whether there is a header, where they are not the usual ones."""
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), None)
    if encoding is None:
        # The head may end within a character.
        cut = content[: content.rfind(b"\n") + 1] or content
        encoding = next(name for name, codec in ENCODINGS if _decodes(cut, codec))
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace")
    lines = text.splitlines()[:200]
    delimiter = max(DELIMITERS, key=lambda one: _agreement(lines, one))
    rows = list(csv.reader(lines, delimiter=delimiter))
    found: dict[str, Any] = {"delimiter": "tab" if delimiter == "\t" else delimiter, "encoding": encoding}
    if not _is_header(rows[0]):
        found["header"] = False
    usual = {"delimiter": ",", "encoding": "utf-8"}
    return {key: value for key, value in found.items() if usual.get(key) != value}


def _decodes(content: bytes, codec: str) -> bool:
    try:
        content.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _agreement(lines: Sequence[str], delimiter: str) -> tuple[int, int]:
    """How many lines have as many columns as the first, where that is more than one."""
    widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    if not widths or widths[0] < 2:
        return 0, 0
    return sum(width == widths[0] for width in widths), widths[0]


def _is_header(row: Sequence[str]) -> bool:
    """Names are no numbers and no dates."""
    return not any(re.fullmatch(r"[\d.,:/+-]+", name.strip()) for name in row)


def _texts(path: Path, file: BinaryIO, dialect: Dialect) -> pa.Table:
    with unpacked(path.name, file) as stream:
        names = [] if dialect.header else _numbered(path, dialect)
        text = open_text(path.name, stream, dialect, names, max_record_lines=Validation().max_record_lines)
        empty = pa.table({name: pa.array([], pa.string()) for name in text.names})
        return pa.concat_tables([empty, *_tables(text)])


def _numbered(path: Path, dialect: Dialect) -> list[str]:
    """Names for the columns of a file without a header."""
    first = _head(path).decode(dialect.encoding, "replace").splitlines()[0]
    [row] = csv.reader([first], delimiter=dialect.delimiter)
    return [f"column_{number}" for number in range(1, len(row) + 1)]


def _tables(text: TextFile) -> Iterator[pa.Table]:
    for block in blocks(text):
        table, _, flaws = texts(text, block)
        if flaws:
            line = block.line + int(block.records.lines[flaws[0].index])
            raise ContractError(f"line {line}: {flaws[0].message}")
        yield table


def _objects(path: Path, file: BinaryIO) -> Sample:
    """Lines of JSON: what holds an object or a list anywhere is JSON altogether."""
    tables: list[pa.Table] = []
    types: dict[str, str] = {}
    with unpacked(path.name, file) as stream, duckdb.connect(":memory:") as db:
        for block in blocks(open_lines(path.name, stream)):
            indexes, starts, ends = block.records.readable()
            whole, found = jsonlines.objects(db, block.data, starts, ends)
            if len(indexes) < len(block.records) or not whole.all():
                raise ContractError(f"not every line behind line {block.line - 1} is a JSON object")
            columns = {}
            for place, name in enumerate(found.keys):
                columns[name], nested = jsonlines.texts_of(db, found, found.key == place, len(indexes), raw=False)
                if nested.any():
                    types[name] = "json"
            tables.append(pa.table(columns))
    return Sample(pa.concat_tables(tables, promote_options="default"), types)


def _typed(path: Path, file: BinaryIO) -> Sample:
    """Parquet, whose schema says more than its values."""
    with opened_parquet(path.name, file) as found, duckdb.connect(":memory:") as db:
        db.execute("SET TimeZone = 'UTC'")
        schema = found.schema_arrow
        tables = [
            pa.table(dict(zip(schema.names, texts_of(db, path.name, batch)[0], strict=True)))
            for _, batch in batches(path.name, found)
        ]
    types = {one.name: kind for one in schema if (kind := _type_of(one.type)) is not None}
    empty = pa.table({name: pa.array([], pa.string()) for name in schema.names})
    return Sample(pa.concat_tables([empty, *tables]), types)


def _type_of(kind: pa.DataType) -> str | None:
    """The contract's type of a column of Parquet, where it has one."""
    if pa.types.is_decimal(kind) and kind.precision <= 38 and kind.scale >= 0:
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "local_timestamp" if kind.tz is None else "timestamp"
    told = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "boolean": pa.types.is_boolean,
        "date": pa.types.is_date,
        "json": pa.types.is_nested,
    }
    return next((name for name, is_it in told.items() if is_it(kind)), None)
