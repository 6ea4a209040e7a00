"""A replay of rejects killed at its steps: the next run finishes it, from the lake, as if nothing had happened."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.world import PIPELINE, RUN, World, differences

pytestmark = pytest.mark.faults

DROPS = {
    "20260101/b.csv": "id,day,note\nx,2026-01-01,one\nv,2026-01-01,two\ny,2026-06-02,late\nz,2026-06-03,late\n",
    "20260101/c.csv": "id,amount\n1,1.50\n2,22.25\n",
    "20260108/b.csv": "id,day,note\nx,2026-01-08,newer\nz,2026-01-08,newer\n",
    "20260108/c.csv": "id,amount\n4,4.00\n",
}
STRICT = (("day: {type: date}", "day: {type: date, max: '2026-02-01'}"), ("(10,2)'}", "(10,2)', max: 20}"))
REPLAY = ("quarantine", "replay", "opendata", "--batch", "20260101")
SOME = ("run.opened", "validate.recorded", "load.before_commit", "load.committed", "gate.sidecar_written")


@dataclass(frozen=True, slots=True)
class Replayed:
    before: World
    after: dict[str, Any]
    steps: Counter[str]


@pytest.fixture(scope="module")
def replayed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """A world whose contract was too strict and is not any more, and what an undisturbed replay makes of it."""
    folder = tmp_path_factory.mktemp("replays")
    world = World.made(folder / "before", launcher)
    contract = world.folder / "config/pipelines/opendata.yaml"
    text = PIPELINE
    for lax, strict in STRICT:
        text = text.replace(lax, strict)
    contract.write_text(text)
    world.drop(DROPS)
    world.does(*RUN)
    contract.write_text(PIPELINE)
    undisturbed = world.copied(folder / "undisturbed")
    ended = undisturbed.call(*REPLAY, "--jobs", "1", record=str(folder / "steps"))
    assert ended.code == 0, ended
    assert "3 records that were rejected are valid now, 0 still rejected" in ended.out
    return Replayed(world, undisturbed.seen(), Counter((folder / "steps").read_text().split()))


def disturbed(replayed: Replayed, folder: Path, step: str) -> list[str]:
    world = replayed.before.copied(folder)
    assert world.call(*REPLAY, "--jobs", "1", kill=f"{step}:1").killed
    world.forget_shortcuts()
    world.does(*RUN)
    # What was killed before it had opened a run is asked for again.
    world.does(*REPLAY)
    return [*differences(replayed.after, world.seen()), *(f"debris: {name}" for name in world.debris())]


@pytest.mark.parametrize("step", SOME)
def test_a_replay_killed_is_finished_by_the_next_run(replayed: Replayed, step: str, tmp_path: Path) -> None:
    assert disturbed(replayed, tmp_path / "world", step) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", sorted(named_steps() - set(SOME)))
def test_a_replay_killed_at_any_other_step_is_too(replayed: Replayed, step: str, tmp_path: Path) -> None:
    if not replayed.steps[step]:
        pytest.skip(f"a replay does not come to {step}")
    assert disturbed(replayed, tmp_path / "world", step) == []
