"""A lake in a service of objects, state and target in PostgreSQL: killed at every step, the disk thrown away."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.faults.conftest import LAKES, Story
from tests.faults.test_kills import LOT, SEEDS, STEPS, at_random, disturbed, places
from tests.faults.test_rivals import frozen_there
from tests.faults.world import RUN, World, alike

pytestmark = [pytest.mark.faults, pytest.mark.services]

# A file is made, a database is not.
HERE = [step for step in STEPS if step != "warehouse.created"]
SOME = {
    "s3": (
        "lake.written",
        "store.linked",
        "extract.recorded",
        "validate.sidecar_written",
        "load.committed",
        "clean.removed",
    ),
    "s3_without_conditions": ("store.linked", "extract.recorded"),
    "adls": ("store.linked", "load.committed"),
    "adls_rename": ("store.sent", "store.linked"),
}


# What lies in the lake changes there, or is about to. Between these steps it is the state's and the target's part, of
# which test_remote.py does every step twice.
IN_THE_LAKE = ("lake.", "store.", "clean.", "extract.", "recover.", "validate.", "load.sidecar", "gate.sidecar")


def steps_of(lake: str) -> list[str]:
    """Where everything is renamed, the story comes between sending and renaming too; elsewhere only large files do."""
    return [*HERE, "store.sent"] if lake == "adls_rename" else HERE


def cases(some: Mapping[str, Sequence[str]], of: tuple[str, ...] = ("",)) -> list[ParameterSet]:
    """Every lake at every of its steps whose names begin so; but for some it is left to the matrix."""
    return [
        pytest.param(lake, step, marks=[] if step in some.get(lake, ()) else pytest.mark.matrix)
        for lake in LAKES
        for step in steps_of(lake)
        if step.startswith(of)
    ]


@pytest.mark.parametrize(
    ("object_story", "steps"), [(lake, steps_of(lake)) for lake in LAKES], indirect=["object_story"]
)
def test_the_story_reaches_every_step_but_that_of_making_a_file(object_story: Story, steps: list[str]) -> None:
    reached = set(sum(chain.from_iterable(object_story.steps), Counter[str]()))
    assert reached == set(steps)


@pytest.mark.parametrize(("object_story", "step"), cases(SOME), indirect=["object_story"])
def test_killed_and_its_disk_thrown_away_the_next_run_finishes_the_work(
    object_story: Story, step: str, tmp_path: Path
) -> None:
    act, place, _ = next(places(object_story, step))
    assert disturbed(object_story, tmp_path / "world", (act, place), step, 1, bare=True) == []


@pytest.mark.parametrize(("object_story", "step"), cases({}, IN_THE_LAKE), indirect=["object_story"])
def test_killed_twice_the_next_run_finishes_the_work(object_story: Story, step: str, tmp_path: Path) -> None:
    act, place, times = [found for found in places(object_story, step) if found[0] <= 1][-1]
    number = random.Random(step).randint(1, times)
    assert disturbed(object_story, tmp_path / "world", (act, place), step, number, bare=True, twice=True) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(LOT, LOT + max(1, SEEDS // 20)))
@pytest.mark.parametrize(
    "object_story",
    [pytest.param(lake, marks=pytest.mark.moments if lake == "s3" else pytest.mark.matrix) for lake in LAKES],
    indirect=True,
)
def test_killed_at_random_moments_and_its_disk_thrown_away(object_story: Story, seed: int, tmp_path: Path) -> None:
    assert at_random(object_story, tmp_path / "world", seed, bare=True, takes=4.0) == []


# One lake that keeps to conditions, one that keeps to none, and the one that renames.
FROZEN = [
    case
    for case in cases({"s3_without_conditions": ["extract.begun"]}, IN_THE_LAKE)
    if case.values[0] in ("s3", "s3_without_conditions", "adls_rename")
]


@pytest.mark.parametrize(("object_story", "step"), FROZEN, indirect=["object_story"])
def test_a_runner_frozen_over_a_lake_in_a_service_doubles_nothing(
    object_story: Story, step: str, tmp_path: Path
) -> None:
    if not object_story.steps[1][0][step]:
        pytest.skip(f"what changes does not come to {step}")
    frozen_there(object_story, object_story.before[1].copied(tmp_path / "world"), 1, step)


@pytest.mark.parametrize("object_story", ["s3", pytest.param("adls", marks=pytest.mark.matrix)], indirect=True)
def test_killed_while_parts_are_sent_the_next_run_sends_them_again(object_story: Story, tmp_path: Path) -> None:
    large = {"20260101/a.csv": "id,born\n" + "".join(f"{number},1970\n" for number in range(1_700_000))}
    world = prepared(object_story, tmp_path / "world", large)
    ended = world.call(*RUN, kill="store.sent:1")
    assert ended.killed, ended
    world.forget_shortcuts()
    world.does(*RUN)
    undisturbed = prepared(object_story, tmp_path / "undisturbed", large)
    undisturbed.does(*RUN)
    alike(undisturbed.seen(), world.seen())
    assert world.debris() == []
    assert not [name for name in world.objects.names() if name.startswith("_inflight/")]  # type: ignore[union-attr]


def prepared(story: Story, folder: Path, files: dict[str, str]) -> World:
    world = story.before[0].copied(folder)
    world.drop(files)
    return world
