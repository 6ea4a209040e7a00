"""What becomes of files at the source when they are done with: moved, renamed or deleted, and no other version of them.

A file is taken aside first, under a name that is its version's alone, and looked at there. Killed at any moment, the
next round knows by that name what it has before it, and a newer file that came in between is put back.
"""

import errno
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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
    """One round through a batch; what its folders hold is asked once."""

    drop: Drop
    source: Source
    after: AfterSuccess
    _listed: dict[str, dict[str, Entry]] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)

    def released(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        """Let go of each file; an archive stays while one of its members is among the `others`."""
        whole: dict[tuple[str, datetime], list[FileVersion]] = {}
        for one in sorted(done, key=lambda file: (file.path, file.version)):
            # Of a path there may be older versions: what an ended round had of one lies aside.
            whole.setdefault((archive_of(one.path) or one.path, one.mtime), []).append(one)
        kept = {archive_of(one) or one for one in others}
        failures: list[SourceError] = []
        for (path, _), versions in whole.items():
            if path in kept:
                continue
            try:
                told = self._let_go(path, versions[0])
            except SourceError as error:
                failures.append(error)
                if error.transient or len(failures) == ENOUGH:
                    break
                continue
            if told is not None:
                yield from ((one, told) for one in versions)
        if failures:
            raise failures[0]

    def _let_go(self, path: str, version: FileVersion) -> str | None:
        """What became of a file; None where another version has its place.

        What speaks of it alone is taken first: what comes with a newer version then speaks of that.
        """
        aside = _join(_above(path), f"{ASIDE}{version.id}")
        speaking = {one: f"{aside}-{number}" for number, one in enumerate(Beside(self.source, ()).of_it_alone(path), 1)}
        taken = {one: to for one, to in speaking.items() if self._entry(to) is not None}
        try:
            told = self._let_go_alone(
                path, version, aside, {one: speaking[one] for one in speaking.keys() - taken}, taken
            )
        except SourceError as error:
            if not error.transient:
                self._give_back(taken)
            raise
        if told is None:
            self._give_back(taken)
            return None
        for one, to in taken.items():
            self._ended(one, version, to)
        return told

    def _let_go_alone(
        self, path: str, version: FileVersion, aside: str, speaking: Mapping[str, str], taken: dict[str, str]
    ) -> str | None:
        """The same of the file itself; what of that which speaks of it was `taken` aside is noted there."""
        if self._entry(aside) is None:
            entry = self._entry(path)
            if entry is None:
                return self._ended_before(path, version)
            if entry.is_symlink():
                return "left, since it is a link"
            if not _is(entry.stat(), path, version):
                return None
            self._make_way(path, version)
            for one in sorted(one for one in speaking if self._entry(one) is not None):
                self._done(one, partial(self.drop.rename, one, speaking[one]))
                taken[one] = speaking[one]
            self._done(path, lambda: self.drop.rename(path, aside))
            steps.reached("release.aside")
        else:
            self._take_second(path, version, f"{aside}-second")
        if not self._is_ours(aside, path, version):
            return None
        return self._ended(path, version, aside)

    def _give_back(self, taken: Mapping[str, str]) -> None:
        for path, aside in taken.items():
            if self._now(path) is None:
                self._put_back(path, aside)
            else:
                # What has come there since speaks of the newer version.
                self._done(path, partial(self.drop.remove, aside))

    def _take_second(self, path: str, version: FileVersion, aside: str) -> None:
        """Some rename by giving a second name first, and were ended before the first was gone."""
        if self._entry(aside) is None:
            entry = self._entry(path)
            if entry is None or not _is(entry.stat(), path, version):
                return
            self._done(path, lambda: self.drop.rename(path, aside))
        if self._is_ours(aside, path, version):
            self._done(path, lambda: self.drop.remove(aside))

    def _is_ours(self, aside: str, path: str, version: FileVersion) -> bool:
        """Whether what was taken aside is the version; what is not is put back."""
        if _is(self._done(path, lambda: self.drop.stat(aside)), path, version):
            return True
        self._put_back(path, aside)
        return False

    def _ended(self, path: str, version: FileVersion, aside: str) -> str:
        try:
            told = self._deleted(path, aside) if self.after.delete else self._moved(path, version, aside)
        except SourceError as error:
            # Where the connection was lost nobody knows whether it was done: the next round looks.
            if not error.transient:
                self._put_back(path, aside)
            raise
        steps.reached("release.ended")
        return told

    def _deleted(self, path: str, aside: str) -> str:
        self._done(path, lambda: self.drop.remove(aside))
        return "deleted"

    def _moved(self, path: str, version: FileVersion, aside: str) -> str:
        self._make_way(path, version)
        places = self._places(path, version)
        to = next((one for one in places if self._now(one) is None), places[-1])
        self._done(path, lambda: self.drop.rename(aside, to))
        return self._told(to)

    def _ended_before(self, path: str, version: FileVersion) -> str:
        """What an earlier round did that could not tell of it."""
        for one in self._places(path, version):
            there = self._now(one)
            if there is not None and _is(there, path, version):
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

    def _now(self, path: str) -> Status | None:
        """What is there at this moment, be it a folder that grows without end."""
        try:
            return self.drop.entry(path).stat(follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise self._failed(path, error) from error
            return None

    def _entry(self, path: str) -> Entry | None:
        """What the folder held when the round came to it."""
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
            raise self._failed(path, error) from error

    def _failed(self, path: str, error: OSError) -> SourceError:
        what = "deleted" if self.after.delete else "renamed" if self.after.move is None else "moved"
        return SourceError(
            f"{self.drop.named(path)} cannot be {what}: {error.strerror or error}",
            hint="let the user of the connection write there, or set source.after_success otherwise",
            transient=error.errno not in LASTING,
        )


def _is(status: Status, path: str, version: FileVersion) -> bool:
    """Whether what is there is what was loaded; of an archive the ledger knows the time, and each member's size."""
    same_size = path != version.path or status.st_size == version.size
    return same_size and mtime_of(status, path) == version.mtime


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
