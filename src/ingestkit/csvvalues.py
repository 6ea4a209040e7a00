"""The records of a block as text columns, proven against the splitter; and the bytes of those that are no such rows."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from ingestkit.csvencoding import original, original_offsets
from ingestkit.csvfile import Block, TextFile
from ingestkit.csvframe import broken
from ingestkit.csvmarks import ANY_LINE_END, CARRIAGE_RETURN, LINE_FEED, Flags, Positions, View
from ingestkit.csvrecords import cut_out, first_line_ends

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MESSAGES = {
    "quote": "a quote stands where none may, or is never closed",
    "too_long": "the record has more lines than one may have",
    "newline": "a line end of another kind than the file's stands outside quotes",
    "nul": "the record holds a NUL byte",
    "escape": "a backslash stands before a character that needs none, or before what may be one line end or two",
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """A record that cannot be read as one, by its index in its block."""

    index: int
    code: str
    message: str


def texts(text: TextFile, block: Block) -> tuple[pa.Table, Positions, list[Flaw]]:
    """The readable records of a block as text columns, an empty value being null; their indexes; and the flaws."""
    messages = {**MESSAGES, "encoding": f"the record is not {text.encoding.upper()}"}
    flaws = [Flaw(index, code, messages[code]) for index, code in sorted(block.records.flaws.items())]
    keep = np.ones(len(block.records), np.bool_)
    keep[[flaw.index for flaw in flaws]] = False
    kept = np.flatnonzero(keep)
    if not len(kept):
        return pa.table({name: pa.array([], pa.string()) for name in text.names}), kept, flaws
    odd: list[tuple[int, int]] = []

    def other_width(row: pyarrow.csv.InvalidRow) -> str:
        odd.append((row.number - 1, row.actual_columns))
        return "skip"

    quote, escape = text.dialect.quote, text.dialect.escape
    table = pyarrow.csv.read_csv(
        pa.BufferReader(_readable(block, keep)),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block.data) + 16, column_names=list(text.names)),
        pyarrow.csv.ParseOptions(
            delimiter=text.dialect.delimiter,
            quote_char=False if quote == "none" else quote,
            double_quote=escape == "double",
            escape_char="\\" if escape == "backslash" else False,
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
        where = "header" if text.dialect.header else "contract"
        flaws += [
            Flaw(int(kept[row]), "columns", f"the record has {found} columns where the {where} has {len(text.names)}")
            for row, found in odd
        ]
        kept = np.delete(kept, [row for row, _ in odd])
    _prove_parsed(text, block, table, kept)
    return table, kept, sorted(flaws, key=lambda flaw: flaw.index)


def _readable(block: Block, keep: Flags) -> bytes | memoryview:
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


def line_ends_within(column: pa.ChunkedArray | pa.Array, newline: int, encoding: str = "utf-8") -> int:
    """How many line ends stand inside the values of a text or binary column."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return sum(
        _line_ends(chunk, newline, encoding) for chunk in chunks if len(chunk) and chunk.buffers()[2] is not None
    )


def _line_ends(values: pa.Array, newline: int, encoding: str) -> int:
    offsets, content = _content(values)
    if encoding.startswith("utf-16"):
        # Every value is of whole units, but the last may end in half of one.
        order = "<" if encoding == "utf-16-le" else ">"
        units = np.frombuffer(content[: len(content) & ~1].tobytes(), f"{order}u2")
        return int(np.isin(units, [LINE_FEED, CARRIAGE_RETURN] if newline == ANY_LINE_END else [newline]).sum())
    if newline != ANY_LINE_END:
        return int(np.count_nonzero(content == newline))
    feeds = content == LINE_FEED
    pairs = feeds[1:] & (content[:-1] == CARRIAGE_RETURN)
    # A return at the end of one value and a feed at the beginning of the next are no pair.
    borders = offsets[1:-1] - offsets[0]
    pairs[borders[(borders > 0) & (borders < len(content))] - 1] = False
    return int(feeds.sum() + np.count_nonzero(content == CARRIAGE_RETURN) - pairs.sum())


def nul_rows(column: pa.ChunkedArray | pa.Array) -> Flags | None:
    """Which texts of a column hold a NUL; None where none does."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if all(_content(chunk)[1].all() for chunk in chunks if len(chunk) and chunk.buffers()[2] is not None):
        return None
    found = pyarrow.compute.fill_null(pyarrow.compute.match_substring(column, "\0"), fill_value=False)
    return cast("Flags", np.asarray(found))


def _content(values: pa.Array) -> tuple[npt.NDArray[np.int32], View]:
    """Where the values of a text or binary column begin and end in it, and the bytes they hold together."""
    offsets = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4)
    return offsets, np.frombuffer(values.buffers()[2], np.uint8)[int(offsets[0]) : int(offsets[-1])]


def raw_records(text: TextFile, block: Block, indexes: Positions) -> tuple[Positions, Positions, pa.Array]:
    """Of some of a block's records the first lines: their numbers, their first bytes, and what they hold but their end.

    The bytes are the file's own, whatever its encoding.
    """
    records = block.records
    starts = records.starts[indexes]
    ends = first_line_ends(block.data, text.marks, records, indexes)
    if block.newline != CARRIAGE_RETURN and len(indexes):
        view = np.frombuffer(block.data, np.uint8)
        ends = ends - ((ends > starts) & (view[ends] == LINE_FEED) & (view[ends - 1] == CARRIAGE_RETURN))
    raw = cut_out(block.data, starts, ends)
    if text.encoding != "utf-8":
        raw = pa.array([original(one, text.encoding) for one in raw.to_pylist()], pa.binary())
    places = block.byte + original_offsets(block.data, starts, text.encoding)
    return block.line + records.lines[indexes], places, raw
