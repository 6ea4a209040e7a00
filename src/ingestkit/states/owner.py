"""Who holds a lease: which process on which machine, and whether it is certain that it is dead."""

import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from ingestkit.model import Json, sha256_of

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. What the system does not tell is None; such an owner is only ever dead by expiry."""

    host: str
    boot: str | None
    pid_namespace: str | None
    pid: int
    started: int | None
    random: str

    @classmethod
    def here(cls) -> Self:
        pid = os.getpid()
        stat = _stat(pid)
        started = None if stat is None else _started(stat)
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, started, secrets.token_hex(8))

    def is_dead(self) -> bool:
        """Whether it is certain that the process is gone. A stopped process is alive, and so is one out of sight."""
        unknown = self.boot is None or self.pid_namespace is None or self.started is None
        if unknown or (self.boot, self.pid_namespace) != (_boot(), _pid_namespace()):
            return False
        # /proc may hide the processes of others; a signal that is not sent tells whether there is one.
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        stat = _stat(self.pid)
        return stat is not None and _started(stat) != self.started

    def tag(self) -> str:
        """The process as a folder's name; `ended` reads it back."""
        machine = sha256_of([self.host, self.boot, self.pid_namespace])[:12]
        return f"{machine}-{self.pid}-{self.started}"

    def ended(self, tag: str) -> bool:
        """Whether a tag is of a process of this machine that is certainly gone."""
        match = re.fullmatch(r"([0-9a-f]{12})-(\d+)-(\d+)", tag)
        if match is None or self.tag().split("-")[0] != match[1]:
            return False
        return replace(self, pid=int(match[2]), started=int(match[3])).is_dead()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**row)

    def shown(self) -> str:
        return f"process {self.pid} on {self.host}"


def _stat(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def _started(stat: str) -> int | None:
    """When a process began, in ticks since boot; None when it has ended and only its parent has not noticed."""
    # The second field is the program's name in brackets, which may hold anything.
    fields = stat.rpartition(")")[2].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # A process whose first thread has ended lives on in its other threads, and looks ended meanwhile.
    ended = state in "ZX" and threads <= 1
    return None if ended else started


def _boot() -> str | None:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return None
