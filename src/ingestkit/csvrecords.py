"""Splitting text into records by quote parity, vectorised, with every flaw costing its own first line and no more."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

CARRIAGE_RETURN = 13
LINE_FEED = 10


@dataclass(frozen=True, slots=True)
class Marks:
    """The bytes that mean something: delimiter, quote, and the one that ends a line."""

    delimiter: int = ord(",")
    quote: int = ord('"')
    newline: int = LINE_FEED


@dataclass(frozen=True, slots=True)
class Records:
    """Records of a piece of text, in order; positions are relative to it.

    `ends` is where each record's line end stands, `lines` its first line counted from 0, `spans` how many lines it has.
    `flaws` names, by index, the records that cannot be read. Everything before `consumed` is a record or a blank line.
    """

    starts: Positions
    ends: Positions
    lines: Positions
    spans: Positions
    line_count: int
    blank: int
    consumed: int
    flaws: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)


def split(data: bytes, marks: Marks, *, at_end: bool, max_lines: int) -> Records:
    """Split text that begins at a record's start. `at_end`: nothing follows, and the text ends with a line end."""
    view = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(view == marks.newline)
    quotes = np.flatnonzero(view == marks.quote) if marks.quote in data else np.empty(0, np.int64)
    opens, closes = _possible(view, quotes, marks)
    found = _by_parity(breaks, quotes, opens, closes, at_end=at_end, max_lines=max_lines)
    first, last, flaws = found or _line_by_line(breaks, quotes, opens, closes, at_end=at_end, max_lines=max_lines)
    records = _without_blank(view, breaks, first, last, flaws)
    _find_lone_line_ends(view, quotes, records, marks)
    _find_bad_bytes(data, records)
    return records


def _possible(view: npt.NDArray[np.uint8], quotes: Positions, marks: Marks) -> tuple[Flags, Flags]:
    """For each quote: whether it may open a value (or go on after a doubled quote), and whether it may close one."""
    if not len(quotes):
        return np.empty(0, np.bool_), np.empty(0, np.bool_)
    before = view[np.maximum(quotes - 1, 0)]
    opens = (before == marks.delimiter) | (before == marks.newline) | (before == marks.quote) | (quotes == 0)
    after = view[np.minimum(quotes + 1, len(view) - 1)]
    closes = (after == marks.delimiter) | (after == marks.newline) | (after == marks.quote)
    closes |= (after == CARRIAGE_RETURN) | (quotes == len(view) - 1)
    return opens, closes


def _by_parity(
    breaks: Positions, quotes: Positions, opens: Flags, closes: Flags, *, at_end: bool, max_lines: int
) -> tuple[Positions, Positions, dict[int, str]] | None:
    """First and last line of each record where every quote stands where one may; None where one does not."""
    last = np.flatnonzero(np.searchsorted(quotes, breaks) % 2 == 0) if len(quotes) else np.arange(len(breaks))
    first = np.concatenate(([0], last[:-1] + 1)) if len(last) else last
    done = int(last[-1]) + 1 if len(last) else 0
    left = len(breaks) - done
    if left > (0 if at_end else max_lines - 1) or (len(last) and int((last - first).max()) >= max_lines):
        return None
    inside = np.searchsorted(quotes, breaks[done - 1]) if done else 0
    if not (opens[:inside:2].all() and closes[1:inside:2].all()):
        return None
    return first, last, {}


def _line_by_line(
    breaks: Positions, quotes: Positions, opens: Flags, closes: Flags, *, at_end: bool, max_lines: int
) -> tuple[Positions, Positions, dict[int, str]]:
    """The same where a quote is astray: a line that cannot be a record's first is a flaw, and the next begins anew."""
    starts = np.concatenate(([0], breaks[:-1] + 1)) if len(breaks) else breaks
    begin = np.searchsorted(quotes, starts)
    count = np.searchsorted(quotes, breaks) - begin
    whole = quotes[: int(count.sum())]
    of_line = np.searchsorted(breaks, whole)
    even = (np.arange(len(whole)) - begin[of_line]) % 2 == 0
    opens, closes = opens[: len(whole)], closes[: len(whole)]
    size = len(breaks)
    wrong_outside = np.bincount(of_line[(even & ~opens) | (~even & ~closes)], minlength=size) > 0
    wrong_inside = np.bincount(of_line[(even & ~closes) | (~even & ~opens)], minlength=size) > 0
    odd = count % 2 == 1
    unclean = np.flatnonzero(odd | wrong_outside)
    first: list[Positions] = []
    last: list[Positions] = []
    flaws: dict[int, str] = {}
    line = made = 0
    while line < size:
        at = np.searchsorted(unclean, line)
        stop = int(unclean[at]) if at < len(unclean) else size
        if stop > line:
            plain = np.arange(line, stop)
            first.append(plain)
            last.append(plain)
            made += stop - line
            line = stop
            continue
        end, flaw = _close(line, odd, wrong_outside, wrong_inside, at_end=at_end, max_lines=max_lines)
        if end is None:
            break
        if flaw is not None:
            flaws[made] = flaw
        first.append(np.array([line]))
        last.append(np.array([end]))
        made += 1
        line = end + 1
    nothing = np.empty(0, np.int64)
    return np.concatenate(first or [nothing]), np.concatenate(last or [nothing]), flaws


def _close(
    line: int, odd: Flags, wrong_outside: Flags, wrong_inside: Flags, *, at_end: bool, max_lines: int
) -> tuple[int | None, str | None]:
    """The last line of the record that begins on `line`, and its flaw; no line where the text so far cannot tell."""
    if wrong_outside[line]:
        return line, "quote"
    limit = line + max_lines
    for following in range(line + 1, min(len(odd), limit)):
        if wrong_inside[following]:
            return line, "quote"
        if odd[following]:
            return following, None
    if len(odd) >= limit:
        return line, "too_long"
    return (line, "quote") if at_end else (None, None)


def _without_blank(
    view: npt.NDArray[np.uint8], breaks: Positions, first: Positions, last: Positions, flaws: dict[int, str]
) -> Records:
    line_starts = np.concatenate(([0], breaks[:-1] + 1)) if len(breaks) else breaks
    starts, ends = line_starts[first], breaks[last]
    length = ends - starts
    blank = (length == 0) | ((length == 1) & (view[starts] == CARRIAGE_RETURN))
    lines = int(last[-1]) + 1 if len(last) else 0
    consumed = int(ends[-1]) + 1 if len(ends) else 0
    blanks = int(blank.sum())
    if blanks:
        moved = np.cumsum(blank)
        flaws = {index - int(moved[index]): flaw for index, flaw in flaws.items()}
        keep = ~blank
        starts, ends, first, last = starts[keep], ends[keep], first[keep], last[keep]
    return Records(starts, ends, first, last - first + 1, lines, blanks, consumed, flaws)


def _find_lone_line_ends(view: npt.NDArray[np.uint8], quotes: Positions, records: Records, marks: Marks) -> None:
    """A line end of another kind outside quotes would be read as one by some and as text by others: a flaw."""
    text = view[: records.consumed]
    if marks.newline == LINE_FEED:
        found = np.flatnonzero(text == CARRIAGE_RETURN)
        found = found[text[found + 1] != LINE_FEED]
    else:
        found = np.flatnonzero(text == LINE_FEED)
    if not len(found) or not len(records):
        return
    index = np.searchsorted(records.ends, found)
    within = np.searchsorted(quotes, found) - np.searchsorted(quotes, records.starts[index])
    for one in np.unique(index[within % 2 == 0]):
        records.flaws.setdefault(int(one), "newline")


def _find_bad_bytes(data: bytes, records: Records) -> None:
    at = data.find(b"\0", 0, records.consumed)
    while at >= 0:
        index = int(np.searchsorted(records.ends, at))
        records.flaws.setdefault(index, "nul")
        at = data.find(b"\0", int(records.ends[index]), records.consumed)
    if is_utf8(data, records.consumed):
        return
    beyond_ascii = np.flatnonzero(np.frombuffer(data, np.uint8, records.consumed) >= 0x80)
    for one in np.unique(np.searchsorted(records.ends, beyond_ascii)):
        index = int(one)
        record = data[int(records.starts[index]) : int(records.ends[index])]
        if not is_utf8(record, len(record)):
            records.flaws.setdefault(index, "encoding")


def is_utf8(data: bytes, size: int) -> bool:
    """Whether the first `size` bytes are UTF-8, told without building a string of them."""
    if data.isascii():
        return True
    offsets = pa.py_buffer(np.array([0, size], np.int64))
    text = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
