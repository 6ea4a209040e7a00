"""A bucket's lifecycle rules, kept to the byte: what speaks like S3 elsewhere writes down what it understood."""

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.doubles.relay import Answer, Request, served

SMALLEST = "x-amz-transition-default-minimum-object-size"


@dataclass(slots=True)
class Rules:
    document: bytes | None = None
    smallest: str | None = None
    endpoint: str = ""
    written: list[bytes] = field(default_factory=list)
    """Every document that was put there."""
    afterwards: Callable[[], None] = lambda: None
    """What happens right behind a write."""
    stale: int = 0
    """So many answers behind a write still show what was there before it."""
    _older: bytes | None = None

    def answer(self, request: Request) -> Answer:
        if "lifecycle" not in request.query:
            return _refused(501, "NotImplemented")
        match request.method:
            case "GET":
                return self._read()
            case "PUT":
                return self._write(request)
            case "DELETE":
                self.document = None
                return Answer(204)
        return _refused(405, "MethodNotAllowed")

    def _read(self) -> Answer:
        shown = self.document
        if self.written and self.stale:
            self.stale -= 1
            shown = self._older
        if shown is None:
            return _refused(404, "NoSuchLifecycleConfiguration")
        more = () if self.smallest is None else ((SMALLEST, self.smallest),)
        return Answer(200, (("Content-Type", "application/xml"), *more), shown)

    def _write(self, request: Request) -> Answer:
        if request.header("Content-MD5") != base64.b64encode(hashlib.md5(request.body).digest()).decode():
            return _refused(400, "InvalidRequest")
        if not [one for one in ET.fromstring(request.body) if one.tag.endswith("Rule")]:
            return _refused(400, "MalformedXML")
        self.written.append(request.body)
        self._older, self.document, self.smallest = self.document, request.body, request.header(SMALLEST)
        self.afterwards()
        return Answer(200)


@contextmanager
def rules() -> Iterator[Rules]:
    """A server with one bucket, whatever its name."""
    made = Rules()
    with served(made.answer) as port:
        made.endpoint = f"http://127.0.0.1:{port}"
        yield made


def _refused(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()
    return Answer(status, (("Content-Type", "application/xml"),), body)
