"""How DuckDB writes what is published: its statements over valid Parquet, which is its stage."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from ingestkit.model import Fence, Receipt
from ingestkit.ports import Bounds, TargetColumn
from ingestkit.warehouses import duckdb_sql as sql
from ingestkit.warehouses import duckdb_tables
from ingestkit.warehouses.publishing import Merged, Rows, figures


@dataclass(frozen=True, slots=True)
class DuckdbTransaction:
    connection: duckdb.DuckDBPyConnection
    schema: str

    def raise_fence(self, mine: Fence) -> Sequence[str]:
        """One that is raised at the same time conflicts, and begins again."""
        answered = self.connection.execute(
            f"UPDATE {self._named(sql.FENCES)} SET token = $token WHERE pipeline = $pipeline AND model = $model "
            'AND state_id = $state_id AND token <= $token RETURNING "table"',
            {"token": mine.token, "pipeline": mine.pipeline, "model": mine.model, "state_id": mine.state_id},
        ).fetchall()
        return [table for (table,) in answered]

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        return duckdb_tables.fences(self.connection, self.schema, pipeline)

    def receipt(self, pipeline: str, model: str, batch: str) -> Receipt | None:
        return duckdb_tables.receipt(self.connection, self.schema, pipeline, model, batch)

    def write_receipt(self, receipt: Receipt) -> None:
        duckdb_tables.write_receipt(self.connection, self.schema, receipt)

    def forget_receipts(self, pipeline: str, model: str) -> None:
        self.connection.execute(
            f"DELETE FROM {self._named(sql.RECEIPTS)} WHERE pipeline = ? AND model = ?", [pipeline, model]
        )

    def hold(self, table: str) -> int:
        """Who else changes it meanwhile conflicts with this transaction."""
        return self.count(table)

    def columns(self, table: str) -> Collection[str]:
        described = self.connection.execute(f"FROM {self._named(table)} LIMIT 0").description or ()
        return {name for name, *_ in described}

    def remake(self, table: str, gone: Collection[str], columns: Sequence[TargetColumn]) -> None:
        duckdb_tables.drop_columns(self.connection, self.schema, table, gone)
        duckdb_tables.evolve(self.connection, self.schema, table, sql.column_types(columns, ()))

    def count(self, table: str) -> int:
        return self._figure(f"SELECT count(*) FROM {self._named(table)}")

    def same_table(self, one: str, other: str) -> bool:
        """To DuckDB, names that differ in case alone are one."""
        return one.lower() == other.lower()

    def replace(self, table: str, rows: Rows) -> int:
        """Beside and renamed, or emptied first if dropping would lose more."""
        target = self._named(table)
        if not duckdb_tables.stands_alone(self.connection, self.schema, table):
            self.connection.execute(f"TRUNCATE {target}")
            return self.insert(table, rows)
        beside = f"{table}__ingestkit_new"
        self.connection.execute(f"CREATE TABLE {self._named(beside)} AS SELECT * FROM {target} WITH NO DATA")
        loaded = self.insert(beside, rows)
        self.connection.execute(f"DROP TABLE {target}")
        self.connection.execute(f"ALTER TABLE {self._named(beside)} RENAME TO {sql.name(table)}")
        return loaded

    def insert(self, table: str, rows: Rows) -> int:
        return self._figure(sql.insert(self._named(table), rows.columns, rows.query))

    def delete_batch(self, table: str, batch: str) -> int:
        return self._figure(f'DELETE FROM {self._named(table)} WHERE "_batch" = {sql.text(batch)}')

    def delete_window(self, table: str, bounds: Bounds) -> int:
        return self._figure(f"DELETE FROM {self._named(table)} WHERE {sql.within(bounds)}")

    def delete_others(self, table: str, kept: Rows) -> int:
        return self._figure(sql.delete_others(self._named(table), kept.query, kept.key))

    def mark(self, table: str, gone: str, key: tuple[str, ...]) -> None:
        self.connection.execute(sql.mark(self._named(table), gone, key))

    def merge(self, table: str, rows: Rows, gone: str | None) -> Merged:
        target = self._named(table)
        deleted = self._figure(sql.delete(target, gone, rows.key)) if gone is not None else 0
        here = f"SELECT {sql.names(rows.key)} FROM {target}"
        added = self._figure(sql.count(sql.without(rows.query, here, rows.key)))
        loaded = self._figure(sql.merge(target, rows.columns, rows.key, rows.query))
        return Merged(loaded, added, deleted)

    def finish(self) -> None:
        """Nothing is put off: readers of a file wait for nobody within it."""

    def _named(self, table: str) -> str:
        return sql.name(self.schema, table)

    def _figure(self, statement: str) -> int:
        (figure,) = figures(self.connection, statement)
        return figure
