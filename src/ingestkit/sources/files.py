"""Batches of files in a drop: which there are, what they hold, and its bytes."""

import errno
import hashlib
import re
import shlex
import stat
import time
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO, cast

from ingestkit.errors import NotArrived, SourceError
from ingestkit.files import shown
from ingestkit.model import Announced, FileVersion, Item, Window
from ingestkit.settings import Model, Source
from ingestkit.sources.archives import Listing, is_archive, listed, member, stamp_of
from ingestkit.sources.arrival import LARGEST, Beside, Checked, algorithm_of, digest_of, said_by, unlike
from ingestkit.sources.drop import Drop, Entry, Opened, Status
from ingestkit.sources.naming import Claims, batch_of, checked_after, claimants, claims_of, refuse_alike, time_of
from ingestkit.sources.reading import GONE, changed, mtime_of, refuse_changed
from ingestkit.sources.releasing import Release, is_released
from ingestkit.sources.totals import LARGEST as LARGEST_REPORT
from ingestkit.sources.totals import announced, counts_in, full_in, read, reports_on

# A pattern without any of these cannot match a slash, so only folders at the top can be batches.
MAY_NEST = re.compile(r"[/.\[]|\\[^dws]")


@dataclass(frozen=True, slots=True)
class Walk:
    """What the last walk through the drop found, good while no folder it went through has changed."""

    batches: Mapping[str, tuple[str, ...]]
    """By key: the folders, or with `batches.files` the files, of each batch."""
    times: tuple[tuple[datetime, str], ...]
    """Of a pipeline of windows instead: folders or files in the order of their times."""
    strays: tuple[str, ...]
    beside: tuple[str, ...]
    """Where files are batches: those of no batch that speak of one."""
    stamps: Mapping[str, int]
    began: float

    def within(self, window: Window) -> tuple[str, ...]:
        first, behind = (bisect_left(self.times, (at, "")) for at in (window.start, window.end))
        return tuple(path for _, path in self.times[first:behind])


@dataclass(slots=True)
class FilesSource:
    """Not frozen: it keeps its last walk and what archives listed, so that asking again does not read them again."""

    drop: Drop
    settings: Source
    models: Mapping[str, Model]
    now: Callable[[], float] = time.time
    _walk: Walk | None = None
    _listings: dict[str, Listing] = field(default_factory=dict)
    _moved_to: str | None = None
    """Where files that are done with are moved, if within the drop."""

    def check(self) -> None:
        self._entries("")

    def batches(self, after: str | None) -> Iterator[str]:
        batches = self.settings.batches
        floor = checked_after(batches, after) if after is not None else None
        self._walk = self._walked()
        ordered = sorted((batches.order(key), key) for key in self._walk.batches)
        return (key for order, key in ordered if floor is None or order > floor)

    def strays(self) -> Sequence[str]:
        if self._walk is None:
            self._walk = self._walked()
        return self._walk.strays

    def items(self, batch: str, window: Window | None = None) -> Iterator[Item]:
        claims = claims_of(self.models)
        there, beside = self._there(batch, window)
        found = [
            item
            for place, path, entry in there
            for item in self._awaited(self._items(batch, path, entry, claims, beside), path, place, beside)
        ]
        found.sort(key=lambda item: item.path)
        for one, following in pairwise(found):
            if one.path == following.path:
                raise SourceError(
                    f"{shown(one.path)} is both a file and a member of an archive", hint="rename the file"
                )
        return iter(found)

    def announced(self, batch: str, window: Window | None = None) -> Iterator[Announced]:
        totals = self.settings.totals
        if totals is None:
            return
        claims = claims_of(self.models)
        there, beside = self._there(batch, window)
        reports: dict[str, str] = {}
        for place, path, entry in there:
            # An archive is listed with its items. On what is of no model nobody waits for a report.
            here = list(self._items(batch, path, entry, claims, beside))
            if is_archive(path) or any(item.models for item in here):
                reports |= self._reports_on(path, place, beside)
        for report, of in sorted(reports.items()):
            content, kind = self._report(report, of, beside)
            document = read(report, content, kind)
            counts, full = (
                counts_in(report, document, totals.counts, kind),
                full_in(report, document, totals.full, kind),
            )
            yield announced(report, of, counts, claims, full=full)

    def _there(self, batch: str, window: Window | None) -> tuple[list[tuple[str, str, Entry]], Beside]:
        """The files of a batch that are content, each with its place, and what speaks of them."""
        if self._walk is None or not self._is_fresh(self._walk):
            self._walk = self._walked()
        places = self._walk.batches.get(batch) if window is None else self._walk.within(window)
        if places is None:
            again = f"ingestkit backfill --batch {shlex.quote(shown(batch))} --from-lake"
            raise SourceError(
                f"{self.drop.named('')} holds no batch {shown(batch)}",
                hint=f"what has landed of it can be loaded: {again}",
            )
        there = [(place, path, entry) for place in places for path, entry in self._files_of(place)]
        beside = Beside(self.settings, {path for _, path, _ in there} | set(self._walk.beside))
        return [one for one in there if not beside.speaks_of_others(one[1])], beside

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        path = item.archive or item.path
        checked = None
        with self.drop.reading(self._inside(path)) as opened:
            before = opened.status()
            size = item.size if item.archive is None else before.st_size
            refuse_changed(item, before, size)
            try:
                stream = opened.stream if item.archive is None else self._member(item, item.archive, opened, before)
                if item.checksum is not None:
                    checked = Checked(stream, algorithm_of(item.checksum))
                    stream = cast("BinaryIO", checked)
                yield stream
            except SourceError:
                # What was overwritten meanwhile only looks damaged.
                self._refuse_changed(item, opened, size)
                raise
            self._refuse_changed(item, opened, size)
        if checked is not None and item.checksum is not None and (digest := checked.digest(item.size)) is not None:
            self._compare(item.path, item.checksum, digest, item.archive)

    def release(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        assert self.settings.after_success is not None
        return Release(self.drop, self.settings, self.settings.after_success).released(done, others)

    def _compare(self, path: str, checksum: str, digest: str, archive: str | None = None) -> None:
        """Refuse bytes that do not add up to what the file beside theirs says, be that a member of their archive."""
        if archive is not None:
            content = self._within(archive, checksum.removeprefix(f"{archive}!"), LARGEST)
        else:
            with self.drop.reading(self._inside(checksum)) as opened:
                content = opened.stream.read(LARGEST)
        if said_by(checksum, content, path.removeprefix(f"{archive}!")) != digest:
            raise unlike(path, checksum)

    def _within(self, archive: str, name: str, most: int) -> bytes:
        """The beginning of a member."""
        with self.drop.reading(self._inside(archive)) as opened:
            info = self._members(archive, opened.status(), opened.stream).get(name)
            if info is None:
                raise changed(f"{archive}!{name}")
            return member(f"{archive}!{name}", opened.stream, info).read(most)

    def _awaited(self, items: Iterator[Item], path: str, place: str, beside: Beside) -> list[Item]:
        """The items a file is, or holds: not ready while something that speaks of it has not come."""
        here = list(items)
        waits_for, waiting = beside.waits_for(path, self._folder(place)), here
        if waits_for is None and beside.report is not None and not self._reports_on(path, place, beside):
            report = beside.report_of(path, self._folder(place)) or f"{path}!{beside.report}"
            # What is of no model is kept without it.
            waits_for, waiting = f"its report {shown(report)} has not come", [item for item in here if item.models]
        if waits_for is None:
            return here
        late = {item.path for item in waiting if item.ready}
        return [replace(item, ready=False, waits_for=waits_for) if item.path in late else item for item in here]

    def _folder(self, place: str) -> str:
        """The folder of a batch."""
        return place.rpartition("/")[0] if self.settings.batches.files else place

    def _reports_on(self, path: str, place: str, beside: Beside) -> dict[str, str]:
        listing = self._listings.get(path)
        return reports_on(path, self._folder(place), beside, listing.members if listing is not None else ())

    def _report(self, report: str, of: str, beside: Beside) -> tuple[bytes, type[SourceError]]:
        """The bytes of a report, and what it means when they are none: one that is young may be written still."""
        if (name := report.removeprefix(f"{of}!")) != report:
            return self._within(of, name, LARGEST_REPORT + 1), SourceError
        with self.drop.reading(self._inside(report)) as opened:
            kind = self._unless_whole(opened.status())
            content = opened.stream.read(LARGEST_REPORT + 1)
        if (checksum := beside.checksum_of(report)) is not None:
            self._compare(report, checksum, hashlib.new(algorithm_of(checksum), content).hexdigest())
        return content, kind

    def _unless_whole(self, status: Status) -> type[SourceError]:
        """What is said of a file that is not as it should be: while it is young it may become so."""
        young = abs(self.now() - status.st_mtime) < self.settings.settle.quiet.total_seconds()
        return NotArrived if young else SourceError

    def _refuse_changed(self, item: Item, opened: Opened, size: int) -> None:
        try:
            now = self.drop.stat(item.archive or item.path)
        except OSError as error:
            raise changed(item.path) from error
        refuse_changed(item, opened.status(), size)
        refuse_changed(item, now, size)

    def _member(self, item: Item, archive: str, opened: Opened, status: Status) -> BinaryIO:
        info = self._members(archive, status, opened.stream).get(item.path.removeprefix(f"{archive}!"))
        if info is None or info.file_size != item.size:
            raise changed(item.path)
        return member(item.path, opened.stream, info)

    def _walked(self) -> Walk:
        began = self.now()
        self._moved_to = self._folder_of_moved()
        stamps: dict[str, int] = {}
        batches: dict[str, list[str]] = {}
        times: list[tuple[datetime, str]] = []
        strays: list[str] = []
        found = self._files("", stamps) if self.settings.batches.files else self._folders(stamps, strays)
        pattern = re.compile(self.settings.batches.files or self.settings.batches.folders or "")
        for path, _ in found:
            if self.settings.batches.window is not None:
                at = time_of(self.settings.batches, pattern, path)
                times += [] if at is None else [(at, path)]
                strays += [path] if at is None else []
                continue
            key = batch_of(self.settings.batches, pattern, path)
            if key is not None:
                batches.setdefault(key, []).append(path)
            else:
                strays.append(path)
        refuse_alike(self.settings.batches, pattern, batches)
        keyed = {key: tuple(paths) for key, paths in batches.items()}
        speaks = Beside(self.settings, ()).speaks_of_others
        beside = tuple(path for path in strays if self.settings.batches.files and speaks(path))
        strays = sorted(set(strays).difference(beside))
        return Walk(keyed, tuple(sorted(times)), tuple(strays), beside, stamps, began)

    def _folder_of_moved(self) -> str | None:
        after = self.settings.after_success
        folder = after.move if after is not None else None
        if folder is None or not folder.startswith("/"):
            return folder
        try:
            root, real = self.drop.real(""), self.drop.real(folder)
        except OSError:
            # A folder that is not there yet, and above it nothing either.
            root, real = self.drop.real(""), PurePosixPath(folder)
        return str(real.relative_to(root)) if real.is_relative_to(root) else None

    def _is_fresh(self, walk: Walk) -> bool:
        oldest = (walk.began - self.drop.step) * 1e9
        try:
            return all(
                stamp < oldest and self.drop.stat(folder).st_mtime_ns == stamp for folder, stamp in walk.stamps.items()
            )
        except OSError:
            return False

    def _folders(self, stamps: dict[str, int], strays: list[str]) -> Iterator[tuple[str, Entry]]:
        """Folders that may be batches; those that are one are not looked into. What leads to none is a stray."""
        text = self.settings.batches.folders or ""
        pattern, may_nest = re.compile(text), MAY_NEST.search(text) is not None
        # The folder of what was moved is in no listing; those that lead to it are no strays, and what lies in them is.
        waiting, leading, others = [""], {"", *(_above(self._moved_to) if self._moved_to else ())}, []
        while waiting:
            folder = waiting.pop()
            for path, entry in self._entries(folder, stamps):
                if pattern.fullmatch(path) and self._is_folder(path, entry):
                    leading.update(_above(path))
                    yield path, entry
                    continue
                others.append(path)
                if may_nest and not entry.is_symlink() and self._is_folder(path, entry):
                    waiting.append(path)
        strays += [path for path in others if path not in leading and _above(path)[0] in leading]

    def _files_of(self, place: str) -> Iterator[tuple[str, Entry]]:
        if self.settings.batches.files:
            yield place, self.drop.entry(place)
            return
        # The walk follows no link on its way to a batch, so only the folder itself can lead elsewhere.
        if self._is_link(place):
            self._inside(place)
        yield from self._files(place)

    def _files(self, top: str, stamps: dict[str, int] | None = None) -> Iterator[tuple[str, Entry]]:
        """Everything below a folder that is no folder, in no order; links are followed within the drop."""
        waiting: list[tuple[str, tuple[PurePath, ...]]] = [(top, ())]
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
                            f"{self.drop.named(path)} is a link that leads back to itself",
                            hint="remove the link, or let source.ignore match its name",
                        )
                    waiting.append((path, (*followed, target)))

    def _entries(self, folder: str, stamps: dict[str, int] | None = None) -> list[tuple[str, Entry]]:
        """What a folder holds, without what is ignored."""
        ignored = [re.compile(one).fullmatch for one in self.settings.ignore]
        try:
            if stamps is not None:
                stamps[folder] = self.drop.stat(folder).st_mtime_ns
            there = self.drop.entries(folder)
        except OSError as error:
            if not folder:
                raise self._unusable(error) from error
            raise self._failed(error, folder, gone="vanished while it was listed", transient=True) from error
        before = f"{folder}/" if folder else ""
        entries = [
            entry
            for entry in there
            if not any(matches(entry.name) for matches in ignored)
            and not is_released(self.settings.after_success, self._moved_to, before + entry.name)
        ]
        for entry in entries:
            self._check_name(before, entry.name)
        return [(before + entry.name, entry) for entry in entries]

    def _is_folder(self, path: str, entry: Entry) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            raise self._failed(error, path) from error

    def _items(self, batch: str, path: str, entry: Entry, claims: Claims, beside: Beside) -> Iterator[Item]:
        """The item a file is, or those its members are; none when the file went away while it was listed."""
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
                    return
                raise self._failed(error, path) from error
            status = entry.stat(follow_symlinks=False)
            waits_for = "it is a link to nothing"
        if waits_for is None and is_archive(path):
            yield from self._items_within(batch, path, status, claims, beside)
            return
        yield Item(
            batch=batch,
            path=path,
            size=status.st_size if waits_for is None else 0,
            mtime=mtime_of(status, path),
            models=claimants(claims, path, path),
            ready=waits_for is None,
            waits_for=waits_for,
            checksum=beside.checksum_of(path),
        )

    def _items_within(
        self,
        batch: str,
        archive: str,
        status: Status,
        claims: Claims,
        beside: Beside,
    ) -> Iterator[Item]:
        """The members of an archive, of its time, but those whose name, or that of a folder of theirs, is ignored."""
        kept, checksum = self._listings.get(archive), beside.checksum_of(archive)
        if kept is not None and kept.stamp == stamp_of(status):
            members = kept.members
        else:
            with self.drop.reading(self._inside(archive)) as opened:
                status = opened.status()
                if checksum is not None:
                    self._compare(archive, checksum, digest_of(opened.stream, algorithm_of(checksum)))
                members = self._members(archive, status, opened.stream)
        ignored = [re.compile(one).fullmatch for one in self.settings.ignore]
        taken = [
            (name, info)
            for name, info in members.items()
            if not any(matches(part) for part in name.split("/") for matches in ignored)
            and not beside.speaks_of_members(archive, name)
        ]
        for name, info in taken:
            path = f"{archive}!{name}"
            models = claimants(claims, path, name)
            if not models and len(taken) == 1:
                models = claimants(claims, archive, archive)
            mtime = mtime_of(status, archive)
            own = beside.checksum_within(name, members)
            own = f"{archive}!{own}" if own is not None else None
            yield Item(batch, path, info.file_size, mtime, models, archive=archive, checksum=own)

    def _members(self, archive: str, status: Status, file: BinaryIO) -> Mapping[str, zipfile.ZipInfo]:
        """What an opened archive lists; its list is read when the archive is not as it was read last."""
        kept = self._listings.get(archive)
        if kept is None or kept.stamp != stamp_of(status):
            limits, unless_whole = self.settings.archives, self._unless_whole(status)
            kept = Listing(stamp_of(status), listed(archive, file, status.st_size, limits, unless_whole))
            self._listings[archive] = kept
        return kept.members

    def _inside(self, path: str) -> PurePath:
        """Where a path of the drop really is; a link must not lead out of the drop."""
        try:
            root, real = self.drop.real(""), self.drop.real(path)
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno != errno.ELOOP:
                raise self._failed(error, path) from error
            raise SourceError(f"{self.drop.named(path)} is a link that leads back to itself") from error
        if not real.is_relative_to(root):
            raise SourceError(
                f"{self.drop.named(path)} leads out of the drop, to {shown(str(real))}; nothing outside of it is read",
                hint="put a copy in its place, or let source.ignore match its name",
            )
        return real

    def _is_link(self, path: str) -> bool:
        try:
            return self.drop.entry(path).is_symlink()
        except OSError as error:
            raise self._failed(error, path, gone="vanished while it was listed", transient=True) from error

    def _failed(self, error: OSError, path: str, *, gone: str = GONE, transient: bool = False) -> SourceError:
        return self.drop.failed(error, path, gone=gone, transient=transient)

    def _unusable(self, error: OSError) -> SourceError:
        return self.drop.absent(self.settings.connection) if error.errno == errno.ENOENT else self._failed(error, "")

    def _check_name(self, before: str, name: str) -> None:
        """The ledger keeps names as text, so a name that is none cannot be accounted for."""
        try:
            if not name.isascii():
                name.encode()
        except UnicodeEncodeError:
            raise SourceError(
                f"the name of {self.drop.named(before + name)} is not UTF-8",
                hint="rename it at the source, or let source.ignore match it",
            ) from None


def _above(path: str) -> list[str]:
    """The folders that a path lies in, the nearest first."""
    return [str(one) if one.name else "" for one in PurePosixPath(path).parents]
