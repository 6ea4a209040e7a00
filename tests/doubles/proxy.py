"""A TCP proxy that breaks links: cut at a byte or around a word, delayed, throttled; for any server beside a test."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

BLOCK = 65536


@dataclass(slots=True)
class Faults:
    """What happens to links; it may be changed while they stand, and counts for bytes that come then."""

    cut_up: int | None = None
    """Cut a link when so many bytes have gone from client to server."""
    cut_down: int | None = None
    """Cut a link when so many bytes have gone from server to client."""
    cuts_down: list[int] = field(default_factory=list)
    """The same for each next link by itself; those behind the last are cut as `cut_down` says."""
    cuts_at: list[int] = field(default_factory=list)
    """Cut the link over which so many bytes have come, over all links and both ways; then at the next number."""
    cut_before: bytes | None = None
    """Cut a link in place of passing on what holds these bytes: the server never sees them."""
    cut_after: bytes | None = None
    """Pass on what holds these bytes, wait for the server's answer, and cut the link in its place."""
    once_seen: bytes | None = None
    """Cut only links over which the client has sent these bytes before."""
    times: int | None = None
    """Cut so many links at most."""
    delay: float = 0.0
    """Seconds by which every block comes later."""
    rate: int | None = None
    """At most so many bytes a second, in each direction."""
    silent: bool = False
    """Pass nothing on, and keep the links."""
    refuse: bool = False
    """Take no new link."""


@dataclass(slots=True)
class Proxy:
    """Where clients connect, what befalls them, and how many links were cut."""

    upstream: tuple[str, int]
    faults: Faults = field(default_factory=Faults)
    cuts: int = 0
    passed: int = 0
    """How many bytes have come, over all links and both ways."""
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _links: list["_Link"] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def links(self) -> int:
        """How many links were taken until now."""
        return len(self._links)

    def counts(self, size: int) -> bool:
        """Count bytes that come; whether the link over which they do is to be cut in place of passing them on."""
        with self._lock:
            self.passed += size
            at = self.faults.cuts_at
            if not at or self.passed < at[0]:
                return False
            at.pop(0)
            return True

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.faults.refuse:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.upstream)
            except OSError:
                _reset(client)
                continue
            cuts = self.faults.cuts_down
            link = _Link(self, client, server, cuts.pop(0) if cuts else None)
            self._links.append(link)
            for way in (link.up, link.down):
                threading.Thread(target=way, daemon=True).start()

    def cut(self) -> None:
        """Cut every link there is."""
        for link in self._links:
            link.cut()

    def close(self) -> None:
        # Closing alone would not wake up who waits for a client.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.end()


@dataclass(slots=True)
class _Link:
    proxy: Proxy
    client: socket.socket
    server: socket.socket
    cut_down: int | None
    marked: bool = False
    """Whether the client has sent what makes it one to be cut."""
    answerless: bool = False
    """Whether the server's next word is the one that must not arrive."""
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def up(self) -> None:
        self._pump(self.client, self.server, upward=True)

    def down(self) -> None:
        self._pump(self.server, self.client, upward=False)

    def _pump(self, out: socket.socket, into: socket.socket, *, upward: bool) -> None:
        passed = 0
        with suppress(OSError):
            while block := out.recv(BLOCK):
                faults = self.proxy.faults
                self._slow(len(block))
                if self.proxy.counts(len(block)):
                    return self.cut()
                if not self._to_be_cut(block, upward=upward):
                    into.sendall(block)
                    continue
                limit = faults.cut_up if upward else self.cut_down or faults.cut_down
                if limit is not None and passed + len(block) >= limit:
                    into.sendall(block[: max(0, limit - passed)])
                    return self.cut()
                if upward and faults.cut_before is not None and faults.cut_before in block:
                    return self.cut()
                if upward and faults.cut_after is not None and faults.cut_after in block:
                    self.answerless = True
                elif not upward and self.answerless:
                    return self.cut()
                into.sendall(block)
                passed += len(block)
            into.shutdown(socket.SHUT_WR)
            return None
        return self.end()

    def _to_be_cut(self, block: bytes, *, upward: bool) -> bool:
        faults = self.proxy.faults
        ready = self.marked or faults.once_seen is None
        if upward and faults.once_seen is not None and faults.once_seen in block:
            self.marked = True
        return ready and (faults.times is None or self.proxy.cuts < faults.times)

    def _slow(self, size: int) -> None:
        faults = self.proxy.faults
        while faults.silent and not self.ended:
            time.sleep(0.01)
        wait = faults.delay + (size / faults.rate if faults.rate else 0.0)
        if wait:
            time.sleep(wait)

    def cut(self) -> None:
        """As if a cable were drawn: both ends are told of a reset."""
        with self.lock:
            if self.ended:
                return
            self.ended = True
        self.proxy.cuts += 1
        for one in (self.client, self.server):
            _reset(one)

    def end(self) -> None:
        with self.lock:
            self.ended = True
        for one in (self.client, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Who reads from it in another thread is woken up; a closed socket alone would leave it waiting.
    with suppress(OSError):
        one.shutdown(socket.SHUT_RD)
    one.close()


@contextmanager
def proxied(host: str, port: int) -> Iterator[Proxy]:
    """A proxy before a server, which is gone afterwards."""
    proxy = Proxy((host, port))
    serving = threading.Thread(target=proxy.serve, daemon=True)
    serving.start()
    try:
        yield proxy
    finally:
        proxy.close()
        serving.join(10)
