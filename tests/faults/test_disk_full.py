"""Disks that fill up under lake, warehouse or state: one clear line, and with space again the work is finished."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Story
from tests.faults.world import RUN, World, alike, without_generations

pytestmark = pytest.mark.faults

PAGE = 4096
MEBIBYTE = 1 << 20


@contextmanager
def small_disk(folder: Path, size: int = 32 * MEBIBYTE) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, free: int) -> Iterator[None]:
    """Leave only so many bytes free, by a file that nobody sees."""
    ballast = folder / ".ballast"
    status = os.statvfs(folder)
    with ballast.open("wb") as file:
        ballast.unlink()
        os.posix_fallocate(file.fileno(), 0, max(PAGE, status.f_bavail * status.f_frsize - free))
        yield


def told(story: Story, tmp_path: Path, place: str, free: int) -> bool:
    """Run while the disk is nearly full, then again with space; whether the first run was stopped by it."""
    world = World(tmp_path / f"{place}-{free}", story.end.launcher)
    world = story.before[0].copied(world.folder)
    folder = world.folder / place
    with small_disk(folder):
        with filled(folder, free):
            ended = world.call(*RUN)
            # A second one finds what the first has left, and no more space.
            again = world.call(*RUN)
        for one in (ended, again):
            assert one.code in (0, 7), one
            one.is_clear()
        world.does(*RUN)
        alike(without_generations(story.after[0]), without_generations(world.seen()))
        assert world.debris() == []
    return ended.code == 7


@pytest.mark.parametrize(
    ("place", "sizes"),
    [
        ("lake", [0, 4, 12, 40]),
        ("warehouse", [0, 130, 400]),
        ("state", [0, 32, 100, 200]),
    ],
)
def test_a_full_disk_stops_the_run_in_one_clear_line(
    story: Story, place: str, sizes: list[int], tmp_path: Path
) -> None:
    stopped = [told(story, tmp_path, place, pages * PAGE) for pages in sizes]
    assert any(stopped)


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("place", "most", "by"), [("lake", 160, 4), ("warehouse", 1200, 40), ("state", 2400, 60)])
def test_a_disk_may_fill_up_anywhere(story: Story, place: str, most: int, by: int, tmp_path: Path) -> None:
    stopped = [told(story, tmp_path, place, pages * PAGE) for pages in range(0, most, by)]
    assert stopped[0]
    assert not stopped[-1]
