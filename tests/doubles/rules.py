"""A bucket's lifecycle rules, kept to the byte: what speaks like S3 elsewhere writes down what it understood."""

import base64
import hashlib
import itertools
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
        if (trouble := _trouble(ET.fromstring(request.body))) is not None:
            return _refused(400, *trouble)
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


def _trouble(document: ET.Element) -> tuple[str, ...] | None:
    """What AWS finds wrong with rules; of its older form, that of a Prefix outside of a Filter, it takes less."""
    rules = [{_tag(part): part for part in rule} for rule in document if _tag(rule) == "Rule"]
    names = [rule["ID"].text for rule in rules if "ID" in rule]
    if not rules or any(("Prefix" in rule) == ("Filter" in rule) for rule in rules):
        return ("MalformedXML",)
    if len(names) > len(set(names)):
        return "InvalidArgument", "Rule ID must be unique."
    older = [rule for rule in rules if "Prefix" in rule]
    if not older:
        return None
    if len(older) < len(rules):
        return "InvalidRequest", "Filter element can only be used in Lifecycle V2."
    for one, other in itertools.combinations(older, 2):
        first, second = one["Prefix"].text or "", other["Prefix"].text or ""
        for action in (set(one) & set(other)) - {"ID", "Prefix", "Status"}:
            if first.startswith(second) or second.startswith(first):
                return "InvalidRequest", f"Found overlapping prefixes for same action type '{action}'"
    return None


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _refused(status: int, code: str, message: str = "refused") -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, (("Content-Type", "application/xml"),), body)
