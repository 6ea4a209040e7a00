"""What a source of files needs of the place they lie in, be that this machine or a server."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Protocol

from ingestkit.errors import SourceError


class Status(Protocol):
    """What a place tells of a file, in the words of `os.stat`."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime(self) -> float: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


class Entry(Protocol):
    """A name in a folder. What it is and, of a file, its size and time are asked for no sooner than they are needed."""

    @property
    def name(self) -> str: ...

    def is_dir(self) -> bool:
        """Whether it is a folder, or a link that leads to one."""
        ...

    def is_symlink(self) -> bool: ...

    def stat(self, *, follow_symlinks: bool = True) -> Status: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is read; `status` asks again what the opened file is like, whatever has its name by now."""

    stream: BinaryIO
    status: Callable[[], Status]


class Drop(Protocol):
    """A tree of folders. Paths are relative to its root, "" being the root itself.

    What the place says of a path is an OSError with its number, for `failed` to make an error of; a place that cannot
    be spoken to at all is a SourceError, transient where another try may help.
    """

    @property
    def step(self) -> float:
        """A folder's time that is older than so many seconds tells of every change of the folder."""
        ...

    def named(self, path: str) -> str:
        """The path as messages show it."""
        ...

    def entries(self, folder: str) -> Sequence[Entry]:
        """What the folder holds, in no order, without `.` and `..`."""
        ...

    def entry(self, path: str) -> Entry: ...

    def stat(self, path: str) -> Status: ...

    def real(self, path: str) -> PurePath:
        """Where the path really is, all links followed."""
        ...

    def reading(self, real: PurePath) -> AbstractContextManager[Opened]:
        """The bytes of a file. What fails is a SourceError, whoever reads; nothing is waited for that is no file."""
        ...

    def rename(self, path: str, to: str) -> None:
        """Give a file of the tree another name, or one outside of it that begins with `/`; a taken name is an error."""
        ...

    def remove(self, path: str) -> None: ...

    def make_folder(self, path: str) -> None:
        """Make a folder with those above it, where they are not there yet."""
        ...

    def failed(self, error: OSError, path: str, *, gone: str, transient: bool) -> SourceError: ...

    def absent(self, connection: str) -> SourceError:
        """The error, with its cure, that there is no root."""
        ...
