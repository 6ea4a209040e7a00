"""The lease: one owner at a time, the dead replaced at once, the stopped after expiry, the old kept from writing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest
import sqlalchemy as sql

from ingestkit.errors import Interrupted, LeaseHeld, LeaseLost, StateError, UsageError
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.states import tables
from ingestkit.states.engine import StateDatabase
from ingestkit.states.lease import GRACE, IfLocked, Lease, acquire, acquire_waiting, give_way, heartbeat
from ingestkit.states.owner import Owner

TTL = timedelta(seconds=90)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class HandClock:
    """Time that passes only when somebody says so."""

    time: datetime = START
    passed: float = 0
    slept: list[float] = field(default_factory=list)
    while_asleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self.time

    def elapsed(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)
        self.while_asleep()

    def pass_by(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.passed += seconds

    def put(self, by: timedelta) -> None:
        """Set the clock forward or back; no time passes."""
        self.time += by


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
def db(url: str) -> Iterator[StateDatabase]:
    opened = StateDatabase.open(url, 5)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def take(
    db: StateDatabase,
    clock: HandClock,
    *models: str,
    pipeline: str = "p",
    command: str = "run",
    owner: Owner | None = None,
) -> Lease:
    return acquire(db, pipeline, models, command=command, owner=owner or Owner.here(), ttl=TTL, clock=clock)


def rows_of(db: StateDatabase) -> dict[str, sql.Row[tuple[object, ...]]]:
    with db.read() as conn:
        return {row.model: row for row in conn.execute(sql.select(tables.lease))}


def write_mark(lease: Lease, mark: str) -> None:
    with lease.transaction() as conn:
        conn.execute(sql.update(tables.pipeline).values(paused_reason=mark))


def mark_of(db: StateDatabase) -> str | None:
    with db.read() as conn:
        mark: str | None = conn.execute(sql.select(tables.pipeline.c.paused_reason)).scalar_one()
    return mark


def elsewhere() -> Owner:
    """An owner on another machine, of whom only the expiry is known."""
    return replace(Owner.here(), host="other", boot="another", pid=77)


# --- taking ----------------------------------------------------------------------------------------------------------


def test_the_first_taker_makes_the_pipeline_with_a_state_id_of_its_own(db: StateDatabase, clock: HandClock) -> None:
    first, second = take(db, clock, "a", pipeline="p"), take(db, clock, "a", pipeline="q")
    assert (first.token, second.token) == (1, 1)
    assert len(first.state_id) == 32
    assert first.state_id != second.state_id
    with db.read() as conn:
        made = conn.execute(sql.select(tables.pipeline).where(tables.pipeline.c.pipeline == "p")).one()
    assert (made.token_counter, made.floors, made.pins, made.state_id) == (1, {}, {}, first.state_id)


def test_tokens_only_rise_whoever_takes_and_however_it_ended(db: StateDatabase, clock: HandClock) -> None:
    tokens = []
    for _ in range(3):
        lease = take(db, clock, "a", "b")
        with pytest.raises(LeaseHeld):
            take(db, clock, "b")
        tokens.append(lease.token)
        lease.release()
    assert tokens == sorted(set(tokens))
    assert {row.token for row in rows_of(db).values()} == {tokens[-1]}


def test_models_are_held_side_by_side_but_not_twice(db: StateDatabase, clock: HandClock) -> None:
    mine, theirs = take(db, clock, "a"), take(db, clock, "b")
    assert mine.token < theirs.token
    with pytest.raises(LeaseHeld):
        take(db, clock, "a")


def test_all_or_none_are_taken(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "b")
    with pytest.raises(LeaseHeld, match=r"p \(b\)"):
        take(db, clock, "a", "b", "c")
    assert list(rows_of(db)) == ["b"]
    take(db, clock, "a", "c")


@pytest.mark.parametrize(("first", "second"), [("*", "a"), ("a", "*"), ("*", "*")])
def test_the_lease_of_all_models_stands_against_each(
    db: StateDatabase, clock: HandClock, first: str, second: str
) -> None:
    lease = take(db, clock, first)
    with pytest.raises(LeaseHeld):
        take(db, clock, second)
    lease.release()
    take(db, clock, second)


def test_a_refusal_names_process_host_command_and_since_when(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "a", command="backfill", owner=elsewhere())
    clock.pass_by(30)
    with pytest.raises(LeaseHeld) as caught:
        take(db, clock, "a")
    assert caught.value.message == (
        "p (a) is being worked on by process 77 on other (backfill, since 2026-01-01 00:00:00 UTC)"
    )
    assert caught.value.hint is not None
    assert caught.value.exit_code == 8


def test_who_waits_writes_its_wish_once_and_then_only_looks(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "a")
    for _ in range(5):
        with pytest.raises(LeaseHeld):
            take(db, clock, "a")
    with db.read() as conn:
        assert conn.execute(sql.select(tables.pipeline.c.token_counter)).scalar_one() == 2


def test_who_was_turned_away_is_known_to_the_holder_until_it_takes_again(db: StateDatabase, clock: HandClock) -> None:
    lease, beside = take(db, clock, "a"), take(db, clock, "b")
    with pytest.raises(LeaseHeld):
        take(db, clock, "a", "c")
    with db.read() as conn:
        assert (lease.wanted(conn), beside.wanted(conn)) == (True, False)
    lease.release()
    again = take(db, clock, "a")
    with db.read() as conn:
        assert not again.wanted(conn)


def test_a_state_put_back_to_an_older_copy_is_noticed_by_its_counter(db: StateDatabase, clock: HandClock) -> None:
    for _ in range(2):
        take(db, clock, "a").release()
    with db.write() as conn:
        conn.execute(sql.update(tables.pipeline).values(token_counter=0))
    with pytest.raises(StateError, match="counter of p is behind") as caught:
        take(db, clock, "a")
    assert caught.value.hint == "ingestkit state adopt p --reason '...'"


# --- losing ----------------------------------------------------------------------------------------------------------


def test_a_lease_that_expired_is_taken_and_the_old_owner_writes_nothing(db: StateDatabase, clock: HandClock) -> None:
    old = take(db, clock, "a", owner=elsewhere())
    write_mark(old, "old")
    clock.pass_by(90)
    new = take(db, clock, "a")
    assert new.token > old.token
    for attempt in (old.beat, lambda: write_mark(old, "too late"), old.release):
        if attempt == old.release:
            attempt()
            continue
        with pytest.raises(LeaseLost, match=f"process {os.getpid()} on .* has it"):
            attempt()
    assert mark_of(db) == "old"
    write_mark(new, "new")
    assert mark_of(db) == "new"


def test_a_beat_keeps_the_lease(db: StateDatabase, clock: HandClock) -> None:
    lease = take(db, clock, "a", owner=elsewhere())
    clock.pass_by(80)
    lease.beat()
    clock.pass_by(80)
    with pytest.raises(LeaseHeld):
        take(db, clock, "a")


def test_an_owner_late_for_its_beat_goes_on_if_nobody_came(db: StateDatabase, clock: HandClock) -> None:
    lease = take(db, clock, "a")
    clock.pass_by(1000)
    lease.beat()
    assert rows_of(db)["a"].expires == clock.now() + TTL


def test_losing_one_of_several_models_is_losing_them_all(db: StateDatabase, clock: HandClock) -> None:
    old = take(db, clock, "a", "b", owner=elsewhere())
    clock.pass_by(90)
    take(db, clock, "b")
    with pytest.raises(LeaseLost):
        write_mark(old, "half")
    assert mark_of(db) is None
    assert rows_of(db)["a"].beat == START


@pytest.mark.parametrize(("old", "new"), [("*", "a"), ("a", "*")])
def test_an_owner_whose_lease_gave_way_to_one_of_another_extent_writes_nothing(
    db: StateDatabase, clock: HandClock, old: str, new: str
) -> None:
    before = take(db, clock, old, owner=elsewhere())
    clock.pass_by(90)
    after = take(db, clock, new)
    with pytest.raises(LeaseLost):
        write_mark(before, "both")
    write_mark(after, "one")


def test_a_released_lease_cannot_be_written_with(db: StateDatabase, clock: HandClock) -> None:
    lease = take(db, clock, "a")
    lease.release()
    with pytest.raises(LeaseLost):
        write_mark(lease, "after the end")
    row = rows_of(db)["a"]
    assert (row.token, row.owner, row.expires) == (lease.token, None, None)


def test_an_error_in_a_transaction_takes_back_its_rows(db: StateDatabase, clock: HandClock) -> None:
    lease = take(db, clock, "a")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(lease)
    assert mark_of(db) is None


def write_and_fail(lease: Lease) -> None:
    with lease.transaction() as conn:
        conn.execute(sql.update(tables.pipeline).values(paused_reason="x"))
        raise ZeroDivisionError


# --- real processes --------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from datetime import timedelta
from ingestkit.errors import LeaseHeld, LeaseLost
from ingestkit.pipeline import SystemClock
from ingestkit.states.engine import StateDatabase
from ingestkit.states.lease import acquire
from ingestkit.states.owner import Owner

db = StateDatabase.open(sys.argv[1], 10)
print("ready", flush=True)
sys.stdin.readline()
facts = {"command": "run", "owner": Owner.here(), "ttl": timedelta(seconds=90), "clock": SystemClock()}
try:
    lease = acquire(db, "p", ["a", "b"], **facts)
    print("took", lease.token, flush=True)
    sys.stdin.readline()
    lease.beat()
    print("beat", flush=True)
except LeaseHeld:
    print("held", flush=True)
except LeaseLost:
    print("lost", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process(url: str, db: StateDatabase) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, url]
        one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def out(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout
    return process.stdout


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


Start = Callable[[], subprocess.Popen[str]]


def holder(process: Start) -> subprocess.Popen[str]:
    """A process of its own that holds the leases of a and b."""
    one = process()
    go(one)
    assert out(one).readline() == "ready\n"
    assert out(one).readline().startswith("took")
    return one


def test_of_processes_that_take_at_once_exactly_one_wins(process: Start) -> None:
    several = [process() for _ in range(3)]
    for one in several:
        assert out(one).readline() == "ready\n"
    for one in several:
        go(one)
    assert sorted(out(one).readline().split()[0] for one in several) == ["held", "held", "took"]


def test_threads_that_take_and_let_go_never_hold_together_nor_share_a_token(db: StateDatabase) -> None:
    inside, tokens, together = threading.Lock(), [], []

    def work() -> None:
        owner, taken = Owner.here(), 0
        while taken < 4:
            try:
                lease = acquire(db, "p", ["a"], command="run", owner=owner, ttl=TTL, clock=SystemClock())
            except LeaseHeld:
                continue
            if inside.acquire(blocking=False):
                tokens.append(lease.token)
                lease.beat()
                inside.release()
            else:
                together.append(lease.token)
            lease.release()
            taken += 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert together == []
    assert len(tokens) == 16
    assert tokens == sorted(set(tokens))


def test_the_lease_of_a_killed_process_is_free_at_once(db: StateDatabase, process: Start) -> None:
    one = holder(process)
    with pytest.raises(LeaseHeld, match=f"process {one.pid} on"):
        take(db, HandClock(SystemClock().now()), "a")
    one.kill()
    # Its parent has not waited for it, as in a container without an init: it is dead all the same.
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    assert take(db, HandClock(SystemClock().now()), "a", "b").token == 3


def test_a_stopped_process_keeps_its_lease_until_it_expires_and_cannot_write_after(
    db: StateDatabase, process: Start
) -> None:
    one = holder(process)
    one.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, one.pid, os.WSTOPPED | os.WNOWAIT)
    clock = HandClock(SystemClock().now())
    with pytest.raises(LeaseHeld):
        take(db, clock, "a")
    clock.pass_by(91)
    lease = take(db, clock, "a")
    one.send_signal(signal.SIGCONT)
    go(one)
    assert out(one).readline() == "lost\n"
    write_mark(lease, "mine")


# --- owners ----------------------------------------------------------------------------------------------------------


def test_an_owner_goes_through_json_unchanged() -> None:
    owner = Owner.here()
    assert Owner.from_json(owner.to_json()) == owner


def test_a_process_is_alive_to_itself_and_dead_when_its_number_was_given_away() -> None:
    here = Owner.here()
    assert here.started is not None
    assert not here.is_dead()
    assert replace(here, started=here.started - 1).is_dead()


@pytest.mark.parametrize("facts", [{"boot": "other"}, {"pid_namespace": "pid:[1]"}, {"boot": None}, {"started": None}])
def test_of_a_process_out_of_sight_only_the_expiry_is_believed(facts: dict[str, Any]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = replace(Owner.here(), pid=gone.pid)
    assert here.is_dead()
    assert not replace(here, **facts).is_dead()


def test_a_process_of_another_user_that_cannot_be_looked_into_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not replace(Owner.here(), pid=2**22 + 1).is_dead()


# --- heartbeat -------------------------------------------------------------------------------------------------------


def test_the_heartbeat_beats_while_the_work_goes_on(db: StateDatabase) -> None:
    lease = acquire(db, "p", ["a"], command="run", owner=Owner.here(), ttl=TTL, clock=SystemClock())
    first, stop = rows_of(db)["a"].beat, Stop()
    with heartbeat(lease, timedelta(milliseconds=5), stop):
        while rows_of(db)["a"].beat == first:
            pass
    assert not stop.requested
    lease.release()


def test_the_heartbeat_asks_to_stop_when_the_lease_is_lost(db: StateDatabase, clock: HandClock) -> None:
    lease, stop = take(db, clock, "a", owner=elsewhere()), Stop()
    clock.pass_by(90)
    take(db, clock, "a")
    with heartbeat(lease, timedelta(milliseconds=5), stop), pytest.raises(LeaseLost, match="has it"):
        stop.wait(30)


def test_a_state_that_does_not_answer_stops_the_work_before_the_lease_expires(url: str, clock: HandClock) -> None:
    db = StateDatabase.open(url, 0.01)
    lease, stop = take(db, clock, "a"), Stop()
    with db.write(), heartbeat(lease, timedelta(milliseconds=5), stop):
        clock.pass_by(89)
        stop.check()
        clock.pass_by(1)
        with pytest.raises(LeaseLost, match=r"has not answered for 90 s.* is locked"):
            stop.wait(30)
    db.close()


def test_how_long_a_state_is_silent_is_not_told_by_a_clock_that_is_put(url: str, clock: HandClock) -> None:
    db = StateDatabase.open(url, 0.01)
    lease, stop = take(db, clock, "a"), Stop()
    with db.write(), heartbeat(lease, timedelta(milliseconds=5), stop):
        clock.put(timedelta(days=1))
        stop.wait(0.2)
        clock.put(timedelta(days=-2))
        clock.pass_by(90)
        with pytest.raises(LeaseLost, match="has not answered for 90 s"):
            stop.wait(30)
    db.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_heartbeat_that_dies_of_a_bug_stops_the_work(db: StateDatabase, clock: HandClock) -> None:
    lease, stop = take(db, clock, "a"), Stop()
    with db.write() as conn:
        conn.exec_driver_sql("DROP TABLE lease")
    with heartbeat(lease, timedelta(milliseconds=5), stop), pytest.raises(LeaseLost, match="ended unexpectedly"):
        stop.wait(30)


# --- waiting ---------------------------------------------------------------------------------------------------------


def wait(db: StateDatabase, clock: HandClock, policy: str, told: list[LeaseHeld], stop: Stop | None = None) -> Lease:
    return acquire_waiting(
        db,
        "p",
        ["a"],
        command="run",
        owner=Owner.here(),
        ttl=TTL,
        clock=clock,
        if_locked=IfLocked.parse(policy),
        stop=stop or Stop(),
        waiting=told.append,
    )


def test_waiting_ends_when_the_other_lets_go(db: StateDatabase, clock: HandClock) -> None:
    other, told = take(db, clock, "a"), list[LeaseHeld]()
    clock.while_asleep = lambda: other.release() if len(clock.slept) == 5 else None
    lease = wait(db, clock, "wait:10m", told)
    assert (len(clock.slept), len(told)) == (5, 1)
    write_mark(lease, "mine")


def test_waiting_ends_when_patience_does(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "a")
    with pytest.raises(LeaseHeld):
        wait(db, clock, "wait:60s", [])
    assert clock.now() - START == timedelta(seconds=60)


def test_a_clock_that_is_set_back_makes_no_wait_longer(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "a")
    clock.while_asleep = lambda: clock.put(timedelta(hours=-1))
    with pytest.raises(LeaseHeld):
        wait(db, clock, "wait:60s", [])
    assert sum(clock.slept) == 60


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_without_patience_nobody_waits(db: StateDatabase, clock: HandClock, policy: str) -> None:
    take(db, clock, "a")
    with pytest.raises(LeaseHeld):
        wait(db, clock, policy, [])
    assert clock.slept == []


def test_a_wait_can_be_interrupted(db: StateDatabase, clock: HandClock) -> None:
    take(db, clock, "a")
    stop = Stop()
    clock.while_asleep = lambda: stop.request(lambda: Interrupted("stopped", exit_code=130))
    with pytest.raises(Interrupted):
        wait(db, clock, "wait:10m", [], stop)
    assert len(clock.slept) == 1


def test_policies_are_read_from_their_text() -> None:
    assert IfLocked.parse("fail") == IfLocked("fail")
    assert IfLocked.parse("skip") == IfLocked("skip")
    assert IfLocked.parse("wait:10m") == IfLocked("wait", timedelta(minutes=10))


@pytest.mark.parametrize("text", ["", "wait", "wait:", "wait:10", "fail:1s", "queue"])
def test_a_policy_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--if-locked"):
        IfLocked.parse(text)


# --- letting others go before ----------------------------------------------------------------------------------------


def test_who_gives_way_goes_on_as_soon_as_another_has_the_lease(db: StateDatabase, clock: HandClock) -> None:
    mine = take(db, clock, "a", "b")
    mine.release()

    def taken() -> None:
        if len(clock.slept) == 3:
            take(db, clock, "b")

    clock.while_asleep = taken
    give_way(mine, Stop())
    assert len(clock.slept) == 3


def test_who_gives_way_to_nobody_goes_on_after_a_while(db: StateDatabase, clock: HandClock) -> None:
    mine = take(db, clock, "a")
    mine.release()
    take(db, clock, "other")
    give_way(mine, Stop())
    assert timedelta(seconds=sum(clock.slept)) >= GRACE
