"""One file of this machine, opened for reading: what fails is the source's failure, and what changed is told."""

import errno
import io
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.model import Item
from ingestkit.sources.drop import Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

GONE = "is not at the source any more"

# What may be over when the same call is made again.
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN}


class ReadFile(io.FileIO):
    """A file of the drop; what fails while reading it is the source's failure, whoever reads."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise failed(error, Path(os.fsdecode(self.name))) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise failed(error, Path(os.fsdecode(self.name))) from error


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, which must be where it is said to be and no link to elsewhere."""
    try:
        # Without O_NONBLOCK a pipe that took the file's place would be waited on for ever.
        raw = ReadFile(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError as error:
        raise failed(error, path) from error
    with io.BufferedReader(raw) as file:
        yield file


def failed(error: OSError, path: Path, *, gone: str = GONE, transient: bool = False) -> SourceError:
    name = shown(path)
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return SourceError(f"no permission to read {name}", hint=f"look at its rights: ls -ld {shlex.quote(name)}")
        case errno.ENOENT:
            return SourceError(f"{name} {gone}", transient=transient)
        case errno.ENOTDIR:
            return SourceError(f"{name} is not a folder")
        case errno.EISDIR:
            return SourceError(f"{name} is a folder, not a file")
        case _:
            return SourceError(f"{name} cannot be read: {error.strerror}", transient=error.errno in PASSING)


def mtime_of(status: Status, path: str) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        raise SourceError(f"{shown(path)} has a modification time that is no date", hint="touch it") from None


def refuse_changed(item: Item, status: Status, size: int) -> None:
    """The file that holds the item must be of this size, and of the item's time."""
    same_file = stat.S_ISREG(status.st_mode) and status.st_size == size
    if not same_file or mtime_of(status, item.path) != item.mtime:
        raise changed(item.path)


def changed(path: str) -> SourceError:
    return SourceError(
        f"{shown(path)} changed while it was read", hint="it is taken when it has settled", transient=True
    )
