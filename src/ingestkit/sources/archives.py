"""Zip archives of a source: what they list, and a member as a stream; nothing is unpacked beside them."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, Protocol, cast

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.settings import Archives
from ingestkit.sources.drop import Status

try:
    from isal import isal_zlib
except ImportError:
    # There is none for this machine; it is twice as fast and more.
    inflate: Any = zlib
else:
    inflate = isal_zlib

SUFFIX = ".zip"
# Below this size nothing is a trap, and a short text of one repeated line may well be packed into almost nothing.
HARMLESS = 1 << 20
STEP = 1 << 16
# What the list of an archive may take per member; a list that is larger is not read, since it takes memory.
ENTRY = 1 << 10
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
UTF8_NAME, ENCRYPTED = 0x800, 0x1
UNIX = 3
# All that a list which is cut off or overwritten can make the reader of it say.
NOT_WHOLE = (zipfile.BadZipFile, EOFError, struct.error, ValueError, OverflowError, NotImplementedError, OSError)


class Seekable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive listed, good while its stamp is the same."""

    stamp: tuple[int, int, int]
    members: Mapping[str, zipfile.ZipInfo]


def stamp_of(status: Status) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIX)


def archive_of(path: str) -> str | None:
    """The archive that a path of the ledger is a member of."""
    parts = path.split("!")
    return next((one for end in range(1, len(parts)) if is_archive(one := "!".join(parts[:end]))), None)


def listed(
    path: str, file: BinaryIO, size: int, limits: Archives, unless_whole: type[SourceError]
) -> Mapping[str, zipfile.ZipInfo]:
    """The members of an archive by name, without folders; `unless_whole` where it cannot be read to its end."""
    try:
        with zipfile.ZipFile(cast("BinaryIO", _Sparing(path, file, limits))) as archive:
            found = archive.infolist()
    except NOT_WHOLE as error:
        raise _no_archive(path, unless_whole) from error
    _refuse_too_much(path, found, limits)
    _refuse_overlaps(path, found, size, unless_whole)
    for one in found:
        _refuse_name(path, one)
        _refuse_kind(path, one)
    _refuse_twice(path, found)
    return {_name(one): one for one in found if not one.is_dir()}


def member(path: str, file: BinaryIO, info: zipfile.ZipInfo) -> BinaryIO:
    """The bytes of a member, as they are unpacked; at their end they are compared with the archive's checksum."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise _damaged(path, "it is not where the archive's list says")
    fields = LOCAL_HEADER.unpack(header)
    name_length, extra_length = fields[9], fields[10]
    name = file.read(name_length).decode("utf-8" if info.flag_bits & UTF8_NAME else "cp437", "replace")
    if name != info.orig_filename:
        raise _damaged(path, "another name stands where the archive's list says")
    file.seek(extra_length, io.SEEK_CUR)
    return io.BufferedReader(Member(path, info, file))


def _name(info: zipfile.ZipInfo) -> str:
    """The member's name. Many write UTF-8 without saying so, and hardly any other name can be read as that."""
    if info.flag_bits & UTF8_NAME:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeDecodeError:
        return info.orig_filename


class Member(io.RawIOBase):
    """A member as a file; what fails while unpacking it is the source's failure, whoever reads."""

    def __init__(self, path: str, info: zipfile.ZipInfo, file: Seekable) -> None:
        super().__init__()
        self._path, self._info, self._file = path, info, file
        self._start = file.tell()
        self._begin()

    def _begin(self) -> None:
        self._file.seek(self._start)
        self._packed_left, self._at, self._crc = self._info.compress_size, 0, 0
        self._tail = self._ready = b""
        deflated = self._info.compress_type == zipfile.ZIP_DEFLATED
        self._inflating = inflate.decompressobj(-zlib.MAX_WBITS) if deflated else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Back to the beginning is back at once; whatever lies between is unpacked again."""
        wanted = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.file_size}[whence]
        if wanted < self._at:
            self._begin()
        while self._at < wanted and self._unpacked(min(STEP, wanted - self._at)):
            pass
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._unpacked(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _unpacked(self, most: int) -> bytes:
        """The next bytes, none at the end; what they are altogether is compared with the archive's list there."""
        block, left = b"", self._info.file_size - self._at
        if left:
            try:
                block = self._inflated(most) if self._inflating is not None else self._packed(most)
            except (inflate.error, zlib.error) as error:
                raise _damaged(self._path, str(error)) from error
            if not block:
                raise _damaged(self._path, "it ends too early")
        block = block[:left]
        self._at += len(block)
        self._crc = inflate.crc32(block, self._crc)
        if len(block) == left and self._crc != self._info.CRC:
            raise _damaged(self._path, "Bad CRC-32, it is not the one in the archive's list")
        return block

    def _inflated(self, most: int) -> bytes:
        block, self._ready = self._ready[:most], self._ready[most:]
        while self._inflating is not None and not block and not self._inflating.eof:
            packed = self._tail or self._packed(STEP)
            if not packed:
                # Of what it was given, something may still be within.
                rest = bytes(self._inflating.flush())
                self._ready = rest[most:]
                return rest[:most]
            block = self._inflating.decompress(packed, most)
            self._tail = self._inflating.unconsumed_tail
        return block

    def _packed(self, most: int) -> bytes:
        packed = self._file.read(min(most, self._packed_left))
        self._packed_left -= len(packed)
        return packed


class _Sparing:
    """A file of which an archive's list is not read where it is too long for the members there may be."""

    def __init__(self, path: str, file: Seekable, limits: Archives) -> None:
        self._path, self._file, self._limits = path, file, limits
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        most = max(HARMLESS, self._limits.max_members * ENTRY)
        if size > most:
            raise _refused(
                f"the list of members of {shown(self._path)} has {size:,} bytes, too many for"
                f" source.archives.max_members: {self._limits.max_members}"
            )
        return self._file.read(size)


def _refuse_too_much(path: str, found: Sequence[zipfile.ZipInfo], limits: Archives) -> None:
    archive = shown(path)
    if len(found) > limits.max_members:
        raise _refused(f"{archive} has {len(found):,} members; source.archives.max_members is {limits.max_members}")
    total = 0
    for one in found:
        total += one.file_size
        if total > limits.max_bytes:
            raise _refused(
                f"{archive} has more than {limits.max_bytes} bytes when unpacked (source.archives.max_bytes),"
                f" of which {shown(_name(one))} has {one.file_size}"
            )
        if one.file_size > max(HARMLESS, one.compress_size * limits.max_ratio):
            times = f"{one.file_size / one.compress_size:,.0f} times" if one.compress_size else "infinitely"
            raise _refused(
                f"{archive}!{shown(_name(one))} grows {times} when unpacked;"
                f" source.archives.max_ratio is {limits.max_ratio:g}"
            )


def _refuse_overlaps(path: str, found: Sequence[zipfile.ZipInfo], size: int, unless_whole: type[SourceError]) -> None:
    """Each member has bytes of its own, within the archive."""
    ordered = sorted(found, key=lambda one: one.header_offset)
    ends = [one.header_offset + LOCAL_HEADER.size + one.compress_size for one in ordered]
    if ordered and (ordered[0].header_offset < 0 or max(ends) > size):
        raise _no_archive(path, unless_whole)
    for end, (one, following) in zip(ends, pairwise(ordered), strict=False):
        if end > following.header_offset:
            raise _unfit(path, following, f"it shares bytes with {shown(_name(one))}")


def _refuse_name(path: str, info: zipfile.ZipInfo) -> None:
    name = _name(info)
    if "\\" in name:
        raise _unfit(path, info, "its name holds a backslash")
    if "\0" in name:
        raise _unfit(path, info, "its name holds a NUL")
    if name.startswith("/") or name[1:3] == ":/":
        raise _unfit(path, info, "its path is absolute")
    if ".." in name.split("/"):
        raise _unfit(path, info, "its path leads out of the archive")
    if not name or name.rsplit("/", 1)[-1] == ".":
        raise _unfit(path, info, "it has no name")


def _refuse_kind(path: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & ENCRYPTED:
        raise _unfit(path, info, "it is encrypted")
    if info.create_system == UNIX and stat.S_ISLNK(info.external_attr >> 16):
        raise _unfit(path, info, "it is a link")
    # Others unpack without a limit, and hardly anybody writes them.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unfit(path, info, f"it is packed by method {info.compress_type}; stored and deflated ones are read")


def _refuse_twice(path: str, found: Sequence[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for one in found:
        plain = "/".join(part for part in _name(one).split("/") if part not in ("", "."))
        if plain in seen:
            raise _unfit(path, one, "its name stands twice in the archive")
        seen.add(plain)


def _no_archive(path: str, kind: type[SourceError]) -> SourceError:
    return kind(
        f"{shown(path)} is no whole zip archive",
        hint="have it delivered again, or run again when it is written; source.ignore can leave it out",
    )


def _damaged(path: str, why: str) -> SourceError:
    return SourceError(f"{shown(path)} is damaged: {why}", hint="have the archive delivered again")


def _unfit(path: str, info: zipfile.ZipInfo, why: str) -> SourceError:
    return SourceError(
        f"{shown(path)}!{shown(_name(info))} is not taken: {why}",
        hint="have the archive delivered without it, or let source.ignore match the archive's name",
    )


def _refused(message: str) -> SourceError:
    return SourceError(message, hint="raise the limit if it is what it should be, or let source.ignore match its name")
