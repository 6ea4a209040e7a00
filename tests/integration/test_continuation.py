import json

import pytest

from tests.integration.world import FIRST, SECOND, World, changed

NO_WAIT = {"state.idle_after": "0s"}


def test_a_run_a_stage_command_left_open_belongs_to_who_calls_its_next_stage(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    said = world.refused(8, "run")
    assert "run mine is open: its extract ran" in said
    assert "hint: ingestkit run p --run-id mine finishes it" in said
    assert "run mine is open" in world.refused(8, "extract", "--run-id", "other")
    assert world.run_statuses() == {"mine": "OPEN"}


def test_run_finishes_the_open_run_it_names(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    assert world.does("run", "--run-id", "mine")["run_ids"] == ["mine"]
    assert world.run_statuses() == {"mine": "SUCCESS"}
    assert world.run_row("mine")["retry"] == 1


@pytest.mark.parametrize("command", ["run", "extract"])
def test_taking_over_opens_a_new_attempt_that_reuses_what_is_there(world: World, command: str) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    world.does("validate", "--run-id", "mine")
    world.does(command, "--take-over")
    assert world.run_statuses() == {"mine": "SUPERSEDED", "p.20260101.2": "SUCCESS" if command == "run" else "OPEN"}
    assert world.run_row("mine")["error"] == "taken over by p.20260101.2"
    stages = world.stages("p.20260101.2")
    assert stages["extract", "a"]["status"] == "SKIPPED"
    if command == "run":
        assert stages["validate", "a"]["status"] == "SKIPPED"
        sidecar = json.loads((world.root / "state/runs/p/p.20260101.2/validate.a.json").read_text())
        assert sidecar["skipped"] == "artifacts of mine hold"
    assert "run mine cannot go on: it was taken over by p.20260101.2" in world.refused(
        8, "validate", "--run-id", "mine"
    )


def test_an_open_run_that_was_idle_for_long_is_taken_up(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    world.settle(NO_WAIT)
    world.does("run")
    assert "OPEN" not in world.run_statuses().values()
    assert world.checkpoint() == "20260101"


def test_taking_some_models_over_leaves_the_others_open(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    world.does("run", "--model", "a", "--take-over")
    assert world.run_statuses() == {"mine": "OPEN", "p.20260101.2": "SUCCESS"}
    for stage in ("validate", "load", "gate", "clean"):
        world.does(stage, "--run-id", "mine")
    assert world.run_statuses() == {"mine": "SUCCESS", "p.20260101.2": "SUCCESS"}
    assert world.completions() == {("20260101", "a"): "done", ("20260101", "b"): "done"}
    runs = dict(world.state("SELECT model, run_id FROM completion"))
    assert runs == {"a": "p.20260101.2", "b": "mine"}
    assert world.run_row("mine")["phases_pending"] == []


def test_a_failed_run_is_not_reopened_when_a_later_attempt_has_come(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    world.refused(5, "run", "--run-id", "first")
    world.drop(FIRST)
    world.does("run", "--run-id", "second")
    said = world.refused(8, "extract", "--run-id", "first")
    assert "run first cannot go on: second is a later attempt" in said


def test_the_settings_of_an_open_run_hold_for_run_too(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    world.set_up({"models.a.columns.n": {"type": "integer", "max": 10}})
    world.does("run", "--run-id", "mine")
    assert world.table("a", "id") == [("1",), ("2",)]


def test_an_open_run_whose_folder_went_away_goes_on_with_what_had_landed(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    for path in sorted((world.root / "drops").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    world.does("run", "--run-id", "mine")
    assert world.table("a", "id") == [("1",), ("2",)]


def test_open_runs_are_finished_before_newer_batches(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("extract", "--run-id", "mine")
    answer = world.does("run", "--run-id", "mine")
    assert [one["batch"] for one in answer["results"]] == ["20260101", "20260101", "20260108", "20260108"]
    assert world.run_statuses() == {"mine": "SUCCESS", "mine~2": "SUCCESS"}


def test_extract_of_another_batch_than_the_open_runs_is_refused(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("extract", "--run-id", "mine")
    said = world.refused(2, "extract", "--batch", "20260108")
    assert "run mine works on batch 20260101, not on 20260108" in said
    assert "batch 20260101 waits before 20260108" in world.refused(2, "extract", "--batch", "20260108", "--run-id", "x")


def test_a_model_that_left_the_pipeline_holds_no_reopened_run_open(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    world.refused(5, "extract", "--run-id", "mine")
    world.set_up({"models.a": None})
    for stage in ("extract", "validate", "load", "gate", "clean"):
        world.does(stage, "--run-id", "mine")
    assert world.run_statuses() == {"mine": "SUCCESS"}
    assert world.completions() == {("20260101", "b"): "done"}


def test_skip_closes_the_open_run_of_its_batch(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("extract", "--run-id", "mine")
    world.does("skip", "p", "--batch", "20260101", "--reason", "broken")
    assert "run mine cannot go on: it was taken over by skip" in world.refused(8, "validate", "--run-id", "mine")
    world.does("run")
    assert world.run_statuses() == {"mine": "SUPERSEDED", "p.20260108.1": "SUCCESS"}


def test_changes_are_put_in_by_dotted_name() -> None:
    assert changed({"a": {"b": 1, "c": 2}}, {"a.b": 3, "a.c": None, "d.e": 4}) == {"a": {"b": 3}, "d": {"e": 4}}


def test_a_model_taken_out_of_the_pipeline_does_not_keep_its_open_run_open(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "p", "--run-id", "R")
    world.set_up({"models.b": None})
    world.does("run", "--take-over")
    assert world.run_statuses()["R"] == "SUPERSEDED"
    assert world.state("SELECT count(*) FROM run_model WHERE open_key IS NOT NULL") == [(0,)]
