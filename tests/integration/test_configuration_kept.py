import pytest

from ingestkit import steps
from tests.integration.world import FIRST, SECOND, World

NARROW = {"models.a.columns.n": {"type": "integer", "max": 10}}


def valid(world: World) -> list[tuple[object, ...]]:
    return world.state("SELECT path, valid FROM file_manifest WHERE model = 'a'")


def test_stages_of_an_open_run_use_the_configuration_it_began_with(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    kept = world.run_row("mine")["config_hash"]
    world.set_up(NARROW)
    for stage in ("validate", "load", "gate"):
        world.does(stage, "--run-id", "mine")
    assert valid(world) == [("20260101/a.csv", 2)]
    assert world.run_row("mine")["config_hash"] == kept


def test_an_open_run_that_is_not_named_uses_its_own_configuration_too(world: World) -> None:
    world.drop(FIRST)
    world.does("extract")
    world.set_up(NARROW)
    world.does("validate")
    assert valid(world) == [("20260101/a.csv", 2)]


def test_a_model_that_came_after_an_open_run_began_is_none_of_its_concern(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(FIRST)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(steps, "reached", interrupt_before_publishing)
        assert world.call("run").code == 130
    world.set_up({"models.c": {"key": ["id"], "load": "replace", "columns": {"id": {"required": True}}}})
    world.drop(SECOND, {"20260108/c.csv": "id\n7\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.table("c", "id") == [("7",)]


def interrupt_before_publishing(step: str) -> None:
    if step == "load.before_commit":
        raise KeyboardInterrupt


def test_a_failed_run_that_is_reopened_takes_todays_configuration(world: World) -> None:
    world.set_up(NARROW | {"gate.max_reject_pct": 10})
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    assert "reject_rate is 50 where 10 is the limit" in world.refused(6, "validate", "--run-id", "mine")
    kept = world.run_row("mine")["config_hash"]
    world.set_up()
    for stage in ("validate", "load", "gate", "clean"):
        world.does(stage, "--run-id", "mine")
    row = world.run_row("mine")
    assert (row["status"], row["error"], row["exit_code"]) == ("SUCCESS", None, None)
    assert row["config_hash"] != kept
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_after_a_corrected_contract_only_validate_and_what_is_behind_it_are_done_again(world: World) -> None:
    world.set_up(NARROW | {"gate.max_reject_pct": 10})
    world.drop(FIRST)
    world.refused(6, "run", "--run-id", "mine")
    before = world.stages("mine")
    assert before["validate", "a"]["status"] == "FAILED"
    world.set_up({"gate.max_reject_pct": 10})
    world.does("run", "--run-id", "mine")
    after = world.stages("mine")
    for key in (("extract", "a"), ("extract", "b"), ("validate", "b")):
        assert after[key]["sidecar_path"] == before[key]["sidecar_path"], key
    assert after["validate", "a"]["retry"] == 1
    assert world.run_statuses() == {"mine": "SUCCESS"}


def test_a_new_attempt_reuses_what_the_failed_one_left(world: World) -> None:
    world.set_up(NARROW | {"gate.max_reject_pct": 10})
    world.drop(FIRST)
    world.refused(6, "run")
    world.set_up({"gate.max_reject_pct": 10})
    world.does("run")
    stages = world.stages("p.20260101.2")
    assert stages["extract", "a"]["status"] == stages["extract", "b"]["status"] == "SKIPPED"
    assert stages["validate", "b"]["status"] == "SKIPPED"
    assert stages["validate", "a"]["status"] == "SUCCESS"


def test_a_done_batch_is_not_done_again_because_its_contract_changed(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.set_up(NARROW)
    assert world.does("run")["status"] == "nothing new"
