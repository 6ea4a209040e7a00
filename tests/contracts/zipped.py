"""Zip archives as tests deliver them, sound ones and such as nobody should open."""

import io
import zipfile
from collections.abc import Mapping


def zipped(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return into.getvalue()


def renamed(archive: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with a member's name written over, in its list and where it stands."""
    assert len(old) == len(new)
    assert archive.count(old) == 2
    return archive.replace(old, new)


def relisted(archive: bytes, offset: int, value: bytes) -> bytes:
    """The archive with the first entry of its list written over at an offset, and its local header left alone."""
    at = archive.index(b"PK\x01\x02") + offset
    return archive[:at] + value + archive[at + len(value) :]
