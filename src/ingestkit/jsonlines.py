"""Lines of JSON as columns of text: each value exactly as it is written, found by where quotes and brackets stand."""

import json
from dataclasses import dataclass
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestkit.columnsql import value_of
from ingestkit.csvmarks import Flags, Positions, View
from ingestkit.csvrecords import cut_out
from ingestkit.settings import Column

QUOTE, BACKSLASH, COLON, COMMA, OPEN, CLOSE = b'"\\:,{}'
TEXT, NOTHING = ord('"'), ord("n")
NESTED = tuple(b"{[")
# What each byte outside strings does to the depth, and which bytes say anything at all.
DEEPER = np.zeros(256, np.int8)
DEEPER[list(b"{[")], DEEPER[list(b"}]")] = 1, -1
TELLING = np.zeros(256, np.bool_)
TELLING[list(b"{}[]:,")] = True
SPACE = np.zeros(256, np.bool_)
SPACE[list(b" \t\r\n")] = True
SPACES_AT_ONCE = 4
# What the engine's own reader takes beyond the standard begins with one of these, or with `na`.
NO_NUMBER = np.zeros(256, np.bool_)
NO_NUMBER[list(b"NIi")] = True
OBJECT = "json_valid(line) AND (line LIKE '{%' OR ltrim(line, E' \\t\\r') LIKE '{%')"
STRICT = f"({value_of(Column(type='json'), 'line')}) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Members:
    """The members of some objects, in order: whose they are, which key they have, and where their values stand."""

    data: bytes
    record: Positions
    key: Positions
    """Which of `keys` it is."""
    start: Positions
    end: Positions
    keys: tuple[str, ...]
    """Each key that occurs, once, as first met."""


def objects(db: duckdb.DuckDBPyConnection, data: bytes, starts: Positions, ends: Positions) -> tuple[Flags, Members]:
    """Which lines are a JSON object each, by the letter of the standard, and the members of those."""
    lines = _pieces(data, starts, ends)
    whole = _asked(db, OBJECT, lines)
    found = _members(data, starts[whole], ends[whole])
    if found is None:
        whole &= _asked(db, STRICT, lines)
        found = _members(data, starts[whole], ends[whole], proven=True)
    if found is None:
        raise AssertionError("lines that were proven are in doubt")
    return whole, found


def _members(data: bytes, starts: Positions, ends: Positions, *, proven: bool = False) -> Members | None:
    """Take lines apart that hold whole objects; None where they may be objects only to the engine."""
    data = _only(data, starts, ends)
    ends = np.cumsum(ends + 1 - starts) - 1
    view = np.frombuffer(data, np.uint8)
    quotes = _quotes(data, view)
    flips = np.zeros(len(view), np.uint8)
    flips[quotes] = 1
    outside = np.cumsum(flips, dtype=np.uint8) % 2 == 0
    marks = np.flatnonzero(TELLING[view] & outside)
    kinds = view[marks]
    if not proven and _doubtful(view, outside, marks, kinds):
        return None
    depth = np.cumsum(DEEPER[kinds], dtype=np.int64)
    colons = marks[(kinds == COLON) & (depth == 1)]
    stops = marks[((kinds == COMMA) & (depth == 1)) | ((kinds == CLOSE) & (depth == 0))]
    ended = stops[np.searchsorted(stops, colons)]
    start, end = _without_spaces(view, colons + 1, ended)
    # The last string that ends before a colon is its key.
    named = np.searchsorted(quotes, colons)
    found = pyarrow.compute.dictionary_encode(_pieces(data, quotes[named - 2] + 1, quotes[named - 1]))
    written = [json.loads(f'"{one}"') for one in found.dictionary.to_pylist()]
    keys = {one: place for place, one in enumerate(dict.fromkeys(written))}
    places = np.array([keys[one] for one in written], np.int64)
    key = places[found.indices.to_numpy(zero_copy_only=False)] if written else np.empty(0, np.int64)
    return Members(data, np.searchsorted(ends, colons), key, start, end, tuple(keys))


def _only(data: bytes, starts: Positions, ends: Positions) -> bytes:
    """The bytes of some lines with their ends, without what stands between them."""
    if not len(starts):
        return b""
    apart = np.flatnonzero(starts[1:] != ends[:-1] + 1)
    froms = starts[np.concatenate(([0], apart + 1))]
    tos = ends[np.concatenate((apart, [len(ends) - 1]))] + 1
    return b"".join([data[start:end] for start, end in zip(froms, tos, strict=True)])


def _doubtful(view: View, outside: Flags, marks: Positions, kinds: View) -> bool:
    """Whether there may be words or commas among the objects that the standard does not know."""
    bare = view[outside]
    words = NO_NUMBER[bare].any() or ((bare[:-1] == ord("n")) & (bare[1:] == ord("a"))).any()
    commas = marks[kinds == COMMA]
    behind, next_but_one = view[commas + 1], view[np.minimum(commas + 2, len(view) - 1)]
    closes = DEEPER[behind] < 0
    closes |= SPACE[behind] & (SPACE[next_but_one] | (DEEPER[next_but_one] < 0))
    return bool(words or closes.any())


def texts_of(
    db: duckdb.DuckDBPyConnection, found: Members, chosen: Flags, records: int, *, raw: bool
) -> tuple[pa.Array, Flags]:
    """One column of so many records: the texts of the chosen members, at most one of each, and which are nested.

    A string is what it says, and everything else, or all of it where `raw`, as it is written. What is null or not
    there is null.
    """
    record, start, end = found.record[chosen], found.start[chosen], found.end[chosen]
    first = np.frombuffer(found.data, np.uint8)[start]
    there = first != NOTHING
    record, start, end, first = record[there], start[there], end[there], first[there]
    nested = np.zeros(records, np.bool_)
    nested[record] = np.isin(first, NESTED)
    said = np.zeros(len(first), np.int64) if raw else (first == TEXT).astype(np.int64)
    values = _pieces(found.data, start + said, end - said)
    if said.any() and not raw:
        values = _unescaped(db, values, said.astype(np.bool_))
    index = np.full(records, -1, np.int64)
    index[record] = np.arange(len(record))
    return values.take(pa.array(index, pa.int64(), mask=index < 0)), nested


def doubled(found: Members, columns: Positions) -> Positions:
    """The records in which two members are one column's; what is no column's is told apart by its key."""
    places = np.where(columns[found.key] < 0, -1 - found.key, columns[found.key])
    pairs = np.stack((found.record, places))
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    same = (pairs[:, 1:] == pairs[:, :-1]).all(axis=0)
    return np.unique(pairs[0, 1:][same])


def _quotes(data: bytes, view: View) -> Positions:
    """Where strings begin and end, by turns."""
    quotes = np.flatnonzero(view == QUOTE)
    if b"\\" not in data:
        return quotes
    slashes = np.flatnonzero(view == BACKSLASH)
    begins = np.concatenate(([0], np.flatnonzero(np.diff(slashes) != 1) + 1))
    # A quote behind an odd number of backslashes is a character like any other.
    last = np.searchsorted(slashes, quotes) - 1
    near = (last >= 0) & (slashes[last] == quotes - 1)
    run = last - begins[np.searchsorted(begins, last, side="right") - 1] + 1
    return cast("Positions", quotes[~(near & (run % 2 == 1))])


def _without_spaces(view: View, start: Positions, end: Positions) -> tuple[Positions, Positions]:
    for _ in range(SPACES_AT_ONCE):
        before, behind = SPACE[view[start]], SPACE[view[end - 1]]
        if not (before.any() or behind.any()):
            return start, end
        start, end = start + before, end - behind
    solid = np.flatnonzero(~SPACE[view])
    return solid[np.searchsorted(solid, start)], solid[np.searchsorted(solid, end) - 1] + 1


def _pieces(data: bytes, starts: Positions, ends: Positions) -> pa.StringArray:
    return cut_out(data, starts, ends).view(pa.string())


def _unescaped(db: duckdb.DuckDBPyConnection, values: pa.StringArray, strings: Flags) -> pa.StringArray:
    """The strings among the values as they are meant, where anything in them is escaped."""
    escaped = pyarrow.compute.match_substring(values, "\\").to_numpy(zero_copy_only=False) & strings
    if not escaped.any():
        return values
    said = values.filter(pa.array(escaped))
    meant = _column(db, """json_extract_string('"' || line || '"', '$')""", said)
    return pyarrow.compute.replace_with_mask(values, pa.array(escaped), meant)


def _asked(db: duckdb.DuckDBPyConnection, condition: str, lines: pa.Array) -> Flags:
    found = _column(db, f"coalesce({condition}, false)", lines)
    return cast("Flags", found.to_numpy(zero_copy_only=False))


def _column(db: duckdb.DuckDBPyConnection, expression: str, lines: pa.Array) -> pa.Array:
    db.register("lines", pa.table({"line": lines}))
    try:
        found = db.sql(f"SELECT {expression} AS found FROM lines").to_arrow_table()
    finally:
        db.unregister("lines")
    return found.column("found").combine_chunks()
