"""A statsd on loopback that reads datagrams and takes no line it could misunderstand."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LINE = re.compile(r"([A-Za-z0-9_./-]+):(\d+)\|([cg])(?:\|#([^|:#]+:[^|,:#\s]*(?:,[^|,:#]+:[^|,:#\s]*)*))?")


@dataclass(frozen=True, slots=True)
class Statsd:
    socket: socket.socket
    bytes: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    def heard(self) -> list[tuple[str, int, str, str]]:
        """(name, value, kind, tags) of each line since it was last asked."""
        found: list[tuple[str, int, str, str]] = []
        while True:
            try:
                datagram = self.socket.recv(65536)
            except BlockingIOError:
                return found
            self.bytes.append(datagram)
            assert len(datagram) <= 1432
            for line in datagram.decode("ascii").split("\n"):
                match = LINE.fullmatch(line)
                assert match, line
                found.append((match[1], int(match[2]), match[3], match[4] or ""))


@contextmanager
def listening() -> Iterator[Statsd]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield Statsd(bound)
