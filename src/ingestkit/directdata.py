"""An archive that says of itself which tables it holds: its manifest, their columns, and its members as they go by."""

import csv
import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, Literal, TypeAlias, cast

from ingestkit.csvframe import broken
from ingestkit.errors import ContractError
from ingestkit.files import shown
from ingestkit.settings import Archives

try:
    from isal import igzip, igzip_lib
except ImportError:
    # There is none for this machine; it is twice as fast and more.
    unpacking: Any = gzip
    unpackable: Any = zlib.error
else:
    unpacking, unpackable = igzip, igzip_lib.IsalError

STEP = 1 << 20
ABOUT = 256 << 20
"""Bytes of a manifest or of metadata, which alone are kept in memory."""
HARMLESS = 64 << 20
"""Below this size no archive is a trap, however well it is packed."""
MANIFEST, EVERYTHING = "manifest.csv", "metadata_full.csv"
OF_METADATA = "Metadata.metadata"
RELATIONSHIPS = "Document.document_relationships"
DELETED_RELATIONSHIPS = f"{RELATIONSHIPS}_deleted__sys"
"""What is gone of these has a name of its own."""
DELETES = "_deletes"
Kind: TypeAlias = Literal["updates", "deletes"]
NOT_WHOLE = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, unpackable)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the manifest."""

    extract: str
    """Such as `Object.product__v`, of what has changed and of what is gone alike."""
    kind: Kind
    records: int
    file: str
    """Empty where there is no record."""

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.extract.rpartition(".")[2]


PLAIN = {"Boolean": "boolean", "Date": "date", "DateTime": "timestamp"}
"""What a type of metadata is in a contract, where it is neither a number nor a text."""
TEXTS = {("Document.document_version__sys", "document_number__v")}
"""Columns that are texts, whatever metadata say."""
KEYS = {
    "Picklist.picklist__sys": ("object", "object_field", "picklist_value_name"),
    OF_METADATA: ("extract", "column_name"),
}
ID = "id"
"""By what rows are known where `KEYS` say nothing else; a text, whatever metadata say."""


def key_of(extract: str) -> tuple[str, ...]:
    return KEYS.get(extract, (ID,))


def type_of(extract: str, column: str, said: str | None, number: str) -> str:
    """The contract's type of a column, by what metadata say; what is unknown is a text, and no length counts."""
    if said == "Number" and column not in key_of(extract) and (extract, column) not in TEXTS:
        return number
    return PLAIN.get(said or "", "string") if column not in key_of(extract) else "string"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says of itself."""

    entries: tuple[Entry, ...]
    columns: Mapping[str, Mapping[str, str]]
    """By extract, the types of its columns, in the words of metadata."""
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By extract, the columns that metadata say are new or other than they were."""
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By extract, the columns that are gone; of one of which `id` is, all are."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where an archive is read from, and how much it may hold."""

    path: str
    size: int
    opened: Callable[[], AbstractContextManager[BinaryIO]]
    """Opens it at its beginning."""
    limits: Archives


def members(archive: Archive) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and bytes of each file of the archive, each to be read before the next is asked for.

    Names are safe and none comes twice. ContractError where the archive is not whole, or no archive to be read.
    """
    path, seen, total = archive.path, set[str](), 0
    with _unpacked(archive) as stream:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=STEP) as tar:
            for info in tar:
                _refuse(path, info)
                if not info.isreg():
                    continue
                name = str(PurePosixPath(info.name))
                if name in seen:
                    raise broken(path, f"has two members {shown(name)}")
                seen.add(name)
                total += info.size
                _refuse_too_much(archive, len(seen), total)
                file = tar.extractfile(info)
                assert file is not None
                yield name, info.size, file
            behind = tar.offset
        # What follows the last member is packed too, and the sum at its end is of all that was.
        if stream.is_any_from(behind):
            raise broken(path, "goes on behind its end")


def contents_of(archive: Archive, *, whole: bool) -> Contents:
    """What the archive says of itself; read to where all of that has been seen, wherever it stands.

    Of a `whole` one the metadata are of everything; of others they are what has changed, and everything is beside.
    """
    path, found = archive.path, dict[str, bytes]()
    wanted = {MANIFEST} if whole else {MANIFEST, EVERYTHING}
    entries: tuple[Entry, ...] = ()
    for name, size, file in members(archive):
        if name.rpartition("/")[2] not in (MANIFEST, EVERYTHING, "metadata.csv", f"metadata{DELETES}.csv"):
            continue
        if size > ABOUT:
            raise broken(f"{path}!{name}", f"has {size:,} bytes, too many for what says what is in the archive")
        found[name] = file.read()
        if name == MANIFEST:
            entries = tuple(_entries(f"{path}!{name}", found[name]))
            wanted |= {one.file for one in entries if one.extract == OF_METADATA and one.file}
        if wanted <= found.keys():
            break
    if MANIFEST not in found:
        raise broken(path, f"has no {MANIFEST}, and so is none of Direct Data")
    metadata = [one for one in entries if one.extract == OF_METADATA and one.file]
    changes = [row for one in metadata if one.kind == "updates" for row in _rows(path, one.file, found)]
    deletes = [row for one in metadata if one.kind == "deletes" for row in _rows(path, one.file, found)]
    everything = _rows(path, EVERYTHING, found) if EVERYTHING in found else changes if whole else None
    if everything is None:
        raise broken(path, f"has no {EVERYTHING}, so that nobody knows the types of its columns")
    return Contents(
        entries,
        _types(everything),
        {} if whole else _columns(changes),
        {} if whole else _columns(deletes),
    )


def _types(rows: Iterable[Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    types: dict[str, dict[str, str]] = {}
    for row in rows:
        types.setdefault(row["extract"], {})[row["column_name"]] = row.get("type", "")
    return types


def _columns(rows: Iterable[Mapping[str, str]]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["extract"], []).append(row["column_name"])
    return {extract: tuple(dict.fromkeys(columns)) for extract, columns in found.items()}


def _entries(path: str, content: bytes) -> Iterator[Entry]:
    for row in _parsed(path, content, ("extract", "records", "file")):
        extract, said = row["extract"], row.get("type") or "updates"
        if said not in ("updates", "deletes"):
            raise broken(path, f"says of {shown(extract)} that it is of type {shown(said)}")
        gone = said == "deletes" or extract.endswith(DELETES) or extract == DELETED_RELATIONSHIPS
        extract = f"{RELATIONSHIPS}__sys" if extract == DELETED_RELATIONSHIPS else extract.removesuffix(DELETES)
        if not row["records"].isdigit():
            raise broken(path, f"says of {shown(extract)} that it has {shown(row['records'])} records")
        records, file = int(row["records"]), row["file"]
        if records and not file:
            raise broken(path, f"says of {shown(extract)} that it has {records:,} records, and of no file")
        yield Entry(extract, "deletes" if gone else "updates", records, str(PurePosixPath(file)) if file else "")


def _rows(path: str, name: str, found: Mapping[str, bytes]) -> list[dict[str, str]]:
    if name not in found:
        raise broken(path, f"has no {shown(name)}, which its manifest names")
    return list(_parsed(f"{path}!{name}", found[name], ("extract", "column_name")))


def _parsed(path: str, content: bytes, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows by the names of the header, whatever else it has."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise broken(path, "is no UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    try:
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise broken(path, f"has no column {', '.join(missing)}")
        for row in reader:
            if None in row:
                raise broken(path, f"has a record of more values than columns, before line {reader.line_num + 1}")
            yield row
    except csv.Error as error:
        raise broken(path, f"cannot be read as CSV: {error}") from error


class _Stream:
    """The bytes within, of which the last ones that were read are remembered."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last, self._before, self._at = b"", b"", 0

    def read(self, size: int) -> bytes:
        self._before, self._last = self._last, self._file.read(size)
        self._at += len(self._last)
        return self._last

    def is_any_from(self, place: int) -> bool:
        """Whether there is anything but zeros from a place on, up to the end; it lies in what was read last."""
        known = self._before + self._last
        rest = known[place - self._at + len(known) :]
        while not rest.strip(b"\0") and (rest := self._file.read(STEP)):
            pass
        return bool(rest.strip(b"\0"))


@contextmanager
def _unpacked(archive: Archive) -> Iterator[_Stream]:
    """The bytes within. What breaks there is the archive's fault."""
    with archive.opened() as packed:
        try:
            with unpacking.GzipFile(fileobj=packed) as file:
                yield _Stream(file)
        except NOT_WHOLE as error:
            raise broken(archive.path, f"is no whole archive: {str(error).rstrip('.')}") from error


def _refuse(path: str, info: tarfile.TarInfo) -> None:
    within = info.name.strip("/.")
    if info.name.startswith("/") or ".." in info.name.split("/") or "\\" in info.name or not (within or info.isdir()):
        raise broken(path, f"has a member {shown(info.name)}, which leads out of it")
    if not (info.isreg() or info.isdir()):
        raise broken(path, f"has a member {shown(info.name)}, which is no file")


def _refuse_too_much(archive: Archive, count: int, total: int) -> None:
    limits, path = archive.limits, shown(archive.path)
    most = max(HARMLESS, archive.size * limits.max_ratio)
    for told in (
        f"{path} has more than {limits.max_members} members (source.archives.max_members)"
        if count > limits.max_members
        else "",
        f"{path} has more than {limits.max_bytes} bytes when unpacked (source.archives.max_bytes)"
        if total > limits.max_bytes
        else "",
        f"{path} grows more than {limits.max_ratio:g} times when unpacked (source.archives.max_ratio)"
        if total > most
        else "",
    ):
        if told:
            raise ContractError(told, hint="raise the limit if it is what it should be")
