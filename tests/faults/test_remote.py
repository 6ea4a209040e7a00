"""Drops on an SFTP server, state and target in PostgreSQL: killed at every named step, servers gone under a run."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_kills import STEPS, disturbed, places
from tests.faults.test_story import ELSEWHERE
from tests.faults.world import RUN, alike
from tests.services import PostgresServer

pytestmark = [pytest.mark.faults, pytest.mark.services]

# A file is made, a database is not.
REMOTE = [*(step for step in STEPS if step != "warehouse.created"), *(one for one in ELSEWHERE if "release." in one)]
SOME = ("extract.copied", "load.before_commit", "load.committed", "release.aside", "release.recorded")
ABROAD = [step for step in REMOTE if step.startswith(("extract.copied", "check.", "load.", "release."))]


def test_the_story_reaches_every_step_but_that_of_making_a_file(remote_story: Story) -> None:
    reached = set(sum(chain.from_iterable(remote_story.steps), Counter[str]()))
    assert reached == set(REMOTE)


@pytest.mark.parametrize(
    "step", [*SOME, *(pytest.param(one, marks=pytest.mark.matrix) for one in ABROAD if one not in SOME)]
)
def test_killed_abroad_the_next_run_finishes_the_work(remote_story: Story, step: str, tmp_path: Path) -> None:
    act, place, _ = next(places(remote_story, step))
    assert disturbed(remote_story, tmp_path / "world", (act, place), step, 1, bare=False) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", REMOTE)
def test_killed_twice_and_without_its_shortcuts_the_next_run_finishes_the_work(
    remote_story: Story, step: str, tmp_path: Path
) -> None:
    act, place, _ = [found for found in places(remote_story, step) if found[0] <= 1][-1]
    assert disturbed(remote_story, tmp_path / "world", (act, place), step, 1, bare=True, twice=True) == []


@pytest.mark.parametrize(("step", "code"), [("extract.begun:2", 4), ("release.aside:8", 0)])
def test_a_drop_that_is_gone_in_the_midst_of_a_run_costs_no_work(
    remote_story: Story, step: str, code: int, tmp_path: Path
) -> None:
    """What is let go of comes last: without it a run is done all the same."""
    world = remote_story.before[0].copied(tmp_path / "world")
    assert world.source is not None
    frozen = world.start(*RUN, "--jobs", "1", freeze=step).frozen()
    world.source.stop()
    frozen.wake()
    ended = frozen.wait()
    world.source.start()
    assert ended.code == code, ended
    world.does(*RUN)
    alike(remote_story.after[0], world.seen())
    assert world.debris() == []


@pytest.mark.parametrize(
    "step",
    [
        *("load.rows_written", "load.committed"),
        *(pytest.param(one, marks=pytest.mark.matrix) for one in ("load.fenced", "load.before_commit")),
    ],
)
def test_a_server_restarted_in_a_load_costs_no_work(
    remote_story: Story, server: PostgresServer, step: str, tmp_path: Path
) -> None:
    world = remote_story.before[0].copied(tmp_path / "world")
    frozen = world.start(*RUN, "--jobs", "1", freeze=f"{step}:1").frozen()
    server.control("-m", "immediate", "stop")
    server.start()
    frozen.wake()
    ended = frozen.wait()
    assert ended.code in (0, 7), ended
    ended.is_clear()
    world.does(*RUN)
    alike(remote_story.after[0], world.seen())
    assert world.debris() == []
