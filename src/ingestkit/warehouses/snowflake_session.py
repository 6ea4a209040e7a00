"""Sessions of a Snowflake warehouse: how they log in, how transactions begin and end, and what errors mean."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import duckdb
import snowflake.connector
import structlog
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import DatabaseError, Error, InterfaceError, OperationalError, ProgrammingError

from ingestkit.errors import Busy, WarehouseError
from ingestkit.warehouses.snowflake_silence import bound
from ingestkit.warehouses.snowflake_sql import Names

LONGEST_TAG = 2000
PATIENCE = 7 * 24 * 3600
"""Seconds. Without it the connector would cancel a statement after the time that one request may be asked again."""
HELD = "57014"
STOPPED = ("604", "630")
"""Cancelled, or over its time."""
WAITERS = "number of waiters"
DEADLOCK = "deadlock"
COMMITTED, RUNNING = "committed", "running"
ENDED = ("390104", "390111", "390112", "390114")
"""The session is over: of what was asked again under it, nobody tells the outcome."""
FORBIDDEN = ("290403", "290000", "540001")
NETWORK = "if the line stays bad, look at the network and at account and endpoint of the connection"
STORAGE = "run again; if it stays so, see whether this machine may speak to the storage that stages lie in"
KEY = "let an administrator ALTER USER … SET RSA_PUBLIC_KEY to the other half of private_key"
GRANTS = "grant what sql/grants/warehouse_snowflake.sql says"
OWNERS = f"ingestkit check names what is another role's, and what gives it to this one; else {GRANTS}"
PLACE = f"look at database, schema and role of the connection, and {GRANTS}"
UNKNOWN = "does not know it, or does not show it to this role"
ACCOUNT = "look at `account` of the connection, which is written <organization>-<account>"
POLICY = "let an administrator look at the account's network policies, and add this machine's address"
HISTORY = "look at the query in the account's history; what it needs may have been changed there beside ingestkit"
HIDDEN = (
    "look whether `role` of the connection is the one that made it; else let its owner say: GRANT OWNERSHIP ON … "
    "TO ROLE … COPY CURRENT GRANTS"
)
WRITERS = "see who writes there: SHOW LOCKS IN ACCOUNT; then run again"
WAREHOUSE = "name one as `warehouse` of the connection, and grant its usage"

NUMBER = re.compile(
    r"(?P<place>\b(?:line|row|character|record) )?(?<![\w(\[{,.])[-+]?\d[\w.,:+-]*(?![\w)\]}])", re.IGNORECASE
)
"""One that may be a value: not that of a place, nor within brackets, as those of types and lengths are."""

# By the number or the SQLSTATE of an error: what is the matter, what helps, and whether trying again may.
TROUBLES: tuple[tuple[str, str, str, bool], ...] = (
    ("390144", "does not take this key", KEY, False),
    ("394304", "knows another key of this user", KEY, False),
    ("394303", "says that this machine's clock is wrong", "set the clock, then run again", True),
    ("390303", "does not take this token", "look at `token` of the connection", False),
    ("390318", "says that the token has expired", "renew `token` of the connection, then run again", False),
    (
        "390189",
        "does not give this user its role",
        "look at `role` of the connection, or GRANT ROLE … TO USER …",
        False,
    ),
    ("3904", "lets nobody in from here", POLICY, False),
    ("290404", "is not known where it was looked for", ACCOUNT, False),
    # At a login the connector adds the one number to another.
    *((code, "lets nobody in from here, or is not there", f"{ACCOUNT}, or {POLICY}", False) for code in FORBIDDEN),
    *((code, "has ended this session", "run again", True) for code in ENDED),
    ("91016", "misses a file that was put into its stage", "see who else removes files there, then run again", True),
    ("3041", "has something of that name, of which this role is shown nothing", HIDDEN, False),
    ("2002", "has something else of that name", "give the model another `table:`, or have that renamed", False),
    ("606", "has no warehouse at work for this role", WAREHOUSE, False),
    ("2003", UNKNOWN, PLACE, False),
    ("2043", UNKNOWN, PLACE, False),
    ("25000", "does not answer", NETWORK, True),
    ("253", "does not take what is put into its stage", STORAGE, True),
    ("615", "has ended this transaction, since others waited for it", "run again", True),
)


@dataclass(frozen=True, slots=True)
class Account:
    """Where the warehouse is, and how it is spoken to."""

    place: str
    """As messages name it."""
    database: str
    schema: str
    names: Names
    lock_timeout: float
    statement_timeout: float
    network_timeout: float
    answer_timeout: float
    parameters: Mapping[str, Any] = field(repr=False)
    """What the connector is given, keys and tokens among them."""

    def named(self, *parts: str) -> str:
        """What lies in the warehouse's schema, quoted."""
        return ".".join((self.names.one(self.database, self.schema), *(self.names.one(part) for part in parts)))

    @contextmanager
    def session(self, run_id: str = "") -> Iterator[SnowflakeConnection]:
        """A connection whose statements carry the run id, as what is logged meanwhile does.

        Closing it rolls back what was not committed.
        """
        tag = " ".join(("ingestkit", run_id or structlog.contextvars.get_contextvars().get("run_id", ""))).strip()
        with self.translated():
            # To a person at a browser the connector speaks on standard output, which is for results.
            with redirect_stdout(sys.stderr):
                connection = snowflake.connector.connect(
                    **self.parameters, autocommit=True, paramstyle="qmark", session_parameters=self._settled(tag)
                )
            bound(connection, self.network_timeout, self.answer_timeout)
            # The connector would log a browser in anew and send the statement into that session, which has neither the
            # transaction nor the temporary tables of this one, and waits for what this one holds.
            connection._reauthenticate = _refuse  # type: ignore[method-assign]  # noqa: SLF001 - there is no setting
            try:
                yield connection
            finally:
                connection.close(retry=False)

    @contextmanager
    def writing(self, connection: SnowflakeConnection, name: str) -> Iterator["Writing"]:
        """A transaction, the last of its session. An error within it does not end it, so it is always rolled back.

        Others may end it, and nobody promises that the session is told: without AUTOCOMMIT what is written from then on
        is of another transaction, and not committed by itself.
        """
        # Not earlier: it would have begun a transaction already, of another name.
        execute(connection, "ALTER SESSION SET AUTOCOMMIT = FALSE")
        writing = Writing(self.place, connection, name)
        try:
            writing.begin()
            yield writing
        except BaseException:
            # The failure is what there is to tell; a session that ends rolls back by itself.
            with suppress(Error):
                execute(connection, "ROLLBACK")
            raise
        try:
            execute(connection, "COMMIT")
        except Error as error:
            if isinstance(error, ProgrammingError) and str(error.errno) not in ENDED:
                raise
            self._settle(writing, "the line was cut while a COMMIT was under way", error)
            return
        if not writing.matters:
            return
        # A COMMIT behind a transaction that others ended succeeds, and does nothing.
        try:
            state = writing.state(connection)
        except Error as error:
            self._settle(writing, "nothing tells what became of a COMMIT", error)
            return
        if state != COMMITTED:
            raise writing.ended()

    def _settle(self, writing: "Writing", what: str, error: Error) -> None:
        """Come back where a transaction is known to be committed, by asking for its number in another session.

        Not for the query: of one that was never answered nobody here knows the id. What is still running is left to who
        comes next: it waits for the fence that is held by it, and finds the receipt or none behind that.
        """
        state = ""
        if writing.matters:
            with suppress(WarehouseError), self.session() as another:
                state = writing.state(another)
        if state in ("", RUNNING):
            raise self._unknown(what, error) from error
        if state != COMMITTED:
            raise writing.ended() from error

    def _unknown(self, what: str, error: Error) -> WarehouseError:
        return WarehouseError(
            f"{self.place}: {what}, so that it may have been made or not (query {error.sfqid or 'without an id'})",
            hint="run again: the receipt tells whether it was",
            transient=True,
        )

    def _settled(self, tag: str) -> dict[str, Any]:
        """By which a session does not depend on what account and user have set."""
        return {
            "QUERY_TAG": tag[:LONGEST_TAG],
            # 12 hours else.
            "LOCK_TIMEOUT": max(1, round(self.lock_timeout)),
            "STATEMENT_TIMEOUT_IN_SECONDS": max(1, round(self.statement_timeout)),
            "TIMEZONE": "UTC",
            # Days and months would change places else, and names that differ by case alone be one.
            **dict.fromkeys(("DATE_INPUT_FORMAT", "TIME_INPUT_FORMAT", "TIMESTAMP_INPUT_FORMAT"), "AUTO"),
            "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
            "TRANSACTION_ABORT_ON_ERROR": False,
            "ERROR_ON_NONDETERMINISTIC_MERGE": True,
            # A table that logs errors would leave out what it does not take, and the statement would succeed.
            "OPT_OUT_ERROR_LOGGING": True,
            "ABORT_DETACHED_QUERY": True,
            # What a process that was killed had begun holds up the next one no longer than its own statement takes.
            "CLIENT_SESSION_KEEP_ALIVE": False,
            "CLIENT_TELEMETRY_ENABLED": False,
        }

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Speak of the connector's and the service's errors as the warehouse's own. No cell value may show in them."""
        try:
            yield
        except Error as error:
            raise self._trouble(error) from error
        except duckdb.Error as error:
            said = str(error).strip().splitlines()[0]
            raise WarehouseError(f"valid rows cannot be read for {self.place}: {said}") from error

    def _trouble(self, error: Error) -> WarehouseError | Busy:
        told, code, state = _told(error), str(error.errno), error.sqlstate or ""
        query = f"; query {error.sfqid}" if error.sfqid else ""
        if code in STOPPED:
            return WarehouseError(
                f"{self.place}: a statement was stopped ({told}{query})",
                hint="look at statement_timeout of the connection, at the size of the warehouse, or who cancelled it",
                transient=True,
            )
        if code == "3001" or state == "42501":
            tried = _tried(error)
            hint = GRANTS if tried.startswith("CREATE") else OWNERS
            return WarehouseError(f"{self.place} does not allow {tried} ({told}{query})", hint=hint)
        for known, words, hint, transient in TROUBLES:
            if code.startswith(known) or state == known:
                return WarehouseError(f"{self.place} {words} ({told}{query})", hint=hint, transient=transient)
        if state == HELD and WAITERS in told:
            said = f"{self.place}: too many wait for the same table ({told}{query})"
            return WarehouseError(said, hint=WRITERS, transient=True)
        if state == HELD and DEADLOCK in told.lower():
            said = f"{self.place}: this and another wait for each other ({told}{query})"
            return WarehouseError(said, hint=WRITERS, transient=True)
        if state == HELD:
            return Busy(
                f"{self.place} is still locked after {self.lock_timeout:g} s ({told}{query})",
                hint="see who holds it: SHOW LOCKS IN ACCOUNT; what a dead process holds goes after five minutes",
            )
        unanswered = isinstance(error, OperationalError | InterfaceError) and not isinstance(error, ProgrammingError)
        hint = HISTORY if query else NETWORK if unanswered else PLACE
        return WarehouseError(f"{self.place}: {told}{query}", hint=hint, transient=unanswered)


@dataclass(slots=True)
class Writing:
    """A transaction under way, which others may end at any time."""

    place: str
    connection: SnowflakeConnection
    name: str
    number: str = ""
    """By which the service knows it; what proves it is written under it alone."""
    matters: bool = False
    """Whether something was written that is to be there behind its COMMIT."""

    def begin(self) -> None:
        """Nothing may be open before, or BEGIN would be ignored.

        The number is asked for at once. When others have ended the transaction, the next change begins another one, and
        by one of two readings of the service's documentation the next query, too: that one is open proves nothing.
        """
        execute(self.connection, f"BEGIN NAME {self.name}")
        [row] = execute(self.connection, "SELECT CURRENT_TRANSACTION()")
        (number,) = row.values()
        self.number = str(number or "")
        self.demand(self.number)

    def demand(self, number: str) -> None:
        """Refuse to go on in any other transaction, or in none."""
        if not number or number != self.number:
            raise self.ended()

    def state(self, connection: SnowflakeConnection) -> str:
        """What became of it, as any session of its user is told."""
        told = execute(connection, f"DESCRIBE TRANSACTION {int(self.number)}")
        return "".join(str(row.get("state")).lower() for row in told)

    def ended(self) -> WarehouseError:
        return WarehouseError(
            f"{self.place}: others ended transaction {self.number or 'of this work'} before its COMMIT",
            hint="run again; nothing of it was published",
            transient=True,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one statement answered, by the names of its columns, and the id by which the service knows it."""

    rows: list[dict[str, Any]]
    query: str


def answered(
    connection: SnowflakeConnection, statement: str, *values: Any, by: type[SnowflakeCursor] = SnowflakeCursor
) -> Answer:
    """One statement, executed."""
    with connection.cursor(by) as cursor:
        cursor.execute(statement, values or None, timeout=PATIENCE)
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return Answer(rows, cursor.sfqid or "")


def execute(connection: SnowflakeConnection, statement: str, *values: Any) -> list[dict[str, Any]]:
    """What one statement answers, by the names of its columns."""
    return answered(connection, statement, *values).rows


def changed(connection: SnowflakeConnection, statement: str, *values: Any, within: int = PATIENCE) -> int:
    """How many rows one statement changed. It is cancelled after so many seconds."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None, timeout=within)
        return int(cursor.rowcount or 0)


def _refuse() -> NoReturn:
    raise DatabaseError(msg="the login has expired, and what was begun in its session is over", errno=int(ENDED[-1]))


def plainly(said: str) -> str:
    """What the service says of data, without the values that it met."""
    line = re.sub(r"\bRow Values:.*", "", " ".join(said.split()), flags=re.IGNORECASE)
    # From the first quote to the last: a value may hold quotes itself.
    line = re.sub(r"'.*'", "…", re.sub(r'".*"', "…", line))
    # Numbers and whatever else is no text stand there without quotes, up to the type or the end.
    line = re.sub(r"\b(value|string) (?!…).*?(?= to [A-Z]\w*(?:\([\d, ]+\))?$|$)", r"\1 …", line, flags=re.IGNORECASE)
    return NUMBER.sub(lambda found: found[0] if found["place"] else "…", line).strip().rstrip(".:")


def _tried(error: Error) -> str:
    """What a statement was about to do, by its first words."""
    found = re.match(r"[A-Z]+(?: [A-Z]+)*(?= )", error.query or "")
    return found[0] if found else "it"


def _told(error: Error) -> str:
    """What the service says, in one line and without the values that it met."""
    said = " ".join((error.raw_msg or error.msg or str(error)).split())
    if str(error.errno).startswith("100") and len(str(error.errno)) == 6:
        return plainly(said)
    return re.sub(r"(value|string) '(?:[^']|'')*'", r"\1", said)
