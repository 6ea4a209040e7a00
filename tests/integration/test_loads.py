import subprocess
import sys
import time
from typing import Any

import pytest

from tests.integration.world import FIRST, SECOND, THIRD, World

ONE = {"models": {"t": {"key": ["id"], "columns": {"id": {"required": True}, "v": {"type": "integer"}}}}}
FILES = (
    {"20260101/t.csv": "id,v\nk1,1\nk2,1\nk3,1\n"},
    {"20260108/t.csv": "id,v\nk2,2\nk4,2\n"},
    {"20260115/t.csv": "id,v\nk4,3\nk5,3\n"},
)


def three(world: World, mode: str) -> None:
    world.set_up(ONE | {"models.t.load": mode})
    world.drop(*FILES)
    world.does("run")


def receipts(world: World) -> dict[str, tuple[int, dict[str, Any]]]:
    found = world.target("SELECT batch, generation, counts::VARCHAR FROM ingestkit_receipt")
    return {batch: (generation, counts) for batch, generation, counts in found}


def test_replace_holds_the_last_batch_only(world: World) -> None:
    three(world, "replace")
    assert world.table("t", "id", "v") == [("k4", 3), ("k5", 3)]


def test_an_explicit_backfill_of_a_replaced_batch_is_refused(world: World) -> None:
    three(world, "replace")
    said = world.refused(2, "backfill", "--batch", "20260101")
    assert "batch 20260101 is superseded by 20260115 (t)" in said
    assert world.run_statuses() == dict.fromkeys(
        [f"p.{one}.1" for one in ("20260101", "20260108", "20260115")], "SUCCESS"
    )
    world.does("backfill", "--batch", "20260115")
    assert world.table("t", "id", "v") == [("k4", 3), ("k5", 3)]
    assert receipts(world)["20260115"][0] == 2


def test_append_holds_every_batch_and_a_backfill_writes_its_own_rows_again(world: World) -> None:
    three(world, "append")
    rows = [("k1", 1), ("k2", 1), ("k2", 2), ("k3", 1), ("k4", 2), ("k4", 3), ("k5", 3)]
    assert world.table("t", "id", "v") == rows
    world.does("backfill", "--batch", "20260101")
    assert world.table("t", "id", "v") == rows
    assert world.target("SELECT DISTINCT _run_id FROM t WHERE _batch = '20260101'") == [("p.20260101.2",)]
    assert receipts(world)["20260101"][0] == 2


def test_merge_holds_the_newest_row_of_each_key_and_a_backfill_leaves_what_newer_batches_said(world: World) -> None:
    three(world, "merge")
    rows = [("k1", 1), ("k2", 2), ("k3", 1), ("k4", 3), ("k5", 3)]
    assert world.table("t", "id", "v") == rows
    world.drop({"20260101/t.csv": "id,v\nk1,9\nk2,9\nk4,9\nk6,9\n"})
    answer = world.does("backfill", "--batch", "20260101")
    assert world.table("t", "id", "v") == [("k1", 9), ("k2", 2), ("k3", 1), ("k4", 3), ("k5", 3), ("k6", 9)]
    counts = world.run_row(answer["run_ids"][0])["counts"]
    # k2 and k4 were said by newer batches; k3 stays, though its batch does not hold it any more.
    assert (counts["superseded"], counts["left_behind"]) == (2, 1)
    assert world.checkpoint() == "20260115"


def test_a_backfill_names_a_done_batch_by_its_run_too(world: World) -> None:
    three(world, "append")
    answer = world.does("backfill", "--run-id", "p.20260108.1")
    assert answer["run_ids"] == ["p.20260108.2"]
    assert [one["batch"] for one in answer["results"]] == ["20260108"]
    assert "has no run 'nobody'" in world.refused(2, "backfill", "p", "--run-id", "nobody")
    assert "is not done for t" in world.refused(2, "backfill", "--batch", "20270101")


def test_a_batch_that_was_stepped_over_can_be_loaded_after_all(world: World) -> None:
    world.set_up(ONE | {"models.t.load": "append"})
    world.drop(*FILES)
    world.does("skip", "p", "--batch", "20260101", "--reason", "looks odd")
    world.does("run")
    assert len(world.table("t")) == 4
    world.does("backfill", "--batch", "20260101")
    assert len(world.table("t")) == 7
    assert world.completions()["20260101", "t"] == "done"


def test_a_backfill_takes_todays_contract(world: World) -> None:
    three(world, "append")
    world.set_up(ONE | {"models.t.load": "append", "models.t.columns.v": {"type": "integer", "max": 1}})
    world.does("backfill", "--batch", "20260101")
    world.refused(5, "backfill", "--batch", "20260108")
    assert world.target("SELECT count(*) FROM t WHERE _batch = '20260108'") == [(2,)]


def test_a_backfill_that_fails_leaves_what_was_there(world: World) -> None:
    three(world, "append")
    before = world.table("t")
    world.drop({"20260108/t.csv": "id,v\nk2,x\nk4,y\n"})
    world.refused(5, "backfill", "--batch", "20260108")
    assert world.table("t") == before
    assert world.completions()["20260108", "t"] == "done"


def test_a_backfill_from_the_lake_asks_the_source_nothing(world: World) -> None:
    three(world, "append")
    before = world.table("t", "id", "v")
    (world.root / "drops/20260101/t.csv").unlink()
    (world.root / "drops/20260101").rmdir()
    assert "--from-lake" in world.refused(4, "backfill", "--batch", "20260101")
    world.does("backfill", "--batch", "20260101", "--from-lake")
    assert world.table("t", "id", "v") == before


def test_a_deleted_target_is_found_at_once_and_built_again_from_the_lake(world: World) -> None:
    world.set_up({"models.b.load": "append"})
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("a", "id", "n"), world.table("b", "id", "d")
    (world.root / "warehouse.duckdb").unlink()
    said = world.refused(7, "run")
    assert "is gone, though batches were published into it" in said
    assert "hint: ingestkit backfill p --from-lake" in said
    world.does("backfill", "--from-lake")
    assert (world.table("a", "id", "n"), world.table("b", "id", "d")) == before
    assert world.does("run")["status"] == "nothing new"


def test_a_batch_is_published_whole_or_not_at_all(world: World) -> None:
    """With publish: batch, model `a` is not there while `b` cannot be."""
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    world.target_does("ALTER TABLE b ALTER d TYPE VARCHAR")
    ended = world.call("run")
    assert ended.code == 7, ended.err
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_models_are_published_each_for_itself_where_that_is_asked_for(world: World) -> None:
    world.set_up({"publish": "model"})
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    world.target_does("ALTER TABLE b ALTER d TYPE VARCHAR")
    ended = world.call("run")
    assert ended.code == 7, ended.err
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.checkpoint() == "20260101"
    assert "20260108" not in {batch for batch, _ in world.completions()}
    world.target_does("ALTER TABLE b ALTER d TYPE DATE")
    world.does("run")
    assert world.checkpoint() == "20260108"


def test_new_columns_and_wider_types_come_first(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.set_up({"models.b.columns.note": {}, "models.a.columns.n": {"type": "decimal(38,2)"}})
    world.drop({"20260108/b.csv": "id,d,note\nq,2026-01-08,new\n", "20260108/a.csv": "id,n\n1,1.50\n"})
    world.does("run")
    assert world.table("b", "id", "note")[-1] == ("y", None)
    assert ("q", "new") in world.table("b", "id", "note")
    assert str(world.table("a", "n")[0][0]) == "1.50"


def test_lineage_columns_say_where_each_row_came_from(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    rows = world.table("a", "id", "_batch", "_run_id", "_source_file", "_record_no")
    assert rows == [
        ("1", "20260101", "p.20260101.1", "20260101/a.csv", 1),
        ("2", "20260101", "p.20260101.1", "20260101/a.csv", 2),
    ]


def test_lineage_columns_can_be_left_out_but_for_the_batch(world: World) -> None:
    world.set_up({"lineage": {"run_id": False, "source_file": False, "record_no": False}})
    world.drop(FIRST)
    world.does("run")
    columns = world.target("SELECT column_name FROM duckdb_columns() WHERE table_name = 'a' ORDER BY column_index")
    assert [name for (name,) in columns] == ["id", "n", "_batch"]


def test_a_table_belongs_to_one_pipeline(world: World) -> None:
    world.set_up(pipeline="q")
    world.drop(FIRST)
    world.does("run", "p")
    said = world.refused(7, "run", "q")
    assert "a" in said
    assert "p" in said
    assert world.table("a", "id") == [("1",), ("2",)]


HOLDER = """
import sys, duckdb
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def held(world: World) -> Any:
    """The warehouse file, open in another process."""
    world.drop(FIRST)
    world.does("run")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(world.root / "warehouse.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate("\n", timeout=30)


def test_who_finds_the_file_locked_waits_and_says_for_whom(world: World, held: "subprocess.Popen[str]") -> None:
    world.drop(SECOND)
    running = world.start("run")
    assert running.stderr is not None
    line = next(line for line in iter(running.stderr.readline, "") if "is open in process" in line)
    assert f"is open in process {held.pid}; waiting for it" in line
    assert held.stdin is not None
    held.stdin.write("\n")
    held.stdin.flush()
    ended = world.ended(running)
    assert ended.code == 0, ended.err
    assert world.checkpoint() == "20260108"


def test_who_waits_too_long_for_the_file_gives_up_with_8(world: World, held: "subprocess.Popen[str]") -> None:
    world.settle({"connections.warehouse.lock_timeout": "300ms"})
    world.drop(SECOND)
    began = time.monotonic()
    said = world.refused(8, "run")
    assert f"is open in process {held.pid}, still after 0.3 s" in said
    assert time.monotonic() - began < 30


def test_three_batches_and_three_modes_leave_one_receipt_each(world: World) -> None:
    world.set_up({"models.c": {"key": ["id"], "load": "append", "columns": {"id": {}}}})
    world.drop(FIRST, SECOND, THIRD, {"20260101/c.csv": "id\n1\n", "20260115/c.csv": "id\n1\n"})
    world.does("run")
    found = world.target("SELECT model, batch, mode, generation FROM ingestkit_receipt ORDER BY ALL")
    assert found == [
        *[("a", batch, "replace", 1) for batch in ("20260101", "20260108", "20260115")],
        *[("b", batch, "merge", 1) for batch in ("20260101", "20260108", "20260115")],
        *[("c", batch, "append", 1) for batch in ("20260101", "20260115")],
    ]
    assert world.table("c", "id", "_batch") == [("1", "20260101"), ("1", "20260115")]
