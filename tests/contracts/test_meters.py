"""Each meter keeps the contract of meters, told to a receiver on loopback or to a strict reader of its file."""

import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ingestkit.observe.otlp import Otlp
from ingestkit.observe.statsd import Statsd
from ingestkit.observe.textfile import Textfile, drawn, opened
from ingestkit.ports import Measure, Meter
from tests.contracts.meter import AT, BYTES, LEVEL, MOMENT, SINCE, SPAN, TIME, TOTAL, MeterContract, fails
from tests.doubles import promfile, statsd
from tests.doubles.otlp import Collector, collecting

SECRET = "Bearer s3cr3t-of-the-header"


class TestOtlp(MeterContract):
    @pytest.fixture
    def collector(self) -> Iterator[Collector]:
        with collecting() as collector:
            yield collector

    @pytest.fixture
    def meter(self, collector: Collector) -> Meter:
        return Otlp(collector.url, {"Authorization": SECRET}, None, traces=True, patience=1.0)

    @pytest.fixture
    def heard(self, collector: Collector) -> Callable[[Measure], float]:
        return lambda one: collector.value(f"ingestkit.{one.name}", **one.tags)

    def test_totals_are_cumulative_since_the_state_counts_them(self, meter: Meter, collector: Collector) -> None:
        meter.tell(AT, (TOTAL, BYTES, TIME, LEVEL), ())
        [[point]] = collector.points["ingestkit.rows.loaded"].values()
        assert (point.kind, point.began, point.at) == (
            "sum",
            round(SINCE.timestamp()) * 10**9,
            round(AT.timestamp()) * 10**9,
        )
        [[level]] = collector.points["ingestkit.queue.length"].values()
        assert level.kind == "gauge"
        units = {name: next(iter(series.values()))[-1].unit for name, series in collector.points.items()}
        assert (units["ingestkit.landed"], units["ingestkit.stage.duration"]) == ("By", "s")

    def test_spans_are_sent_with_their_ids_and_times(self, meter: Meter, collector: Collector) -> None:
        meter.tell(AT, (TOTAL,), (SPAN,))
        [heard] = collector.spans
        assert (heard.trace_id, heard.span_id, heard.parent_id) == (SPAN.trace_id, SPAN.span_id, "")
        assert heard.ended - heard.began == 2 * 10**9
        assert heard.tags == {"stage": "load", "rows_loaded": 12}
        assert not heard.failed

    def test_no_span_is_sent_where_none_is_wanted(self, collector: Collector) -> None:
        Otlp(collector.url, {}, None, traces=False, patience=1.0).tell(AT, (TOTAL,), (SPAN,))
        assert not collector.spans

    def test_headers_go_to_the_endpoint_and_nowhere_else(
        self, meter: Meter, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        meter.tell(AT, (TOTAL,), (SPAN,))
        assert [one["authorization"] for one in collector.headers] == [SECRET, SECRET]
        with collecting() as elsewhere:
            collector.status, collector.location = 307, f"{elsewhere.url}/v1/metrics"
            assert fails(meter, patience=1).message == "answered 307"
            assert not elsewhere.bodies

    @pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
    def test_a_refusal_is_told_by_its_number_alone(self, meter: Meter, collector: Collector, status: int) -> None:
        collector.status, collector.reason = status, f"no {SECRET}"
        error = fails(meter, patience=1)
        assert error.message == f"answered {status}"
        # Who is refused does not ask again at once: it would hold up the command.
        assert len(collector.headers) == 1

    def test_what_a_collector_did_not_take_of_a_request_is_told(self, meter: Meter, collector: Collector) -> None:
        collector.refuses = 2
        assert fails(meter, patience=1).message == "refused 2 of the figures and spans"

    def test_one_that_hangs_is_not_waited_for(self, meter: Meter, collector: Collector) -> None:
        collector.behaves = "hangs"
        assert "ReadTimeout" in fails(meter, patience=1).message

    def test_one_that_is_gone_is_told_without_its_address(self, meter: Meter, collector: Collector) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        gone = Otlp(f"http://user:{SECRET.split()[1]}@127.0.0.1:{port}", {}, None, traces=True, patience=1.0)
        error = fails(gone, patience=1)
        assert error.message == "cannot be reached (ConnectionError)"
        assert error.__cause__ is None

    def test_an_answer_that_breaks_off_is_an_error(self, meter: Meter, collector: Collector) -> None:
        collector.behaves = "cuts"
        assert "cannot be reached" in fails(meter, patience=1).message

    def test_an_answer_in_words_of_its_own_is_none(self, meter: Meter, collector: Collector) -> None:
        collector.behaves = "babbles"
        meter.tell(AT, (TOTAL,), ())
        assert len(collector.headers) == 1


class StatsdContract(MeterContract):
    tags: str

    @pytest.fixture
    def server(self) -> Iterator[statsd.Statsd]:
        with statsd.listening() as server:
            yield server

    @pytest.fixture
    def meter(self, server: statsd.Statsd) -> Meter:
        return Statsd("127.0.0.1", server.port, "ingestkit", self.tags)  # type: ignore[arg-type]

    @pytest.fixture
    def heard(self, server: statsd.Statsd) -> Callable[[Measure], float]:
        """Counters as a service adds them up, over what had been counted before it first heard of them."""
        known: dict[tuple[str, str], float] = {}
        before: dict[tuple[str, str], float] = {}

        def read(one: Measure) -> float:
            for name, value, kind, tags in server.heard():
                known[name, tags] = known.get((name, tags), 0) + value if kind == "c" else value
            series, is_total = self.named(one), one.kind == "total"
            if is_total and not isinstance(one.value, datetime):
                before.setdefault(series, one.value - one.grew)
            return known[series] / (1000 if one.unit == "s" and is_total else 1) + before.get(series, 0)

        return read

    def named(self, one: Measure) -> tuple[str, str]:
        raise NotImplementedError


class TestStatsdWithTags(StatsdContract):
    tags = "datadog"

    def named(self, one: Measure) -> tuple[str, str]:
        tags = {name: "a__b__c_d__e_f_g" if name == "env" else value for name, value in one.tags.items()}
        return f"ingestkit.{one.name}", ",".join(f"{name}:{value}" for name, value in tags.items())


class TestStatsdWithNames(StatsdContract):
    tags = "names"

    def named(self, one: Measure) -> tuple[str, str]:
        tags = ["a__b__c_d__e_f_g" if name == "env" else value for name, value in one.tags.items()]
        return ".".join((f"ingestkit.{one.name}", *tags)), ""

    def test_a_host_without_an_address_is_an_error(self) -> None:
        meter = Statsd("no-such-host.invalid", 8125, "ingestkit", "names")
        assert fails(meter, patience=20).message.startswith("cannot be sent to: ")


class TestTextfile(MeterContract):
    @pytest.fixture
    def meter(self, tmp_path: Path) -> Meter:
        return opened(tmp_path / "prom", "p")

    @pytest.fixture
    def heard(self, tmp_path: Path) -> Callable[[Measure], float]:
        suffixes = {TOTAL.name: "_total", TIME.name: "_seconds_total", BYTES.name: "_bytes_total"}

        def read(one: Measure) -> float:
            said = promfile.read((tmp_path / "prom" / "ingestkit_p.prom").read_text())
            suffix = suffixes.get(one.name, "_timestamp_seconds" if one.kind == "moment" else "")
            escaped = {
                name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
                for name, value in one.tags.items()
            }
            return promfile.value(said[f"ingestkit_{one.name.replace('.', '_')}{suffix}"], **escaped)

        return read

    def test_a_reader_never_sees_half_of_it(self, tmp_path: Path) -> None:
        meter = Textfile(tmp_path / "figures.prom")
        meter.tell(AT, (TOTAL,), ())
        with (tmp_path / "figures.prom").open() as reader:
            before = reader.read(10)
            meter.tell(AT + timedelta(seconds=1), (LEVEL, MOMENT), ())
            # What was opened before is still whole: the new one took its name.
            assert before + reader.read() == drawn((TOTAL,))
        assert [one.name for one in tmp_path.iterdir()] == ["figures.prom"]

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        error = fails(opened(tmp_path / "file" / "prom", "p"), patience=1)
        assert "cannot be written" in error.message
