"""A lake in a service of objects: written to scratch, sent whole by one conditional request, kept at hand until let go.

What is sent is on this machine as a whole: its hash is known before, it can be sent again where the service asks for
that, and the stages that come next read it here.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any, BinaryIO, Protocol

from ingestkit import steps
from ingestkit.errors import Altered, LakeError, ObjectExists
from ingestkit.files import shown
from ingestkit.pipeline import Stop
from ingestkit.ports import Stored
from ingestkit.stores import names

RANGE = 8 * 2**20
"""How much is asked for at once where an object is copied whole."""
ROOM = 3
"""What comes is kept there as it came, as what was valid of it, and as what the load makes of that."""
SIDE_BY_SIDE = 4
"""So many ranges of an object are fetched at once."""
SENT_AT_ONCE = 8
IN_MEMORY = 64 * 2**20
"""Of all objects that are sent, so many bytes are under way at once, or one part that is larger."""
AT_ONCE = 8
BLOCK = 1 << 20
TRIES = 5
"""How often reading goes on behind a cut without a byte between two of them."""
CAREFUL = 16 * 1024
"""So much is read at once behind a cut, by a client that reads as it comes: what lay unread in a reset link is gone."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a service tells of an object: its tag stands for these bytes and no others."""

    stored: Stored
    sha256: str | None
    tag: str


class Bucket(Protocol):
    """What a service of objects does. Each call translates the service's errors; what may pass is transient."""

    @property
    def place(self) -> str:
        """The service's part that is the lake, as messages name it."""
        ...

    def check(self) -> None:
        """Prove that objects can be written, listed, read and removed, and learn what the service keeps to."""
        ...

    def keeps_names(self) -> bool:
        """Whether the service refuses a taken name by itself, at the moment of writing."""
        ...

    def put(self, inflight: str, name: str, file: Path, sha256: str) -> None:
        """Make the file an object, whole and in one step. ObjectExists when the name is taken.

        What is left in flight by whoever dies over it has the name `inflight`.
        """
        ...

    def head(self, name: str) -> Head | None: ...

    def read(self, name: str, tag: str, start: int, behind: int) -> "Body":
        """The bytes from one place up to another, of the object with that tag; LakeError where it is another by now."""
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects whose names begin so, in the order of their bytes."""
        ...

    def delete(self, name: str) -> None: ...

    def let_go(self, inflight: str) -> None:
        """Remove what is in flight under that name, so that whoever wrote it cannot publish it any more."""
        ...


class Body(Protocol):
    """An answer that is read as it comes; what goes wrong is a transient LakeError."""

    def read(self, size: int) -> bytes | memoryview:
        """Bytes, at most so many: only so many that a cut costs little of what had come; none at the end."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RemoteStore:
    bucket: Bucket
    folder: Path
    """Of this process alone: what is written, and copies of what it wrote or read."""
    stop: Stop = field(default_factory=Stop)

    def check(self) -> None:
        self.bucket.check()

    def expect(self, incoming: int) -> None:
        """Nobody counts the service's bytes; but what is written passes through scratch."""
        with self._local():
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        if free < ROOM * incoming:
            raise LakeError(
                f"the scratch folder {shown(self.folder)}, through which the lake is written, has {free:,} bytes left, "
                f"and fetching {incoming:,} takes about {ROOM} times as many",
                hint="free space there, or set scratch: to another folder",
            )

    @property
    def keeps_names(self) -> bool:
        return self.bucket.keeps_names()

    @property
    def at_once(self) -> int:
        """What most of the time goes into waiting for is waited for together."""
        return AT_ONCE

    @contextmanager
    def write(self, inflight: str) -> Iterator[BinaryIO]:
        path = self._scratch(names.inflight(inflight))
        with self._local():
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = ScratchFile(path, "xb")
        raw.store = self
        whole = False
        try:
            file = io.BufferedWriter(raw, BLOCK)
            yield file
            file.flush()
            whole = True
        finally:
            raw.close()
            if not whole:
                path.unlink(missing_ok=True)

    def publish(self, inflight: str, name: str, sha256: str) -> None:
        path = self._scratch(names.inflight(inflight))
        copy = self._copy(names.published(name))
        if not path.exists():
            raise LakeError(f"what was written for {shown(name)} is gone from {shown(path.parent)}", hint=TAKEN)
        try:
            with self._local():
                self.bucket.put(inflight, name, path, sha256)
        except ObjectExists:
            there = self.bucket.head(name)
            if there is not None and there.sha256 == sha256:
                # Ours, as it may be, where an answer was lost: what is at hand is not read back.
                self._keep(path, copy)
            path.unlink(missing_ok=True)
            raise
        except BaseException:
            # Who tries again writes it again, under another name.
            path.unlink(missing_ok=True)
            raise
        steps.reached("store.linked")
        self._keep(path, copy)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        copy = self._copy(names.published(name))
        with self._local():
            try:
                raw: io.RawIOBase = copy.open("rb", buffering=0)
            except FileNotFoundError:
                raw = RemoteObject(self.bucket, name, self._head(name))
        with io.BufferedReader(raw, BLOCK) as file:
            yield file

    def stat(self, name: str) -> Stored | None:
        head = self.bucket.head(names.published(name))
        return None if head is None else head.stored

    def sha256(self, name: str) -> str:
        names.published(name)
        told = self._head(name).sha256
        if told is not None:
            return told
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def path(self, name: str) -> Path:
        copy = self._copy(names.published(name))
        if not copy.exists():
            self._fetch(name, copy)
        return copy

    def list(self, prefix: str) -> Iterator[Stored]:
        top = prefix.rstrip("/")
        if top:
            names.published(top)
        for stored in self.bucket.list(prefix):
            # What people's tools make of folders is no object.
            if not stored.name.startswith(f"{names.INFLIGHT}/") and not stored.name.endswith("/"):
                yield stored

    def inflight(self, prefix: str) -> Iterator[str]:
        names.checked(prefix.rstrip("/"))
        return (stored.name for stored in self.bucket.list(prefix) if not stored.name.endswith("/"))

    def remove(self, name: str) -> None:
        names.checked(name)
        self._scratch(name).unlink(missing_ok=True)
        if name.startswith(f"{names.INFLIGHT}/"):
            self.bucket.let_go(name)
            return
        self._copy(name).unlink(missing_ok=True)
        self.bucket.delete(name)

    def let_go(self) -> None:
        shutil.rmtree(self.folder / "copies", ignore_errors=True)

    def close(self) -> None:
        """Leave nothing on this machine."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # Others may have something there still, or it was never made.
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _fetch(self, name: str, copy: Path) -> None:
        """Copy an object whole, some ranges of it side by side."""
        head = self._head(name)
        part = copy.with_name(f"{copy.name}.{os.urandom(6).hex()}.part")
        with self._local():
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("x+b") as file, ThreadPoolExecutor(SIDE_BY_SIDE, "fetch") as pool:

                    def fetch(start: int) -> int:
                        self.stop.check()
                        at, behind = start, min(start + RANGE, head.stored.bytes)
                        with RemoteObject(self.bucket, name, head, start, behind) as body:
                            while block := body.block(RANGE):
                                _written(file.fileno(), block, at)
                                at += len(block)
                        return at

                    digest, hashed = hashlib.sha256(), 0
                    for behind in pool.map(fetch, range(0, head.stored.bytes, RANGE)):
                        # The ranges behind it come meanwhile.
                        hashed = _hashed(file.fileno(), digest, hashed, behind)
                    if head.sha256 not in (None, digest.hexdigest()):
                        raise Altered(f"{shown(name)} came otherwise than it was written", hint=OTHERS, transient=True)
                part.replace(copy)
            finally:
                part.unlink(missing_ok=True)

    def _keep(self, path: Path, copy: Path) -> None:
        with self._local():
            copy.parent.mkdir(parents=True, exist_ok=True)
            path.replace(copy)

    def _head(self, name: str) -> Head:
        head = self.bucket.head(name)
        if head is None:
            # Of a lake that is gone itself a service says no more than this; its listing says it.
            next(iter(self.bucket.list(name)), None)
            raise gone(self.bucket.place, name)
        return head

    def _scratch(self, name: str) -> Path:
        return self.folder / name

    def _copy(self, name: str) -> Path:
        return self.folder / "copies" / name

    @contextmanager
    def _local(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.failed(error) from error

    def failed(self, error: OSError) -> LakeError:
        return LakeError(
            f"the scratch folder {shown(self.folder)}, through which the lake is written, failed: {error.strerror}",
            hint="look at its space and rights, or set scratch: to another folder",
        )


TAKEN = "see who works on it: ingestkit runs list"


AGAIN = "run again; if it stays so, tell whoever looks after the service"
OTHERS = "see who else removes or writes there, and which rules do (docs/lakes.md); then run again"


def gone(place: str, name: str) -> LakeError:
    return LakeError(f"lake {place} holds no {shown(name)}", hint=OTHERS)


def overwritten(place: str, name: str) -> LakeError:
    return LakeError(f"{shown(name)} in lake {place} was overwritten while it was read", hint=OTHERS)


def taken_over(name: str) -> LakeError:
    """The error of whoever finds that what it had in flight was removed."""
    return LakeError(
        f"what was being sent for {shown(name)} was given up: another owner has taken this work over, "
        "and nothing was published",
        hint=TAKEN,
    )


class ScratchFile(io.FileIO):
    """What is written; what fails is the lake's failure, whoever writes."""

    store: RemoteStore

    def write(self, block: Any) -> int:
        try:
            return super().write(block)
        except OSError as error:
            raise self.store.failed(error) from error


class RemoteObject(io.RawIOBase):
    """A part of an object, read as it comes; behind a cut it goes on from where it was."""

    def __init__(self, bucket: Bucket, name: str, head: Head, start: int = 0, behind: int | None = None) -> None:
        super().__init__()
        self._bucket, self._name, self._tag = bucket, name, head.tag
        self._at, self._behind = start, head.stored.bytes if behind is None else behind
        self._body: Body | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._behind}[whence] + offset
        if at != self._at:
            self._end()
            self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        block = self.block(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def block(self, size: int) -> bytes | memoryview:
        """The bytes that come next, at most so many; none at the end."""
        block = self._next(min(size, self._behind - self._at))
        self._at += len(block)
        return block

    def close(self) -> None:
        self._end()
        super().close()

    def _next(self, size: int) -> bytes | memoryview:
        if size <= 0:
            return b""
        for tries in range(1, TRIES + 1):
            if self._body is None:
                self._body = self._bucket.read(self._name, self._tag, self._at, self._behind)
            try:
                if block := self._body.read(size if tries == 1 else min(size, CAREFUL)):
                    return block
                raise LakeError(
                    f"{shown(self._name)} ended before its end", hint="run again: it is read anew", transient=True
                )
            except LakeError as error:
                self._end()
                if tries == TRIES or not error.transient:
                    raise
        raise AssertionError("unreachable")

    def _end(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def _written(file: int, block: bytes | memoryview, at: int) -> None:
    """All of it: a disk that fills up takes a part without a word."""
    while block:
        size = os.pwrite(file, block, at)
        block, at = block[size:], at + size


def _hashed(file: int, digest: Any, at: int, behind: int) -> int:
    """Go on with the digest from one place of the file to another; says where it came to."""
    while block := os.pread(file, min(BLOCK, behind - at), at):
        digest.update(block)
        at += len(block)
    return at


class Turns:
    """Whoever sends a part takes one: what is in memory does not grow with objects, and a request to stop is heard."""

    def __init__(self, stop: Stop | None = None) -> None:
        self._stop, self._free, self._turn = stop or Stop(), IN_MEMORY, Condition()

    @contextmanager
    def one(self, part: int) -> Iterator[None]:
        taken = min(part, IN_MEMORY)
        with self._turn:
            self._turn.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            self._stop.check()
            yield
        finally:
            with self._turn:
                self._free += taken
                self._turn.notify_all()


def sent_side_by_side(size: int, part: int, send: Callable[[int], Any], turns: Turns) -> list[Any]:
    """Send so many bytes in parts, some at once; the first error ends it, once those under way have ended."""

    def sent(number: int) -> Any:
        with turns.one(part):
            return send(number)

    with ThreadPoolExecutor(SENT_AT_ONCE, "send") as pool:
        futures = [pool.submit(sent, number) for number in range(1, -(-size // part) + 1)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
