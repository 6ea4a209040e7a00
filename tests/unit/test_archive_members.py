"""A member of an archive is read as it was packed, in any steps, by either library that unpacks."""

import io
import random
import zipfile
import zlib
from types import ModuleType

import pytest

from ingestkit.errors import SourceError
from ingestkit.sources import archives

isal_zlib = pytest.importorskip("isal.isal_zlib", reason="there is no ISA-L for this machine")


@pytest.fixture(params=[isal_zlib, zlib], ids=["isal", "zlib"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(archives, "inflate", request.param)
    found: ModuleType = request.param
    return found


def packed(content: bytes, level: int = 6) -> tuple[bytearray, zipfile.ZipInfo]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("a.csv", content)
        [info] = archive.infolist()
    return bytearray(file.getvalue()), info


def contents(seed: int) -> bytes:
    """Some that is packed into hardly anything, some that is not packed at all."""
    draw = random.Random(seed)
    parts = (
        draw.randbytes(draw.choice([0, 1, 5, 70_000])) * draw.choice([1, 3, 900]) for _ in range(draw.randrange(6))
    )
    return b"".join(parts)[: 5 << 20]


@pytest.mark.parametrize("seed", range(25))
def test_it_is_read_in_any_steps(seed: int) -> None:
    content, draw = contents(seed), random.Random(seed)
    archive, info = packed(content, draw.choice([1, 6, 9]))
    member = archives.member("drop.zip!a.csv", io.BytesIO(archive), info)
    for _ in range(30):
        at = draw.randrange(len(content) + 1)
        assert member.seek(at) == at
        length = draw.choice([1, 100, 8_192, 300_000])
        assert member.read(length) == content[at : at + length]
    member.seek(0)
    assert member.read() == content


@pytest.mark.parametrize("seed", range(25))
def test_what_is_not_as_it_was_packed_is_never_taken(seed: int) -> None:
    content, draw = contents(seed + 100) + b"end", random.Random(seed)
    archive, info = packed(content)
    begin = info.header_offset + archives.LOCAL_HEADER.size + len("a.csv")
    archive[begin + draw.randrange(info.compress_size)] ^= 1 << draw.randrange(8)
    member = archives.member("drop.zip!a.csv", io.BytesIO(archive), info)
    said, read = "", b""
    try:
        read = member.read()
    except SourceError as error:
        said = error.message
    # A bit that says nothing may be another one.
    assert read == content or "drop.zip!a.csv is damaged: " in said


def test_one_that_is_cut_off_ends_too_early() -> None:
    archive, info = packed(random.Random(1).randbytes(100_000))
    info.compress_size //= 2
    with pytest.raises(SourceError, match="it ends too early"):
        archives.member("drop.zip!a.csv", io.BytesIO(archive), info).read()


def test_one_that_is_longer_than_its_list_says_is_not_taken() -> None:
    archive, info = packed(b"1234567890")
    info.file_size = 5
    with pytest.raises(SourceError, match="Bad CRC-32"):
        archives.member("drop.zip!a.csv", io.BytesIO(archive), info).read()
