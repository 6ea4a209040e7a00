"""HTTP servers on threads of a test: they hand each request to a function whole, and pass requests on as they came."""

import http.client
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# They speak of one connection only. Whoever sent `Expect` was told to go on by the server here.
HOP = frozenset({"connection", "keep-alive", "proxy-connection", "expect"})
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request, target and headers as they were sent, for a signature would not hold over others."""

    method: str
    target: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request."""

    status: int
    headers: Headers = ()
    body: bytes = b""


# No answer is a connection that is cut.
Answering = Callable[[Request], Answer | None]


def passed_on(request: Request, upstream: str, trusted: str | None = None) -> Answer:
    """What the server behind says to the same request."""
    place = urlsplit(upstream)
    host, port = place.hostname or "", place.port or 0
    link: http.client.HTTPConnection
    if place.scheme == "https":
        link = http.client.HTTPSConnection(host, port, context=ssl.create_default_context(cafile=trusted))
    else:
        link = http.client.HTTPConnection(host, port)
    try:
        link.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            if name.lower() not in HOP:
                link.putheader(name, value)
        link.endheaders(request.body)
        said = link.getresponse()
        return Answer(said.status, tuple(said.getheaders()), said.read())
    finally:
        link.close()


@contextmanager
def served(answering: Answering, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port at which a function answers, until the end."""
    server = _Server(answering)
    if tls is not None:
        # Who never shakes hands keeps nobody else waiting.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, answering: Answering) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answering = answering
        self.links: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        link, address = super().get_request()
        self.links.add(link)
        return link, address

    def shutdown_request(self, request: Any) -> None:
        self.links.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        # Those who wait for a next request on a link that stays open wait for nobody.
        for link in tuple(self.links):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that go away are what such tests are about; anything else is told as usual.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def respond(self) -> None:
        headers = tuple(self.headers.items())
        answer = self.server.answering(Request(self.command, self.path, headers, self._body()))
        if answer is None:
            self._cut()
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            # What came in pieces was put together here.
            if name.lower() not in (*HOP, "transfer-encoding"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    # The names that http.server asks for.
    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = respond  # noqa: N815

    def _body(self) -> bytes:
        """What was sent behind the headers, byte by byte, marks of pieces included."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while True:
            mark = self.rfile.readline()
            size = int(mark.partition(b";")[0], 16)
            pieces += [mark, self.rfile.read(size) if size else b"", self.rfile.readline()]
            if not size:
                return b"".join(pieces)

    def _cut(self) -> None:
        """As if a cable were drawn: the client is told of a reset."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closed here, for the server would end the link in peace.
        self.connection.close()

    def log_message(self, *words: object) -> None:
        """Nobody reads it."""
