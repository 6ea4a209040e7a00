"""Ids of traces and spans, made of what the work is called, so that processes of one run agree on them unasked."""

import hashlib
import re
from dataclasses import dataclass

# A later version may have more behind what this one has; ff is none.
TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)


@dataclass(frozen=True, slots=True)
class Parent:
    """Whose work the command's is a part of."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Tracing:
    """What makes ids: the caller's trace where it named one, else one for each run."""

    parent: Parent | None = None

    def trace_id(self, run_id: str) -> str:
        return self.parent.trace_id if self.parent is not None else _hashed("run", run_id)[:32]

    def parent_id(self) -> str | None:
        return self.parent.span_id if self.parent is not None else None


def parent_in(text: str | None) -> Parent | None:
    """The parent a `TRACEPARENT` names; one that is written otherwise is none, as its standard says."""
    found = TRACEPARENT.fullmatch(text.strip()) if text else None
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return Parent(found["trace"], found["span"])


def span_id(run_id: str, token: int, *what: str) -> str:
    """The id of a command's work on a run, or of some part of it. No two commands have a token of a pipeline."""
    return _hashed("span", run_id, str(token), *what)[:16]


def _hashed(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
