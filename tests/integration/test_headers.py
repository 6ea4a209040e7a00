"""Headers that are not the contract's, and files that are kept out whole: what is said, recorded and done later."""

import gzip
import json
from typing import Any

import pytest

from tests.integration.world import BREAKS, FIRST, SECOND, World

EVOLVE = {"models.a.drift": "evolve", "models.b.drift": "evolve"}


def drift(world: World, *flags: str) -> list[tuple[Any, ...]]:
    rows = world.does("drift", "list", "p", *flags)["rows"]
    return [(row["kind"], row["column"], row["expected"], row["found"], row["action"]) for row in rows]


@pytest.mark.parametrize(
    ("content", "said", "recorded"),
    [
        ("id,m\n1,10\n", "'n' seems to be called 'm'", [("renamed", "n", "n", "m", "fail")]),
        (
            "id,note,N\n1,x,10\n",
            "'n' seems to be called 'N'",
            [("renamed", "n", "n", "N", "fail"), ("extra", "note", None, "note", "fail")],
        ),
        ("n\n10\n", "'id' is missing", [("missing", "id", "string", None, "fail")]),
        ("id,n,n\n1,10,10\n", "'n' stands 2 times", [("duplicate", "n", "once", "2 times", "fail")]),
        ("id,n,note\n1,10,x\n", "'note' is in no contract", [("extra", "note", None, "note", "fail")]),
    ],
)
def test_a_header_that_cannot_be_read_through_fails_its_file_and_is_recorded(
    world: World, content: str, said: str, recorded: list[tuple[Any, ...]]
) -> None:
    world.drop(FIRST, {"20260101/a.csv": content})
    told = world.refused(5, "run")
    assert said in told
    assert "nothing was published" in told
    assert sorted(drift(world, "--model", "a")) == sorted(recorded)
    assert world.statuses("--model", "a") == {"20260101/a.csv": "quarantined"}
    assert world.run_row("p.20260101.1")["status"] == "FAILED"
    assert said in world.refused(5, "run")
    world.drop(FIRST)
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_a_missing_optional_column_is_null_and_another_order_is_read_by_name(world: World) -> None:
    world.drop({"20260101/a.csv": "id\n1\n", "20260101/a_2.csv": "n,id\n20,2\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", None), ("2", 20)]
    assert sorted(drift(world)) == [
        ("missing", "n", "integer", None, "null"),
        ("reordered", "*", "id, n", "n, id", "by name"),
    ]


def test_case_and_spaces_count_unless_the_model_says_otherwise(world: World) -> None:
    world.set_up(
        {
            "models.a.header": {"case": "ignore", "spaces": "ignore"},
            "models.a.columns": {"a_id": {}, "n": {"type": "integer"}},
            "models.a.key": ["a_id"],
        }
    )
    world.drop({"20260101/a.csv": " A id ,N\n1,10\n"})
    world.does("run")
    assert world.table("a", "a_id", "n") == [("1", 10)]
    world.drop({"20260108/a.csv": "A_ID,a id\n1,10\n"})
    assert "stands 2 times" in world.refused(5, "run")


def test_columns_of_no_contract_are_left_out_where_policy_says_so(world: World) -> None:
    world.set_up({"models.a.drift": "ignore"})
    world.drop({"20260101/a.csv": "id,note,n\n1,secret,10\n"})
    world.does("run")
    assert [name for (name, *_) in world.target("DESCRIBE a")][:2] == ["id", "n"]
    assert "note" not in {name for (name, *_) in world.target("DESCRIBE a")}
    assert drift(world) == [("extra", "note", None, "note", "left out")]


def test_columns_of_no_contract_become_columns_of_the_target_where_policy_says_so(world: World) -> None:
    world.set_up(EVOLVE)
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/a.csv": "id,note,n\n1,new,11\n", "20260108/b.csv": "id,d,note\nx,2026-01-08,seen\n"})
    world.drop({"20260108/b_2.csv": "id,d\nq,2026-01-08\n"})
    world.does("run")
    assert world.table("a", "id", "n", "note") == [("1", 11, "new")]
    assert world.table("b", "id", "note") == [("q", None), ("x", "seen"), ("y", None)]
    [one] = world.does("drift", "list", "p", "--batch", "20260108", "--model", "a")["rows"]
    assert (one["action"], one["ddl"]) == ("added", 'ALTER TABLE "a" ADD COLUMN "note" VARCHAR')
    # A later file without it says null, and the table keeps the column.
    world.drop({"20260115/a.csv": "id,n\n1,12\n", "20260115/b.csv": "id,d\nx,2026-01-15\n"})
    world.does("run")
    assert world.table("a", "id", "n", "note") == [("1", 12, None)]
    assert world.table("b", "id", "note") == [("q", None), ("x", None), ("y", None)]


def test_an_evolved_target_can_be_built_again_from_the_lake_and_from_a_lost_state(world: World) -> None:
    world.set_up(EVOLVE)
    world.drop(FIRST, {"20260108/b.csv": "id,d,note\nx,2026-01-08,seen\n"}, {"20260115/b.csv": "id,d\nw,2026-01-15\n"})
    world.does("run")
    before = world.table("b", "id", "d", "note")
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert world.table("b", "id", "d", "note") == before
    world.does("backfill", "p", "--batch", "20260108", "--model", "b")
    assert world.table("b", "id", "d", "note") == before


@pytest.mark.parametrize("name", ["_batch", "ID", "Note"])
def test_a_column_that_would_collide_is_not_added(world: World, name: str) -> None:
    world.set_up(EVOLVE)
    world.drop({"20260101/a.csv": f"id,n,note,{name}\n1,10,x,y\n"})
    assert "cannot be added" in world.refused(5, "run")


def test_what_the_contract_takes_up_later_stands_where_it_was_added(world: World) -> None:
    world.set_up(EVOLVE)
    world.drop({"20260101/a.csv": "id,n,note\n1,10,x\n"})
    world.does("run")
    world.set_up({"models.a.columns.note": {"type": "string"}})
    world.drop({"20260108/a.csv": "id,n,note\n1,10,y\n"})
    world.does("run")
    assert world.table("a", "id", "note") == [("1", "y")]


def test_the_rest_is_published_beside_a_file_that_cannot_be_read(world: World) -> None:
    world.set_up({"validation.on_bad_file": "publish_rest", "gate.max_reject_pct": 100})
    world.drop(
        FIRST, {"20260101/a_2.csv": "id,other,n\n7,x,70\n8,x,80\n", "20260101/a_3.csv.gz": gzip.compress(b"id,n\n")[:9]}
    )
    world.does("run")
    assert world.table("a", "id") == [("1",), ("2",)]
    files = {file["path"]: file for file in world.files("--model", "a")}
    assert files["20260101/a_2.csv"]["status"] == files["20260101/a_3.csv.gz"]["status"] == "quarantined"
    assert "'other' is in no contract" in files["20260101/a_2.csv"]["reason"]
    assert (files["20260101/a_2.csv"]["rejected"], files["20260101/a_3.csv.gz"]["rejected"]) == (2, None)
    assert world.run_row("p.20260101.1")["counts"]["rejected"] == 2
    assert world.does("run")["status"] == "nothing new"
    world.set_up({"validation.on_bad_file": "publish_rest", "gate.max_reject_pct": 100, "models.a.drift": "ignore"})
    world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert world.table("a", "id") == [("1",), ("2",), ("7",), ("8",)]


def test_there_must_be_a_rest_to_publish(world: World) -> None:
    world.set_up({"validation.on_bad_file": "publish_rest", "gate.max_reject_pct": 100})
    world.drop(FIRST, {"20260101/a.csv": "wrong\n1\n"})
    assert "has none of the columns of model a in its header of 1 (expected id, n)" in world.refused(5, "run")


def test_a_done_batch_with_a_bad_restatement_fails_until_somebody_has_come(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop({"20260108/a.csv": BREAKS})
    for _ in range(2):
        assert "3 of 3 records (100.0 %) break the contract" in world.refused(5, "run")
    assert [row["status"] for row in world.does("quarantine", "list", "--code", "type")["rows"]] == ["held"]
    assert world.does("quarantine", "list", "--code", "type")["rows"][0]["records"] == 3
    world.does("skip", "p", "--batch", "20260108", "--reason", "bad", "--by", "me")
    assert world.does("run")["status"] == "nothing new"
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]


def test_quotes_of_another_kind_are_named_beside_what_was_declared(world: World) -> None:
    world.drop(FIRST, {"20260101/a.csv": "'id','n'\n'1','10'\n"})
    assert "' stands around them, and csv.quote is \"" in world.refused(5, "run")


def test_a_header_as_reports_write_it_is_read_beside_plain_ones(world: World) -> None:
    world.set_up(
        {
            "models.a.header": {"style": "report", "case": "ignore"},
            "models.a.names": ["PERSON"],
            "models.a.drift": "evolve",
        }
    )
    world.drop(
        {
            "20260101/a.csv": "a.id (VID),A.n (NUMBER),b.city__v (CITY)\n1,10,Bonn\n",
            "20260101/a_2.csv": "person.id (VID),n\n2,20\n",
            "20260101/a_3.csv": "id,n\n3,30\n",
        }
    )
    world.does("run")
    found = world.target('SELECT id, n, "b.city__v" FROM a ORDER BY id')
    assert found == [("1", 10, "Bonn"), ("2", 20, None), ("3", 30, None)]


def test_a_name_that_stands_twice_under_two_labels_says_of_no_value_which_it_is(world: World) -> None:
    world.set_up({"models.a.header": {"style": "report"}})
    world.drop(FIRST, {"20260101/a.csv": "a.id (VID),n,id (OTHER)\n1,10,2\n"})
    assert "'a.id (VID)' stands 2 times" in world.refused(5, "run")


def test_a_first_record_where_a_header_should_be_is_shown_nowhere(world: World) -> None:
    world.drop(FIRST, {"20260101/a.csv": "Secret,Sauce\nMore,Secret\n"})
    said = world.refused(5, "run")
    assert "it may be a record; see csv.header" in said
    [found] = world.does("drift", "list", "p", "--model", "a")["rows"]
    assert (found["kind"], found["column"], found["found"]) == ("missing", "*", "2 other names")
    told = [said, *(json.dumps(world.does(*command, "p")) for command in (("drift", "list"), ("quarantine", "list")))]
    told += [path.read_text() for path in (world.root / "state/runs").rglob("*.json")]
    told += [path.read_text() for path in (world.root / "lake/_runs").rglob("*.json")]
    told += [str(world.state(f"SELECT * FROM {table}")) for table in ("file_manifest", "schema_drift", "pipeline_run")]
    assert not any("Sauce" in one for one in told)


def test_files_that_spell_an_added_column_otherwise_fill_one(world: World) -> None:
    world.set_up(EVOLVE | {"models.a.header": {"case": "ignore", "spaces": "ignore"}})
    world.drop({"20260101/a.csv": "id,n,Extra, Two  Words\n1,10,x,y\n"})
    world.drop({"20260108/a.csv": "ID,N,extra,two_words\n2,20,z,w\n", "20260108/a_2.csv": "id,n,EXTRA\n3,30,v\n"})
    world.does("run")
    assert world.table("a", "id", "extra", "two_words") == [("2", "z", "w"), ("3", "v", None)]
    statements = [one["statement"] for one in world.does("plan")["ddl"] if one["model"] == "a"]
    assert statements == []


def test_drift_says_only_what_can_be_done_to_the_target(world: World) -> None:
    world.set_up({"models.a.drift": "ignore"})
    world.drop({"20260101/a.csv": "id,n,note,_batch\n1,10,x,y\n"})
    world.does("run")
    found = {row["column"]: row["ddl"] for row in world.does("drift", "list", "p")["rows"]}
    assert found == {"note": 'ALTER TABLE "a" ADD COLUMN "note" VARCHAR', "_batch": None}
