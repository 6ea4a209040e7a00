import json
import re
import shutil

import pytest

from ingestkit import steps
from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, World, batches_of

BAD = {"20260108/a.csv": BREAKS}


def test_batches_are_done_in_order_oldest_first(world: World) -> None:
    world.drop(THIRD, FIRST, SECOND)
    assert batches_of(world.does("run")) == ["20260101", "20260108", "20260115"]
    assert world.checkpoint() == "20260115"


def test_numbers_sort_as_numbers(world: World) -> None:
    world.set_up({"source.batches": {"folders": r"(?P<batch>\d+)", "kind": "integer"}})
    world.drop({f"{number}/a.csv": "id,n\n1,1\n" for number in (9, 10, 100)})
    assert batches_of(world.does("run")) == ["9", "10", "100"]
    world.drop({"11/a.csv": "id,n\n1,1\n"})
    assert world.does("run")["status"] == "nothing new"


def test_a_failing_batch_stops_those_behind_it(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD, BAD)
    said = world.refused(5, "run")
    assert "20260108/a.csv: 3 of 3 records (100.0 %) break the contract" in said
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS", "p.20260108.1": "FAILED"}
    assert world.checkpoint() == "20260101"
    assert world.table("b", "id") == [("x",), ("y",)]
    world.refused(5, "run")
    assert world.run_statuses()["p.20260108.2"] == "FAILED"


def test_a_corrected_file_lets_the_others_follow(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD, BAD)
    world.refused(5, "run")
    world.drop(SECOND)
    assert batches_of(world.does("run")) == ["20260108", "20260115"]
    assert world.checkpoint() == "20260115"
    assert world.table("a", "id", "n") == [("1", 12), ("4", 40)]


def test_a_batch_can_be_stepped_over(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD, BAD)
    world.refused(5, "run")
    world.does("skip", "p", "--batch", "20260108", "--reason", "broken at the source", "--by", "Zoë")
    assert batches_of(world.does("run")) == ["20260115"]
    assert world.checkpoint() == "20260115"
    assert world.completions()["20260108", "b"] == "skipped"
    assert set(world.statuses("--batch", "20260108").values()) == {"skipped"}
    [decision] = [one for one in world.does("state", "show")["decisions"] if one["kind"] == "skip"]
    assert (decision["by"], decision["reason"]) == ("Zoë", "broken at the source")
    copies = [path.read_text() for path in (world.root / "lake/_decisions/p").iterdir()]
    assert any("broken at the source" in copy for copy in copies)
    assert world.does("run")["status"] == "nothing new"


def test_a_done_batch_cannot_be_stepped_over(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    assert "is done already" in world.refused(2, "skip", "p", "--batch", "20260101", "--reason", "x")


def test_limit_takes_at_most_so_many(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD)
    assert batches_of(world.does("run", "--limit", "2")) == ["20260101", "20260108"]
    assert batches_of(world.does("run", "--limit", "2")) == ["20260115"]


def test_a_batch_takes_its_turn(world: World) -> None:
    world.drop(FIRST, SECOND)
    said = world.refused(2, "run", "--batch", "20260108")
    assert "batch 20260101 waits before 20260108" in said
    assert batches_of(world.does("run", "--batch", "20260101")) == ["20260101"]
    assert "the source has no batch '20269999'" in world.refused(2, "run", "--batch", "20269999")


def test_models_are_completed_each_for_itself_and_the_checkpoint_waits_for_all(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run", "--model", "a")
    assert world.completions() == {("20260101", "a"): "done", ("20260108", "a"): "done"}
    assert world.checkpoint() is None
    world.does("run", "--model", "b", "--limit", "1")
    assert world.checkpoint() == "20260101"
    world.does("run")
    assert world.checkpoint() == "20260108"
    assert len(world.completions()) == 4
    assert world.does("run")["status"] == "nothing new"


def test_a_model_that_is_none_is_refused_with_those_there_are(world: World) -> None:
    assert "has no model 'c'; it has a, b" in world.refused(2, "run", "--model", "c")


def test_a_model_added_later_begins_after_the_checkpoint(world: World) -> None:
    world.drop(FIRST, {"20260101/c.csv": "id\n1\n"})
    world.does("run")
    world.set_up({"models.c": {"key": ["id"], "columns": {"id": {}}}})
    assert world.does("run")["status"] == "nothing new"
    world.drop(SECOND, {"20260108/c.csv": "id\n2\n"})
    world.does("run")
    assert world.table("c", "id", "_batch") == [("2", "20260108")]
    assert world.checkpoint() == "20260108"
    [decision] = world.does("state", "show")["decisions"]
    assert (decision["kind"], decision["by"]) == ("set", "ingestkit")


def test_an_older_folder_that_comes_late_is_reported_and_not_loaded(world: World) -> None:
    world.drop(FIRST, THIRD)
    world.does("run")
    world.drop(SECOND)
    ended = world.call("run")
    assert ended.code == 0
    assert "batch 20260108 came after newer ones were done and is not loaded" in ended.err
    assert not any(batch == "20260108" for batch, _ in world.completions())
    world.set_up({"source.late": "load"})
    world.does("run")
    assert world.completions()["20260108", "a"] == "superseded"
    assert world.completions()["20260108", "b"] == "done"
    assert world.table("a", "id", "n") == [("1", 12), ("4", 40)]
    assert world.table("b", "id", "_batch") == [("x", "20260115"), ("y", "20260101"), ("z", "20260108")]
    assert world.checkpoint() == "20260115"


def test_a_pipeline_is_paused_and_resumed(world: World) -> None:
    world.drop(FIRST)
    world.does("pause", "p", "--reason", "audit", "--by", "Zoë")
    for command in ("run", "extract"):
        answer = world.does(command)
        assert (answer["status"], "paused by Zoë" in answer["message"]) == ("paused", True)
    assert world.run_statuses() == {}
    world.does("resume", "p", "--reason", "over")
    assert world.does("run")["status"] == "done"
    world.does("pause", "p", "--reason", "audit again")
    assert world.does("backfill", "p", "--batch", "20260101")["status"] == "paused"


def test_a_pipeline_that_fails_again_and_again_is_held(world: World) -> None:
    world.set_up({"retry.hold_after": 2})
    world.drop(FIRST, {"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    world.refused(5, "run")
    answer = world.does("run")
    assert (answer["status"], "2 runs failed in a row" in answer["message"]) == ("held", True)
    assert len(world.run_statuses()) == 2
    world.drop(FIRST)
    assert world.does("run")["status"] == "held"
    world.does("resume", "p", "--reason", "corrected")
    assert world.does("run")["status"] == "done"


def test_a_resumed_pipeline_is_held_again_only_after_as_many_failures(world: World) -> None:
    world.set_up({"retry.hold_after": 2})
    world.drop(FIRST, {"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    world.refused(5, "run")
    world.does("resume", "p", "--reason", "try")
    world.refused(5, "run")
    world.refused(5, "run")
    assert world.does("run")["status"] == "held"


def test_a_checkpoint_that_has_not_moved_for_long_is_warned_of(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    assert world.does("run")["warnings"] == []
    world.make_older("pipeline", "moved_at", days=14)
    [warning] = world.does("run")["warnings"]
    assert "no batch of p was done since" in warning
    world.settle({"state.stale_after": "30d"})
    assert world.does("run")["warnings"] == []


def test_a_checkpoint_behind_a_failing_batch_is_warned_of_too(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.make_older("pipeline", "moved_at", days=15)
    world.drop({"20260108/a.csv": BREAKS})
    ended = world.call("run")
    assert ended.code == 5
    assert "no batch of p was done since" in ended.err


def test_a_floor_that_is_set_takes_what_is_below_for_done(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("state", "set", "p", "--batch", "20260101", "--reason", "loaded by hand", "--yes")
    assert batches_of(world.does("run")) == ["20260108"]
    assert world.checkpoint() == "20260108"


def test_a_reset_takes_everything_again_and_doubles_nothing(world: World) -> None:
    world.set_up({"models.b.load": "append"})
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("a", "id", "n"), world.table("b", "id", "d")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    assert batches_of(world.does("run")) == ["20260101", "20260108"]
    assert (world.table("a", "id", "n"), world.table("b", "id", "d")) == before
    assert world.does("run")["status"] == "nothing new"


def test_what_the_source_shows_no_more_is_no_work_behind_a_reset(world: World) -> None:
    world.set_up({"models.b.load": "append"})
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("a", "id", "n"), world.table("b", "id", "d")
    shutil.rmtree(world.root / "drops/20260101")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    assert batches_of(world.does("run")) == ["20260108"]
    assert {batch for batch, _ in world.completions()} == {"20260108"}
    assert (world.table("a", "id", "n"), world.table("b", "id", "d")) == before
    assert world.does("run")["status"] == "nothing new"


def test_what_was_let_go_by_a_reset_is_put_back_from_the_lake(world: World) -> None:
    world.set_up({"models.b.load": "append"})
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("b", "id", "d")
    shutil.rmtree(world.root / "drops/20260101")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    world.does("run")
    world.target_does("DROP TABLE b")
    told = world.call("backfill", "p", "--from-lake")
    assert told.code == 0
    assert world.table("b", "id", "d") != before
    [hint] = re.findall(r"ingestkit (backfill p --batch 20260101 --model b --as-of \S+) --reason", told.err)
    assert "--as-of TIME" in world.refused(2, "backfill", "p", "--batch", "20260101", "--from-lake")
    world.does(*hint.split(), "--reason", "wanted")
    assert world.table("b", "id", "d") == before
    assert world.does("run")["status"] == "nothing new"
    world.target_does("DROP TABLE b")
    world.does("backfill", "p", "--from-lake")
    assert world.table("b", "id", "d") == before


def test_only_a_batch_somebody_knows_is_stepped_over(world: World) -> None:
    world.set_up({"source.batches.kind": "date"})
    world.drop(FIRST)
    assert "no batch key" in world.refused(2, "skip", "p", "--batch", "foo", "--reason", "typo")
    assert "knows" in world.refused(2, "skip", "p", "--batch", "20310101", "--reason", "typo")
    assert "no batch key" in world.refused(2, "state", "set", "p", "--batch", "foo", "--reason", "typo", "--yes")
    world.does("skip", "p", "--batch", "20260101", "--reason", "not wanted")
    assert world.checkpoint() == "2026-01-01"


def test_a_batch_that_is_in_the_target_is_not_stepped_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST)

    def end(step: str) -> None:
        if step == "load.committed":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", end)
        world.call("run")
    assert "published already" in world.refused(2, "skip", "p", "--batch", "20260101", "--reason", "no more")
    world.does("run")
    assert world.checkpoint() == "20260101"


def test_a_restated_file_that_breaks_its_contract_is_stepped_over(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": BREAKS}, SECOND)
    world.refused(5, "run")
    told = world.does("skip", "p", "--batch", "20260101", "--reason", "the old one stands")
    assert "20260101/a.csv" in told["message"]
    assert batches_of(world.does("run")) == ["20260108"]
    assert world.completions()["20260101", "a"] == "done"


def test_a_late_batch_says_only_what_is_done_with_it(world: World) -> None:
    world.drop(SECOND)
    world.does("run")
    world.drop(FIRST)
    assert "source.late is report" in world.refused(2, "run", "--batch", "20260101")
    world.set_up({"source.late": "load"})
    ended = world.call("run")
    assert ended.code == 0
    assert "not loaded" not in ended.err + ended.out


def test_a_failure_tells_programs_what_was_done_before_it(world: World) -> None:
    world.drop(FIRST, {"20260108/a.csv": BREAKS, "20260108/b.csv": SECOND["20260108/b.csv"]})
    ended = world.call("run", "--output", "json")
    assert ended.code == 5
    said = ended.answer
    assert (said["status"], said["exit_code"]) == ("failed", 5)
    assert said["run_ids"] == ["p.20260101.1", "p.20260108.1"]
    assert "3 of 3 records (100.0 %) break the contract" in said["message"]
    assert [(one["batch"], one["model"], one["stage"], one["status"]) for one in said["results"]] == [
        ("20260101", "a", "run", "done"),
        ("20260101", "b", "run", "done"),
        ("20260108", "a", "validate", "failed"),
        ("20260108", "b", "validate", "success"),
    ]
    lines = [json.loads(line) for line in world.call("run", "--output", "ndjson").out.splitlines()]
    assert [(one["kind"], one["status"]) for one in lines[-2:]] == [("model", "skipped"), ("outcome", "failed")]


def test_a_gate_that_fails_tells_programs_that_its_models_are_not_done(world: World) -> None:
    path = world.root / "sql/gate/p/own.sql"
    path.parent.mkdir(parents=True)
    path.write_text("-- models: a\nSELECT * FROM a\n")
    world.drop(FIRST)
    said = world.call("run", "--output", "json").answer
    assert [(one["model"], one["stage"], one["status"], one["rows"]) for one in said["results"]] == [
        ("a", "gate", "failed", 2),
        ("b", "gate", "failed", 2),
    ]


@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_batch_that_failed_and_is_gone_from_the_source_is_told_each_time_until_it_is_stepped_over(
    world: World, keep: str
) -> None:
    world.set_up({"keep": keep})
    world.drop({"20260101/a.csv": "id,n\nx,y\n"}, SECOND)
    world.refused(5, "run")
    shutil.rmtree(world.root / "drops/20260101")
    told = "batch 20260101 is gone from the source before it was published, and is passed over"
    for command in ("run", "run", "plan"):
        ended = world.call(command, "p")
        assert (ended.code, told in ended.err) == (0, True), ended.err
    world.does("skip", "p", "--batch", "20260101", "--reason", "the sender has it no more")
    assert told not in world.call("run").err


@pytest.mark.parametrize("loss", ["warehouse", "table"])
def test_what_was_done_before_a_reset_and_is_at_the_source_no_more_is_told_when_the_target_is_lost(
    world: World, loss: str
) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    shutil.rmtree(world.root / "drops/20260101")
    if loss == "table":
        world.target_does("DROP TABLE b")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    ended = world.call("run")
    assert ended.code == 0
    if loss == "table":
        told = "b: its table is gone and begins anew; what it held of 20260101 is at the source no more"
        assert told in ended.err
        return
    assert world.table("b", "id") == [("x",), ("y",), ("z",)]
    (world.root / "warehouse.duckdb").unlink()
    ended = world.call("backfill", "p", "--from-lake")
    assert ended.code == 0
    told = "b: batch 20260101 was done before the state was reset, and not since; it is not built again"
    assert told in ended.err
    # A newer snapshot stands over it.
    assert "a: batch 20260101 was done" not in ended.err


@pytest.mark.parametrize("load", ["append", "replace"])
def test_a_file_that_is_gone_when_its_batch_is_done_anew_behind_a_reset_is_told(world: World, load: str) -> None:
    world.set_up({"models.b.load": load})
    world.drop({"20260101/b_1.csv": "id,d\nx,2026-01-01\n", "20260101/b_2.csv": "id,d\ny,2026-01-01\n"})
    world.does("run")
    (world.root / "drops/20260101/b_1.csv").unlink()
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    ended = world.call("run")
    assert ended.code == 0
    assert "20260101/b_1.csv was loaded before, was forgotten, and is gone from the source" in ended.err
    assert world.table("b", "id") == [("y",)]
    assert "b_1.csv" not in world.call("run").err


def test_what_a_reset_let_go_of_is_not_said_to_wait_for_its_gate(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    shutil.rmtree(world.root / "drops/20260101")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    told = str(world.does("state", "adopt", "p", "--reason", "looked", "--yes")["warnings"])
    assert "never came to its gate" not in told
    assert "b: batch 20260101 was done before a reset and stays as it is" in told


def test_what_is_older_than_a_batch_that_was_stepped_over_is_not_late(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("skip", "p", "--batch", "20260108", "--reason", "not wanted")
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.does("run")["status"] == "nothing new"
    assert world.completions()["20260108", "a"] == "skipped"
