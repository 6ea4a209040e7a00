"""Processes killed while the lake is laid out in a way of the project's own, or in one that is given up meanwhile."""

from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.world import ACTS, RUN, World, differences

pytestmark = pytest.mark.faults

STEPS = ("lake.published", "validate.valid_published", "load.intended", "clean.removed")
MORE = (
    *("lake.written", "store.linked", "extract.copied", "extract.sidecar_written"),
    *("validate.rejects_published", "validate.sidecar_written", "load.sidecar_written", "gate.sidecar_written"),
)
OURS = "layout: 'model={model}/of/{batch}'\n"
OTHER = "layout: '{batch}/{model}'\n"


def laid_out(world: World, layout: str) -> None:
    path = world.folder / "config/pipelines/opendata.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("layout:")) + layout)


@pytest.mark.parametrize("changed", [False, True], ids=["kept", "changed"])
@pytest.mark.parametrize("step", [*STEPS, *(pytest.param(one, marks=pytest.mark.matrix) for one in MORE)])
def test_killed_at_a_step_the_next_run_finds_what_is_in_its_folders(
    story: Story, step: str, *, changed: bool, tmp_path: Path
) -> None:
    world = story.before[0].copied(tmp_path / "world")
    laid_out(world, OURS)
    assert world.call(*RUN, kill=f"{step}:2").killed
    if changed:
        laid_out(world, OTHER)
    world.forget_shortcuts()
    world.does(*RUN)
    assert differences(story.after[0], world.seen()) == []
    assert world.debris() == []
    if changed:
        assert (world.lake / "raw/opendata/20260115/a").is_dir()
    world.drop(ACTS[1].drops)
    world.does(*RUN)
    assert differences(story.after[1], world.seen()) == []
    assert world.debris() == []
