"""Processes killed at every named step and at random moments; the next run loses nothing and doubles nothing."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_story import ELSEWHERE, named_steps
from tests.faults.world import ACTS, RUN, differences

pytestmark = pytest.mark.faults

STEPS = sorted(named_steps() - set(ELSEWHERE))
SEEDS = int(os.environ.get("INGESTKIT_FAULT_SEEDS", "10"))
LOT = int(os.environ.get("INGESTKIT_FAULT_LOT", "0"))
"""Where the draw begins: the same lot draws the same moments again."""

SHARED_SEEDS = SEEDS if SEEDS > 10 else (SEEDS + 2) // 3
"""A check that draws few moments draws fewer where a server is asked."""

TIMES = 4
"""Of a step that a command reaches more often, so many times are drawn by lot: the whole takes an hour, not three."""


def places(story: Story, step: str) -> Iterator[tuple[int, int, int]]:
    """Where the story comes to the step: the act, the command in it, how often."""
    for number, act in enumerate(story.steps):
        for place, counts in enumerate(act):
            if counts[step]:
                yield number, place, counts[step]


def disturbed(
    story: Story, folder: Path, where: tuple[int, int], step: str, number: int, *, bare: bool, twice: bool = False
) -> list[str]:
    """Tell one act with a command killed, and say what came out otherwise than undisturbed."""
    act, place = where
    world = story.before[act].copied(folder)
    for current, command in enumerate(ACTS[act].commands):
        if current == place:
            ended = world.call(*command, kill=f"{step}:{number}")
            assert ended.killed, f"{command} did not come to {step} for the {number}. time: {ended}"
            if bare:
                world.forget_shortcuts()
            if twice:
                again = world.call(*command, kill=f"{step}:1")
                if bare and again.killed:
                    world.forget_shortcuts()
        world.does(*command)
    return [*differences(story.after[act], world.seen()), *(f"debris: {name}" for name in world.debris())]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_next_run_finishes_the_work(story: Story, step: str, tmp_path: Path) -> None:
    act, place, _ = next(places(story, step))
    assert disturbed(story, tmp_path / "world", (act, place), step, 1, bare=False) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", STEPS)
def test_killed_twice_and_without_its_shortcuts_the_next_run_finishes_the_work(
    story: Story, step: str, tmp_path: Path
) -> None:
    act, place, _ = [found for found in places(story, step) if found[0] <= 1][-1]
    assert disturbed(story, tmp_path / "world", (act, place), step, 1, bare=True, twice=True) == []


@pytest.mark.parametrize("stage", ["extract", "validate", "gate"])
def test_what_left_its_sidecar_is_not_done_again(story: Story, stage: str, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    assert world.call(*RUN, "--jobs", "1", kill=f"{stage}.sidecar_written:1").killed
    record = tmp_path / "steps"
    ended = world.call(*RUN, record=str(record))
    assert ended.code == 0, ended
    begun = record.read_text().split().count(f"{stage}.begun")
    assert begun == story.steps[0][0][f"{stage}.begun"] - 1


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", STEPS)
def test_killed_whenever_a_step_is_reached(story: Story, step: str, tmp_path: Path) -> None:
    failed = {}
    lot = random.Random(f"{LOT} {step}")
    for act, place, times in places(story, step):
        between = lot.sample(range(2, times), min(TIMES, times) - 2) if times > 2 else []
        for number in sorted({1, *between, times}):
            bare = lot.random() < 0.5
            name = f"{act}-{place}-{number}{'-bare' if bare else ''}"
            if found := disturbed(story, tmp_path / name, (act, place), step, number, bare=bare):
                failed[name] = found
    assert failed == {}


def at_random(story: Story, folder: Path, seed: int, *, bare: bool, takes: float = 1.6) -> list[str]:
    """Tell the whole story, each command killed up to twice at a moment drawn by lot; a run takes so many seconds."""
    lot = random.Random(seed)
    print(f"seed {seed}")
    world = story.before[0].copied(folder)
    told = []
    for number, act in enumerate(ACTS):
        world.drop(act.drops)
        for command in act.commands:
            for _ in range(lot.choice([0, 1, 1, 2])):
                started = world.start(*command)
                ended = started.within(lot.uniform(0.0, takes if command[0] == "run" else takes / 3))
                if ended.killed and bare:
                    world.forget_shortcuts()
            world.does(*command)
        told += [f"after act {number}: {one}" for one in differences(story.after[number], world.seen())]
        told += [f"after act {number}: debris {name}" for name in world.debris()]
    return told


@pytest.mark.moments
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(LOT, LOT + SEEDS))
def test_killed_at_random_moments(story: Story, seed: int, tmp_path: Path) -> None:
    assert at_random(story, tmp_path / "world", seed, bare=seed % 2 == 1) == []


@pytest.mark.moments
@pytest.mark.services
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(LOT, LOT + SHARED_SEEDS))
def test_killed_at_random_moments_on_a_shared_state(shared_story: Story, seed: int, tmp_path: Path) -> None:
    assert at_random(shared_story, tmp_path / "world", seed, bare=seed % 2 == 1) == []
