"""Drops on an SFTP server, the lake in Azure's storage, the target in Snowflake, the state in PostgreSQL.

A process is killed at every step and its disk thrown away; what it had open in Snowflake stands in the way for a while.
"""

import random
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_kills import disturbed, places
from tests.faults.test_remote import REMOTE
from tests.faults.test_story import ELSEWHERE

pytestmark = [pytest.mark.faults, pytest.mark.services]

STEPS = [*REMOTE, *(one for one, where in ELSEWHERE.items() if where == "test_snowflake")]
SOME = ("load.fenced", "load.before_commit", "load.committed")
IN_THE_TARGET = [step for step in STEPS if step.startswith(("check.", "load.", "mirror."))]


def killed(story: Story, folder: Path, step: str) -> list[str]:
    act, place, _ = next(places(story, step))
    return disturbed(story, folder, (act, place), step, 1, bare=True)


def test_killed_in_a_publish_and_its_disk_thrown_away_the_next_run_finishes_the_work(
    snowflake_story: Story, tmp_path: Path
) -> None:
    """One test of several steps, since the story takes longer to tell than they do."""
    found = {step: killed(snowflake_story, tmp_path / step, step) for step in SOME}
    assert found == {step: [] for step in SOME}


@pytest.mark.matrix
@pytest.mark.parametrize("step", [step for step in STEPS if step not in SOME])
def test_killed_and_its_disk_thrown_away_the_next_run_finishes_the_work(
    snowflake_story: Story, step: str, tmp_path: Path
) -> None:
    assert killed(snowflake_story, tmp_path / "world", step) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", IN_THE_TARGET)
def test_killed_twice_the_next_run_finishes_the_work(snowflake_story: Story, step: str, tmp_path: Path) -> None:
    act, place, times = [found for found in places(snowflake_story, step) if found[0] <= 1][-1]
    number = random.Random(step).randint(1, times)
    assert disturbed(snowflake_story, tmp_path / "world", (act, place), step, number, bare=True, twice=True) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", ["store.linked", *(step for step in IN_THE_TARGET if step.startswith("load."))])
def test_killed_where_rows_go_through_the_lake_nothing_of_them_stays_there(
    snowflake_stories: Callable[[str | None], Story], step: str, tmp_path: Path
) -> None:
    story = snowflake_stories("LAKE_STAGE")
    act, place, times = [found for found in places(story, step) if found[0] <= 1][-1]
    number = random.Random(step).randint(1, times)
    assert disturbed(story, tmp_path / "world", (act, place), step, number, bare=True) == []


@pytest.mark.matrix
def test_the_story_reaches_every_step_but_that_of_making_a_file(snowflake_story: Story) -> None:
    reached = set(sum(chain.from_iterable(snowflake_story.steps), Counter[str]()))
    assert reached == set(STEPS)


@pytest.mark.matrix
def test_what_comes_into_snowflake_is_what_comes_into_a_file(story: Story, snowflake_story: Story) -> None:
    for here, there in zip(story.after, snowflake_story.after, strict=True):
        named = [name for name in here if name == "receipts" or name.startswith("rows of")]
        assert {name: there[name] for name in named} == {name: here[name] for name in named}
