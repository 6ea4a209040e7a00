"""Somebody who lists a lake while others write to it, break off or are killed: all he sees must be named and whole."""

import hashlib
import json
import os
import re
import select
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.lakes import Found, Listing, Sight

PATIENCE = 0.01
"""Seconds between two looks; a look that takes longer is followed by as long a pause."""
PART = r"[A-Za-z0-9._=-]+"
FOLDERS = rf"{PART}(?:/{PART})+"
"""What a layout makes of a batch has a folder of the model and one of the batch at least."""
FILE = r"[0-9a-f]+"
RUN = rf"{PART}\.\d+"
TABLE = r"(?:\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+\.(?:updates|deletes))?"
"""Of an archive that says its tables itself: which of them, and what of it."""
SHAPES = {
    "raw": re.compile(rf"raw/{PART}/{FOLDERS}/{FILE}-(?:\d{{12}}-)?{PART}"),
    "valid": re.compile(rf"valid/{PART}/{FOLDERS}/{RUN}/{FILE}{TABLE}\.parquet"),
    "rejects": re.compile(rf"rejects/{PART}/{FOLDERS}/{RUN}/(?:keys-)?{FILE}{TABLE}\.parquet"),
    "_runs": re.compile(rf"_runs/{PART}/{PART}/[a-z]+\.{PART}\.\d{{12}}-\d{{6}}\.json"),
    "_decisions": re.compile(rf"_decisions/{PART}/\d{{6,}}-[0-9a-f]{{8}}\.json"),
    "_staged": re.compile(rf"_staged/{PART}/{PART}/{PART}\.\d+\.[0-9a-f]{{12}}/part-\d+\.parquet"),
    "_layouts": re.compile(rf"_layouts/{PART}/[0-9a-f]{{16}}"),
}
"""By the first folder: how objects are named that readers may see."""

Known = Callable[[str], bool]
"""Whether something of that sha256 ever lay at the source."""


@dataclass(slots=True)
class Reader:
    """What was seen of a lake until now, and all that was wrong with it."""

    facts: dict[str, tuple[object, ...]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def look(self, published: Iterator[Sight], known: Known) -> None:
        """Judge what is there and was not, or was otherwise."""
        with self.turn:
            for sight in published:
                if self.facts.get(sight.name) == sight.facts:
                    continue
                shape = SHAPES.get(sight.name.partition("/")[0])
                if shape is None or not shape.fullmatch(sight.name):
                    self.wrong.append(f"{sight.name}: no name of an object")
                with suppress(FileNotFoundError):
                    found = sight.read()
                    self.facts[sight.name] = sight.facts
                    self.wrong += [f"{sight.name}: {one}" for one in self._judged(sight, found, known)]

    def look_again(self, published: Iterator[Sight], known: Known) -> None:
        """The same, whatever was judged before."""
        self.facts.clear()
        self.look(published, known)

    def is_content(self) -> None:
        assert not self.wrong, "\n" + "\n".join(self.wrong)

    def _judged(self, sight: Sight, found: Found, known: Known) -> Iterator[str]:
        content, digest = found.content, hashlib.sha256(found.content).hexdigest()
        if sight.size != len(content):
            yield f"{sight.size} bytes when it was listed, and {len(content)} when it was read"
        if self.first.setdefault(sight.name, digest) != digest:
            yield f"{self.first[sight.name]} at first sight, {digest} later"
        if found.sha256 not in (None, digest):
            yield f"{len(content)} bytes of sha256 {digest}, where {found.sha256!r} lies with it"
        kind = sight.name.partition("/")[0]
        if kind == "raw" and found.sha256 is None and not known(digest):
            yield f"{len(content)} bytes that were never at the source"
        if kind in ("valid", "rejects", "_staged") and not _is_parquet(content):
            yield f"{len(content)} bytes that are no Parquet"
        if kind in ("_runs", "_decisions") and not _is_json(content):
            yield f"{len(content)} bytes that are no JSON"
        if kind == "_layouts" and sight.name.rpartition("/")[2] != digest[:16]:
            yield f"{len(content)} bytes of another layout"


@contextmanager
def watched(listing: Listing, *contents: bytes) -> Iterator[None]:
    """Somebody looks all the time. `contents` are what may lie in folders as it came, where nothing says its hash."""
    known = {hashlib.sha256(one).hexdigest() for one in contents}.__contains__
    reader, ended = Reader(), threading.Event()
    with listing() as published:

        def read() -> None:
            pause = 0.0
            while not ended.wait(pause):
                pause = paced(lambda: reader.look(published(), known))

        thread = threading.Thread(target=read, name="reader")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        reader.look_again(published(), known)
    reader.is_content()


def beside(process: int, reader: Reader, listing: Listing, known: Known) -> Callable[[], None]:
    """Look for as long as a process is there. What comes back waits for the end of it, and is not content by then."""
    handle = os.pidfd_open(process)

    def read() -> None:
        pause = 0.0
        try:
            with listing() as published:
                while not select.select([handle], [], [], pause)[0]:
                    pause = paced(lambda: reader.look(published(), known))
                reader.look(published(), known)
        finally:
            os.close(handle)

    # Whom a failed test has left frozen keeps nobody waiting.
    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()

    def end() -> None:
        thread.join()
        reader.is_content()

    return end


def paced(look: Callable[[], None]) -> float:
    """How long to pause behind a look."""
    began = time.monotonic()
    look()
    return max(PATIENCE, time.monotonic() - began)


@dataclass(slots=True)
class Dropped:
    """The hashes of all that ever lay at a source, members of archives included."""

    hashes: set[str] = field(default_factory=set)
    facts: dict[Path, tuple[int, ...]] = field(default_factory=dict)

    def learn(self, drops: Path) -> None:
        for path in (path for path in drops.rglob("*") if path.is_file()):
            # It may be moved away meanwhile, and is known from before then; or it is just being written.
            with suppress(FileNotFoundError, zipfile.BadZipFile):
                status = path.stat()
                facts = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self.facts.get(path) != facts:
                    self.hashes |= set(_hashes(path))
                    self.facts[path] = facts

    def knows(self, drops: Path, sha256: str) -> bool:
        if sha256 not in self.hashes:
            self.learn(drops)
        return sha256 in self.hashes


def _hashes(path: Path) -> Iterator[str]:
    yield hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield hashlib.sha256(archive.read(name)).hexdigest()


def _is_parquet(content: bytes) -> bool:
    behind = int.from_bytes(content[-8:-4], "little") + 12
    return content[:4] == content[-4:] == b"PAR1" and behind <= len(content)


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False
