"""The DuckDB warehouse: one file, opened for each call and closed again, so that others get their turn."""

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from ingestkit import steps
from ingestkit.errors import Busy, WarehouseError
from ingestkit.files import make_folder, sync_folder
from ingestkit.model import Fence, LoadMode, Receipt
from ingestkit.pipeline import Clock, Progress
from ingestkit.ports import Publication, TargetColumn, Wanted
from ingestkit.warehouses import duckdb_sql, duckdb_tables, publishing
from ingestkit.warehouses.duckdb_publish import DuckdbTransaction

Connection = duckdb.DuckDBPyConnection
Result = TypeVar("Result")

POLL_SECONDS = 0.2
CONFLICTS = 5
"""How often a transaction in conflict with another of this process begins again, however short the lock time-out."""

CURES: tuple[tuple[str, str, str], ...] = (
    ("No space left on device", "there is no space left to write it", "free space there, then run again"),
    ("Disk quota exceeded", "the quota leaves no space to write it", "free space there, then run again"),
    ("File too large", "it may not grow further by the system's limit on file size", "raise the limit: ulimit -f"),
    ("Permission denied", "this user may not open it", "make it and its folder writable: chown or chmod"),
    ("not a valid DuckDB database file", "it is not a DuckDB file", "move it away, or name another in connections"),
    ("file with version number", "a newer DuckDB wrote it", "install that version: pip install --upgrade duckdb"),
    ("storage version", "a newer DuckDB wrote it", "install that version: pip install --upgrade duckdb"),
    ("Corrupt database file", "it is damaged", "put a copy back, or move it away and build it again from the lake"),
    (
        "Could not read enough bytes",
        "it is cut short",
        "put a copy back, or move it away and build it again from the lake",
    ),
    (
        "Out of Memory",
        "the memory limit and the scratch folder are exhausted",
        "raise memory_limit, or free scratch space",
    ),
    ("entries that depend on it", "an index stands in the way of a change", "drop the table's indexes, then run again"),
    ("an index depends on it", "an index stands in the way of a change", "drop the table's indexes, then run again"),
)
"""What DuckDB's own words mean, and what helps."""
TELLING = (duckdb.InvalidInputException, duckdb.NotImplementedException, duckdb.TypeMismatchException)
"""Errors of functions, such as of strptime or of JSON, whose words may hold the value that they were given."""


@dataclass(frozen=True, slots=True)
class DuckdbWarehouse:
    path: Path
    schema: str
    lock_timeout: float
    memory_limit: str
    threads: int
    clock: Clock
    progress: Progress
    scratch: Path

    def present(self) -> bool:
        """Whether the file is there."""
        with translated(self.path):
            return self.path.exists()

    def check(self) -> None:
        """Make the file and the fence and receipt tables where they are missing, and prove that it can be written."""
        self._tidy()
        if not self.present():
            self._create()
        if not (os.access(self.path.parent, os.W_OK) and os.access(self.path, os.R_OK | os.W_OK)):
            raise WarehouseError(
                f"{self.path}: this user must be able to write it and its folder",
                hint=f"ls -ld {self.path.parent} {self.path}",
            )
        with self._session() as connection:
            if not duckdb_tables.present(connection, self.schema):
                self._transacted(connection, lambda: duckdb_tables.make(connection, self.schema))

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        """The pipeline's fence rows by model; none where the file or the table is missing."""
        with self._reading() as connection:
            return duckdb_tables.fences(connection, self.schema, pipeline) if connection else {}

    def table_owner(self, table: str) -> tuple[str, str] | None:
        """The (pipeline, model) whose fence row names the table."""
        with self._reading() as connection:
            return duckdb_tables.owner(connection, self.schema, table) if connection else None

    def fence(self, fences: tuple[Fence, ...], *, adopt: bool = False) -> None:
        """Insert missing fence rows; with `adopt`, overwrite those that are there."""
        with self._session() as connection:
            self._transacted(
                connection, lambda: duckdb_tables.write_fences(connection, self.schema, fences, adopt=adopt)
            )

    def receipts(self, pipeline: str) -> tuple[Receipt, ...]:
        """All receipts of the pipeline, by model and batch."""
        with self._reading() as connection:
            return duckdb_tables.receipts(connection, self.schema, pipeline) if connection else ()

    def evolve(
        self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...], *, mine: Fence | None = None
    ) -> tuple[str, ...]:
        """Make the table, or add and widen columns, in one transaction. What dies here leaves nothing open."""
        del mine
        wanted = duckdb_sql.column_types(columns, lineage)
        with self._session() as connection:
            if not duckdb_tables.changes(connection, self.schema, table, wanted):
                return ()
            return self._transacted(connection, lambda: duckdb_tables.evolve(connection, self.schema, table, wanted))

    def planned(self, table: str, columns: tuple[TargetColumn, ...], lineage: tuple[str, ...]) -> tuple[str, ...]:
        """The statements `evolve` would run; those that make the table where there is not even a file."""
        wanted = duckdb_sql.column_types(columns, lineage)
        if not self.present():
            return duckdb_tables.created(self.schema, table, wanted)
        with self._session() as connection:
            return duckdb_tables.changes(connection, self.schema, table, wanted)

    def remarks(self, pipeline: str, tables: Mapping[str, Collection[LoadMode]]) -> tuple[str, ...]:
        """None: whatever is set on a table here either counts as told, or fails the load."""
        del pipeline, tables
        return ()

    def publish(self, publication: Publication) -> Mapping[str, Receipt]:
        """Publish all loads in one transaction."""
        with self._session() as connection:

            def once() -> Mapping[str, Receipt]:
                transaction = DuckdbTransaction(connection, self.schema)
                plan = partial(publishing.planned, connection, publication)
                return publishing.publish(transaction, publication, plan, self.clock.now())

            stand = self._transacted(connection, once)
            steps.reached("load.committed")
            return stand

    def missing(self, tables: tuple[str, ...]) -> frozenset[str]:
        """Those of the tables that do not exist; all of them where the file does not."""
        with self._reading() as connection:
            return duckdb_tables.missing(connection, self.schema, tables) if connection else frozenset(tables)

    def void(self, fence: Fence) -> None:
        """Remove a model's receipts, under its fence."""
        with self._session() as connection:
            transaction = DuckdbTransaction(connection, self.schema)
            self._transacted(connection, lambda: publishing.void(transaction, fence))

    def evolve_all(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[str, ...]]:
        """Make or change those of the tables that do not fit, each in one transaction."""
        with self._session() as connection:
            found = duckdb_tables.columns_of_all(connection, self.schema)
            done = {}
            for one in wanted:
                types = duckdb_sql.column_types(one.columns, one.lineage)
                has = found.get(one.table.lower(), {})
                if any(has.get(column.lower()) != kind for column, kind in types.items()):
                    change = partial(duckdb_tables.evolve, connection, self.schema, one.table, types)
                    done[one.table] = self._transacted(connection, change)
            return done

    def drop(self, mine: Fence, table: str, columns: Collection[str] = ()) -> tuple[str, ...]:
        """Remove columns, or the table and its fence row, under the model's fence."""
        with self._session() as connection:

            def once() -> tuple[str, ...]:
                publishing.raise_fence(DuckdbTransaction(connection, self.schema), mine)
                if columns:
                    return duckdb_tables.drop_columns(connection, self.schema, table, columns)
                return duckdb_tables.drop_table(connection, self.schema, mine.pipeline, table)

            return self._transacted(connection, once)

    def newest(self, table: str, column: str) -> Any:
        """The greatest value of a column."""
        ((found,),) = self.query(f"SELECT max({duckdb_sql.name(column)}) FROM {duckdb_sql.name(self.schema, table)}")
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one statement, in a transaction that cannot write."""
        with self._session() as connection:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            relation = connection.sql(sql)
            if relation is None:
                raise WarehouseError("only a statement that gives rows can be queried", hint="begin it with SELECT")
            # Through Arrow: DuckDB alone needs one more library to hand out instants.
            columns = [column.to_pylist() for column in relation.to_arrow_table().columns]
            return list(zip(*columns, strict=True))

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        """The file, opened, or None where it or its fence and receipt tables are missing."""
        if not self.present():
            yield None
            return
        with self._session() as connection:
            yield connection if duckdb_tables.present(connection, self.schema) else None

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """The file, opened. Closing it rolls back what was not committed, and folds its log into the file."""
        if not self.present():
            raise WarehouseError(f"{self.path} is gone", hint="ingestkit check")
        with translated(self.path):
            connection = self._open(self.path)
            try:
                yield connection
            finally:
                connection.close()

    def _open(self, path: Path) -> Connection:
        """Open the file, waiting for whoever has it open until the lock time-out."""
        until = self.clock.elapsed() + self.lock_timeout
        for attempt in count():
            try:
                return self._connect(path)
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error):
                    raise
                holder = holder_of(error)
            if self.clock.elapsed() >= until:
                raise Busy(
                    f"{path} is open in {holder}, still after {self.lock_timeout:g} s", hint="wait until it ends"
                )
            if attempt == 0:
                said = f"{path} is open in {holder}; waiting for it, {self.lock_timeout:g} s at most"
                self.progress.said(said, path=str(path))
            self.clock.sleep(POLL_SECONDS)
        raise AssertionError("count() has no end")

    def _connect(self, path: Path) -> Connection:
        make_folder(self.scratch)
        connection = duckdb.connect(
            str(path),
            config={
                "memory_limit": self.memory_limit,
                "threads": self.threads,
                # A folder per process: two in one would overwrite each other's blocks.
                "temp_directory": str(self.scratch / f"duckdb-{os.getpid()}"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def _create(self) -> None:
        """Make the file beside its place and link it there whole: a kill leaves no half of a database."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
        with translated(self.path):
            try:
                make_folder(self.path.parent)
                connection = self._connect(beside)
                try:
                    duckdb_tables.make(connection, self.schema)
                finally:
                    connection.close()
                sync_file(beside)
                steps.reached("warehouse.created")
                # Whoever was quicker has made the same: then that file stands.
                with suppress(FileExistsError):
                    self.path.hardlink_to(beside)
                sync_folder(self.path.parent)
            finally:
                beside.unlink(missing_ok=True)
                beside.with_name(f"{beside.name}.wal").unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove what processes that died while making the file left beside it."""
        with translated(self.path):
            for left in self.path.parent.iterdir() if self.path.parent.is_dir() else ():
                match = re.fullmatch(rf"\.{re.escape(self.path.name)}\.(\d+)\.[0-9a-f]{{8}}\.new(\.wal)?", left.name)
                if match is not None and not _runs(int(match[1])):
                    left.unlink(missing_ok=True)

    def _transacted(self, connection: Connection, work: Callable[[], Result]) -> Result:
        """Do `work` in one transaction; one in conflict with another of this process begins again."""
        until = self.clock.elapsed() + self.lock_timeout
        for attempt in count(1):
            try:
                connection.begin()
                result = work()
                connection.commit()
            except duckdb.TransactionException as error:
                # A commit that failed has been rolled back already.
                with suppress(duckdb.TransactionException):
                    connection.rollback()
                # A disk that is full at COMMIT is told as a TransactionException too.
                if "conflict" not in str(error).lower():
                    raise
                if attempt >= CONFLICTS and self.clock.elapsed() >= until:
                    raise WarehouseError(
                        f"{self.path}: still in conflict with another transaction after {attempt} tries", transient=True
                    ) from error
                self.clock.sleep(POLL_SECONDS)
            else:
                # The log's name must outlive a power loss as its bytes do.
                sync_folder(self.path.parent)
                return result
        raise AssertionError("count() has no end")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Speak of DuckDB's and the system's errors as the warehouse's own. No cell value may show in them."""
    try:
        yield
    except OSError as error:
        raise WarehouseError(f"{path}: {error.strerror or error}", hint=f"ls -ld {path.parent}") from error
    except (duckdb.ConstraintException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise WarehouseError(
            f"{path}: a row does not fit a type, constraint or index ({type(error).__name__})",
            hint="drop constraints and unique indexes of target tables; ingestkit judges keys itself",
        ) from None
    except duckdb.Error as error:
        said = str(error).strip().splitlines()[0]
        for words, meaning, cure in CURES:
            if words in said:
                raise WarehouseError(f"{path}: {meaning}", hint=cure) from error
        if isinstance(error, TELLING):
            raise WarehouseError(
                f"{path}: a statement met a value that it can do nothing with ({type(error).__name__})",
                hint="TRY(...) around an expression gives NULL for it",
            ) from None
        raise WarehouseError(f"{path}: {said}") from error


def holder_of(error: duckdb.IOException) -> str:
    """The process that holds the file's lock, as DuckDB names it."""
    found = re.search(r"\(PID (\d+)\)", str(error))
    return f"process {found[1]}" if found else "another process"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
