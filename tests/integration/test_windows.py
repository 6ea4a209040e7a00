"""Windows as batches: which are taken, what belongs to them, and what becomes of them when time is cut otherwise."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ingestkit.pipeline import SystemClock
from tests.integration.world import World, batches_of

WINDOWS: dict[str, Any] = {
    "folders": r"(?P<at>\d{4}-\d\d-\d\d)",
    "at": {"format": "%Y-%m-%d"},
    "window": "daily",
    "timezone": "Europe/Berlin",
    "start": "2026-03-28",
}
EVENTS: dict[str, Any] = {
    "key": ["id"],
    "load": "window",
    "window_column": "at",
    "columns": {"id": {"required": True}, "at": {"type": "timestamp"}},
}
FIRST, SHORT, THIRD = "20260327T230000Z", "20260328T230000Z", "20260329T220000Z"
"""Three days, the second of which has 23 hours."""


def events(day: str, *hours: int, name: str = "a") -> dict[str, str]:
    lines = "".join(f"{day}-{hour},{day}T{hour:02d}:30:00Z\n" for hour in hours)
    return {f"{day}/{name}.csv": f"id,at\n{lines}"}


@pytest.fixture
def at(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the clock that commands are given, and that of a shared state."""
    began = datetime.now(UTC)

    def set_to(text: str) -> None:
        ahead = datetime.fromisoformat(text).replace(tzinfo=UTC) - began
        monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + ahead)
        world.set_clock(ahead)

    return set_to


@pytest.fixture
def windowed(world: World) -> World:
    world.set_up({"source.batches": WINDOWS, "models": {"a": EVENTS}})
    return world


def windows_of(world: World) -> dict[str, str]:
    """The completions of model a, each with the end of its window."""
    found = world.state("SELECT batch, status, window_end FROM completion WHERE model = 'a' ORDER BY batch")
    return {batch: f"{status} until {str(end).replace(' ', 'T')[:16]}" for batch, status, end in found}


def test_only_windows_that_have_ended_are_taken(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-29T21:59:00")
    assert batches_of(windowed.does("run")) == [FIRST]
    at("2026-03-29T22:00:00")
    answer = windowed.does("run")
    assert batches_of(answer) == [SHORT]
    assert answer["results"][0]["window"] == {"from": "2026-03-28T23:00:00+00:00", "to": "2026-03-29T22:00:00+00:00"}
    assert windowed.does("run")["status"] == "nothing new"
    assert windowed.table("a", "id", "_batch") == [("2026-03-28-1", FIRST), ("2026-03-29-1", SHORT)]
    row = windowed.run_row(f"p.{SHORT}.1")
    assert (row["window_start"], row["window_end"]) == ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    assert (row["window_seconds"], row["target_date"]) == (23 * 3600, "2026-03-29")


def test_a_window_waits_for_its_lag(windowed: World, at: Callable[[str], None]) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"lag": "2h"}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-29T00:59:00")
    assert windowed.does("run")["status"] == "nothing new"
    at("2026-03-29T01:00:00")
    assert batches_of(windowed.does("run")) == [FIRST]


def test_a_window_without_files_is_an_empty_batch(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-30", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    assert windows_of(windowed) == {
        FIRST: "done until 2026-03-28T23:00",
        SHORT: "empty until 2026-03-29T22:00",
        THIRD: "done until 2026-03-30T22:00",
    }
    assert windowed.checkpoint() == THIRD


def test_a_window_may_wait_for_its_files(windowed: World, at: Callable[[str], None]) -> None:
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": EVENTS}, "source.empty_batch": "wait"})
    windowed.drop(events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    answer = windowed.does("run")
    assert (answer["status"], answer["results"]) == ("waiting", [])
    windowed.drop(events("2026-03-28", 1))
    assert batches_of(windowed.does("run")) == [FIRST, SHORT]


def test_a_late_file_of_a_done_window_publishes_the_window_again(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    windowed.does("run")
    windowed.drop(events("2026-03-28", 2, name="a_2"))
    assert batches_of(windowed.does("run")) == [FIRST]
    assert windowed.table("a", "id") == [("2026-03-28-1",), ("2026-03-28-2",), ("2026-03-29-1",)]
    at("2026-06-30T00:00:00")
    windowed.drop(events("2026-03-28", 3, name="a_3"))
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.does("run")
    assert len(windowed.table("a", "id")) == 3


def test_rows_outside_their_window_are_rejected(windowed: World, at: Callable[[str], None]) -> None:
    lines = (
        "a,2026-03-28T22:59:59.999999Z\nb,2026-03-28T23:00:00Z\nc,2026-03-27T22:59:59Z\nd,2026-03-27T23:00:00Z\ne,\n"
    )
    windowed.drop({"2026-03-28/a.csv": "id,at\n" + lines})
    at("2026-03-29T00:00:00")
    windowed.does("run")
    assert windowed.table("a", "id") == [("a",), ("d",)]
    rejects = windowed.does("quarantine", "show", "p", "--batch", FIRST)["rows"]
    assert [(one["line"], one["errors"][0]["code"]) for one in rejects] == [
        (3, "outside_window"),
        (4, "outside_window"),
        (6, "required"),
    ]
    assert "from 2026-03-27T23:00:00+00:00 to 2026-03-28T23:00:00+00:00" in rejects[0]["errors"][0]["message"]


def test_rows_of_a_date_belong_to_the_window_in_which_their_day_begins(
    windowed: World, at: Callable[[str], None]
) -> None:
    model = EVENTS | {"columns": {"id": {"required": True}, "at": {"type": "date"}}}
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": model}})
    windowed.drop({"2026-03-29/a.csv": "id,at\nx,2026-03-28\ny,2026-03-29\nz,2026-03-30\n"})
    at("2026-03-30T00:00:00")
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": model}, "gate.max_reject_pct": 90})
    windowed.does("run")
    assert windowed.table("a", "id", "_batch") == [("y", SHORT)]


def test_a_change_of_the_cut_begins_where_the_last_window_done_ended(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-30", 1), events("2026-04-02", 1))
    at("2026-03-29T00:00:00")
    windowed.does("run")
    changed = WINDOWS | {"window": "weekly", "timezone": "UTC", "start": "2026-01-01", "start_of_week": "thursday"}
    windowed.set_up({"source.batches": changed, "models": {"a": EVENTS}})
    at("2026-04-09T00:00:00")
    windowed.does("run")
    assert windows_of(windowed) == {
        FIRST: "done until 2026-03-28T23:00",
        "20260328T230000Z": "done until 2026-04-02T00:00",
        "20260402T000000Z": "done until 2026-04-09T00:00",
    }
    assert [id_ for (id_,) in windowed.table("a", "id")] == ["2026-03-28-1", "2026-03-30-1", "2026-04-02-1"]


def test_files_seen_in_a_window_not_done_move_when_it_is_cut_otherwise(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"window": "monthly"}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1), {"2026-03-29/a.csv": "id,at\nx,none\n"}, {"2026-03-30/notes.txt": "?"})
    at("2026-04-01T00:00:00")
    windowed.refused(5, "run")
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-29", 1))
    windowed.does("run")
    assert windowed.table("a", "id", "_batch") == [("2026-03-28-1", FIRST), ("2026-03-29-1", SHORT)]
    assert windowed.statuses() == {
        "2026-03-28/a.csv": "loaded",
        "2026-03-29/a.csv": "loaded",
        "2026-03-30/notes.txt": "quarantined",
    }
    moved = [row for row in windowed.files("--path", "2026-03-29/a.csv") if row["version"] == 1]
    assert [(row["batch"], row["status"]) for row in moved] == [(FIRST, "skipped")]
    assert windowed.does("run")["status"] == "nothing new"


def test_a_window_at_work_stays_as_it_was_begun(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), {"2026-03-29/a.csv": "id,at\nx,2026-03-28T23:30:00Z\n"})
    at("2026-03-30T00:00:00")
    windowed.does("extract", "p", "--run-id", "r")
    windowed.set_up({"source.batches": WINDOWS | {"window": "hourly"}, "models": {"a": EVENTS}})
    for stage in ("validate", "load", "gate"):
        windowed.does(stage, "p", "--run-id", "r")
    row = windowed.run_row("r")
    assert (row["batch"], row["window_end"]) == (FIRST, "2026-03-28T23:00:00Z")
    at("2026-03-29T02:00:00")
    windowed.does("run")
    assert list(windows_of(windowed)) == [FIRST, "20260328T230000Z", "20260329T000000Z", "20260329T010000Z"]


def test_a_published_window_that_a_gate_stopped_keeps_its_bounds(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1))
    check = windowed.root / "sql/gate/p/none.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a\n")
    at("2026-03-29T00:00:00")
    windowed.refused(6, "run")
    check.unlink()
    windowed.set_up({"source.batches": WINDOWS | {"window": "hourly"}, "models": {"a": EVENTS}})
    at("2026-03-28T23:30:00")
    windowed.does("run")
    assert windows_of(windowed) == {FIRST: "done until 2026-03-28T23:00"}


def test_without_catching_up_only_the_newest_window_is_taken(windowed: World, at: Callable[[str], None]) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-31T00:00:00")
    ended = windowed.call("run", "--output", "json")
    assert ended.code == 0, ended.err
    assert batches_of(ended.answer) == [THIRD]
    assert f"stepped over 2 windows, {FIRST} to {SHORT}" in ended.err
    assert list(windows_of(windowed)) == [THIRD]
    [decision] = windowed.does("state", "show", "p")["decisions"]
    assert (decision["kind"], decision["by"]) == ("skip", "ingestkit")
    assert {name: decision["subject"][name] for name in ("from", "batch", "windows", "models")} == {
        "from": FIRST,
        "batch": SHORT,
        "windows": 2,
        "models": ["a"],
    }
    assert windowed.does("run")["status"] == "nothing new"
    for batch in (SHORT, FIRST):
        windowed.does("backfill", "--batch", batch)
    assert list(windows_of(windowed)) == [FIRST, SHORT, THIRD]
    assert [batch for _, batch in windowed.table("a", "id", "_batch")] == [FIRST, SHORT, THIRD]
    assert windowed.does("run")["status"] == "nothing new"


def test_files_known_of_windows_that_are_stepped_over_are_skipped_and_no_others(
    windowed: World, at: Callable[[str], None]
) -> None:
    both = {"models": {"a": EVENTS, "b": EVENTS}, "source.expect": ["a", "b"]}
    windowed.set_up({"source.batches": WINDOWS, **both})
    windowed.drop(events("2026-03-28", 1), events("2026-03-28", 1, name="b"), events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    assert windowed.does("run")["status"] == "done"
    assert windowed.statuses()["2026-03-29/a.csv"] == "seen"
    windowed.drop(events("2026-03-28", 2, name="a_2"), events("2026-03-30", 1), events("2026-03-30", 1, name="b"))
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, **both})
    at("2026-03-31T00:00:00")
    windowed.does("run")
    waiting = {path for path, status in windowed.statuses().items() if status != "loaded"}
    assert (waiting, windowed.statuses()["2026-03-29/a.csv"]) == ({"2026-03-29/a.csv"}, "skipped")


def test_a_year_of_minutes_is_stepped_over_at_once(windowed: World, at: Callable[[str], None]) -> None:
    minutes = WINDOWS | {"window": "1 minute", "start": "2025-03-31", "catchup": False}
    windowed.set_up({"source.batches": minutes, "models": {"a": EVENTS}})
    at("2026-03-31T00:00:00")
    first = windowed.call("run", "--output", "json")
    assert batches_of(first.answer) == ["20260330T235900Z"]
    assert "stepped over 525719 windows" in first.err
    assert windowed.state("SELECT count(*) FROM completion") == [(1,)]
    assert windowed.does("run")["status"] == "nothing new"
    at("2026-03-31T00:03:00")
    assert windowed.does("plan", "p")["missed"] == [
        {"windows": 2, "first": "20260331T000000Z", "last": "20260331T000100Z", "until": "2026-03-31T00:02:00Z"}
    ]
    windowed.does("backfill", "--batch", "2025-06-01T12:00")
    assert windowed.state("SELECT count(*) FROM completion") == [(2,)]


def test_windows_behind_one_that_a_gate_stopped_are_stepped_over_when_it_is_done(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1), events("2026-03-30", 1))
    check = windowed.root / "sql/gate/p/none.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a\n")
    at("2026-03-29T00:00:00")
    windowed.refused(6, "run")
    at("2026-03-31T00:00:00")
    windowed.refused(6, "run")
    check.unlink()
    assert batches_of(windowed.does("run")) == [FIRST, THIRD]
    assert windowed.does("run")["status"] == "nothing new"
    assert windowed.table("a", "_batch") == [(FIRST,), (THIRD,)]
    [decision] = windowed.does("state", "show", "p")["decisions"]
    assert decision["subject"]["batch"] == SHORT


def test_an_older_copy_of_a_state_decides_nothing_and_can_be_adopted(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1), events("2026-03-30", 1))
    at("2026-03-29T00:00:00")
    windowed.does("run")
    older = windowed.database.read_bytes()
    at("2026-03-31T00:00:00")
    windowed.does("run")
    windowed.database.write_bytes(older)
    at("2026-04-02T00:00:00")
    assert "the lake holds a decision about p that the state does not know" in windowed.refused(7, "run")
    windowed.does("state", "adopt", "p", "--reason", "put back", "--yes")
    windowed.does("run")
    assert [one["kind"] for one in windowed.does("state", "show", "p")["decisions"]] == ["skip", "adopt", "skip"]


def test_a_window_that_failed_is_not_stepped_over_by_the_next(windowed: World, at: Callable[[str], None]) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.drop({"2026-03-28/a.csv": "id,at\nx,never\n"}, events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-29T00:00:00")
    windowed.refused(5, "run")
    at("2026-03-31T00:00:00")
    windowed.refused(5, "run")
    windowed.drop(events("2026-03-28", 1))
    assert batches_of(windowed.does("run")) == [FIRST, THIRD]
    assert windowed.does("run")["status"] == "nothing new"
    said = windowed.call("backfill", "--from", "2026-03-28", "--output", "json")
    assert said.answer["warnings"] == [
        f"1 batch of the range stepped over: {SHORT}; to load one: ingestkit backfill p --batch {SHORT}"
    ]


def test_windows_that_a_clock_ahead_stepped_over_are_told_and_can_be_taken(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-29T00:00:00")
    windowed.does("run")
    at("2026-04-10T00:00:00")
    windowed.does("run")
    windowed.drop(events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    ended = windowed.call("run", "--output", "json")
    assert (ended.code, ended.answer["status"]) == (0, "nothing new")
    assert "2 windows up to 20260408T220000Z count as done and have not ended" in ended.err
    windowed.does("state", "set", "p", "--batch", FIRST, "--reason", "the clock was ahead", "--yes")
    assert batches_of(windowed.does("run")) == [SHORT]


def test_a_plan_knows_where_a_model_begins_that_was_added(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-29T00:00:00")
    windowed.does("run")
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": EVENTS, "b": EVENTS}})
    assert windowed.does("plan", "p")["waiting"] == 0
    assert windowed.does("run")["status"] == "nothing new"


def test_what_is_of_no_window_is_named_though_no_window_is_looked_at(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop({"garbage/a.csv": "id,at\n"})
    at("2026-03-28T12:00:00")
    assert windowed.does("plan", "p")["strays"] == ["garbage"]
    assert "garbage in the source is of no batch" in windowed.call("run").err


def test_windows_that_a_clock_ahead_has_done_are_told_and_wait_for_their_end(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    windowed.drop(events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-30T00:00:00")
    ended = windowed.call("run", "--output", "json")
    assert (ended.code, batches_of(ended.answer)) == (0, [SHORT])
    assert f"1 window up to {THIRD} count as done and have not ended: a clock was ahead" in ended.err
    assert windowed.does("plan", "p")["ahead"] == [THIRD]
    at("2026-03-31T00:00:00")
    assert batches_of(windowed.does("run")) == [THIRD]
    assert windowed.does("plan", "p")["ahead"] == []


def test_a_key_within_a_window_is_told_to_be_none(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    for command in (("run",), ("backfill",)):
        said = windowed.refused(2, *command, "p", "--batch", "2026-03-28T12:00")
        assert "no window of p that has ended begins at 20260328T110000Z" in said
    windowed.does("backfill", "p", "--batch", "2026-03-28")


def test_windows_before_a_floor_are_not_taken_and_the_next_begins_behind_it(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), {"2026-03-30/a.csv": "id,at\nx,2026-03-29T22:30:00Z\n"})
    at("2026-03-31T00:00:00")
    said = windowed.refused(2, "state", "set", "p", "--batch", "2026-03-29T12:00", "--reason", "x", "--yes")
    assert "no window of p that has ended begins at 20260329T100000Z" in said
    windowed.does("state", "set", "p", "--batch", "2026-03-29", "--reason", "loaded before", "--yes")
    windowed.set_up({"source.batches": WINDOWS | {"window": "12h"}, "models": {"a": EVENTS}})
    at("2026-03-30T12:00:00")
    windowed.does("run")
    assert windows_of(windowed) == {
        THIRD: "done until 2026-03-29T23:00",
        "20260329T230000Z": "empty until 2026-03-30T11:00",
    }


def test_a_window_that_is_stepped_over_ends_where_it_would_have(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    windowed.does("skip", "p", "--batch", FIRST, "--reason", "none")
    windowed.set_up({"source.batches": WINDOWS | {"window": "monthly"}, "models": {"a": EVENTS}})
    at("2026-04-01T00:00:00")
    windowed.does("run")
    assert windows_of(windowed) == {FIRST: "skipped until 2026-03-28T23:00", SHORT: "done until 2026-03-31T22:00"}


def test_a_window_stepped_over_before_an_older_one_leaves_that_to_be_done(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-30T00:00:00")
    windowed.does("skip", "p", "--batch", SHORT, "--reason", "none")
    assert batches_of(windowed.does("run")) == [FIRST]


def test_an_older_window_done_again_replaces_its_own_rows_and_no_others(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    windowed.target_does("DELETE FROM a WHERE _batch <> '20260329T220000Z'")
    windowed.does("backfill", "--from", "2026-03-28", "--to", "2026-03-30")
    assert [id_ for (id_,) in windowed.table("a", "id")] == ["2026-03-28-1", "2026-03-29-1", "2026-03-30-1"]
    receipts = windowed.target("SELECT batch, generation, mode FROM ingestkit_receipt ORDER BY ALL")
    assert receipts == [(FIRST, 2, "window"), (SHORT, 2, "window"), (THIRD, 1, "window")]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_range_holds_the_windows_that_begin_in_it_and_tells_of_those_it_cuts(
    windowed: World, at: Callable[[str], None], dry: tuple[str, ...]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1), events("2026-03-30", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    named = ("--from", "2026-03-28T12:00Z", "--to", "2026-03-29T12:00Z")
    ended = windowed.call("backfill", "p", *named, *dry, "--output", "json")
    assert {one["batch"] for one in ended.answer["batches" if dry else "results"]} == {SHORT}
    assert [one["event"] for one in ended.log if one["level"] == "warning"] == [
        f"--from 20260328T120000Z lies within window {FIRST}, which begins before it and is not done again",
        f"--to 20260329T120000Z lies within window {SHORT}, which begins before it and is done again whole",
    ]
    whole = windowed.call("backfill", "p", "--from", "2026-03-28", "--to", "2026-03-30", *dry)
    assert [one for one in whole.log if one["level"] == "warning"] == []


def test_windows_are_built_again_from_the_lake_and_known_again_by_a_lost_state(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    at("2026-03-31T00:00:00")
    windowed.does("run")
    windowed.set_up({"source.batches": WINDOWS, "models": {"a": EVENTS}})
    windowed.does("backfill", "--batch", SHORT)
    before, rows = windows_of(windowed), windowed.table("a", "id")
    (windowed.root / "warehouse.duckdb").unlink()
    windowed.does("backfill", "p", "--from-lake")
    assert windowed.table("a", "id") == rows
    windowed.lose_state()
    windowed.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert windows_of(windowed) == before
    assert windowed.does("run")["status"] == "nothing new"
    assert windowed.run_row(f"p.{THIRD}.1")["window_end"] == "2026-03-30T22:00:00Z"


def test_a_state_built_again_knows_where_windows_began(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    began = windowed.state("SELECT windows_from FROM pipeline")
    windowed.lose_state()
    windowed.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert windowed.state("SELECT windows_from FROM pipeline") == began
    windowed.set_up({"source.batches": WINDOWS | {"start": "2026-03-14"}, "models": {"a": EVENTS}})
    assert windowed.does("run")["status"] == "nothing new"
    windowed.does("state", "reset", "p", "--reason", "from an earlier day", "--yes")
    assert len(windowed.does("run")["results"]) == 17
    windowed.lose_state()
    windowed.does("state", "adopt", "p", "--reason", "lost again", "--yes")
    windowed.set_up({"source.batches": WINDOWS | {"start": "2026-03-01"}, "models": {"a": EVENTS}})
    assert windowed.does("run")["status"] == "nothing new", "what was begun anew counts"


def test_a_state_that_is_built_again_knows_that_windows_began_with_one_stepped_over(
    windowed: World, at: Callable[[str], None]
) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1))
    at("2026-03-31T00:00:00")
    windowed.does("skip", "p", "--batch", FIRST, "--reason", "x")
    windowed.set_up({"source.batches": WINDOWS | {"start": "2026-03-14"}, "models": {"a": EVENTS}})
    windowed.does("run")
    [[began]] = windowed.state("SELECT windows_from FROM pipeline")
    windowed.lose_state()
    windowed.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert windowed.state("SELECT windows_from FROM pipeline") == [(began,)]
    assert windowed.does("run")["status"] == "nothing new"


@pytest.mark.parametrize(
    ("change", "knows"),
    [({"older_key": 1}, True), ({"window": "fortnightly"}, False), ({"timezone": "Mars/Olympus"}, False)],
)
def test_settings_of_then_that_are_not_valid_today_break_no_adopting(
    windowed: World, at: Callable[[str], None], change: dict[str, Any], *, knows: bool
) -> None:
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-31T00:00:00")
    windowed.does("run")
    began = windowed.state("SELECT windows_from FROM pipeline")
    for sidecar in (windowed.root / "lake/_runs").rglob("*.json"):
        said = json.loads(sidecar.read_text())
        said["run"]["config"]["pipeline"]["source"]["batches"] |= change
        sidecar.chmod(0o644)
        sidecar.write_text(json.dumps(said))
    windowed.lose_state()
    ended = windowed.call("state", "adopt", "p", "--reason", "lost", "--yes")
    assert ended.code == 0, ended.err
    assert (windowed.state("SELECT windows_from FROM pipeline") == began) is knows
    assert ("where windows of p began is not known any more" in ended.err) is not knows
    assert windowed.does("run")["status"] == "nothing new"


def test_of_waiting_windows_only_the_newest_snapshot_is_loaded(world: World, at: Callable[[str], None]) -> None:
    world.set_up({"source.batches": WINDOWS, "catch_up": "newest"})
    for day, number in (("2026-03-28", 1), ("2026-03-29", 2)):
        world.drop({f"{day}/a.csv": f"id,n\n1,{number}\n", f"{day}/b.csv": f"id,d\n{number},{day}\n"})
    at("2026-03-31T00:00:00")
    world.does("run")
    assert world.table("a", "id", "n", "_batch") == [("1", 2, SHORT)]
    assert world.completions()[FIRST, "a"] == "superseded"
    assert world.table("b", "id", "_batch") == [("1", FIRST), ("2", SHORT)]


def test_a_model_added_later_begins_where_the_windows_are(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1), events("2026-03-29", 1, name="b"))
    at("2026-03-29T00:00:00")
    windowed.does("run")
    windowed.set_up({"source.batches": WINDOWS | {"start": "2026-01-01"}, "models": {"a": EVENTS, "b": EVENTS}})
    at("2026-03-30T00:00:00")
    assert batches_of(windowed.does("run")) == [SHORT]
    assert windowed.table("b", "id") == [("2026-03-29-1",)]


def test_times_in_paths_are_of_the_zone_said_and_refused_where_they_are_none(
    windowed: World, at: Callable[[str], None]
) -> None:
    files = {"files": r"in/a_(?P<at>[^.]+)\.csv", "at": {"format": "%Y%m%d_%H", "timezone": "UTC"}}
    batches = {name: value for name, value in WINDOWS.items() if name != "folders"} | files
    model = EVENTS | {"files": r"a_.*\.csv"}
    windowed.set_up({"source.batches": batches, "models": {"a": model}})
    windowed.drop({"in/a_20260328_22.csv": events("2026-03-28", 22)["2026-03-28/a.csv"]})
    windowed.drop({"in/a_20260328_23.csv": events("2026-03-28", 23)["2026-03-28/a.csv"]})
    at("2026-03-30T00:00:00")
    windowed.does("run")
    assert windowed.table("a", "id", "_batch") == [("2026-03-28-22", FIRST), ("2026-03-28-23", SHORT)]
    windowed.drop({"in/a_20260332_01.csv": "id,at\n"})
    assert "'20260332_01' is not written %Y%m%d_%H" in windowed.refused(4, "run")


def test_the_plan_says_which_windows_wait(windowed: World, at: Callable[[str], None]) -> None:
    windowed.drop(events("2026-03-28", 1))
    at("2026-03-30T00:00:00")
    plan = windowed.does("plan", "p")
    assert [(one["batch"], one["window"]) for one in plan["batches"]] == [
        (FIRST, {"from": "2026-03-27T23:00:00+00:00", "to": "2026-03-28T23:00:00+00:00"}),
        (SHORT, {"from": "2026-03-28T23:00:00+00:00", "to": "2026-03-29T22:00:00+00:00"}),
    ]
    windowed.set_up({"source.batches": WINDOWS | {"catchup": False}, "models": {"a": EVENTS}})
    plan = windowed.does("plan", "p")
    assert [one["batch"] for one in plan["batches"]] == [SHORT]
    assert [(one["windows"], one["first"], one["last"]) for one in plan["missed"]] == [(1, FIRST, FIRST)]
