"""A text file as a stream of blocks of whole records, every line of it counted; what values mean is the contract's."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import BinaryIO, Protocol, cast

from ingestkit.csvencoding import as_utf8, original_size
from ingestkit.csvframe import Trailer, broken, check_delimiter, encoding_of, frame_of, names_of, without_trailer
from ingestkit.csvmarks import ANY_LINE_END, CARRIAGE_RETURN, LINE_FEED, Marks, Positions, line_ends
from ingestkit.csvrecords import Records, split, split_again
from ingestkit.settings import Dialect

BLOCK = 8 << 20
LONGEST_RECORD = 64 << 20
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records of a file: `data` is UTF-8 and begins at `byte` of the (unpacked) file, on line `line` from 1."""

    data: bytes
    byte: int
    line: int
    records: Records
    newline: int


@dataclass(slots=True)
class Census:
    """What was seen while the blocks went by; whole when the last has. Lines are counted apart from records."""

    feeds: int = 0
    returns: int = 0
    pairs: int = 0
    last: int = -1
    unended: int = 0
    """1 where the last line has no end."""
    blank: int = 0
    records: int = 0
    trailer: Trailer = field(default_factory=Trailer)

    def saw(self, more: bytes) -> None:
        self.feeds += more.count(b"\n")
        if b"\r" in more:
            self.returns += more.count(b"\r")
            self.pairs += more.count(b"\r\n")
        if more:
            self.pairs += self.last == CARRIAGE_RETURN and more[0] == LINE_FEED
            self.last = more[-1]

    def ended(self, newline: int) -> bool:
        return self.last in ((CARRIAGE_RETURN, LINE_FEED) if newline == ANY_LINE_END else (newline,))

    def lines(self, newline: int) -> int:
        found = {
            LINE_FEED: self.feeds,
            CARRIAGE_RETURN: self.returns,
            ANY_LINE_END: self.feeds + self.returns - self.pairs,
        }
        return found[newline] + self.unended + self.trailer.lines + self.trailer.blank

    def newlines(self) -> dict[str, int]:
        """How many line ends of each kind stand before the trailer, those within values too."""
        return {"lf": self.feeds - self.pairs, "crlf": self.pairs, "cr": self.returns - self.pairs}


@dataclass(slots=True)
class TextFile:
    """An opened text file behind its header; `pieces` are what is not read yet, as UTF-8."""

    path: str
    pieces: Iterator[bytes]
    dialect: Dialect
    encoding: str
    max_record_lines: int
    names: tuple[str, ...]
    preamble_lines: int
    header_lines: int
    newline: int
    rest: bytes
    byte: int
    census: Census

    @property
    def marks(self) -> Marks:
        return Marks(
            delimiter=ord(self.dialect.delimiter),
            quote=-1 if self.dialect.quote == "none" else ord(self.dialect.quote),
            escape=ord("\\") if self.dialect.escape == "backslash" else -1,
            newline=self.newline,
        )


@contextmanager
def unpacked(path: str, file: BinaryIO) -> Iterator[Readable]:
    """The text of a file that may be gzip. A broken one is a ContractError."""
    start = file.read(4)
    file.seek(0)
    if start and path.lower().endswith(".gz") and not start.startswith(GZIP):
        raise broken(path, "is named .gz but is none")
    if start.startswith(ZIP):
        raise broken(path, "is a zip archive, but not a file named .zip, or it is within another")
    if not start.startswith(GZIP):
        yield file
        return
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            yield cast("Readable", packed)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken(path, f"is damaged: {str(error).rstrip('.')}") from error


def open_text(
    path: str, stream: Readable, dialect: Dialect, columns: Sequence[str], *, max_record_lines: int
) -> TextFile:
    """Read up to the first record. Without a header `columns`, the contract's, are the names.

    A file without a byte has no header, and no names where one was expected.
    """
    read = iter(lambda: stream.read(BLOCK), b"")
    first = next(read, b"")
    encoding, mark = encoding_of(path, first, dialect.encoding)
    census = Census()
    pieces = as_utf8((piece for piece in chain((first[mark:],), read) if piece), encoding)
    if dialect.trailer:
        pieces = without_trailer(path, pieces, dialect.trailer, census.trailer)
    head, frame = b"", None
    while frame is None:
        piece = next(pieces, b"")
        census.saw(piece)
        head += piece
        frame = frame_of(path, head, dialect, at_end=not piece)
    check_delimiter(path, head[frame.preamble : frame.first], dialect, columns)
    header = head[frame.preamble : frame.records]
    ends = line_ends(header, frame.newline, at_end=True)
    unended = bool(header) and (not len(ends) or int(ends[-1]) != len(header) - 1)
    return TextFile(
        path=path,
        pieces=pieces,
        dialect=dialect,
        encoding=encoding,
        max_record_lines=max_record_lines,
        names=names_of(path, header, dialect, encoding) if dialect.header else tuple(columns),
        preamble_lines=dialect.preamble if frame.preamble else 0,
        header_lines=len(ends) + unended,
        newline=frame.newline,
        rest=head[frame.records :],
        byte=mark + original_size(head, frame.records, encoding),
        census=census,
    )


def blocks(text: TextFile) -> Iterator[Block]:
    """The records behind the header, in order, in bounded memory; afterwards `text.census` is whole."""
    data, byte, line = text.rest, text.byte, text.preamble_lines + text.header_lines + 1
    text.rest = b""
    census, marks = text.census, text.marks
    at_end = False
    hungry = len(data) < BLOCK // 2
    while True:
        if hungry:
            more = next(text.pieces, b"")
            at_end = not more
            census.saw(more)
            data += more
        if at_end and census.last >= 0 and not census.ended(text.newline):
            census.unended = 1
            # A header without a line end may be all there is.
            data += bytes([text.newline or LINE_FEED]) if data else b""
        found = split(data, marks, at_end=at_end, max_lines=text.max_record_lines)
        census.blank += found.blank
        census.records += len(found)
        if len(found):
            yield Block(data, byte, line, found, text.newline)
        byte += original_size(data, found.consumed, text.encoding)
        line += found.line_count
        data = data[found.consumed :]
        hungry = True
        if at_end:
            return
        if len(data) > LONGEST_RECORD:
            raise broken(text.path, f"has a record of more than {LONGEST_RECORD:,} bytes on line {line}")


def reopened(text: TextFile, block: Block, indexes: Positions) -> Block:
    """The lines behind the first of some records, split afresh."""
    found = split_again(block.data, text.marks, block.records, indexes, max_lines=text.max_record_lines)
    return replace(block, records=found)
