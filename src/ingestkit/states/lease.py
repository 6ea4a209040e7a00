"""The lease: who may work on a pipeline's models now, and how a process learns that it no longer may."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self

import sqlalchemy as sql

from ingestkit import steps
from ingestkit.errors import LeaseHeld, LeaseLost, StateError, UsageError
from ingestkit.pipeline import Clock, Stop
from ingestkit.settings import duration
from ingestkit.states import rows
from ingestkit.states.engine import StateDatabase
from ingestkit.states.owner import Owner
from ingestkit.states.tables import lease as table
from ingestkit.states.tables import pipeline as pipeline_table

POLL = timedelta(seconds=1)
GRACE = timedelta(seconds=5)
"""How long who was turned away is given to take its turn, when a lease is let go for it."""
ALL = "*"
"""The model of a pipeline whose models come together; it stands against every other."""


# Every transaction begins with it, so that it is made once.
BEAT = (
    sql.update(table)
    .where(
        table.c.pipeline == sql.bindparam("of"),
        table.c.model.in_(sql.bindparam("models", expanding=True)),
        table.c.token == sql.bindparam("mine"),
        table.c.expires.is_not(None),
    )
    .values(beat=sql.bindparam("now"), expires=sql.bindparam("until"))
)


@dataclass(frozen=True, slots=True)
class Lease:
    """Taken by `acquire`, for one command. A row that is let go keeps its token and has no `expires`."""

    db: StateDatabase
    pipeline: str
    models: tuple[str, ...]
    token: int
    state_id: str
    owner: Owner
    ttl: timedelta
    clock: Clock

    def guard(self, conn: sql.Connection) -> None:
        """Lock the lease for the rest of the transaction and prove that it is still held, else LeaseLost."""
        now = self.db.now(conn, self.clock)
        mine = {"of": self.pipeline, "models": self.models, "mine": self.token}
        answered = conn.execute(BEAT, {**mine, "now": now, "until": now + self.ttl}).rowcount
        if answered != len(self.models):
            raise self._lost(conn)

    @contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        """A write transaction that begins with the guard: whoever lost the lease writes nothing."""
        with self.db.write() as conn:
            self.guard(conn)
            yield conn

    def beat(self) -> None:
        with self.transaction():
            pass

    def wanted(self, conn: sql.Connection) -> bool:
        """Whether somebody was turned away since this lease was taken."""
        query = sql.select(sql.func.count()).where(self._mine(), table.c.wanted_at.is_not(None))
        return conn.execute(query).scalar_one() > 0

    def release(self) -> None:
        """Let go of what is still held. The rows stay, so that their tokens never fall."""
        with self.db.write() as conn:
            free = {"owner": None, "command": None, "expires": None, "wanted_at": None}
            conn.execute(sql.update(table).where(self._mine()).values(free))

    def _mine(self) -> sql.ColumnElement[bool]:
        return sql.and_(table.c.pipeline == self.pipeline, table.c.model.in_(self.models), table.c.token == self.token)

    def _lost(self, conn: sql.Connection) -> LeaseLost:
        query = sql.select(table).where(table.c.pipeline == self.pipeline, table.c.token > self.token)
        other = next((_Holder.of(row) for row in conn.execute(query) if row.owner is not None), None)
        taken = f"; {other} has it" if other else ""
        return LeaseLost(
            f"this process no longer holds the lease of {self.pipeline} ({', '.join(self.models)}) "
            f"and wrote nothing more{taken}",
            hint="the next run goes on from what was finished: ingestkit runs list",
        )


@dataclass(frozen=True, slots=True)
class _Holder:
    """A lease row that stands in the way."""

    model: str
    token: int
    owner: Owner
    command: str | None
    since: datetime
    expires: datetime
    wanted: bool

    @classmethod
    def of(cls, row: sql.Row[tuple[object, ...]]) -> Self:
        owner, wanted = Owner.from_json(row.owner), row.wanted_at is not None
        return cls(row.model, row.token, owner, row.command, row.since, row.expires, wanted)

    def __str__(self) -> str:
        return f"{self.owner.shown()} ({self.command or 'unknown command'}, since {self.since:%Y-%m-%d %H:%M:%S} UTC)"


def acquire(
    db: StateDatabase,
    pipeline: str,
    models: Sequence[str],
    *,
    command: str,
    owner: Owner,
    ttl: timedelta,
    clock: Clock,
) -> Lease:
    """Take the leases of all these models, or of none: LeaseHeld names who has one of them.

    The token is drawn in the transaction that takes them. Drawn before, another command could draw a later one, publish
    and leave in between, and the one taken with would be behind the fence.
    """
    wanted = tuple(sorted(set(models)))
    with db.read() as conn:
        held = _alive(_standing_against(conn, pipeline, wanted), db.now(conn, clock))
    # Who waits only looks: a write at each try would keep the holder from the database.
    if held and all(holder.wanted for holder in held):
        raise _refusal(pipeline, held[0])
    with db.write() as conn:
        # Raising the counter first also makes other takers of this pipeline wait here, whatever the database.
        token, state_id = _draw(conn, pipeline)
        now = db.now(conn, clock)
        there = _standing_against(conn, pipeline, wanted)
        held = _alive(there, now)
        if held:
            names = [holder.model for holder in held]
            conn.execute(_rows_of(pipeline, names).where(table.c.wanted_at.is_(None)).values(wanted_at=now))
        else:
            # The rows of the dead that are not taken over are voided too: one of them may only look dead.
            conn.execute(_rows_of(pipeline, [holder.model for holder in there]).values(_void(token)))
            mine = {"owner": owner.to_json(), "command": command, "since": now, "beat": now, "expires": now + ttl}
            for model in wanted:
                row = {"pipeline": pipeline, "model": model, "token": token, "wanted_at": None} | mine
                if not rows.put(conn, table, row):
                    raise StateError(
                        f"the token counter of {pipeline} is behind its lease of {model}: the state went back",
                        hint=f"ingestkit state adopt {pipeline} --reason '...'",
                    )
    if held:
        raise _refusal(pipeline, held[0])
    steps.reached("lease.taken")
    return Lease(db, pipeline, wanted, token, state_id, owner, ttl, clock)


def holders(conn: sql.Connection, pipeline: str, now: datetime) -> list[dict[str, object]]:
    """Who works on which model of the pipeline now."""
    return [
        {"model": one.model, "owner": one.owner.shown(), "command": one.command, "since": one.since}
        for one in _alive(_standing_against(conn, pipeline, (ALL,)), now)
    ]


def raise_counter(db: StateDatabase, pipeline: str, at_least: int) -> None:
    """Never draw a token of the pipeline up to this one again: others have given them out."""
    with db.write() as conn:
        _draw(conn, pipeline)
        here = (pipeline_table.c.pipeline == pipeline, pipeline_table.c.token_counter < at_least)
        conn.execute(sql.update(pipeline_table).where(*here).values(token_counter=at_least))


@dataclass(frozen=True, slots=True)
class IfLocked:
    """What a command does when somebody else holds what it needs; `skip` is told apart by the caller."""

    policy: Literal["fail", "skip", "wait"]
    wait: timedelta = timedelta(0)

    @classmethod
    def parse(cls, text: str) -> Self:
        match text.partition(":"):
            case ("fail" | "skip") as policy, "", "":
                return cls(policy)
            case "wait", ":", limit:
                try:
                    return cls("wait", duration(limit))
                except ValueError as error:
                    raise UsageError(f"--if-locked {text}: {error}") from error
            case _:
                raise UsageError(f"--if-locked {text} is unknown", hint="one of fail, skip, wait:10m")


def acquire_waiting(
    db: StateDatabase,
    pipeline: str,
    models: Sequence[str],
    *,
    command: str,
    owner: Owner,
    ttl: timedelta,
    clock: Clock,
    if_locked: IfLocked,
    stop: Stop,
    waiting: Callable[[LeaseHeld], None],
) -> Lease:
    """Try until the leases are free or the patience of `if_locked` ends; `waiting` hears the first refusal, once."""
    until = clock.elapsed() + if_locked.wait.total_seconds()
    told = False
    while True:
        try:
            return acquire(db, pipeline, models, command=command, owner=owner, ttl=ttl, clock=clock)
        except LeaseHeld as held:
            left = until - clock.elapsed()
            if left <= 0:
                raise
            if not told:
                waiting(held)
                told = True
        stop.check()
        clock.sleep(min(left, POLL.total_seconds()))


def give_way(lease: Lease, stop: Stop) -> None:
    """Once the lease is let go: wait until whoever was turned away has it, or does not seem to come any more."""
    until = lease.clock.elapsed() + GRACE.total_seconds()
    later = sql.select(sql.func.count()).where(
        table.c.pipeline == lease.pipeline, table.c.model.in_((*lease.models, ALL)), table.c.token > lease.token
    )
    while lease.clock.elapsed() < until:
        with lease.db.read() as conn:
            if conn.execute(later).scalar_one():
                return
        stop.check()
        lease.clock.sleep(POLL.total_seconds() / 10)


@contextmanager
def heartbeat(lease: Lease, every: timedelta, stop: Stop) -> Iterator[None]:
    """Beat from a thread, on a connection of its own; ask to stop once the lease is lost or must be feared lost."""
    ended = threading.Event()
    thread = threading.Thread(
        target=_beat_until, args=(lease, every, stop, ended), name=f"heartbeat {lease.pipeline}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat_until(lease: Lease, every: timedelta, stop: Stop, ended: threading.Event) -> None:
    answered = lease.clock.elapsed()
    reason = LeaseLost(f"the heartbeat of {lease.pipeline} ended unexpectedly", hint="this is a bug; please report it")
    try:
        while not ended.wait(every.total_seconds()):
            try:
                lease.beat()
                answered = lease.clock.elapsed()
            except StateError as error:
                silent = timedelta(seconds=lease.clock.elapsed() - answered)
                if silent <= lease.ttl - every:
                    continue
                reason = LeaseLost(
                    f"the state has not answered for {silent.seconds} s, so the lease of {lease.pipeline} may be "
                    f"another's by now: {error.message}",
                    hint=error.hint,
                )
                return
            except LeaseLost as error:
                reason = error
                return
    finally:
        # Also reached by an error nobody foresaw: without a heartbeat the work must not go on.
        if not ended.is_set():
            stop.request(lambda: reason)


def _draw(conn: sql.Connection, pipeline: str) -> tuple[int, str]:
    """The next token of the pipeline, and its state id; its row is made by whoever comes first."""
    absent = {"pipeline": pipeline, "state_id": secrets.token_hex(16), "token_counter": 0, "floors": {}, "pins": {}}
    rows.put_absent(conn, pipeline_table, absent)
    here = pipeline_table.c.pipeline == pipeline
    conn.execute(sql.update(pipeline_table).where(here).values(token_counter=pipeline_table.c.token_counter + 1))
    row = conn.execute(sql.select(pipeline_table.c.token_counter, pipeline_table.c.state_id).where(here)).one()
    return row.token_counter, row.state_id


def ran_out(conn: sql.Connection, pipeline: str, now: datetime) -> "list[_Holder]":
    """Owners who did not give back what they held, and gave no sign of life until it ran out."""
    query = sql.select(table).where(table.c.pipeline == pipeline, table.c.expires <= now).order_by(table.c.model)
    return [_Holder.of(row) for row in conn.execute(query)]


def _standing_against(conn: sql.Connection, pipeline: str, models: Sequence[str]) -> list[_Holder]:
    """Owners of rows these models cannot be held beside, living and dead."""
    query = sql.select(table).where(table.c.pipeline == pipeline, table.c.expires.is_not(None)).order_by(table.c.model)
    if ALL not in models:
        query = query.where(table.c.model.in_((*models, ALL)))
    return [_Holder.of(row) for row in conn.execute(query)]


def _alive(holders: Sequence[_Holder], now: datetime) -> list[_Holder]:
    return [holder for holder in holders if holder.expires > now and not holder.owner.is_dead()]


def _rows_of(pipeline: str, models: Sequence[str]) -> sql.Update:
    return sql.update(table).where(table.c.pipeline == pipeline, table.c.model.in_(models))


def _void(token: int) -> dict[str, object]:
    return {"token": token, "owner": None, "command": None, "expires": None, "wanted_at": None}


def _refusal(pipeline: str, holder: _Holder) -> LeaseHeld:
    what = pipeline if holder.model == ALL else f"{pipeline} ({holder.model})"
    return LeaseHeld(
        f"{what} is being worked on by {holder}",
        hint=f"see what it does: ingestkit runs watch {pipeline}; or wait for it: --if-locked wait:10m",
    )
