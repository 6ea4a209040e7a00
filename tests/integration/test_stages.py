import json
from dataclasses import asdict, replace

import pytest

from ingestkit.states.owner import Owner
from tests.integration.world import FIRST, SECOND, World

STAGES = ("extract", "validate", "load", "gate", "clean")


def by_stages(world: World, *arguments: str) -> None:
    for stage in STAGES:
        world.does(stage, *arguments)


def told(world: World) -> dict[str, list[tuple[object, ...]]]:
    """What must be the same however a batch was done."""
    state = {
        "ledger": "SELECT path, version, batch, model, status, sha256, read, valid, rejected, loaded, reason "
        "FROM file_manifest",
        "completions": "SELECT batch, model, status, mode, generation, digest, settings, counts FROM completion",
        "rejects": 'SELECT batch, model, path, "column", code, count, samples, status FROM quarantine',
        "runs": "SELECT batch, models, status, verdict, counts, phases_completed, phases_pending FROM pipeline_run",
        "stages": "SELECT batch, stage, model, status, retry, error, settings FROM pipeline_stage",
    }
    target = {
        "receipts": "SELECT model, batch, generation, digest, settings, mode, counts FROM ingestkit_receipt",
        "a": "SELECT * EXCLUDE _run_id FROM a",
        "b": "SELECT * EXCLUDE _run_id FROM b",
    }
    found = {name: sorted(world.state(query), key=repr) for name, query in state.items()}
    return found | {name: sorted(world.target(query), key=repr) for name, query in target.items()}


def test_stages_of_their_own_leave_what_run_leaves(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    files = [FIRST, SECOND, {"20260108/a.csv": "id,n\n1,11\n3,bad\n", "20260101/other.csv": "x\n"}]
    if world.state_url is not None:
        pytest.skip("the two are compared as the same database tells them")
    other = World(tmp_path_factory.mktemp("other"), world.capsys)
    other.settle()
    other.set_up()
    for one in (world, other):
        one.drop(*files)
    other.does("run")
    by_stages(world, "--run-id", "one")
    by_stages(world)
    assert told(world) == told(other)
    assert world.checkpoint() == other.checkpoint() == "20260108"


def test_a_stage_before_its_predecessor_names_it(world: World) -> None:
    world.drop(FIRST)
    assert "hint: ingestkit extract p" in world.refused(2, "load")
    world.does("extract", "--run-id", "mine")
    said = world.refused(2, "load", "--run-id", "mine")
    assert "load of run mine comes after validate of a, which is not done" in said
    assert "hint: ingestkit validate p --run-id mine" in said
    assert "has no run 'other' to gate" in world.refused(2, "gate", "--run-id", "other")


def test_a_done_stage_says_so_and_does_nothing(world: World) -> None:
    world.drop(FIRST)
    by_stages(world, "--run-id", "mine")
    before = world.state("SELECT * FROM pipeline_stage ORDER BY stage, model")
    for stage in STAGES[:-1]:
        answer = world.does(stage, "--run-id", "mine")
        assert f"{stage} of run mine is done already" in answer["message"]
    assert world.state("SELECT * FROM pipeline_stage ORDER BY stage, model") == before


def test_a_done_stage_of_an_open_run_stays_as_it_is(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "mine")
    world.does("validate", "--run-id", "mine")
    before = world.stages("mine")["validate", "a"]
    world.does("validate", "--run-id", "mine")
    assert world.stages("mine")["validate", "a"]["sidecar_path"] == before["sidecar_path"]


def test_force_does_a_stage_again_and_what_depends_on_it(world: World) -> None:
    world.drop(FIRST)
    by_stages(world, "--run-id", "mine")
    answer = world.does("validate", "--run-id", "mine", "--force")
    assert "validate, load, gate, clean of batch 20260101 done again" in answer["message"]
    stages = world.stages("mine")
    assert stages["extract", "a"]["retry"] == 0
    assert {stages[key]["retry"] for key in stages if key[0] != "extract"} == {1}
    generations = world.target("SELECT model, generation FROM ingestkit_receipt ORDER BY model")
    assert generations == [("a", 2), ("b", 2)]
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.run_row("mine")["status"] == "SUCCESS"


def test_force_on_an_old_batch_leaves_what_newer_ones_said(world: World) -> None:
    world.drop(FIRST, SECOND)
    by_stages(world, "--run-id", "old")
    by_stages(world, "--run-id", "new")
    world.does("load", "--run-id", "old", "--force")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.table("b", "id", "_batch") == [("x", "20260108"), ("y", "20260101"), ("z", "20260108")]
    assert world.checkpoint() == "20260108"


def test_force_on_extract_fetches_the_files_anew(world: World) -> None:
    world.drop(FIRST)
    by_stages(world, "--run-id", "mine")
    world.does("extract", "--run-id", "mine", "--force")
    assert {row["path"]: row["version"] for row in world.files("--status", "loaded")} == {
        "20260101/a.csv": 1,
        "20260101/b.csv": 1,
    }
    assert world.run_row("mine")["status"] == "SUCCESS"
    assert world.does("run")["status"] == "nothing new"


def test_nothing_waiting_opens_a_skipped_run_and_later_stages_have_nothing_to_do(world: World) -> None:
    assert world.does("extract", "--run-id", "idle")["status"] == "nothing new"
    row = world.run_row("idle")
    assert (row["status"], row["phases_skipped"], row["phases_pending"]) == ("SKIPPED", list(STAGES), [])
    for stage in STAGES[1:]:
        assert world.does(stage, "--run-id", "idle")["status"] == "nothing new"
    assert world.call("load", "--run-id", "idle", "--skip-exit-code", "99").code == 99
    world.drop(FIRST)
    by_stages(world, "--run-id", "idle")
    row = world.run_row("idle")
    assert (row["status"], row["batch"], row["attempt"]) == ("SUCCESS", "20260101", 1)


def test_stages_without_a_run_id_are_those_of_the_one_open_run(world: World) -> None:
    world.drop(FIRST, SECOND)
    by_stages(world)
    by_stages(world)
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS", "p.20260108.1": "SUCCESS"}


def test_the_newest_run_is_the_last_one_opened_whatever_the_clock_said(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.state("UPDATE pipeline_run SET started_at = '2999-01-01T00:00:00.000000Z'")
    world.drop(SECOND)
    by_stages(world)
    assert "clean of batch 20260108 is done" in world.does("clean")["message"]
    assert world.checkpoint() == "20260108"


def test_stages_of_two_models_go_side_by_side(world: World) -> None:
    """Each command takes the leases of its run's models only, so nobody is in the way of the other run."""
    world.drop(FIRST)
    world.does("extract", "--run-id", "of-a", "--model", "a")
    world.does("extract", "--run-id", "of-b", "--model", "b")
    elsewhere = json.dumps(asdict(replace(Owner.here(), host="elsewhere", boot="another")))
    far = "2999-01-01 00:00:00"
    taken = "UPDATE lease SET owner = ?, expires = ?, beat = ?, since = ? WHERE model = 'b'"
    world.state(taken, elsewhere, far, far, far)
    world.does("validate", "--run-id", "of-a")
    assert "is being worked on by" in world.refused(8, "validate", "--run-id", "of-b")


def test_several_open_runs_must_be_named(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "of-a", "--model", "a")
    world.does("extract", "--run-id", "of-b", "--model", "b")
    said = world.refused(2, "validate")
    assert "several runs are open: of-a, of-b" in said


def test_extract_opens_a_new_attempt_after_a_failed_one(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    world.refused(5, "extract")
    world.drop(FIRST)
    by_stages(world)
    assert world.run_statuses() == {"p.20260101.1": "FAILED", "p.20260101.2": "SUCCESS"}
