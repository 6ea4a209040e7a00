"""What stands around the records of a text file: a byte order mark, a preamble, the header, a trailer."""

import csv
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingestkit.csvencoding import marked
from ingestkit.csvmarks import ANY_LINE_END, CARRIAGE_RETURN, LINE_FEED, line_ends
from ingestkit.errors import ContractError
from ingestkit.files import shown
from ingestkit.settings import Dialect

LONGEST_HEADER = 1 << 20
LONGEST_TRAILER = 1 << 16
USUAL_DELIMITERS = (",", ";", "\t", "|")
LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
WITHIN = re.compile(r"(?<=\.tar\.gz)!.*", re.DOTALL)
"""A member of an archive that is in the ledger as one file."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where in a file's head the preamble ends, the first line after it, and the header; and which line end it has."""

    preamble: int
    first: int
    records: int
    newline: int


@dataclass(slots=True)
class Trailer:
    """The trailer of a file, once it has been read up to there."""

    lines: int = 0
    blank: int = 0
    """Blank lines behind it."""
    count: int | None = None
    """How many records it says there are."""


def broken(path: str, what: str) -> ContractError:
    known = WITHIN.sub("", path)
    return ContractError(f"{shown(path)} {what}", hint=f"ingestkit manifest show --path {shlex.quote(shown(known))}")


def encoding_of(path: str, head: bytes, wanted: str) -> tuple[str, int]:
    """The encoding to read with, and the size of the mark that tells it; one that contradicts what is wanted fails."""
    told, size = marked(head)
    if told is None:
        if wanted == "utf-16" and head:
            raise broken(path, "has no byte order mark: csv.encoding should be utf-16-le, utf-16-be or another")
        if wanted == "utf-8" and b"\0" in head[:2]:
            raise broken(path, "begins as UTF-16 does where UTF-8 was expected: see csv.encoding")
        return ("utf-16-le" if wanted == "utf-16" else wanted), 0
    if told != wanted and not (wanted == "utf-16" and told.startswith("utf-16-")):
        raise broken(path, f"is {told.upper()} by its byte order mark where {wanted.upper()} was expected")
    return told, size


def frame_of(path: str, head: bytes, dialect: Dialect, *, at_end: bool) -> Frame | None:
    """The frame of a file of which this is the beginning, or None where more of it must be seen."""
    newline = ANY_LINE_END if dialect.mixed_newlines == "accept" else None
    start = 0
    if dialect.preamble and head:
        newline = _first_newline(head, at_end=at_end) if newline is None else newline
        behind = _behind(head, dialect.preamble, newline, at_end=at_end)
        if behind is None and at_end:
            raise broken(path, f"ends within its preamble of {dialect.preamble} lines")
        if behind is None:
            return None
        start = behind
    window = head[start : start + LONGEST_HEADER]
    long = len(window) == LONGEST_HEADER
    end, kind = _first_record_end(window, dialect, newline, at_end=at_end)
    if end is None and long and dialect.header:
        raise broken(path, f"has no line end in its first {LONGEST_HEADER:,} bytes")
    if end is None and not long and not at_end:
        return None
    if newline is None:
        newline = kind if kind is not None else _first_newline(window, at_end=True) or LINE_FEED
    end = len(window) if end is None else end
    return Frame(start, start + end, start + end if dialect.header else start, newline)


def _behind(head: bytes, lines: int, newline: int | None, *, at_end: bool) -> int | None:
    """Where the line behind so many lines begins; the last line of a file may have no end."""
    ends: list[int] = [] if newline is None else line_ends(head, newline, at_end=at_end)[:lines].tolist()
    if len(ends) == lines:
        return ends[-1] + 1
    begun = not ends or ends[-1] < len(head) - 1
    return len(head) if at_end and begun and len(ends) == lines - 1 else None


def _first_newline(head: bytes, *, at_end: bool) -> int | None:
    found = re.search(rb"\r\n?|\n", head)
    if found is None or (found[0] == b"\r" and found.end() == len(head) and not at_end):
        return None
    return CARRIAGE_RETURN if found[0] == b"\r" else LINE_FEED


def _first_record_end(
    head: bytes, dialect: Dialect, newline: int | None, *, at_end: bool
) -> tuple[int | None, int | None]:
    """Where the first record ends, and by which line end; None for what cannot be told from so much of it."""
    quoted = False
    skipped = -1
    meant = r"\r\n\\" + ("" if dialect.quote == "none" else re.escape(dialect.quote))
    for found in re.finditer(f"[{meant}]".encode(), head):
        at, mark = found.start(), found[0].decode()
        if at == skipped:
            continue
        if mark == "\\" and dialect.escape == "backslash":
            skipped = at + 1
        elif mark == dialect.quote:
            quoted = not quoted
        elif quoted or mark not in "\r\n":
            continue
        elif mark == "\n":
            if newline != CARRIAGE_RETURN:
                return at + 1, newline if newline is not None else LINE_FEED
        elif newline != LINE_FEED and head[at + 1 : at + 2] != b"\n" and (at_end or at + 1 < len(head)):
            return at + 1, newline if newline is not None else CARRIAGE_RETURN
        elif newline == CARRIAGE_RETURN and at + 1 < len(head):
            return at + 1, newline
    return None, None


def names_of(path: str, header: bytes, dialect: Dialect, encoding: str) -> tuple[str, ...]:
    """The names a header holds; none where there is not a byte of it."""
    try:
        text = header.decode()
        rows = _parsed(text, dialect)
    except UnicodeDecodeError as error:
        raise broken(path, f"has a header that is not {encoding.upper()}") from error
    except csv.Error as error:
        raise broken(path, f"has a header that cannot be read: {error}") from error
    if header and not rows:
        raise broken(path, "has a blank line where its header should be; see csv.preamble and csv.header")
    if "\0" in text:
        raise broken(path, "has a NUL in its header; see csv.encoding")
    return rows


def _parsed(line: str, dialect: Dialect, delimiter: str | None = None) -> tuple[str, ...]:
    plain = dialect.quote == "none"
    rows = csv.reader(
        [line.rstrip("\r\n")],
        delimiter=delimiter or dialect.delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        quotechar=None if plain else dialect.quote,
        doublequote=dialect.escape == "double",
        escapechar="\\" if dialect.escape == "backslash" else None,
        strict=True,
    )
    return tuple(next(rows, ()))


def check_delimiter(path: str, line: bytes, dialect: Dialect, columns: Sequence[str]) -> None:
    """Say so where a file's first line is one column by the declared delimiter, and the contract's by another."""
    try:
        text = line.decode()
        if len(columns) < 2 or len(_parsed(text, dialect)) != 1:
            return
    except (UnicodeDecodeError, csv.Error):
        return
    for other in USUAL_DELIMITERS:
        try:
            found = _parsed(text, dialect, other) if other not in (dialect.delimiter, dialect.quote) else ()
        except csv.Error:
            continue
        if len(found) > 1 and (set(found) & set(columns) if dialect.header else len(found) == len(columns)):
            raise broken(
                path,
                f"has one column by the delimiter {dialect.delimiter!r} of its dialect, and {len(found)} by {other!r}, "
                f"where the contract has {len(columns)}: csv.delimiter should be {other!r}",
            )


def without_trailer(path: str, pieces: Iterator[bytes], patterns: Sequence[str], trailer: Trailer) -> Iterator[bytes]:
    """The text without its last lines, which go into `trailer` when the end has come."""
    held = b""
    for piece in pieces:
        held += piece
        if len(held) > LONGEST_TRAILER:
            yield held[:-LONGEST_TRAILER]
            held = held[-LONGEST_TRAILER:]
    if not held:
        return
    # The last match is the nothing behind the last line end.
    lines = [found for found in LINE.finditer(held) if found[0]]
    while lines and not lines[-1][1]:
        lines.pop()
        trailer.blank += 1
    last = lines[-len(patterns) :]
    matches = [re.fullmatch(one, _line(line)) for one, line in zip(patterns, last, strict=False)]
    if len(matches) < len(patterns) or not all(matches):
        told = "the last line does" if len(patterns) == 1 else f"the last {len(patterns)} lines do"
        raise broken(path, f"has no trailer: {told} not match csv.trailer; it may have been cut off")
    trailer.lines = len(last)
    trailer.count = _count(path, [match for match in matches if match])
    if last[0].start():
        yield held[: last[0].start()]


def _line(found: re.Match[bytes]) -> str:
    return found[1].decode("utf-8", "surrogateescape")


def _count(path: str, matches: Sequence[re.Match[str]]) -> int | None:
    for match in matches:
        if (count := match.groupdict().get("count")) is not None:
            if re.fullmatch("[0-9]{1,18}", count.strip()) is None:
                raise broken(path, "has a trailer whose count is no number")
            return int(count)
    return None
