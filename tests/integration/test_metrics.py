"""Figures are told once they are durable, and each once; who does not listen holds nothing up."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingestkit.errors import SourceError, StateError
from ingestkit.stages import extract
from ingestkit.states import sidecars
from tests.doubles import promfile, statsd
from tests.doubles.otlp import Collector, collecting
from tests.integration.world import FIRST, SECOND, THIRD, Ended, World

HEADER = "s3cr3t-of-the-collector"
KILLED = """
import os, signal, sys
from ingestkit import steps
step = sys.argv.pop(1)
steps.reached = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
from ingestkit.cli.main import main
main()
"""
IMPORTED = """
import sys
from ingestkit.cli.main import call
code = call(sys.argv[1:])
print(code, *sorted({"opentelemetry", "google.protobuf", "requests", "alembic", "duckdb"} & set(sys.modules)))
"""
FIGURES = ("rows.read", "rows.valid", "rows.rejected", "rows.loaded", "landed")


@dataclass(frozen=True, slots=True)
class Metered:
    """A project with all three meters, and what they have heard."""

    world: World
    collector: Collector
    statsd: statsd.Statsd
    added: dict[tuple[str, str], int] = field(default_factory=dict)
    """What statsd's counters add up to, by name and tags."""

    def settle(self, changes: Mapping[str, Any] | None = None) -> None:
        said = {
            "metrics.otlp": {"endpoint": self.collector.url, "headers": {"x-api-key": "${env:OTLP_KEY}"}},
            "metrics.statsd": {"port": self.statsd.port},
            "metrics.textfile": {"folder": "prom"},
        }
        self.world.settle(said | dict(changes or {}))

    def run(self, *arguments: str, code: int = 0) -> Ended:
        ended = self.world.call(*(arguments or ("run", "p")))
        assert ended.code == code, ended.err
        self.listen()
        return ended

    def listen(self) -> None:
        for name, value, kind, tags in self.statsd.heard():
            if kind == "c":
                self.added[name, tags] = self.added.get((name, tags), 0) + value

    def killed(self, step: str, *arguments: str) -> None:
        process = subprocess.run(
            [sys.executable, "-c", KILLED, step, "--project", str(self.world.root), *(arguments or ("run", "p"))],
            capture_output=True,
            check=False,
        )
        assert process.returncode == -9, process.stderr.decode()
        self.listen()

    def file(self) -> dict[str, dict[promfile.Labels, float]]:
        return promfile.read((self.world.root / "prom/ingestkit_p.prom").read_text())

    def total(self, figure: str, model: str, stage: str, **tags: str) -> int:
        """A total, which collector and file tell alike."""
        known = {"pipeline": "p", "model": model, "stage": stage, **tags}
        suffix = "_bytes_total" if figure == "landed" else "_total"
        said = promfile.value(self.file()[f"ingestkit_{figure.replace('.', '_')}{suffix}"], **known)
        assert self.collector.value(f"ingestkit.{figure}", **known) == said
        return round(said)

    def counted(self, figure: str, model: str, stage: str) -> int:
        return self.added.get((f"ingestkit.{figure}", f"pipeline:p,model:{model},stage:{stage}"), 0)

    def warnings(self, ended: Ended) -> list[str]:
        return [line["event"] for line in ended.log if line["level"] == "warning"]


@pytest.fixture
def metered(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metered]:
    monkeypatch.setenv("OTLP_KEY", HEADER)
    with collecting() as collector, statsd.listening() as server:
        made = Metered(world, collector, server)
        made.settle()
        yield made


def closes_the_gate(world: World) -> None:
    path = world.root / "sql/gate/p/none.sql"
    path.parent.mkdir(parents=True)
    path.write_text("-- models: a\nSELECT * FROM a")


def test_every_figure_is_that_of_the_state(metered: Metered) -> None:
    world = metered.world
    world.drop(FIRST, {"20260101/a.csv": "id,n\n1,10\n2,two\n3,30\n"})
    metered.run()
    [(read, valid, rejected, loaded, size)] = world.state(
        "SELECT sum(read), sum(valid), sum(rejected), sum(loaded), sum(size) FROM file_manifest WHERE model = 'a'"
    )
    assert (read, valid, rejected, loaded) == (3, 2, 1, 2)
    of = {"landed": "extract", "rows.loaded": "load"}
    told = [metered.total(figure, "a", of.get(figure, "validate")) for figure in FIGURES]
    assert told == [read, valid, rejected, loaded, size]
    assert [metered.counted(figure, "a", of.get(figure, "validate")) for figure in FIGURES] == told
    for stage, model in (("extract", "a"), ("validate", "b"), ("load", "b"), ("gate", "_all"), ("clean", "_all")):
        assert metered.total("stages", model, stage, status="done") == 1
        assert metered.total("stages", model, stage, status="failed") == 0
    file = metered.file()
    rows = world.stages("p.20260101.1")
    took = promfile.value(file["ingestkit_last_duration_seconds"], model="a", stage="validate")
    assert took == pytest.approx(rows["validate", "a"]["seconds"], abs=1e-5)
    assert promfile.value(file["ingestkit_last_rows_rejected"], model="a") == 1
    assert promfile.value(file["ingestkit_last_failed"], model="b", stage="load") == 0
    assert promfile.value(file["ingestkit_queue_length"], pipeline="p") == 0
    assert abs(promfile.value(file["ingestkit_freshness_timestamp_seconds"], model="a") - time.time()) < 60
    assert metered.collector.value("ingestkit.freshness", model="a") < 60


def test_totals_go_on_from_command_to_command(metered: Metered) -> None:
    metered.world.drop(FIRST, SECOND)
    metered.run("run", "p", "--limit", "1")
    assert metered.total("rows.loaded", "a", "load") == 2
    metered.run()
    metered.run()
    assert metered.total("rows.loaded", "a", "load") == 4
    assert metered.total("stages", "_all", "gate", status="done") == 2
    assert metered.counted("rows.loaded", "a", "load") == 4
    began = {point.began for points in metered.collector.points["ingestkit.rows.loaded"].values() for point in points}
    assert len(began) == 2, "each model's total is counted since it began, whichever process tells it"


def test_a_batch_that_is_done_again_counts_again(metered: Metered) -> None:
    metered.world.drop(FIRST)
    metered.run()
    metered.run("backfill", "p", "--batch", "20260101")
    assert metered.total("rows.loaded", "a", "load") == 4
    # Its artifacts held: nothing was read again.
    assert metered.total("rows.read", "a", "validate") == 2
    assert metered.total("stages", "a", "validate", status="skipped") == 1


def test_what_one_attempt_published_is_not_counted_for_the_next(metered: Metered) -> None:
    world = metered.world
    closes_the_gate(world)
    world.drop(FIRST)
    metered.run(code=6)
    assert metered.total("rows.loaded", "a", "load") == 2
    assert metered.total("stages", "_all", "gate", status="failed") == 1
    assert promfile.value(metered.file()["ingestkit_last_failed"], stage="gate") == 1
    (world.root / "sql/gate/p/none.sql").unlink()
    metered.run()
    assert metered.total("rows.loaded", "a", "load") == 2
    assert metered.total("stages", "_all", "gate", status="done") == 1
    assert world.completions() == {("20260101", "a"): "done", ("20260101", "b"): "done"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        "extract.copied",
        "validate.sidecar_written",
        "validate.recorded",
        "load.intended",
        "load.done",
        "load.recorded",
        "gate.recorded",
    ],
)
def test_who_is_killed_leaves_nothing_uncounted_and_nothing_counted_twice(metered: Metered, step: str) -> None:
    metered.world.drop(FIRST)
    metered.killed(step)
    assert not metered.collector.points
    metered.run()
    assert metered.total("rows.read", "a", "validate") == metered.total("rows.read", "b", "validate") == 2
    assert metered.total("rows.loaded", "a", "load") == metered.total("rows.loaded", "b", "load") == 2
    assert metered.total("stages", "_all", "gate", status="done") == 1
    landed = sum(len(text) for name, text in FIRST.items() if name.endswith("a.csv"))
    assert metered.total("landed", "a", "extract") == landed
    # What goes to statsd may be missing, and is never doubled.
    for figure, stage in (("rows.read", "validate"), ("rows.loaded", "load"), ("landed", "extract")):
        assert metered.counted(figure, "a", stage) <= metered.total(figure, "a", stage)
    if step == "extract.copied":
        retried = sum(metered.total("stage.retries", model, "extract") for model in ("a", "b"))
        assert retried >= 1


def test_rows_that_wait_in_the_queue_are_counted_when_they_are_written(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    metered.world.drop(FIRST)
    taking = sidecars.apply

    def apply(conn: Any, sidecar: Any, *rest: Any) -> bool:
        if sidecar.stage == "load":
            raise StateError("the disk is full")
        return taking(conn, sidecar, *rest)

    monkeypatch.setattr(sidecars, "apply", apply)
    metered.run(code=7)
    assert metered.total("rows.read", "a", "validate") == 2
    assert "ingestkit_rows_loaded_total" not in metered.file()
    assert promfile.value(metered.file()["ingestkit_queue_length"], pipeline="p") == 1
    monkeypatch.setattr(sidecars, "apply", taking)
    metered.run()
    assert metered.total("rows.loaded", "a", "load") == metered.total("rows.loaded", "b", "load") == 2
    assert promfile.value(metered.file()["ingestkit_queue_length"], pipeline="p") == 0


def test_what_is_tried_again_is_counted(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    metered.world.drop(FIRST)
    real, tries = extract.extract, iter(range(10))

    def fails_once(*given: Any) -> Any:
        if next(tries) == 0:
            raise SourceError("the server hung up", transient=True)
        return real(*given)

    monkeypatch.setattr(extract, "extract", fails_once)
    metered.run("run", "p", "--jobs", "1")
    assert metered.total("stage.retries", "a", "extract") == 1
    assert metered.total("stages", "a", "extract", status="done") == 1


@pytest.mark.parametrize("trouble", ["hangs", "drips", "500", "gone", "cuts"])
def test_a_collector_in_trouble_holds_nothing_up(metered: Metered, trouble: str) -> None:
    collector = metered.collector
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    metered.settle({"metrics.patience": "1s"} | ({"metrics.otlp.endpoint": nobody} if trouble == "gone" else {}))
    collector.behaves = trouble if trouble in ("hangs", "drips", "cuts") else "well"
    collector.status = 500 if trouble == "500" else 200
    metered.world.drop(FIRST)
    began = time.monotonic()
    ended = metered.run()
    # A collector that hangs does so for five minutes.
    assert time.monotonic() - began < 60
    [told] = metered.warnings(ended)
    assert told.startswith("not all meters were told: metrics.otlp: ")
    assert "127.0.0.1" not in told
    assert len(metered.world.completions()) == 2
    # The others were told all the same.
    assert metered.counted("rows.loaded", "a", "load") == 2
    assert "ingestkit_rows_loaded_total" in metered.file()
    metered.settle()
    collector.behaves, collector.status = "well", 200
    assert not metered.warnings(metered.run())
    assert metered.total("rows.loaded", "a", "load") == 2


def test_all_in_trouble_at_once_are_one_warning_and_one_wait(metered: Metered) -> None:
    metered.collector.behaves = "hangs"
    (metered.world.root / "prom").write_text("no folder")
    changes = {"metrics.patience": "500ms", "metrics.statsd.host": "no-such-host.invalid"}
    metered.settle(changes)
    metered.world.drop(FIRST)
    [told] = metered.warnings(metered.run())
    assert all(f"metrics.{kind}" in told for kind in ("otlp", "statsd", "textfile"))
    assert len(metered.world.completions()) == 2


def test_a_secret_that_is_nowhere_to_be_found_fails_no_run(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTLP_KEY")
    metered.world.drop(FIRST)
    [told] = metered.warnings(metered.run())
    assert "OTLP_KEY, which is not set" in told
    assert "ingestkit_rows_loaded_total" in metered.file()


def test_no_secret_and_no_cell_value_is_told(metered: Metered) -> None:
    world, cells = metered.world, ("cell-one", "cell-two", "cell-three", "4711.25")
    world.set_up({"models.a.columns": {"id": {"required": True, "unique": True}, "n": {"type": "integer"}}})
    broken = "id,n\ncell-one,1\ncell-one,2\ncell-two,4711.25\ncell-three,3\n"
    world.drop({"20260101/a.csv": broken, "20260101/b.csv": "id,d\ncell-two,2026-01-01\n"})
    metered.collector.status, metered.collector.reason = 500, f"key {HEADER} is unknown"
    said = metered.run()
    metered.collector.status = 200
    world.drop({"20260108/a.csv": broken, "20260108/b.csv": "id,d\ncell-two,not-a-day\ncell-one,2026-01-02\n"})
    said_again = metered.run()
    assert spans_of(metered, "validate file")
    headers = [one.items() for one in metered.collector.headers]
    assert all(("x-api-key", HEADER) in one for one in headers)
    heard = [
        *metered.collector.bodies,
        *(value.encode() for one in headers for name, value in one if name != "x-api-key"),
    ]
    heard += [*metered.statsd.bytes, (world.root / "prom/ingestkit_p.prom").read_bytes()]
    heard += [text.encode() for one in (said, said_again) for text in (one.err, one.out)]
    heard += [part.encode() for part in (json.dumps(dict(one.tags)) for one in metered.collector.spans)]
    for word in (*cells, HEADER):
        assert not [one for one in heard if word.encode() in one], word


def spans_of(metered: Metered, name: str) -> list[Any]:
    return [one for one in metered.collector.spans if one.name == name]


def test_stages_and_files_are_spans_of_their_run_and_lines_carry_their_ids(metered: Metered) -> None:
    metered.world.drop(FIRST, SECOND)
    ended = metered.run()
    first, second = spans_of(metered, "run")
    assert (first.tags["batch"], second.tags["batch"]) == ("20260101", "20260108")
    assert first.parent_id == ""
    assert first.trace_id != second.trace_id
    mine = [one for one in metered.collector.spans if one.trace_id == first.trace_id]
    stages = {one.span_id: one for one in mine if one.parent_id == first.span_id}
    assert {(one.name, one.tags["model"]) for one in stages.values()} == {
        *((stage, model) for stage in ("extract", "validate", "load") for model in ("a", "b")),
        ("gate", "_all"),
        ("clean", "_all"),
    }
    files = [one for one in mine if one.name.endswith(" file")]
    assert {(stages[one.parent_id].name, one.tags["file"]) for one in files} == {
        (stage, f"20260101/{model}.csv") for stage in ("extract", "validate") for model in ("a", "b")
    }
    assert all(first.began <= one.began <= one.ended <= first.ended for one in mine)
    assert not any(one.failed for one in mine)
    known = {(one.trace_id, one.span_id) for one in metered.collector.spans}
    lines = [line for line in ended.log if "stage" in line]
    assert lines
    assert {(line["trace_id"], line["span_id"]) for line in lines} <= known


def test_stages_of_one_run_share_a_trace_across_processes(metered: Metered) -> None:
    metered.world.drop(FIRST)
    for stage in ("extract", "validate", "load", "gate", "clean"):
        metered.run(stage, "p", "--run-id", "nightly 7")
    assert len({one.trace_id for one in metered.collector.spans}) == 1
    runs = spans_of(metered, "run")
    assert len({one.span_id for one in runs}) == 5
    assert {one.tags["run_id"] for one in metered.collector.spans} == {"nightly 7"}


def test_a_failure_is_a_failed_span(metered: Metered) -> None:
    closes_the_gate(metered.world)
    metered.world.drop(FIRST)
    metered.run(code=6)
    assert {one.name for one in metered.collector.spans if one.failed} == {"gate", "run"}


PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


def test_the_callers_trace_is_gone_on_with(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    metered.world.drop(FIRST)
    metered.run()
    [run] = spans_of(metered, "run")
    assert (run.trace_id, run.parent_id) == ("ab" * 16, "cd" * 8)
    assert {one.trace_id for one in metered.collector.spans} == {"ab" * 16}


def test_lines_carry_the_callers_trace_where_nobody_is_told_spans(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    world.drop(FIRST)
    ended = world.call("run", "p")
    assert ended.code == 0
    lines = [line for line in ended.log if "stage" in line]
    assert lines
    assert all(line["trace_id"] == "ab" * 16 for line in lines)
    monkeypatch.delenv("TRACEPARENT")
    world.drop(SECOND)
    assert not any("trace_id" in line for line in world.call("run", "p").log)


def imported(world: World, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, "--project", str(world.root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    return done.stdout.splitlines()[-1].split()


@pytest.mark.slow
def test_nobody_pays_for_meters_that_there_are_not(world: World) -> None:
    world.drop(FIRST)
    assert not {"opentelemetry", "google.protobuf", "requests"} & set(imported(world, "run", "p"))
    assert imported(world, "run", "p") == ["0"]
    assert world.state("SELECT count(*) FROM stage_total") == [(0,)]
    assert not (world.root / "prom").exists()
    # A file and a datagram take no library either.
    world.settle({"metrics.textfile": {"folder": "prom"}, "metrics.statsd": {"port": 9}})
    assert imported(world, "run", "p") == ["0"]
    assert (world.root / "prom/ingestkit_p.prom").exists()


def test_a_rehearsal_tells_nobody(metered: Metered) -> None:
    metered.world.drop(FIRST)
    metered.run("run", "p", "--dry-run=data")
    assert not metered.collector.bodies
    assert not (metered.world.root / "prom").exists()
    metered.world.drop(THIRD)
    metered.run()
    assert metered.total("rows.loaded", "a", "load") == 4


def test_check_tells_what_a_meter_lacks(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(code: int) -> dict[str, tuple[Any, Any]]:
        ended = metered.world.call("check", "p", "--output", "json")
        assert ended.code == code, ended.err
        return {row["what"]: (row["trouble"], row["fix"]) for row in ended.answer["rows"] if "metrics" in row["what"]}

    every = [f"p: metrics.{kind}" for kind in ("otlp", "statsd", "textfile")]
    assert looked(0) == dict.fromkeys(every, (None, None))
    assert not metered.collector.bodies
    monkeypatch.setitem(sys.modules, "ingestkit.observe.otlp", None)
    assert looked(3)["p: metrics.otlp"][1] == "pip install 'ingestkit[otel]'"
    monkeypatch.undo()
    monkeypatch.delenv("OTLP_KEY", raising=False)
    assert "OTLP_KEY" in looked(3)["p: metrics.otlp"][0]
