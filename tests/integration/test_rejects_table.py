"""Rejects in a table beside the target: what the newest load of each batch left out, and nothing of one refused."""

from typing import Any

import duckdb
import pytest

from tests.integration.world import FIRST, SECOND, World

BAD = {
    "20260101/a.csv": "id,n\n1,10\n2,two\n,30\n4,40\n",
    "20260101/b.csv": "id,d\nx,2026-01-01\nx,2026-01-02\n",
}
TABLES = {"models.a.rejects_table": "raw", "models.b.rejects_table": "places"}
FLAWS = [
    ("20260101/a.csv", 2, 3, "n", "type", "2,two"),
    ("20260101/a.csv", 3, 4, "id", "required", ",30"),
]
TOLD = '_source_file, _record_no, line, "column", code, raw'


@pytest.fixture
def told(world: World) -> World:
    world.set_up(TABLES)
    return world


def rejects(world: World, model: str, columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(world.root / "warehouse.duckdb"), read_only=True) as db:
        return db.sql(f"SELECT {columns} FROM {model}__rejects ORDER BY ALL").fetchall()


def test_each_reason_is_a_row_with_its_place(told: World) -> None:
    world = told
    world.drop(BAD)
    world.does("run")
    assert rejects(world, "a", TOLD) == FLAWS
    [row] = rejects(world, "b", "*")
    assert row[0:3] == (3, "id", "duplicate_key")
    assert "2026" not in row[3]
    assert row[4:] == ("20260101", "p.20260101.1", "20260101/b.csv", 2)
    assert world.table("a", "id", "n") == [("1", 10), ("4", 40)]


def test_a_batch_that_is_good_adds_nothing_and_takes_nothing(told: World) -> None:
    world = told
    world.drop(BAD, SECOND)
    world.does("run")
    assert rejects(world, "a", TOLD) == FLAWS
    # Restated, the first batch says anew what it lacks; of a snapshot, only while it is the newest.
    world.drop({"20260108/a.csv": "id,n\n1,11\n3,three\n"})
    world.does("run")
    found = rejects(world, "a", "_batch, code, raw")
    assert found == [("20260101", "required", ",30"), ("20260101", "type", "2,two"), ("20260108", "type", "3,three")]
    world.drop({"20260108/a.csv": "id,n\n1,11\n3,33\n"})
    world.does("run")
    assert {batch for batch, *_ in rejects(world, "a", "_batch")} == {"20260101"}


def test_over_the_limit_nothing_is_written(told: World) -> None:
    world = told
    world.drop(FIRST)
    world.does("run")
    world.set_up(TABLES | {"gate.max_reject_pct": 10})
    world.drop({"20260108/a.csv": "id,n\n1,11\n3,three\n", "20260108/b.csv": SECOND["20260108/b.csv"]})
    world.refused(6, "run")
    assert rejects(world, "a", "_batch") == []
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_plan_shows_the_table_before_it_is_made(told: World) -> None:
    world = told
    world.drop(FIRST)
    found = [one["statement"] for one in world.does("plan")["ddl"] if one["model"] == "a"]
    assert any("a__rejects" in statement for statement in found)


def test_it_comes_back_with_a_target_that_is_put_back_from_the_lake(told: World) -> None:
    world = told
    world.drop(BAD)
    world.does("run")
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "--from-lake")
    assert rejects(world, "a", TOLD) == FLAWS
    assert len(rejects(world, "b", "code")) == 1


OF_ANOTHER = "q.x cannot publish into {!r}: tables that end in __rejects hold what was rejected; set models.{}.table"


@pytest.mark.parametrize("named", ["a__rejects", "A__Rejects"])
def test_no_target_may_have_such_a_name(told: World, named: str) -> None:
    world = told
    world.drop(BAD)
    world.does("run")
    column = {"files": r"^x\.csv$", "columns": {"id": {}}}
    world.set_up({"models": {"x": column | {"table": named}}}, pipeline="q")
    assert OF_ANOTHER.format(named, "x") in world.refused(3, "run", "q")
    world.set_up({"models": {"x__rejects": column}}, pipeline="q")
    assert OF_ANOTHER.replace("q.x", "q.x__rejects").format("x__rejects", "x__rejects") in world.refused(3, "run", "q")


def test_a_table_of_anothers_is_neither_changed_nor_written(told: World) -> None:
    """As one that a version made which knew no such names."""
    world = told
    world.drop(FIRST)
    world.does("run")
    world.target_does("CREATE OR REPLACE TABLE a__rejects AS SELECT '1' AS id, '20260108' AS _batch")
    world.target_does("INSERT INTO ingestkit_fence VALUES ('q', 'x', 'S', 1, 'A__rejects')")
    world.drop({"20260108/a.csv": "id,n\n1,11\n3,three\n"})
    assert "table a__rejects belongs to q.x, not to p.a" in world.refused(7, "run")
    assert world.table("a__rejects") == [("1", "20260108")]
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    checked = world.call("check")
    assert checked.code == 7
    assert "table a__rejects belongs to q.x, not to p.a" in checked.out
