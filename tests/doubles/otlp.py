"""A collector of OpenTelemetry on loopback: it reads by the official messages, and forgives nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.metrics.v1 import metrics_pb2

Tags = tuple[tuple[str, str | int], ...]
PLAUSIBLE = range(1_600_000_000_000_000_000, 4_000_000_000_000_000_000)
"""Instants in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Point:
    kind: str
    unit: str
    value: float
    began: int
    at: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    tags: dict[str, str | int]
    failed: bool


@dataclass(slots=True)
class Collector:
    """What it was sent; `behaves` is what it does with the next request."""

    url: str = ""
    behaves: str = "well"
    status: int = 200
    reason: str = "as it says"
    location: str | None = None
    refuses: int = 0
    points: dict[str, dict[Tags, list[Point]]] = field(default_factory=dict)
    spans: list[Heard] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def value(self, name: str, **tags: str) -> float:
        """The newest value of the one series whose tags are these, among others."""
        found = [points[-1].value for known, points in self.points[name].items() if tags.items() <= dict(known).items()]
        assert len(found) == 1, (name, tags, self.points[name])
        return found[0]

    def take_metrics(self, body: bytes) -> bytes:
        request = metrics_service.ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            assert _tags(resource.resource.attributes) == (("service.name", "ingestkit"),)
            for scope in resource.scope_metrics:
                assert scope.scope.name == "ingestkit"
                names = [metric.name for metric in scope.metrics]
                assert len(names) == len(set(names)), "a metric stands twice in a request"
                for metric in scope.metrics:
                    self._take_metric(metric)
        answer = metrics_service.ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = self.refuses
        return bytes(answer.SerializeToString())

    def _take_metric(self, metric: metrics_pb2.Metric) -> None:
        assert metric.description
        kind = metric.WhichOneof("data")
        assert kind in ("sum", "gauge"), kind
        held: Any = getattr(metric, kind)
        if kind == "sum":
            assert held.is_monotonic
            assert held.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        series = self.points.setdefault(metric.name, {})
        seen = set()
        for point in held.data_points:
            tags = _tags(point.attributes)
            assert tags not in seen, "a series stands twice in a request"
            seen.add(tags)
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
            new = Point(kind, metric.unit, value, point.start_time_unix_nano, point.time_unix_nano)
            assert new.at in PLAUSIBLE
            assert new.value >= 0
            before = series.setdefault(tags, [])
            if kind == "sum":
                assert new.began in PLAUSIBLE
                assert new.began <= new.at
                if before:
                    assert new.began == before[-1].began, "a total began anew"
                    assert new.value >= before[-1].value, "a total fell"
            if before:
                assert new.at >= before[-1].at
            before.append(new)

    def take_spans(self, body: bytes) -> bytes:
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    assert len(span.trace_id) == 16, span
                    assert len(span.span_id) == 8, span
                    assert any(span.trace_id), span
                    assert len(span.parent_span_id) in (0, 8), span
                    assert span.start_time_unix_nano in PLAUSIBLE
                    assert span.start_time_unix_nano <= span.end_time_unix_nano
                    heard = Heard(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        dict(_tags(span.attributes)),
                        span.status.code == 2,
                    )
                    assert all((one.trace_id, one.span_id) != (heard.trace_id, heard.span_id) for one in self.spans)
                    self.spans.append(heard)
        return bytes(trace_service.ExportTraceServiceResponse().SerializeToString())


def _tags(attributes: Any) -> Tags:
    found = []
    for one in attributes:
        kind = one.value.WhichOneof("value")
        assert kind in ("string_value", "int_value"), kind
        found.append((one.key, getattr(one.value, kind)))
    assert len({key for key, _ in found}) == len(found), "an attribute stands twice"
    return tuple(sorted(found))


class _Handler(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        collector = self.collector
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.bodies += [self.requestline.encode(), body]
        collector.headers.append({name.lower(): value for name, value in self.headers.items()})
        match collector.behaves:
            case "hangs":
                collector.let_go.wait(300)
            case "drips":
                # An answer that never ends, and is never silent for long.
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not collector.let_go.wait(0.1):
                    self.wfile.write(b"x")
            case "cuts":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            case "babbles":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n\xff\xff\xff no message at all")
            case _:
                self._answer(self._taken(body) if collector.status == 200 else b"")

    def _taken(self, body: bytes) -> bytes:
        taken = {"/v1/metrics": self.collector.take_metrics, "/v1/traces": self.collector.take_spans}
        try:
            assert self.headers["Content-Type"] == "application/x-protobuf"
            return taken[self.path](body)
        except Exception as error:
            self.collector.wrong.append(f"{self.path}: {error!r}")
            raise

    def _answer(self, answer: bytes) -> None:
        self.send_response(self.collector.status, self.collector.reason)
        if self.collector.location:
            self.send_header("Location", self.collector.location)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who speaks to it may leave at any time; what is wrong is kept."""


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens; what it was sent and should not have been is an error at its end."""
    collector = Collector()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"collector": collector}))
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        collector.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not collector.wrong, collector.wrong
