"""Sessions of a PostgreSQL warehouse: how transactions begin, and what the server's and the driver's errors mean."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import psycopg
from psycopg import IsolationLevel, errors
from psycopg.types.string import TextLoader

from ingestkit.errors import Busy, WarehouseError
from ingestkit.warehouses import postgresql_sql as sql

Connection = psycopg.Connection[Any]

# By the SQLSTATE, or its class: what is the matter, what helps, and whether trying again may.
TROUBLES: tuple[tuple[str, str, str, bool], ...] = (
    ("57014", "has stopped a statement", "look at the role's statement_timeout, or who cancelled it", True),
    ("40", "was changed by another transaction at the same moment", "run again", True),
    ("25P03", "has taken this process for stopped: it was silent within a transaction", "run again", True),
    ("28", "refuses the login", "look at user and password of the connection", False),
    ("SSL", "is not to be spoken to as sslmode demands", "look at sslmode and sslrootcert of the connection", False),
    ("3D000", "does not exist", "createdb makes it", False),
    ("42501", "does not allow it", "grant what sql/grants/warehouse_postgresql.sql says", False),
    ("25006", "may not be written to", "name a server of the connection that is no standby", False),
    ("53100", "cannot grow: the disk is full", "free space, then run again: nothing was written by halves", False),
    ("53", "has no room for another connection, or no memory", "run again", True),
    ("57P", "is being shut down", "run again", True),
    ("08", "does not answer", "look at host and port of the connection", True),
)
OF_NAMES = ("2B", "3D", "42")
"""Classes of errors whose details are of names: of what depends on a table, or what is called otherwise."""
# A client that vanished without a word holds its locks until the server has noticed.
KEEPALIVE = {"tcp_keepalives_idle": "30s", "tcp_keepalives_interval": "10s", "tcp_keepalives_count": "3"}
LOOK = "2s"
"""How often the server looks whether a client that it works for is still there."""
IDLE = "1h"
"""After so long without a word within a transaction a process is taken for stopped, so that others get their turn."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the warehouse is, and how it is spoken to."""

    place: str
    """As messages name it."""
    schema: str
    lock_timeout: float
    parameters: Mapping[str, Any] = field(repr=False)
    """What the driver is given, the password among them."""

    @contextmanager
    def session(self, *tables: str) -> Iterator[Connection]:
        """A connection, to work on these tables. Closing it rolls back what was not committed."""
        with self.translated(tables):
            connection = psycopg.connect(
                **self.parameters, autocommit=True, prepare_threshold=None, client_encoding="UTF8"
            )
            try:
                connection.adapters.register_loader("json", TextLoader)
                connection.adapters.register_loader("jsonb", TextLoader)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:
        """A transaction that waits for a row as long as for a table, and then sees what was committed meanwhile."""
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        connection.read_only = False
        committing = False
        try:
            with connection.transaction():
                connection.execute(self._settled())
                yield
                committing = True
        except psycopg.OperationalError as error:
            if not (committing and connection.broken):
                raise
            raise WarehouseError(
                f"{self.place}: the line was cut while a COMMIT was under way, so that it may have been made or not",
                hint="run again: the receipt tells whether it was",
                transient=True,
            ) from error

    @contextmanager
    def reading(self, connection: Connection) -> Iterator[None]:
        """A transaction that sees one moment and cannot write."""
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            connection.execute(self._settled())
            yield

    def _settled(self) -> str:
        """Statements by which a transaction does not depend on what server, database or role have set.

        Only for the transaction: a pool in between may give it any session. The temporary schema is named last, since
        else a table there would go before one of the same name.
        """
        values = {
            "search_path": f"{sql.name(self.schema)}, pg_temp",
            # 0 would be for ever.
            "lock_timeout": f"{max(1, round(self.lock_timeout * 1000))}ms",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": IDLE,
            "TimeZone": "UTC",
            "DateStyle": "ISO, YMD",
            "extra_float_digits": "1",
            "standard_conforming_strings": "on",
            "client_min_messages": "warning",
            # Rows that a policy hides would be missed in counts without a word; so it is an error.
            "row_security": "off",
            # A statement that runs once is done before compiling it has paid.
            "jit": "off",
            **KEEPALIVE,
        }
        settings = [f"pg_catalog.set_config({sql.text(key)}, {sql.text(value)}, true)" for key, value in values.items()]
        # What was said to be committed must be so after a crash of the server too.
        commit = "'synchronous_commit'"
        kept = (
            f"CASE pg_catalog.current_setting({commit}) WHEN 'off' THEN pg_catalog.set_config({commit}, 'on', true) END"
        )
        # A server on another system cannot look after its clients while it works, and refuses to be told to.
        look = f"pg_catalog.set_config('client_connection_check_interval', {sql.text(LOOK)}, true)"
        looked = f"CASE WHEN pg_catalog.version() LIKE '%linux%' THEN {look} END"
        return f"SELECT {', '.join((*settings, kept, looked))}"

    @contextmanager
    def translated(self, tables: tuple[str, ...]) -> Iterator[None]:
        """Speak of the driver's and the server's errors as the warehouse's own. No cell value may show in them."""
        try:
            yield
        except errors.LockNotAvailable as error:
            raise self._held(tables) from error
        except (errors.DataError, errors.IntegrityError) as error:
            raise self._unfit(error) from None
        except psycopg.Error as error:
            raise self._trouble(error) from error
        except duckdb.Error as error:
            said = str(error).strip().splitlines()[0]
            raise WarehouseError(f"valid rows cannot be read for {self.place}: {said}") from error

    def _held(self, tables: tuple[str, ...]) -> Busy:
        """Who holds what was waited for, as the server shows it a moment later."""
        holders = []
        try:
            with psycopg.connect(**self.parameters, autocommit=True) as connection:
                holders = connection.execute(HOLDERS, [self.schema, [*tables, sql.FENCES]]).fetchall()
        except psycopg.Error:
            # The names are a courtesy: what matters is said without them.
            holders = []
        named = "; ".join(
            f"{table} by process {pid} ({application or 'unnamed'}, user {user}"
            f"{f', in a transaction since {since:%H:%M:%S}' if since else ''})"
            for table, pid, application, user, since in holders
        )
        return Busy(
            f"{self.place} is still locked after {self.lock_timeout:g} s: {named or 'the holder has gone meanwhile'}",
            hint="let it end, or end it: SELECT pg_terminate_backend(pid)" if named else "run again",
        )

    def _unfit(self, error: psycopg.Error) -> WarehouseError:
        """A row that a table does not take. The server's own words may hold its values; the names do not."""
        shown = error.diag
        where = ".".join(one for one in (shown.table_name, shown.column_name) if one)
        by = f", by {shown.constraint_name}" if shown.constraint_name else ""
        return WarehouseError(
            f"{self.place}: a row does not fit a type, constraint or index"
            f"{f' of {where}' if where else ''}{by} ({type(error).__name__})",
            hint="drop constraints and unique indexes of target tables; ingestkit judges keys itself",
        )

    def _trouble(self, error: psycopg.Error) -> WarehouseError:
        told = " ".join(_plainly(error).split())
        code = error.sqlstate or _unspoken(error, told)
        for known, words, hint, transient in TROUBLES:
            if code.startswith(known):
                return WarehouseError(f"{self.place} {words} ({told})", hint=hint, transient=transient)
        return WarehouseError(f"{self.place}: {told}")


# Whoever holds a lock on one of the tables, the longest at it first. Readers of the fence are in nobody's way.
HOLDERS = """
SELECT min(held.relname), activity.pid, activity.application_name, activity.usename, activity.xact_start
FROM pg_catalog.pg_locks AS lock
JOIN pg_catalog.pg_class AS held ON held.oid = lock.relation
JOIN pg_catalog.pg_namespace AS space ON space.oid = held.relnamespace
JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = lock.pid
WHERE lock.granted AND space.nspname = %s AND held.relname = ANY(%s) AND lock.pid <> pg_catalog.pg_backend_pid()
    AND lock.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND NOT (held.relname = 'ingestkit_fence' AND lock.mode = 'AccessShareLock')
GROUP BY 2, 3, 4, 5 ORDER BY 5 NULLS LAST LIMIT 3
"""


def _plainly(error: psycopg.Error) -> str:
    """What the server says, without what it says of rows: where it was in a COPY, it adds the line that it read."""
    said = error.diag
    if said.source_function == "exec_stmt_raise":
        return "a trigger or a function raised an error of its own"
    if said.message_primary is None:
        return str(error)
    detail = said.message_detail if (error.sqlstate or "")[:2] in OF_NAMES else None
    return f"{said.message_primary} ({detail})" if detail else said.message_primary


def _unspoken(error: psycopg.Error, told: str) -> str:
    """The class of an error that has no code, since it happened outside of any conversation."""
    if not isinstance(error, psycopg.OperationalError):
        return ""
    if "authentication" in told or "password" in told or "pg_hba" in told or "role " in told:
        return "28"
    if "SSL" in told or "certificate" in told:
        return "SSL"
    return "3D000" if "database " in told and "does not exist" in told else "08"
