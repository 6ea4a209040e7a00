"""State and target in PostgreSQL: processes killed at every named step, and the server restarted under them."""

from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_kills import STEPS, disturbed, places
from tests.faults.world import RUN, alike

pytestmark = [pytest.mark.faults, pytest.mark.services]

# A file is made, a database is not.
REMOTE = [step for step in STEPS if step != "warehouse.created"]
AT_THE_TARGET = [step for step in REMOTE if step.startswith(("check.", "load."))]


@pytest.mark.parametrize("step", AT_THE_TARGET)
def test_killed_at_the_target_the_next_run_finishes_the_work(remote_story: Story, step: str, tmp_path: Path) -> None:
    act, place, _ = next(places(remote_story, step))
    assert disturbed(remote_story, tmp_path / "world", (act, place), step, 1, bare=False) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", REMOTE)
def test_killed_twice_and_without_its_shortcuts_the_next_run_finishes_the_work(
    remote_story: Story, step: str, tmp_path: Path
) -> None:
    act, place, _ = [found for found in places(remote_story, step) if found[0] <= 1][-1]
    assert disturbed(remote_story, tmp_path / "world", (act, place), step, 1, bare=True, twice=True) == []


@pytest.mark.parametrize("step", ["load.fenced", "load.rows_written", "load.before_commit", "load.committed"])
def test_a_server_restarted_in_a_load_costs_no_work(remote_story: Story, step: str, tmp_path: Path) -> None:
    world = remote_story.before[0].copied(tmp_path / "world")
    assert world.target is not None
    frozen = world.start(*RUN, "--jobs", "1", freeze=f"{step}:1").frozen()
    world.target.server.control("-m", "immediate", "stop")
    world.target.server.start()
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 7), ended
    ended.is_clear()
    world.does(*RUN)
    alike(remote_story.after[0], world.seen())
    assert world.debris() == []
