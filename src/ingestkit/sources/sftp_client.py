"""The SFTP protocol on top of what carries it: listing, asking, and a file read in many requests at once."""

import errno
import io
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import paramiko
from paramiko.message import Message
from paramiko.sftp import (
    CMD_CLOSE,
    CMD_DATA,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    CMD_FSTAT,
    CMD_HANDLE,
    CMD_INIT,
    CMD_LSTAT,
    CMD_MKDIR,
    CMD_NAME,
    CMD_OPEN,
    CMD_OPENDIR,
    CMD_READ,
    CMD_READDIR,
    CMD_REALPATH,
    CMD_REMOVE,
    CMD_RENAME,
    CMD_STAT,
    CMD_STATUS,
    CMD_VERSION,
    SFTP_CONNECTION_LOST,
    SFTP_EOF,
    SFTP_FLAG_READ,
    SFTP_NO_CONNECTION,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_PERMISSION_DENIED,
    SFTPError,
    int64,
)

from ingestkit.errors import SourceError

# What every server gives in one answer. Those that name a larger limit are asked for more, up to what OpenSSH gives.
REQUEST, LARGEST = 32 * 1024, 255 * 1024
LIMITS = "limits@openssh.com"
# Of the protocol: the version that every server speaks.
SPOKEN = 3
# How many bytes are asked for ahead: few at first, since who jumps in a file needs little of it.
FEW, MANY = 8 * REQUEST, 32 * 2**20

LOST = (paramiko.SSHException, SFTPError, EOFError, TimeoutError, ConnectionError)
"""That the server cannot be spoken to any more, as the library says it."""


class Refused(OSError):
    """The server's answer that something cannot be done. All its other errors are of the connection."""


@dataclass(frozen=True, slots=True)
class Attributes:
    st_mode: int
    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime) * 1_000_000_000

    @property
    def st_ctime_ns(self) -> int:
        """No server tells it."""
        return 0


class Client(paramiko.SFTPClient):
    """paramiko's client where it tells what is needed: names as bytes, refusals by number, handles by themselves."""

    end: Callable[[], None]
    """Ends what carries it, too."""
    _named: frozenset[str] = frozenset()
    """What the server can do beyond the standard."""
    _largest: int | None = None

    if TYPE_CHECKING:
        # Its types leave out what is beneath files.
        def _request(self, command: int, *arguments: Any) -> tuple[int, Message]: ...
        def _async_request(self, taker: object, command: int, *arguments: Any) -> int: ...
        def _read_response(self, waitfor: int | None = None) -> tuple[int | None, Message | None]: ...
        def _send_packet(self, kind: int, packet: Message) -> None: ...
        def _read_packet(self) -> tuple[int, bytes]: ...

    @property
    def largest(self) -> int:
        """How much the server gives in one answer, asked once."""
        if self._largest is None:
            self._largest = REQUEST
            if LIMITS in self._named:
                # Some name it and do not know it.
                with suppress(Refused):
                    kind, answer = self._request(CMD_EXTENDED, LIMITS)
                    if kind == CMD_EXTENDED_REPLY:
                        _, read = answer.get_int64(), answer.get_int64()
                        self._largest = min(LARGEST, max(REQUEST, read))
        return self._largest

    def entries(self, folder: str) -> list[tuple[str, Attributes]]:
        handle = self._handle(CMD_OPENDIR, folder.encode("utf-8", "surrogateescape"))
        found: list[tuple[str, Attributes]] = []
        while (answer := self._names(handle)) is not None:
            for _ in range(answer.get_int()):
                name = answer.get_string().decode("utf-8", "surrogateescape")
                answer.get_string()
                attributes = _attributes(answer, name)
                if name not in {".", ".."}:
                    found.append((_checked(name), attributes))
        self.release(handle)
        return found

    def status(self, path: str, *, follow: bool = True) -> Attributes:
        _, answer = self._request(CMD_STAT if follow else CMD_LSTAT, path.encode("utf-8", "surrogateescape"))
        return _attributes(answer, path)

    def real_and_status(self, path: str) -> tuple[str, Attributes]:
        """Where a path leads and what is there, asked together, since each wait counts where files are small."""
        answers = Answers(self)
        asked = [
            self._async_request(answers, command, path.encode("utf-8", "surrogateescape"))
            for command in (CMD_REALPATH, CMD_STAT)
        ]
        while len(answers.others) < len(asked) and answers.refused is None:
            self.receive()
        if answers.refused is not None:
            raise answers.refused
        real, status = (answers.others[one] for one in asked)
        real.get_int()
        return bytes(real.get_string()).decode("utf-8", "surrogateescape"), _attributes(status, path)

    def status_of(self, handle: bytes, path: str) -> Attributes:
        _, answer = self._request(CMD_FSTAT, handle)
        return _attributes(answer, path)

    def real(self, path: str) -> str:
        _, answer = self._request(CMD_REALPATH, path.encode("utf-8", "surrogateescape"))
        answer.get_int()
        return bytes(answer.get_string()).decode("utf-8", "surrogateescape")

    def rename_file(self, path: str, to: str) -> None:
        """Servers refuse to by the standard when the name is taken; not all of them keep it."""
        self._request(CMD_RENAME, path.encode("utf-8", "surrogateescape"), to.encode("utf-8", "surrogateescape"))

    def remove_file(self, path: str) -> None:
        self._request(CMD_REMOVE, path.encode("utf-8", "surrogateescape"))

    def make_folder(self, path: str) -> None:
        self._request(CMD_MKDIR, path.encode("utf-8", "surrogateescape"), paramiko.SFTPAttributes())

    def opened(self, path: str) -> bytes:
        return self._handle(
            CMD_OPEN, path.encode("utf-8", "surrogateescape"), SFTP_FLAG_READ, paramiko.SFTPAttributes()
        )

    def release(self, handle: bytes) -> None:
        """Close a handle without waiting for the answer."""
        self._async_request(type(None), CMD_CLOSE, handle)

    def ask(self, answers: "Answers", handle: bytes, offset: int, size: int) -> None:
        answers.waiting[self._async_request(answers, CMD_READ, handle, int64(offset), size)] = offset, size

    def ask_status(self, answers: "Answers", handle: bytes) -> None:
        answers.status = self._async_request(answers, CMD_FSTAT, handle)

    def receive(self) -> None:
        """Take one answer in, whoever waits for it."""
        self._read_response()

    def _send_version(self) -> int:
        opening = Message()
        opening.add_int(SPOKEN)
        self._send_packet(CMD_INIT, opening)
        kind, content = self._read_packet()
        if kind != CMD_VERSION:
            raise SFTPError("the server does not speak SFTP")
        answer = Message(content)
        version = answer.get_int()
        named = set()
        while answer.get_remainder():
            named.add(answer.get_string().decode("utf-8", "replace"))
            answer.get_string()
        self._named = frozenset(named)
        return version

    def _handle(self, command: int, *arguments: Any) -> bytes:
        kind, answer = self._request(command, *arguments)
        if kind != CMD_HANDLE:
            raise SFTPError("the server answers without a handle")
        return bytes(answer.get_string())

    def _names(self, handle: bytes) -> Message | None:
        try:
            kind, answer = self._request(CMD_READDIR, handle)
        except EOFError:
            return None
        if kind != CMD_NAME:
            raise SFTPError("the server answers without names")
        return answer

    def _convert_status(self, msg: Message) -> None:
        code = msg.get_int()
        said = msg.get_string().decode("utf-8", "replace")
        match code:
            case _ if code == SFTP_OK:
                return
            case _ if code == SFTP_EOF:
                raise EOFError(said)
            case _ if code == SFTP_NO_SUCH_FILE:
                raise Refused(errno.ENOENT, said)
            case _ if code == SFTP_PERMISSION_DENIED:
                raise Refused(errno.EACCES, said)
            case _ if code in (SFTP_NO_CONNECTION, SFTP_CONNECTION_LOST):
                raise ConnectionResetError(errno.ECONNRESET, said)
            case _:
                raise Refused(errno.EREMOTEIO, said)

    def _log(self, level: Any, msg: Any, *args: Any) -> None:
        """What it has to say is in the errors."""


class Answers:
    """The answers to what was asked since the last jump; those to what was asked before are looked at by nobody."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.waiting: dict[int, tuple[int, int]] = {}
        self.data: dict[int, bytes] = {}
        self.rest: list[tuple[int, int]] = []
        """What was asked for and not given: a server may answer in smaller pieces."""
        self.ends: set[int] = set()
        self.others: dict[int, Message] = {}
        self.refused: Refused | None = None
        self.status: int | None = None
        """The number of the request that asks how the file is behind all that was asked of it."""

    def _async_response(self, kind: int, answer: Message, number: int) -> None:
        if number not in self.waiting:
            try:
                if kind == CMD_STATUS:
                    self.client._convert_status(answer)  # noqa: SLF001 - the client calls this one so
                self.others[number] = answer
            except Refused as error:
                self.refused = error
            return
        offset, size = self.waiting.pop(number)
        data = answer.get_string() if kind == CMD_DATA else b""
        if kind != CMD_DATA:
            try:
                self.client._convert_status(answer)  # noqa: SLF001 - the client calls this one so
            except EOFError:
                self.ends.add(offset)
                return
        if not data:
            self.ends.add(offset)
            return
        self.data[offset] = data
        if len(data) < size:
            self.rest.append((offset + len(data), size - len(data)))


class Place(Protocol):
    """Where a file is read from, whatever happens to the connection."""

    def client(self) -> Client:
        """The connection of this thread."""
        ...

    def lost(self, client: Client, error: Exception) -> SourceError:
        """Give a connection up; the error that tells of it."""
        ...

    def failed(self, error: OSError, path: str, *, transient: bool) -> SourceError:
        """What the server refuses, as the source's failure."""
        ...


class RemoteFile(io.RawIOBase):
    """A file of a server, read ahead in many requests at once; after a cut it goes on, if it is still the same."""

    def __init__(self, place: Place, path: str, status: Attributes, same: Callable[[Attributes], None]) -> None:
        super().__init__()
        self._place, self.path, self._size, self._same = place, path, status.st_size, same
        self._client = place.client()
        self._handle = self._client.opened(path)
        self._resumed_at = -1
        self._chunk = memoryview(b"")
        self._jump(0)

    def status(self) -> Attributes:
        """What the opened file is like; where a cut has closed it, the one that has its name."""
        if not self._handle:
            return self._place.client().status(self.path)
        answers = self._answers
        if answers.status is not None and not answers.waiting and not answers.rest and answers.refused is None:
            while answers.status not in answers.others and answers.refused is None:
                self._client.receive()
            if (answer := answers.others.pop(answers.status, None)) is not None:
                answers.status = None
                return _attributes(answer, self.path)
        return self._client.status_of(self._handle, self.path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset != self._at:
            self._chunk = memoryview(b"")
            self._jump(start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not self._chunk:
            self._chunk = memoryview(self._next())
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        self._at += size
        return size

    def close(self) -> None:
        if not self.closed and self._handle:
            try:
                self._client.release(self._handle)
            except (*LOST, OSError):
                # With the connection the server has closed it.
                pass
        super().close()

    def _jump(self, offset: int) -> None:
        self._at = self._asked = offset
        self._ahead = FEW
        self._answers = Answers(self._client)

    def _next(self) -> bytes:
        while self._at < self._size:
            try:
                if not self._handle:
                    self._open_again()
                return self._awaited()
            except Refused as error:
                raise self._place.failed(error, self.path, transient=True) from error
            except (*LOST, OSError) as error:
                self._give_up(error)
        return b""

    def _awaited(self) -> bytes:
        answers = self._answers
        while self._at not in answers.data:
            if self._at in answers.ends:
                return b""
            while answers.rest:
                answers.status = None
                self._client.ask(answers, self._handle, *answers.rest.pop())
            if self._asked - self._at <= self._ahead // 2:
                self._ask_ahead()
            self._client.receive()
        return answers.data.pop(self._at)

    def _ask_ahead(self) -> None:
        """Asked in bursts: a request for each answer would cost a packet and a turn of its threads each."""
        answers = self._answers
        most = min(self._client.largest, max(REQUEST, self._ahead // 8)) if self._size > FEW else REQUEST
        while self._asked < self._size and self._asked - self._at < self._ahead:
            size = min(most, self._size - self._asked)
            self._client.ask(answers, self._handle, self._asked, size)
            self._asked += size
        self._ahead = min(MANY, 2 * self._ahead)
        if self._asked == self._size and answers.status is None:
            self._client.ask_status(answers, self._handle)

    def _give_up(self, error: Exception) -> None:
        """Be done with a connection that was lost; one that had brought nothing is the last."""
        lost = self._place.lost(self._client, error)
        if self._at == self._resumed_at:
            raise lost from error
        self._resumed_at = self._at
        self._handle = b""

    def _open_again(self) -> None:
        self._client = self._place.client()
        self._same(self._client.status(self.path))
        self._handle = self._client.opened(self.path)
        self._jump(self._at)


def _attributes(answer: Message, name: str) -> Attributes:
    """What an answer tells of a file; each part of it may be left out."""
    flags = answer.get_int()
    size = answer.get_int64() if flags & paramiko.SFTPAttributes.FLAG_SIZE else None
    if flags & paramiko.SFTPAttributes.FLAG_UIDGID:
        answer.get_int(), answer.get_int()
    mode = answer.get_int() if flags & paramiko.SFTPAttributes.FLAG_PERMISSIONS else None
    at = (answer.get_int(), answer.get_int())[1] if flags & paramiko.SFTPAttributes.FLAG_AMTIME else None
    for _ in range(2 * answer.get_int() if flags & paramiko.SFTPAttributes.FLAG_EXTENDED else 0):
        answer.get_string()
    if mode is None or at is None or (size is None and not stat.S_ISDIR(mode)):
        raise Refused(errno.EREMOTEIO, f"no kind, size or time of {name!r}")
    return Attributes(mode, size or 0, at)


def _checked(name: str) -> str:
    if not name or "/" in name or "\0" in name:
        raise Refused(errno.EREMOTEIO, f"a name that is none: {name!r}")
    return name
