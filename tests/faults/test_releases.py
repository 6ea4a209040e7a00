"""Files let go of at the source: killed on the way, each is done with once, and nothing is lost that was not loaded."""

from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.world import ACTS, FIRST, RUN, World, differences

pytestmark = pytest.mark.faults

STEPS = ("release.aside", "release.ended", "release.recorded")
LEFT = {
    "{move: done}": "done/{}",
    "{rename: .loaded}": "{}.loaded",
    "{delete: true}": None,
}


def left(after: str) -> list[str]:
    """What of the first act is at the source in the end."""
    kept, found = LEFT[after], []
    for name, content in FIRST.items():
        to = name if name.endswith(".md") else kept and kept.format(name)
        found += [f"{to}: {content.encode()!r}"] if to is not None else []
    return sorted(found)


@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", LEFT, ids=["move", "rename", "delete"])
def test_killed_while_files_are_let_go_of_the_next_run_ends_it(
    story: Story, after: str, step: str, number: int, tmp_path: Path
) -> None:
    world = story.before[0].copied(tmp_path / "world")
    world.lets_go(after)
    assert world.call(*RUN, kill=f"{step}:{number}").killed
    world.forget_shortcuts()
    world.does(*RUN)
    assert differences(story.after[0] | {"source": left(after)}, world.seen()) == []
    assert world.debris() == []
    assert unreleased(world) == []
    world.drop(ACTS[1].drops)
    world.does(*RUN)
    assert differences(story.after[1] | {"source": None}, world.seen() | {"source": None}) == []
    assert world.debris() == []
    assert unreleased(world) == []


def unreleased(world: World) -> list[str]:
    loaded = "status IN ('loaded', 'superseded', 'skipped') AND sha256 IS NOT NULL"
    return [path for (path,) in world.rows(f"SELECT path FROM file_manifest WHERE released IS NULL AND {loaded}")]
