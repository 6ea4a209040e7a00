"""Rules over their limits, in each of the three places, and what a person's approval lets pass and what it does not."""

import json

import pytest

from ingestkit.stages import load
from tests.integration.world import FIRST, SECOND, World

STRICT = {"gate.max_reject_pct": 10, "validation.max_file_reject_pct": 100}
ONE_BAD = {"20260101/a.csv": "id,n\n1,10\n2,x\n3,30\n4,40\n"}
TWO_BAD = {"20260101/a.csv": "id,n\n1,10\n2,x\n3,y\n4,40\n"}
MINE = ("--reason", "seen", "--by", "me")


def rules(world: World, run_id: str) -> dict[tuple[str, str], dict[str, object]]:
    return {(rule["model"], rule["name"]): rule for rule in world.does("runs", "show", run_id)["rules"]}


def check(world: World, name: str, text: str) -> None:
    path = world.root / "sql/gate/p" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_was_approved_passes_and_what_was_made_is_not_made_again(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    made = set((world.root / "lake/valid").rglob("*.parquet"))
    said = world.does("approve", "p.20260101.1", *MINE)
    assert "approved for batch 20260101 by decision 1: a: reject_rate is 25 where 10 is the limit" in said["message"]
    world.does("run")
    assert world.table("a", "id") == [("1",), ("3",), ("4",)]
    judged = rules(world, "p.20260101.2")["a", "reject_rate"]
    assert (judged["figure"], judged["limit"], judged["passed"], judged["approved_by"]) == (25, 10, True, 1)
    assert "approved by decision 1" in world.call("runs", "show", "p.20260101.2").out
    assert world.run_row("p.20260101.2")["verdict"] == "PASSED_WITH_REJECTS"
    assert made <= set((world.root / "lake/valid").rglob("*.parquet"))
    assert len(set((world.root / "lake/valid").rglob("a/**/*.parquet"))) == 1


def test_stage_commands_go_on_behind_an_approval(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.does("extract", "--run-id", "R")
    world.refused(6, "validate", "--run-id", "R")
    assert "comes after validate of a" in world.refused(2, "load", "--run-id", "R")
    world.does("approve", "R", *MINE)
    for stage in ("validate", "load", "gate"):
        world.does(stage, "--run-id", "R")
    assert world.run_row("R")["status"] == "SUCCESS_WITH_REJECTS"


def test_an_approval_does_not_cover_a_worse_figure_other_content_or_another_batch(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    world.does("approve", "p.20260101.1", *MINE)
    world.drop(TWO_BAD)
    assert "reject_rate is 50" in world.refused(6, "run")
    world.drop({"20260101/a.csv": ONE_BAD["20260101/a.csv"].replace("40", "41")})
    assert "reject_rate is 25" in world.refused(6, "run")
    world.drop(ONE_BAD)
    world.does("run")
    world.drop(SECOND, {"20260108/a.csv": ONE_BAD["20260101/a.csv"]})
    assert "reject_rate is 25" in world.refused(6, "run")


def test_only_the_rule_that_is_named_passes(world: World) -> None:
    world.set_up(STRICT | {"gate.min_rows": 9})
    world.drop({"20260101/a.csv": ONE_BAD["20260101/a.csv"]})
    world.refused(6, "run")
    assert "those are min_rows, reject_rate" in world.refused(2, "approve", "p.20260101.1", "--rule", "empty", *MINE)
    world.does("approve", "p.20260101.1", "--rule", "reject_rate", *MINE)
    said = world.refused(6, "run")
    assert "min_rows is 3 where 9 is the least" in said
    assert "reject_rate" not in said
    world.does("approve", "p.20260101.2", *MINE)
    world.does("run")


def test_a_run_that_no_rule_closed_has_nothing_to_approve(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    said = world.refused(2, "approve", "p.20260101.1", *MINE)
    assert "no rule closed run p.20260101.1" in said
    assert "has no run 'nobody'" in world.refused(2, "approve", "nobody", *MINE)


def test_an_approval_is_a_link_of_the_chain_with_a_copy_in_the_lake(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    world.does("approve", "p.20260101.1", *MINE)
    [copy] = (world.root / "lake/_decisions/p").iterdir()
    told = json.loads(copy.read_text())
    assert (told["kind"], told["by"], told["reason"], told["subject"]["batch"]) == ("approve", "me", "seen", "20260101")
    [rule] = told["subject"]["rules"]
    assert (rule["name"], rule["figure"], set(rule["models"]["a"])) == ("reject_rate", 25, {"digest", "generation"})
    world.state("UPDATE decision SET reason = 'forged'")
    assert "decision 1 of p was changed" in world.refused(7, "run")


def test_a_run_shows_what_was_decided_about_it_and_its_batch(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    world.does("pause", "p", "--reason", "no run's business")
    world.does("resume", "p", "--reason", "no run's business")
    world.does("approve", "p.20260101.1", *MINE)
    world.does("run")
    world.drop(SECOND)
    world.does("run")

    def decided(run_id: str) -> list[tuple[str, str, str]]:
        rows = world.does("runs", "show", run_id)["decisions"]
        return [(row["kind"], row["by"], row["reason"]) for row in rows]

    assert decided("p.20260101.1") == decided("p.20260101.2") == [("approve", "me", "seen")]
    assert decided("p.20260108.1") == []
    world.does("quarantine", "discard", "p", "--batch", "20260101", *MINE, "--yes")
    assert [kind for kind, _, _ in decided("p.20260101.2")] == ["approve", "discard"]
    assert decided("p.20260108.1") == []
    assert "decisions\n  number  kind     at" in world.call("runs", "show", "p.20260101.2").out


def test_an_approval_survives_the_state(world: World) -> None:
    world.set_up(STRICT)
    world.drop(SECOND)
    world.does("run")
    world.drop({"20260115/a.csv": ONE_BAD["20260101/a.csv"]})
    world.refused(6, "run")
    world.does("approve", "p.20260115.1", *MINE)
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    world.does("run")
    assert world.table("a", "id") == [("1",), ("3",), ("4",)]


def test_sql_of_ones_own_passes_when_it_returns_nothing(world: World) -> None:
    check(world, "no_future.sql", "-- models: b\nSELECT * FROM b WHERE d > DATE '2026-06-01'; ")
    world.drop(FIRST)
    world.does("run")
    judged = rules(world, "p.20260101.1")["b", "sql/gate/p/no_future.sql"]
    assert (judged["figure"], judged["passed"]) == (0, True)
    world.drop({"20260108/b.csv": "id,d\nx,2026-07-01\nq,2026-08-01\n"})
    said = world.refused(6, "run")
    assert "b: sql/gate/p/no_future.sql is 2 where 0 is the limit" in said
    assert "nothing is sent on" in said
    # It takes nothing back, and the batch is not done.
    assert len(world.table("b")) == 3
    assert world.checkpoint() == "20260101"
    assert world.run_row("p.20260108.1")["verdict"] == "FAILED"
    assert "no_future.sql is 2" in world.refused(6, "run")
    world.does("approve", "p.20260108.2", *MINE)
    world.does("run")
    assert world.checkpoint() == "20260108"
    assert len(world.table("b")) == 3


def test_sql_over_two_models_is_judged_in_the_run_that_completes_the_last(world: World) -> None:
    check(world, "both.sql", "\n-- models: a, b\nSELECT 1 FROM a JOIN b ON a.id = b.id -- none")
    world.drop(FIRST)
    world.does("run", "--model", "a")
    assert not any(name == "sql/gate/p/both.sql" for _, name in rules(world, "p.20260101.1"))
    world.does("run", "--model", "b")
    assert rules(world, "p.20260101.2")["a, b", "sql/gate/p/both.sql"]["passed"] is True


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("SELECT 1", 3, "its first line must name the models"),
        ("-- models: a, bb\nSELECT 1", 3, "there is no model 'bb'"),
        ("-- models: a\nSELECT * FROM nowhere", 3, "sql/gate/p/x.sql cannot be asked"),
        ("-- models: a\nDELETE FROM a RETURNING 1", 3, "sql/gate/p/x.sql cannot be asked"),
    ],
)
def test_sql_that_cannot_be_asked_is_named(world: World, text: str, code: int, said: str) -> None:
    check(world, "x.sql", text)
    world.drop(FIRST)
    assert said in world.refused(code, "run")
    (world.root / "sql/gate/p/x.sql").unlink()
    world.does("run")
    assert len(world.table("a")) == 2


def test_stale_data_close_the_gate_until_the_newest_instant_is_approved(world: World) -> None:
    world.set_up({"models.b.gate": {"freshness": {"column": "d", "max_age": "1d"}}})
    world.drop(FIRST)
    said = world.refused(6, "run")
    assert "b: freshness is " in said
    assert "figures are hours since the newest d" in said
    assert "2026-01-02" not in said
    world.does("approve", "p.20260101.1", *MINE)
    # The age has grown since; what was approved is how far the data reach.
    world.does("run")
    assert rules(world, "p.20260101.2")["b", "freshness"]["approved_by"] == 1


def test_freshness_of_a_table_without_a_value_is_not_judged(world: World) -> None:
    world.set_up({"models.b.gate": {"freshness": {"column": "d", "max_age": "1d"}}})
    world.drop(FIRST, {"20260101/b.csv": "id,d\nx,\n"})
    world.does("run")
    assert rules(world, "p.20260101.1")["b", "freshness"]["passed"] is None


def test_the_loss_between_source_and_target_is_split(world: World) -> None:
    world.set_up(STRICT | {"gate.max_reject_pct": 80, "gate.max_loss_pct": 40})
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,x\n1,30\n4,40\n"})
    said = world.refused(6, "run")
    assert "a: loss is 50 where 40 is the limit" in said
    assert "of 4 records 1 were rejected, 1 duplicates, 0 filtered, 0 superseded, 0 unexplained" in said
    assert rules(world, "p.20260101.1")["a", "unexplained_loss"]["passed"] is True
    world.does("approve", "p.20260101.1", *MINE)
    [one] = [one for one in world.does("run")["results"] if one["model"] == "a"]
    assert (one["rows"], one["rejected"], one["duplicates"]) == (2, 2, 1)


def test_a_models_own_limits_go_before_the_pipelines(world: World) -> None:
    world.set_up({"gate.max_reject_pct": 0, "models.a.gate": {"max_reject_pct": 25}})
    world.drop(FIRST, ONE_BAD)
    world.does("run")
    assert rules(world, "p.20260101.1")["a", "reject_rate"]["limit"] == 25
    assert rules(world, "p.20260101.1")["b", "reject_rate"]["limit"] == 0


def test_a_model_that_is_replaced_may_not_change_its_size_by_more_than_half_unless_told(world: World) -> None:
    world.set_up({"gate.row_delta_pct": None})
    for batch, rows in (("20260101", 10), ("20260102", 14), ("20260103", 16), ("20260104", 18)):
        world.drop({f"{batch}/a.csv": "id,n\n" + "".join(f"{number},1\n" for number in range(rows))})
        world.drop({f"{batch}/b.csv": "id,d\n" + "".join(f"{number},\n" for number in range(rows))})
        world.does("run")
    # Against the median of those before it, 15, not against the last one.
    world.drop({"20260105/a.csv": "id,n\n" + "".join(f"{number},1\n" for number in range(25))})
    world.drop({"20260105/b.csv": "id,d\n1,\n"})
    said = world.refused(6, "run")
    assert "a: row_delta is 66.6667 where 50 is the limit (25 rows where 15 are usual)" in said
    assert "b: " not in said
    world.set_up({"gate.row_delta_pct": "never"})
    world.does("run")


def test_what_is_bad_for_the_target_cannot_be_approved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = load.judged
    monkeypatch.setattr(load, "judged", lambda model, counts, facts, expected: real(model, counts, facts, expected + 1))
    world.drop(FIRST)
    said = world.refused(6, "run")
    assert "valid_not_staged is 1 where 0 is the limit; nothing was published" in said
    assert world.refused(2, "approve", "p.20260101.1", *MINE).startswith("error: ")
    monkeypatch.undo()
    world.does("run")


def test_what_a_later_attempt_went_over_is_not_approved(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    world.drop(TWO_BAD)
    world.refused(6, "run")
    said = world.refused(2, "approve", "p.20260101.1", *MINE)
    assert (
        "run p.20260101.1 was gone over: p.20260101.2, a later attempt at batch 20260101, has judged other files"
        in said
    )
    assert "hint: ingestkit runs show p.20260101.2" in said
    world.does("approve", "p.20260101.2", *MINE)
    world.does("run")
    assert "is done" in world.refused(2, "approve", "p.20260101.2", *MINE)


def test_any_attempt_at_the_same_content_is_approved(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, ONE_BAD)
    world.refused(6, "run")
    world.refused(6, "run")
    world.does("approve", "p.20260101.1", *MINE)
    assert world.does("run")["status"] == "done"


def test_an_approval_of_two_models_does_not_cover_other_content_of_the_one_beside(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    check(world, "both.sql", "-- models: a, b\nSELECT a.id FROM a, b WHERE b.d > DATE '2026-01-01' LIMIT 1\n")
    world.drop({"20260101/a.csv": "id,n\n1,11\n"})
    world.refused(6, "run")
    world.does("approve", "p.20260101.2", *MINE)
    (world.root / "sql/gate/p/both.sql").rename(world.root / "both.sql")
    world.drop({"20260101/b.csv": "id,d\nw,2026-01-05\n"})
    assert world.does("run", "--model", "b")["status"] == "done"
    (world.root / "both.sql").rename(world.root / "sql/gate/p/both.sql")
    assert "both.sql is 1" in world.refused(6, "run")
    world.does("approve", "p.20260101.4", *MINE)
    assert world.does("run")["status"] == "done"
