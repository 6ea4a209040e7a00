"""Where time is cut into windows, by length, zone and start. What becomes of them is not here."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ingestkit.model import Window

Unit: TypeAlias = Literal["minute", "hour", "day", "week", "month"]

NAMED: dict[str, tuple[int, Unit]] = {
    "hourly": (1, "hour"),
    "daily": (1, "day"),
    "weekly": (1, "week"),
    "monthly": (1, "month"),
}
WRITTEN = re.compile(r"([1-9]\d{0,3}) ?(?:(minutes?|min|m)|(hours?|h)|(days?|d)|(weeks?|w)|(months?))")
UNITS: tuple[Unit, ...] = ("minute", "hour", "day", "week", "month")
ELAPSED: dict[Unit, timedelta] = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
"""Lengths of time; of the other units the calendar says how long they are."""


@dataclass(frozen=True, slots=True)
class Length:
    every: int
    unit: Unit

    @property
    def elapsed(self) -> timedelta | None:
        """How long it is, where that is always the same."""
        return self.every * ELAPSED[self.unit] if self.unit in ELAPSED else None


def length_of(text: str) -> Length:
    """`daily`, `15 minutes`, `1d` or `24h`; ValueError when the text is no length."""
    if text in NAMED:
        return Length(*NAMED[text])
    match = WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no window; one is {', '.join(NAMED)}, or a number of minutes, hours, days, weeks or months, "
            "such as 15 minutes or 24h"
        )
    unit = next(unit for unit, said in zip(UNITS, match.groups()[1:], strict=True) if said)
    return Length(int(match[1]), unit)


def zone_of(name: str) -> ZoneInfo:
    """The zone of that name; ValueError when this machine knows none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r} is known here, such as Europe/Berlin or UTC") from None


def instant_of(text: str, zone: ZoneInfo) -> datetime:
    """A date or time as it is written in settings and commands: of the zone's clock, where it names no offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date or time, such as 2026-01-31 or 2026-01-31T06:00") from None
    if found.microsecond:
        raise ValueError(f"{text!r} has parts of a second")
    return found.astimezone(UTC) if found.tzinfo is not None else first_showing(found, zone)


def first_showing(local: datetime, zone: ZoneInfo) -> datetime:
    """The first instant at which a zone's clock shows a time; of a time that it skips, the instant of the jump."""
    found = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None, fold=0) == local.replace(fold=0):
        return found
    # By the offset before the jump the time lies behind it, by the offset after the jump before it.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after, offset = found, found.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def first_of(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which a day begins in a zone."""
    return first_showing(datetime.combine(day, time()), zone)


def days_within(window: Window, zone: ZoneInfo) -> tuple[date, date]:
    """The days that begin within a window, as a half-open range."""
    return _first_day(window.start, zone), _first_day(window.end, zone)


def _first_day(at: datetime, zone: ZoneInfo) -> date:
    """The first day that begins at an instant or later."""
    day = at.astimezone(zone).date() - timedelta(days=1)
    while first_of(day, zone) < at:
        day += timedelta(days=1)
    return day


@dataclass(frozen=True, slots=True)
class Cut:
    """Where time is cut. Minutes and hours are counted from `start` on; days, weeks and months are of the calendar.

    Of several days, weeks or months, the first are those of `start`.
    """

    length: Length
    start: datetime
    zone: ZoneInfo
    week_begins: int = 0
    """0 is Monday."""

    def after(self, at: datetime) -> datetime:
        """The first cut that is later than an instant."""
        elapsed = self.length.elapsed
        if elapsed is not None:
            return self.start + ((at - self.start) // elapsed + 1) * elapsed
        number = self._number(at.astimezone(self.zone).date())
        # Where a zone skips a whole day, two cuts are one instant; a clock put back may show the day before again.
        while (found := first_of(self._begins(number), self.zone)) <= at:
            number += 1
        return found

    def _number(self, day: date) -> int:
        """How many windows a day lies behind that of `start`."""
        first = self._begins(0)
        if self.length.unit == "month":
            return (12 * (day.year - first.year) + day.month - first.month) // self.length.every
        return (day - first) // self._days()

    def _begins(self, number: int) -> date:
        """The day on which a window begins, counted from that of `start`."""
        first = self.start.astimezone(self.zone).date()
        match self.length.unit:
            case "month":
                months = 12 * first.year + first.month - 1 + number * self.length.every
                return date(months // 12, months % 12 + 1, 1)
            case "week":
                first -= timedelta(days=(first.weekday() - self.week_begins) % 7)
        return first + number * self._days()

    def _days(self) -> timedelta:
        return timedelta(days=self.length.every * (7 if self.length.unit == "week" else 1))


def tiled(cut: Cut, since: datetime, until: datetime, known: Iterable[Window] = ()) -> Iterator[Window]:
    """The windows from an instant on that have ended by another, each beginning where the one before it ended.

    Those that are `known` stay as they were, ended or not; none that is cut now reaches into one.
    """
    fixed = {one.start: one for one in known}
    bounds = sorted(fixed)
    at = since
    while True:
        behind = bisect_right(bounds, at)
        ahead = bounds[behind] if behind < len(bounds) else None
        window = fixed.get(at)
        if window is None:
            end = cut.after(at)
            window = Window(at, end if ahead is None else min(end, ahead))
            if window.end > until and ahead is None:
                return
        if at in fixed or window.end <= until:
            yield window
        at = window.end
