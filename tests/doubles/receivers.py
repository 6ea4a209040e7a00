"""Who takes alerts, on loopback: an address for webhooks, and a mail server that speaks within TLS alone."""

import base64
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.certificates import Certified


@dataclass(slots=True)
class Receiver:
    """What it was sent; `behaves` is what it does with the next request."""

    url: str = ""
    status: int = 200
    hangs: bool = False
    drips: bool = False
    """Its answer comes byte by byte, and has no end."""
    location: str | None = None
    hears: Callable[[], object] | None = None
    """Called with each message, before it is answered."""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        receiver = self.receiver
        receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
        if receiver.hears is not None:
            receiver.hears()
        if receiver.hangs:
            receiver.let_go.wait(300)
            return
        while receiver.drips and not receiver.let_go.wait(0.2):
            self.wfile.write(b"H")
        answer = b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"
        self.send_response(receiver.status)
        if receiver.location is not None:
            self.send_header("Location", receiver.location)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who speaks to it may leave at any time."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": receiver}))
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        server.shutdown()
        server.server_close()


@dataclass(slots=True)
class MailServer:
    port: int = 0
    offers_tls: bool = True
    hangs: bool = False
    refuses: bool = False
    parts_ill: bool = False
    mails: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    in_the_open: list[str] = field(default_factory=list)
    """What was said before TLS."""
    let_go: threading.Event = field(default_factory=threading.Event)


class _Mail(socketserver.StreamRequestHandler):
    known: MailServer
    signed: Certified

    def handle(self) -> None:
        if self.known.hangs:
            self.known.let_go.wait(300)
            return
        secure = False
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            if not secure:
                self.known.in_the_open.append(line)
            word = line.split(" ")[0].upper()
            if word == "STARTTLS":
                self._say("220 go on")
                self.request = self.signed.server().wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
                secure = True
            elif word == "DATA":
                self._take()
            else:
                self._answer(word, line, secure=secure)
            if word == "QUIT":
                break
        self.request.close()

    def _answer(self, word: str, line: str, *, secure: bool) -> None:
        if word == "EHLO":
            self._say(
                "250-here", "250 AUTH PLAIN" if secure else "250 STARTTLS" if self.known.offers_tls else "250 HELP"
            )
        elif word == "AUTH":
            self.known.logins.append(base64.b64decode(line.split(" ")[2]).decode())
            self._say("235 welcome")
        elif word == "RCPT":
            self.known.receivers.append(line.partition("<")[2].partition(">")[0])
            self._say("550 s3cret words" if self.known.refuses else "250 well")
        elif word == "QUIT":
            self._say("451 stay" if self.known.parts_ill else "221 go")
        else:
            self._say("250 well")

    def _take(self) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
            lines.append(line)
        self.known.mails.append("\n".join(lines))
        self._say("250 taken")

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class _MailListener(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who does not trust its certificate leaves."""


@contextmanager
def mailing(signed: Certified) -> Iterator[MailServer]:
    known = MailServer()
    server = _MailListener(("127.0.0.1", 0), type("Mail", (_Mail,), {"known": known, "signed": signed}))
    known.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.let_go.set()
        server.shutdown()
        server.server_close()
