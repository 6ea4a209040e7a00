"""The Snowflake warehouse: rows go as Parquet through a stage of the schema's own, and DDL comes before BEGIN."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from dataclasses import replace as also
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from snowflake.connector import SnowflakeConnection

from ingestkit import steps
from ingestkit.errors import WarehouseError
from ingestkit.files import shown
from ingestkit.lake import Lake
from ingestkit.model import Fence, LoadMode, Receipt
from ingestkit.pipeline import Clock
from ingestkit.ports import Publication, TargetColumn
from ingestkit.settings import SnowflakeConnection as Connection
from ingestkit.warehouses import publishing, snowflake_tables
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_detached import Work, alone, works_of
from ingestkit.warehouses.snowflake_lake import LakeStage, location_of
from ingestkit.warehouses.snowflake_login import account_of
from ingestkit.warehouses.snowflake_publish import Prepared, SnowflakeTransaction
from ingestkit.warehouses.snowflake_rights import look_in, refuse_to_make
from ingestkit.warehouses.snowflake_session import PATIENCE, Account, execute
from ingestkit.warehouses.snowflake_stage import FILE_FORMAT, OwnStage, Sending, Stage, Staged, copy, scratch, written

T = TypeVar("T")
SPARING = "64MiB"
"""Of DuckDB's memory: what is more goes to scratch."""


def opened(
    *,
    connection: Connection,
    root: Path,
    memory_limit: str,
    threads: int,
    clock: Clock,
    scratch: Path,
    lake: Lake | None = None,
    lake_connection: object = None,
) -> "SnowflakeWarehouse":
    """The warehouse of a connection whose references are resolved; nothing is asked of it yet.

    The lake and where it lies matter to a connection that names a stage on it.
    """
    account = account_of(connection, root)
    stage: Stage = OwnStage(account)
    if connection.stage is not None:
        location = location_of(lake_connection)
        assert lake is not None
        stage = LakeStage(account, connection.stage, lake, location)
    return SnowflakeWarehouse(
        account,
        memory_limit,
        threads,
        clock,
        scratch,
        connection.file_size,
        connection.parallel,
        stage,
    )


@dataclass(frozen=True, slots=True)
class SnowflakeWarehouse:
    account: Account
    memory_limit: str
    threads: int
    clock: Clock
    scratch: Path
    file_size: str
    parallel: int
    """Both for models that do not say it."""
    stage: Stage

    def present(self) -> bool:
        """A service is not looked at: whether it is there shows when it is asked."""
        return True

    def check(self) -> None:
        """Prove that the service answers, and that this role may work and stage; make the stage where it is missing."""
        with self.account.session() as connection:
            self.stage.check(connection, look_in(self.account, connection))

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        """The pipeline's fence rows by model; none where the table is missing."""
        with self.account.session() as connection:
            if not snowflake_tables.has(self.account, connection, snowflake_tables.FENCE + pipeline):
                return {}
            return snowflake_tables.fences(self.account, connection, pipeline)

    def table_owner(self, table: str) -> tuple[str, str] | None:
        """The (pipeline, model) whose fence row names the table."""
        with self.account.session() as connection:
            return snowflake_tables.owner(self.account, connection, table)

    def fence(self, fences: tuple[Fence, ...], *, adopt: bool = False) -> None:
        """Insert missing fence rows; with `adopt`, overwrite those that are there."""
        with self.account.session() as connection:
            snowflake_tables.write_fences(self.account, connection, fences, adopt=adopt)

    def receipts(self, pipeline: str) -> tuple[Receipt, ...]:
        """All receipts of the pipeline, by model and batch."""
        with self.account.session() as connection:
            if not snowflake_tables.has(self.account, connection, snowflake_tables.RECEIPT + pipeline):
                return ()
            return snowflake_tables.receipts(self.account, connection, pipeline)

    def evolve(
        self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...], *, mine: Fence | None = None
    ) -> tuple[str, ...]:
        """Make the table, or add and widen columns: each statement for itself, since none can be taken back."""
        wanted = sql.column_types(columns, lineage)
        with self.account.session() as connection:
            statements = snowflake_tables.changes(self.account, connection, table, wanted)
            for statement in statements:
                alone(connection, works_of(self.account, (mine,) if mine else ()), statement)
            return statements

    def planned(self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...]) -> tuple[str, ...]:
        """The statements `evolve` would run."""
        wanted = sql.column_types(columns, lineage)
        with self.account.session() as connection:
            return snowflake_tables.changes(self.account, connection, table, wanted)

    def remarks(self, pipeline: str, tables: Mapping[str, Collection[LoadMode]]) -> tuple[str, ...]:
        """Of tables that log errors or are another role's, and of streams that see rows go and come."""
        with self.account.session() as connection:
            role = look_in(self.account, connection)
            self.stage.look(connection, role)
            own = (snowflake_tables.FENCE + pipeline, snowflake_tables.RECEIPT + pipeline)
            if any(snowflake_tables.missing(self.account, connection, (*tables, *own))):
                refuse_to_make(self.account, "CREATE TABLE")
            return snowflake_tables.remarks(self.account, connection, role, pipeline, tables)

    def publish(self, publication: Publication) -> Mapping[str, Receipt]:
        """Publish all loads in one transaction. A COMMIT whose answer is lost may have been made: the receipt tells."""
        models = frozenset(load.intent.model for load in publication.loads)
        work = Work(self.account, publication.pipeline, publication.state_id, publication.token, models)
        with (
            self.account.session(publication.run_id) as connection,
            scratch(self.scratch) as folder,
            publishing.opened_engine(self.memory_limit, self.threads, self.scratch) as engine,
        ):
            plans = {
                load.table: self._sparing(engine, partial(publishing.planned, engine, publication, load))
                for load in publication.loads
            }
            place = self.stage.clear(connection, publication)
            prepared: dict[str, Prepared] = {}
            for table, plan in plans.items():
                to = Sending.of(publication, plan.load.intent.model, place)
                prepared[table] = self._prepared(connection, engine, plan, to, folder / to.model)
                if plan.rejects is not None:
                    to = Sending.of(publication, plan.load.intent.model, place)
                    rejects = self._prepared(connection, engine, plan.rejects, to, folder / f"{to.model}__rejects")
                    prepared[plan.rejects.load.table] = also(rejects, aside=True)
            with self.account.writing(connection, work.name) as writing:
                transaction = SnowflakeTransaction(self.account, connection, writing, work, publication.batch, prepared)
                stand = publishing.publish(transaction, publication, lambda load: plans[load.table], self.clock.now())
            steps.reached("load.committed")
            for load in publication.loads:
                ready = prepared[load.table]
                beside = prepared[load.rejects.table].queries if load.rejects is not None else []
                # What COPY told of each file was compared with this.
                said = {"queries": [*ready.queries, *beside], "files": dict(ready.staged.files)}
                publication.told(load.intent.model, said)
            self.stage.done(connection, publication)
            return stand

    def missing(self, tables: tuple[str, ...]) -> frozenset[str]:
        """Those of the tables that do not exist."""
        with self.account.session() as connection:
            return snowflake_tables.missing(self.account, connection, tables)

    def void(self, fence: Fence) -> None:
        """Remove a model's receipts, under its fence."""
        models = frozenset({fence.model})
        work = Work(self.account, fence.pipeline, fence.state_id, fence.token, models)
        with self.account.session() as connection, self.account.writing(connection, work.name) as writing:
            publishing.void(SnowflakeTransaction(self.account, connection, writing, work, "", {}), fence)

    def newest(self, table: str, column: str) -> Any:
        """The greatest value of a column."""
        ((found,),) = self.query(f"SELECT max({self.account.names.one(column)}) FROM {self.account.named(table)}")
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one statement; tables without a schema are the warehouse's."""
        if not sql.lstrip(" \t\r\n(").lower().startswith(("select", "with")):
            raise WarehouseError(f"{shown(sql[:40])} … is no query", hint="only SELECT and WITH are asked here")
        with self.account.session() as connection, connection.cursor() as cursor:
            cursor.execute(sql, timeout=PATIENCE)
            return [_plain(row) for row in cursor.fetchall()]

    def _sparing(self, engine: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
        """Do it within little memory however many rows there are; those that are too wide for it get all there is."""
        try:
            engine.execute(f"SET memory_limit = '{SPARING}'")
            return work()
        except duckdb.OutOfMemoryException:
            engine.execute(f"SET memory_limit = '{self.memory_limit}'")
            return work()

    def _prepared(
        self,
        connection: SnowflakeConnection,
        engine: duckdb.DuckDBPyConnection,
        plan: publishing.Plan,
        to: Sending,
        folder: Path,
    ) -> Prepared:
        """The rows of a plan in the stage, and of a merge in a table that goes with the session."""
        load = plan.load
        types = {**sql.passing_types(load.columns, load.lineage), sql.GONE: "BOOLEAN"}
        merging = load.intent.mode is LoadMode.MERGE
        staged = self._staged(connection, engine, plan, to, folder)
        if plan.kept is not None:
            keeping, queries = self._keeping(connection, engine, plan, plan.kept, to, folder)
            return Prepared(to.model, staged, types, plan.writes, keeping=keeping, queries=queries)
        if not merging or not plan.mergeable or not staged.rows:
            return Prepared(to.model, staged, types, plan.writes)
        # Of the session, and so without a schema before it.
        table = self.account.names.one(f"{sql.STAGE}_{load.intent.model}")
        named = {self.account.names.one(column): types[column] for column in staged.columns}
        execute(connection, sql.created(f"OR REPLACE TEMPORARY TABLE {table}", named))
        queries = copy(self.account, connection, table, types, staged)
        return Prepared(to.model, staged, types, plan.writes, table, queries=queries)

    def _keeping(
        self,
        connection: SnowflakeConnection,
        engine: duckdb.DuckDBPyConnection,
        plan: publishing.Plan,
        kept: str,
        to: Sending,
        folder: Path,
    ) -> tuple[str | None, list[str]]:
        """The table of the keys whose rows stay, which goes with the session, and by what it was filled; or none."""
        load = plan.load
        columns = tuple(column for column in load.columns if column.name in load.key)
        said = also(load, intent=also(load.intent, mode=LoadMode.APPEND), columns=columns, lineage=())
        keys = also(plan, load=said, rows=publishing.Rows(kept, load.key, load.key), kept=None)
        sending = Sending.of(to.publication, to.model, to.place)
        staged = self._staged(connection, engine, keys, sending, folder.with_name(f"{folder.name}__kept"))
        if not staged.rows:
            return None, []
        types = sql.passing_types(columns, ())
        table = self.account.names.one(f"{sql.STAGE}_{to.model}")
        named = {self.account.names.one(column): types[column] for column in load.key}
        execute(connection, sql.created(f"OR REPLACE TEMPORARY TABLE {table}", named))
        return table, copy(self.account, connection, table, types, staged)

    def _staged(
        self,
        connection: SnowflakeConnection,
        engine: duckdb.DuckDBPyConnection,
        plan: publishing.Plan,
        to: Sending,
        folder: Path,
    ) -> Staged:
        said = plan.load.copying
        size = said.file_size or self.file_size
        files = self._sparing(engine, partial(written, engine, self.account.names, folder, plan, size))
        columns = (*plan.rows.columns, sql.GONE) if plan.load.intent.mode is LoadMode.MERGE else plan.rows.columns
        known = FILE_FORMAT | ({"USE_VECTORIZED_SCANNER": "TRUE"} if said.vectorized else {})
        if not sum(files.values()):
            return Staged(plan.load.table, "", {}, columns, {}, known)
        place, copies = self.stage.send(connection, to, folder, said.parallel or self.parallel)
        return Staged(
            plan.load.table, place, {name: rows for name, rows in files.items() if rows}, columns, copies, known
        )


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Instants in UTC, as every warehouse tells them."""
    return tuple(
        value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value for value in row
    )
