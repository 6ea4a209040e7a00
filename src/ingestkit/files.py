"""Local files written whole or not at all, and their names as people read them."""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingestkit import steps


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: without it a rename or link can vanish after a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each name durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        # Asked once: somebody else may remove it meanwhile, and what is gone is no file in the way.
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise
    sync_folder(folder.parent)


def replace_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, so that a reader sees the old bytes or the new ones; a device or a pipe takes it in."""
    replace_in_blocks(path, (content,))


def replace_in_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """The same for what is made while it is written; where making it fails, the old bytes stay."""
    if _is_stream(path):
        with path.open("wb") as file:
            file.writelines(blocks)
        return
    path = path.resolve()
    with _written_beside(path, blocks) as beside:
        steps.reached("files.written")
        beside.replace(path)


def create_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole; FileExistsError where something is there."""
    with _written_beside(path, (content,)) as beside:
        os.link(beside, path)


def _is_stream(path: Path) -> bool:
    """Whether it is there, and is what no file may be put in the place of."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def _written_beside(path: Path, blocks: Iterable[bytes]) -> Iterator[Path]:
    make_folder(path.parent)
    beside = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with beside.open("xb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
        yield beside
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def shown(path: Path | str) -> str:
    """A path on one line of a message: what does not print, or is not UTF-8, is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
