"""`keep: none`, killed at its steps and the disk thrown away: the next run fetches again, and all comes to the same."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.world import FIRST, RUN, STAGES, Act, World, alike, differences

pytestmark = pytest.mark.faults

# An older batch that is merged cannot be restated behind a newer one, whose rows are not kept.
LATE = {
    "20260101/c_2.csv": "id,amount\n7,7.00\n8,none\n",
    "20260108/c.csv": "id,amount\n1,11.00\n4,4.00\n",
    "20260115/a.csv": "id,born\n1,1973\n5,2001\n6,2002\n7,bad\n",
    "20260115/b_2.csv": "id,day,note\nq,2026-01-15,late\n",
}
BAD = {
    "20260115/c.csv": "id,amount\n" + "".join(f"{number},1.00\n" for number in range(10)),
    "20260115/c_9.csv": "id,amount\n" + "x,none\n" * 11 + "11,1.00\n",
}
ACTS = (Act(FIRST | BAD, (RUN,)), Act(LATE, (RUN,)), Act({"20260122/b.csv": "id,day,note\nx,,fourth\n"}, STAGES))
SOME = {
    0: ("extract.copied", "validate.recorded", "load.committed", "clean.noted"),
    1: ("extract.recorded", "validate.file_done", "load.sidecar_written"),
}


@dataclass(frozen=True, slots=True)
class Passing:
    before: tuple[World, ...]
    after: tuple[dict[str, Any], ...]
    steps: tuple[Counter[str], ...]


def made(folder: Path, launcher: Launcher, keep: str) -> World:
    world = World.made(folder, launcher)
    path = folder / "config/pipelines/opendata.yaml"
    lax = path.read_text().replace("max_file_reject_pct: 90", "max_file_reject_pct: 90, on_bad_file: publish_rest")
    path.write_text(f"keep: {keep}\n{lax}")
    return world


@pytest.fixture(scope="module")
def passing(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Passing:
    folder = tmp_path_factory.mktemp("passing")
    world, record = made(folder / "world", launcher, "none"), folder / "steps"
    before, after, reached = [], [], []
    for number, act in enumerate(ACTS):
        world.drop(act.drops)
        before.append(world.copied(folder / f"before-{number}"))
        record.write_text("")
        for command in act.commands:
            ended = world.call(*command, "--jobs", "1", record=str(record))
            assert ended.code == 0, ended
        reached.append(Counter(record.read_text().split()))
        after.append(world.seen())
        assert left(world) == []
    return Passing(tuple(before), tuple(after), tuple(reached))


def left(world: World) -> list[str]:
    """What lies anywhere and nobody needs. What is raw is known to the ledger by its name, and is gone."""
    whole = {raw for (raw,) in world.rows("SELECT raw FROM file_manifest WHERE status = 'quarantined'")}
    raw = {
        str(path.relative_to(world.lake))
        for kind in ("raw", "valid")
        for path in world.lake.glob(f"{kind}/opendata/[a-z]*/**/*")
    }
    files = [name for name in raw if (world.lake / name).is_file() and name not in whole]
    return [*files, *(one for one in world.debris() if not one.startswith("missing: raw/"))]


def test_the_story_is_that_of_a_pipeline_that_keeps_everything(
    passing: Passing, launcher: Launcher, tmp_path: Path
) -> None:
    world = made(tmp_path / "world", launcher, "all")
    for act, seen in zip(ACTS, passing.after, strict=True):
        world.play(act)
        alike(seen, world.seen())


def disturbed(passing: Passing, folder: Path, number: int, step: str) -> list[str]:
    world = passing.before[number].copied(folder)
    for command in ACTS[number].commands:
        if world.call(*command, "--jobs", "1", kill=f"{step}:1").killed:
            world.forget_shortcuts()
            world.does(*command)
    return [*differences(passing.after[number], world.seen()), *(f"left: {name}" for name in left(world))]


@pytest.mark.parametrize(("number", "step"), [(number, step) for number, some in SOME.items() for step in some])
def test_killed_and_its_disk_thrown_away_the_next_run_finishes_the_work(
    passing: Passing, number: int, step: str, tmp_path: Path
) -> None:
    assert disturbed(passing, tmp_path / "world", number, step) == []


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(len(ACTS)))
@pytest.mark.parametrize("step", sorted(named_steps()))
def test_killed_at_any_other_step_it_does_too(passing: Passing, number: int, step: str, tmp_path: Path) -> None:
    if not passing.steps[number][step] or step in SOME.get(number, ()):
        pytest.skip(f"act {number} does not come to {step}, or is told of it elsewhere")
    assert disturbed(passing, tmp_path / "world", number, step) == []
