"""Signals that ask to stop, and files that cannot be read: the run ends at a safe point and is gone on with."""

import gzip
import random
import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.test_kills import SEEDS
from tests.faults.world import FIRST, RUN, World, alike

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("seed", range(max(3, SEEDS // 5)))
def test_a_run_asked_to_stop_is_gone_on_with(story: Story, seed: int, tmp_path: Path) -> None:
    lot = random.Random(seed)
    print(f"seed {seed}")
    world = story.before[0].copied(tmp_path / "world")
    for _ in range(3):
        ended = world.start(*RUN).within(lot.uniform(0.2, 1.6), signal.SIGTERM)
        # Before the command listens, the signal ends the process as it ends any.
        assert ended.code in (0, 143, -signal.SIGTERM), ended
        ended.is_clear()
    world.does(*RUN)
    alike(story.after[0], world.seen())
    assert world.debris() == []


def test_a_run_asked_to_stop_leaves_its_run_open(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    frozen = world.start(*RUN, freeze="validate.begun:1").frozen()
    frozen.signal(signal.SIGTERM)
    frozen.wake()
    ended = frozen.wait()
    assert ended.code == 143, ended
    assert "hint: run the same command again" in ended.err
    assert {run for run, _ in world.rows("SELECT run_id, model FROM run_model WHERE open_key IS NOT NULL")} == {
        "opendata.20260101.1"
    }
    world.does(*RUN)
    alike(story.after[0], world.seen())
    assert world.debris() == []


def test_a_corrupt_gzip_is_named_and_its_successor_is_taken(world: World) -> None:
    whole = gzip.compress(FIRST["20260101/a.csv"].encode() * 50)
    world.drop({name: text for name, text in FIRST.items() if name != "20260101/a.csv"})
    packed = world.folder / "drops/20260101/a.csv.gz"
    packed.write_bytes(whole[: len(whole) // 2])
    ended = world.call(*RUN)
    assert ended.code in (4, 5), ended
    assert "20260101/a.csv.gz" in ended.err
    ended.is_clear()
    packed.write_bytes(gzip.compress(FIRST["20260101/a.csv"].encode()))
    world.does(*RUN)
    assert len(world.seen()["completions"]) == 9
    assert world.debris() == []
