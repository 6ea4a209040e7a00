"""Full files and files of changes alone, told apart by their names: the one replaces a table, the other is merged."""

import time
from datetime import UTC, datetime

import pytest

from tests.integration.world import World, batches_of

DELTAS = {"models.a.delta": "(?i)delta", "models.a.delete_when": {"n": ["-1"]}, "gate": {"row_delta_pct": 30}}
ANY_SIZE = DELTAS | {"gate": {"row_delta_pct": "never"}}
FULL = {"20260101/a_full.csv": "id,n\n1,10\n2,20\n3,30\n4,-1\n"}
CHANGES = {"20260108/a_delta.csv": "id,n\n2,21\n3,-1\n5,50\n"}
AGAIN = {"20260115/A_FULL_20260115.csv": "id,n\n1,11\n5,50\n6,60\n"}


@pytest.fixture
def told_apart(world: World) -> World:
    world.set_up(DELTAS)
    return world


def now() -> str:
    """The present instant, with room on both sides of it."""
    time.sleep(0.01)
    said = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    return said


def modes(world: World) -> list[tuple[object, ...]]:
    return sorted(world.state("SELECT batch, mode FROM completion WHERE model = 'a'"))


def test_a_full_file_replaces_and_changes_are_merged_batch_by_batch(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES)
    assert batches_of(told_apart.does("run")) == ["20260101", "20260108"]
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]
    assert modes(told_apart) == [("20260101", "replace"), ("20260108", "merge")]
    told_apart.drop(AGAIN)
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 11), ("5", 50), ("6", 60)]
    assert told_apart.does("run")["status"] == "nothing new"


def test_what_says_that_its_key_is_gone_is_not_in_a_full_table_either_and_is_counted(told_apart: World) -> None:
    told_apart.drop(FULL)
    [result] = [one for one in told_apart.does("run")["results"] if one["model"] == "a"]
    assert told_apart.table("a", "id") == [("1",), ("2",), ("3",)]
    counts = told_apart.run_row(result["run_id"])["counts"]
    assert (counts["valid"], counts["staged"], counts["deletes"], counts["loaded"]) == (4, 4, 1, 3)


def test_changes_that_change_nothing_that_was_loaded_are_told(told_apart: World) -> None:
    told = "a: batch 20260108 holds changes, and no full file was loaded before: rows that no change speaks of"
    told_apart.drop(FULL, CHANGES)
    assert told not in told_apart.call("run").err
    # Loaded again from what the source still holds, which is not all.
    (told_apart.root / "warehouse.duckdb").unlink()
    (told_apart.root / "drops/20260101/a_full.csv").unlink()
    (told_apart.root / "drops/20260101").rmdir()
    told_apart.does("state", "reset", "p", "--reason", "lost", "--yes")
    ended = told_apart.call("run")
    assert (ended.code, told in ended.err) == (0, True)
    assert "have a full file delivered" in ended.err


def test_full_and_changes_in_one_batch_are_refused_by_name(told_apart: World) -> None:
    told_apart.drop(FULL, {"20260101/a_delta.csv": "id,n\n9,9\n"})
    said = told_apart.refused(5, "run")
    assert (
        "20260101/a_delta.csv holds changes by its name, and 20260101/a_full.csv of the same batch all there is" in said
    )
    assert told_apart.state("SELECT count(*) FROM completion") == [(0,)]


def test_plan_tells_what_would_be_done_before_a_batch_of_both_kinds(told_apart: World) -> None:
    told_apart.drop(CHANGES, {"20260115/a_full.csv": "id,n\n2,21\n", "20260115/a_delta.csv": "id,n\n2,21\n"})
    ended = told_apart.call("plan", "--output", "json")
    assert ended.code == 5
    told = ended.answer
    assert [one["batch"] for one in told["batches"]] == ["20260108", "20260115"]
    assert "20260115/a_delta.csv holds changes by its name" in told["failure"]["message"]
    assert batches_of(told_apart.call("run", "--output", "json").answer) == ["20260108", "20260115"]


def test_changes_are_not_held_against_the_rows_of_full_files(told_apart: World) -> None:
    """One row where three are usual would close a full batch's rule."""
    told_apart.drop(FULL, {"20260108/a_delta.csv": "id,n\n7,70\n"})
    told_apart.does("run")
    told_apart.drop({"20260115/a_full.csv": "id,n\n1,1\n"})
    assert "row_delta" in told_apart.refused(6, "run")


def test_a_late_change_to_a_done_batch_leaves_what_newer_batches_said(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES, {"20260115/a_delta.csv": "id,n\n2,22\n"})
    told_apart.does("run")
    told_apart.drop({"20260108/a_delta.csv": "id,n\n2,99\n3,33\n5,51\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 22), ("3", 33), ("5", 51)]


def test_the_target_is_built_again_from_the_newest_full_file_on(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES, AGAIN, {"20260122/a_delta.csv": "id,n\n6,-1\n7,70\n"})
    told_apart.does("run")
    before = told_apart.table("a", "id", "n")
    (told_apart.root / "warehouse.duckdb").unlink()
    built = told_apart.does("backfill", "p", "--from-lake")
    assert batches_of(built) == ["20260115", "20260122"]
    assert told_apart.table("a", "id", "n") == before == [("1", 11), ("5", 50), ("7", 70)]


def test_none_is_passed_over_for_a_newer_one_that_may_fail(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE | {"catch_up": "newest"})
    told_apart.drop(FULL)
    told_apart.does("run")
    told_apart.drop(CHANGES, {"20260115/a_full.csv": "id,n\nx,broken\n"})
    assert told_apart.call("run").code in (5, 6)
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]


def test_a_full_file_that_comes_again_leaves_what_newer_changes_said(told_apart: World) -> None:
    """Its own keys come and go; a key that changes brought, changed or removed is theirs."""
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,12\n2,29\n3,39\n6,60\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 12), ("2", 21), ("5", 50), ("6", 60)]
    told_apart.drop({"20260101/a_full.csv": "id,n\n6,61\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("2", 21), ("5", 50), ("6", 61)]
    assert modes(told_apart) == [("20260101", "replace"), ("20260108", "merge")]
    built_again(told_apart)


def built_again(world: World) -> None:
    """What the lake holds makes the same table."""
    before = world.table("a", "id", "n")
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert world.table("a", "id", "n") == before


def test_a_full_file_that_comes_late_goes_under_newer_changes(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE | {"source.late": "load"})
    told_apart.drop(FULL, {"20260115/a_delta.csv": "id,n\n2,22\n7,70\n"})
    told_apart.does("run")
    told_apart.drop({"20260108/a_full.csv": "id,n\n2,28\n8,80\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("2", 22), ("7", 70), ("8", 80)]
    built_again(told_apart)
    # Behind it, the first one has nothing to say any more.
    told_apart.drop({"20260101/a_full.csv": "id,n\n9,90\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("2", 22), ("7", 70), ("8", 80)]


def test_a_late_file_of_changes_behind_a_newer_full_one_is_superseded(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES, AGAIN)
    told_apart.does("run")
    told_apart.drop({"20260108/a_delta.csv": "id,n\n1,99\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 11), ("5", 50), ("6", 60)]


def test_what_was_a_full_batch_is_not_taken_for_changes(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, {"20260108/a_full.csv": "id,n\n5,50\n"})
    told_apart.does("run")
    (told_apart.root / "drops/20260108/a_full.csv").unlink()
    told_apart.drop({"20260108/a_delta.csv": "id,n\n7,70\n"})
    told_apart.does("manifest", "forget", "p", "--path", "20260108/a_full.csv", "--reason", "other", "--yes")
    said = told_apart.refused(5, "run")
    assert "batch 20260108 was published as all there is, and its files hold changes alone now" in said
    assert told_apart.table("a", "id", "n") == [("5", 50)]


def test_a_full_file_of_rows_that_are_gone_empties_no_table(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL)
    told_apart.does("run")
    told_apart.drop({"20260108/a_full.csv": "id,n\n1,-1\n2,-1\n"})
    assert "all_gone" in told_apart.refused(6, "run")
    assert told_apart.table("a", "id") == [("1",), ("2",), ("3",)]


def test_a_full_file_of_an_earlier_time_is_put_back_under_the_changes_and_not_behind_a_full_one(
    told_apart: World,
) -> None:
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    then = now()
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,12\n"})
    told_apart.does("run")
    why = ("--reason", "seen", "--by", "me")
    told_apart.does("backfill", "p", "--batch", "20260101", "--as-of", then, *why)
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]
    told_apart.drop(AGAIN)
    told_apart.does("run")
    said = told_apart.refused(2, "backfill", "p", "--batch", "20260101", "--as-of", then, *why)
    assert "superseded by 20260115" in said


def test_changes_that_were_put_back_stay_so_when_the_target_is_built_again(told_apart: World) -> None:
    """Also when a full file has come under them since."""
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    then = now()
    told_apart.drop({"20260108/a_delta.csv": "id,n\n2,99\n"})
    told_apart.does("run")
    told_apart.does("backfill", "p", "--batch", "20260108", "--as-of", then, "--reason", "seen", "--by", "me")
    held = [("1", 10), ("2", 21), ("5", 50)]
    assert told_apart.table("a", "id", "n") == held
    built_again(told_apart)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,11\n2,29\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 11), *held[1:]]
    [pin] = told_apart.does("state", "show", "p")["pins"]
    assert pin["batch"] == "20260108"
    built_again(told_apart)


def test_a_batch_of_changes_whose_files_were_forgotten_hides_nothing_before_it(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    (told_apart.root / "drops/20260108/a_delta.csv").unlink()
    told_apart.does("manifest", "forget", "p", "--path", "20260108/a_delta.csv", "--reason", "wrong", "--yes")
    (told_apart.root / "warehouse.duckdb").unlink()
    told_apart.does("backfill", "p", "--from-lake")
    assert told_apart.table("a", "id", "n")[0] == ("1", 10)


def test_a_restated_file_of_changes_that_is_bad_hides_nothing_before_it(told_apart: World) -> None:
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    told_apart.drop({"20260108/a_delta.csv": "id,n\n2,x\n3,x\n5,x\n"})
    told_apart.call("run")
    (told_apart.root / "warehouse.duckdb").unlink()
    told_apart.call("backfill", "p", "--from-lake")
    assert ("1", 10) in told_apart.table("a", "id", "n")


@pytest.mark.parametrize("now", [{"models.a.delta": "changes"}, {"models.a.delta": None}])
def test_what_is_built_again_is_judged_as_what_it_was(told_apart: World, now: dict[str, object]) -> None:
    """Few rows are usual of changes, and none may be all there is."""
    told_apart.drop(FULL, {"20260108/a_delta.csv": "id,n\n2,21\n"}, {"20260115/a_delta.csv": "id,n\n"})
    told_apart.does("run")
    told_apart.set_up(DELTAS | {"models.a.files": r"(?i)a_\w+\.csv"} | now)
    built_again(told_apart)


def test_a_file_of_changes_becomes_no_full_one_by_another_setting(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    told_apart.set_up(ANY_SIZE | {"models.a.delta": "changes", "models.a.files": r"a_\w+\.csv"})
    built_again(told_apart)
    told_apart.drop({"20260108/a_delta.csv": "id,n\n2,22\n"})
    said = told_apart.refused(5, "run")
    assert "20260108/a_delta.csv was published as changes, and is a full file by the model as it is now" in said
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]


NO_DELTA = ANY_SIZE | {"models.a.delta": None, "models.a.files": r"(?i)a_\w+\.csv"}


@pytest.mark.parametrize("command", [("run",), ("backfill", "p", "--batch", "20260108", "--from-lake")])
def test_changes_become_no_full_file_where_delta_is_taken_away(told_apart: World, command: tuple[str, ...]) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    told_apart.set_up(NO_DELTA)
    if command == ("run",):
        told_apart.drop({"20260108/a_delta.csv": "id,n\n2,22\n"})
    said = told_apart.refused(5, *command)
    assert "20260108/a_delta.csv was published as changes, and is a full file by the model as it is now" in said
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]


def test_a_full_file_stays_under_the_changes_behind_it_where_delta_is_taken_away(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    then = now()
    told_apart.set_up(NO_DELTA)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,12\n2,29\n"})
    [done] = [one for one in told_apart.does("run")["results"] if one["model"] == "a"]
    assert done["status"] == "done"
    assert told_apart.table("a", "id", "n") == [("1", 12), ("2", 21), ("5", 50)]
    why = ("--reason", "seen", "--by", "me")
    told_apart.does("backfill", "p", "--batch", "20260101", "--as-of", then, *why)
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50)]
    assert told_apart.does("run")["status"] == "nothing new"
    told_apart.set_up(ANY_SIZE)
    built_again(told_apart)


def test_a_merge_that_comes_again_as_a_full_file_is_stepped_over_as_it_is_told(told_apart: World) -> None:
    told_apart.set_up(NO_DELTA | {"models.a.load": "merge"})
    told_apart.drop(FULL, CHANGES)
    told_apart.does("run")
    told_apart.set_up(ANY_SIZE)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,12\n"}, {"20260115/a_delta.csv": "id,n\n7,70\n"})
    said = told_apart.refused(5, "run")
    assert "set `load` and `delta` of the model back to what they were then, or keep what is published" in said
    assert "ingestkit skip p --batch 20260101 --reason" in said
    told_apart.does("skip", "p", "--batch", "20260101", "--reason", "kept", "--by", "me")
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 10), ("2", 21), ("5", 50), ("7", 70)]
    built_again(told_apart)


def test_what_was_merged_once_stops_nothing_behind_a_snapshot(world: World) -> None:
    world.set_up({"models.a.load": "merge"})
    world.drop({"20260101/a.csv": "id,n\n1,10\n"})
    world.does("run")
    world.set_up()
    world.drop({"20260108/a.csv": "id,n\n2,20\n"})
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,11\n"})
    [done] = [one for one in world.does("run")["results"] if one["model"] == "a"]
    assert (done["status"], world.table("a", "id")) == ("superseded", [("2",)])


def test_changes_may_leave_nothing_and_a_full_file_under_them_may_not(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,10\n"}, {"20260108/a_delta.csv": "id,n\n2,20\n"})
    told_apart.does("run")
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,-1\n"})
    assert "all_gone" in told_apart.refused(6, "run")
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,10\n"}, {"20260115/a_delta.csv": "id,n\n1,-1\n2,-1\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id") == []


def test_a_full_file_whose_rows_newer_changes_speak_of_is_not_one_of_rows_that_are_gone(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,10\n2,-1\n"}, {"20260108/a_delta.csv": "id,n\n1,11\n"})
    told_apart.does("run")
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,12\n2,-1\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n") == [("1", 11)]
    told_apart.does("backfill", "p", "--batch", "20260101", "--from-lake")
    assert told_apart.table("a", "id", "n") == [("1", 11)]


FLAGGED = ANY_SIZE | {"models.a.flag_when": {"n": ["-2", "-3"]}}


def test_rows_that_are_flagged_stay_and_say_so(told_apart: World) -> None:
    """What is merged into another record and what is invalid, say, is kept; what is deleted goes."""
    told_apart.set_up(FLAGGED)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,10\n2,-2\n3,-1\n4,40\n5,\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "_deleted") == [("1", False), ("2", True), ("4", False), ("5", False)]
    told_apart.drop({"20260108/a_delta.csv": "id,n\n2,20\n4,-3\n1,-1\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "n", "_deleted") == [("2", 20, False), ("4", -3, True), ("5", None, False)]


@pytest.mark.parametrize(
    ("column", "said", "cell"),
    [
        ({"type": "boolean"}, "Y", "yes"),
        ({"type": "boolean", "true_words": ["out"], "false_words": ["in"]}, "OUT", "out"),
        ({"type": "decimal(10,2)"}, "1", "1.0"),
        ({"type": "float", "decimal_point": ","}, "1,50", "1.5".replace(".", ",")),
        ({"type": "integer"}, "01", "1"),
        ({"type": "date", "format": ["%d.%m.%Y"]}, "01.01.1900", "01.01.1900"),
        ({"type": "timestamp"}, "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"),
        ({"normalise": ["trim", "upper"]}, "deleted", " Deleted "),
    ],
)
def test_what_says_that_a_row_is_gone_is_read_as_its_column_is(
    world: World, column: dict[str, object], said: str, cell: str
) -> None:
    csv = {"models.b": None, "models.a.columns.s": column, "models.a.csv": {"delimiter": ";"}}
    world.set_up(csv | {"models.a.flag_when": {"s": [said]}})
    world.drop({"20260101/a.csv": f"id;n;s\n1;10;\n2;20;{cell}\n"})
    world.does("run")
    assert world.table("a", "id", "_deleted") == [("1", False), ("2", True)]
    world.set_up(csv | {"models.a.delete_when": {"s": [said]}})
    world.drop({"20260108/a.csv": f"id;n;s\n1;10;\n2;20;{cell}\n"})
    world.does("run")
    assert world.table("a", "id") == [("1",)]


@pytest.mark.parametrize(
    ("column", "said", "told"),
    [
        ({"type": "boolean"}, "gone", "'gone' is none of true, t, 1, yes, y, false, f, 0, no, n: no row says so"),
        ({"type": "integer"}, "x", "'x' is not a whole number of 64 bits: no row says so"),
        ({"enum": ["ACTIVE", "DELETED"]}, "DELETD", "'DELETD' is none of ACTIVE, DELETED: no row says so"),
        ({"nulls": ["-"]}, "-", "'-' is a missing value: no row says so"),
        ({}, "", "'' is a missing value: no row says so"),
    ],
)
@pytest.mark.parametrize("policy", ["delete_when", "flag_when"])
def test_what_no_row_can_say_is_refused_before_there_is_one(
    world: World, policy: str, column: dict[str, object], said: str, told: str
) -> None:
    world.set_up({"models.a.columns.s": column, f"models.a.{policy}": {"s": [said]}})
    for command in ("config", "validate"), ("check",):
        ended = world.call(*command)
        assert ended.code == 3
        assert f"models.a.{policy}.s: {told}" in ended.out + ended.err
    world.drop({"20260101/a.csv": "id,n,s\n1,1,\n"})
    assert told in world.refused(3, "run")


def test_a_model_that_comes_to_flag_rows_flags_those_that_come_then(told_apart: World) -> None:
    told_apart.set_up(ANY_SIZE)
    told_apart.drop({"20260101/a_full.csv": "id,n\n1,10\n2,-2\n"})
    told_apart.does("run")
    told_apart.set_up(FLAGGED)
    told_apart.drop({"20260108/a_delta.csv": "id,n\n3,-2\n"})
    told_apart.does("run")
    assert told_apart.table("a", "id", "_deleted") == [("1", None), ("2", None), ("3", True)]


def test_of_a_snapshot_rows_that_are_gone_are_left_out(world: World) -> None:
    world.set_up({"models.a.delete_when": {"n": ["-1"]}})
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,-1\n"})
    world.does("run")
    assert world.table("a", "id") == [("1",)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models.a.delta": "delta", "models.a.key": None}, "delta needs a key"),
        ({"models.b.delta": "delta"}, "delta is of load: replace, and this is merge"),
        ({"models.a.flag_when": {"x": ["1"]}}, "flag_when: 'x' is not among the columns"),
        (
            {"models.a.flag_when": {"n": ["1"]}, "models.a.columns._Deleted": {}},
            "flag_when makes a column _deleted, and there is one",
        ),
    ],
)
def test_changes_need_a_key_and_a_model_that_is_replaced(world: World, changes: dict[str, object], said: str) -> None:
    world.set_up(changes)
    assert said in world.refused(3, "plan")


def test_a_name_with_delta_is_of_no_model_that_takes_none(world: World) -> None:
    world.drop({"20260101/a.csv": "id,n\n1,1\n", "20260101/b_delta.csv": "id,d\nx,2026-01-01\n"})
    world.does("run")
    assert world.does("plan")["unmapped"] == []
    assert world.statuses()["20260101/b_delta.csv"] == "quarantined"
