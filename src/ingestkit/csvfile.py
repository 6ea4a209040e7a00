"""A text file as a stream of blocks of whole records, and the line proof; what the values mean is the contract's."""

import csv
import gzip
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ingestkit.csvrecords import CARRIAGE_RETURN, LINE_FEED, Marks, Positions, Records, split
from ingestkit.errors import ConfigError, ContractError
from ingestkit.files import shown
from ingestkit.settings import Dialect

BLOCK = 8 << 20
LONGEST_RECORD = 64 << 20
LONGEST_HEADER = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records of a file: `data` begins at `byte` of the (unpacked) file, on line `line`, counted from 1."""

    data: bytes
    byte: int
    line: int
    records: Records
    newline: int


@dataclass(frozen=True, slots=True)
class Flaw:
    """A record that cannot be read as one, by its index in its block."""

    index: int
    code: str
    message: str


@dataclass(slots=True)
class Census:
    """What was seen while the blocks went by; whole when the last has. Lines are counted apart from records."""

    lines: int = 0
    blank: int = 0
    records: int = 0
    size: int = 0
    ended: bool = True

    def saw(self, more: bytes, newline: bytes) -> None:
        self.lines += more.count(newline)
        self.size += len(more)
        self.ended = more.endswith(newline) if more else self.ended


@dataclass(slots=True)
class TextFile:
    """An opened text file behind its header."""

    path: str
    stream: Readable
    dialect: Dialect
    max_record_lines: int
    names: tuple[str, ...]
    header_lines: int
    newline: int
    rest: bytes
    byte: int
    census: Census

    @property
    def marks(self) -> Marks:
        return Marks(ord(self.dialect.delimiter), ord(self.dialect.quote), self.newline)


@contextmanager
def unpacked(path: str, file: BinaryIO) -> Iterator[Readable]:
    """The text of a file that may be gzip, or a zip of one member. A broken one is a ContractError."""
    start = file.read(4)
    file.seek(0)
    name = path.lower()
    for suffix, magic in ((".gz", GZIP), (".zip", ZIP)):
        if start and name.endswith(suffix) and not start.startswith(magic):
            raise broken(path, f"is named {suffix} but is none")
    try:
        if start.startswith(GZIP):
            with gzip.GzipFile(fileobj=file) as packed:
                yield cast("Readable", packed)
        elif start.startswith(ZIP):
            with zipfile.ZipFile(file) as archive, _only_member(path, archive) as member:
                yield cast("Readable", member)
        else:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise broken(path, f"is damaged: {str(error).rstrip('.')}") from error


def _only_member(path: str, archive: zipfile.ZipFile) -> AbstractContextManager[object]:
    members = [one for one in archive.infolist() if not one.is_dir()]
    if len(members) != 1:
        raise broken(path, f"holds {len(members)} members where one was expected")
    if members[0].flag_bits & 1:
        raise broken(path, "is encrypted")
    return archive.open(members[0])


def broken(path: str, what: str) -> ContractError:
    return ContractError(f"{shown(path)} {what}", hint=f"ingestkit manifest show --path {shlex.quote(shown(path))}")


def open_text(path: str, stream: Readable, dialect: Dialect, *, max_record_lines: int) -> TextFile:
    """Read the header; a file without a byte has none, and no names."""
    if not (dialect.delimiter + dialect.quote).isascii() or dialect.delimiter == dialect.quote:
        raise ConfigError(
            f"csv: delimiter {dialect.delimiter!r} and quote {dialect.quote!r} must be two ASCII characters"
        )
    head = stream.read(BLOCK)
    if head.startswith(UTF_16_MARKS):
        raise broken(path, "is UTF-16 where UTF-8 was expected")
    mark = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    end, newline = _first_record_end(path, head[mark:], dialect)
    header = head[mark : mark + end]
    try:
        text = header.decode().rstrip("\r\n")
        rows = list(csv.reader([text], delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True))
    except UnicodeDecodeError as error:
        raise broken(path, f"has a header that is not UTF-8 (byte {error.start + 1})") from error
    except csv.Error as error:
        raise broken(path, f"has a header that cannot be read: {error}") from error
    byte = chr(newline).encode()
    lines = header.count(byte) + (1 if header and not header.endswith(byte) else 0)
    census = Census()
    census.saw(head, byte)
    return TextFile(
        path=path,
        stream=stream,
        dialect=dialect,
        max_record_lines=max_record_lines,
        names=tuple(rows[0]) if rows else (),
        header_lines=lines,
        newline=newline,
        rest=head[mark + end :],
        byte=mark + end,
        census=census,
    )


def _first_record_end(path: str, head: bytes, dialect: Dialect) -> tuple[int, int]:
    """Where the first record ends, and the byte that ends lines in this file."""
    quoted = False
    quote = ord(dialect.quote)
    for at, byte in enumerate(head[:LONGEST_HEADER]):
        if byte == quote:
            quoted = not quoted
        elif not quoted and byte == LINE_FEED:
            return at + 1, LINE_FEED
        elif not quoted and byte == CARRIAGE_RETURN and head[at + 1 : at + 2] not in (b"", b"\n"):
            return at + 1, CARRIAGE_RETURN
    if len(head) > LONGEST_HEADER:
        raise broken(path, f"has no line end in its first {LONGEST_HEADER:,} bytes")
    return len(head), LINE_FEED


def blocks(text: TextFile) -> Iterator[Block]:
    """The records behind the header, in order, in bounded memory; afterwards `text.census` is whole."""
    data, byte, line = text.rest, text.byte, text.header_lines + 1
    text.rest = b""
    newline = bytes([text.newline])
    at_end = False
    hungry = len(data) < BLOCK // 2
    while True:
        if hungry:
            more = text.stream.read(BLOCK)
            at_end = not more
            text.census.saw(more, newline)
            data += more
        if at_end and not text.census.ended:
            text.census.lines += 1
            text.census.ended = True
            # A header without a line end may be all there is.
            data += newline if data else b""
        found = split(data, text.marks, at_end=at_end, max_lines=text.max_record_lines)
        text.census.blank += found.blank
        text.census.records += len(found)
        if len(found):
            yield Block(data, byte, line, found, text.newline)
        byte += found.consumed
        line += found.line_count
        data = data[found.consumed :]
        hungry = True
        if at_end:
            return
        if len(data) > LONGEST_RECORD:
            raise broken(text.path, f"has a record of more than {LONGEST_RECORD:,} bytes on line {line}")


MESSAGES = {
    "quote": "a quote stands where none may, or is never closed",
    "too_long": "the record has more lines than one may have",
    "newline": "a line end of another kind than the file's stands outside quotes",
    "nul": "the record holds a NUL byte",
    "encoding": "the record is not UTF-8",
}


def texts(text: TextFile, block: Block) -> tuple[pa.Table, Positions, list[Flaw]]:
    """The readable records of a block as text columns, an empty value being null; their indexes; and the flaws."""
    flaws = [Flaw(index, code, MESSAGES[code]) for index, code in block.records.flaws.items()]
    keep = np.ones(len(block.records), np.bool_)
    keep[[flaw.index for flaw in flaws]] = False
    kept = np.flatnonzero(keep)
    if not len(kept):
        return pa.table({name: pa.array([], pa.string()) for name in text.names}), kept, flaws
    odd: list[tuple[int, int]] = []

    def other_width(row: pyarrow.csv.InvalidRow) -> str:
        odd.append((row.number - 1, row.actual_columns))
        return "skip"

    table = pyarrow.csv.read_csv(
        pa.BufferReader(_readable(block, keep)),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block.data) + 16, column_names=list(text.names)),
        pyarrow.csv.ParseOptions(
            delimiter=text.dialect.delimiter,
            quote_char=text.dialect.quote,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=other_width,
        ),
        pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in text.names},
            strings_can_be_null=True,
            null_values=[""],
            check_utf8=False,
        ),
    )
    if odd:
        flaws += [
            Flaw(int(kept[row]), "columns", f"the record has {found} columns where the header has {len(text.names)}")
            for row, found in odd
        ]
        kept = np.delete(kept, [row for row, _ in odd])
    _prove_parsed(text, block, table, kept)
    return table, kept, sorted(flaws, key=lambda flaw: flaw.index)


def _readable(block: Block, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> bytes | memoryview:
    """The bytes of the records to keep, without the blank lines and flawed records between them."""
    starts, ends = block.records.starts[keep], block.records.ends[keep] + 1
    apart = np.flatnonzero(starts[1:] != ends[:-1])
    froms = starts[np.concatenate(([0], apart + 1))]
    tos = ends[np.concatenate((apart, [len(ends) - 1]))]
    data = memoryview(block.data)
    pieces = [data[int(start) : int(end)] for start, end in zip(froms, tos, strict=True)]
    # The reader takes a byte order mark off the beginning of whatever it reads; a value may begin with one too.
    marked = block.data.startswith(BYTE_ORDER_MARK, int(froms[0]))
    if len(pieces) == 1 and not marked:
        return pieces[0]
    return b"".join([BYTE_ORDER_MARK, *pieces] if marked else pieces)


def _prove_parsed(text: TextFile, block: Block, table: pa.Table, kept: Positions) -> None:
    """The splitter and the reader must mean the same: as many records, and as many lines within their values."""
    expected = int(block.records.spans[kept].sum()) - len(kept)
    found = sum(line_ends_within(column, block.newline) for column in table.columns)
    if table.num_rows != len(kept) or expected != found:
        raise broken(
            text.path,
            f"was read in two ways behind line {block.line}: {len(kept)} records with {expected} line ends in them, "
            f"and {table.num_rows} with {found}",
        )


def line_ends_within(column: pa.ChunkedArray | pa.Array, newline: int) -> int:
    """How many line ends stand inside the values of a text or binary column."""
    total = 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        values = chunk.buffers()[2]
        if values is None or not len(chunk):
            continue
        offsets = np.frombuffer(chunk.buffers()[1], np.int32, len(chunk) + 1, chunk.offset * 4)
        content = np.frombuffer(values, np.uint8)[int(offsets[0]) : int(offsets[-1])]
        total += int(np.count_nonzero(content == newline))
    return total


def raw_records(block: Block, indexes: Positions) -> Iterator[tuple[int, int, bytes]]:
    """First line, first byte and the bytes, without their line end, of some of a block's records."""
    records = block.records
    for index in indexes:
        start, end = int(records.starts[index]), int(records.ends[index])
        if block.newline == LINE_FEED and end > start and block.data[end - 1] == CARRIAGE_RETURN:
            end -= 1
        yield block.line + int(records.lines[index]), block.byte + start, block.data[start:end]
