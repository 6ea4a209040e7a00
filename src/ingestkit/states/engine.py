"""The state database: opening it, its read and write transactions, and its errors as the operator's words."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError

from ingestkit.errors import ConfigError, StateError
from ingestkit.files import make_folder
from ingestkit.states import tables

WRITES = "ingestkit_writes"
UPGRADE = "ingestkit state upgrade"
SWITCHES = 20

# SQLite's WAL lives in memory that processes share; over a network it corrupts the file without an error.
NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|davfs|ncpfs"
    r"|fuse\.(sshfs|s3fs|goofys|gcsfuse|blobfuse2?|rclone|glusterfs|ceph|davfs2?|mount-s3)"
)

# By the leading part of SQLite's own name of the error; the longer name first.
TROUBLES = (
    ("SQLITE_BUSY", "is locked by another process"),
    ("SQLITE_LOCKED", "is locked by another process"),
    ("SQLITE_FULL", "cannot grow: the disk is full"),
    ("SQLITE_READONLY", "may not be written to"),
    ("SQLITE_PERM", "may not be opened: permission denied"),
    ("SQLITE_AUTH", "may not be opened: permission denied"),
    ("SQLITE_CANTOPEN", "cannot be opened"),
    ("SQLITE_NOTADB", "is not a database"),
    ("SQLITE_CORRUPT", "is damaged"),
    ("SQLITE_IOERR", "cannot be read or written"),
    ("SQLITE_PROTOCOL", "is locked by another process"),
)
HINTS = {
    "SQLITE_BUSY": "run again; lsof on the file names who holds it",
    "SQLITE_FULL": "free space, then run again: nothing was written by halves",
    "SQLITE_READONLY": "give this user the right to write the file and its folder",
    "SQLITE_CANTOPEN": "look at the rights of the file and its folder",
    "SQLITE_NOTADB": "state.url names another file; ingestkit config show --origin says where it comes from",
    "SQLITE_CORRUPT": "put back a copy of it or move it away; then: ingestkit state adopt PIPELINE --reason '...'",
}


@dataclass(frozen=True, slots=True)
class StateDatabase:
    """The state, opened. Safe to use from several threads; not to be carried over a fork."""

    engine: sql.Engine
    place: str
    process: int

    @classmethod
    def connect(cls, url: str, busy_timeout: float) -> Self:
        """The database as it is, whatever its version; `open` is for everybody but the upgrade."""
        path = sqlite_path(url)
        refuse_network_file_system(path)
        try:
            make_folder(path.parent)
        except OSError as error:
            raise StateError(f"folder {path.parent} of the state cannot be made: {error.strerror}") from error
        return cls(sqlite_engine(path, busy_timeout), str(path), os.getpid())

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
    def copied(cls, url: str, into: Path, busy_timeout: float) -> Self:
        """A copy of the database as it is now, in another file; an empty one where there is none."""
        path = sqlite_path(url)
        if path.exists():
            with closing(sqlite3.connect(path)) as found, closing(sqlite3.connect(into)) as copy:
                found.backup(copy)
        return cls.open(f"sqlite:///{into}", busy_timeout)

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """One unchanging view of the state; it cannot be written through."""
        with self._connected(writes=False) as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction: committed on leaving, rolled back by any error; other writers wait from its start."""
        with self._connected(writes=True) as conn, conn.begin():
            yield conn

    def expect_version(self) -> None:
        with self.read() as conn:
            found = version_of(conn)
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
            trouble = trouble_of(error, self.place)
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


def sqlite_path(url: str) -> Path:
    """The file a `sqlite:///` URL names."""
    try:
        parsed = sql.make_url(url)
    except ArgumentError as error:
        raise ConfigError("state.url is not a database URL such as sqlite:///state/ingestkit.db") from error
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            f"state.url names {parsed.get_backend_name()}; this ingestkit keeps its state in SQLite",
            hint="state.url: sqlite:///state/ingestkit.db",
        )
    # The heartbeat and each thread have connections of their own, so a state in memory would be several states.
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError("state.url names no file", hint="state.url: sqlite:///state/ingestkit.db")
    return Path(str(parsed.database)).absolute()


def sqlite_engine(path: Path, busy_timeout: float) -> sql.Engine:
    engine = sql.create_engine(
        sql.URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
        poolclass=sql.QueuePool,
        # Never wait for a connection: the heartbeat must beat however many threads work.
        max_overflow=-1,
    )
    sql.event.listen(engine, "connect", _prepare)
    sql.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # The driver would begin transactions by itself, late and deferred; `_begin` does it instead.
    connection.isolation_level = None
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    for _ in range(SWITCHES):
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            # The switch does not wait for another process that makes it too; a write transaction does.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
            continue
        if mode != "wal":
            raise StateError(f"the file system of the state cannot share memory between processes (journal: {mode})")
        return
    raise StateError("the state is being made by several processes at once", hint="run again", transient=True)


def _begin(conn: sql.Connection) -> None:
    # A deferred transaction that reads and then writes fails at once when another one wrote in between.
    if conn.get_execution_options().get(WRITES):
        conn.exec_driver_sql("PRAGMA query_only=OFF")
        conn.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        conn.exec_driver_sql("PRAGMA query_only=ON")
        conn.exec_driver_sql("BEGIN")


def trouble_of(error: DBAPIError | sqlite3.Error, place: str) -> StateError | None:
    """What a driver's error means to the operator; None where it is a mistake in a statement, thus a bug."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(original, "sqlite_errorname", None) or ""
    for code, words in TROUBLES:
        if name.startswith(code):
            return StateError(
                f"state database {place} {words} ({original})",
                hint=HINTS.get(code),
                transient=words == TROUBLES[0][1],
            )
    return None


def refuse_network_file_system(path: Path) -> None:
    mounts = Path("/proc/mounts")
    try:
        kind = file_system_of(path, mounts.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        # A system without /proc does not say; the promise then rests on its administrator.
        return
    if kind is not None and NETWORK_FILE_SYSTEMS.fullmatch(kind):
        raise StateError(
            f"the state may not lie on a network file system: {path} is on {kind}",
            hint="put a path on a local disk into state.url",
        )


def file_system_of(path: Path, mounts: str) -> str | None:
    """The type of the file system a path lies on, by the text of /proc/mounts: the longest point, the last such."""
    real = path.resolve()
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = re.match(r"\S+ (\S+) (\S+)", line)
        if fields is None:
            continue
        point = Path(_unescaped(fields[1]))
        if real.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), fields[2])
    return best[1] if best else None


def _unescaped(text: str) -> str:
    """The kernel writes blanks and backslashes in mount points as three octal digits."""
    for escaped, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(escaped, plain)
    return text
