"""What befalls a state on a server, and a target beside it: the server restarted, the target lost or put back."""

import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_state_lost import BACKFILL, contents, refused
from tests.faults.world import ACTS, RUN, World, alike

pytestmark = [pytest.mark.faults, pytest.mark.services]


def finished(story: Story, world: World, act: int) -> None:
    alike(contents(story.after[act]), contents(world.seen()))
    for number in range(act + 1, len(ACTS)):
        world.play(ACTS[number])
        alike(contents(story.after[number]), contents(world.seen()))
    assert world.debris() == []


@pytest.mark.parametrize(
    "step",
    ["lease.taken", "extract.begun", "validate.sidecar_written", "load.intended", "load.committed", "gate.begun"],
)
@pytest.mark.parametrize("how", ["immediate", pytest.param("fast", marks=pytest.mark.matrix)])
def test_a_server_restarted_in_the_midst_of_a_run_costs_no_work(
    shared_story: Story, step: str, how: str, tmp_path: Path
) -> None:
    world = shared_story.before[0].copied(tmp_path / "world")
    assert world.shared is not None
    frozen = world.start(*RUN, "--jobs", "1", freeze=f"{step}:1").frozen()
    world.shared.server.control("-m", how, "stop")
    world.shared.server.start()
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 7), ended
    ended.is_clear()
    world.does(*RUN)
    alike(shared_story.after[0], world.seen())
    assert world.debris() == []


def test_a_server_that_is_gone_when_a_run_ends_is_made_up_for(shared_story: Story, tmp_path: Path) -> None:
    world = shared_story.before[0].copied(tmp_path / "world")
    assert world.shared is not None
    frozen = world.start(*RUN, freeze="load.committed:1").frozen()
    world.shared.server.control("-m", "fast", "stop")
    try:
        frozen.wake()
        ended = frozen.wait()
    finally:
        world.shared.server.start()
    assert ended.code == 7, ended
    assert "its rows wait in" in ended.err
    ended.is_clear()
    world.does(*RUN)
    alike(shared_story.after[0], world.seen())


def test_a_deleted_warehouse_is_built_again_from_the_lake(shared_story: Story, tmp_path: Path) -> None:
    world = shared_story.before[1].copied(tmp_path / "world")
    world.does(*RUN)
    world.warehouse.unlink()
    refused(world, "ingestkit backfill opendata --from-lake")
    world.does(*BACKFILL)
    finished(shared_story, world, 1)


def put_back(story: Story, folder: Path) -> None:
    """Yesterday's copy of the target, under a state of today."""
    world = story.before[1].copied(folder / "world")
    shutil.copy2(world.warehouse, folder / "yesterday.duckdb")
    world.does(*RUN)
    shutil.copy2(folder / "yesterday.duckdb", world.warehouse)
    # While nothing is new the target is not opened.
    world.drop(ACTS[2].drops)
    refused(world, "ingestkit backfill opendata --from-lake")
    world.does(*BACKFILL)
    finished(story, world, 1)


def test_a_warehouse_put_back_to_yesterday_is_brought_up_from_the_lake(story: Story, tmp_path: Path) -> None:
    put_back(story, tmp_path)


def test_a_warehouse_put_back_under_a_shared_state_is_brought_up_too(shared_story: Story, tmp_path: Path) -> None:
    put_back(shared_story, tmp_path)
