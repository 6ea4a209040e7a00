"""The clock of the machine put forward and back in the midst of work: nothing is lost, doubled or done by two."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.processes import Launcher
from tests.faults.test_kills import LOT, SEEDS
from tests.faults.world import ACTS, RUN, World, alike, differences

pytestmark = [pytest.mark.faults, pytest.mark.services]

CLOCK = Path(__file__).with_name("clock.c")
MINUTES = {"+0": 0, "+40m": 40, "-40m": -40, "+3d": 3 * 24 * 60, "-3d": -3 * 24 * 60}
JUMPS = tuple(MINUTES)


STEPS = ("extract.begun", "validate.recorded", "load.intended", "load.committed", "gate.begun")
SOME = [("extract.begun", "+3d"), ("validate.recorded", "-3d"), ("load.intended", "-40m"), ("gate.begun", "+40m")]
OTHERS = [one for one in product(STEPS, JUMPS[1:]) if one not in SOME]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where processes read how far their wall clock is off, each time they look at it."""

    file: Path
    launcher: Launcher

    def jumps(self, by: str) -> None:
        written = self.file.with_suffix(".new")
        written.write_text(f"{60 * MINUTES[by]}\n")
        written.replace(self.file)


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("clock")
    file, library = folder / "offset", folder / "clock.so"
    file.write_text("0\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK, "-ldl"], check=True)
    launcher = Launcher(folder, {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(file)})
    yield Clock(file, launcher)
    launcher.close()


def beside(story: Story, clock: Clock, act: int, folder: Path) -> World:
    clock.jumps("+0")
    return replace(story.before[act].copied(folder), launcher=clock.launcher)


@pytest.mark.parametrize(("step", "by"), [*SOME, *(pytest.param(*one, marks=pytest.mark.matrix) for one in OTHERS)])
def test_a_clock_that_jumps_in_the_midst_of_a_run_changes_nothing(
    story: Story, clock: Clock, step: str, by: str, tmp_path: Path
) -> None:
    world = beside(story, clock, 0, tmp_path / "world")
    frozen = world.start(*RUN, "--jobs", "1", freeze=f"{step}:1").frozen()
    clock.jumps(by)
    frozen.wake()
    ended = frozen.wait()
    assert ended.code == 0, ended
    [(began, last)] = world.rows("SELECT started_at, ended_at FROM pipeline_run WHERE batch = '20260101'")
    off = (datetime.fromisoformat(last) - datetime.fromisoformat(began)).total_seconds() / 60
    assert off == pytest.approx(MINUTES[by], abs=5), "the clock did not jump"
    alike(story.after[0], world.seen())
    clock.jumps("+0")
    world.does(*RUN)
    alike(story.after[0], world.seen())
    assert world.debris() == []


@pytest.mark.parametrize("by", ["+3d", "-3d"])
def test_of_two_runners_whose_clocks_disagree_one_publishes(
    story: Story, clock: Clock, by: str, tmp_path: Path
) -> None:
    world = beside(story, clock, 0, tmp_path / "world")
    frozen = world.start(*RUN, "--jobs", "1", freeze="load.intended:1").frozen()
    clock.jumps(by)
    other = world.call(*RUN, "--if-locked", "wait:10s")
    assert other.code in (0, 8), other
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 8), ended
    ended.is_clear()
    world.does(*RUN)
    alike(story.after[0], world.seen())
    assert world.debris() == []


def killed_and_put(story: Story, clock: Clock, folder: Path, seed: int) -> list[str]:
    """Tell the story with commands killed at moments drawn by lot, and the clock put before each and within."""
    lot = random.Random(seed)
    print(f"seed {seed}")
    world = beside(story, clock, 0, folder)
    told = []
    for number, act in enumerate(ACTS):
        world.drop(act.drops)
        for command in act.commands:
            for _ in range(lot.choice([0, 1, 2])):
                clock.jumps(lot.choice(JUMPS))
                started = world.start(*command)
                clock.jumps(lot.choice(JUMPS))
                started.within(lot.uniform(0.0, 1.6 if command[0] == "run" else 0.5))
            clock.jumps(lot.choice(JUMPS))
            world.does(*command)
        told += [f"after act {number}: {one}" for one in differences(story.after[number], world.seen())]
        told += [f"after act {number}: debris {name}" for name in world.debris()]
    return told


@pytest.mark.moments
@pytest.mark.parametrize("seed", range(LOT, LOT + max(2, SEEDS // 5)))
def test_killed_at_random_under_a_clock_that_jumps(story: Story, clock: Clock, seed: int, tmp_path: Path) -> None:
    assert killed_and_put(story, clock, tmp_path / "world", seed) == []


@pytest.mark.moments
@pytest.mark.parametrize("seed", range(LOT, LOT + max(2, SEEDS // 5)))
def test_killed_at_random_under_such_a_clock_on_a_shared_state(
    shared_story: Story, clock: Clock, seed: int, tmp_path: Path
) -> None:
    assert killed_and_put(shared_story, clock, tmp_path / "world", seed) == []
