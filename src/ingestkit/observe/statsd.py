"""Figures for statsd: datagrams of text, which nobody answers."""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ingestkit.errors import TargetError
from ingestkit.ports import Measure, Span

DATAGRAM = 1432
"""Bytes that go through any network in one piece."""


@dataclass(frozen=True, slots=True)
class Statsd:
    """Totals as counters, by what this command added to them; levels as gauges."""

    host: str
    port: int
    prefix: str
    tags: Literal["datadog", "names"]

    # The service dates what it hears, and knows no spans.
    def tell(self, at: datetime, measures: Sequence[Measure], spans: Sequence[Span]) -> None:  # noqa: ARG002
        lines = [self._line(one, value) for one in measures if (value := _value(one, at)) is not None]
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as out:
                for datagram in _datagrams(lines):
                    out.sendto(datagram, address)
        except OSError as error:
            raise TargetError(f"cannot be sent to: {error.strerror or type(error).__name__}") from error

    def _line(self, one: Measure, value: str) -> bytes:
        name = f"{self.prefix}.{one.name}"
        tags = [(key, re.sub(r"[^\w./-]", "_", value)) for key, value in one.tags.items()]
        if self.tags == "names":
            return ".".join((name, *(tag.replace(".", "_") for _, tag in tags))).encode() + f":{value}".encode()
        return f"{name}:{value}|#{','.join(f'{key}:{tag}' for key, tag in tags)}".encode()


def _value(one: Measure, at: datetime) -> str | None:
    """The figure with its kind; durations are whole milliseconds there. None where there is nothing to say."""
    if isinstance(one.value, datetime):
        return f"{max(0, round((at - one.value).total_seconds()))}|g"
    thousand = 1000 if one.unit == "s" else 1
    if one.kind == "total":
        grew = round(one.grew * thousand)
        return f"{grew}|c" if grew else None
    return f"{round(one.value * thousand)}|g"


def _datagrams(lines: Sequence[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for line in lines:
        if held and sum(map(len, held)) + len(held) + len(line) > DATAGRAM:
            yield b"\n".join(held)
            held = []
        held.append(line)
    if held:
        yield b"\n".join(held)
