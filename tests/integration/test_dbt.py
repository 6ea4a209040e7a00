"""dbt as a stage: a real one builds on what was published, and its tests open or close the gate."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import dbts
from tests.integration.world import FIRST, World, read_until

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]
MINE = ("--reason", "seen", "--by", "me")
SOURCES = "version: 2\nsources: [{name: p, schema: main, tables: [{name: a}, {name: b}]}]\n"
TOTALS = "{{ config(materialized='table') }}\nselect count(*) as n from {{ source('p', 'a') }}\n"
TESTS = """version: 2
models:
  - name: totals
    columns:
      - name: n
        data_tests:
          - not_null
          - accepted_values:
              name: at_most_two
              arguments: {values: [0, 1, 2], quote: false}
"""
MODELS = {"sources.yml": SOURCES, "totals.sql": TOTALS, "totals.yml": TESTS}
MORE = {"20260108/a.csv": "id,n\n1,11\n2,20\n3,30\n", "20260108/b.csv": "id,d\nx,2026-01-08\n"}
"""Three rows in model `a`, which the test of dbt does not like."""


def built_by_dbt(world: World, changes: dict[str, Any] | None = None, **models: str) -> None:
    dbts.project(
        world.root / "dbt",
        {"type": "duckdb", "path": str(world.root / "warehouse.duckdb")},
        MODELS | {name.replace("__", "."): text for name, text in models.items()},
    )
    world.set_up({"dbt": {"program": dbts.program()}} | (changes or {}))


def rules(world: World, run_id: str) -> dict[str, tuple[object, object, object, object]]:
    found = world.does("runs", "show", run_id)["rules"]
    mine = [rule for rule in found if rule["stage"] == "dbt"]
    return {rule["name"]: (rule["model"], rule["figure"], rule["limit"], rule["passed"]) for rule in mine}


def details(world: World, run_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((world.root / f"state/runs/p/{run_id}/dbt._all.json").read_text())
    return told


def left_of(folder: Path) -> list[str]:
    """The processes that were called with this folder."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit() and one.name != str(os.getpid()):
            try:
                words = (one / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += [" ".join(words)] if any(str(folder / "dbt") == word for word in words) else []
    return found


def test_it_builds_on_what_was_published_before_the_gate_judges(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    world.does("run")
    assert world.target("SELECT n FROM totals") == [(2,)]
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["phases_completed"]) == (
        "SUCCESS",
        ["extract", "validate", "load", "dbt", "gate", "clean"],
    )
    assert rules(world, "p.20260101.1") == {
        "at_most_two": ("a", 0, 0, True),
        "not_null_totals_n": ("a", 0, 0, True),
    }
    kept = details(world, "p.20260101.1")["details"]
    assert kept["statuses"] == {"pass": 2, "success": 1}
    assert [(one["node"], one["status"]) for one in kept["nodes"]] == [("model.mart.totals", "success")]
    gate = json.loads((world.root / "state/runs/p/p.20260101.1/gate._all.json").read_text())
    assert "a: at_most_two is 0 where 0 is the limit" in gate["details"]["rules"]
    assert world.does("run")["status"] == "nothing new"


def test_a_test_that_fails_closes_the_gate_until_somebody_approves(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST, MORE)
    said = world.refused(6, "run")
    assert "error: a: at_most_two is 1 where 0 is the limit (figures are rows that dbt's test found)" in said
    assert "hint: ingestkit runs show p.20260108.1; to let it pass: ingestkit approve p.20260108.1" in said
    assert world.checkpoint() == "20260101"
    row = world.run_row("p.20260108.1")
    assert (row["status"], row["verdict"], row["exit_code"]) == ("FAILED", "FAILED", 6)
    assert (row["phases_failed"], row["phases_pending"]) == (["dbt"], ["gate", "clean"])
    assert rules(world, "p.20260108.1")["at_most_two"] == ("a", 1, 0, False)
    assert "at_most_two is 1" in world.refused(6, "run")
    world.does("approve", "p.20260108.2", *MINE)
    world.does("run")
    assert world.run_row("p.20260108.3")["verdict"] == "PASSED"
    assert rules(world, "p.20260108.3")["at_most_two"] == ("a", 1, 0, True)
    assert world.checkpoint() == "20260108"


def test_a_test_that_only_warns_lets_pass(world: World) -> None:
    warns = TESTS.replace("quote: false}", "quote: false}\n              config: {severity: warn}")
    built_by_dbt(world, totals__yml=warns)
    world.drop(MORE)
    ended = world.call("run")
    assert ended.code == 0, ended.err
    assert "dbt: at_most_two warns, of 1 rows" in [one["event"] for one in ended.log if one["level"] == "warning"]
    assert rules(world, "p.20260108.1")["at_most_two"] == ("a", 1, None, True)


def test_what_it_said_of_its_nodes_is_in_the_log(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    told = [one["event"] for one in world.call("run").log]
    assert {"dbt: totals success", "dbt: at_most_two pass", "dbt: not_null_totals_n pass"} <= set(told)


def test_stage_by_stage(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    for stage in ("extract", "validate", "load"):
        world.does(stage, "--run-id", "R")
    assert "hint: ingestkit dbt build p --run-id R" in world.refused(2, "gate", "--run-id", "R")
    answer = world.does("dbt", "build", "p", "--run-id", "R")
    assert answer["status"] == "done"
    assert {(one["model"], one["stage"], one["status"], one["rows"]) for one in answer["results"]} == {
        ("a", "dbt", "success", 2),
        ("b", "dbt", "success", 2),
    }
    world.does("gate", "--run-id", "R")
    assert "is done already" in world.does("dbt", "build", "p", "--run-id", "R")["message"]
    world.target_does("DROP TABLE totals")
    world.does("load", "--run-id", "R", "--force")
    assert world.target("SELECT n FROM totals") == [(2,)]
    assert world.run_row("R")["status"] == "SUCCESS"


def test_a_pipeline_without_it_knows_nothing_of_it(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    assert [row for row in world.state("SELECT stage FROM pipeline_stage") if row == ("dbt",)] == []
    row = world.run_row("p.20260101.1")
    assert row["phases_completed"] == ["extract", "validate", "load", "gate", "clean"]
    assert "pipeline p has no dbt" in world.refused(2, "dbt", "build", "p", "--run-id", "p.20260101.1")


def test_nothing_published_is_nothing_to_build_on(world: World) -> None:
    built_by_dbt(world, {"models.a.absent": "keep"})
    world.drop(FIRST)
    world.does("run")
    world.target_does("DROP TABLE totals")
    world.drop({"20260108/readme.md": "nothing"})
    world.does("run")
    assert world.run_row("p.20260108.1")["phases_skipped"][-1] == "dbt"
    assert world.target("SELECT table_name FROM duckdb_tables() WHERE table_name = 'totals'") == []


def test_it_is_built_with_the_last_model_of_a_batch(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    world.does("run", "--model", "a")
    assert details(world, "p.20260101.1")["skipped"].startswith("it is built with the last models of the batch: b")
    world.does("run", "--model", "b")
    assert world.target("SELECT n FROM totals") == [(2,)]


def test_without_its_program_nothing_is_begun(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    for program in ("no-such-dbt", "venv/bin/dbt"):
        world.set_up({"dbt": {"program": program}})
        for command in (["run"], ["check"], ["config", "validate"]):
            ended = world.call(*command)
            assert ended.code == 3, (command, ended)
            assert "there is no program" in ended.out + ended.err
        assert world.call("plan").code == 3
    assert world.state("SELECT run_id FROM pipeline_run") == []


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"totals__sql": "{{ nope( }}"}, "Compilation Error in model totals (models/totals.sql)"),
        ({"totals__sql": "select * from {{ ref('nix') }}"}, "depends on a node named 'nix' which was not found"),
        ({"../dbt_project__yml": ": : garbage ["}, "Syntax error near line 1"),
    ],
)
def test_a_project_that_cannot_be_read_is_a_configuration_error(
    world: World, models: dict[str, str], said: str
) -> None:
    built_by_dbt(world, None, **models)
    world.drop(FIRST)
    assert said in world.refused(3, "run")
    assert said in (told := world.call("check")).out + told.err
    assert world.run_row("p.20260101.1")["status"] == "FAILED"
    built_by_dbt(world)
    dbts.project(world.root / "dbt", {"type": "duckdb", "path": str(world.root / "warehouse.duckdb")}, MODELS)
    world.does("run")
    assert world.target("SELECT n FROM totals") == [(2,)]


def test_a_model_that_cannot_be_built_is_told_without_a_value(world: World) -> None:
    built_by_dbt(
        world, bad__sql="{{ config(materialized='table') }}\nselect cast(id as date) from {{ source('p', 'b') }}"
    )
    world.drop({"20260101/a.csv": "id,n\n1,1\n", "20260101/b.csv": "id,d\nsecret-cell,2026-01-01\n"})
    ended = world.call("run")
    assert ended.code == 3
    assert "error: dbt could not build 1 of 4 nodes: model bad: Conversion Error" in ended.err
    everything = ended.err + "".join(path.read_text() for path in (world.root / "state/runs").rglob("*.json"))
    assert "secret-cell" not in everything
    assert world.state("SELECT count(*) FROM pipeline_stage WHERE instr(error || details, 'secret-cell') > 0") == [(0,)]
    assert details(world, "p.20260101.1")["details"]["nodes"][0]["node"] == "model.mart.bad"
    built_by_dbt(world, bad__sql="select * from nowhere")
    assert "model bad: Catalog Error: Table with name nowhere does not exist!" in world.refused(3, "run")


WAITS = "{{ config(materialized='table') }}\nselect count(*) as n from range(100000000000) as t(i) where i % 7 = 3\n"


def test_past_its_time_it_is_ended_with_all_it_started(world: World) -> None:
    built_by_dbt(world, {"dbt": {"program": dbts.program(), "timeout": "8s"}, "retry.attempts": 1}, waits__sql=WAITS)
    world.drop(FIRST)
    said = world.refused(7, "run")
    assert "dbt of * ran longer than its time-out of 8 s\nhint: raise dbt.timeout of pipeline p" in said
    assert left_of(world.root) == []
    assert world.run_row("p.20260101.1")["phases_failed"] == ["dbt"]
    (world.root / "dbt/models/waits.sql").unlink()
    built_by_dbt(world)
    world.does("run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_goes_with_its_run_however_that_ends(world: World, number: signal.Signals) -> None:
    built_by_dbt(world, waits__sql=WAITS)
    world.drop(FIRST)
    process = world.start("run")
    # By then dbt is in the statement that does not end.
    read_until(process, "dbt: at_most_two pass")
    assert left_of(world.root)
    process.send_signal(number)
    ended = world.ended(process)
    assert ended.code == (143 if number == signal.SIGTERM else -9), ended.err
    dbts.until(lambda: not left_of(world.root), patience=10)
    (world.root / "dbt/models/waits.sql").unlink()
    world.does("run")
    assert world.run_row("p.20260101.1")["status"] == "SUCCESS"
    assert world.target("SELECT n FROM totals") == [(2,)]
