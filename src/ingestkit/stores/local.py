"""A lake in a folder of this machine."""

import errno
import hashlib
import io
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ingestkit import steps
from ingestkit.errors import LakeError, ObjectExists
from ingestkit.files import make_folder, shown, sync_folder
from ingestkit.ports import Stored
from ingestkit.stores import names

ROOM = 2
"""What comes is kept as it came and as what was valid of it."""
FORGOTTEN = 3600
"""Seconds after which a probe is taken for one of a process that was killed."""

# How often a folder may be pruned by somebody else between making it and linking into it.
TRIES = 10

PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class LocalStore:
    root: Path

    def check(self) -> None:
        probe = self.root / names.INFLIGHT / "_check" / secrets.token_hex(6)
        with self._translated("checking it"):
            make_folder(probe.parent)
            try:
                with probe.open("xb") as file:
                    file.write(b"ingestkit")
                    file.flush()
                    os.fsync(file.fileno())
                self._link(probe, probe.with_suffix(".linked"))
                _remove_older(probe)
            finally:
                probe.with_suffix(".linked").unlink(missing_ok=True)
                probe.unlink(missing_ok=True)

    def expect(self, incoming: int) -> None:
        with self._translated("asking for its space"):
            free = shutil.disk_usage(self.root).free
        if free < ROOM * incoming:
            raise LakeError(
                f"lake {shown(self.root)} has {free:,} bytes left, and fetching {incoming:,} takes about {ROOM} times "
                "as many",
                hint="free space there, then run again",
            )

    @contextmanager
    def write(self, inflight: str) -> Iterator[BinaryIO]:
        path = self._inflight(inflight)
        doing = f"writing {shown(inflight)}"
        with self._translated(doing):
            raw = _new_file(path)
        raw.store, raw.doing = self, doing
        whole = False
        try:
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
            with self._translated(doing):
                os.fsync(raw.fileno())
            whole = True
        finally:
            # The raw file is closed, not the buffer: closing that would write what is left of a failed one.
            raw.close()
            if not whole:
                self._drop(path)

    def publish(self, inflight: str, name: str, sha256: str) -> None:  # noqa: ARG002 - it is read where it is asked for
        source, target = self._inflight(inflight), self._published(name)
        with self._translated(f"publishing {shown(name)}"):
            taken = not self._linked_into_place(source, target)
            steps.reached("store.linked")
            # Also where the name is taken: whoever took it may have died before it was durable.
            sync_folder(target.parent)
            self._drop(source)
        if taken:
            raise ObjectExists(f"{shown(name)} is in lake {shown(self.root)} already")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        path = self._published(name)
        doing = f"reading {shown(name)}"
        with self._translated(doing):
            try:
                raw = ReadFile(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._missing(name) from None
        raw.store, raw.doing = self, doing
        with io.BufferedReader(raw) as file:
            yield file

    def stat(self, name: str) -> Stored | None:
        path = self._published(name)
        with self._translated(f"looking at {shown(name)}"):
            try:
                if not path.is_file():
                    return None
                return _stored(name, path.stat())
            except FileNotFoundError:
                return None

    def sha256(self, name: str) -> str:
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def path(self, name: str) -> Path:
        if self.stat(name) is None:
            raise self._missing(name)
        return self._published(name)

    def list(self, prefix: str) -> Iterator[Stored]:
        top = prefix.rstrip("/")
        if top:
            self._published(top)
        with self._translated(f"listing {shown(top) or 'it'}"):
            yield from self._list(top)

    def inflight(self, prefix: str) -> Iterator[str]:
        top = prefix.rstrip("/")
        names.checked(top)
        with self._translated(f"listing {shown(top)}"):
            yield from self._leaves(top)

    def remove(self, name: str) -> None:
        path = self.root / names.checked(name)
        with self._translated(f"removing {shown(name)}"):
            self._drop(path)

    at_once = 1

    @property
    def keeps_names(self) -> bool:
        return True

    def let_go(self) -> None:
        """What is here is at hand."""

    def _linked_into_place(self, source: Path, target: Path) -> bool:
        """False when the name is taken by another object."""
        for _ in range(TRIES):
            try:
                make_folder(target.parent)
            except FileNotFoundError:
                continue
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", error.filename) from error
            try:
                self._link(source, target)
            except FileExistsError:
                # A network file system may have linked it and lost its own answer.
                return source.exists() and source.samefile(target)
            except FileNotFoundError:
                if not os.path.lexists(source):
                    raise LakeError(
                        f"what was written for {shown(target)} is gone from {shown(source.parent)}: "
                        "another owner has taken this work over, and nothing was published",
                        hint="see who works on it: ingestkit runs list",
                    ) from None
            else:
                return True
        raise LakeError(
            f"{shown(target.parent)} is removed again and again while {shown(target)} is published",
            hint="see what else removes folders of the lake; then run again",
        )

    def _link(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise LakeError(
                f"lake {shown(self.root)} is on a file system that cannot link ({error.strerror}), "
                "so nothing can be published there in one step",
                hint="put the lake on a local file system such as ext4, xfs or apfs",
            ) from error

    def _drop(self, path: Path) -> None:
        """Remove a file, or the empty folder an owner died over, and the folders it leaves empty."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        for folder in path.parents:
            if folder in (self.root, self.root / names.INFLIGHT) or not _removed_empty(folder):
                return

    def _list(self, folder: str) -> Iterator[Stored]:
        entries = [entry for entry in self._entries(folder) if folder or entry.name != names.INFLIGHT]
        # A folder stands among its neighbours by the names below it, which go on with a slash.
        for entry in sorted(entries, key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False)):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._list(name)
                continue
            with suppress(FileNotFoundError):
                yield _stored(name, entry.stat())

    def _leaves(self, folder: str) -> Iterator[str]:
        """In-flight files, and folders of files that were not begun or are gone."""
        for entry in sorted(self._entries(folder), key=lambda entry: entry.name):
            name = f"{folder}/{entry.name}"
            below = list(self._leaves(name)) if entry.is_dir(follow_symlinks=False) else []
            yield from below or [name]

    def _entries(self, folder: str) -> tuple[os.DirEntry[str], ...]:
        try:
            with os.scandir(self.root / folder) as scan:
                return tuple(scan)
        except FileNotFoundError:
            return ()
        except NotADirectoryError:
            # An object where a folder might be has nothing below it; a lake that is none holds who knows what.
            if self.root.is_file():
                raise
            return ()

    def _inflight(self, name: str) -> Path:
        return self.root / names.inflight(name)

    def _published(self, name: str) -> Path:
        return self.root / names.published(name)

    def _missing(self, name: str) -> LakeError:
        return LakeError(f"lake {shown(self.root)} holds no {shown(name)}")

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.failed(error, doing) from error

    def failed(self, error: OSError, doing: str) -> LakeError:
        lake = shown(self.root)
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return LakeError(
                    f"no space left in lake {lake} while {doing}",
                    hint=f"make room, then run again; what is there: df -h {shlex.quote(lake)}",
                )
            case errno.EACCES | errno.EPERM:
                where = shown(error.filename or self.root)
                return LakeError(
                    f"no permission in lake {lake} while {doing}",
                    hint=f"look at the rights: ls -ld {shlex.quote(where)}",
                )
            case errno.EROFS:
                return LakeError(f"lake {lake} is read-only, seen while {doing}", hint="mount it for writing")
            case errno.ENOTDIR | errno.EEXIST if error.filename:
                where = shown(error.filename)
                return LakeError(
                    f"{where} is a file where lake {lake} needs a folder",
                    hint=f"look what it is, and move it away: ls -l {shlex.quote(where)}",
                )
            case _:
                return LakeError(
                    f"lake {lake} failed while {doing}: {error.strerror}",
                    hint=f"look at its file system, then run again: df {shlex.quote(lake)}",
                    transient=error.errno in PASSING,
                )


class WrittenFile(io.FileIO):
    """An in-flight file; what fails while writing it is the lake's failure, whoever writes."""

    store: LocalStore
    doing: str

    def write(self, block: Any) -> int:
        try:
            return super().write(block)
        except OSError as error:
            raise self.store.failed(error, self.doing) from error


class ReadFile(io.FileIO):
    """An object that is read; what fails is the lake's failure, whoever reads."""

    store: LocalStore
    doing: str

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise self.store.failed(error, self.doing) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise self.store.failed(error, self.doing) from error


def _remove_older(probe: Path) -> None:
    """Remove the probes that killed processes left beside this one; the file system's own clock tells which."""
    now = probe.stat().st_mtime
    for path in probe.parent.iterdir():
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > FORGOTTEN:
                path.unlink()


def _new_file(path: Path) -> WrittenFile:
    for _ in range(TRIES):
        # Where it finds the folder pruned again, mkdir takes what it had found for a file.
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return WrittenFile(path, "xb")
    path.parent.mkdir(parents=True, exist_ok=True)
    return WrittenFile(path, "xb")


def _stored(name: str, status: os.stat_result) -> Stored:
    return Stored(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _removed_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY}:
            raise
        return False
    return True
