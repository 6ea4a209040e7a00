"""The account: what all sessions share, and what happens to one statement after another.

DuckDB aborts a transaction for good when a statement fails, and sees what was committed when the transaction began.
So a session's transaction is kept as the list of what it did: it is rolled back in DuckDB and done again whenever a
statement of it failed, or somebody else committed. That leaves a failed statement's transaction open with what came
before, and each statement sees what others have committed by then.
"""

import datetime as dt
import itertools
import secrets
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakesnow.conn import FakeSnowflakeConnection
from fakesnow.instance import FakeSnow

from tests.doubles.snowflake import transforming
from tests.doubles.snowflake.answers import Refused
from tests.doubles.snowflake.reading import Name, identifier, literal, quoted
from tests.doubles.snowflake.rights import Rights
from tests.doubles.snowflake.sessions import PARAMETERS, Done, Locks, Session, Transaction
from tests.doubles.snowflake.stages import Stages


@dataclass(slots=True)
class Account:
    name: str
    folder: Path
    roles: list[str]
    warehouses: list[str]
    stages: Stages
    rights: Rights = field(default_factory=Rights)
    defaults: dict[str, str] = field(default_factory=dict)
    """What somebody has set for all: parameters of sessions, and DEFAULT_DDL_COLLATION of tables."""
    error_logging: set[Name] = field(default_factory=set)
    streams: list[tuple[str, str]] = field(default_factory=list)
    """Names of streams, each with the table it is on."""
    sessions: dict[str, Session] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    """All that were ever begun."""
    tells_of_aborts: bool = True
    """A session whose transaction others ended is told by its next statement: nobody promises that."""
    queries_begin: bool = True
    """Without AUTOCOMMIT the first query begins a transaction, as the first change does: the service says both."""
    loaded: dict[Name, dict[str, str]] = field(default_factory=dict)
    """The load metadata: per table the files that were loaded, with their contents."""
    turn: threading.Condition = field(default_factory=threading.Condition)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1_700_000_000_001))
    engine: FakeSnow = field(
        default_factory=lambda: FakeSnow(create_database_on_connect=False, create_schema_on_connect=False)
    )
    locks: Locks = field(init=False)

    def __post_init__(self) -> None:
        self.locks = Locks(self.turn, self.abort)
        transforming.teach(self.engine.duck_conn)

    def create_database(self, name: str) -> None:
        with self.turn:
            maker = FakeSnow.connect(self.engine)
            maker.cursor().execute(f"CREATE DATABASE {name}")
            maker.cursor().execute(f"CREATE SCHEMA {name}.PUBLIC")
            maker.close()

    def copy_database(self, source: str, name: str) -> None:
        """A database with what was committed in another one."""
        self.create_database(name)
        here = f"database_name = {literal(source)} AND schema_name = 'PUBLIC'"
        known = "_fs_global._fs_information_schema"
        with self.turn:
            duck = self.engine.duck_conn.cursor()
            duck.execute(f"USE {identifier(name)}.PUBLIC")
            tables = duck.execute(
                f"SELECT table_name, sql FROM duckdb_tables() WHERE {here} AND NOT temporary"
            ).fetchall()
            for table, sql in tables:
                duck.execute(sql)
                duck.execute(f"INSERT INTO {identifier(table)} FROM {quoted((source, 'PUBLIC', table))}")
            for (sql,) in duck.execute(f"SELECT sql FROM duckdb_views() WHERE {here} AND NOT internal").fetchall():
                duck.execute(sql.replace(source, name))
            for noted in ("_fs_tables_ext", "_fs_columns_ext"):
                theirs = f"FROM {known}.{noted} WHERE ext_table_catalog = {literal(source)}"
                duck.execute(
                    f"INSERT INTO {known}.{noted} SELECT * REPLACE ({literal(name)} AS ext_table_catalog) {theirs}"
                )
            duck.close()
            for (database, schema, table), files in list(self.loaded.items()):
                if database == source:
                    self.loaded[name, schema, table] = dict(files)
            self.stages.copy(source, name)

    def open(self, user: str, said: dict[str, Any], database: str | None, schema: str | None) -> Session:
        """A session for somebody who was let in."""
        role = str(said.get("role") or self.roles[0]).upper()
        if role not in self.roles:
            message = f"Role '{role}' specified in the connect string does not exist or not authorized."
            raise Refused(390_189, "08001", message)
        warehouse = str(said.get("warehouse") or "").upper()
        # Who may not use one has none.
        usable = warehouse in self.warehouses and self.rights.has("USAGE", "WAREHOUSE", warehouse)
        parameters = {name.upper(): written(value) for name, value in said["parameters"].items()}
        with self.turn:
            fake = FakeSnowflakeConnection(
                self.engine.duck_conn.cursor(), self.engine.results_cache, database, schema, False, False
            )
            made = Session(
                next(self.numbers),
                user,
                role,
                # Who may not use it has none.
                warehouse if usable else None,
                secrets.token_urlsafe(24),
                secrets.token_urlsafe(24),
                fake,
                {**PARAMETERS, **self.defaults, **parameters},
                frozenset(self.roles) - {role},
            )
            if not fake.database_set:
                fake.database = None
            if not fake.schema_set:
                fake._schema = None
            self.sessions[made.token] = made
        return made

    def close(self, session: Session) -> None:
        with self.turn:
            self.sessions.pop(session.token, None)
            self.roll_back(session)
            self.stages.forget(session.number)
            session.fake.close()

    def abort(self, transaction: Transaction) -> None:
        """Ended by somebody else than its session."""
        self.roll_back(transaction.session)
        if self.tells_of_aborts:
            transaction.session.aborted = transaction.number

    def begin(self, session: Session, name: str | None = None) -> Transaction:
        begun = Transaction(next(self.numbers), session, dt.datetime.now(dt.UTC), name or str(uuid.uuid4()))
        self.transactions[begun.number] = session.transaction = begun
        return begun

    def ready(self, transaction: Transaction) -> None:
        """DuckDB has a transaction open in which all was done that this one did, beside what others committed."""
        if not transaction.alive:
            transaction.session.fake._duck_conn.begin()
            transaction.alive = True
            for done in transaction.done:
                done.again()

    def set_back(self, transaction: Transaction | None) -> None:
        if transaction is not None and transaction.alive:
            transaction.session.fake._duck_conn.rollback()
            transaction.alive = False

    def commit(self, session: Session) -> None:
        transaction = session.transaction
        if transaction is None:
            # As the service has it: nothing is said of it.
            return
        if transaction.failed:
            self.roll_back(session)
            raise Refused(617, "57014", "The transaction was aborted by an error, and cannot be committed.")
        self.ready(transaction)
        self.set_others_back(session)
        session.fake._duck_conn.commit()
        transaction.alive = False
        for done in transaction.done:
            note(self.loaded, done)
        self._end(transaction, "committed")

    def roll_back(self, session: Session) -> None:
        if session.transaction is not None:
            self.set_back(session.transaction)
            self._end(session.transaction, "rolled back")

    def _end(self, transaction: Transaction, state: str) -> None:
        transaction.state = state
        transaction.done.clear()
        transaction.session.transaction = None
        self.locks.release(transaction)

    def set_others_back(self, session: Session) -> None:
        """What is committed now is in the way of what others have open in DuckDB; they do it again."""
        for other in self.sessions.values():
            if other is not session:
                self.set_back(other.transaction)


def where(session: Session) -> tuple[str | None, str | None]:
    return session.fake.database, session.fake.schema


def note(loaded: dict[Name, dict[str, str]], done: Done) -> None:
    """What the load metadata says after it."""
    if done.truncated is not None:
        loaded.pop(done.truncated, None)
    if done.loaded is not None:
        loaded.setdefault(done.loaded[0], {}).update(done.loaded[1])


def written(value: object, name: str = "") -> str:
    said = str(value)
    return said if name == "QUERY_TAG" or said.lower() not in {"true", "false"} else said.lower()
