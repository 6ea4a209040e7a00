"""What says that a file has arrived: a marker or report beside it or its batch, and a checksum its bytes must fit."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.settings import Settle, Source

ALGORITHMS: Mapping[str, str] = {".sha256": "sha256", ".md5": "md5"}
"""How files that hold a checksum are named behind the name of their file, the better one first."""
LARGEST = 64 << 10
"""So much of a file with a checksum is read."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The paths of a batch, and what of them speaks of the others."""

    source: Source
    paths: Collection[str]

    @property
    def settle(self) -> Settle:
        return self.source.settle

    @property
    def report(self) -> str | None:
        """How reports are called."""
        return self.source.totals.report if self.source.totals is not None else None

    def speaks_of_others(self, path: str) -> bool:
        """Whether a file is a marker, a report or a checksum, and no content."""
        if any(_is_called(one, path) for one in (self.settle.marker, self.report)):
            return True
        return self._is_checksum(path)

    def speaks_of_members(self, archive: str, name: str) -> bool:
        """Whether a member of an archive is the report on it or a checksum, and no content."""
        return self.is_report_within(archive, name) or self._is_checksum(name)

    def _is_checksum(self, path: str) -> bool:
        return self.settle.checksum != "ignore" and path.endswith(tuple(ALGORITHMS))

    def checksum_of(self, path: str) -> str | None:
        """The path of the file's checksum, where there is one."""
        return self.checksum_within(path, self.paths)

    def checksum_within(self, path: str, paths: Collection[str]) -> str | None:
        """The same among other paths, such as the members of an archive."""
        if self.settle.checksum == "ignore":
            return None
        return next((path + suffix for suffix in ALGORITHMS if path + suffix in paths), None)

    def of_it_alone(self, path: str) -> list[str]:
        """Where what speaks of this file and no other would be."""
        named = [one for one in (self.settle.marker, self.report) if one is not None and "{" in one]
        beside = [_marker_of(one, path, "") for one in named]
        suffixes = () if self.settle.checksum == "ignore" else ALGORITHMS
        return [path + suffix for suffix in suffixes] + beside

    def report_of(self, path: str, folder: str) -> str | None:
        """Where the report on a file, or on all that the folder of its batch holds, would lie beside it."""
        if self.report is None or ("{" not in self.report and self.source.batches.files is not None):
            # In a folder of several batches it would be of none of them.
            return None
        return _marker_of(self.report, path, folder)

    def is_report_within(self, archive: str, name: str) -> bool:
        """Whether a member of an archive is the report on it."""
        return self.report is not None and name.rpartition("/")[2] == _named(self.report, archive.rpartition("/")[2])

    def waits_for(self, path: str, folder: str) -> str | None:
        """What must still come before a file may be read; `folder` is that of its batch."""
        if self.settle.marker is not None:
            marker = _marker_of(self.settle.marker, path, folder)
            if marker not in self.paths:
                return f"its marker {shown(marker)} has not come"
        if self.settle.checksum == "required" and self.checksum_of(path) is None:
            return f"its checksum has not come ({', '.join(path.rpartition('/')[2] + one for one in ALGORITHMS)})"
        return None


def _is_called(marker: str | None, path: str) -> bool:
    if marker is None:
        return False
    name = ".+".join(map(re.escape, re.split(r"\{(?:name|stem)\}", marker)))
    return re.fullmatch(name, path.rpartition("/")[2]) is not None


def _marker_of(marker: str, path: str, folder: str) -> str:
    """Where the marker of a file lies: beside it where the marker bears its name, else in the folder of the batch."""
    above, _, name = path.rpartition("/")
    if "{" not in marker:
        return f"{folder}/{marker}" if folder else marker
    named = _named(marker, name)
    return f"{above}/{named}" if above else named


def _named(marker: str, name: str) -> str:
    return marker.replace("{name}", name).replace("{stem}", name.rpartition(".")[0] or name)


class Checked:
    """A stream that adds up what is read of it, in order and to the end; a reader who skips is told nothing."""

    def __init__(self, stream: BinaryIO, algorithm: str) -> None:
        self._stream = stream
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._hash.update(block)
        self._at += len(block)
        return block

    def digest(self, size: int) -> str | None:
        """What the bytes add up to, or None where not so many were read one after the other."""
        return self._hash.hexdigest() if self._at == size else None

    def __getattr__(self, name: str) -> Any:
        # Any other way of reading or moving leaves what was added up short of the whole.
        return getattr(self._stream, name)


def algorithm_of(checksum: str) -> str:
    return next(algorithm for suffix, algorithm in ALGORITHMS.items() if checksum.endswith(suffix))


def said_by(checksum: str, content: bytes, path: str) -> str:
    """The digest that a file of checksums names for a path: on the line with its name, or the only one there is."""
    digits = 2 * hashlib.new(algorithm_of(checksum), usedforsecurity=False).digest_size
    name = path.rpartition("/")[2]
    lines = content.decode("utf-8", errors="replace").splitlines()
    matches = [(line, re.search(rf"(?<![0-9a-fA-F])[0-9a-fA-F]{{{digits}}}(?![0-9a-fA-F])", line)) for line in lines]
    found = [(line.replace(match[0], ""), match[0].lower()) for line, match in matches if match]
    of_it = [digest for rest, digest in found if name in re.split(r"[\s*()/\\]+", rest)] or [one for _, one in found]
    if len(set(of_it)) != 1:
        raise SourceError(
            f"{shown(checksum)} names no checksum of {shown(name)}",
            hint="have it delivered again, or set source.settle.checksum: ignore",
            transient=True,
        )
    return of_it[0]


def digest_of(stream: BinaryIO, algorithm: str) -> str:
    """What a stream's bytes add up to; it stands at its beginning again."""
    total = hashlib.new(algorithm, usedforsecurity=False)
    while block := stream.read(1 << 20):
        total.update(block)
    stream.seek(0)
    return total.hexdigest()


def unlike(path: str, checksum: str) -> SourceError:
    return SourceError(
        f"{shown(path)} is not what {shown(checksum.rpartition('/')[2])} says",
        hint="have both delivered again; it is taken when they fit",
        transient=True,
    )
