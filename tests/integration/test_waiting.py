"""A run that waits for something to arrive."""

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from ingestkit import project
from ingestkit.cli.progress import NoProgress
from ingestkit.errors import LeaseHeld, StateError
from ingestkit.outcome import Outcome
from ingestkit.pipeline import Stop
from ingestkit.runner import holding
from ingestkit.session import Session
from ingestkit.waiting import run_waiting
from ingestkit.working import RunOptions
from tests.integration.world import FIRST, SECOND, World, read_until

MINUTES = timedelta(minutes=30)
EVERY = timedelta(seconds=30)


@dataclass
class Clock:
    """Time that passes only when somebody sleeps; what happens meanwhile is said beforehand."""

    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    naps: list[float] = field(default_factory=list)
    then: dict[int, Callable[[], object]] = field(default_factory=dict)

    def now(self) -> datetime:
        return self.time

    def elapsed(self) -> float:
        return sum(self.naps)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += timedelta(seconds=seconds)
        self.then.pop(len(self.naps), lambda: None)()


class Heard(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, message: str, **facts: object) -> None:
        self.lines.append(message)

    def warned(self, message: str, **facts: object) -> None:
        self.lines.append(message)


@contextmanager
def opened(world: World, clock: Clock, heard: Heard | None = None) -> Iterator[Session]:
    loaded = project.load(world.root)
    session = loaded.open("p", clock=clock, stop=Stop(), progress=heard or Heard(), jobs=1)
    try:
        yield session
    finally:
        session.state.close()


def waited(world: World, clock: Clock, options: RunOptions | None = None, heard: Heard | None = None) -> Outcome:
    with opened(world, clock, heard) as session:
        return run_waiting(session, options or RunOptions(), MINUTES, EVERY)


def leases(world: World) -> list[tuple[object, ...]]:
    return world.state("SELECT model FROM lease WHERE expires IS NOT NULL")


def test_what_is_there_already_is_not_waited_for(world: World) -> None:
    world.drop(FIRST)
    clock = Clock()
    assert waited(world, clock).status == "done"
    assert clock.naps == []


def test_what_arrives_while_it_waits_is_taken_at_the_next_look(world: World) -> None:
    held: list[object] = []
    clock = Clock(then={2: lambda: held.append(leases(world)), 3: lambda: world.drop(FIRST)})
    heard = Heard()
    outcome = waited(world, clock, heard=heard)
    assert (outcome.status, [one.batch for one in outcome.results]) == ("done", ["20260101"] * 2)
    assert clock.naps == [30, 30, 30]
    assert held == [[]], "no lease is held while it waits"
    assert [line for line in heard.lines if "waiting" in line] == [
        "waiting up to 30m for something new, looking every 30s"
    ]


def test_when_nothing_comes_it_says_so_after_its_time(world: World) -> None:
    clock = Clock()
    outcome = waited(world, clock)
    assert (outcome.status, outcome.exit_code) == ("nothing new", 0)
    assert outcome.message == "nothing new for p (waited 30m)"
    assert sum(clock.naps) == MINUTES.total_seconds()


def test_the_last_nap_is_no_longer_than_what_is_left(world: World) -> None:
    clock = Clock()
    with opened(world, clock) as session:
        run_waiting(session, RunOptions(), timedelta(seconds=70), EVERY)
    assert clock.naps == [30, 30, 10]


def test_files_settle_between_looks_and_are_not_sighted_anew(world: World) -> None:
    world.set_up({"source.settle.quiet": "45s"})
    world.drop(FIRST)
    clock = Clock()
    assert waited(world, clock).status == "done"
    assert clock.naps == [30, 30]
    assert world.table("a", "id") == [("1",), ("2",)]


def test_a_file_that_still_grows_is_waited_for(world: World) -> None:
    world.set_up({"source.settle.quiet": "20s"})
    world.drop(FIRST)
    clock = Clock(then={1: lambda: world.drop({"20260101/a.csv": "id,n\n1,1\n2,2\n3,3\n"})})
    assert waited(world, clock).status == "done"
    assert clock.naps == [20, 20]
    assert len(world.table("a")) == 3


def test_the_same_is_said_once_however_often_it_looks(world: World) -> None:
    world.set_up({"source.expect": ["a", "b"]})
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]})
    heard = Heard()
    outcome = waited(world, Clock(), heard=heard)
    assert (outcome.status, outcome.exit_code) == ("waiting", 0)
    assert len([line for line in heard.lines if "no file of b yet" in line]) == 1


def test_a_batch_that_is_named_may_still_have_to_come(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    clock = Clock(then={1: lambda: world.drop(SECOND)})
    outcome = waited(world, clock, RunOptions(batch="20260108"))
    assert (outcome.status, outcome.results[0].batch) == ("done", "20260108")
    never = waited(world, Clock(), RunOptions(batch="20270101"))
    assert (never.status, never.message) == ("nothing new", "batch 20270101 has not come (waited 30m)")


def test_somebody_else_at_work_meanwhile_is_waited_for(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    with opened(world, Clock()) as other, ExitStack() as theirs:

        def ends() -> None:
            theirs.close()
            world.drop(SECOND)

        clock = Clock(then={1: lambda: theirs.enter_context(holding(other, ("a", "b"), "backfill", "fail")), 2: ends})
        assert waited(world, clock).status == "done"
        assert len(clock.naps) == 2


def test_somebody_else_at_work_at_the_first_look_is_waited_for_too(world: World) -> None:
    world.drop(FIRST)
    with opened(world, Clock()) as other, ExitStack() as theirs:
        theirs.enter_context(holding(other, ("a",), "backfill", "fail"))
        clock, heard = Clock(then={2: theirs.close}), Heard()
        assert waited(world, clock, heard=heard).status == "done"
    assert clock.naps == [30, 30]
    assert len([line for line in heard.lines if "p (a) is being worked on by" in line]) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_makes_nobody_wait_longer_or_shorter(world: World, hours: int) -> None:
    clock = Clock()
    clock.then[1] = lambda: setattr(clock, "time", clock.time + timedelta(hours=hours))
    assert waited(world, clock).message == "nothing new for p (waited 30m)"
    assert sum(clock.naps) == MINUTES.total_seconds()


def test_a_state_that_does_not_answer_is_asked_again_while_there_is_time(world: World) -> None:
    world.settle({"state.busy_timeout": "500ms"})
    world.drop(FIRST)
    world.does("run")
    with closing(sqlite3.connect(world.database, isolation_level=None)) as theirs:

        def let_go() -> None:
            theirs.execute("COMMIT")
            world.drop(SECOND)

        clock = Clock(then={1: lambda: theirs.execute("BEGIN IMMEDIATE"), 3: let_go})
        heard = Heard()
        assert waited(world, clock, heard=heard).status == "done"
        assert (clock.naps, len([line for line in heard.lines if "is locked by" in line])) == ([30, 30, 30], 1)
        theirs.execute("BEGIN IMMEDIATE")
        clock = Clock()
        with opened(world, clock) as session, pytest.raises(StateError, match="is locked by another process"):
            run_waiting(session, RunOptions(), timedelta(seconds=45), EVERY)
        assert clock.naps == [30, 15]


def test_a_state_that_fails_for_good_is_asked_once(world: World) -> None:
    world.does("run")
    clock = Clock(then={1: lambda: world.state("UPDATE pipeline SET token_counter = 0")})
    with opened(world, clock) as session, pytest.raises(StateError, match="the state went back"):
        run_waiting(session, RunOptions(), MINUTES, EVERY)
    assert clock.naps == [30]


def test_somebody_else_at_work_when_the_time_is_over_is_told(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    with opened(world, Clock()) as other, ExitStack() as theirs:
        clock = Clock(then={1: lambda: theirs.enter_context(holding(other, ("a",), "backfill", "fail"))})
        with opened(world, clock) as session, pytest.raises(LeaseHeld):
            run_waiting(session, RunOptions(), timedelta(seconds=45), EVERY)
        assert clock.naps == [30, 15]


def test_who_skips_what_is_locked_waits_for_it_while_there_is_time(world: World) -> None:
    world.drop(FIRST)
    with opened(world, Clock()) as other, ExitStack() as theirs:
        theirs.enter_context(holding(other, ("a",), "backfill", "fail"))
        clock = Clock(then={1: theirs.close})
        with opened(world, clock) as session:
            assert run_waiting(session, RunOptions(if_locked="skip"), MINUTES, EVERY).status == "done"
        assert clock.naps == [30]


def test_a_pause_ends_the_waiting(world: World) -> None:
    clock = Clock(then={2: lambda: world.does("pause", "p", "--reason", "look")})
    assert waited(world, clock).status == "paused"


def test_the_command_waits_for_real_and_takes_what_comes(world: World) -> None:
    process = world.start("run", "--wait", "1m", "--every", "200ms")
    read_until(process, "waiting up to 1m")
    world.drop(FIRST)
    ended = world.ended(process)
    assert ended.code == 0, ended
    assert "1 batch done: 20260101" in ended.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_waiting_at_once(world: World, number: signal.Signals, code: int) -> None:
    process = world.start("run", "--wait", "1h", "--every", "30m")
    read_until(process, "waiting up to 1h")
    process.send_signal(number)
    ended = world.ended(process, patience=20)
    assert ended.code == code
    assert f"error: stopped by {number.name}" in ended.err
    assert leases(world) == []


def test_nothing_new_in_time_may_be_a_skip_to_a_scheduler(world: World) -> None:
    ended = world.call("run", "--wait", "10ms", "--every", "5ms", "--skip-exit-code", "99", "--output", "json")
    assert (ended.code, ended.answer["status"]) == (99, "nothing new")


def test_what_cannot_be_meant_is_refused(world: World) -> None:
    assert "--every is of a run that waits" in world.refused(2, "run", "--every", "30s")
    assert "without a pause" in world.refused(2, "run", "--wait", "30m", "--every", "0s")
    assert "no duration" in world.refused(2, "run", "--wait", "30")
    assert "--dry-run or --wait" in world.refused(2, "run", "--wait", "30m", "--dry-run")
