"""Windows tile time: none missing, none twice, each as long as the calendar of its zone says."""

import itertools
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestkit.model import Window
from ingestkit.windows import Cut, days_within, first_of, instant_of, length_of, tiled, zone_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # its clock is put forward by half an hour
    "America/Santiago",  # a day a year has no midnight, and one has it twice
    "Asia/Beirut",  # likewise
    "Africa/Cairo",
    "America/St_Johns",  # for years a minute past midnight
    "Pacific/Apia",  # 30 December 2011 is no day there
    "Antarctica/Troll",  # by two hours
    "Africa/Casablanca",  # for Ramadan
)
LENGTHS = ("15 minutes", "hourly", "24h", "7h", "daily", "3 days", "weekly", "2 weeks", "monthly", "3 months")
MINUTE = timedelta(minutes=1)

zones = st.sampled_from(ZONES).map(ZoneInfo)
instants = st.integers(631_152_000, 2_145_830_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
cuts = st.builds(
    lambda length, start, zone, week: Cut(length_of(length), start, zone, week),
    st.sampled_from(LENGTHS),
    instants,
    zones,
    st.integers(0, 6),
)


def shown_first(day: date, zone: ZoneInfo) -> datetime:
    """The first whole minute at which the zone's clock shows the day, or a later one, found by looking at each."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=16)
    while at.astimezone(zone).date() < day:
        at += MINUTE
    return at


@given(cuts, st.lists(st.integers(1, 100 * 24 * 60), max_size=6))
def test_windows_tile_time_whatever_the_cut_and_whatever_is_known(cut: Cut, minutes: list[int]) -> None:
    ends = list(itertools.accumulate(minutes, lambda at, more: at + more * MINUTE, initial=cut.start))
    known = [Window(one, other) for one, other in pairwise(ends)][1::2]
    until = cut.start + timedelta(days=700)
    found = list(islice(tiled(cut, cut.start, until, known), 3000))
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(one.start < one.end <= until for one in found)
    assert not found or found[0].start == cut.start
    reached = found[-1].end if found else cut.start
    assert [one for one in known if one.end <= reached] == [one for one in found if one in known]


@given(zones, st.dates(date(1990, 1, 2), date(2037, 12, 30)))
def test_a_day_is_as_long_as_its_zone_says(zone: ZoneInfo, day: date) -> None:
    begins = shown_first(day, zone)
    assert first_of(day, zone) == begins
    cut = Cut(length_of("1d"), begins - timedelta(days=3), zone)
    # Of a day that the zone skips there is no window.
    later = (shown_first(day + timedelta(days=number), zone) for number in (1, 2))
    assert cut.after(begins) == next(at for at in later if at > begins)


@given(cuts, st.integers(-500, 500))
def test_cuts_do_not_depend_on_where_one_looks_from(cut: Cut, days: int) -> None:
    at = cut.start + timedelta(days=days)
    following = cut.after(at)
    assert following > at
    assert cut.after(following - timedelta(seconds=1)) == following


@pytest.mark.parametrize(
    ("length", "day", "hours"),
    [("1d", date(2026, 3, 29), 23), ("1d", date(2026, 10, 25), 25), ("24h", date(2026, 3, 29), 24)],
)
def test_a_day_of_the_calendar_has_23_to_25_hours_and_24_hours_have_24(length: str, day: date, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    begins = first_of(day, zone)
    assert Cut(length_of(length), begins, zone).after(begins) - begins == timedelta(hours=hours)


def test_half_an_hour_is_put_forward_in_one_zone() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    begins = first_of(date(2026, 10, 4), zone)
    assert Cut(length_of("daily"), begins, zone).after(begins) - begins == timedelta(hours=23, minutes=30)


def test_a_day_without_midnight_begins_where_its_clock_jumps() -> None:
    zone = ZoneInfo("America/Santiago")
    begins = first_of(date(2026, 9, 6), zone)
    assert begins.astimezone(zone).isoformat() == "2026-09-06T01:00:00-03:00"
    assert first_of(date(2026, 9, 5), zone) == begins - timedelta(hours=24)


def test_a_jump_around_midnight_is_found() -> None:
    """Toronto put its clock forward at half past eleven at night, so that the next day began at half past twelve."""
    zone = ZoneInfo("America/Toronto")
    begins = first_of(date(1919, 3, 31), zone)
    assert begins.astimezone(zone).isoformat() == "1919-03-31T00:30:00-04:00"


def test_a_day_that_a_zone_skips_has_no_window() -> None:
    zone = ZoneInfo("Pacific/Apia")
    start = first_of(date(2011, 12, 29), zone)
    found = tiled(Cut(length_of("daily"), start, zone), start, start + timedelta(days=3))
    assert [one.start.astimezone(zone).day for one in found] == [29, 31, 1]


def test_weeks_begin_on_the_day_said_and_months_on_the_first() -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = first_of(date(2026, 1, 1), zone)
    assert Cut(length_of("weekly"), start, zone, 6).after(start) == first_of(date(2026, 1, 4), zone)
    assert Cut(length_of("monthly"), start, zone).after(start) == first_of(date(2026, 2, 1), zone)
    assert Cut(length_of("3 months"), start, zone).after(start) == first_of(date(2026, 4, 1), zone)


def test_known_windows_stay_as_they_were_and_the_next_begins_where_they_end() -> None:
    zone = ZoneInfo("UTC")
    day = [datetime(2026, 1, number, tzinfo=UTC) for number in range(1, 10)]
    known = [Window(day[0], day[1]), Window(day[1], day[2] + timedelta(hours=6))]
    found = list(tiled(Cut(length_of("2 days"), day[0], zone), day[0], day[8], known))
    assert found == [*known, Window(known[-1].end, day[4]), Window(day[4], day[6]), Window(day[6], day[8])]


def test_a_known_window_is_there_though_the_clock_was_put_back() -> None:
    day = [datetime(2026, 1, number, tzinfo=UTC) for number in range(1, 5)]
    known = [Window(day[0], day[1]), Window(day[2], day[3])]
    cut = Cut(length_of("daily"), day[0], ZoneInfo("UTC"))
    assert list(tiled(cut, day[0], day[0], known)) == known


def test_days_of_a_window_are_those_that_begin_in_it() -> None:
    zone = ZoneInfo("Europe/Berlin")
    window = Window(first_of(date(2026, 3, 29), zone), first_of(date(2026, 3, 30), zone))
    assert days_within(window, zone) == (date(2026, 3, 29), date(2026, 3, 30))
    odd = Window(window.start + timedelta(hours=6), window.end + timedelta(hours=6))
    assert days_within(odd, zone) == (date(2026, 3, 30), date(2026, 3, 31))


@given(zones, instants, st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_every_day_begins_in_one_window(zone: ZoneInfo, start: datetime, minutes: list[int]) -> None:
    ends = [start]
    for one in minutes:
        ends.append(ends[-1] + one * MINUTE)
    ranges = [days_within(Window(one, other), zone) for one, other in pairwise(ends)]
    assert all(one[1] == other[0] for one, other in pairwise(ranges))


def test_a_key_is_the_start_in_utc() -> None:
    berlin = datetime(2026, 3, 2, tzinfo=ZoneInfo("Europe/Berlin"))
    window = Window(berlin, berlin + timedelta(days=1))
    assert window.key == "20260301T230000Z"
    assert Window.of_key(window.key, window.end) == window


@pytest.mark.parametrize("text", ["", "0 minutes", "fortnightly", "1.5h", "90 s", "-1d", "1 y"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no window"):
        length_of(text)


def test_times_are_of_the_zone_unless_they_name_an_offset() -> None:
    zone = zone_of("Europe/Berlin")
    assert instant_of("2026-01-01", zone) == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert instant_of("20260101T000000Z", zone) == datetime(2026, 1, 1, tzinfo=UTC)
    assert instant_of("2026-03-29T02:30:00", zone) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="parts of a second"):
        instant_of("2026-01-01T00:00:00.5", zone)
    with pytest.raises(ValueError, match="no time zone 'Mars/Olympus'"):
        zone_of("Mars/Olympus")
