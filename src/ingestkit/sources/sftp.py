"""A folder of an SFTP server as a drop, over one connection per thread."""

import errno
import io
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO, ClassVar, TypeVar, cast

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.sources import ssh
from ingestkit.sources.drop import Entry, Opened
from ingestkit.sources.reading import GONE, changed
from ingestkit.sources.sftp_client import LOST, REQUEST, Attributes, Client, Refused, RemoteFile
from ingestkit.sources.ssh import Server

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Links:
    """The open connections, each of one thread; one whose thread has ended is the next one's."""

    connect: Callable[[], Client]
    _held: dict[threading.Thread, Client] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def held(self) -> Client | None:
        """This thread's, where it has one or can have one that nobody needs any more."""
        me = threading.current_thread()
        with self._lock:
            left = next((one for one in self._held if not one.is_alive()), None)
            if me not in self._held and left is not None:
                self._held[me] = self._held.pop(left)
            return self._held.get(me)

    def made(self) -> Client:
        made = self.connect()
        with self._lock:
            self._held[threading.current_thread()] = made
        return made

    def drop(self, client: Client) -> None:
        with self._lock:
            self._held = {thread: one for thread, one in self._held.items() if one is not client}
        client.end()

    def close(self) -> None:
        for client in list(self._held.values()):
            self.drop(client)


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    drop: "SftpDrop"
    path: str
    status: Attributes

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    def is_dir(self) -> bool:
        try:
            return stat.S_ISDIR(self.stat().st_mode)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise

    def stat(self, *, follow_symlinks: bool = True) -> Attributes:
        return self.drop.stat(self.path) if follow_symlinks and self.is_symlink() else self.status


@dataclass(slots=True)
class SftpDrop:
    server: Server
    links: Links
    _root: PurePosixPath | None = None
    _seen: dict[threading.Thread, tuple[str, Attributes]] = field(default_factory=dict)
    """What a thread was told along with where a path leads, for the reading that follows."""
    # Servers tell whole seconds of a clock that is not ours, and that some set to their local time.
    step: ClassVar[float] = 86_400.0

    def named(self, path: str) -> str:
        return shown(f"{self.server.name}:{self._path(path)}")

    def entries(self, folder: str) -> Sequence[Entry]:
        before = f"{folder}/" if folder else ""
        there = self._asked(lambda client: client.entries(self._path(folder)))
        return [RemoteEntry(self, before + name, status) for name, status in there]

    def entry(self, path: str) -> Entry:
        where = self._path(path)
        return RemoteEntry(self, path, self._asked(lambda client: client.status(where, follow=False)))

    def stat(self, path: str) -> Attributes:
        return self._asked(lambda client: client.status(self._path(path)))

    def real(self, path: str) -> PurePath:
        if path:
            return self._told(self._path(path))
        self._root = self._root or self._real(self._path(""))
        return self._root

    @contextmanager
    def reading(self, real: PurePath) -> Iterator[Opened]:
        path = str(real)
        name = shown(f"{self.server.name}:{path}")
        try:
            said, before = self._seen.pop(threading.current_thread(), ("", None))
            if before is None or said != path:
                before = self._asked(lambda client: client.status(path))
            if not stat.S_ISREG(before.st_mode):
                # A pipe would be waited on for ever.
                yield Opened(cast("BinaryIO", io.BytesIO()), lambda: before)
                return
            raw = RemoteFile(self, path, before, partial(_refuse_other, name, before))
        except OSError as error:
            raise self.failed(error, path) from error
        except LOST as error:
            raise self._lost(error) from error
        with io.BufferedReader(raw, REQUEST) as file:
            seen = iter((before,))
            # What was asked before the file was opened need not be asked again.
            yield Opened(file, lambda: next(seen, None) or self._status(raw))

    def rename(self, path: str, to: str) -> None:
        self._asked(lambda client: client.rename_file(self._path(path), self._path(to)), again=False)

    def remove(self, path: str) -> None:
        self._asked(lambda client: client.remove_file(self._path(path)), again=False)

    def make_folder(self, path: str) -> None:
        try:
            self.stat(path)
        except OSError as error:
            above = path.rpartition("/")[0]
            if error.errno != errno.ENOENT:
                raise
            if above:
                self.make_folder(above)
            self._asked(lambda client: client.make_folder(self._path(path)), again=False)

    def failed(self, error: OSError, path: str, *, gone: str = GONE, transient: bool = False) -> SourceError:
        name = self.named(path)
        match error.errno:
            case errno.ENOENT:
                return SourceError(f"{name} {gone}", transient=transient)
            case errno.EACCES:
                return SourceError(
                    f"no permission to read {name}", hint=f"look at its rights: {ssh.by_hand(self.server)}, then ls -l"
                )
            case _:
                said = shown(error.strerror or str(error))
                return SourceError(f"{name} cannot be read: the server says {said}", transient=True)

    def absent(self, connection: str) -> SourceError:
        change = f"change `path` of connection {connection}"
        try:
            self.stat("")
        except OSError:
            return SourceError(f"the drop folder {self.named('')} does not exist", hint=f"have it made, or {change}")
        return SourceError(f"{self.named('')} is not a folder", hint=change)

    def client(self) -> Client:
        return self.links.held() or self.links.made()

    def lost(self, client: Client, error: Exception) -> SourceError:
        self.links.drop(client)
        return self._lost(error)

    def _asked(self, ask: Callable[[Client], Answer], *, again: bool = True) -> Answer:
        """What the server answers. A connection that has been idle may be gone, and a new one is asked then.

        Not `again` what changes something: it may be done, and only its answer lost.
        """
        client = self.links.held()
        if client is not None:
            try:
                return ask(client)
            except Refused:
                raise
            except (*LOST, OSError) as error:
                if not again:
                    raise self.lost(client, error) from error
                self.links.drop(client)
        client = self.links.made()
        try:
            return ask(client)
        except Refused:
            raise
        except (*LOST, OSError) as error:
            raise self.lost(client, error) from error

    def _status(self, file: RemoteFile) -> Attributes:
        try:
            return file.status()
        except Refused as error:
            raise self.failed(error, file.path) from error
        except (*LOST, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> SourceError:
        why = str(error) or type(error).__name__
        return SourceError(f"the connection to {self.server.name} was lost: {shown(why)}", transient=True)

    def _path(self, path: str) -> str:
        root = self.server.settings.path
        if path.startswith("/"):
            return path
        return f"{root.rstrip('/')}/{path}" if path else root

    def _told(self, path: str) -> PurePosixPath:
        try:
            real, status = self._asked(lambda client: client.real_and_status(path))
        except Refused:
            return self._real(path)
        self._seen[threading.current_thread()] = real, status
        return PurePosixPath(real)

    def _real(self, path: str) -> PurePosixPath:
        """Where a path leads; of one that leads to nothing, where it would be."""
        try:
            return PurePosixPath(self._asked(lambda client: client.real(path)))
        except Refused as error:
            above, slash, name = path.rpartition("/")
            if error.errno != errno.ENOENT or not slash or path == self.server.settings.path:
                raise
            return self._real(above or "/") / name


def open_drop(server: Server) -> SftpDrop:
    return SftpDrop(server, Links(ssh.connecting(server)))


def _refuse_other(name: str, before: Attributes, now: Attributes) -> None:
    if (before.st_size, before.st_mtime) != (now.st_size, now.st_mtime):
        raise changed(name)
