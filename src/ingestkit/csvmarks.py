"""The places in a piece of text that mean something: line ends, quotes, and what is escaped."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Positions: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
View: TypeAlias = npt.NDArray[np.uint8]

CARRIAGE_RETURN = 13
LINE_FEED = 10
ANY_LINE_END = 0
"""LF, CRLF or CR, each wherever it stands."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The bytes that mean something: delimiter, quote, escape, and the one that ends a line. -1 is none."""

    delimiter: int = ord(",")
    quote: int = ord('"')
    escape: int = -1
    newline: int = LINE_FEED


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text and the places in it that mean something; escaped ones do not."""

    data: bytes
    view: View
    marks: Marks
    breaks: Positions
    """Where the line ends stand, those within values too."""
    joins: Flags | None
    """Which of these are escaped, and end no record; None for none."""
    quotes: Positions
    opens: Flags
    """For each quote, whether it may open a value (or go on after a doubled quote)."""
    closes: Flags
    escaped: Positions
    at_end: bool
    max_lines: int
    walls: Positions
    """Lines, counted from 0, behind which no record may go on."""


def line_ends(data: bytes, newline: int, *, at_end: bool) -> Positions:
    """Where lines end; of a carriage return and a line feed, the line feed."""
    view = np.frombuffer(data, np.uint8)
    if newline != ANY_LINE_END:
        return np.flatnonzero(view == newline)
    feeds = np.flatnonzero(view == LINE_FEED)
    returns = np.flatnonzero(view == CARRIAGE_RETURN) if CARRIAGE_RETURN in data else feeds[:0]
    if len(returns) and returns[-1] == len(view) - 1 and not at_end:
        # What follows may be its line feed.
        returns = returns[:-1]
    alone = view[np.minimum(returns + 1, len(view) - 1)] != LINE_FEED
    return np.sort(np.concatenate((feeds, returns[alone]))) if alone.any() else feeds


def text_of(data: bytes, marks: Marks, breaks: Positions, walls: Positions, *, at_end: bool, max_lines: int) -> Text:
    view = np.frombuffer(data, np.uint8)
    quotes = np.empty(0, np.int64)
    if marks.quote >= 0 and marks.quote in data:
        quotes = np.flatnonzero(view == marks.quote)
    escaped = _escaped(data, view, marks.escape)
    joins = None
    plain = None
    if len(escaped):
        plain = np.ones(len(view) + 1, np.bool_)
        plain[escaped] = False
        quotes = quotes[plain[quotes]]
        joins = ~plain[breaks]
    opens, closes = _possible(view, quotes, marks, plain)
    return Text(data, view, marks, breaks, joins, quotes, opens, closes, escaped, at_end, max_lines, walls)


def _escaped(data: bytes, view: View, escape: int) -> Positions:
    """The places behind each escape that is not itself escaped; the last may be behind the end."""
    if escape < 0 or escape not in data:
        return np.empty(0, np.int64)
    found = np.flatnonzero(view == escape)
    begins = np.concatenate(([True], np.diff(found) > 1))
    run = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    active: Positions = found[(np.arange(len(found)) - run) % 2 == 0]
    return active + 1


def _possible(view: View, quotes: Positions, marks: Marks, plain: Flags | None) -> tuple[Flags, Flags]:
    """For each quote: whether it may open a value (or go on after a doubled quote), and whether it may close one."""
    if not len(quotes):
        return np.empty(0, np.bool_), np.empty(0, np.bool_)
    at = np.maximum(quotes - 1, 0)
    opens = _among(view[at], marks)
    if plain is not None:
        opens &= plain[at]
    opens |= quotes == 0
    after = view[np.minimum(quotes + 1, len(view) - 1)]
    closes = _among(after, marks) | (after == CARRIAGE_RETURN) | (quotes == len(view) - 1)
    return opens, closes


def _among(beside: View, marks: Marks) -> Flags:
    """Whether a byte may stand beside a quote that means something."""
    found: Flags = beside == marks.delimiter
    if marks.newline == ANY_LINE_END:
        found |= (beside == LINE_FEED) | (beside == CARRIAGE_RETURN)
    else:
        found |= beside == marks.newline
    if marks.escape < 0:
        found |= beside == marks.quote
    return found
