"""An HTTP proxy that breaks what it is told to break, and passes on the rest as it came, so that signatures hold."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from tests.certificates import Certified
from tests.doubles.relay import Answer, Request, passed_on, served


@dataclass(frozen=True, slots=True)
class Said:
    """The server refuses, as the clouds word it; by `done` it refuses after it did what it was asked for."""

    status: int
    code: str
    done: bool = False
    date: datetime | None = None
    """What its clock says."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is gone before the server sees the request, or by `done` after it did what it was asked for."""

    done: bool


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Something happens, or is waited for, before the request is passed on."""

    act: Callable[[], object]


Fault = Said | Cut | Meanwhile

NEVER_ARRIVES = Cut(done=False)
ANSWER_LOST = Cut(done=True)
SLOW_DOWN = Said(503, "SlowDown")
SERVER_BUSY = Said(503, "ServerBusy")
INTERNAL_ERROR = Said(500, "InternalError")
EXPIRED_TOKEN = Said(400, "ExpiredToken")
ACCESS_DENIED = Said(403, "AccessDenied")
CLOCK_SKEWED = Said(403, "RequestTimeTooSkewed")
CONFLICT = Said(409, "ConditionalRequestConflict")


@dataclass(slots=True)
class Rule:
    """Which requests a fault befalls, and which of those are spared."""

    fault: Fault
    method: str
    target: re.Pattern[str]
    spared: int
    left: int | None

    def befalls(self, request: Request) -> bool:
        if self.left == 0 or self.method not in ("", request.method) or not self.target.search(request.target):
            return False
        if self.spared:
            self.spared -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass(slots=True)
class FaultyServer:
    """Where clients connect, what befalls them, and what they asked for."""

    upstream: str
    signed: Certified | None = None
    endpoint: str = ""
    seen: list[str] = field(default_factory=list)
    """Method and target of every request, in the order they came."""
    broken: int = 0
    """How many requests a fault has befallen."""
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def breaks(
        self, fault: Fault, method: str = "", target: str = "", *, spared: int = 0, times: int | None = 1
    ) -> None:
        """A fault for requests of that method, in whose path and query the pattern is found.

        The first `spared` of them pass, the next `times` do not (None: no other does). The first rule that fits counts.
        """
        self._rules.append(Rule(fault, method, re.compile(target), spared, times))

    def heals(self) -> None:
        """Nothing is broken any more."""
        self._rules.clear()

    def answer(self, request: Request) -> Answer | None:
        with self._lock:
            self.seen.append(f"{request.method} {request.target}")
            rule = next((rule for rule in self._rules if rule.befalls(request)), None)
            self.broken += rule is not None
        match rule and rule.fault:
            case Meanwhile(act):
                act()
            case Cut(done):
                if done:
                    self._passed_on(request)
                return None
            case Said(done=done) as said:
                if done:
                    self._passed_on(request)
                return _refused(request, said)
        try:
            return self._passed_on(request)
        except OSError:
            # The server is gone, and its client shall see no more of it than without a proxy.
            return None

    def _passed_on(self, request: Request) -> Answer:
        return passed_on(request, self.upstream, str(self.signed.certificate) if self.signed else None)


@contextmanager
def faulty(upstream: str, signed: Certified | None = None) -> Iterator[FaultyServer]:
    """A proxy before an endpoint, over TLS where the certificate is given that the server has too."""
    server = FaultyServer(upstream, signed)
    place = urlsplit(upstream)
    with served(server.answer, signed.server() if signed else None) as port:
        server.endpoint = f"{place.scheme}://127.0.0.1:{port}{place.path}"
        yield server


def _refused(request: Request, refused: Said) -> Answer:
    said = f"<Error><Code>{escape(refused.code)}</Code><Message>broken on purpose</Message></Error>"
    body = b"" if request.method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>\n{said}'.encode()
    told = () if refused.date is None else (("Date", format_datetime(refused.date, usegmt=True)),)
    return Answer(refused.status, (*told, ("Content-Type", "application/xml"), ("x-ms-error-code", refused.code)), body)
