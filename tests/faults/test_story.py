"""The story itself, undisturbed: what the faults are compared with must be right, and must reach every named step."""

import re
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain

import pytest

from ingestkit.model import Stage
from tests.faults.conftest import Story
from tests.faults.processes import ROOT
from tests.faults.world import FIRST, World, alike

pytestmark = pytest.mark.faults

ELSEWHERE = {
    "adopt.owned": "test_state_lost",
    "adopt.fenced": "test_state_lost",
    **dict.fromkeys(
        ("dbt.begun", "dbt.started", "dbt.built", "dbt.done", "dbt.sidecar_written", "dbt.recorded"), "test_dbt"
    ),
    "load.dropping": "test_tables",
    "mirror.runs_added": "test_snowflake",
    "queue.appended": "test_state_lost",
    "rebuild.marked": "test_state_lost",
    "rebuild.voided": "test_state_lost",
    "release.aside": "test_remote",
    "release.ended": "test_remote",
    "release.recorded": "test_remote",
    "store.sent": "test_object_lakes",
    "validate.archive_read": "test_tables",
    "validate.member_done": "test_tables",
    "vault.part_fetched": "test_vault",
    "windows.stepped_over": "test_windows",
}
"""Steps this story does not come to, and the scenario that does."""


def named_steps() -> set[str]:
    """Every step the source names; one named by a stage stands for as many as there are stages here."""
    text = "\n".join(path.read_text() for path in (ROOT / "src/ingestkit").rglob("*.py"))
    named = re.findall(r'steps\.reached\((f?)"([^"]+)"\)', text)
    assert len(named) == len(re.findall(r"steps\.reached\([^.]", text)), "a step is named in a way not seen here"
    stages = [stage.value for stage in Stage if stage is not Stage.SYNC]
    return {
        step.replace("{stage.value}", stage) for formatted, step in named for stage in (stages if formatted else [""])
    }


def test_the_story_reaches_every_named_step(story: Story) -> None:
    reached = set(sum(chain.from_iterable(story.steps), Counter[str]()))
    assert reached == named_steps() - set(ELSEWHERE)


def test_the_story_ends_as_told(story: Story) -> None:
    end = story.after[-1]
    assert end["rows of a"] == [
        "('1', 1974, '20260122', '20260122/a.csv', 1)",
        "('8', 1, '20260122', '20260122/a.csv', 2)",
    ]
    assert [row.split(", '2026")[0] for row in end["rows of b"]] == [
        "('s', datetime.date(2026, 1, 5), 'late but new'",
        "('t', datetime.date(2026, 2, 8), 'new with the restatement'",
        "('u', datetime.date(2026, 1, 15), 'new'",
        "('v', datetime.date(2026, 1, 9), 'new'",
        "('w', datetime.date(2026, 1, 9), 'second file, same key'",
        "('x', datetime.date(2026, 1, 22), 'fourth'",
        "('y', datetime.date(2026, 1, 2), 'plain'",
    ]
    assert [row[2:15] for row in end["rows of c"]] == [
        "1', Decimal('",
        "1', Decimal('",
        "2', Decimal('",
        "3', Decimal('",
        "4', Decimal('",
        "7', Decimal('",
        "9', Decimal('",
    ]
    assert len(end["rejects"]) == 8
    assert end["checkpoint"] == "20260122"
    assert end["open"] == []
    assert sum("quarantined" in row for row in end["ledger"]) == 1


def test_stage_commands_in_processes_of_their_own_end_as_run_does(story: Story) -> None:
    """The last act, told by `run`, comes to the same."""
    world = story.before[2].copied(story.end.folder.with_name("by run"))
    world.does("run", "opendata")
    alike(story.after[2], world.seen())
    assert world.debris() == []


def test_nothing_new_changes_nothing(story: Story) -> None:
    world = story.end.copied(story.end.folder.with_name("nothing new"))
    ended = world.does("run", "opendata")
    assert "nothing new" in ended.out
    alike(story.after[2], world.seen())


def test_the_launcher_alone_ends_a_process_at_the_step(world: World) -> None:
    """What the forked processes do, once without the fork."""
    world.drop(FIRST)
    command = [sys.executable, "-m", "tests.faults.launch", "--kill", "load.fenced:2", "--"]
    ended = subprocess.run(
        [*command, "--project", str(world.folder), "run", "opendata"], cwd=ROOT, capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert len(world.rows("SELECT batch FROM completion")) == 3
