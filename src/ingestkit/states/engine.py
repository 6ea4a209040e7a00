"""The state database: opening it, its read and write transactions, and its errors as the operator's words."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError

from ingestkit.errors import ConfigError, StateError
from ingestkit.pipeline import Clock
from ingestkit.states import postgresql, sqlite, tables
from ingestkit.states.tables import WRITES

UPGRADE = "ingestkit state upgrade"


@dataclass(frozen=True, slots=True)
class StateDatabase:
    """The state, opened. Safe to use from several threads; not to be carried over a fork."""

    engine: sql.Engine
    place: str
    process: int
    trouble_of: Callable[[Exception, str], StateError | None]
    ahead: timedelta = timedelta(0)
    """Of a copy: how far the clock that users of the original share is ahead of this machine's."""

    @classmethod
    def connect(cls, url: str, busy_timeout: float) -> Self:
        """The database as it is, whatever its version; `open` is for everybody but the upgrade."""
        parsed = _parsed(url)
        if parsed.get_backend_name() == "postgresql":
            place = parsed.set(password=None, query={}).render_as_string()
            return cls(postgresql.opened(parsed, busy_timeout), place, os.getpid(), postgresql.trouble_of)
        path = sqlite.path_of(parsed)
        return cls(sqlite.opened(path, busy_timeout), str(path), os.getpid(), sqlite.trouble_of)

    @classmethod
    def open(cls, url: str, busy_timeout: float) -> Self:
        """The database at the version this program knows; an empty one gets its tables first."""
        db = cls.connect(url, busy_timeout)
        try:
            db.expect_version()
        except BaseException:
            db.close()
            raise
        return db

    @classmethod
    def to_read(cls, url: str, instead: Path, busy_timeout: float) -> Self:
        """The database as `open` gives it; where there is none, an empty one in a file instead."""
        return cls.open(f"sqlite:///{instead}" if absent(url) else url, busy_timeout)

    @classmethod
    def copied(cls, url: str, into: Path, busy_timeout: float, clock: Clock) -> Self:
        """A copy of the database as it is now, in another file; an empty one where there is none."""
        parsed = _parsed(url)
        copy = cls.open(f"sqlite:///{into}", busy_timeout)
        if parsed.get_backend_name() != "sqlite":
            found = cls.open(url, busy_timeout)
            with found.read() as theirs, copy.write() as mine:
                ahead = found.now(theirs, clock) - clock.now()
                for table in tables.metadata.sorted_tables:
                    mine.execute(sql.delete(table))
                    if rows := [dict(row) for row in theirs.execute(sql.select(table)).mappings()]:
                        mine.execute(sql.insert(table), rows)
            found.close()
            return replace(copy, ahead=ahead)
        path = sqlite.path_of(parsed)
        if path.exists():
            copy.close()
            with closing(sqlite3.connect(path)) as theirs_, closing(sqlite3.connect(into)) as mine_:
                theirs_.backup(mine_)
            copy = cls.open(f"sqlite:///{into}", busy_timeout)
        return copy

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @property
    def shared(self) -> bool:
        """Whether other machines may work on it, so that its tables and its clock are not this one's to decide."""
        return self.dialect != "sqlite"

    def now(self, conn: sql.Connection, clock: Clock) -> datetime:
        """The moment by the clock that all who use the state share."""
        if not self.shared:
            return clock.now() + self.ahead
        found: datetime = conn.execute(sql.select(sql.func.clock_timestamp())).scalar_one()
        return found.astimezone(UTC)

    @contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """One unchanging view of the state; it cannot be written through."""
        with self._connected(writes=False) as conn:
            yield conn

    @contextmanager
    def read_by_select(self) -> Iterator[tuple[sql.Connection, dict[str, bool]]]:
        """As `read`, for a statement of somebody else's, with the options it is executed with: one SELECT or an error.

        Of several statements the first could end the transaction that forbids to write.
        """
        with self.read() as conn:
            if self.shared:
                # PostgreSQL declares a cursor for it, which takes nothing else.
                yield conn, {"stream_results": True}
                return
            with sqlite.only_selects(conn):
                yield conn, {}

    @contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction: committed on leaving, rolled back by any error; other writers wait from its start."""
        with self._connected(writes=True) as conn, conn.begin():
            yield conn

    def expect_version(self) -> None:
        with self.read() as conn:
            found = version_of(conn)
        if found is None and self.shared:
            raise ConfigError(f"state database {self.place} has no tables yet", hint=UPGRADE)
        if found is None:
            self._create()
        elif found != tables.HEAD:
            raise self._other_version(found)

    def close(self) -> None:
        if os.getpid() == self.process:
            self.engine.dispose()

    @contextmanager
    def _connected(self, *, writes: bool) -> Iterator[sql.Connection]:
        # SQLite forgets its locks and may corrupt the file when a connection is used, or only closed, after a fork.
        if os.getpid() != self.process:
            raise RuntimeError("the state was opened before a fork; each process opens its own")
        try:
            with self.engine.connect() as conn:
                yield conn.execution_options(**{WRITES: writes})
        except (DBAPIError, sqlite3.Error) as error:
            trouble = self.trouble_of(error, self.place)
            if trouble is None:
                raise
            raise trouble from error

    def _create(self) -> None:
        with self.write() as conn:
            # Another process may have made the tables while this one waited for the lock.
            if version_of(conn) is not None:
                return
            refuse_foreign(conn, self.place)
            tables.metadata.create_all(conn, checkfirst=False)
            conn.execute(sql.insert(tables.version).values(version_num=tables.HEAD))

    def _other_version(self, found: str) -> ConfigError | StateError:
        if found.isdecimal() and found < tables.HEAD:
            return ConfigError(
                f"state database {self.place} is of version {found}, older than this ingestkit's {tables.HEAD}",
                hint=UPGRADE,
            )
        return StateError(
            f"state database {self.place} is of version {found}, newer than this ingestkit knows ({tables.HEAD})",
            hint="upgrade ingestkit on this machine",
        )


def version_of(conn: sql.Connection) -> str | None:
    """The migration the database stands at; None when it has no state yet."""
    if not sql.inspect(conn).has_table(tables.version.name):
        return None
    found = conn.execute(sql.select(tables.version.c.version_num)).scalars().all()
    return ", ".join(found) or "unknown"


def refuse_foreign(conn: sql.Connection, place: str) -> None:
    """A database without a version must be empty: the tables of others are no place for a state."""
    if sql.inspect(conn).get_table_names():
        raise StateError(
            f"{place} is a database, but not a state of ingestkit",
            hint="ingestkit config show --origin says where state.url comes from",
        )


def absent(url: str) -> bool:
    """Whether it is a file that is yet to be made."""
    parsed = _parsed(url)
    return parsed.get_backend_name() == "sqlite" and not sqlite.path_of(parsed).exists()


def _parsed(url: str) -> sql.URL:
    if not url.startswith("sqlite") and "@" in url.partition("@")[2].partition("?")[0]:
        # The rest of a password would be taken for the place, and shown.
        raise ConfigError("the password in state.url has an @ in it", hint="write %40 in its place, and %25 for a %")
    try:
        parsed = sql.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("state.url is not a database URL such as sqlite:///state/ingestkit.db") from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"state.url names {parsed.get_backend_name()}; this ingestkit keeps its state in SQLite or PostgreSQL",
            hint="state.url: sqlite:///state/ingestkit.db, or postgresql://user@host/database",
        )
    return parsed
