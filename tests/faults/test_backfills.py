"""A backfill of a range killed at its steps: `--resume` does what is left, and nothing twice."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.world import FIRST, RUN, World, differences

pytestmark = pytest.mark.faults

RANGE = ("backfill", "opendata", "--from", "20260101", "--to", "20260116")
RESUME = (*RANGE, "--resume")
RESTATED = {
    "20260101/b.csv": "id,day,note\nx,2026-01-01,restated and over\ny,2026-01-02,restated\n",
    "20260101/c.csv": "id,amount\n1,1.75\n",
    "20260108/c.csv": "id,amount\n4,4.25\n5,5.00\n",
    "20260115/a.csv": "id,born\n1,1972\n5,2001\n",
}
SOME = ("run.opened", "extract.recorded", "load.intended", "load.committed", "gate.recorded", "run.done")
"""Steps of a batch; before them nothing of the range is begun."""


@dataclass(frozen=True, slots=True)
class Filled:
    before: World
    after: dict[str, Any]
    steps: Counter[str]


@pytest.fixture(scope="module")
def filled(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A world whose source has restated some of what was done, and what an undisturbed backfill makes of it."""
    folder = tmp_path_factory.mktemp("backfills")
    world = World.made(folder / "before", launcher)
    world.drop(FIRST)
    world.does(*RUN)
    world.drop(RESTATED)
    undisturbed = world.copied(folder / "undisturbed")
    ended = undisturbed.call(*RANGE, "--jobs", "1", record=str(folder / "steps"))
    assert ended.code == 0, ended
    assert "3 batches done again: 20260101, 20260108, 20260115" in ended.out
    assert undisturbed.debris() == []
    return Filled(world, undisturbed.seen(), Counter((folder / "steps").read_text().split()))


def disturbed(filled: Filled, folder: Path, step: str, number: int, *, twice: bool = False) -> list[str]:
    world = filled.before.copied(folder)
    assert world.call(*RANGE, "--jobs", "1", kill=f"{step}:{number}").killed
    world.forget_shortcuts()
    if twice and world.call(*RESUME, kill=f"{step}:1").killed:
        world.forget_shortcuts()
    resumed = world.call(*RESUME)
    if resumed.code == 2:
        assert "was begun" in resumed.err
        world.does(*RANGE)
    else:
        assert resumed.code == 0, resumed
    runs = world.rows("SELECT batch, count(*) FROM pipeline_run WHERE kind = 'backfill' GROUP BY batch")
    told = [f"batch {batch} was done in {count} runs" for batch, count in runs if count != 1]
    told += [*differences(filled.after, world.seen()), *(f"debris: {name}" for name in world.debris())]
    assert "nothing was left to do" in world.does(*RESUME).out
    return told


@pytest.mark.parametrize("step", SOME)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_range_killed_is_finished_by_resume(filled: Filled, step: str, place: str, tmp_path: Path) -> None:
    number = 1 if place == "first" else filled.steps[step]
    assert disturbed(filled, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", sorted(named_steps()))
def test_a_range_killed_twice_at_any_step_is_too(filled: Filled, step: str, tmp_path: Path) -> None:
    if not filled.steps[step]:
        pytest.skip(f"a backfill does not come to {step}")
    number = (filled.steps[step] + 1) // 2
    assert disturbed(filled, tmp_path / "world", step, number, twice=True) == []


def test_a_range_killed_is_finished_by_the_next_run_as_far_as_it_was_begun(filled: Filled, tmp_path: Path) -> None:
    world = filled.before.copied(tmp_path / "world")
    # The second of its batches.
    assert world.call(*RANGE, "--jobs", "1", kill="load.intended:2").killed
    world.does(*RUN)
    runs = world.rows("SELECT batch, status FROM pipeline_run WHERE kind = 'backfill' ORDER BY started_at")
    assert runs == [("20260101", "SUCCESS"), ("20260108", "SUCCESS_WITH_REJECTS")]
    world.does(*RESUME)
    runs = world.rows("SELECT batch FROM pipeline_run WHERE kind = 'backfill' ORDER BY started_at")
    assert runs == [("20260101",), ("20260108",), ("20260115",)]


@pytest.mark.parametrize("step", SOME)
def test_what_is_put_back_as_it_was_is_finished_by_the_next_run(filled: Filled, step: str, tmp_path: Path) -> None:
    before = filled.before.copied(tmp_path / "before")
    then = datetime.now(UTC).isoformat()
    before.does(*RUN)
    back = ("backfill", "opendata", "--batch", "20260108", "--as-of", then, "--reason", "as it was")
    undisturbed = before.copied(tmp_path / "undisturbed")
    undisturbed.does(*back)
    world = before.copied(tmp_path / "world")
    assert world.call(*back, "--jobs", "1", kill=f"{step}:1").killed
    world.forget_shortcuts()
    world.does(*RUN)
    assert [*differences(undisturbed.seen(), world.seen()), *world.debris()] == []
    assert "rows of a" in undisturbed.seen()
    assert all("20260108" in row for row in world.seen()["rows of a"])


@pytest.mark.parametrize("step", SOME)
def test_the_newest_snapshot_comes_back_over_what_was_put_back(filled: Filled, step: str, tmp_path: Path) -> None:
    before = filled.before.copied(tmp_path / "before")
    then = datetime.now(UTC).isoformat()
    before.does("backfill", "opendata", "--batch", "20260108", "--as-of", then, "--reason", "as it was")
    before.drop({"20260115/a.csv": FIRST["20260115/a.csv"]})
    undisturbed = before.copied(tmp_path / "undisturbed")
    undisturbed.does(*RUN)
    assert all("20260115" in row for row in undisturbed.seen()["rows of a"])
    world = before.copied(tmp_path / "world")
    assert world.call(*RUN, "--jobs", "1", kill=f"{step}:1").killed
    world.forget_shortcuts()
    world.does(*RUN)
    assert [*differences(undisturbed.seen(), world.seen()), *world.debris()] == []
