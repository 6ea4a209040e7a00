"""What is told at a glance must be what Python says of each text, or nothing at all."""

import re
import string
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestkit.columnsql import guard
from ingestkit.textshape import (
    Shape,
    dates,
    decimals,
    fits,
    moments,
    ranges_of,
    shape_of,
    spread,
    truths,
    whole_numbers,
)

INSTANT = pa.timestamp("us", tz="UTC")
LOCAL = pa.timestamp("us")


def seen(texts: list[str | None]) -> Shape:
    shape = shape_of(pa.chunked_array([pa.array(texts, pa.string())]))
    assert shape is not None
    return shape


def with_gaps(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str | None]]:
    return st.lists(st.one_of(values, st.none()), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("pattern", "ranges"),
    [
        (r"\d{3}", ((48, 57),) * 3),
        (r"[A-Z]{2}", ((65, 90),) * 2),
        (r"A\d-[0-4]", ((65, 65), (48, 57), (45, 45), (48, 52))),
        (r"\d\.\d", ((48, 57), (46, 46), (48, 57))),
        (r"\d+", None),
        (r"\d{1,3}", None),
        (r"A|B", None),
        (r"(?i)a", None),
        (r"[A-Za-z]", None),
        (r".", None),
        (r"\w", None),
        (r"\d?", None),
        (r"^\d$", None),
        (r"é", None),
        ("", None),
    ],
)
def test_only_a_pattern_of_one_range_for_each_place_is_told_by_ranges(
    pattern: str, ranges: tuple[tuple[int, int], ...] | None
) -> None:
    assert ranges_of(pattern) == ranges


@given(
    st.sampled_from([r"\d{3}", r"[A-C]{2}", r"A\d", r"[0-4]\d", "abc", r"\d\.\d"]),
    with_gaps(st.text("0123456789ABCabc.", max_size=3)),
)
def test_texts_that_fit_match_the_pattern_one_by_one(pattern: str, texts: list[str | None]) -> None:
    ranges = ranges_of(pattern)
    assert ranges is not None
    told = fits(seen(texts), ranges)
    assert told == all(re.fullmatch(pattern, text, re.ASCII) is not None for text in texts if text is not None)


@given(with_gaps(st.text(string.digits + "+- \u0663", min_size=3, max_size=3)))
def test_digits_become_the_numbers_they_are(texts: list[str | None]) -> None:
    shape = seen(texts)
    numbers = whole_numbers(shape)
    plain = [text for text in texts if text is not None]
    if numbers is None:
        assert not plain or any(re.fullmatch("[0-9]+", text) is None for text in plain)
        return
    assert spread(numbers, shape, pa.int64()).to_pylist() == [None if text is None else int(text) for text in texts]


def column(texts: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


@given(with_gaps(st.sampled_from(["true", "false", "TRUE", "t", "0", "", "true "])))
def test_truths_are_told_where_all_say_so_in_small_letters(texts: list[str | None]) -> None:
    found = truths(column(texts))
    plain = {text for text in texts if text is not None}
    assert (found is not None) == (plain <= {"true", "false"})
    if found is not None:
        assert found.to_pylist() == [None if text is None else text == "true" for text in texts]


@given(
    st.sampled_from([(38, 10), (38, 0), (10, 2), (5, 0), (38, 38), (18, 4)]),
    with_gaps(st.from_regex(r"[+-]?[0-9]{0,14}\.?[0-9]{0,12}0{0,4}|[0-9]{35,45}|1e3|٣", fullmatch=True)),
)
def test_decimals_become_the_numbers_they_are_or_are_not_told(size: tuple[int, int], texts: list[str | None]) -> None:
    kind = f"decimal({size[0]},{size[1]})"
    found = decimals(column(texts), pa.decimal128(*size))
    if found is None:
        return
    exact = Context(prec=100)
    for text, value in zip(texts, found.to_pylist(), strict=True):
        if text is None:
            assert value is None
        else:
            assert re.fullmatch(guard(kind), text, re.ASCII)
            assert exact.compare(value, Decimal(text)) == 0
            assert exact.abs(value) < exact.power(10, size[0] - size[1])


@pytest.mark.parametrize("text", ["0", "-12.5", "+3", "00012.50", "9999999999999999999999999999.9999999999"])
def test_plain_decimals_are_told(text: str) -> None:
    found = decimals(column([text, None]), pa.decimal128(38, 10))
    assert found is not None
    assert found.to_pylist() == [Decimal(text), None]


@pytest.mark.parametrize("text", ["", "1e3", " 1", "1 ", "1\n", "1.00000000001", "٣", "1" * 39, "1" * 29, "."])
def test_what_is_no_such_decimal_is_not(text: str) -> None:
    assert decimals(column([text]), pa.decimal128(38, 10)) is None


@given(with_gaps(st.dates().map(date.isoformat)))
def test_dates_become_the_days_they_are(texts: list[str | None]) -> None:
    shape = seen(texts)
    days = dates(shape)
    if days is None:
        assert texts == [None] * len(texts)
        return
    expected = [None if text is None else date.fromisoformat(text) for text in texts]
    assert spread(days, shape, pa.date32()).to_pylist() == expected


@given(st.lists(st.tuples(st.integers(0, 2101), st.integers(0, 14), st.integers(0, 33)), min_size=1, max_size=3))
def test_a_day_no_calendar_has_is_not_told(parts: list[tuple[int, int, int]]) -> None:
    texts = [f"{year:04d}-{month:02d}-{day:02d}" for year, month, day in parts]
    assert (dates(seen([*texts])) is not None) == all(_is_date(text) for text in texts)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Hypothesis wants its limits naive.
FIRST, LAST = datetime(2, 1, 1), datetime(9998, 12, 31)  # noqa: DTZ001


@given(
    with_gaps(st.datetimes(FIRST, LAST, timezones=OFFSETS).map(lambda at: at.isoformat(timespec="microseconds"))),
)
def test_instants_with_offsets_become_microseconds_in_utc(texts: list[str | None]) -> None:
    shape = seen(texts)
    found = moments(shape, offset=True)
    if found is None:
        assert texts == [None] * len(texts)
        return
    expected = [None if text is None else datetime.fromisoformat(text).astimezone(UTC) for text in texts]
    assert spread(found, shape, INSTANT).to_pylist() == expected


@pytest.mark.parametrize("timespec", ["minutes", "seconds", "milliseconds", "microseconds"])
@pytest.mark.parametrize("between", ["T", " "])
@given(times=st.lists(st.datetimes(FIRST, LAST), min_size=1, max_size=80))
def test_local_times_become_microseconds(timespec: str, between: str, times: list[datetime]) -> None:
    texts: list[str | None] = [at.isoformat(between, timespec) for at in times]
    shape = seen(texts)
    assert moments(shape, offset=True) is None
    found = moments(shape, offset=False)
    assert found is not None
    assert spread(found, shape, LOCAL).to_pylist() == [datetime.fromisoformat(str(text)) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:60:00Z",
        "2024-01-01T23:59:60Z",
        "2023-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2024-01-01T00:00:00+15:00",
        "2024-01-01T00:00:00+14:60",
        "2024-01-01T00:00:00z",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00.1234567Z",
        "2024-01-01T00:00:00,5Z",
        "2024/01/01T00:00:00Z",
        "2024-01-01T00:00:00 Z",
        "2024-01-01T00:00:0٣Z",
        "2024-01-01T00Z",
        "2024-01-01",
    ],
)
def test_one_text_that_is_no_instant_leaves_its_whole_block_untold(text: str) -> None:
    good: list[str | None] = ["2024-01-01T00:00:00Z"[: len(text)].ljust(len(text), "0")] * 70
    assert moments(seen([*good, text, *good]), offset=True) is None
    assert moments(seen([text]), offset=True) is None


def test_texts_of_several_lengths_are_not_told() -> None:
    shape = seen(["2024-01-01", "2024-01-01T00:00:00"])
    assert (shape.matrix, dates(shape), moments(shape, offset=False)) == (None, None, None)
    assert whole_numbers(seen(["1", "22"])) is None


def test_missing_texts_alone_fit_any_pattern_and_an_empty_text_none() -> None:
    ranges = ranges_of(r"\d{3}")
    assert ranges is not None
    assert fits(seen([None, None]), ranges)
    assert not fits(seen(["", None]), ranges)


def test_a_slice_shows_only_what_is_in_it() -> None:
    texts = pa.array(["x", "12", None, "34", "y"], pa.string())
    shape = shape_of(texts.slice(1, 3))
    assert shape is not None
    assert (shape.nulls, shape.shortest, shape.longest, shape.content.tobytes()) == (1, 2, 2, b"1234")


def test_a_column_in_several_pieces_is_not_looked_at() -> None:
    assert shape_of(pa.chunked_array([["1"], ["2"]], pa.string())) is None
