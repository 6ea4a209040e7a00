import gzip
import json

from tests.integration.world import BREAKS, FIRST, SECOND, World

STRICT = {"gate.max_reject_pct": 10, "validation.max_file_reject_pct": 100}
ONE_BAD = {"20260101/a.csv": "id,n\n1,10\n2,x\n3,30\n4,40\n"}


def rules(world: World, run_id: str) -> dict[tuple[str, str], tuple[object, object, object]]:
    found = world.does("runs", "show", run_id)["rules"]
    return {(rule["model"], rule["name"]): (rule["figure"], rule["limit"], rule["passed"]) for rule in found}


def test_a_rule_over_its_limit_closes_the_gate_and_nothing_is_published(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    said = world.refused(6, "run")
    assert "a: reject_rate is 25 where 10 is the limit: nothing was published" in said
    assert "hint: ingestkit quarantine list p --batch 20260101; to let it pass: ingestkit approve p.20260101.1" in said
    assert world.target("SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, 'ingestkit_')") == []
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["exit_code"], row["phases_failed"]) == ("FAILED", 6, ["validate"])
    assert rules(world, "p.20260101.1")["a", "reject_rate"] == (25, 10, False)


def test_a_figure_equal_to_its_limit_passes(world: World) -> None:
    world.set_up(STRICT | {"gate.max_reject_pct": 25})
    world.drop(FIRST, ONE_BAD)
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["verdict"]) == ("SUCCESS_WITH_REJECTS", "PASSED_WITH_REJECTS")
    assert rules(world, "p.20260101.1")["a", "reject_rate"] == (25, 25, True)


def test_every_rule_is_recorded_with_figure_and_limit(world: World) -> None:
    world.set_up({"gate": {"max_reject_pct": 5, "row_delta_pct": 50, "min_rows": 1}})
    world.drop(FIRST, SECOND)
    world.does("run")
    found = rules(world, "p.20260108.1")
    assert found["a", "row_delta"] == (0, 50, True)
    assert found["a", "min_rows"] == (2, 1, True)
    names = {"line_proof", "reject_rate", "file_reject_rate", "empty", "valid_not_staged", "target_unaccounted"}
    assert names | {"key_nulls", "key_duplicates"} <= {name for _, name in found}
    assert rules(world, "p.20260101.1")["a", "row_delta"] == (None, 50, None)
    sidecar = json.loads((world.root / "state/runs/p/p.20260101.1/gate._all.json").read_text())
    assert sidecar["details"]["verdict"] == "PASSED"
    assert "a: row_delta not judged" in sidecar["details"]["rules"]


def test_too_many_rows_more_or_less_than_before_close_the_gate(world: World) -> None:
    world.set_up({"gate": {"row_delta_pct": 50}})
    world.drop(FIRST, {"20260108/a.csv": "id,n\n" + "".join(f"{number},1\n" for number in range(4))})
    said = world.refused(6, "run")
    assert "a: row_delta is 100 where 50 is the limit" in said
    assert world.checkpoint() == "20260101"
    assert world.table("a", "id") == [("1",), ("2",)]


def test_a_verdict_is_judged_again_when_only_the_limit_changed(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run", "--run-id", "R")
    world.set_up(STRICT | {"gate.max_reject_pct": 30})
    made = set((world.root / "lake/valid").rglob("*.parquet"))
    world.does("run", "--run-id", "R")
    assert world.run_row("R")["status"] == "SUCCESS_WITH_REJECTS"
    assert set((world.root / "lake/valid").rglob("*.parquet")) == made


def test_a_file_of_which_too_much_is_bad_fails_the_run_whole(world: World) -> None:
    world.drop(FIRST, {"20260101/a_2.csv": BREAKS})
    said = world.refused(5, "run")
    assert "20260101/a_2.csv: 3 of 3 records (100.0 %) break the contract" in said
    assert "most often type in n (3 records, the first on line 2)" in said
    assert "one" not in said.replace("error", "")


def test_the_rest_is_published_where_policy_says_so(world: World) -> None:
    world.set_up({"validation.on_bad_file": "publish_rest", "gate.max_reject_pct": 100})
    world.drop(FIRST, {"20260101/a_2.csv": BREAKS})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.statuses("--model", "a") == {"20260101/a.csv": "loaded", "20260101/a_2.csv": "quarantined"}
    assert world.run_row("p.20260101.1")["counts"]["rejected"] == 3
    assert world.does("run")["status"] == "nothing new"


def test_rejects_are_kept_with_file_line_and_reason_and_no_cell_value(world: World) -> None:
    world.drop(FIRST, ONE_BAD)
    world.does("run")
    [held] = world.does("runs", "show", "p.20260101.1")["quarantine"]
    assert (held["path"], held["column"], held["code"], held["count"]) == ("20260101/a.csv", "n", "type", 1)
    assert (held["samples"], held["status"]) == ([[2, 3]], "open")


def test_a_corrupt_gzip_says_so(world: World) -> None:
    whole = gzip.compress(b"id,n\n" + b"1,1\n" * 5000)
    world.drop(FIRST, {"20260101/a_2.csv.gz": whole[:40]})
    said = world.refused(5, "run")
    assert "a_2.csv.gz" in said
    world.drop({"20260101/a_2.csv.gz": b"not gzip at all"})
    assert "a_2.csv.gz" in world.refused(5, "run")
    world.drop({"20260101/a_2.csv.gz": gzip.compress(b"id,n\n3,3\n")})
    world.does("run")
    assert world.table("a", "id") == [("1",), ("2",), ("3",)]


CHECK = "sql/gate/p/small.sql"
SMALL = "-- models: a\nSELECT * FROM a WHERE n > 50\n"


def checked(world: World, query: str = SMALL) -> None:
    path = world.root / CHECK
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(query)


def completed(world: World) -> int:
    """The generation of model a that is complete for the first batch."""
    [(generation,)] = world.state("SELECT generation FROM completion WHERE model = 'a' AND batch = '20260101'")
    return int(generation)


def test_a_redo_that_a_gate_stopped_is_judged_again_until_it_passes(world: World) -> None:
    checked(world)
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,99\n"})
    assert "small.sql is 1 where 0 is the limit" in world.refused(6, "run")
    assert "small.sql is 1 where 0 is the limit" in world.refused(6, "run")
    [waiting] = world.does("plan")["batches"]
    assert (waiting["batch"], waiting["reason"], waiting["models"]) == ("20260101", "not judged", ["a"])
    assert completed(world) == 1
    checked(world, SMALL.replace("50", "100"))
    assert world.does("run")["status"] == "done"
    assert completed(world) == 2
    assert world.does("run")["status"] == "nothing new"
    assert world.table("a", "id", "n") == [("1", 10), ("2", 99)]


def test_a_redo_that_a_gate_stopped_can_be_approved(world: World) -> None:
    checked(world)
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,99\n"})
    world.refused(6, "run")
    world.does("approve", "p.20260101.2", "--reason", "known", "--by", "me")
    assert world.does("run")["status"] == "done"
    assert completed(world) == 2


def test_a_backfill_that_a_gate_stopped_is_judged_by_the_next_run_though_its_source_is_gone(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    checked(world, "-- models: a\nSELECT * FROM a\n")
    assert "small.sql is 2" in world.refused(6, "backfill", "p", "--batch", "20260101")
    for path in (world.root / "drops/20260101").iterdir():
        path.unlink()
    (world.root / "drops/20260101").rmdir()
    assert "small.sql is 2" in world.refused(6, "run")
    checked(world)
    assert world.does("run")["status"] == "done"
    assert completed(world) == 2
    assert world.does("run")["status"] == "nothing new"


def test_content_that_replaced_what_a_gate_stopped_leaves_nothing_to_judge(world: World) -> None:
    checked(world)
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,99\n"})
    world.refused(6, "run")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,21\n"})
    assert world.does("run")["status"] == "done"
    assert completed(world) == 3
    assert world.does("run")["status"] == "nothing new"


REST = {"validation.on_bad_file": "publish_rest"}


def test_records_of_a_file_kept_out_whole_count_in_every_rule(world: World) -> None:
    world.set_up(REST | {"gate.max_reject_pct": 50})
    lines = "".join(f"{number};1\n" for number in range(9))
    world.drop(FIRST, {"20260101/a_2.csv": f"id;n\n{lines}"})
    assert "a: reject_rate is 81.8182 where 50 is the limit" in world.refused(6, "run")


def test_a_file_kept_out_whole_is_told_though_the_rest_is_published(world: World) -> None:
    world.set_up(REST | {"gate.max_reject_pct": 50})
    world.drop(FIRST, {"20260101/a_2.csv.gz": gzip.compress(b"id,n\n" + b"1,1\n" * 5000)[:30]})
    ended = world.call("run")
    assert ended.code == 0
    assert any("a: kept out whole: 20260101/a_2.csv.gz is damaged" in line for line in ended.err.splitlines())
    found = rules(world, "p.20260101.1")
    assert (found["a", "whole_files"], found["a", "reject_rate"]) == ((1, 1, True), (None, 50, None))
    assert world.run_row("p.20260101.1")["verdict"] == "PASSED_WITH_REJECTS"


def test_every_model_that_fails_is_named_and_a_broken_contract_comes_first(world: World) -> None:
    world.set_up({"gate.max_reject_pct": 10})
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,x\n", "20260101/b.csv": "id,e\nx,2026-01-01\n"})
    said = world.refused(5, "run")
    assert "b: 20260101/b.csv has another header than model b" in said
    assert "; a failed too (ingestkit runs show p.20260101.1)" in said


def test_a_model_that_may_be_empty_may_be_empty_after_many_rows(world: World) -> None:
    world.set_up({"gate": {}, "models.a.allow_empty": True})
    world.drop(FIRST, {"20260108/a.csv": "id,n\n"})
    world.does("run")
    assert world.table("a", "id") == []
    assert rules(world, "p.20260108.1")["a", "row_delta"] == (None, 50, None)


def test_a_query_may_begin_with_a_byte_order_mark_and_says_what_to_type_when_it_cannot_be_asked(world: World) -> None:
    checked(world, "\ufeff" + SMALL)
    world.drop(FIRST)
    world.does("run")
    checked(world, "-- models: a\nSELECT * FROM nowhere\n")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,30\n"})
    assert "hint: put it right, then: ingestkit run p" in world.refused(3, "run")
    checked(world)
    assert world.does("run")["status"] == "done"


def test_a_restated_file_that_is_taken_back_leaves_what_was_published(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    path = world.root / "drops/20260101/a.csv"
    world.drop({"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    path.unlink()
    ended = world.call("run")
    assert ended.code == 0
    assert "20260101/a.csv is gone from the source before it was published, and is left out" in ended.err
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.does("run")["status"] == "nothing new"


def test_who_wants_to_step_over_what_a_gate_stopped_is_told_what_to_do_instead(world: World) -> None:
    checked(world)
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,99\n"})
    world.refused(6, "run")
    world.refused(6, "run")
    said = world.refused(2, "skip", "p", "--batch", "20260101", "--reason", "not wanted")
    assert "its gate is closed" in said
    assert "to let it pass: ingestkit approve p.20260101.2 --reason" in said
    world.does("approve", "p.20260101.2", "--reason", "known")
    assert world.does("run")["status"] == "done"
