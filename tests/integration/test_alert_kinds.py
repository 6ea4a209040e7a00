"""What runs see of themselves, and what is only seen from outside, is told as what it is; none of it with a value."""

import json
from datetime import UTC, datetime, timedelta

from tests.integration.alerted import CELL, SECRET, Told
from tests.integration.world import FIRST, SECOND, THIRD

OUTSIDE = ("alerts", "check")


def test_rows_that_are_far_from_usual(told: Told) -> None:
    told.world.set_up({"gate.row_delta_pct": 50})
    told.world.drop(FIRST, SECOND)
    told.run(0)
    told.world.drop({**THIRD, "20260115/a.csv": "id,n\n" + "".join(f"{one},1\n" for one in range(90))})
    told.run(6)
    assert told.kinds == [("row_delta", "open")]
    assert "row_delta" in told.messages[0]["text"]
    told.world.drop({"20260115/a.csv": THIRD["20260115/a.csv"]})
    told.run(0)
    assert told.kinds[1:] == [("row_delta", "recovered")]


def test_who_wants_no_such_kind_hears_that_the_gate_closed(told: Told) -> None:
    told.world.set_up({"gate.row_delta_pct": 50, "alerts": {"kinds": ["gate"]}})
    told.world.drop(FIRST, SECOND)
    told.run(0)
    told.world.drop({**THIRD, "20260115/a.csv": "id,n\n" + "".join(f"{one},1\n" for one in range(90))})
    told.run(6)
    assert told.kinds == [("gate", "open")]


def test_counts_that_do_not_agree(told: Told) -> None:
    told.world.set_up({"source.totals": {"report": "{stem}.json", "counts": "counts"}})
    told.world.drop(
        FIRST, {"20260101/a.json": json.dumps({"counts": {"a": 3}}), "20260101/b.json": '{"counts": {"b": 2}}'}
    )
    told.run(5)
    assert told.kinds == [("counts", "open")]
    assert "says 3 records" in told.messages[0]["text"]


def test_a_file_that_must_be_there_and_is_not(told: Told) -> None:
    told.world.set_up({"models.b.absent": "fail"})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(5)
    assert told.kinds == [("missing", "open")]
    told.heals()
    told.run(0)
    assert told.kinds[1:] == [("missing", "recovered")]


def test_a_file_that_should_be_there_and_is_not(told: Told) -> None:
    told.world.set_up({"models.b.absent": "warn"})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(0)
    told.run(0)
    # It happened: the batch is done without it, and it is not told that this is over.
    assert told.kinds == [("missing", "happened")]
    assert told.messages[0]["text"] == "batch 20260101 has no file of b"


def test_a_batch_that_is_waited_for_too_long(told: Told) -> None:
    told.world.set_up({"source.overdue": "1h", "source.expect": ["a", "b"]})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(0)
    for column in ("sighted_at", "first_seen"):
        told.world.make_older("file_manifest", column, days=1)
    told.run(4)
    assert told.kinds == [("missing", "open")]


def test_a_batch_that_comes_late(told: Told) -> None:
    told.world.drop(SECOND)
    told.run(0)
    told.world.drop(FIRST)
    told.run(0)
    told.run(0)
    assert told.kinds == [("late", "happened")]
    assert "20260101 came after newer ones" in told.messages[0]["text"]


def test_a_late_batch_that_fails_the_run(told: Told) -> None:
    told.world.set_up({"source.late": "fail"})
    told.world.drop(SECOND)
    told.run(0)
    told.world.drop(FIRST)
    told.run(4)
    assert told.kinds == [("late", "open")]


def test_files_that_come_into_a_batch_that_is_done(told: Told) -> None:
    told.world.set_up({"source.late_scan": "30d"})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(0)
    told.world.drop(FIRST)
    told.run(0)
    assert told.kinds == [("late", "happened")]
    assert told.messages[0]["text"] == "1 file came into batch 20260101 when it was done"


def test_headers_that_change_are_told_once_for_each_change(told: Told) -> None:
    told.world.set_up({"models.a.drift": "ignore"})
    told.world.drop({**FIRST, "20260101/a.csv": f"id,n,{CELL}\n1,10,x\n"})
    told.run(0)
    told.world.drop({**SECOND, "20260108/a.csv": f"id,n,{CELL}\n1,10,x\n"})
    told.run(0)
    assert told.kinds == [("drift", "happened")]
    [message] = told.messages
    assert message["text"] == "headers of a are not what its contract says, columns: 1 extra (left out)"
    # What stands where a header should be may be a row.
    assert CELL not in json.dumps(message)
    told.world.drop({**THIRD, "20260115/a.csv": "id,n,other\n1,10,x\n"})
    told.run(0)
    assert told.kinds[1:] == [("drift", "happened")]
    assert told.world.state("SELECT count(*) FROM alert WHERE kind = 'drift'") == [(2,)]
    # What happened long ago is forgotten once something else is noted.
    told.world.make_older("alert", "last_at", days=31)
    told.world.drop({"20260122/a.csv": "id,n,third\n1,10,x\n"})
    told.run(0)
    assert told.world.state("SELECT count(*) FROM alert WHERE kind = 'drift'") == [(1,)]


def test_a_header_that_fails_its_file(told: Told) -> None:
    told.world.drop({**FIRST, "20260101/a.csv": "id,n,m\n1,10,x\n"})
    told.run(5)
    assert told.kinds == [("drift", "open")]


def test_a_stage_that_took_longer_than_usual(told: Told) -> None:
    told.world.set_up({"alerts": {"slow_from": "1ms", "slow": 2}})
    told.world.drop(FIRST)
    told.run(0)
    told.world.state("UPDATE pipeline_stage SET seconds = 1000")
    told.world.drop(SECOND)
    told.run(0)
    assert told.kinds == []
    # What was usual was much less.
    told.world.state("UPDATE pipeline_stage SET seconds = 0.0001 WHERE stage = 'validate' AND model = 'a'")
    told.world.drop(THIRD)
    told.run(0)
    assert told.kinds == [("slow", "happened")]
    assert "validate of a took" in told.messages[0]["text"]
    told.run(0)
    assert len(told.messages) == 1


def test_a_stage_at_work_for_too_long_is_seen_from_outside(told: Told) -> None:
    told.world.drop(FIRST)
    told.run(0)
    told.world.state("UPDATE pipeline_stage SET expected_seconds = 1 WHERE stage = 'load' AND model = 'a'")
    told.world.state("UPDATE pipeline_stage SET status = 'RUNNING' WHERE stage = 'load' AND model = 'a'")
    told.run(0, *OUTSIDE)
    assert told.kinds == []
    told.world.make_older("pipeline_stage", "started_at", days=1)
    told.run(0, *OUTSIDE)
    told.run(0, *OUTSIDE)
    assert told.kinds == [("hangs", "open")]
    assert "load of a is at work since" in told.messages[0]["text"]
    told.world.state("UPDATE pipeline_stage SET status = 'SUCCESS' WHERE stage = 'load' AND model = 'a'")
    told.run(0, *OUTSIDE)
    assert told.kinds[1:] == [("hangs", "recovered")]


def test_a_batch_that_was_seen_and_is_not_done(told: Told) -> None:
    told.world.set_up({"alerts": {"overdue": "2h", "kinds": ["overdue"]}, "source.expect": ["a", "b"]})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(0)
    told.run(0, *OUTSIDE)
    assert told.kinds == []
    told.world.make_older("file_manifest", "first_seen", days=1)
    told.run(0, *OUTSIDE)
    assert told.kinds == [("overdue", "open")]
    assert "not done: 20260101; the oldest waits since" in told.messages[0]["text"]
    told.heals()
    told.run(0)
    told.run(0, *OUTSIDE)
    assert told.kinds[1:] == [("overdue", "recovered")]


def test_windows_that_ended_and_are_not_done(told: Told) -> None:
    start = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%d}"
    window = {"folders": r"(?P<at>\d{8})", "at": {"format": "%Y%m%d"}, "window": "daily", "start": start}
    told.world.set_up({"source.batches": window, "alerts": {"overdue": "2h", "kinds": ["overdue"]}})
    told.run(0, *OUTSIDE)
    assert told.kinds == [("overdue", "open")]
    assert f"not done: {start.replace('-', '')}T000000Z, " in told.messages[0]["text"]
    told.run(0)
    told.run(0, *OUTSIDE)
    assert told.kinds[1:] == [("overdue", "recovered")]


def test_runs_that_fail_too_often(told: Told) -> None:
    limit = {"least_pct": 60, "over": "7d", "runs": 2}
    told.world.set_up({"alerts": {"success_rate": limit, "kinds": ["success_rate"]}})
    told.breaks()
    told.run(5)
    told.run(0, *OUTSIDE)
    assert told.kinds == []
    told.heals()
    told.run(0)
    told.run(0, *OUTSIDE)
    assert told.kinds == [("success_rate", "open")]
    assert told.messages[0]["text"] == "1 of 2 runs ended well in 1w, and 60 % must"
    told.world.drop(SECOND)
    told.run(0)
    told.run(0, *OUTSIDE)
    assert told.kinds[1:] == [("success_rate", "recovered")]


def test_failures_of_several_kinds_are_one_row_of_failures(told: Told) -> None:
    told.world.set_up({"alerts": {"repeated": 2}, "models.b.absent": "fail"})
    told.world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told.run(5)
    told.breaks()
    told.run(5)
    assert sorted(told.kinds) == [("failed", "open"), ("missing", "open"), ("repeated", "open")]


def test_what_was_done_is_told_where_that_is_wanted(told: Told) -> None:
    told.world.set_up({"alerts": {"on_success": "summary"}})
    told.world.drop(FIRST, SECOND)
    told.run(0)
    told.run(0)
    assert told.kinds == [("summary", "happened")]
    text = told.messages[0]["text"]
    assert text == "done: 20260101, 20260108; 4 files, 8 rows loaded, 0 records rejected"


def test_a_batch_of_a_range_that_fails_is_told_before_the_next_is_done(told: Told) -> None:
    told.world.drop(FIRST, SECOND)
    told.run(0)
    path = told.world.root / "sql/gate/p/first.sql"
    path.parent.mkdir(parents=True)
    path.write_text("-- models: b\nSELECT * FROM b")
    # Whoever hears of the first failure says what is in the state then.
    seen: list[int] = []
    told.receiver.hears = lambda: seen.append(told.world.state("SELECT count(*) FROM pipeline_run")[0][0])
    told.run(6, "backfill", "p", "--from", "20260101", "--to", "20260109")
    assert told.kinds[0] == ("gate", "open")
    assert seen[0] == 3
    assert told.world.state("SELECT count(*) FROM pipeline_run") == [(4,)]


def test_of_every_kind_no_message_holds_a_secret_or_a_value(told: Told) -> None:
    """All that can be seen of one pipeline, whose cells, header and settings are all to be kept to itself."""
    limit = {"least_pct": 100, "runs": 1}
    alerts = {"success_rate": limit, "overdue": "1h", "freshness": "1h", "repeated": 2, "on_success": "summary"}
    changes = {
        "alerts": alerts | {"slow_from": "1ms", "slow": 1.01},
        "models.a.drift": "ignore",
        "models.b.absent": "warn",
        "retry.hold_after": 3,
    }
    told.world.set_up(changes)
    rows = "".join(f"{one},{CELL}\n" for one in range(3))
    told.world.drop({"20260101/a.csv": f"id,n,{CELL}\n7,1,{CELL}\n"})
    told.run(0)
    told.world.drop(SECOND)
    told.world.drop({"20260108/a.csv": f"id,n\n{rows}"})
    told.world.state("UPDATE pipeline_stage SET seconds = 0.0001")
    for _ in range(3):
        told.run(5)
    told.world.make_older("file_manifest", "first_seen", days=1)
    told.world.make_older("completion", "at", days=1)
    told.run(0, *OUTSIDE)
    seen = {kind for kind, _ in told.kinds}
    assert seen >= {
        "failed",
        "repeated",
        "held",
        "missing",
        "drift",
        "slow",
        "summary",
        "stale",
        "overdue",
        "success_rate",
    }
    said = b"".join(told.receiver.bodies).decode()
    for secret in (SECRET, CELL, told.receiver.url):
        assert secret not in said
    kept = str(told.world.state("SELECT * FROM alert"))
    assert SECRET not in kept
    assert CELL not in kept
