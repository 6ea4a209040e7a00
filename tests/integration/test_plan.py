"""What `plan` tells of a pipeline, and what a backfill that is only shown would do."""

import json
import shutil
import time
from typing import Any

import pytest

from ingestkit import steps
from tests.integration.test_as_of import now
from tests.integration.test_processes import slow
from tests.integration.test_rehearsals import unchanged
from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, World, read_until

SHAPE = {
    "schema_version",
    "pipeline",
    "waiting",
    "checkpoint",
    "paused",
    "held",
    "pins",
    "open",
    "leases",
    "rebuild",
    "batches",
    "files",
    "superseded",
    "not_yet",
    "holes",
    "late",
    "strays",
    "ahead",
    "missed",
    "unmapped",
    "ddl",
    "gates",
    "failure",
}


def why(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["path"]: (one["action"], one["why"]) for one in found["files"]}


def rule(found: dict[str, Any], model: str, name: str) -> dict[str, Any]:
    [one] = [one for one in found["gates"] if (one["model"], one["rule"]) == (model, name)]
    return dict(one)


def test_a_target_to_be_built_again_is_work(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    (world.root / "warehouse.duckdb").unlink()
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "the machine was lost", "--yes")
    ended = world.call("plan", "p", "--skip-exit-code", "99", "--output", "json")
    assert (ended.code, ended.answer["failure"], ended.answer["batches"]) == (0, None, [])
    assert {"batch": "20260108", "model": "a"} in ended.answer["rebuild"]
    assert ended.answer["waiting"] == len({one["batch"] for one in ended.answer["rebuild"]}) > 0
    assert "20260108" in world.call("plan", "p").out
    world.does("run")
    assert world.call("plan", "p", "--skip-exit-code", "99").code == 99


def test_what_is_of_no_batch_is_named_by_plan_and_run(world: World) -> None:
    batches = {"folders": r"(in/)?(?P<batch>\d{8})", "kind": "date"}
    world.set_up({"source.batches": batches, "source.ignore": [r"tmp.*"]})
    world.drop({"in/20260101/a.csv": "id,n\n1,1\n", "in/2026-01-02/a.csv": "id,n\n2,2\n", "in/notes.txt": "?"})
    world.drop({"old/x/20260103/a.csv": "id,n\n3,3\n", "tmp.1/a.csv": "", "top.csv": ""})
    strays = ["in/2026-01-02", "in/notes.txt", "old", "top.csv"]
    assert world.does("plan", "p")["strays"] == strays
    for expected in ("done", "nothing new"):
        ended = world.call("run", "--output", "json")
        assert (ended.code, ended.answer["status"]) == (0, expected)
        assert f"{', '.join(strays)} in the source are of no batch" in ended.err


def test_a_plan_reads_the_state_as_it_is_and_writes_nothing_to_it(world: World) -> None:
    world.drop({"20260101/a.csv": "id,n\n1,1\n", "20260101/b.csv": "id,d\n1,2026-01-01\n", "20260101/x.txt": "?"})
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,1000\n", "20260102/a.csv": "id,n\n2,2\n"})
    tables = ("file_manifest", "lease", "pipeline")

    def rows() -> list[list[str]]:
        return [sorted(repr(row) for row in world.state(f"SELECT * FROM {table}")) for table in tables]

    before = rows()
    found = world.does("plan", "p")
    assert [(one["path"], one["action"], one["why"]) for one in found["files"] if one["action"] != "skip"] == [
        ("20260101/a.csv", "take", "changed"),
        ("20260101/x.txt", "quarantine", "no model claims it"),
        ("20260102/a.csv", "take", "new"),
    ]
    assert rows() == before


def test_what_programs_are_told_has_one_shape_whether_or_not_something_waits(world: World) -> None:
    assert set(unchanged(world, "plan", "p")) == SHAPE
    world.drop(FIRST)
    found = unchanged(world, "plan", "p")
    assert set(found) == SHAPE
    assert (found["waiting"], found["checkpoint"], found["failure"]) == (1, None, None)
    world.does("run")
    found = unchanged(world, "plan", "p")
    assert set(found) == SHAPE
    assert (found["waiting"], found["checkpoint"], found["batches"]) == (0, "20260101", [])
    assert set(json.loads(world.call("plan", "p", "--output", "ndjson").out)) == SHAPE


def test_a_scheduler_is_told_by_an_exit_code_that_nothing_waits(world: World) -> None:
    assert world.call("plan", "p", "--skip-exit-code", "99").code == 99
    assert world.call("run", "p", "--dry-run", "--skip-exit-code", "99").code == 99
    assert world.call("plan", "p").code == 0
    world.drop(FIRST)
    assert world.call("plan", "p", "--skip-exit-code", "99").code == 0


def test_a_sensor_is_told_what_a_run_would_refuse(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    (world.root / "warehouse.duckdb").unlink()
    ended = world.call("plan", "p", "--skip-exit-code", "99", "--output", "json")
    assert (ended.code, ended.answer["waiting"], ended.answer["failure"]["exit_code"]) == (7, 0, 7)
    assert world.refused(7, "run", "p") == "\n".join(ended.told)
    assert set(ended.answer) == SHAPE
    assert world.call("run", "p", "--dry-run", "--skip-exit-code", "99").code == 7


@pytest.mark.parametrize("trouble", ["DROP TABLE a", "UPDATE ingestkit_fence SET state_id = 'of another'"])
def test_a_sensor_is_told_that_the_target_is_not_what_the_state_knows(world: World, trouble: str) -> None:
    world.drop(FIRST)
    world.does("run")
    world.target_does(trouble)
    assert world.call("plan", "p", "--skip-exit-code", "99").code == 99
    world.drop(SECOND)
    ended = world.call("plan", "p", "--output", "json")
    assert (ended.code, ended.answer["waiting"]) == (7, 1)
    assert world.refused(7, "run", "p") == "\n".join(ended.told)


def test_a_sensor_is_told_of_a_target_that_an_open_run_would_find_otherwise(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(FIRST)
    world.does("run")

    def interrupts(step: str) -> None:
        if step == "extract.begun":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", interrupts)
        assert world.call("backfill", "p", "--batch", "20260101", "--model", "a").code == 130
    world.target_does("DROP TABLE b")
    ended = world.call("plan", "p", "--output", "json")
    assert (ended.code, ended.answer["waiting"]) == (7, 1)
    world.refused(7, "run", "p")


def test_a_sensor_is_told_of_a_column_that_no_statement_changes_as_the_contract_says(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.set_up({"models.a.columns.n": {"type": "date"}})
    assert world.call("plan", "p").code == 0
    world.drop({"20260108/a.csv": "id,n\n1,2026-01-01\n"})
    ended = world.call("plan", "p", "--output", "json")
    assert (ended.code, ended.answer["waiting"]) == (7, 1)
    [trouble] = [one["trouble"] for one in ended.answer["ddl"] if "trouble" in one]
    assert trouble in world.refused(7, "run", "p")


def test_a_sensor_of_a_paused_pipeline_is_told_no_more_than_a_run_is(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.does("pause", "p", "--reason", "a look at the target")
    world.target_does("DROP TABLE a")
    world.drop(SECOND)
    assert (world.call("plan", "p").code, world.call("run", "p").code) == (0, 0)


def test_a_sensor_is_told_that_a_table_is_of_another_pipeline(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.set_up(pipeline="q")
    ended = world.call("plan", "q", "--output", "json")
    assert ended.code == 7
    assert "table a belongs to p.a, not to q.a" in "\n".join(ended.told)
    assert "table a belongs to p.a" in world.refused(7, "run", "q")


def test_a_target_that_is_being_built_again_is_no_refusal(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    (world.root / "warehouse.duckdb").unlink()
    world.state('UPDATE pipeline SET rebuild = \'["a", "b"]\'')
    assert world.does("plan", "p")["failure"] is None
    world.does("run")


def test_a_sensor_is_told_that_the_state_is_empty_where_its_mirror_is_not(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.lose_state()
    found = unchanged(world, "plan", "p", code=7)
    assert "the state knows nothing of p, but its mirror shows run p.20260101.1" in found["failure"]["message"]
    assert "state adopt p" in found["failure"]["hint"]
    (world.root / "state/mirror/p.json").unlink()
    assert "the lake" in unchanged(world, "plan", "p", code=7)["failure"]["message"]


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "p", "--dry-run=data"),
        ("backfill", "p", "--batch", "20260101", "--dry-run"),
        ("backfill", "p", "--from", "20260101", "--to", "20260101", "--dry-run"),
        ("backfill", "p", "--from", "20260101", "--to", "20260101"),
        ("backfill", "p", "--from-lake", "--dry-run"),
        # It would leave a state that knows something.
        ("skip", "p", "--batch", "20260101", "--reason", "x"),
    ],
)
def test_nothing_is_tried_or_done_again_with_a_state_that_was_lost(
    world: World, arguments: tuple[str, ...], *, shown: bool
) -> None:
    world.drop(FIRST)
    world.does("run")
    world.lose_state()
    if not shown:
        (world.root / "state/mirror/p.json").unlink()
    told = world.refused(7, *arguments)
    assert "the state knows nothing of p, but " in told
    assert "ingestkit state adopt p" in told


def test_nobody_waits_for_files_to_settle_to_see_a_plan_of_them(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "20s"}})
    world.drop(FIRST, SECOND)
    begun = time.monotonic()
    found = unchanged(world, "plan", "p")
    assert time.monotonic() - begun < 15
    # A run would wait for the first batch, and find the second one unsettled still.
    assert (found["waiting"], [one["batch"] for one in found["batches"]]) == (1, ["20260101"])
    assert why(found) == {"20260101/a.csv": ("take", "new"), "20260101/b.csv": ("take", "new")}
    assert found["not_yet"] == [
        {"batch": "20260101", "why": "2 file(s) have not been quiet for 20 s, which a run waits for once"},
        {"batch": "20260108", "why": "2 file(s) have not been quiet for 20 s"},
    ]


def test_what_newer_batches_stand_over_is_told_before_it_is_fetched(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,1000\n", "20260101/b.csv": "id,d\nw,2026-01-03\n"})
    found = unchanged(world, "plan", "p")
    assert found["superseded"] == [{"batch": "20260101", "model": "a", "by": "20260108"}]
    assert why(found)["20260101/a.csv"] == ("take", "changed; superseded by 20260108")
    assert why(found)["20260101/b.csv"] == ("take", "changed")
    assert "changed; superseded by 20260108" in world.call("plan", "p").out
    world.does("run")
    assert world.completions()["20260101", "a"] == "superseded"
    assert unchanged(world, "plan", "p")["superseded"] == []


def test_snapshots_that_only_wait_behind_others_are_told_as_superseded(world: World) -> None:
    world.set_up({"catch_up": "newest"})
    world.drop(FIRST, SECOND)
    found = unchanged(world, "plan", "p")
    assert found["superseded"] == [{"batch": "20260101", "model": "a", "by": "20260108"}]
    assert why(found)["20260101/a.csv"] == ("take", "new; superseded by 20260108")


def test_files_are_new_changed_late_or_forgotten_and_it_says_why(world: World) -> None:
    world.set_up({"models.a.files": r"a.*\.csv", "models.b.files": r"b.*\.csv"})
    world.drop(FIRST, {"20260101/a_gone.csv": "id,n\n7,7\n", "20260101/a_same.csv": "id,n\n8,8\n"})
    world.does("run")
    for name in ("a_gone.csv", "b.csv"):
        world.does("manifest", "forget", "p", "--path", f"20260101/{name}", "--reason", "x", "--yes")
    (world.root / "drops/20260101/a_gone.csv").unlink()
    world.drop({"20260101/a.csv": "id,n\n1,100\n", "20260101/a_late.csv": "id,n\n9,9\n", "20260101/x.txt": "?"})
    found = unchanged(world, "plan", "p")
    assert why(found) == {
        "20260101/a.csv": ("take", "changed"),
        "20260101/a_gone.csv": ("leave out", "forgotten, and gone from the source"),
        "20260101/a_late.csv": ("take", "late: its batch is done"),
        "20260101/a_same.csv": ("reuse", "in the lake already"),
        "20260101/b.csv": ("take", "forgotten, and here again"),
        "20260101/x.txt": ("quarantine", "no model claims it"),
    }
    assert found["unmapped"] == ["20260101/x.txt"]


def test_late_batches_and_those_that_must_wait_are_named(world: World) -> None:
    world.set_up({"source.expect": ["a"]})
    world.drop(SECOND)
    world.does("run")
    world.drop(FIRST, {"20260115/b.csv": THIRD["20260115/b.csv"]})
    found = unchanged(world, "plan", "p")
    assert (found["late"], found["waiting"]) == (["20260101"], 0)
    assert found["not_yet"] == [{"batch": "20260115", "why": "no file of a yet"}]


def test_rules_are_shown_with_their_last_figures_and_what_is_usual(world: World) -> None:
    world.set_up({"gate": {"max_reject_pct": 60, "row_delta_pct": 80}})
    world.drop(
        FIRST, SECOND, {"20260115/a.csv": "id,n\n1,1\n2,2\n3,3\n4,x\n", "20260115/b.csv": "id,d\nx,2026-01-01\n"}
    )
    world.does("run")
    found = unchanged(world, "plan", "p")
    delta = rule(found, "a", "row_delta")
    assert (delta["limit"], delta["last"], delta["usual_rows"]) == (80, 50, 2)
    assert [(one["batch"], one["figure"]) for one in delta["history"]] == [
        ("20260115", 50),
        ("20260108", 0),
        ("20260101", None),
    ]
    rejects = rule(found, "a", "reject_rate")
    assert (rejects["limit"], rejects["last"]) == (60, 25)
    world.set_up({"gate": {"max_reject_pct": 10, "min_rows": 2}})
    found = unchanged(world, "plan", "p")
    assert rule(found, "a", "reject_rate")["limit"] == 10, "the limit is today's"
    assert (rule(found, "b", "min_rows")["last"], rule(found, "b", "min_rows")["least"]) == (None, True)
    shown = world.call("plan", "p").out
    assert "nothing new for p" in shown
    assert ["a", "reject_rate", "25", "-", "<=", "10", "0,", "0"] in [line.split() for line in shown.splitlines()]
    assert "line_proof" not in shown


def test_pauses_holds_pins_and_open_runs_are_told(world: World) -> None:
    world.set_up({"retry": {"attempts": 1, "hold_after": 1}})
    world.drop(FIRST)
    world.does("run")
    world.does("backfill", "p", "--batch", "20260101", "--model", "a", "--as-of", now(), "--reason", "x")
    world.does("pause", "p", "--reason", "until noon", "--by", "ann")
    found = unchanged(world, "plan", "p")
    assert (found["paused"]["by"], found["paused"]["reason"], found["held"]) == ("ann", "until noon", None)
    assert [(one["model"], one["batch"]) for one in found["pins"]] == [("a", "20260101")]
    assert "Z by ann: until noon" in world.call("plan", "p").out
    world.does("resume", "p", "--reason", "noon")
    world.drop({"20260108/a.csv": BREAKS})
    world.refused(5, "run")
    assert "1 run failed in a row" in unchanged(world, "plan", "p")["held"]["reason"]
    world.does("resume", "p", "--reason", "again")
    world.drop({"20260108/a.csv": SECOND["20260108/a.csv"]})
    world.does("extract", "p", "--run-id", "nightly")
    [open_run] = unchanged(world, "plan", "p")["open"]
    assert (open_run["run_id"], open_run["batch"], open_run["last_command"]) == ("nightly", "20260108", "extract")
    assert unchanged(world, "plan", "p")["waiting"] == 1


def test_who_works_on_it_now_is_told(world: World) -> None:
    world.set_up({"models.a.files": r"a.*\.csv"})
    world.drop({"20260101/aSLOW.csv": "id,n\n1,10\n"})
    process = slow(world, "run", "--jobs", "1")
    read_until(process, "reading")
    leases = world.does("plan", "p")["leases"]
    assert {(one["model"], one["command"]) for one in leases} == {("a", "run"), ("b", "run")}
    assert f"process {process.pid} on" in leases[0]["owner"]
    process.communicate("\n", timeout=60)
    assert world.does("plan", "p")["leases"] == []


@pytest.mark.parametrize("before", [(), (FIRST,)], ids=["alone", "behind another"])
def test_a_batch_that_cannot_be_looked_at_is_told_behind_the_others(
    world: World, before: tuple[dict[str, str], ...]
) -> None:
    world.drop(*before, {"20260108/a.zip": b"PK no archive"}, SECOND)
    ended = world.call("plan", "p", "--output", "json")
    assert ended.code == 4
    assert [one["batch"] for one in ended.answer["batches"]] == ["20260101"] * len(before)
    assert "20260108/a.zip" in ended.answer["failure"]["message"]
    assert ended.told[0].startswith("error: ")
    assert set(ended.answer) == SHAPE


def test_a_backfill_is_shown_and_writes_nothing(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop({"20260101/b.csv": "id,d\nx,2026-01-05\n"})
    found = unchanged(world, "backfill", "p", "--from", "20260101", "--dry-run")
    assert [(one["batch"], one["model"], one["action"], one["why"]) for one in found["batches"]] == [
        ("20260101", "a", "superseded", "20260108 stands"),
        ("20260101", "b", "do again", "from the source"),
        ("20260108", "a", "do again", "from the source"),
        ("20260108", "b", "do again", "from the source"),
    ]
    assert [(one["path"], one["version"], one["action"]) for one in found["files"]] == [
        ("20260101/b.csv", 2, "fetch"),
        ("20260108/a.csv", 1, "reuse"),
        ("20260108/b.csv", 1, "reuse"),
    ]
    assert found["waiting"] == 2
    assert "superseded" in world.call("backfill", "p", "--batch", "20260101", "--dry-run").out
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS", "p.20260108.1": "SUCCESS"}


def test_a_backfill_as_of_then_is_shown_with_the_versions_of_then(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    then = now()
    world.drop({"20260101/a.csv": "id,n\n1,100\n"}, SECOND)
    world.does("run")
    as_of = ("backfill", "p", "--to", "20260109", "--as-of", then, "--reason", "x", "--dry-run")
    found = unchanged(world, *as_of)
    assert [(one["batch"], one["model"], one["action"], one["why"]) for one in found["batches"]] == [
        ("20260101", "a", "do again", "from the lake"),
        ("20260101", "b", "do again", "from the lake"),
        ("20260108", "a", "leave out", "no file of it was known then"),
        ("20260108", "b", "leave out", "no file of it was known then"),
    ]
    [old] = [one for one in world.files("--path", "20260101/a.csv") if one["version"] == 1]
    (world.root / "lake" / old["raw"]).unlink()
    found = unchanged(world, *as_of)
    assert [one["action"] for one in found["batches"]][:2] == ["fail", "fail"]
    assert [(one["path"], one["version"], one["action"]) for one in found["files"]] == [
        ("20260101/a.csv", 1, "gone"),
        ("20260101/b.csv", 1, "reuse"),
    ]


def test_what_a_lost_target_would_be_built_from_is_shown(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    assert unchanged(world, "backfill", "p", "--from-lake", "--dry-run")["waiting"] == 0
    (world.root / "warehouse.duckdb").unlink()
    found = unchanged(world, "backfill", "p", "--from-lake", "--dry-run")
    told = [(one["batch"], one["model"], one["action"]) for one in found["batches"]]
    assert told == [("20260101", "b", "do again"), ("20260108", "a", "do again"), ("20260108", "b", "do again")]


def test_where_a_secret_is_not_said_a_plan_leaves_nothing_behind(world: World) -> None:
    place = {"type": "sftp", "host": "127.0.0.1", "user": "me", "path": "/", "password": "${env:NOT_SAID}"}
    world.settle({"connections.drop": place})
    for command in (("plan",), ("run", "--dry-run"), ("run", "--dry-run=data")):
        assert "NOT_SAID, which is not set" in world.refused(3, *command)
        assert not (world.root / "state").exists()


def test_a_sensor_of_a_state_that_knows_nothing_is_told_of_a_target_of_another(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.lose_state()
    # Lake and mirror are lost too, so that nothing else tells.
    shutil.rmtree(world.root / "lake")
    (world.root / "state/mirror/p.json").unlink()
    ended = world.call("plan", "p", "--output", "json")
    assert ended.code == 7
    assert "was last written by another state" in "\n".join(ended.told)
    assert world.refused(7, "run", "p") == "\n".join(ended.told)


def test_a_sensor_is_told_that_what_is_to_be_built_again_is_of_another_state(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.state('UPDATE pipeline SET rebuild = \'["a", "b"]\'')
    world.target_does("UPDATE ingestkit_fence SET state_id = 'of another'")
    ended = world.call("plan", "p", "--output", "json")
    assert ended.code == 7
    assert world.refused(7, "run", "p") == "\n".join(ended.told)


def test_a_sensor_is_told_that_the_lake_does_not_answer(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    (world.root / "lake").rename(world.root / "away")
    (world.root / "lake").write_text("no folder")
    ended = world.call("plan", "p", "--output", "json")
    assert (ended.code, ended.answer["waiting"]) == (7, 1)
    world.refused(7, "run", "p")
