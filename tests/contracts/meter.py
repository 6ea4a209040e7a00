"""What every meter keeps; each inherits the class, told to a receiver of its own that reads what it is sent."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ingestkit.errors import TargetError
from ingestkit.ports import Measure, Meter, Span

AT = datetime(2026, 1, 4, 18, 0, 5, tzinfo=UTC)
SINCE = AT - timedelta(days=3)
TAGS = {"pipeline": "p", "model": "a", "stage": "load"}
TOTAL = Measure("rows.loaded", "total", "", "rows written to target tables", TAGS, 40, SINCE, 12)
TIME = Measure("stage.duration", "total", "s", "how long stages took", TAGS, 61.25, SINCE, 1.5)
BYTES = Measure("landed", "total", "By", "bytes of files", TAGS, 5_000_000_000, SINCE, 5_000_000_000)
LEVEL = Measure("queue.length", "level", "", "writes that are pending", {"pipeline": "p"}, 3)
MOMENT = Measure(
    "freshness", "moment", "s", "when loaded last", {"pipeline": "p", "model": "a"}, AT - timedelta(hours=2)
)
SPAN = Span("load", "ab" * 16, "cd" * 8, None, AT - timedelta(seconds=2), AT, {"stage": "load", "rows_loaded": 12})


class MeterContract:
    """A figure that is told is heard as it is, however often it is told."""

    @pytest.fixture
    def meter(self) -> Meter:
        raise NotImplementedError

    @pytest.fixture
    def heard(self) -> Callable[[Measure], float]:
        """What the receiver now makes of a measure: for a moment its age, or the moment as a timestamp."""
        raise NotImplementedError

    def test_every_kind_of_figure_is_heard(self, meter: Meter, heard: Callable[[Measure], float]) -> None:
        meter.tell(AT, (TOTAL, LEVEL, MOMENT, TIME, BYTES), ())
        assert heard(TOTAL) == 40
        assert heard(LEVEL) == 3
        assert heard(MOMENT) in (7200, (AT - timedelta(hours=2)).timestamp())
        assert heard(TIME) == 61.25
        assert heard(BYTES) == 5_000_000_000

    def test_a_total_that_is_told_twice_is_counted_once(self, meter: Meter, heard: Callable[[Measure], float]) -> None:
        meter.tell(AT, (TOTAL,), ())
        meter.tell(AT + timedelta(seconds=1), (replace(TOTAL, grew=0),), ())
        assert heard(TOTAL) == 40
        meter.tell(AT + timedelta(seconds=2), (replace(TOTAL, value=41, grew=1),), ())
        assert heard(TOTAL) == 41

    def test_series_of_one_name_are_told_apart_by_their_tags(
        self, meter: Meter, heard: Callable[[Measure], float]
    ) -> None:
        other = replace(TOTAL, tags=TAGS | {"model": "b"}, value=7, grew=7)
        meter.tell(AT, (TOTAL, LEVEL, other), ())
        assert (heard(TOTAL), heard(other)) == (40, 7)

    def test_no_tag_breaks_what_is_written_around_it(self, meter: Meter, heard: Callable[[Measure], float]) -> None:
        odd = replace(TOTAL, tags=TAGS | {"env": 'a "b"\\c\nd|#e:f,g'})
        meter.tell(AT, (odd, LEVEL), ())
        assert (heard(odd), heard(LEVEL)) == (40, 3)

    def test_there_may_be_many_figures_or_none(self, meter: Meter, heard: Callable[[Measure], float]) -> None:
        meter.tell(AT, (), ())
        many = [replace(TOTAL, tags=TAGS | {"model": f"model_{number:03}"}, value=40 + number) for number in range(500)]
        meter.tell(AT, many, ())
        assert heard(many[-1]) == 40 + 499

    def test_a_clock_that_was_set_back_makes_no_age_negative(
        self, meter: Meter, heard: Callable[[Measure], float]
    ) -> None:
        ahead = replace(MOMENT, value=AT + timedelta(hours=1))
        meter.tell(AT, (ahead,), ())
        assert heard(ahead) in (0, (AT + timedelta(hours=1)).timestamp())

    def test_spans_disturb_nobody(self, meter: Meter, heard: Callable[[Measure], float]) -> None:
        meter.tell(AT, (TOTAL,), (SPAN,))
        assert heard(TOTAL) == 40


def fails(meter: Meter, *, patience: float) -> TargetError:
    """The error of a meter that cannot tell, which comes in time."""
    began = time.monotonic()
    with pytest.raises(TargetError) as caught:
        meter.tell(AT, (TOTAL,), ())
    assert time.monotonic() - began < patience + 20
    return caught.value
