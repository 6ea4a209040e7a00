"""Batches of files in folders of this machine."""

import errno
import io
import os
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.model import Item
from ingestkit.settings import Model, Source
from ingestkit.sources.naming import batch_of, checked_after, claim_patterns, claimants

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What may be over when the same call is made again.
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN}

# A pattern without any of these cannot match a slash, so only folders at the top can be batches.
MAY_NEST = re.compile(r"[/.\[]|\\[^dws]")

# File systems stamp folders in steps of up to two seconds; a younger stamp may hide a change within its step.
STAMP = 3.0


@dataclass(frozen=True, slots=True)
class Walk:
    """What the last walk through the drop found, good while no folder it went through has changed."""

    batches: Mapping[str, tuple[str, ...]]
    """By key: the folders, or with `batches.files` the files, of each batch."""
    stamps: Mapping[str, int]
    began: float


@dataclass(slots=True)
class FilesSource:
    """Not frozen: it keeps its last walk, so that asking for each of many batches does not walk each time."""

    root: Path
    settings: Source
    models: Mapping[str, Model]
    now: Callable[[], float] = time.time
    _walk: Walk | None = None

    def check(self) -> None:
        self._entries("")

    def batches(self, after: str | None) -> Iterator[str]:
        batches = self.settings.batches
        floor = checked_after(batches, after) if after is not None else None
        self._walk = self._walked()
        ordered = sorted((batches.order(key), key) for key in self._walk.batches)
        return (key for order, key in ordered if floor is None or order > floor)

    def items(self, batch: str) -> Iterator[Item]:
        if self._walk is None or not self._is_fresh(self._walk):
            self._walk = self._walked()
        places = self._walk.batches.get(batch)
        if places is None:
            again = f"ingestkit backfill --batch {shlex.quote(shown(batch))} --from-lake"
            raise SourceError(
                f"{shown(self.root)} holds no batch {shown(batch)}",
                hint=f"what has landed of it can be loaded: {again}",
            )
        claims = claim_patterns(self.models)
        found = (self._item(batch, path, entry, claims) for path, entry in self._files_of(places))
        return iter(sorted((item for item in found if item is not None), key=lambda item: item.path))

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        path = self._inside(item.path)
        try:
            # Without O_NONBLOCK a pipe that took the file's place would be waited on for ever.
            raw = ReadFile(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
        except OSError as error:
            raise _failed(error, path) from error
        with io.BufferedReader(raw) as stream:
            _unchanged(item, os.fstat(raw.fileno()))
            yield stream
            try:
                now = (self.root / item.path).stat()
            except OSError as error:
                raise _changed(item) from error
            _unchanged(item, os.fstat(raw.fileno()))
            _unchanged(item, now)

    def _walked(self) -> Walk:
        began = self.now()
        stamps: dict[str, int] = {}
        batches: dict[str, list[str]] = {}
        found = self._files("", stamps) if self.settings.batches.files else self._folders(stamps)
        pattern = re.compile(self.settings.batches.files or self.settings.batches.folders or "")
        for path, _ in found:
            key = batch_of(self.settings.batches, pattern, path)
            if key is not None:
                batches.setdefault(key, []).append(path)
        return Walk({key: tuple(paths) for key, paths in batches.items()}, stamps, began)

    def _is_fresh(self, walk: Walk) -> bool:
        oldest = (walk.began - STAMP) * 1e9
        try:
            return all(
                stamp < oldest and (self.root / folder).stat().st_mtime_ns == stamp
                for folder, stamp in walk.stamps.items()
            )
        except OSError:
            return False

    def _folders(self, stamps: dict[str, int]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Folders that may be batches; those that are one are not looked into."""
        text = self.settings.batches.folders or ""
        pattern, may_nest = re.compile(text), MAY_NEST.search(text) is not None
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for path, entry in self._entries(folder, stamps):
                if pattern.fullmatch(path):
                    if self._is_folder(path, entry):
                        yield path, entry
                elif may_nest and not entry.is_symlink() and self._is_folder(path, entry):
                    waiting.append(path)

    def _files_of(self, places: tuple[str, ...]) -> Iterator[tuple[str, os.DirEntry[str] | Path]]:
        for place in places:
            if self.settings.batches.files:
                yield place, self.root / place
            else:
                # The walk follows no link on its way to a batch, so only the folder itself can lead elsewhere.
                if (self.root / place).is_symlink():
                    self._inside(place)
                yield from self._files(place)

    def _files(self, top: str, stamps: dict[str, int] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Everything below a folder that is no folder, in no order; links are followed within the drop."""
        waiting: list[tuple[str, tuple[Path, ...]]] = [(top, ())]
        while waiting:
            folder, followed = waiting.pop()
            for path, entry in self._entries(folder, stamps):
                if not self._is_folder(path, entry):
                    yield path, entry
                elif not entry.is_symlink():
                    waiting.append((path, followed))
                else:
                    target = self._inside(path)
                    if target in followed:
                        raise SourceError(
                            f"{shown(self.root / path)} is a link that leads back to itself",
                            hint="remove the link, or let source.ignore match its name",
                        )
                    waiting.append((path, (*followed, target)))

    def _entries(self, folder: str, stamps: dict[str, int] | None = None) -> list[tuple[str, os.DirEntry[str]]]:
        """What a folder holds, without what is ignored."""
        where = self.root / folder
        ignored = [re.compile(one).fullmatch for one in self.settings.ignore]
        try:
            if stamps is not None:
                stamps[folder] = where.stat().st_mtime_ns
            with os.scandir(where) as scan:
                entries = [entry for entry in scan if not any(matches(entry.name) for matches in ignored)]
        except OSError as error:
            if not folder:
                raise self._unusable(error) from error
            raise _failed(error, where, gone="vanished while it was listed", transient=True) from error
        before = f"{folder}/" if folder else ""
        for entry in entries:
            _checked_name(entry)
        return [(before + entry.name, entry) for entry in entries]

    def _is_folder(self, path: str, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            raise _failed(error, self.root / path) from error

    def _item(
        self, batch: str, path: str, entry: os.DirEntry[str] | Path, claims: Mapping[str, re.Pattern[str]]
    ) -> Item | None:
        """The item a file is; None when the file went away while it was listed."""
        waits_for = None
        try:
            if entry.is_symlink():
                self._inside(path)
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                waits_for = "it is not a regular file"
        except OSError as error:
            if not entry.is_symlink():
                if error.errno == errno.ENOENT:
                    return None
                raise _failed(error, self.root / path) from error
            status = entry.stat(follow_symlinks=False)
            waits_for = "it is a link to nothing"
        return Item(
            batch=batch,
            path=path,
            size=status.st_size if waits_for is None else 0,
            mtime=_mtime(status, path),
            models=claimants(claims, path),
            ready=waits_for is None,
            waits_for=waits_for,
        )

    def _inside(self, path: str) -> Path:
        """Where a path of the drop really is; a link must not lead out of the drop."""
        try:
            root, real = self.root.resolve(), (self.root / path).resolve()
        except (OSError, RuntimeError) as error:
            raise SourceError(f"{shown(self.root / path)} is a link that leads back to itself") from error
        if not real.is_relative_to(root):
            raise SourceError(
                f"{shown(self.root / path)} leads out of the drop, to {shown(real)}; nothing outside of it is read",
                hint="put a copy in its place, or let source.ignore match its name",
            )
        return real

    def _unusable(self, error: OSError) -> SourceError:
        if error.errno == errno.ENOENT:
            make = f"mkdir -p {shlex.quote(shown(self.root))}"
            return SourceError(
                f"the drop folder {shown(self.root)} does not exist",
                hint=f"mount it or make it ({make}), or change `path` of connection {self.settings.connection}",
            )
        return _failed(error, self.root)


class ReadFile(io.FileIO):
    """A file of the drop; what fails while reading it is the source's failure, whoever reads."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _failed(error, Path(os.fsdecode(self.name))) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _failed(error, Path(os.fsdecode(self.name))) from error


def _failed(
    error: OSError, path: Path, *, gone: str = "is not at the source any more", transient: bool = False
) -> SourceError:
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


def _checked_name(entry: os.DirEntry[str]) -> None:
    """The ledger keeps names as text, so a name that is none cannot be accounted for."""
    try:
        if not entry.name.isascii():
            entry.name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"the name of {shown(entry.path)} is not UTF-8",
            hint="rename it at the source, or let source.ignore match it",
        ) from None


def _mtime(status: os.stat_result, path: str) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        raise SourceError(f"{shown(path)} has a modification time that is no date", hint="touch it") from None


def _unchanged(item: Item, status: os.stat_result) -> None:
    same_file = stat.S_ISREG(status.st_mode) and status.st_size == item.size
    if not same_file or _mtime(status, item.path) != item.mtime:
        raise _changed(item)


def _changed(item: Item) -> SourceError:
    return SourceError(
        f"{shown(item.path)} changed while it was read", hint="it is taken when it has settled", transient=True
    )
