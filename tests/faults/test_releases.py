"""Files let go of at the source: killed on the way, each is done with once, and nothing is lost that was not loaded."""

from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.world import ACTS, FIRST, RUN, World, differences

pytestmark = pytest.mark.faults

STEPS = ("release.aside", "release.ended", "release.recorded")
FOLDERS = "folders: '(?P<batch>\\d{8})'"
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


@pytest.mark.parametrize("step", STEPS)
def test_killed_where_each_batch_is_its_files_the_next_run_ends_it_too(story: Story, step: str, tmp_path: Path) -> None:
    """What lies aside is in no listing, and so is no batch of it."""
    world = story.before[0].copied(tmp_path / "world")
    after = "{delete: true}"
    world.lets_go(after)
    pipeline = world.folder / "config/pipelines/opendata.yaml"
    said = pipeline.read_text()
    assert FOLDERS in said
    pipeline.write_text(said.replace(FOLDERS, "files: '(?P<batch>\\d{8})/[^/]+\\.csv'"))
    assert world.call(*RUN, kill=f"{step}:1").killed
    world.does(*RUN)
    assert [name for name in world.at_the_source() if ".csv" in name] == []
    assert list(world.folder.rglob(".ingestkit-*")) == []
    assert unreleased(world) == []


def test_killed_before_a_newer_version_comes_both_are_done_with(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    world.lets_go("{delete: true}")
    assert world.call(*RUN, kill="release.aside:1").killed
    [aside] = world.folder.rglob(".ingestkit-*")
    world.drop({"20260101/a.csv": "id,born\n9,1999\n"})
    world.does(*RUN)
    assert not aside.exists()
    assert [name for name in world.at_the_source() if ".csv" in name] == []
    told = world.rows("SELECT version, released FROM file_manifest WHERE path = '20260101/a.csv' ORDER BY version")
    assert told == [(1, "deleted"), (2, "deleted")]


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
