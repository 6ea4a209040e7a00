import pytest

from tests.integration.world import FIRST, SECOND, THIRD, World

ODD = [
    "two\nlines",
    "with spaces and 'quotes'",
    "a/../b/c",
    "žluťoučký 数据 🎉",
    ".hidden..",
    "x" * 250,
    "%s {0} $HOME; DROP",
    "-",
]


def test_one_id_over_several_batches_is_numbered(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD)
    answer = world.does("run", "--run-id", "R")
    assert answer["run_ids"] == ["R", "R~2", "R~3"]
    rows = world.state("SELECT run_id, invocation, batch, attempt FROM pipeline_run ORDER BY batch")
    expected = [("R", "R", "20260101", 1), ("R~2", "R", "20260108", 1), ("R~3", "R", "20260115", 1)]
    assert rows == expected


@pytest.mark.parametrize("run_id", ODD, ids=lambda run_id: run_id[:8])
def test_a_callers_id_may_be_any_text(world: World, run_id: str) -> None:
    world.drop(FIRST)
    assert world.does("run", f"--run-id={run_id}")["run_ids"] == [run_id]
    assert world.state("SELECT run_id, status FROM pipeline_run") == [(run_id, "SUCCESS")]
    assert world.target("SELECT DISTINCT _run_id FROM a") == [(run_id,)]
    outside = [path for path in world.root.parent.iterdir() if path != world.root and path.name.startswith(("b", "x"))]
    assert outside == []


@pytest.mark.parametrize("run_id", ["", "x" * 251, "with\x00null"], ids=["none", "long", "null"])
def test_an_id_that_is_none_is_refused_before_anything_happens(world: World, run_id: str) -> None:
    world.drop(FIRST)
    assert "--run-id" in world.refused(2, "run", "--run-id", run_id)
    assert not (world.root / "lake").exists()


def test_the_same_id_again_is_the_same_run(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    world.refused(5, "run", "--run-id", "R")
    world.drop(FIRST)
    assert world.does("run", "--run-id", "R")["run_ids"] == ["R"]
    row = world.run_row("R")
    assert (row["status"], row["retry"], row["attempt"]) == ("SUCCESS", 1, 1)
    assert world.does("run", "--run-id", "R")["status"] == "nothing new"
    assert world.run_statuses() == {"R": "SUCCESS"}


def test_an_id_that_has_done_batches_goes_on_with_the_next_number(world: World) -> None:
    world.drop(FIRST)
    world.does("run", "--run-id", "R")
    world.drop(SECOND)
    assert world.does("run", "--run-id", "R")["run_ids"] == ["R~2"]


def test_an_id_of_another_pipeline_is_not_taken(world: World) -> None:
    world.drop(FIRST)
    world.does("run", "p", "--run-id", "R")
    world.set_up({"models.a.table": "a_of_q", "models.b.table": "b_of_q"}, pipeline="q")
    answer = world.does("run", "q", "--run-id", "R")
    assert answer["pipeline"] == "q"
    assert dict(world.state("SELECT run_id, pipeline FROM pipeline_run")) == {"R": "p", "R~2": "q"}
    assert world.does("validate", "q", "--run-id", "R")["run_ids"] == ["R~2"]


def test_stages_of_two_pipelines_may_share_a_schedulers_id(world: World) -> None:
    world.set_up({"models.a.table": "a_of_q", "models.b.table": "b_of_q"}, pipeline="q")
    world.drop(FIRST)
    for stage in ("extract", "validate", "load", "gate", "clean"):
        for pipeline in ("p", "q"):
            assert world.does(stage, pipeline, "--run-id", "R")["pipeline"] == pipeline
    assert world.run_statuses() == {"R": "SUCCESS", "R~2": "SUCCESS"}
    assert world.table("a", "id") == world.table("a_of_q", "id") == [("1",), ("2",)]


def test_two_pipelines_with_nothing_waiting_may_share_one_too(world: World) -> None:
    world.set_up({"models.a.table": "a_of_q", "models.b.table": "b_of_q"}, pipeline="q")
    for pipeline in ("p", "q", "q"):
        assert world.does("extract", pipeline, "--run-id", "R")["status"] == "nothing new"
    rows = world.state("SELECT run_id, pipeline, status, retry FROM pipeline_run ORDER BY run_id")
    assert rows == [("R", "p", "SKIPPED", 0), ("R~2", "q", "SKIPPED", 1)]
