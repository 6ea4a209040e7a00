"""Sessions, the transactions open in them, and the locks on tables these hold and wait for."""

import datetime as dt
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from fakesnow.fakes import FakeSnowflakeConnection

from tests.doubles.snowflake.answers import Refused
from tests.doubles.snowflake.reading import Name

PARAMETERS: Final = {
    "ABORT_DETACHED_QUERY": "false",
    "AUTOCOMMIT": "true",
    "CLIENT_SESSION_KEEP_ALIVE": "false",
    "DATE_INPUT_FORMAT": "AUTO",
    "ERROR_ON_NONDETERMINISTIC_MERGE": "true",
    "ERROR_ON_NONDETERMINISTIC_UPDATE": "false",
    "LOCK_TIMEOUT": "43200",
    "MULTI_STATEMENT_COUNT": "1",
    "OPT_OUT_ERROR_LOGGING": "false",
    "QUERY_TAG": "",
    "QUOTED_IDENTIFIERS_IGNORE_CASE": "false",
    "READ_CONSISTENCY_MODE": "session",
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": "0",
    "STATEMENT_TIMEOUT_IN_SECONDS": "172800",
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "TIMEZONE": "Etc/UTC",
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
    "TIME_INPUT_FORMAT": "AUTO",
    "TRANSACTION_ABORT_ON_ERROR": "false",
    "USE_CACHED_RESULT": "true",
}
# How many may wait for one table.
WAITERS: Final = 20
# So long a silent session may hold what others wait for.
PATIENCE: Final = 300.0


@dataclass(slots=True)
class Done:
    """What a statement of an open transaction did: how to do it again, and which files it loaded into which table."""

    again: Callable[[], object]
    loaded: tuple[Name, dict[str, str]] | None = None
    truncated: Name | None = None


@dataclass(slots=True, eq=False)
class Transaction:
    number: int
    session: "Session"
    started: dt.datetime
    name: str = ""
    done: list[Done] = field(default_factory=list)
    locked: list[Name] = field(default_factory=list)
    # DuckDB has one open for it, which shows what others had committed when it began.
    alive: bool = False
    # By TRANSACTION_ABORT_ON_ERROR.
    failed: bool = False
    state: str = "running"


@dataclass(slots=True, eq=False)
class Session:
    number: int
    user: str
    role: str
    warehouse: str | None
    token: str
    master: str
    fake: FakeSnowflakeConnection
    parameters: dict[str, str]
    secondary: frozenset[str] = frozenset()
    """What other roles its user has stand for it, but not where something is to be made."""
    transaction: Transaction | None = None
    touched: float = field(default_factory=time.monotonic)
    busy: int = 0
    # Its transaction was ended by somebody else, which the next statement is told.
    aborted: int | None = None
    last_query: str | None = None
    requests: dict[str, Future[Any]] = field(default_factory=dict)
    """What was said to each request by its id: who asks again is told the same."""
    lost: set[str] = field(default_factory=set)
    """Requests whose answer never arrives, however often it is asked for."""

    @property
    def autocommit(self) -> bool:
        return self.parameters["AUTOCOMMIT"] == "true"

    def idle(self) -> float:
        return 0.0 if self.busy else time.monotonic() - self.touched


@dataclass(slots=True)
class Locks:
    """Who changes what is in a table keeps others from it until the end of its transaction; who only adds does not."""

    turn: threading.Condition
    abort: Callable[[Transaction], None]
    patience: float = PATIENCE
    holders: dict[Name, tuple[Transaction, str, dt.datetime]] = field(default_factory=dict)
    waiting: dict[Name, list[Transaction]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    """Queries that their clients want no more."""

    def wait(self, table: Name, mine: Transaction, query: str, *, take: bool) -> None:
        """Come back once nobody else holds the table, and by `take` hold it; others have the turn meanwhile."""
        waiting = self.waiting.setdefault(table, [])
        seconds = float(mine.session.parameters["LOCK_TIMEOUT"])
        until = time.monotonic() + seconds
        while (held := self.holders.get(table)) is not None and held[0] is not mine:
            if held[0].session.idle() > self.patience:
                self.abort(held[0])
                continue
            if self._deadlocked(table, mine):
                raise self._refused(table, query, "it would wait for a transaction that waits for it: a deadlock.")
            if mine not in waiting and len(waiting) >= WAITERS:
                limit = f"the number of waiters for this lock exceeds the {WAITERS} statements limit."
                raise self._refused(table, query, limit)
            if (left := until - time.monotonic()) <= 0:
                raise self._refused(table, query, f"it waited longer than LOCK_TIMEOUT, {seconds:g} second(s).")
            waiting.append(mine)
            try:
                self.turn.wait(min(left, 0.05))
            finally:
                waiting.remove(mine)
            if mine.state != "running" or query in self.cancelled:
                raise Refused(604, "57014", "SQL execution canceled")
        if take and held is None:
            self.holders[table] = (mine, query, dt.datetime.now(dt.UTC))
            mine.locked.append(table)

    def _deadlocked(self, table: Name, mine: Transaction) -> bool:
        """Whether who holds the table waits, itself or by others, for what is held here."""
        seen: set[int] = set()
        holder = self.holders[table][0]
        while holder.number not in seen:
            seen.add(holder.number)
            wanted = next((name for name, waiting in self.waiting.items() if holder in waiting), None)
            if wanted is None or wanted not in self.holders:
                return False
            holder = self.holders[wanted][0]
            if holder is mine:
                return True
        return False

    def release(self, mine: Transaction) -> None:
        for table in mine.locked:
            self.holders.pop(table, None)
        mine.locked.clear()
        self.turn.notify_all()

    def _refused(self, table: Name, query: str, why: str) -> Refused:
        holder, statement, _ = self.holders[table]
        said = f"Statement '{statement}' has locked table '{table[2]}' in transaction {holder.number} "
        return Refused(
            625,
            "57014",
            f"{said}and this lock has not yet been released.\nYour statement '{query}' was aborted because {why}",
        )
