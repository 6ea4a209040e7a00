"""What becomes of files at the source when they are done with: moved, renamed or deleted, and no other version of them.

A file is taken aside first, under a name that is its version's alone, and looked at there. Killed at any moment, the
next round knows by that name what it has before it, and a newer file that came in between is put back.
"""

import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ingestkit import steps
from ingestkit.errors import SourceError
from ingestkit.model import FileVersion
from ingestkit.settings import AfterSuccess, Source
from ingestkit.sources.archives import archive_of
from ingestkit.sources.arrival import Beside
from ingestkit.sources.drop import Drop, Entry, Status
from ingestkit.sources.reading import mtime_of

Answer = TypeVar("Answer")

ASIDE = ".ingestkit-"
GONE = "not at the source any more"
LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ENAMETOOLONG, errno.EEXIST, errno.EREMOTEIO}
ENOUGH = 3
"""So many files that cannot be let go of are taken to speak for the others."""


def is_released(after: AfterSuccess | None, moved_to: str | None, path: str) -> bool:
    """Whether a path of the drop is of what was let go of; `moved_to` is where that is moved, if within the drop."""
    if after is None:
        return False
    name = path.rpartition("/")[2]
    renamed = after.rename is not None and name.endswith(after.rename)
    return renamed or name.startswith(ASIDE) or path == moved_to


@dataclass(frozen=True, slots=True)
class Release:
    """One round through a batch; what folders hold is asked once."""

    drop: Drop
    source: Source
    after: AfterSuccess
    _listed: dict[str, dict[str, Entry]] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)

    def released(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        """Let go of each file; an archive stays while one of its members is among the `others`."""
        whole: dict[str, list[FileVersion]] = {}
        for one in done:
            whole.setdefault(archive_of(one.path) or one.path, []).append(one)
        failures: list[SourceError] = []
        for path in sorted(whole.keys() - {archive_of(one) or one for one in others}):
            try:
                told = self._let_go(path, whole[path][0])
            except SourceError as error:
                failures.append(error)
                if error.transient or len(failures) == ENOUGH:
                    break
                continue
            if told is not None:
                yield from ((one, told) for one in whole[path])
        if failures:
            raise failures[0]

    def _let_go(self, path: str, version: FileVersion) -> str | None:
        """What became of a file and of what speaks of it alone; None where another version has its place."""
        aside = _join(_above(path), f"{ASIDE}{version.id}")
        told = self._taken(path, version, aside, lambda status: _is(status, path, version))
        if told is None:
            return None
        for number, one in enumerate(Beside(self.source.settle, ()).of_it_alone(path), 1):
            self._taken(one, version, f"{aside}-{number}", None)
        return told

    def _taken(self, path: str, version: FileVersion, aside: str, is_it: Callable[[Status], bool] | None) -> str | None:
        """What became of a file; with no `is_it` whatever has its name is meant."""
        entry = self._entry(path)
        if self._entry(aside) is None:
            if entry is None:
                return self._ended_before(path, version, is_it)
            if entry.is_symlink():
                return "left, since it is a link"
            if is_it is not None and not is_it(entry.stat()):
                return None
            self._make_way(path, version)
            self._done(path, lambda: self.drop.rename(path, aside))
            steps.reached("release.aside")
        elif is_it is not None and entry is not None and is_it(entry.stat()):
            # Some rename by giving a second name first, and were ended before the first was gone.
            self._done(path, lambda: self.drop.remove(path))
        if is_it is not None and not is_it(self._done(path, lambda: self.drop.stat(aside))):
            self._put_back(path, aside)
            return None
        return self._ended(path, version, aside)

    def _ended(self, path: str, version: FileVersion, aside: str) -> str:
        if self.after.delete:
            self._done(path, lambda: self.drop.remove(aside))
            told = "deleted"
        else:
            self._make_way(path, version)
            places = self._places(path, version)
            to = next((one for one in places if self._entry(one) is None), places[-1])
            try:
                self._done(path, lambda: self.drop.rename(aside, to))
            except SourceError:
                self._put_back(path, aside)
                raise
            told = self._told(to)
        steps.reached("release.ended")
        return told

    def _ended_before(self, path: str, version: FileVersion, is_it: Callable[[Status], bool] | None) -> str:
        """What an earlier round did that could not tell of it."""
        for one in self._places(path, version):
            entry = self._entry(one)
            if entry is not None and (is_it is None or is_it(entry.stat())):
                return self._told(one)
        return GONE

    def _make_way(self, path: str, version: FileVersion) -> None:
        """Make the folder that a file moves to, before it is touched."""
        for to in self._places(path, version)[:1]:
            folder = _above(to)
            if self.after.move is not None and folder not in self._made:
                self._done(path, partial(self.drop.make_folder, folder))
                self._made.add(folder)

    def _put_back(self, path: str, aside: str) -> None:
        try:
            self.drop.rename(aside, path)
        except OSError as error:
            raise SourceError(
                f"{self.drop.named(path)} was taken aside and cannot be put back ({error.strerror}): it is "
                f"{self.drop.named(aside)} now",
                hint="put it where it is missing",
            ) from error

    def _places(self, path: str, version: FileVersion) -> tuple[str, ...]:
        """Where a file comes to: under its own name, or where that is taken, under one that is its version's alone."""
        if self.after.delete:
            return ()
        folder, suffix = self.after.move, self.after.rename or ""
        named = path if folder is None else _join(folder, path)
        return f"{named}{suffix}", f"{named}.{version.id}{suffix}"

    def _told(self, to: str) -> str:
        return f"{'renamed' if self.after.move is None else 'moved'} to {to}"

    def _entry(self, path: str) -> Entry | None:
        folder = _above(path)
        if folder not in self._listed:
            self._listed[folder] = self._done(folder, lambda: self._entries(folder))
        return self._listed[folder].get(path)

    def _entries(self, folder: str) -> dict[str, Entry]:
        try:
            return {_join(folder, entry.name): entry for entry in self.drop.entries(folder)}
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return {}

    def _done(self, path: str, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except OSError as error:
            what = "deleted" if self.after.delete else "renamed" if self.after.move is None else "moved"
            raise SourceError(
                f"{self.drop.named(path)} cannot be {what}: {error.strerror or error}",
                hint="let the user of the connection write there, or set source.after_success otherwise",
                transient=error.errno not in LASTING,
            ) from error


def _is(status: Status, path: str, version: FileVersion) -> bool:
    """Whether what is there is what was loaded; of an archive the ledger knows the time, and each member's size."""
    same_size = path != version.path or status.st_size == version.size
    return same_size and mtime_of(status, path) == version.mtime


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
