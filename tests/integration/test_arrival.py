"""Files that come in pieces, late or never: what is waited for, how long, and what a run and a plan say of it."""

import hashlib

from tests.integration.world import World, batches_of

ONE = "id,n\n1,1\n"
SUM = hashlib.sha256(ONE.encode()).hexdigest()


def test_a_batch_waits_for_its_marker_and_is_taken_with_it(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "0s", "marker": "_SUCCESS"}})
    world.drop({"20260101/a.csv": ONE})
    answer = world.does("run")
    assert (answer["status"], answer["message"]) == (
        "waiting",
        "batch 20260101 waits: 20260101/a.csv cannot be read yet: its marker 20260101/_SUCCESS has not come",
    )
    assert [one["batch"] for one in world.does("plan", "p")["not_yet"]] == ["20260101"]
    world.drop({"20260101/_SUCCESS": ""})
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.statuses() == {"20260101/a.csv": "loaded"}


def test_a_batch_that_waits_for_too_long_is_a_failure_that_names_what_is_missing(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "0s", "marker": "{name}.done"}, "source.overdue": "2h"})
    world.drop({"20260101/a.csv": ONE, "20260101/a.csv.done": "", "20260102/a.csv": ONE})
    assert batches_of(world.does("run")) == ["20260101"]
    world.make_older("file_manifest", "sighted_at", days=1)
    world.drop({"20260101/a_2.csv": ONE, "20260101/a_2.csv.done": ""})
    said = world.refused(4, "run")
    assert "batch 20260102 waits since" in said
    assert "longer than source.overdue allows (2h): 20260102/a.csv cannot be read yet: its marker" in said
    # What could be done before it was.
    assert world.statuses()["20260101/a_2.csv"] == "loaded"
    plan = world.call("plan", "p", "--output", "json")
    assert (plan.code, plan.answer["failure"]["exit_code"]) == (4, 4)
    world.drop({"20260102/a.csv.done": ""})
    assert batches_of(world.does("run")) == ["20260102"]


def test_an_expected_file_that_does_not_come_is_missed_too(world: World) -> None:
    world.set_up({"source.expect": ["a", "b"], "source.overdue": "1h"})
    world.drop({"20260101/a.csv": ONE})
    assert world.does("run")["status"] == "waiting"
    world.make_older("file_manifest", "sighted_at", days=1)
    assert "longer than source.overdue allows (1h): no file of b yet" in world.refused(4, "run")


def test_a_file_that_keeps_changing_is_overdue_too(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "0s", "marker": "{name}.done"}, "source.overdue": "2h"})
    world.drop({"20260101/a.csv": ONE})
    world.does("run")
    world.make_older("file_manifest", "first_seen", days=1)
    world.drop({"20260101/a.csv": ONE + "2,2\n"})
    assert "longer than source.overdue allows (2h)" in world.refused(4, "run")


def test_a_late_batch_can_be_a_failure(world: World) -> None:
    world.set_up({"source.late": "fail"})
    world.drop({"20260102/a.csv": ONE})
    world.does("run")
    world.drop({"20260101/a.csv": ONE, "20260103/a.csv": ONE})
    said = world.refused(4, "run")
    assert "batch 20260101 came after newer ones were done, and source.late is fail" in said
    assert world.checkpoint() == "20260103"
    world.does("skip", "p", "--batch", "20260101", "--reason", "known")
    assert world.does("run")["status"] == "nothing new"


def test_a_file_that_does_not_fit_its_checksum_is_not_landed_until_it_does(world: World) -> None:
    world.drop({"20260101/a.csv": "id,n\n1,\n", "20260101/a.csv.sha256": f"{SUM}  a.csv\n"})
    assert "20260101/a.csv is not what a.csv.sha256 says" in world.refused(4, "run")
    assert world.statuses() == {"20260101/a.csv": "seen"}
    world.drop({"20260101/a.csv": ONE})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 1)]


def test_a_marker_that_is_ignored_is_refused(world: World) -> None:
    world.set_up({"source.settle": {"marker": "{name}.tmp"}})
    assert "settle.marker names files that ignore leaves out" in world.refused(3, "run")


def test_a_run_shows_what_of_its_batch_came_late_and_what_did_not_come(world: World) -> None:
    world.set_up({"source.late": "load"})
    world.drop({"20260102/a.csv": ONE})
    world.does("run")
    world.drop({"20260101/a.csv": ONE, "20260102/a_2.csv": ONE})
    world.does("run")
    in_time, late, again = (
        world.does("runs", "show", run)["arrival"] for run in ("p.20260102.1", "p.20260101.1", "p.20260102.2")
    )
    assert (in_time["late_behind"], in_time["late_files"], in_time["without_files"]) == (None, [], ["b"])
    assert (late["late_behind"], late["late_files"], late["without_files"]) == ("20260102", [], ["b"])
    assert (again["late_behind"], again["late_files"]) == (None, ["20260102/a_2.csv"])
    assert in_time["first_seen"] < late["first_seen"]
    assert in_time["last_seen"] == again["last_seen"]
    world.does("extract", "--run-id", "idle")
    assert world.does("runs", "show", "idle")["arrival"] is None
