"""Direct Data of a Vault: which archives there are, in the order of their windows, and their parts as one file."""

import hashlib
import io
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from ingestkit import steps
from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.model import Announced, FileVersion, Item, Window
from ingestkit.pipeline import Clock, Progress
from ingestkit.settings import MANY, duration_text
from ingestkit.settings import Source as Settings
from ingestkit.sources.vault_client import BLOCK, Vault, VaultFailure

KINDS = {"full_directdata": "F", "incremental_directdata": "N", "log_directdata": "L"}
TYPES = {letter: kind for kind, letter in KINDS.items()}
FILES = "services/directdata/files"
BEGINNING = "2000-01-01T00:00Z"
"""Where the window of every full archive begins; one that is asked for from later on is in no list."""
KEY = re.compile(r"(\d{8}-\d{4})-([FNL])")
SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
INITIAL = "initial file being generated"
"""What Vault says before its first full archive is there; it gives no type for it that is documented."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size: int
    md5: str | None


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive as the list tells of it, or what stands there in its place."""

    kind: str
    start: datetime
    stop: datetime
    name: str
    records: int = 0
    size: int = 0
    parts: tuple[Part, ...] = ()
    waits: str | None = None

    @property
    def key(self) -> str:
        return f"{self.stop:%Y%m%d-%H%M}-{self.kind}"


@dataclass(slots=True)
class VaultArchives:
    """A source of archives: each is a batch, and its window begins where that of the one before ended."""

    vault: Vault
    settings: Settings
    pipeline: str
    clock: Clock
    progress: Progress
    folder: Path
    """Where its parts are until all of an archive have come; it outlives commands."""
    listed: dict[str, Archive] = field(default_factory=dict)
    """What the last listing showed, by batch."""

    def check(self) -> None:
        """Prove that the login is taken, and that Direct Data may be asked for."""
        self.vault.check()
        now = self.clock.now()
        self._list("L" if self.settings.extract == "log" else "N", now, now)

    def batches(self, after: str | None) -> Iterator[str]:
        """The archives that come next: of incrementals the newest full one first, where nothing was done yet."""
        found = self._logs(after) if self.settings.extract == "log" else self._incrementals(after)
        self.listed = {one.key: one for one in found}
        yield from self.listed

    def strays(self) -> Sequence[str]:
        """A Vault lists nothing else."""
        return ()

    def items(self, batch: str, window: Window | None = None) -> Iterator[Item]:
        """The archive; none where nothing has changed, and one that cannot be read yet where it is not there."""
        del window
        archive = self.listed.get(batch) or self._listed_as(batch)
        if archive is None or (archive.waits is None and not archive.records):
            return
        yield Item(
            batch,
            f"{archive.name}.tar.gz",
            archive.size,
            archive.stop,
            (MANY,),
            ready=archive.waits is None,
            waits_for=archive.waits,
        )

    def open(self, item: Item) -> AbstractContextManager[BinaryIO]:
        """All parts, fetched one after another and proven each, as one file."""
        archive = self.listed.get(item.batch)
        if archive is None or archive.waits is not None:
            raise SourceError(f"{shown(item.path)} is in the list of Vault no more", hint="ingestkit plan says what is")
        return self._fetched(archive)

    def announced(self, batch: str, window: Window | None = None) -> Iterator[Announced]:
        """Archives say themselves what is in them."""
        del batch, window
        yield from ()

    def release(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        """A Vault keeps its archives as long as it does."""
        del done, others
        yield from ()

    # --- which there are --------------------------------------------------------------------------------------------

    def _incrementals(self, after: str | None) -> list[Archive]:
        now = self.clock.now()
        begun = self._begun(after)
        if begun is not None:
            found = self._list("N", begun, now)
            return self._chain(self._first(after, begun, found), found, now)
        fulls = [one for one in self._list("F", None, now) if one.waits is None]
        if not fulls:
            return []
        newest = max(fulls, key=lambda one: (one.stop, one.name))
        return [newest, *self._chain(newest.stop, self._list("N", newest.stop, now), now)]

    def _logs(self, after: str | None) -> list[Archive]:
        now = self.clock.now()
        begun = self._begun(after)
        found = self._list("L", begun, now)
        if not found:
            return []
        return self._chain(self._first(after, begun or found[0].start, found), found, now)

    def _first(self, after: str | None, begun: datetime, found: Sequence[Archive]) -> datetime:
        """Where the first window begins: a look back reaches no further than what is there."""
        if after is not None or self.settings.start is not None or not found or found[0].waits is not None:
            return begun
        return max(begun, found[0].start)

    def _begun(self, after: str | None) -> datetime | None:
        """Where the next window begins: behind the last archive, or where the pipeline is to begin."""
        if after is not None:
            match = KEY.fullmatch(after)
            if match is None:
                raise SourceError(
                    f"{shown(after)} is no batch of Direct Data, which are called 20260115-0515-N",
                    hint="ingestkit state show",
                )
            return datetime.strptime(match[1], "%Y%m%d-%H%M").replace(tzinfo=UTC)
        if self.settings.start is not None:
            return self.settings.start
        if self.settings.look_back is not None:
            now = self.clock.now() - self.settings.look_back
            return now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
        return None

    def _chain(self, begun: datetime, found: Sequence[Archive], now: datetime) -> list[Archive]:
        """Archives whose windows follow each other; behind the first that is missing none is told."""
        chain: list[Archive] = []
        place = begun
        for archive in found:
            if archive.stop <= place:
                continue
            if archive.waits is not None:
                return [*chain, archive]
            if archive.start > place:
                return [*chain, self._missing(archive, place, now)]
            chain.append(archive)
            place = archive.stop
        kept = self.settings.listed_for
        if not chain and not found and now - begun > kept:
            raise self._expired(begun, None, kept)
        return chain

    def _missing(self, behind: Archive, place: datetime, now: datetime) -> Archive:
        kept = self.settings.listed_for
        if now - place > kept:
            raise self._expired(place, behind, kept)
        told = f"the window from {place:%Y-%m-%d %H:%M}Z to {behind.start:%H:%M}Z is not in the list of Vault yet"
        return Archive(behind.kind, place, behind.start, f"missing-{behind.start:%Y%m%d-%H%M}", waits=told)

    def _expired(self, place: datetime, behind: Archive | None, kept: timedelta) -> SourceError:
        until = f" to {behind.start:%Y-%m-%d %H:%M}Z" if behind is not None else " on"
        hint = f"to begin again with the newest full archive: ingestkit run {self.pipeline} --full-refresh"
        if behind is not None and behind.kind == "L":
            key = f"{behind.start:%Y%m%d-%H%M}-L"
            hint = f"to go on without them: ingestkit state set {self.pipeline} --batch {key} --reason '...'"
        error = SourceError(
            f"the changes from {place:%Y-%m-%d %H:%M}Z{until} are in the list of Vault no more: it keeps them for "
            f"{duration_text(kept)}",
            hint=hint,
        )
        error.incident = "missing"
        return error

    def _list(self, letter: str, start: datetime | None, stop: datetime) -> list[Archive]:
        """The archives of a type whose windows lie there, oldest first, with those that could not be made."""
        begins = BEGINNING if start is None or letter == "F" else f"{start.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        try:
            found = self.vault.asked(
                FILES, extract_type=TYPES[letter], start_time=begins, stop_time=f"{stop:%Y-%m-%dT%H:%MZ}"
            )
        except VaultFailure as error:
            if INITIAL in error.message.lower():
                self.progress.said("Vault is still making its first full archive")
                return []
            raise
        with self.vault.understood():
            archives = [one for item in found.get("data") or () if (one := archive_of(item, letter)) is not None]
        # One that could be made after all goes before what was said of it.
        return sorted(archives, key=lambda one: (one.stop, one.waits is not None, one.name))

    def _listed_as(self, batch: str) -> Archive | None:
        """The archive of a batch that was opened before, whatever would come first today."""
        match = KEY.fullmatch(batch)
        found = self._list(match[2], None, self.clock.now()) if match is not None else []
        self.listed |= {one.key: one for one in found if one.key == batch}
        return self.listed.get(batch)

    # --- fetching ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _fetched(self, archive: Archive) -> Iterator[BinaryIO]:
        """Aside, until all parts are there; one that was fetched before, and fits its checksum, is kept."""
        folder = self.folder / archive.name
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            for other in self.folder.iterdir():
                # They come one at a time: of another one, that is not wanted any more, these are parts.
                if other != folder:
                    shutil.rmtree(other)
            parts = [self._part(archive, part, folder) for part in archive.parts]
        yield io.BufferedReader(_Joined(parts), BLOCK)
        with self._writing():
            shutil.rmtree(folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"parts of archives cannot be kept in {self.folder}: {error.strerror or error}",
                hint="make room there, or set scratch in config/settings.yaml",
            ) from error

    def _part(self, archive: Archive, part: Part, folder: Path) -> Path:
        path = folder / part.name
        if part.md5 is not None and path.is_file() and _md5(path) == part.md5:
            return path
        # A name of its own: who has lost the lease may still be fetching the same.
        written = folder / f"{part.name}.{secrets.token_hex(4)}"
        digest, size = hashlib.md5(usedforsecurity=False), 0
        with self.vault.downloaded(f"{FILES}/{part.name}") as blocks, written.open("wb") as file:
            for block in blocks:
                size += len(block)
                if size > part.size:
                    break
                digest.update(block)
                file.write(block)
        if size != part.size or part.md5 not in (None, digest.hexdigest()):
            written.unlink()
            what = "other bytes than its checksum says" if size == part.size else f"{size:,} bytes or more"
            raise SourceError(
                f"{shown(part.name)} of {shown(archive.name)} came with {what}, where {part.size:,} are said",
                hint="run again later",
                transient=True,
            )
        written.replace(path)
        steps.reached("vault.part_fetched")
        return path


def archive_of(item: Mapping[str, Any], letter: str) -> Archive | None:
    """What an item of the list says; one that only tells of an error has a name and nothing else."""
    name = str(item.get("name", ""))
    match = re.fullmatch(r".*-(\d{8})-(\d{4})-([FNL])", name)
    if (error := item.get("error")) is not None:
        if match is None or match[3] != letter:
            return None
        stop = datetime.strptime(match[1] + match[2], "%Y%m%d%H%M").replace(tzinfo=UTC)
        later = str(error.get("next_retry", ""))
        told = f"Vault could not make {shown(name)}: {shown(str(error.get('message', '')))} It tries again at {later}"
        return Archive(letter, stop, stop, name, waits=told)
    if KINDS.get(str(item.get("extract_type"))) != letter:
        return None
    if not all(map(SAFE.fullmatch, (name, *(str(one["name"]) for one in item.get("filepart_details") or ())))):
        raise SourceError(f"Vault lists {shown(name)}, which is called as no archive is", hint="ask Veeva about it")
    parts = sorted(item.get("filepart_details") or (), key=lambda one: int(one["filepart"]))
    if [int(one["filepart"]) for one in parts] != list(range(1, int(item.get("fileparts") or len(parts)) + 1)):
        raise SourceError(f"Vault lists {shown(name)} without all of its parts", hint="run again later", transient=True)
    return Archive(
        letter,
        instant_of(item["start_time"]),
        instant_of(item["stop_time"]),
        name,
        int(item.get("record_count") or 0),
        sum(int(one["size"]) for one in parts),
        tuple(Part(str(one["name"]), int(one["size"]), one.get("md5checksum")) for one in parts),
    )


def instant_of(text: str) -> datetime:
    """With seconds or without."""
    return datetime.fromisoformat(text).astimezone(UTC)


class _Joined(io.RawIOBase):
    """Files as one, read from its beginning on."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._left = list(paths)
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._read(buffer)
        except OSError as error:
            told = f"a part that was fetched cannot be read: {error}"
            raise SourceError(told, hint="run again", transient=True) from error

    def _read(self, buffer: memoryview) -> int:
        while True:
            if self._file is None and not self._left:
                return 0
            if self._file is None:
                self._file = self._left.pop(0).open("rb")
            if read := self._file.readinto(buffer):  # type: ignore[attr-defined]
                return int(read)
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
