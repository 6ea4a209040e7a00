"""The state in PostgreSQL, for more machines than one: writers take turns, readers see one moment, and errors speak."""

import re
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from ingestkit.errors import ConfigError, StateError
from ingestkit.states.tables import WRITES

TURN = 0x696E67657374
"""The advisory lock that a write transaction holds: as in an embedded database, writers wait from its start."""
IDLE = "60s"
"""After so long without a word within a transaction its process is taken for stopped, and the turn is another's."""

# By the SQLSTATE, or its class.
TROUBLES = (
    ("55P03", "is locked by another process", "run again; pg_stat_activity names who holds it", True),
    ("57014", "has not answered in time", "run again", True),
    ("40001", "was written by another process at the same moment", "run again", True),
    ("40P01", "was written by another process at the same moment", "run again", True),
    ("25P03", "has taken this process for stopped: it was silent within a transaction", "run again", True),
    ("28", "refuses the login", "look at user and password in state.url", False),
    ("3D000", "does not exist", "createdb makes it; then: ingestkit state upgrade", False),
    (
        "42501",
        "may not be written to or read: permission denied",
        "grant what sql/grants/state_postgresql.sql says",
        False,
    ),
    ("25006", "may not be written to", "state.url names a server that only reads", False),
    ("53100", "cannot grow: the disk is full", "free space, then run again: nothing was written by halves", False),
    ("53", "has no room for another connection", "run again", True),
    ("57P", "is being shut down", "run again", True),
    ("08", "does not answer", "look at host and port in state.url", True),
)


def opened(url: sql.URL, busy_timeout: float) -> sql.Engine:
    """The database's engine; nothing is asked of it yet."""
    try:
        engine = sql.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": max(2, round(busy_timeout)),
                "application_name": "ingestkit",
                # A server that is gone without a word is waited for no longer than a lease lasts.
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                # In milliseconds, for what was sent and never acknowledged: until then nothing is asked by keepalives.
                "tcp_user_timeout": 60_000,
            },
            # Never wait for a connection: the heartbeat must beat however many threads work.
            max_overflow=-1,
            # A server that was restarted is connected to again, and not asked in vain.
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            "state.url names a PostgreSQL database, and its driver is not installed",
            hint="pip install 'ingestkit[postgresql]'",
        ) from error
    # One way to the server and back for all of them.
    writing = "; ".join(
        (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE",
            f"SET LOCAL lock_timeout = {round(busy_timeout * 1000)}",
            f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE}'",
            f"SELECT pg_advisory_xact_lock({TURN})",
        )
    )

    def begin(conn: sql.Connection) -> None:
        writes = conn.get_execution_options().get(WRITES)
        conn.exec_driver_sql(writing if writes else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

    sql.event.listen(engine, "begin", begin)
    return engine


def trouble_of(error: Exception, place: str) -> StateError | None:
    """What a driver's error means to the operator; None where it is a mistake in a statement, thus a bug."""
    if not isinstance(error, DBAPIError):
        return None
    original: Any = error.orig
    code = getattr(original, "sqlstate", None) or ("08" if error.connection_invalidated else "")
    if not code and type(original).__name__ == "OperationalError":
        # What goes wrong before there is a connection has no code.
        refused = re.search(
            r'FATAL:\s+(?:(database ").*does not exist|.*(role|password|authentication|pg_hba))', str(original)
        )
        code = "08" if refused is None else "3D000" if refused[1] else "28"
    told = " ".join(str(original).split())
    for known, words, hint, transient in TROUBLES:
        if code.startswith(known):
            return StateError(f"state database {place} {words} ({told})", hint=hint, transient=transient)
    return None
