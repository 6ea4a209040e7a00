import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from ingestkit import project, runner
from ingestkit.errors import IngestkitError, SourceError
from ingestkit.model import Announced, FileVersion, Item, Window
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.ports import Source
from ingestkit.recording import waits
from ingestkit.session import Session
from ingestkit.settings import Retry
from ingestkit.working import RunOptions
from tests.integration.world import FIRST, SECOND, World


class Quiet:
    """Progress nobody sees, which keeps what was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def began(self, stage: str, model: str, total: int | None) -> None: ...

    def moved(self, stage: str, model: str, by: int) -> None: ...

    def ended(self, stage: str, model: str, status: str) -> None: ...

    def said(self, message: str, **facts: Any) -> None: ...

    def warned(self, message: str, **facts: Any) -> None:
        self.warnings.append(message)


@dataclass
class Flaky:
    """A source that fails when a file of it is opened, as often as it is told to."""

    real: Source
    failures: int
    error: Callable[[], IngestkitError]
    opened: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        self.real.check()

    def batches(self, after: str | None) -> Iterator[str]:
        return self.real.batches(after)

    def strays(self) -> Sequence[str]:
        return ()

    def items(self, batch: str, window: Window | None = None) -> Iterator[Item]:
        return self.real.items(batch, window)

    def announced(self, batch: str, window: Window | None = None) -> Iterator[Announced]:
        return self.real.announced(batch, window)

    def release(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        return self.real.release(done, others)

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        with self.lock:
            self.opened += 1
            fails = self.opened <= self.failures
        if fails:
            raise self.error()
        with self.real.open(item) as stream:
            yield stream


@contextmanager
def session_of(root: Path, progress: Quiet) -> Iterator[Session]:
    opened = project.load(root).open("p", clock=SystemClock(), stop=Stop(), progress=progress, jobs=1)
    try:
        yield opened
    finally:
        opened.state.close()


def flaky(session: Session, failures: int, error: Callable[[], IngestkitError]) -> tuple[Session, Flaky]:
    source = Flaky(session.source, failures, error)
    return replace(session, source=source), source


def test_what_passes_by_itself_is_tried_again(world: World) -> None:
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told = Quiet()
    with session_of(world.root, told) as session:
        shaken, source = flaky(session, 2, lambda: SourceError("the line dropped", transient=True))
        assert runner.run(shaken, RunOptions()).status == "done"
    assert source.opened == 3
    assert len([one for one in told.warnings if "extract of a failed and is tried again" in one]) == 2
    stage = world.stages("p.20260101.1")["extract", "a"]
    assert (stage["status"], stage["retry"], stage["error"]) == ("SUCCESS", 2, None)
    assert world.run_row("p.20260101.1")["retry"] == 0


def test_after_the_last_attempt_the_run_fails(world: World) -> None:
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    with session_of(world.root, Quiet()) as session:
        shaken, source = flaky(session, 9, lambda: SourceError("the line dropped", transient=True))
        with pytest.raises(SourceError, match="the line dropped"):
            runner.run(shaken, RunOptions())
    assert source.opened == 3
    stage = world.stages("p.20260101.1")["extract", "a"]
    assert (stage["status"], stage["retry"], stage["error"]) == ("FAILED", 2, "the line dropped")


def test_what_does_not_pass_by_itself_is_not_tried_again(world: World) -> None:
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    with session_of(world.root, Quiet()) as session:
        shaken, source = flaky(session, 1, lambda: SourceError("no such user"))
        with pytest.raises(SourceError, match="no such user"):
            runner.run(shaken, RunOptions())
    assert source.opened == 1


@pytest.mark.parametrize(
    ("backoff", "least"),
    [("exponential", [1, 2, 4, 5, 5]), ("linear", [1, 2, 3, 4, 5]), ("none", [1, 1, 1, 1, 1])],
)
def test_waits_grow_as_they_are_told_and_never_beyond_the_cap(backoff: Any, least: list[int]) -> None:
    second = timedelta(seconds=1)
    wait = waits(Retry(backoff=backoff, first_wait=second, cap=5 * second))
    random.seed(7)
    for attempt, lowest in enumerate(least, start=1):
        found = {wait(SimpleNamespace(attempt_number=attempt)) for _ in range(50)}  # type: ignore[arg-type]
        assert lowest <= min(found) <= max(found) <= min(5, lowest + 1)
        assert len(found) > 1 or lowest == 5, "without jitter many would come back at once"


def test_a_stage_past_its_time_is_asked_to_stop_and_fails(world: World) -> None:
    world.set_up({"timeouts": {"extract": "100ms", "grace": "60s"}})
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    told = Quiet()
    with session_of(world.root, told) as session:
        stop = session.stop

        def slow() -> IngestkitError:
            stop.wait(60)
            raise AssertionError("it was to be stopped")

        shaken, _ = flaky(session, 9, slow)
        with pytest.raises(SourceError, match="ran longer than its time-out of"):
            runner.run(shaken, RunOptions())
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["exit_code"]) == ("FAILED", 4)
    stage = world.stages("p.20260101.1")["extract", "a"]
    assert (stage["status"], "time-out" in stage["error"]) == ("FAILED", True)


def test_a_stage_that_does_not_stop_is_recorded_and_the_process_ends_itself(world: World) -> None:
    world.set_up({"timeouts": {"extract": "100ms", "grace": "100ms"}})
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    deaf = """
import sys, time
from ingestkit.sources.files import FilesSource
FilesSource.open = lambda self, item: time.sleep(60)
from ingestkit.cli.main import main
main()
"""
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", deaf, "--project", str(world.root), "run"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ},
    )
    assert process.returncode == 4, process.stderr
    assert time.monotonic() - began < 40
    assert world.run_row("p.20260101.1")["status"] == "FAILED"
    stage = world.stages("p.20260101.1")["extract", "a"]
    assert "and did not stop when asked" in stage["error"]
    assert "Traceback" not in process.stderr
    assert "error: extract of a ran longer than its time-out of 0.1 s\nhint: raise timeouts.extract" in process.stderr
    world.set_up()
    world.does("run")
    assert world.table("a", "id") == [("1",), ("2",)]


def test_models_go_side_by_side_and_the_first_failure_is_told(world: World) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    said = world.refused(5, "run", "--jobs", "2")
    assert "has no file of a" in said
    assert world.stages("p.20260101.1")["extract", "b"]["status"] == "SUCCESS"
    world.drop(FIRST, SECOND)
    world.does("run", "--jobs", "1")
    assert world.checkpoint() == "20260108"
