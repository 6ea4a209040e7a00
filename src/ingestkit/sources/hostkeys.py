"""Host keys: which are known to be a server's, by a file as OpenSSH keeps it, and another one put into that file."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ingestkit import files
from ingestkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HostKey:
    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        return f"SHA256:{base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')}"

    def line(self, host: str, port: int) -> str:
        return f"{place(host, port)} {self.type} {base64.b64encode(self.blob).decode()}"


def place(host: str, port: int) -> str:
    """The server as known_hosts calls it."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def known(file: Path, host: str, port: int) -> tuple[HostKey, ...]:
    """The keys that the file names for the server, without those it revokes."""
    lines = list(_lines(file, place(host, port)))
    revoked = {key for marker, key in lines if marker == "@revoked"}
    return tuple(dict.fromkeys(key for marker, key in lines if marker == "" and key not in revoked))


def pin(file: Path, host: str, port: int, keys: Sequence[HostKey]) -> None:
    """Make the file name these keys for the server besides what it says already."""
    before = _read(file)
    lines = "".join(f"{key.line(host, port)}\n" for key in keys)
    try:
        files.make_folder(file.parent)
        files.replace_whole(file, (before + ("\n" if before and not before.endswith("\n") else "") + lines).encode())
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", hint=f"ls -ld {file.parent}") from error


def key_of(line: str) -> HostKey | None:
    """The key of a line as ssh-keyscan writes it."""
    words = line.split()
    return _key(words[1:]) if len(words) >= 3 and not line.startswith("#") else None


def _lines(file: Path, wanted: str) -> Iterator[tuple[str, HostKey]]:
    for line in _read(file).splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _names(words[0], wanted):
            continue
        key = _key(words[1:])
        if key is not None:
            yield marker, key


def _key(words: Sequence[str]) -> HostKey | None:
    try:
        return HostKey(words[0], base64.b64decode(words[1], validate=True))
    except (binascii.Error, ValueError):
        return None


def _names(patterns: str, wanted: str) -> bool:
    if patterns.startswith("|1|"):
        return _is_hash_of(patterns, wanted)
    said = patterns.lower().split(",")
    if any(_fits(wanted, one[1:]) for one in said if one.startswith("!")):
        return False
    return any(_fits(wanted, one) for one in said if not one.startswith("!"))


def _fits(wanted: str, pattern: str) -> bool:
    """`*` and `?` stand for others; brackets are those around a host with a port, and for nothing else."""
    return fnmatchcase(wanted, pattern.replace("[", "[[]"))


def _is_hash_of(hashed: str, wanted: str) -> bool:
    try:
        salt, digest = (base64.b64decode(one) for one in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, wanted.encode(), hashlib.sha1).digest(), digest)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"known hosts cannot be read from {file}: {error}", hint=f"ls -l {file}") from error
