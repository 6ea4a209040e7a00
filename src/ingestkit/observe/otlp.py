"""Figures and spans for OpenTelemetry collectors: OTLP as protobuf over HTTP, one request for each of the two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from ingestkit.errors import TargetError
from ingestkit.ports import Measure, Span

Answer = TypeVar("Answer", ExportMetricsServiceResponse, ExportTraceServiceResponse)
SCOPE = common.InstrumentationScope(name="ingestkit")
SPANS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Otlp:
    """Totals are cumulative, since they are those of the state: a process begins no count of its own."""

    endpoint: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ca_file: Path | None
    traces: bool
    patience: float

    def tell(self, at: datetime, measures: Sequence[Measure], spans: Sequence[Span]) -> None:
        with requests.Session() as session:
            # Without one of its own it would take what ~/.netrc says for the host, over the headers that were given.
            session.auth = _as_it_is
            answer = self._sent(session, "v1/metrics", metrics_of(at, measures).SerializeToString())
            refused = _read(ExportMetricsServiceResponse(), answer).partial_success.rejected_data_points
            for start in range(0, len(spans) if self.traces else 0, SPANS_AT_ONCE):
                some = spans_of(spans[start : start + SPANS_AT_ONCE]).SerializeToString()
                answer = self._sent(session, "v1/traces", some)
                refused += _read(ExportTraceServiceResponse(), answer).partial_success.rejected_spans
        if refused:
            raise TargetError(f"refused {refused} of the figures and spans")

    def _sent(self, session: requests.Session, path: str, body: bytes) -> bytes:
        try:
            answer = session.post(
                f"{self.endpoint.rstrip('/')}/{path}",
                data=body,
                headers={**self.headers, "Content-Type": "application/x-protobuf"},
                timeout=self.patience,
                # Headers may be secrets, and are for this endpoint alone.
                allow_redirects=False,
                verify=str(self.ca_file) if self.ca_file is not None else True,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            # Its text may name the address, which may hold a secret.
            raise TargetError(f"cannot be reached ({type(error).__name__})") from None
        if not 200 <= answer.status_code < 300:
            raise TargetError(f"answered {answer.status_code}")
        return answer.content


def metrics_of(at: datetime, measures: Sequence[Measure]) -> ExportMetricsServiceRequest:
    named = groupby(sorted(measures, key=lambda one: one.name), lambda one: one.name)
    scope = metrics_pb2.ScopeMetrics(scope=SCOPE, metrics=[_metric(at, name, list(some)) for name, some in named])
    return ExportMetricsServiceRequest(
        resource_metrics=[metrics_pb2.ResourceMetrics(resource=_resource(), scope_metrics=[scope])]
    )


def spans_of(spans: Sequence[Span]) -> ExportTraceServiceRequest:
    scope = trace_pb2.ScopeSpans(scope=SCOPE, spans=[_span(one) for one in spans])
    return ExportTraceServiceRequest(
        resource_spans=[trace_pb2.ResourceSpans(resource=_resource(), scope_spans=[scope])]
    )


def _metric(at: datetime, name: str, several: Sequence[Measure]) -> metrics_pb2.Metric:
    first, points = several[0], [_point(at, one) for one in several]
    metric = metrics_pb2.Metric(
        name=f"ingestkit.{name}", description=first.shows, unit="s" if first.kind == "moment" else first.unit
    )
    if first.kind == "total":
        metric.sum.CopyFrom(
            metrics_pb2.Sum(
                data_points=points,
                aggregation_temporality=metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE,
                is_monotonic=True,
            )
        )
    else:
        metric.gauge.CopyFrom(metrics_pb2.Gauge(data_points=points))
    return metric


def _point(at: datetime, one: Measure) -> metrics_pb2.NumberDataPoint:
    point = metrics_pb2.NumberDataPoint(attributes=_attributes(one.tags), time_unix_nano=_nanoseconds(at))
    if one.since is not None:
        point.start_time_unix_nano = _nanoseconds(min(one.since, at))
    value = max(0.0, (at - one.value).total_seconds()) if isinstance(one.value, datetime) else one.value
    if isinstance(value, int):
        point.as_int = value
    else:
        point.as_double = value
    return point


def _span(one: Span) -> trace_pb2.Span:
    status = trace_pb2.Status.STATUS_CODE_ERROR if one.failed else trace_pb2.Status.STATUS_CODE_UNSET
    return trace_pb2.Span(
        name=one.name,
        trace_id=bytes.fromhex(one.trace_id),
        span_id=bytes.fromhex(one.span_id),
        parent_span_id=bytes.fromhex(one.parent_id or ""),
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=_nanoseconds(one.began),
        end_time_unix_nano=_nanoseconds(one.ended),
        attributes=_attributes(one.tags),
        status=trace_pb2.Status(code=status),
    )


def _resource() -> Resource:
    # Not the machine: wherever a pipeline runs, its totals are one series.
    return Resource(attributes=_attributes({"service.name": "ingestkit"}))


def _attributes(tags: Mapping[str, str | int]) -> Iterator[common.KeyValue]:
    for name, value in tags.items():
        held = common.AnyValue(int_value=value) if isinstance(value, int) else common.AnyValue(string_value=value)
        yield common.KeyValue(key=name, value=held)


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


def _read(answer: Answer, body: bytes) -> Answer:
    """What the collector took; that it says so in a form of its own is no failure."""
    try:
        answer.ParseFromString(body)
    except DecodeError:
        answer.Clear()
    return answer


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
