"""What a run would do, shown and tried without changing anything."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingestkit.states.owner import Owner
from tests.integration.world import BREAKS, FIRST, SECOND, World

BAD = {"20260101/a.csv": "id,n\n1,10\n2,x\n3,y\n4,z\n"}


def everything(world: World) -> dict[str, bytes]:
    """All files there are, but what a kill leaves in scratch."""
    found = (path for path in world.root.rglob("*") if path.is_file() and "scratch" not in path.parts)
    return {str(path.relative_to(world.root)): path.read_bytes() for path in found}


def unchanged(world: World, *arguments: str, code: int = 0) -> dict[str, Any]:
    before = everything(world)
    ended = world.call(*arguments, "--output", "json")
    assert ended.code == code, ended.err
    assert everything(world) == before
    return ended.answer


def test_a_plan_shows_batches_files_and_statements_and_writes_nothing(world: World) -> None:
    world.drop(FIRST, SECOND, {"20260101/readme.md": "not data"})
    found = unchanged(world, "plan", "p")
    assert not (world.root / "state").exists()
    assert [(one["batch"], one["reason"]) for one in found["batches"]] == [("20260101", "new"), ("20260108", "new")]
    files = {one["path"]: (one["model"], one["action"], one["why"]) for one in found["files"]}
    assert files["20260101/a.csv"] == ("a", "take", "new")
    assert files["20260101/readme.md"] == (None, "quarantine", "no model claims it")
    [first, _] = found["ddl"]
    assert first["statement"].startswith('CREATE TABLE "main"."a" (')
    assert "20260101/a.csv" in world.call("plan", "p").out
    assert unchanged(world, "run", "p", "--dry-run") == found


def test_a_plan_tells_what_has_changed_and_what_would_be_added(world: World) -> None:
    world.set_up({"models.a.drift": "evolve"})
    world.drop(FIRST)
    world.does("run")
    assert "nothing new for p" in world.call("plan", "p").out
    world.drop({"20260101/a.csv": "id,n,note\n1,10,x\n"})
    world.set_up({"models.a.drift": "evolve", "models.b.columns.more": {"type": "integer"}})
    found = unchanged(world, "plan", "p")
    assert [(one["batch"], one["reason"]) for one in found["batches"]] == [("20260101", "changed")]
    assert {one["path"]: one["why"] for one in found["files"]}["20260101/a.csv"] == "changed"
    assert sorted(one["statement"] for one in found["ddl"]) == [
        'ALTER TABLE "main"."a" ADD COLUMN "note" VARCHAR',
        'ALTER TABLE "main"."b" ADD COLUMN "more" BIGINT',
    ]


def test_a_rehearsal_counts_and_judges_and_changes_nothing(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND, {"20260108/a.csv": "id,n\n1,10\n2,x\n2,20\n"})
    found = unchanged(world, "run", "p", "--dry-run=data")
    results = {one["model"]: (one["rows"], one["rejected"], one["duplicates"]) for one in found["results"]}
    assert results == {"a": (2, 1, 0), "b": (2, 0, 0)}
    rates = {one["model"]: (one["figure"], one["judged"]) for one in found["rules"] if one["name"] == "reject_rate"}
    assert rates["a"][1] == "passed"
    assert found["message"] == "tried 1 batch, and changed nothing"
    assert "reject_rate" in world.call("run", "p", "--dry-run=data").out
    assert world.does("run")["results"][0]["rows"] == 2


def test_a_rehearsal_ends_as_the_run_would(world: World) -> None:
    world.drop(BAD)
    world.set_up({"validation.max_file_reject_pct": 100})
    assert (
        "would end with exit 6: a: reject_rate is 75"
        in unchanged(world, "run", "p", "--dry-run=data", code=6)["message"]
    )
    world.drop({"20260101/a.csv": BREAKS})
    world.set_up()
    assert "would end with exit 5" in unchanged(world, "run", "p", "--dry-run=data", code=5)["message"]


def test_a_rehearsal_of_some_rows_does_not_judge_the_whole(world: World) -> None:
    rows = "".join(f"{number},1\n" for number in range(500))
    world.drop({"20260101/a.csv": f'id,n\n{rows}"x\ny",oops\n'})
    found = unchanged(world, "run", "p", "--dry-run=data", "--rows", "7")
    [one] = [one for one in found["results"] if one["model"] == "a"]
    assert (one["rows"], one["rejected"]) == (7, 0)
    judged = {rule["name"]: rule["judged"] for rule in found["rules"] if rule["model"] == "a"}
    assert (judged["line_proof"], judged["reject_rate"]) == ("not judged", "passed")
    assert "--rows is of a rehearsal" in world.refused(2, "run", "p", "--rows", "7")


def test_a_rehearsal_goes_on_beside_a_run(world: World, tmp_path: Path) -> None:
    world.drop(FIRST)
    world.does("run")
    other = json.dumps(replace(Owner.here(), host="other", boot="another", pid=77).to_json())
    world.state(f"UPDATE lease SET owner = '{other}', command = 'run', expires = '2099-01-01T00:00:00.000000Z'")
    world.drop(SECOND)
    assert len(unchanged(world, "run", "p", "--dry-run=data")["results"]) == 2
    found = unchanged(world, "plan", "p")
    assert len(found["batches"]) == 1
    assert [(one["model"], one["owner"], one["command"]) for one in found["leases"]] == [
        ("a", "process 77 on other", "run"),
        ("b", "process 77 on other", "run"),
    ]


def test_a_rehearsal_that_is_killed_leaves_only_scratch_that_the_next_command_removes(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/a.csv": "id,n\n" + "".join(f"{number},1\n" for number in range(300_000))})
    before = everything(world)
    process = world.start("run", "p", "--dry-run=data")
    assert process.stderr is not None
    while '"began"' not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert everything(world) == before
    assert list((world.root / "state/scratch").iterdir())
    world.does("run")
    assert [path for path in (world.root / "state/scratch").rglob("*") if path.is_file()] == []


def test_batches_of_a_rehearsal_are_judged_beside_those_tried_before(world: World) -> None:
    world.set_up({"gate": {}})
    many = "id,n\n" + "".join(f"{number},1\n" for number in range(20))
    world.drop({"20260101/a.csv": many, "20260108/a.csv": "id,n\n1,1\n"})
    tried = world.call("run", "--dry-run=data", "--output", "json")
    assert (tried.code, "row_delta is 95" in tried.answer["message"]) == (6, True)
    world.refused(6, "run")


def test_a_plan_tells_files_of_a_batch_that_failed_from_those_it_leaves(world: World) -> None:
    world.set_up({"gate.max_reject_pct": 10})
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,x\n"})
    world.refused(6, "run")
    [file] = world.does("plan")["files"]
    assert (file["action"], file["why"]) == ("reuse", "in the lake already")


def test_a_change_that_could_lose_values_is_told_by_check_and_plan(world: World) -> None:
    world.set_up({"models.a.drift": "evolve"})
    world.drop({"20260101/a.csv": "id,n,note\n1,10,5\n"})
    world.does("run")
    world.set_up({"models.a.columns.note": {"type": "integer"}})
    assert any("note is VARCHAR" in one["trouble"] for one in world.does("plan")["ddl"])
    ended = world.call("check", "p", "--output", "json")
    assert ended.code == 7
    assert "note is VARCHAR" in ended.out


def test_a_contract_that_its_engine_does_not_take_is_told_before_a_run(world: World) -> None:
    world.set_up({"models.a.columns.n": {"pattern": ".{0,2000}"}})
    said = world.call("config", "validate")
    assert said.code == 3
    assert "model a: column n: the contract cannot be compiled: " in said.err
    assert "model a: column n" in world.call("check", "p").out


def test_a_rehearsal_judges_what_gate_would_as_far_as_it_can_be_told(world: World) -> None:
    fresh = {"column": "d", "max_age": "1d"}
    world.set_up({"models.b.gate": {"freshness": fresh}, "gate.max_loss_pct": 90})
    path = world.root / "sql/gate/p/own.sql"
    path.parent.mkdir(parents=True)
    path.write_text("-- models: a\nSELECT * FROM a\n")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,x\n", "20260101/b.csv": "id,d\nx,2026-01-01\n"})
    tried = world.call("run", "--dry-run=data", "--output", "json")
    judged = {(one["model"], one["name"]): (one["figure"], one["judged"]) for one in tried.answer["rules"]}
    assert judged["a", "loss"] == (50, "passed")
    assert judged["a", "sql/gate/p/own.sql"] == (None, "not judged")
    assert judged["b", "freshness"][1] == "failed"
    assert tried.code == 6
    assert "b: freshness is" in world.refused(6, "run")


def test_the_least_of_rows_is_no_rule_of_some_of_them(world: World) -> None:
    world.set_up({"gate.min_rows": 2})
    world.drop(FIRST)
    said = world.does("run", "--dry-run=data", "--rows", "1")
    assert {one["judged"] for one in said["rules"] if one["name"] == "min_rows"} == {"not judged"}
