"""What only a process of its own can show: signals, and commands beside each other."""

import signal
import subprocess
import sys

import pytest

from tests.integration.world import FIRST, SECOND, World, read_until

# A command line in which extract is slow, so that a signal meets it at work.
SLOW = """
import sys, threading
from contextlib import contextmanager
from ingestkit.sources.files import FilesSource
opening = FilesSource.open
@contextmanager
def slowly(self, item):
    with opening(self, item) as stream:
        if "SLOW" in item.path:
            print("reading", file=sys.stderr, flush=True)
            sys.stdin.readline()
        yield stream
FilesSource.open = slowly
from ingestkit.cli.main import main
main()
"""


def slow(world: World, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, "--project", str(world.root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go_on(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate("\n", timeout=60)
    return process.returncode, err


@pytest.fixture
def reading(world: World) -> "subprocess.Popen[str]":
    """A run that is at work on a file."""
    world.set_up({"models.a.files": r"a.*\.csv"})
    world.drop({"20260101/aSLOW.csv": "id,n\n1,10\n2,20\n", "20260101/b.csv": FIRST["20260101/b.csv"]})
    process = slow(world, "run", "--jobs", "1")
    read_until(process, "reading")
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_at_a_safe_point_and_the_next_goes_on_in_its_row(
    world: World, reading: "subprocess.Popen[str]", number: signal.Signals, code: int
) -> None:
    reading.send_signal(number)
    read_until(reading, "stopping at the next safe point")
    ended, err = go_on(reading)
    assert ended == code
    assert f"error: stopped by {number.name} at a safe point" in err
    assert "Traceback" not in err
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["retry"], row["ended_at"]) == ("OPEN", 0, None)
    assert world.stages("p.20260101.1")["extract", "a"]["status"] == "INTERRUPTED"
    assert [path for path in (world.root / "lake/_inflight").rglob("*") if path.is_file()] == []
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["retry"]) == ("SUCCESS", 1)
    assert world.stages("p.20260101.1")["extract", "a"]["retry"] == 1
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_a_killed_run_goes_on_in_its_row(world: World, reading: "subprocess.Popen[str]") -> None:
    reading.kill()
    reading.communicate()
    assert world.stages("p.20260101.1")["extract", "a"]["status"] == "RUNNING"
    world.does("pause", "p", "--reason", "look")
    assert world.stages("p.20260101.1")["extract", "a"]["status"] == "INTERRUPTED"
    world.does("resume", "p", "--reason", "go on")
    world.does("run")
    row = world.run_row("p.20260101.1")
    assert (row["status"], row["retry"]) == ("SUCCESS", 1)


def test_who_finds_the_lease_taken_is_told_by_whom_since_when(world: World, reading: "subprocess.Popen[str]") -> None:
    said = world.refused(8, "run")
    assert f"process {reading.pid}" in said
    assert world.does("run", "--if-locked", "skip")["status"] == "locked"
    assert "p (a) is being worked on by" in world.refused(8, "pause", "p", "--reason", "x")
    code, err = go_on(reading)
    assert code == 0, err


def test_who_waits_for_the_lease_gets_it_when_it_is_free(world: World, reading: "subprocess.Popen[str]") -> None:
    waiting = world.start("run", "--if-locked", "wait:1m")
    read_until(waiting, "waiting: ")
    code, err = go_on(reading)
    assert code == 0, err
    ended = world.ended(waiting)
    assert (ended.code, ended.out.startswith("nothing new")) == (0, True), ended


def test_two_models_run_side_by_side(world: World) -> None:
    world.set_up({"models.a.files": r"a.*\.csv"})
    world.drop({"20260101/aSLOW.csv": "id,n\n1,10\n", "20260101/b.csv": FIRST["20260101/b.csv"]})
    process = slow(world, "run", "--model", "a")
    read_until(process, "reading")
    world.does("run", "--model", "b")
    assert world.completions() == {("20260101", "b"): "done"}
    code, err = go_on(process)
    assert code == 0, err
    assert world.completions() == {("20260101", "a"): "done", ("20260101", "b"): "done"}
    assert world.does("run")["status"] == "nothing new"
    assert world.checkpoint() == "20260101"


def test_a_file_that_changes_while_it_is_read_is_fetched_anew(world: World, reading: "subprocess.Popen[str]") -> None:
    (world.root / "drops/20260101/aSLOW.csv").write_text("id,n\n1,11\n2,22\n3,33\n")
    assert reading.stdin is not None
    reading.stdin.write("\n\n\n")
    code, err = go_on(reading)
    assert code == 0, err
    assert world.table("a", "id", "n") == [("1", 11), ("2", 22), ("3", 33)]
    assert "changed while it was read" in err


def test_every_log_line_of_a_stage_names_run_stage_and_model(world: World) -> None:
    world.drop(FIRST, SECOND)
    ended = world.ended(world.start("run"))
    assert ended.code == 0
    assert len(ended.log) == len(ended.err.splitlines()), "off a terminal each line is one JSON object"
    lines = [line for line in ended.log if line.get("event") in ("began", "ended")]
    assert {line["stage"] for line in lines} == {"extract", "validate", "load", "gate", "clean"}
    for line in lines:
        assert line["run_id"].startswith("p.2026010")
        assert line["model"] in ("a", "b", "*")
