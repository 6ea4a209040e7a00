"""The PostgreSQL warehouse: one session for each call, every table named with its schema, rows by COPY."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from ingestkit import steps
from ingestkit.errors import WarehouseError
from ingestkit.model import Fence, LoadMode, Receipt
from ingestkit.pipeline import Clock
from ingestkit.ports import Publication, TargetColumn, Wanted
from ingestkit.settings import PostgresqlConnection
from ingestkit.warehouses import postgresql_sql, postgresql_tables, publishing
from ingestkit.warehouses.postgresql_publish import PostgresqlTransaction
from ingestkit.warehouses.postgresql_session import Server

Connection = psycopg.Connection[Any]

OLDEST = 140000
"""The oldest server that knows all statements: 14."""
GRANTS = "grant what sql/grants/warehouse_postgresql.sql says"


def opened(
    *, connection: PostgresqlConnection, root: Path, memory_limit: str, threads: int, clock: Clock, scratch: Path
) -> "PostgresqlWarehouse":
    """The warehouse of a connection whose references are resolved; nothing is asked of it yet."""
    vouching = None if connection.sslrootcert is None else str(root / connection.sslrootcert)
    parameters = {
        "host": connection.host,
        "port": connection.port,
        "dbname": connection.database,
        "user": connection.user,
        "password": connection.password,
        "sslmode": connection.sslmode,
        "sslrootcert": vouching,
        # Under 2 seconds libpq waits for 2.
        "connect_timeout": max(2, round(connection.connect_timeout.total_seconds())),
        "application_name": "ingestkit",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    place = f"{connection.host}:{connection.port}/{connection.database}"
    server = Server(place, connection.schema_, connection.lock_timeout.total_seconds(), given)
    return PostgresqlWarehouse(server, memory_limit, threads, clock, scratch)


@dataclass(frozen=True, slots=True)
class PostgresqlWarehouse:
    server: Server
    memory_limit: str
    threads: int
    clock: Clock
    scratch: Path

    def present(self) -> bool:
        """A server is not looked at: whether it is there shows when it is asked."""
        return True

    def check(self) -> None:
        """Prove that the server can be written to, and make the fence and receipt tables where they are missing."""
        with self.server.session() as connection:
            with self.server.reading(connection):
                there = postgresql_tables.present(connection, self.schema)
                self._serves(connection)
            if not there:
                with self.server.writing(connection):
                    postgresql_tables.make(connection, self.schema)

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        """The pipeline's fence rows by model; none where the table is missing."""
        with self._reading() as (connection, there):
            return postgresql_tables.fences(connection, self.schema, pipeline) if there else {}

    def table_owner(self, table: str) -> tuple[str, str] | None:
        """The (pipeline, model) whose fence row names the table."""
        with self._reading() as (connection, there):
            return postgresql_tables.owner(connection, self.schema, table) if there else None

    def fence(self, fences: tuple[Fence, ...], *, adopt: bool = False) -> None:
        """Insert missing fence rows; with `adopt`, overwrite those that are there."""
        with self.server.session() as connection, self.server.writing(connection):
            postgresql_tables.write_fences(connection, self.schema, fences, adopt=adopt)

    def receipts(self, pipeline: str) -> tuple[Receipt, ...]:
        """All receipts of the pipeline, by model and batch."""
        with self._reading() as (connection, there):
            return postgresql_tables.receipts(connection, self.schema, pipeline) if there else ()

    def evolve(
        self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...], *, mine: Fence | None = None
    ) -> tuple[str, ...]:
        """Make the table, or add and widen columns, in one transaction. What dies here leaves nothing open."""
        del mine
        wanted = postgresql_sql.column_types(columns, lineage)
        with self.server.session(table) as connection:
            with self.server.reading(connection):
                if not postgresql_tables.changes(connection, self.schema, table, wanted):
                    return ()
            with self.server.writing(connection):
                return postgresql_tables.evolve(connection, self.schema, table, wanted)

    def planned(self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...]) -> tuple[str, ...]:
        """The statements `evolve` would run, on a server that lets it."""
        wanted = postgresql_sql.column_types(columns, lineage)
        with self._reading() as (connection, _):
            self._serves(connection)
            return postgresql_tables.changes(connection, self.schema, table, wanted)

    def remarks(self, pipeline: str, tables: Mapping[str, Collection[LoadMode]]) -> tuple[str, ...]:
        """None: whatever is set on a table here either counts as told, or fails the load."""
        del pipeline, tables
        return ()

    def publish(self, publication: Publication) -> Mapping[str, Receipt]:
        """Publish all loads in one transaction. A COMMIT whose answer is lost may have been made: the receipt tells."""
        tables = (load.table for load in publication.loads)
        with (
            self.server.session(*tables) as connection,
            publishing.opened_engine(self.memory_limit, self.threads, self.scratch) as engine,
        ):
            with self.server.writing(connection):
                transaction = PostgresqlTransaction(engine, connection, self.schema)
                plan = partial(publishing.planned, engine, publication)
                stand = publishing.publish(transaction, publication, plan, self.clock.now())
            steps.reached("load.committed")
            return stand

    def missing(self, tables: tuple[str, ...]) -> frozenset[str]:
        """Those of the tables that do not exist."""
        with self._reading() as (connection, _):
            return postgresql_tables.missing(connection, self.schema, tables)

    def void(self, fence: Fence) -> None:
        """Remove a model's receipts, under its fence."""
        with (
            self.server.session() as connection,
            publishing.opened_engine(self.memory_limit, self.threads, self.scratch) as engine,
            self.server.writing(connection),
        ):
            publishing.void(PostgresqlTransaction(engine, connection, self.schema), fence)

    def evolve_all(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[str, ...]]:
        """Make or change those of the tables that do not fit, each in one transaction."""
        done = {}
        with self.server.session(*(one.table for one in wanted)) as connection:
            for one in wanted:
                types = postgresql_sql.column_types(one.columns, one.lineage)
                with self.server.reading(connection):
                    changes = postgresql_tables.changes(connection, self.schema, one.table, types)
                if changes:
                    with self.server.writing(connection):
                        done[one.table] = postgresql_tables.evolve(connection, self.schema, one.table, types)
        return done

    def drop(self, mine: Fence, table: str, columns: Collection[str] = ()) -> tuple[str, ...]:
        """Remove columns, or the table and its fence row, under the model's fence."""
        with (
            self.server.session(table) as connection,
            publishing.opened_engine(self.memory_limit, self.threads, self.scratch) as engine,
            self.server.writing(connection),
        ):
            publishing.raise_fence(PostgresqlTransaction(engine, connection, self.schema), mine)
            if columns:
                return postgresql_tables.drop_columns(connection, self.schema, table, columns)
            return postgresql_tables.drop_table(connection, self.schema, mine.pipeline, table)

    def newest(self, table: str, column: str) -> Any:
        """The greatest value of a column."""
        query = f"SELECT max({postgresql_sql.name(column)}) FROM {postgresql_sql.name(self.schema, table)}"
        ((found,),) = self.query(query)
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one statement, in a transaction that cannot write; tables without a schema are the warehouse's."""
        with (
            self.server.session() as connection,
            self.server.reading(connection),
            # A cursor of the server's takes one statement, and only one that gives rows.
            connection.cursor(name="ingestkit_query") as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetchall()

    @property
    def schema(self) -> str:
        return self.server.schema

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, bool]]:
        """A session that only reads, and whether fence and receipt tables are there."""
        with self.server.session() as connection, self.server.reading(connection):
            yield connection, postgresql_tables.present(connection, self.schema)

    def _serves(self, connection: Connection) -> None:
        """Prove that the server is one that serves, and that this role may do what will be asked of it."""
        place = self.server.place
        if connection.info.server_version < OLDEST:
            raise WarehouseError(f"{place} is older than PostgreSQL {OLDEST // 10000}", hint="upgrade the server")
        encoding, standby, temporary, usable = (
            connection.execute(
                "SELECT pg_catalog.current_setting('server_encoding'), pg_catalog.pg_is_in_recovery(), "
                "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY'), "
                "coalesce((SELECT bool_and(pg_catalog.has_schema_privilege(oid, needed)) "
                "FROM pg_catalog.pg_namespace, unnest(ARRAY['USAGE', 'CREATE']) AS needed WHERE nspname = %s), "
                "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))",
                [self.schema],
            ).fetchone()
            or (None,) * 4
        )
        if encoding != "UTF8":
            raise WarehouseError(
                f"{place} keeps texts in {encoding}, which does not hold every character", hint="createdb -E UTF8"
            )
        if standby:
            raise WarehouseError(f"{place} is a standby, and cannot be written to", hint="name its primary")
        if not temporary:
            raise WarehouseError(f"{place}: this role may not make temporary tables", hint=GRANTS)
        if not usable:
            raise WarehouseError(
                f"{place}: this role may not use schema {self.schema}, make it, or make tables in it", hint=GRANTS
            )
