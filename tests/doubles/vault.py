"""A Vault on loopback, within TLS: sessions, the list of archives and their parts, and every way in which they fail."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.certificates import Certified

VERSION = "v25.2"
KINDS = {"F": "full_directdata", "N": "incremental_directdata", "L": "log_directdata"}
TIME = "%Y-%m-%dT%H:%MZ"


@dataclass(slots=True)
class Held:
    """An archive as Vault has it, and what is wrong with how it gives it out."""

    name: str
    start: str
    stop: str
    content: bytes
    records: int = 1
    parts: int = 1
    checksums: bool = True
    seconds: bool = False
    """Whether times are written with them."""
    error: bool = False
    """Whether Vault could not make it, and tells nothing but that."""
    wrong: set[str] = field(default_factory=set)
    """Of what is given out: `md5`, `short`, `cut`, `long`, `json`."""

    @property
    def kind(self) -> str:
        return self.name[-1]

    def cut(self) -> list[bytes]:
        size = -(-len(self.content) // self.parts)
        return [self.content[at : at + size] for at in range(0, len(self.content), size)]

    def item(self, elsewhere: str) -> dict[str, Any]:
        if self.error:
            told = f"Failed to publish {KINDS[self.kind]} file. No other action is needed at this time."
            return {"name": self.name, "error": {"next_retry": "2026-01-15T06:15Z", "message": told}}
        details = []
        for number, part in enumerate(self.cut(), 1):
            one = {
                "name": f"{self.name}.{number:03}",
                "filename": f"{self.name}.tar.gz.{number:03}",
                "filepart": number,
                "size": len(part),
                "url": f"{elsewhere}/api/{VERSION}/services/directdata/private/files/{self.name}.{number:03}",
            }
            if self.checksums:
                one["md5checksum"] = "0" * 32 if "md5" in self.wrong else hashlib.md5(part).hexdigest()
            details.append(one)
        return {
            "name": self.name,
            "filename": f"{self.name}.tar.gz",
            "extract_type": KINDS[self.kind],
            "start_time": self.start.replace("Z", ":00Z") if self.seconds else self.start,
            "stop_time": self.stop.replace("Z", ":00Z") if self.seconds else self.stop,
            "record_count": self.records,
            "size": len(self.content),
            "fileparts": len(details),
            # As they come.
            "filepart_details": details[::-1],
        }


@dataclass(slots=True)
class FakeVault:
    """What it holds, what it is told to do wrong, and what it was asked."""

    username: str = "integration@acme.com"
    password: str = "a secret, 1"
    token: str = "a token of the identity provider"
    held: list[Held] = field(default_factory=list)
    newest_first: bool = False
    initial: bool = False
    """Whether the first full archive is still being made."""
    other_vault: bool = False
    """Whether its user is let into another Vault."""
    permitted: bool = True
    failures: list[str] = field(default_factory=list)
    """Types of failures that the next requests for lists and files get, with the status 200."""
    statuses: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    """Names of parts that are answered with 503."""
    hangs: bool = False
    redirects: str | None = None
    locked: bool = False
    sessions: set[str] = field(default_factory=set)
    logins: int = 0
    requests: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    """Names of the parts it was asked for."""
    wrong: list[str] = field(default_factory=list)
    """What was asked that no Vault takes."""
    instead: dict[str, Any] = field(default_factory=dict)
    """By the end of a path, what is answered in place of what a Vault says."""
    let_go: threading.Event = field(default_factory=threading.Event)
    dns: str = ""
    elsewhere: str = "https://another.vaultpvm.com"

    def hold(self, *several: Held) -> None:
        self.held += several

    def end_sessions(self) -> None:
        self.sessions.clear()


class _Handler(BaseHTTPRequestHandler):
    vault: FakeVault
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass

    def _answer(self, method: str) -> None:
        vault, said = self.vault, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        vault.requests.append(f"{method} {said.path}")
        if not self.headers.get("X-VaultAPI-ClientID"):
            vault.wrong.append("a request without a client id")
        if vault.hangs:
            vault.let_go.wait(60)
            return
        if vault.redirects is not None:
            self._send(b"", status=302, Location=vault.redirects)
            return
        if vault.statuses:
            self._send(b"no JSON", status=vault.statuses.pop(0), kind="text/html")
            return
        for ending, answer in vault.instead.items():
            if said.path.endswith(ending):
                self._json(answer)
                return
        if said.path == f"/api/{VERSION}/auth" and method == "POST":
            self._log_in(parse_qs(body))
        elif said.path.startswith("/auth/oauth/session/") and method == "POST":
            self._log_in_by_token()
        else:
            self._within(method, said.path, {name: value[0] for name, value in parse_qs(said.query).items()})

    def _log_in(self, said: Mapping[str, list[str]]) -> None:
        vault = self.vault
        vault.logins += 1
        if vault.locked:
            return self._fail("USER_LOCKED_OUT", "This user is locked out.")
        if (said.get("username"), said.get("password")) != ([vault.username], [vault.password]):
            # A second wrong one in a row is one too many.
            vault.locked = True
            return self._fail("USERNAME_OR_PASSWORD_INCORRECT", "Authentication failed.")
        return self._let_in()

    def _log_in_by_token(self) -> None:
        self.vault.logins += 1
        if self.headers.get("Authorization") != f"Bearer {self.vault.token}":
            return self._fail("INVALID_TOKEN", "The token is not valid.")
        return self._let_in()

    def _let_in(self) -> None:
        vault = self.vault
        session = f"SESSION{vault.logins:04}"
        vault.sessions.add(session)
        mine = "other.veevavault.com" if vault.other_vault else vault.dns
        ids = [{"id": 1, "name": "A", "url": f"https://{mine}/api"}, {"id": 2, "name": "B", "url": "https://b/api"}]
        return self._json({"sessionId": session, "userId": 12, "vaultIds": ids, "vaultId": 1})

    def _within(self, method: str, path: str, said: dict[str, str]) -> None:
        vault = self.vault
        if self.headers.get("Authorization", "") not in vault.sessions:
            return self._fail("INVALID_SESSION_ID", "Invalid or expired session ID.")
        if path == "/api/":
            mine = "other.veevavault.com" if vault.other_vault else vault.dns
            return self._json({"values": {VERSION: f"https://{mine}/api/{VERSION}"}})
        if method == "DELETE" and path == f"/api/{VERSION}/session":
            vault.sessions.discard(self.headers["Authorization"])
            return self._json({})
        if vault.failures:
            kind = vault.failures.pop(0)
            if kind == "INVALID_SESSION_ID":
                vault.end_sessions()
            return self._fail(kind, "As Vault says it.")
        if not vault.permitted:
            return self._fail("INSUFFICIENT_ACCESS", "User [12] not licensed for permission [VaultActions_API_Access].")
        if path == f"/api/{VERSION}/services/directdata/files":
            return self._list(said)
        return self._part(path.removeprefix(f"/api/{VERSION}/services/directdata/files/"))

    def _list(self, said: dict[str, str]) -> None:
        vault = self.vault
        if set(said) - {"extract_type", "start_time", "stop_time"}:
            vault.wrong.append(f"parameters {sorted(said)}")
        for name in ("start_time", "stop_time"):
            if name in said and (len(said[name]) != len("2026-01-15T05:00Z") or not said[name].endswith("Z")):
                vault.wrong.append(f"{name} {said[name]}")
        if vault.initial:
            return self._fail("OPERATION_NOT_ALLOWED", "Initial file being generated. Please check again later.")
        begins, ends = said.get("start_time", ""), said.get("stop_time", "9")
        found = [
            one
            for one in vault.held
            if KINDS[one.kind] == said.get("extract_type", KINDS[one.kind]) and begins <= one.start and one.stop <= ends
        ]
        found.sort(key=lambda one: one.stop, reverse=vault.newest_first)
        items = [one.item(vault.elsewhere) for one in found]
        return self._json({"responseDetails": {"total": len(items)}, "data": items})

    def _part(self, name: str) -> None:
        vault = self.vault
        vault.given.append(name)
        if name in vault.away:
            return self._send(b"", status=503)
        held = {f"{one.name}.{at:03}": (one, part) for one in vault.held for at, part in enumerate(one.cut(), 1)}
        if name not in held or held[name][0].error:
            return self._fail("MALFORMED_URL", "There is no such file.")
        one, part = held[name]
        wrong = one.wrong
        if "json" in wrong:
            return self._json({"data": []})
        content = part[:-3] if wrong & {"short", "cut"} else part + b"more" if "long" in wrong else part
        kind = "application/octet-stream;charset=UTF-8"
        length = len(part) if "cut" in wrong else len(content)
        return self._send(content, kind=kind, length=length)

    def _fail(self, kind: str, message: str) -> None:
        self._json({"responseStatus": "FAILURE", "errors": [{"type": kind, "message": message}]})

    def _json(self, said: Mapping[str, Any]) -> None:
        self._send(json.dumps({"responseStatus": "SUCCESS", **said}).encode())

    def _send(
        self,
        content: bytes,
        *,
        status: int = 200,
        kind: str = "application/json;charset=UTF-8",
        length: int | None = None,
        **headers: str,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.vault.delays:
            self.send_header("X-VaultAPI-ResponseDelay", str(self.vault.delays.pop(0)))
        self.end_headers()
        self.wfile.write(content)
        if length is not None and length != len(content):
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who speaks to it may leave at any time."""


@contextmanager
def vault_server(certified: Certified) -> Iterator[FakeVault]:
    """A Vault at `dns`; nothing may have been asked of it that no Vault takes."""
    vault = FakeVault()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"vault": vault}))
    server.socket = certified.server().wrap_socket(server.socket, server_side=True)
    vault.dns = f"localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        vault.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert vault.wrong == []
