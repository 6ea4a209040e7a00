"""The pending queue: state writes that could not be made after their effect was done, one line of JSON each."""

import errno
import fcntl
import io
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ingestkit import steps
from ingestkit.errors import StateError
from ingestkit.files import make_folder, replace_whole, sync_folder
from ingestkit.model import Json

VERSION = 1
BLOCK = 1 << 16
APPENDING = os.O_RDWR | os.O_CREAT | os.O_APPEND
PATIENCE = 30.0
"""Seconds to wait for another process at the queue; it is in it for moments, unless it is frozen there."""


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """A whole row, to be written where the stored one is older by (token, sequence)."""

    pipeline: str
    model: str
    kind: str
    key: tuple[Any, ...]
    token: int
    sequence: int
    row: Json

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "model": self.model,
            "kind": self.kind,
            "key": list(self.key),
            "token": self.token,
            "sequence": self.sequence,
            "row": dict(self.row),
        }

    @classmethod
    def from_json(cls, body: Json) -> Self:
        return cls(**{**body, "key": tuple(body["key"])})


@dataclass(frozen=True, slots=True)
class PendingQueue:
    """A file of pending records. A file that is not there is an empty queue."""

    path: Path

    @property
    def bad(self) -> Path:
        """Where lines nobody can read are kept for a person."""
        return self.path.with_name(f"{self.path.name}.bad")

    def append(self, record: PendingRecord) -> None:
        """Add a record; on returning it is durable."""
        line = framed(record)
        with _failing(self.path, "written to"):
            make_folder(self.path.parent)
            with _locked(self.path, fcntl.LOCK_EX, APPENDING) as handle:
                size = os.fstat(handle).st_size
                whole = _without_torn_tail(handle, size)
                # Behind a torn line this record would be lost together with it.
                if whole < size:
                    os.ftruncate(handle, whole)
                _append(handle, whole, line)
                sync_folder(self.path.parent)
        steps.reached("queue.appended")

    def records(self, pipeline: str | None = None) -> tuple[PendingRecord, ...]:
        """What is pending, oldest first; lines that cannot be read are left for `replay`."""
        with self._lines(fcntl.LOCK_SH, os.O_RDONLY) as lines:
            found = [record for _, record in lines if record is not None]
        return tuple(record for record in found if pipeline in (None, record.pipeline))

    def replay(self, pipeline: str, models: Collection[str], apply: Callable[[PendingRecord], bool]) -> int:
        """Hand the records of these models to `apply`, oldest first, and keep those it does not answer True to.

        Records of others stay. When `apply` raises, what was applied before is taken out and the error goes on.
        A line that cannot be read is moved to `bad`, which `damaged` counts. Returns how many were applied.
        """
        done: set[int] = set()
        with self._lines(fcntl.LOCK_EX, os.O_RDWR) as lines:
            try:
                for number, (_, record) in enumerate(lines):
                    if record is None or record.pipeline != pipeline or record.model not in models:
                        continue
                    if apply(record):
                        done.add(number)
            finally:
                steps.reached("queue.applied")
                with _failing(self.path, "replayed"):
                    self._take_out(lines, done)
        return len(done)

    def damaged(self) -> int:
        """How many lines lie in `bad`, until a person has looked at them and removed it."""
        with _failing(self.bad, "read"):
            return self.bad.read_bytes().count(b"\n") if self.bad.exists() else 0

    @contextmanager
    def _lines(self, kind: int, flags: int) -> Iterator["list[Line]"]:
        """The lines of the queue, locked; none when there is no file, which is then not locked either."""
        with ExitStack() as stack:
            lines: list[Line] = []
            with _failing(self.path, "read"), suppress(FileNotFoundError):
                handle = stack.enter_context(_locked(self.path, kind, flags))
                lines = _parsed(self.path, _content(handle))
            yield lines

    def _take_out(self, lines: "list[Line]", done: set[int]) -> None:
        garbled = b"".join(line for line, record in lines if record is None)
        if garbled:
            # First there, then gone here: a kill in between leaves it twice, not never.
            with _locked(self.bad, fcntl.LOCK_EX, APPENDING) as handle:
                _append(handle, os.fstat(handle).st_size, garbled)
                sync_folder(self.path.parent)
        left = [line for number, (line, record) in enumerate(lines) if record is not None and number not in done]
        if len(left) == len(lines):
            return
        if left:
            replace_whole(self.path, b"".join(left))
        else:
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)


Line = tuple[bytes, PendingRecord | None]
"""A line as it stands in the file, and what it says if it can be read."""


def framed(record: PendingRecord) -> bytes:
    body = _canonical(record.to_json())
    return b'{"v":%d,"crc":"%08x","body":%s}\n' % (VERSION, zlib.crc32(body), body)


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _intact(line: bytes) -> Json | None:
    """The line's frame when it is whole and its checksum holds."""
    try:
        frame = json.loads(line)
        whole = line.endswith(b"\n") and frame["crc"] == f"{zlib.crc32(_canonical(frame['body'])):08x}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return frame if whole else None


def _parsed(path: Path, content: bytes) -> list[Line]:
    """All lines but a torn last one, which was never acknowledged to anybody."""
    lines: list[Line] = []
    for line in io.BytesIO(content):
        frame = _intact(line)
        if frame is not None and frame["v"] != VERSION:
            raise StateError(
                f"the pending queue {path} was written by a newer ingestkit", hint="upgrade ingestkit here"
            )
        lines.append((line, None if frame is None else PendingRecord.from_json(frame["body"])))
    return lines[:-1] if lines and lines[-1][1] is None else lines


def _content(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    content = b""
    while len(content) < size and (block := os.pread(handle, size - len(content), len(content))):
        content += block
    return content


def _without_torn_tail(handle: int, size: int) -> int:
    """How long the file is without a last line that was not written whole."""
    begin, tail = size, b""
    while begin and b"\n" not in tail[:-1]:
        step = min(BLOCK, begin)
        begin -= step
        tail = os.pread(handle, step, begin) + tail
    last = tail[tail[:-1].rfind(b"\n") + 1 :]
    return size if not last or _intact(last) is not None else size - len(last)


def _append(handle: int, size: int, content: bytes) -> None:
    """Write behind `size` in one piece and make it durable, or leave the file as it was."""
    try:
        if os.write(handle, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError:
        # If this fails too, the next append finds a torn tail and cuts it off.
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


@contextmanager
def _locked(path: Path, kind: int, flags: int) -> Iterator[int]:
    until = time.monotonic() + PATIENCE
    while True:
        handle = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            if _lock(handle, kind) and _is_at(handle, path):
                yield handle
                return
        finally:
            os.close(handle)
        if time.monotonic() > until:
            raise StateError(f"{path} is locked by another process", hint=f"see who: lsof {path}", transient=True)
        threading.Event().wait(0.02)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the locked file is still the one of that name: a replay may have replaced or removed it meanwhile."""
    locked = os.fstat(handle)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (locked.st_dev, locked.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def _failing(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"the pending queue {path} cannot be {verb}: {error.strerror}",
            hint="look at space and rights of its folder, then run again",
        ) from error
