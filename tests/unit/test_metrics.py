"""What of figures and traces is decided without a run: ids, what counts, and what settings may say."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestkit import project
from ingestkit.errors import ConfigError
from ingestkit.model import Counts, Sidecar, Stage, StageStatus, Work
from ingestkit.observe.measured import FILES, Measured
from ingestkit.observe.tracing import Parent, Tracing, parent_in, span_id
from ingestkit.ports import Span
from ingestkit.states import stage_totals
from ingestkit.states.engine import StateDatabase

AT = datetime(2026, 1, 4, 18, tzinfo=UTC)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "text", [f"00-{TRACE}-{SPAN}-01", f" 00-{TRACE}-{SPAN}-00\n", f"cc-{TRACE}-{SPAN}-01-and-more"]
)
def test_the_callers_trace_is_read(text: str) -> None:
    assert parent_in(text) == Parent(TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_trace_is_not_gone_on_with(text: str | None) -> None:
    assert parent_in(text) is None


def test_processes_of_one_run_agree_on_its_trace_and_on_no_span() -> None:
    assert Tracing().trace_id("p.1.1") == Tracing().trace_id("p.1.1") != Tracing().trace_id("p.1.2")
    assert len(Tracing().trace_id("p.1.1")) == 32
    assert span_id("p.1.1", 7, "load", "a") == span_id("p.1.1", 7, "load", "a")
    different = {span_id("p.1.1", token, *what) for token in (7, 8) for what in ((), ("load", "a"), ("load", "b"))}
    assert len(different) == 6


def sidecar(stage: Stage = Stage.LOAD, *, token: int = 7, **work: Any) -> Sidecar:
    return Sidecar("p", "r", "b", stage, "a", token, 1, "s", AT, Work(**work))


def published(token: int, minute: int = 0) -> dict[str, Any]:
    return {"published": {"token": token, "at": (AT + timedelta(minutes=minute)).isoformat()}}


@pytest.fixture
def counted(tmp_path: Path) -> Callable[[Sidecar], float]:
    """Counts a sidecar, and gives the rows loaded in all."""
    db = StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 1)

    def count(one: Sidecar) -> float:
        with db.write() as conn:
            stage_totals.add_recorded(conn, one, AT)
        with db.read() as conn:
            [total] = stage_totals.of_pipeline(conn, "p")
        return total.figures["rows_loaded"]

    return count


def test_a_publish_counts_once_whoever_writes_its_row(counted: Callable[[Sidecar], float]) -> None:
    loaded = Counts(loaded=10)
    assert counted(sidecar(counts=loaded, details=published(7))) == 10
    found = "published already by r"
    assert counted(sidecar(counts=loaded, details=published(7), skipped=found)) == 10
    # This one's process died between COMMIT and row.
    assert counted(sidecar(counts=loaded, details=published(9), skipped=found)) == 20
    assert counted(sidecar(counts=loaded, details=published(9), skipped=found)) == 20
    assert counted(sidecar(counts=loaded, details=published(9, minute=1), skipped=found)) == 30
    # And this one was counted before the newest.
    assert counted(sidecar(counts=loaded, details=published(7), skipped=found)) == 30
    assert counted(sidecar(skipped="the batch has no file of it")) == 30


def test_a_stage_that_ends_badly_does_not_make_a_publish_count_again(tmp_path: Path) -> None:
    db = StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 1)

    class Run:
        run_id, pipeline, batch = "r", "p", "b"

    done = sidecar(counts=Counts(loaded=10), details=published(7))
    with db.write() as conn:
        stage_totals.add_recorded(conn, done, AT)
        stage_totals.add_ended_badly(conn, Run(), Stage.LOAD, "a", StageStatus.FAILED, AT)
        again = sidecar(counts=Counts(loaded=10), details=published(7), skipped="published already by r")
        stage_totals.add_recorded(conn, again, AT)
        stage_totals.add_retry(conn, "p", Stage.LOAD, "a", AT + timedelta(days=1))
    with db.read() as conn:
        [total] = stage_totals.of_pipeline(conn, "p")
    known = {name: total.figures[name] for name in ("rows_loaded", "done", "failed", "skipped", "retries")}
    assert known == {"rows_loaded": 10, "done": 1, "failed": 1, "skipped": 1, "retries": 1}
    assert (total.since, total.at) == (AT, AT), "a retry ends nothing"


def test_rows_count_in_the_stage_that_made_them_alone() -> None:
    counts = Counts(bytes=1, records=5, valid=4, rejected=1, loaded=4)
    assert stage_totals.figures_of(sidecar(Stage.VALIDATE, counts=counts), None) == {
        "rows_read": 5,
        "rows_valid": 4,
        "rows_rejected": 1,
    }
    assert stage_totals.figures_of(sidecar(Stage.GATE, counts=counts), None) == {}
    # What is unknown is no zero.
    assert stage_totals.figures_of(sidecar(Stage.LOAD), None) == {}


def test_the_files_of_a_large_batch_are_not_all_spans() -> None:
    measured = Measured({}, 1.0)
    one = Span("extract file", TRACE, SPAN, None, AT, AT, {})
    for _ in range(FILES + 5):
        measured.spent_on_file(one)
    assert len(measured.files) == FILES


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("otlp: {endpoint: collector:4318}", "metrics.otlp.endpoint"),
        ("otlp: {endpoint: 'http://c', headers: {x-api-key: plain}}", "metrics.otlp.headers.x-api-key: is a secret"),
        ("otlp: {endpoint: 'http://c', headers: {Authorization: Bearer x}}", "Authorization: is a secret"),
        ("otlp: {endpoint: 'http://c', headers: {a: '${vault:x}'}}", "no references of kind 'vault'"),
        ("textfile: {folder: '${env:X}'}", "a reference is resolved in"),
        ("textfile: {}", "folder"),
        ("statsd: {port: 0}", "port"),
        ("statsd: {tags: influx}", "tags"),
        ("tags: {model: x}", "model is a tag already"),
        ("tags: {Env: x}", "Env"),
        ("patience: 1m", "patience"),
        ("patience: 0s", "patience"),
        ("prometheus: {}", "unknown key"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, said: str, told: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings.yaml").write_text(f"metrics:\n  {said}\n")
    with pytest.raises(ConfigError, match=told.replace("[", r"\[").replace("$", r"\$")):
        project.load(tmp_path, environ={})


def test_headers_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings.yaml").write_text(
        "metrics: {otlp: {endpoint: 'https://x', headers: {tenant: acme-7, x-api-key: '${env:KEY}'}}}"
    )
    loaded = project.load(tmp_path, environ={"KEY": "s3cr3t"})
    meter = loaded.meters("p")["otlp"]()
    assert "s3cr3t" not in repr(loaded) + repr(meter) + repr(loaded.settings)
