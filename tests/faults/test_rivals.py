"""Several processes at once, and processes frozen past their lease: one does the work, nothing is doubled."""

from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.processes import Launcher
from tests.faults.test_kills import STEPS
from tests.faults.world import CHANGED, FIRST, RUN, World, alike

pytestmark = pytest.mark.faults

WAITING = (*RUN, "--if-locked", "wait:60s")
ALONE = (*RUN, "--jobs", "1")
"""Without threads beside it, so that it does not freeze in the midst of a transaction on the state."""
SLOW = {"INGESTKIT__STATE__LEASE__TTL": "90s", "INGESTKIT__STATE__LEASE__BEAT": "30s"}
"""A heart that beats too seldom to learn of the loss of the lease first."""
INSIDE = ("load.fenced", "load.rows_written", "load.before_commit", "load.committed")
"""Steps at which the warehouse file is open."""


def finished(story: Story, world: World, act: int = 0) -> None:
    world.does(*RUN)
    alike(story.after[act], world.seen())
    assert world.debris() == []


def test_of_two_runners_one_does_the_work(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    started = [world.start(*RUN) for _ in range(2)]
    ended = [one.wait() for one in started]
    assert {one.code for one in ended} <= {0, 8}, [str(one) for one in ended]
    assert any(one.code == 0 for one in ended)
    for one in ended:
        one.is_clear()
    finished(story, world)


def test_of_two_runners_that_wait_both_succeed(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    started = [world.start(*WAITING) for _ in range(2)]
    assert [one.wait().code for one in started] == [0, 0]
    alike(story.after[0], world.seen())
    finished(story, world)


@pytest.mark.parametrize("act", [0, 1])
def test_models_side_by_side_end_as_one_run_does(story: Story, act: int, tmp_path: Path) -> None:
    world = story.before[act].copied(tmp_path / "world")
    started = [world.start(*RUN, "--model", model) for model in ("a", "b", "c")]
    ended = [one.wait() for one in started]
    # The file of the warehouse may stay with the others longer than its lock time-out here.
    assert {one.code for one in ended} <= {0, 8}, [str(one) for one in ended]
    finished(story, world, act)


def test_a_runner_frozen_past_its_lease_writes_nothing_more(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    frozen = world.start(*ALONE, freeze="load.intended:1").frozen()
    world.does(*WAITING)
    alike(story.after[0], world.seen())
    frozen.wake()
    ended = frozen.wait()
    assert ended.code == 8, ended
    ended.is_clear()
    finished(story, world)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("extract.begun", "no longer holds the lease"),
        ("validate.recorded", "no longer holds the lease"),
        ("load.intended", "was not published: a later owner"),
        ("gate.begun", "no longer holds the lease"),
    ],
)
def test_a_frozen_runner_that_believes_in_its_lease_is_turned_away(
    story: Story, step: str, message: str, tmp_path: Path
) -> None:
    """Its heart does not tell it of the loss: only guard and fence stand in its way."""
    world = story.before[0].copied(tmp_path / "world")
    frozen = world.start(*ALONE, environ=SLOW, freeze=f"{step}:1").frozen()
    world.expire_leases()
    world.does(*RUN)
    frozen.wake()
    ended = frozen.wait()
    assert ended.code == 8, ended
    assert message in ended.err
    ended.is_clear()
    finished(story, world)


@pytest.mark.parametrize("at", ["begun", "judged", "noted"])
@pytest.mark.parametrize("step", ["extract.copied", "validate.rejects_published", "validate.done"])
def test_a_frozen_clean_leaves_what_a_later_owner_is_about_to_record(
    launcher: Launcher, at: str, step: str, tmp_path: Path
) -> None:
    world, undisturbed = (World.made(tmp_path / name, launcher) for name in ("world", "undisturbed"))
    batch = {name: text for name, text in FIRST.items() if name.startswith("20260115")}
    for one in (world, undisturbed):
        one.drop(batch)
    frozen = world.start(*ALONE, environ=SLOW, freeze=f"clean.{at}:1").frozen()
    undisturbed.does(*RUN)
    world.expire_leases()
    changed = {name: text for name, text in CHANGED.items() if name.startswith("20260115")}
    for one in (world, undisturbed):
        one.drop(changed)
    later = world.start(*ALONE, environ=SLOW, freeze=f"{step}:1").frozen()
    frozen.wake()
    assert frozen.wait().code == 8
    later.wake()
    assert later.wait().code == 0
    undisturbed.does(*RUN)
    alike(undisturbed.seen(), world.seen())
    assert world.debris() == []


@pytest.mark.parametrize("step", INSIDE)
def test_who_finds_the_warehouse_held_by_a_frozen_load_waits_and_gives_up(
    story: Story, step: str, tmp_path: Path
) -> None:
    world = story.before[0].copied(tmp_path / "world")
    frozen = world.start(*ALONE, environ=SLOW, freeze=f"{step}:2").frozen()
    world.expire_leases()
    other = world.call(*RUN)
    assert other.code == 8, other
    assert f"is open in process {frozen.pid}" in other.err
    other.is_clear()
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 8), ended
    ended.is_clear()
    finished(story, world)


def frozen_there(story: Story, world: World, act: int, step: str) -> None:
    """Freeze a run at a step while another does the work, and see that its wake adds nothing."""
    frozen = world.start(*ALONE, environ=SLOW, freeze=f"{step}:1").frozen()
    world.expire_leases()
    other = world.call(*RUN)
    assert other.code in (0, 8), other
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 8), ended
    ended.is_clear()
    world.does(*RUN)
    alike(story.after[act], world.seen())
    # What it still makes after its wake lies in a folder of its own, which nobody reads; without conditions of the
    # lake's service what it lands has a name of its own.
    own = (f".{act + 1}/", f"-{act + 1:012d}-")
    assert [name for name in world.debris() if not any(part in name for part in own)] == []


@pytest.mark.matrix
@pytest.mark.parametrize("act", [0, 1])
@pytest.mark.parametrize("step", [step for step in STEPS if step not in INSIDE])
def test_a_runner_frozen_anywhere_doubles_nothing(story: Story, act: int, step: str, tmp_path: Path) -> None:
    if not story.steps[act][0][step]:
        pytest.skip(f"act {act} does not come to {step}")
    frozen_there(story, story.before[act].copied(tmp_path / "world"), act, step)
