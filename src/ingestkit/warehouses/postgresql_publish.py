"""How PostgreSQL writes what is published: COPY in the transaction, a temporary stage only where rows have keys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import duckdb
import psycopg

from ingestkit.errors import WarehouseError
from ingestkit.model import Fence, Receipt
from ingestkit.ports import Bounds, TargetColumn
from ingestkit.settings import MARK
from ingestkit.warehouses import duckdb_sql, postgresql_tables
from ingestkit.warehouses import postgresql_sql as sql
from ingestkit.warehouses.postgresql_copy import copy_rows
from ingestkit.warehouses.publishing import Merged, Rows

STAGE, GONE, MET = (sql.name("pg_temp", one) for one in ("ingestkit_stage", "ingestkit_gone", "ingestkit_met"))

# What is read here and there costs hardly more than what is read in order, where most of a table lies in memory; with
# what the server supposes it would read all of it for few rows.
FIND_BY_KEY = (
    "SELECT set_config('random_page_cost', least(current_setting('random_page_cost')::float8, 1.1)::text, true)"
)


@dataclass(frozen=True, slots=True)
class PostgresqlTransaction:
    engine: duckdb.DuckDBPyConnection
    connection: psycopg.Connection[Any]
    schema: str
    beside: dict[str, str] = field(default_factory=dict)
    """Tables that another one will take the place of, with its name."""
    held: dict[str, int] = field(default_factory=dict)
    """How many rows tables that are held had when they were counted, less those that the server had counted then."""

    def raise_fence(self, mine: Fence) -> Sequence[str]:
        """Who raises the same one waits for the row, and then looks at it as it was committed."""
        answered = self.connection.execute(
            f"UPDATE {self._named(sql.FENCES)} SET token = %(token)s WHERE pipeline = %(pipeline)s "
            'AND model = %(model)s AND state_id = %(state_id)s AND token <= %(token)s RETURNING "table"',
            {"token": mine.token, "pipeline": mine.pipeline, "model": mine.model, "state_id": mine.state_id},
        ).fetchall()
        return [table for (table,) in answered]

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        return postgresql_tables.fences(self.connection, self.schema, pipeline)

    def receipt(self, pipeline: str, model: str, batch: str) -> Receipt | None:
        return postgresql_tables.receipt(self.connection, self.schema, pipeline, model, batch)

    def write_receipt(self, receipt: Receipt) -> None:
        postgresql_tables.write_receipt(self.connection, self.schema, receipt)

    def forget_receipts(self, pipeline: str, model: str) -> None:
        self.connection.execute(
            f"DELETE FROM {self._named(sql.RECEIPTS)} WHERE pipeline = %s AND model = %s", [pipeline, model]
        )

    def hold(self, table: str) -> int:
        """Others may read it, and neither write it nor change what it is."""
        self.connection.execute(f"LOCK TABLE {self._named(table)} IN SHARE ROW EXCLUSIVE MODE")
        found = self._counted(table)
        written = postgresql_tables.rows_written(self.connection, self.schema, table)
        if written is not None:
            self.held[table] = found - written
        return found

    def columns(self, table: str) -> Collection[str]:
        return postgresql_tables.columns_of(self.connection, self.schema, table).keys()

    def remake(self, table: str, gone: Collection[str], columns: Sequence[TargetColumn]) -> None:
        postgresql_tables.drop_columns(self.connection, self.schema, table, gone)
        postgresql_tables.evolve(self.connection, self.schema, table, sql.column_types(columns, ()))

    def count(self, table: str) -> int:
        """Nobody else writes a table that is held: what the server counts of rows written here says the rest."""
        if table in self.held and table not in self.beside:
            written = postgresql_tables.rows_written(self.connection, self.schema, table)
            if written is not None:
                return self.held[table] + written
        return self._counted(self.beside.get(table, table))

    def _counted(self, table: str) -> int:
        found: int = postgresql_tables.one(self.connection, f"SELECT count(*) FROM {self._named(table)}")
        return found

    def same_table(self, one: str, other: str) -> bool:
        return one == other

    def replace(self, table: str, rows: Rows) -> int:
        """Beside, where nothing would be lost by that. TRUNCATE would show an older reader an empty table."""
        if not postgresql_tables.stands_alone(self.connection, self.schema, table):
            self.connection.execute(f"DELETE FROM {self._named(table)}")
            return self.insert(table, rows)
        # A name of its own, since a longer one than the table's might be too long.
        beside = f"ingestkit_new_{sha256(table.encode()).hexdigest()[:16]}"
        self.connection.execute(
            f"CREATE TABLE {self._named(beside)} (LIKE {self._named(table)} INCLUDING STORAGE INCLUDING COMPRESSION)"
        )
        self.beside[table] = beside
        # Frozen rows are seen by readers whose moment is older too: they find the new table full, not empty.
        return copy_rows(self.engine, self.connection, self._named(beside), rows, freeze=True)

    def insert(self, table: str, rows: Rows) -> int:
        return copy_rows(self.engine, self.connection, self._named(table), rows, freeze=False)

    def delete_batch(self, table: str, batch: str) -> int:
        return self.connection.execute(f'DELETE FROM {self._named(table)} WHERE "_batch" = %s', [batch]).rowcount

    def delete_window(self, table: str, bounds: Bounds) -> int:
        return self.connection.execute(f"DELETE FROM {self._named(table)} WHERE {sql.within(bounds)}").rowcount

    def delete_others(self, table: str, kept: Rows) -> int:
        self._staged(STAGE, table, kept)
        deleted = self.connection.execute(sql.delete_others(self._named(table), STAGE, kept.key)).rowcount
        self.connection.execute(f"DROP TABLE {STAGE}")
        return deleted

    def mark(self, table: str, gone: str, key: tuple[str, ...]) -> None:
        self._staged(GONE, table, Rows(gone, (*key, MARK), key))
        self.connection.execute(duckdb_sql.mark(self._named(table), f"TABLE {GONE}", key))
        self.connection.execute(f"DROP TABLE {GONE}")

    def merge(self, table: str, rows: Rows, gone: str | None) -> Merged:
        """By a stage that is gone with the transaction, and one statement each: no unique index is needed."""
        target, deleted = self._named(table), 0
        self.connection.execute(FIND_BY_KEY)
        if gone is not None:
            keys = f"SELECT DISTINCT {duckdb_sql.names(rows.key)} FROM ({gone})"
            self._staged(GONE, table, Rows(keys, rows.key, rows.key))
            deleted = self.connection.execute(sql.delete_keys(target, GONE, rows.key)).rowcount
            self.connection.execute(f"DROP TABLE {GONE}")
        self._staged(STAGE, table, rows)
        if len(rows.key) == 1:
            index = postgresql_tables.key_index(self.connection, self.schema, table, STAGE, rows.key[0])
            if index is not None:
                self.connection.execute(index)
        update = sql.update_keys(target, STAGE, rows.columns, rows.key)
        if postgresql_tables.does_as_told(self.connection, self.schema, table):
            # What the UPDATE met need not be looked for in the whole table again.
            self.connection.execute(f"CREATE TEMPORARY TABLE {MET} (place tid) ON COMMIT DROP")
            known = self.connection.execute(sql.noting_met(update, MET)).rowcount
            added = self.connection.execute(sql.insert_unmet(target, STAGE, rows.columns, MET)).rowcount
            self.connection.execute(f"DROP TABLE {MET}")
        else:
            known = self.connection.execute(update).rowcount
            added = self.connection.execute(sql.insert_keys(target, STAGE, rows.columns, rows.key)).rowcount
        self.connection.execute(f"DROP TABLE {STAGE}")
        return Merged(known + added, added, deleted)

    def finish(self) -> None:
        """Let new tables take the places of old ones: from here to the COMMIT, readers wait."""
        for table, beside in self.beside.items():
            self.connection.execute(f"LOCK TABLE {self._named(table)} IN ACCESS EXCLUSIVE MODE")
            if not postgresql_tables.stands_alone(self.connection, self.schema, table):
                raise WarehouseError(
                    f"{table} was given an index, a view or the like while it was replaced", transient=True
                )
            for statement in postgresql_tables.carried_over(self.connection, self.schema, table, beside):
                self.connection.execute(statement)
            self.connection.execute(f"DROP TABLE {self._named(table)}")
            self.connection.execute(f"ALTER TABLE {self._named(beside)} RENAME TO {sql.name(table)}")

    def _staged(self, stage: str, table: str, rows: Rows) -> None:
        """Rows in a temporary table of the target's types: not logged, and gone when its session is."""
        self.connection.execute(
            f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS "
            f"SELECT {sql.names(rows.columns)} FROM {self._named(table)} WITH NO DATA"
        )
        copy_rows(self.engine, self.connection, stage, rows, freeze=True)
        # Only its keys are compared; looking at all columns takes as long as copying some ten thousand rows.
        self.connection.execute(f"ANALYZE {stage} ({sql.names(rows.key)})")

    def _named(self, table: str) -> str:
        return sql.name(self.schema, table)
