"""The state in a SQLite file of one machine: its locks, its log, its errors, and the file systems it may not lie on."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from ingestkit.errors import ConfigError, StateError
from ingestkit.files import make_folder
from ingestkit.states.tables import WRITES

SWITCHES = 20
NO_SELECT = frozenset(
    (
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_PRAGMA,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_TRANSACTION,
    )
)
"""What is let pass where nothing may be written, and is no question either."""

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


def opened(path: Path, busy_timeout: float) -> sql.Engine:
    """The file's engine; its folder is made where it is missing."""
    refuse_network_file_system(path)
    try:
        make_folder(path.parent)
    except OSError as error:
        raise StateError(
            f"folder {path.parent} of the state cannot be made: {error.strerror}", hint="name another in state.url"
        ) from error
    return _engine(path, busy_timeout)


def path_of(url: sql.URL) -> Path:
    """The file a `sqlite:///` URL names."""
    # The heartbeat and each thread have connections of their own, so a state in memory would be several states.
    if url.database in (None, "", ":memory:"):
        raise ConfigError("state.url names no file", hint="state.url: sqlite:///state/ingestkit.db")
    return Path(str(url.database)).absolute()


def _engine(path: Path, busy_timeout: float) -> sql.Engine:
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
    writes = bool(conn.get_execution_options().get(WRITES))
    if conn.info.get(WRITES) is not writes:
        conn.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        conn.info[WRITES] = writes
    # A deferred transaction that reads and then writes fails at once when another one wrote in between.
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def only_selects(conn: sql.Connection) -> Iterator[None]:
    """Within it the database refuses what is no SELECT; its driver takes but one statement anyway."""
    # The transaction, which is one of reading, must have begun before.
    conn.exec_driver_sql("SELECT 1").close()
    driver = conn.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in NO_SELECT else sqlite3.SQLITE_OK)
    try:
        yield
    finally:
        driver.set_authorizer(None)


def trouble_of(error: Exception, place: str) -> StateError | None:
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
