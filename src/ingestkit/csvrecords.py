"""Splitting text into records by quote parity, vectorised, with every flaw costing its own first line and no more."""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from ingestkit.csvmarks import (
    ANY_LINE_END,
    CARRIAGE_RETURN,
    LINE_FEED,
    Flags,
    Marks,
    Positions,
    Text,
    line_ends,
    text_of,
)


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

    def readable(self) -> tuple[Positions, Positions, Positions]:
        """The records without a flaw: their indexes, and where they start and end."""
        indexes = np.setdiff1d(np.arange(len(self)), list(self.flaws)) if self.flaws else np.arange(len(self))
        return indexes, self.starts[indexes], self.ends[indexes]


def split(data: bytes, marks: Marks, *, at_end: bool, max_lines: int) -> Records:
    """Split text that begins at a record's start. `at_end`: nothing follows, and the text ends with a line end."""
    breaks = line_ends(data, marks.newline, at_end=at_end)
    walls = np.array([len(breaks) - 1] if at_end and len(breaks) else [], np.int64)
    return _split(text_of(data, marks, breaks, walls, at_end=at_end, max_lines=max_lines))


def split_again(data: bytes, marks: Marks, records: Records, indexes: Positions, *, max_lines: int) -> Records:
    """The lines behind the first of some records of several lines, as records of their own."""
    every = line_ends(data, marks.newline, at_end=True)
    first, more = records.lines[indexes], records.spans[indexes] - 1
    starts = every[first] + 1
    sizes = records.ends[indexes] + 1 - starts
    joined = b"".join([data[start : start + size] for start, size in zip(starts, sizes, strict=True)])
    ends = np.cumsum(sizes)
    moved = starts - (ends - sizes)
    walls = np.cumsum(more) - 1
    lines = np.repeat(first + 1 - (walls + 1 - more), more) + np.arange(int(more.sum()))
    breaks = every[lines] - np.repeat(moved, more)
    found = _split(text_of(joined, marks, breaks, walls, at_end=True, max_lines=max_lines))
    piece = np.searchsorted(ends, found.starts, side="right")
    return replace(
        found,
        starts=found.starts + moved[piece],
        ends=found.ends + moved[piece],
        lines=lines[found.lines],
        consumed=records.consumed,
    )


def first_line_ends(data: bytes, marks: Marks, records: Records, indexes: Positions) -> Positions:
    """Where the line end of each record's first line stands."""
    ends = records.ends[indexes]
    several = records.spans[indexes] > 1
    if several.any():
        every = line_ends(data, marks.newline, at_end=True)
        ends = np.where(several, every[records.lines[indexes]], ends)
    return ends


def _split(text: Text) -> Records:
    first, last, flaws = _by_parity(text) or _line_by_line(text)
    records = _without_blank(text, first, last, flaws)
    _find_bad_escapes(text, records)
    _find_lone_line_ends(text, records)
    _find_bad_bytes(text.data, records)
    return records


def _by_parity(text: Text) -> tuple[Positions, Positions, dict[int, str]] | None:
    """First and last line of each record where every quote stands where one may; None where one does not."""
    breaks, quotes = text.breaks, text.quotes
    if not len(quotes) and text.joins is None:
        last = np.arange(len(breaks))
    else:
        ends = np.searchsorted(quotes, breaks) % 2 == 0
        if text.joins is not None:
            ends &= ~text.joins
        if not ends[text.walls].all():
            return None
        last = np.flatnonzero(ends)
    first = np.concatenate(([0], last[:-1] + 1)) if len(last) else last
    done = int(last[-1]) + 1 if len(last) else 0
    left = len(breaks) - done
    if left >= text.max_lines or (len(last) and int((last - first).max()) >= text.max_lines):
        return None
    inside = np.searchsorted(quotes, breaks[done - 1]) if done else 0
    if not (text.opens[:inside:2].all() and text.closes[1:inside:2].all()):
        return None
    return first, last, {}


@dataclass(frozen=True, slots=True)
class Lines:
    """What each line is by itself: whether its quotes are odd, and whether one is astray, read outside or inside."""

    odd: Flags
    joins: Flags
    astray: tuple[Flags, Flags]

    def __len__(self) -> int:
        return len(self.odd)


def _lines(text: Text) -> Lines:
    breaks, size = text.breaks, len(text.breaks)
    starts = np.concatenate(([0], breaks[:-1] + 1)) if size else breaks
    begin = np.searchsorted(text.quotes, starts)
    count = np.searchsorted(text.quotes, breaks) - begin
    whole = text.quotes[: int(count.sum())]
    of_line = np.searchsorted(breaks, whole)
    even = (np.arange(len(whole)) - begin[of_line]) % 2 == 0
    opens, closes = text.opens[: len(whole)], text.closes[: len(whole)]
    outside = np.bincount(of_line[(even & ~opens) | (~even & ~closes)], minlength=size) > 0
    inside = np.bincount(of_line[(even & ~closes) | (~even & ~opens)], minlength=size) > 0
    joins = np.zeros(size, np.bool_) if text.joins is None else text.joins
    return Lines(count % 2 == 1, joins, (outside, inside))


def _line_by_line(text: Text) -> tuple[Positions, Positions, dict[int, str]]:
    """The same where a quote is astray: a line that cannot be a record's first is a flaw, and the next begins anew."""
    lines = _lines(text)
    unclean = np.flatnonzero(lines.odd | lines.joins | lines.astray[False])
    first: list[Positions] = []
    last: list[Positions] = []
    flaws: dict[int, str] = {}
    line = made = 0
    while line < len(lines):
        at = np.searchsorted(unclean, line)
        stop = int(unclean[at]) if at < len(unclean) else len(lines)
        if stop > line:
            plain = np.arange(line, stop)
            first.append(plain)
            last.append(plain)
            made += stop - line
            line = stop
            continue
        end, flaw = _close(text, lines, line)
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


def _close(text: Text, lines: Lines, line: int) -> tuple[int | None, str | None]:
    """The last line of the record that begins on `line`, and its flaw; no line where the text so far cannot tell."""
    wall = np.searchsorted(text.walls, line)
    known = int(text.walls[wall]) + 1 if wall < len(text.walls) else len(lines)
    limit = line + text.max_lines
    inside = False
    for following in range(line, min(known, limit)):
        if lines.astray[inside][following]:
            return line, "quote"
        inside ^= bool(lines.odd[following])
        if not inside and not lines.joins[following]:
            return following, None
    if known >= limit:
        return line, "too_long"
    if known < len(lines) or text.at_end:
        return line, "quote" if inside else "escape"
    return None, None


def _without_blank(text: Text, first: Positions, last: Positions, flaws: dict[int, str]) -> Records:
    breaks = text.breaks
    line_starts = np.concatenate(([0], breaks[:-1] + 1)) if len(breaks) else breaks
    starts, ends = line_starts[first], breaks[last]
    length = ends - starts
    blank = (length == 0) | ((length == 1) & (text.view[starts] == CARRIAGE_RETURN))
    lines = int(last[-1]) + 1 if len(last) else 0
    consumed = int(ends[-1]) + 1 if len(ends) else 0
    blanks = int(blank.sum())
    if blanks:
        moved = np.cumsum(blank)
        flaws = {index - int(moved[index]): flaw for index, flaw in flaws.items()}
        keep = ~blank
        starts, ends, first, last = starts[keep], ends[keep], first[keep], last[keep]
    return Records(starts, ends, first, last - first + 1, lines, blanks, consumed, flaws)


def _find_bad_escapes(text: Text, records: Records) -> None:
    """An escape before what needs none would vanish from the value; one before CRLF may mean either or both."""
    places = text.escaped[text.escaped < records.consumed]
    if not len(places) or not len(records):
        return
    behind = text.view[places]
    meant = (text.marks.delimiter, text.marks.quote, text.marks.escape, CARRIAGE_RETURN, LINE_FEED)
    index = np.searchsorted(records.ends, places)
    bad = ~np.isin(behind, [mark for mark in meant if mark >= 0])
    ends = records.ends[index]
    bad |= (behind == CARRIAGE_RETURN) & (places + 1 == ends) & (text.view[ends] == LINE_FEED)
    for one in np.unique(index[bad]):
        records.flaws.setdefault(int(one), "escape")


def _find_lone_line_ends(text: Text, records: Records) -> None:
    """A line end of another kind outside quotes would be read as one by some and as text by others: a flaw."""
    if text.marks.newline == ANY_LINE_END:
        return
    other = CARRIAGE_RETURN if text.marks.newline == LINE_FEED else LINE_FEED
    if other not in text.data:
        return
    found = np.flatnonzero(text.view[: records.consumed] == other)
    if other == CARRIAGE_RETURN:
        found = found[text.view[found + 1] != LINE_FEED]
    if len(text.escaped):
        found = found[~np.isin(found, text.escaped)]
    if not len(found) or not len(records):
        return
    index = np.searchsorted(records.ends, found)
    within = np.searchsorted(text.quotes, found) - np.searchsorted(text.quotes, records.starts[index])
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
        try:
            data[int(records.starts[index]) : int(records.ends[index])].decode()
        except UnicodeDecodeError:
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


def cut_out(data: bytes, starts: Positions, ends: Positions) -> pa.Array:
    """Pieces of some bytes, in order, as values."""
    if not len(starts):
        return pa.array([], pa.binary())
    # As values that lie side by side, every second of which is what stands between two pieces.
    borders = np.column_stack((starts, ends)).reshape(-1).astype(np.int32)
    every = pa.BinaryArray.from_buffers(
        pa.binary(), len(borders) - 1, [None, pa.py_buffer(borders), pa.py_buffer(data)]
    )
    return every.take(pa.array(np.arange(0, len(borders), 2)))
