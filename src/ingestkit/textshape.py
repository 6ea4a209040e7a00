"""What a block's texts show at a glance: lengths, and which bytes stand where. All of a column, or nothing, is told.

Where all texts of a block have one shape, numpy proves and converts them many times faster than patterns and casts can.
Nothing is rejected here: a column that cannot be told at once is asked text by text, by the contract's SQL.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""For each position of a text, the first and the last byte that may stand there."""
Bytes: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[np.int64]
"""One for each text that is there, or a single one where all are the same."""

ZERO, NINE = ord("0"), ord("9")
# A token of a pattern with one range of bytes: a digit, a class of one range, an escaped sign or a plain character.
TOKEN = re.compile(r"(\\d|\[([0-9A-Za-z])-([0-9A-Za-z])\]|\\([-.:/ ])|([0-9A-Za-z_ :/,-]))(?:\{(\d{1,3})\})?")
DATE = "dddd-dd-dd"
MOMENT = re.compile(r"dddd-dd-dd[T ]dd:dd(:dd(\.d{1,6})?)?(Z|[+-]dd(:?dd)?)?")
# Days before each month of a year without a 29 February, and behind its last.
BEFORE = np.array([0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365], np.int64)
DAYS_BEFORE_1970 = 719_162
MICROSECONDS = 1_000_000
SIGNS = (ord("+"), ord("-"))
TOGETHER = 64
"""How many texts are reduced as one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What was seen of a column: how many texts are missing, and how many bytes the others have."""

    count: int
    """How many texts are there."""
    nulls: int
    shortest: int
    longest: int
    content: Bytes
    """The bytes of all texts, one behind the other."""
    present: npt.NDArray[np.bool_] | None
    """Which texts are there; None for all."""

    @property
    def matrix(self) -> Bytes | None:
        """One row for each text that is there, where all have the same length."""
        if self.shortest != self.longest or not self.longest:
            return None
        return self.content.reshape(-1, self.longest)


def shape_of(texts: pa.ChunkedArray | pa.Array) -> Shape | None:
    """The shape of a column, or None where it is in several pieces."""
    if isinstance(texts, pa.ChunkedArray):
        if texts.num_chunks != 1:
            return None
        texts = texts.chunk(0)
    if not len(texts):
        return None
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4)
    lengths = np.diff(offsets)
    present = None
    if texts.null_count:
        present = texts.is_valid().to_numpy(zero_copy_only=False)
        lengths = lengths[present]
    values = texts.buffers()[2]
    content = np.frombuffer(values, np.uint8)[offsets[0] : offsets[-1]] if values else np.empty(0, np.uint8)
    if int(lengths.sum()) != len(content):
        return None
    shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    return Shape(len(lengths), texts.null_count, shortest, longest, content, present)


def ranges_of(pattern: str) -> Ranges | None:
    """The ranges that say the same as a pattern such as `\\d{18}` or `[A-Z]{2}`; None where it says more than that."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(pattern):
        token = TOKEN.match(pattern, at)
        # What repeats or chooses is more than one range for each place.
        if token is None:
            return None
        first, last = (ZERO, NINE) if token[1] == r"\d" else (ord(char) for char in _ends(token))
        found += [(first, last)] * int(token[6] or 1)
        at = token.end()
    return tuple(found) or None


def _ends(token: re.Match[str]) -> tuple[str, str]:
    char = token[4] or token[5]
    return (token[2], token[3]) if token[2] else (char, char)


def fits(shape: Shape, ranges: Ranges) -> bool:
    """Whether every text that is there has the bytes of these ranges, position by position."""
    if not shape.count:
        return True
    matrix = shape.matrix
    if matrix is None or matrix.shape[1] != len(ranges):
        return False
    if len(set(ranges)) == 1:
        return bool(ranges[0][0] <= shape.content.min() and shape.content.max() <= ranges[0][1])
    least, most = _extremes(matrix)
    return all(first <= low and high <= last for (first, last), low, high in zip(ranges, least, most, strict=True))


def whole_numbers(shape: Shape) -> Numbers | None:
    """The values of texts that are digits only, few enough for 64 bits."""
    matrix = shape.matrix
    if matrix is None or matrix.shape[1] > 18 or shape.content.min() < ZERO or shape.content.max() > NINE:
        return None
    return Digits(matrix, *_extremes(matrix)).number(0, matrix.shape[1])


def truths(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Which are true, of texts that all say `true` or `false`."""
    true = pyarrow.compute.equal(texts, "true")
    told = pyarrow.compute.or_(true, pyarrow.compute.equal(texts, "false"))
    return None if pyarrow.compute.all(told).as_py() is False else true


def decimals(texts: pa.ChunkedArray, kind: pa.Decimal128Type) -> pa.ChunkedArray | None:
    """The values of texts that this decimal holds by the digits they have; Arrow alone would let some overflow."""
    whole, places = kind.precision - kind.scale, kind.scale
    if not whole:
        return None
    behind = rf"(\.[0-9]{{1,{places}}})?" if places else ""
    held = pyarrow.compute.match_substring_regex(texts, rf"^[+-]?[0-9]{{1,{whole}}}{behind}$")
    return None if pyarrow.compute.all(held).as_py() is False else texts.cast(kind)


def dates(shape: Shape) -> Numbers | None:
    """Days since 1970 of texts all written `YYYY-MM-DD`."""
    digits = _seen(shape)
    if digits is None or digits.layout() != DATE:
        return None
    return _days(digits)


def moments(shape: Shape, *, offset: bool) -> Numbers | None:
    """Microseconds since 1970, in UTC where they have an `offset`, of texts all written alike in ISO 8601."""
    digits = _seen(shape)
    layout = digits.layout() if digits is not None else None
    written = MOMENT.fullmatch(layout) if layout is not None else None
    if digits is None or written is None or (written[3] is not None) != offset:
        return None
    days = _days(digits)
    hours, minutes = digits.number(11, 13), digits.number(14, 16)
    seconds = digits.number(17, 19) if written[1] else np.zeros(1, np.int64)
    if days is None or hours.max() > 23 or minutes.max() > 59 or seconds.max() > 59:
        return None
    found = days * 86_400 + (hours * 3_600 + minutes * 60 + seconds)
    if offset and written[3] != "Z":
        ahead = _ahead(digits, *written.span(3))
        if ahead is None:
            return None
        found = found - ahead
    found = found * MICROSECONDS
    if written[2]:
        places = written.end(2) - written.start(2) - 1
        found = found + digits.number(20, 20 + places) * 10 ** (6 - places)
    return found


@dataclass(frozen=True, slots=True)
class Digits:
    """Texts of one length, with the least and the most byte at each place."""

    matrix: Bytes
    least: Bytes
    most: Bytes

    def layout(self) -> str | None:
        """How all are written: `d` where digits stand, else the one sign all have; `+` where some have `-`."""
        found = []
        for place, (low, high) in enumerate(zip(self.least.tolist(), self.most.tolist(), strict=True)):
            if low >= ZERO and high <= NINE:
                found.append("d")
            elif low == high and low < 0x80:
                found.append(chr(low))
            elif (low, high) == SIGNS and np.isin(self.matrix[:, place], SIGNS).all():
                found.append("+")
            else:
                return None
        return "".join(found)

    def number(self, start: int, end: int) -> Numbers:
        """The whole numbers that stand in these places; of one row only where all are the same."""
        total = np.zeros(1, np.int64)
        for place in range(start, end):
            same = self.least[place] == self.most[place]
            total = total * 10 + (int(self.least[place]) if same else self.matrix[:, place]) - ZERO
        return total


def _seen(shape: Shape) -> Digits | None:
    matrix = shape.matrix
    return Digits(matrix, *_extremes(matrix)) if matrix is not None else None


def _extremes(matrix: Bytes) -> tuple[Bytes, Bytes]:
    """The least and the most byte in each column; many rows are taken as one, since short ones are slow to reduce."""
    size, width = matrix.shape
    whole = size - size % TOGETHER
    pieces = [matrix[whole:]] if whole < size else []
    if whole:
        wide = matrix[:whole].reshape(-1, TOGETHER * width)
        pieces += [extreme.reshape(TOGETHER, width) for extreme in (wide.min(axis=0), wide.max(axis=0))]
    stacked = np.concatenate(pieces)
    return stacked.min(axis=0), stacked.max(axis=0)


def _ahead(digits: Digits, start: int, end: int) -> Numbers | None:
    """Seconds that local times are ahead of UTC."""
    hours = digits.number(start + 1, start + 3)
    minutes = digits.number(end - 2, end) if end - start > 3 else np.zeros(1, np.int64)
    if hours.max() > 14 or minutes.max() > 59:
        return None
    seconds = (hours * 60 + minutes) * 60
    sign = digits.least[start] if digits.least[start] == digits.most[start] else digits.matrix[:, start]
    return np.where(sign == ord("-"), -seconds, seconds)


def _days(digits: Digits) -> Numbers | None:
    """Days since 1970 of the `YYYY-MM-DD` that each text begins with; None where one is no date."""
    years, months, days = digits.number(0, 4), digits.number(5, 7), digits.number(8, 10)
    if years.min() < 1 or months.min() < 1 or months.max() > 12 or days.min() < 1:
        return None
    leap = ((years % 4 == 0) & (years % 100 != 0)) | (years % 400 == 0)
    if (days > BEFORE[months + 1] - BEFORE[months] + (leap & (months == 2))).any():
        return None
    gone = years - 1
    gone = gone * 365 + gone // 4 - gone // 100 + gone // 400
    found: Numbers = gone + BEFORE[months] + (leap & (months > 2)) + days - (1 + DAYS_BEFORE_1970)
    return found


def spread(values: Numbers, shape: Shape, kind: pa.DataType) -> pa.Array:
    """The values in their places among missing ones, as an Arrow array of a type of 64 bits, or of days."""
    width = np.int32 if pa.types.is_date32(kind) else np.int64
    if shape.present is None:
        values = np.broadcast_to(values, (shape.count,))
        return pa.array(np.ascontiguousarray(values, width)).view(kind)
    whole = np.zeros(len(shape.present), width)
    whole[shape.present] = values
    return pa.array(whole, mask=~shape.present).view(kind)
