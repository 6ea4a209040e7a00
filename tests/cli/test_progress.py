import io
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from rich.progress import Progress

from ingestkit.cli.bars import TerminalProgress
from ingestkit.cli.progress import LogProgress, shown
from ingestkit.observe import logging
from ingestkit.pipeline import Progress as Port

LOGGING = """
from logging import getLogger
from ingestkit.observe import logging
logging.configure("info", as_json=True, colours=False)
getLogger("psycopg").error("error ignored terminating a pipeline")
logging.logger().info("ours")
"""


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    logging.configure("info", as_json=True, colours=False)
    return capsys


def lines(log: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    shown = log.readouterr()
    assert shown.out == ""
    return [json.loads(line) for line in shown.err.splitlines()]


def test_a_log_line_names_run_stage_and_model(log: pytest.CaptureFixture[str]) -> None:
    with logging.bound(run_id="r1"):
        LogProgress().began("load", "hcp", 10)
    [line] = lines(log)
    assert {name: line[name] for name in ("run_id", "stage", "model", "event", "level", "total")} == {
        "run_id": "r1",
        "stage": "load",
        "model": "hcp",
        "event": "began",
        "level": "info",
        "total": 10,
    }


def test_what_was_bound_is_gone_behind_the_block(log: pytest.CaptureFixture[str]) -> None:
    with logging.bound(run_id="r1"):
        pass
    LogProgress().said("hello")
    assert "run_id" not in lines(log)[0]


def test_moving_is_said_now_and_then_only(log: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0.0, *(n * 0.01 for n in range(1, 100)), 11.0, 12.0])
    progress = LogProgress(now=lambda: next(seconds))
    progress.began("extract", "hcp", None)
    for _ in range(100):
        progress.moved("extract", "hcp", 5)
    progress.ended("extract", "hcp", "SUCCESS")
    assert [(line["event"], line.get("moved")) for line in lines(log)] == [
        ("began", None),
        ("working", 500),
        ("ended", 500),
    ]


def test_a_warning_is_a_warning(log: pytest.CaptureFixture[str]) -> None:
    LogProgress().warned("late folder", batch="20250101")
    [line] = lines(log)
    assert (line["level"], line["batch"]) == ("warning", "20250101")


def test_a_level_hides_what_is_below(log: pytest.CaptureFixture[str]) -> None:
    logging.configure("warning", as_json=True, colours=False)
    LogProgress().said("waiting")
    LogProgress().warned("late")
    assert [line["event"] for line in lines(log)] == ["late"]


def test_a_readable_line_says_where_before_what(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("info", as_json=False, colours=False)
    with logging.bound(run_id="r1"):
        LogProgress().began("load", "hcp", 10)
        LogProgress().ended("gate", "*", "SUCCESS")
        LogProgress().warned("late", batch="b\x1b1")
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "load hcp: began  total=10 run_id=r1",
        "gate: ended  status=SUCCESS run_id=r1",
        "warning: late  batch=b\\x1b1 run_id=r1",
    ]


@pytest.fixture
def bars() -> TerminalProgress:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    return TerminalProgress(Progress(console=console, auto_refresh=False))


@pytest.mark.parametrize("kind", ["log", "bars"])
def test_models_side_by_side_lose_no_figure(kind: str, bars: TerminalProgress, log: pytest.CaptureFixture[str]) -> None:
    progress: Port = bars if kind == "bars" else LogProgress(now=lambda: 0.0)
    together = threading.Barrier(4)

    def work(model: str) -> None:
        together.wait()
        for _ in range(1000):
            progress.moved("load", model, 1)

    for model in ("a", "b"):
        progress.began("load", model, 2000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["a", "b", "a", "b"]))
    if isinstance(progress, TerminalProgress):
        assert {task.completed for task in progress.bars.tasks} == {2000}
    for model in ("a", "b"):
        progress.ended("load", model, "SUCCESS")
    if isinstance(progress, LogProgress):
        assert [line["moved"] for line in lines(log) if line["event"] == "ended"] == [2000, 2000]
    else:
        assert bars.bars.tasks == []


def test_a_stage_that_begins_again_begins_at_nought(bars: TerminalProgress) -> None:
    bars.began("load", "a", 10)
    bars.moved("load", "a", 7)
    bars.began("load", "a", 10)
    assert [task.completed for task in bars.bars.tasks] == [0]


def test_bars_are_drawn_on_standard_error_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    logging.configure("info", as_json=False, colours=False)
    with shown(bars=True) as progress:
        progress.began("extract", "hcp", 1_000_000)
        progress.moved("extract", "hcp", 500_000)
        progress.said("settling")
    drawn = capsys.readouterr()
    assert drawn.out == ""
    assert "settling" in drawn.err
    assert "500.0 kB of 1.0 MB" in drawn.err


def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    logging.configure("info", as_json=True, colours=False)
    LogProgress().said("hello")


def test_what_a_library_logs_of_its_own_does_not_stand_among_our_lines() -> None:
    """In a process of its own: the root's handlers here are pytest's."""
    told = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)
    assert json.loads(told.stderr)["event"] == "ours"
    assert told.stdout == ""
