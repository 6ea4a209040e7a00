import json
import re

import pytest

from tests.integration.world import FIRST, SECOND, World

RUN_FIELDS = {
    "pipeline",
    "batch",
    "models",
    "window_start",
    "window_end",
    "window_seconds",
    "target_date",
    "status",
    "retry",
    "started_at",
    "ended_at",
    "duration",
    "phases_completed",
    "phases_skipped",
    "phases_failed",
    "phases_pending",
    "config",
    "config_hash",
    "counts",
}
STAGE_FIELDS = {"expected_seconds", "seconds", "retry", "error", "details", "sidecar_path", "status"}


def test_a_run_row_holds_what_an_operator_asks_of_it(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert set(row) >= RUN_FIELDS
    assert (row["pipeline"], row["batch"], row["models"]) == ("p", "20260101", ["a", "b"])
    assert (row["status"], row["verdict"], row["retry"], row["attempt"]) == ("SUCCESS", "PASSED", 0, 1)
    assert row["target_date"] == "2026-01-01"
    assert row["phases_completed"] == ["extract", "validate", "load", "gate", "clean"]
    assert row["phases_skipped"] == row["phases_failed"] == row["phases_pending"] == []
    assert re.fullmatch(r"\d+\.\ds", row["duration"])
    assert row["started_at"] < row["ended_at"]
    assert row["counts"]["records"] == row["counts"]["valid"] == row["counts"]["loaded"] == 4
    assert (row["counts"]["rejected"], row["counts"]["files"]) == (0, 2)
    assert (row["window_start"], row["error"], row["exit_code"]) == (None, None, None)


def test_rejects_show_in_the_status_the_verdict_and_the_counts(world: World) -> None:
    world.drop(FIRST, {"20260101/a.csv": "id,n\n1,10\n2,no number\n"})
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["verdict"]) == ("SUCCESS_WITH_REJECTS", "PASSED_WITH_REJECTS")
    assert (row["counts"]["records"], row["counts"]["valid"], row["counts"]["rejected"]) == (4, 3, 1)


def test_the_configuration_is_kept_with_references_and_not_with_values(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROP_OF_TODAY", "drops")
    world.settle({"connections.drop.path": "${env:DROP_OF_TODAY}"})
    world.drop(FIRST)
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert row["config"]["connections"]["drop"]["path"] == "${env:DROP_OF_TODAY}"
    assert row["config"]["pipeline"]["models"]["a"]["key"] == ["id"]
    assert row["config"]["profile"] == "local"
    assert re.fullmatch(r"[0-9a-f]{64}", row["config_hash"])


def test_a_failed_run_says_which_phase_failed_and_which_are_pending(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop(FIRST)
    (world.root / "drops/20260101/a.csv").unlink()
    world.refused(5, "run")
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["exit_code"]) == ("FAILED", 5)
    assert "has no file of a" in row["error"]
    assert row["phases_failed"] == ["extract"]
    assert row["phases_pending"] == ["validate", "load", "gate", "clean"]
    stage = world.stages("p.20260101.1")["extract", "a"]
    assert (stage["status"], "has no file of a" in stage["error"]) == ("FAILED", True)


def test_a_phase_in_which_nothing_was_to_be_done_is_skipped_and_says_why(world: World) -> None:
    world.drop({"20260101/readme.md": "nothing for us"})
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert row["phases_skipped"] == ["extract", "validate", "load"]
    assert row["phases_completed"] == ["gate", "clean"]
    assert {status for _, status in world.completions().items()} == {"empty"}


def test_there_is_one_stage_row_per_stage_and_model_with_expected_and_actual_duration(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    world.does("run")
    first, second = world.stages("p.20260101.1"), world.stages("p.20260108.1")
    of_models = {(stage, model) for stage in ("extract", "validate", "load") for model in ("a", "b")}
    assert set(first) == set(second) == of_models | {("gate", "*"), ("clean", "*")}
    for key, row in second.items():
        assert set(row) >= STAGE_FIELDS
        assert (row["status"], row["retry"], row["error"]) == ("SUCCESS", 0, None)
        assert row["seconds"] >= 0
        assert first[key]["expected_seconds"] is None
        assert row["expected_seconds"] == pytest.approx(first[key]["seconds"])


def test_every_stage_leaves_its_sidecar_in_the_lake_and_one_for_people(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    for (stage, model), row in world.stages("p.20260101.1").items():
        name = "_all" if model == "*" else model
        shown = json.loads((world.root / f"state/runs/p/p.20260101.1/{stage}.{name}.json").read_text())
        kept = json.loads((world.root / "lake" / row["sidecar_path"]).read_text())
        assert shown["lake"] == row["sidecar_path"]
        assert {**shown, "lake": None} == {**kept, "lake": None}
        assert (kept["stage"], kept["model"], kept["run_id"]) == (stage, model, "p.20260101.1")
        assert re.fullmatch(r"[0-9a-f]{64}", kept["settings"])


def test_what_a_command_answers_for_each_model_is_what_the_state_says(world: World) -> None:
    world.drop(FIRST)
    answer = world.does("run")
    [digest] = world.target("SELECT digest FROM ingestkit_receipt WHERE model = 'a'")[0]
    [of_a] = [one for one in answer["results"] if one["model"] == "a"]
    expected = {"pipeline": "p", "batch": "20260101", "run_id": "p.20260101.1", "stage": "run", "status": "done"}
    assert expected.items() <= of_a.items()
    assert (of_a["rows"], of_a["rejected"], of_a["sha256"]) == (2, 0, digest)
    assert of_a["bytes"] == len(FIRST["20260101/a.csv"])
    assert (world.root / "lake" / of_a["sidecar"]).is_file()
