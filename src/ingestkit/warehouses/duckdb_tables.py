"""The tables of a DuckDB warehouse: fences, receipts, and targets that grow with their contract."""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import duckdb

from ingestkit.errors import WarehouseError
from ingestkit.model import Counts, Fence, LoadMode, Receipt
from ingestkit.warehouses import duckdb_sql as sql
from ingestkit.warehouses.publishing import unlike

Connection = duckdb.DuckDBPyConnection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RECEIPT_COLUMNS = (
    "pipeline",
    "model",
    "batch",
    "generation",
    "digest",
    "settings",
    "mode",
    "run_id",
    "token",
    "counts",
    "at",
)


def present(connection: Connection, schema: str) -> bool:
    """Whether both the fence and the receipt table are there."""
    # What the catalog lists is all tables, each of which is looked into.
    try:
        for table in (sql.FENCES, sql.RECEIPTS):
            connection.execute(f"FROM {sql.name(schema, table)} LIMIT 0")
    except duckdb.CatalogException:
        return False
    return True


def make(connection: Connection, schema: str) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {sql.name(schema)}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {sql.name(schema, sql.FENCES)} (pipeline VARCHAR NOT NULL, "
        "model VARCHAR NOT NULL, "
        'state_id VARCHAR NOT NULL, token BIGINT NOT NULL, "table" VARCHAR NOT NULL)'
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {sql.name(schema, sql.RECEIPTS)} (pipeline VARCHAR NOT NULL, "
        "model VARCHAR NOT NULL, batch VARCHAR NOT NULL, generation INTEGER NOT NULL, digest VARCHAR NOT NULL, "
        "settings VARCHAR NOT NULL, mode VARCHAR NOT NULL, run_id VARCHAR NOT NULL, token BIGINT NOT NULL, "
        '"counts" VARCHAR NOT NULL, "at" TIMESTAMPTZ NOT NULL)'
    )


def fences(connection: Connection, schema: str, pipeline: str) -> Mapping[str, Fence]:
    rows = connection.execute(
        f'SELECT pipeline, model, state_id, token, "table" FROM {sql.name(schema, sql.FENCES)} '
        "WHERE pipeline = ? ORDER BY model",
        [pipeline],
    ).fetchall()
    return {row[1]: Fence(*row) for row in rows}


def owner(connection: Connection, schema: str, table: str) -> tuple[str, str] | None:
    """Whose the table is. To DuckDB, names that differ in case alone are one."""
    found = connection.execute(
        f'SELECT pipeline, model FROM {sql.name(schema, sql.FENCES)} WHERE lower("table") = lower(?)', [table]
    ).fetchone()
    return (found[0], found[1]) if found else None


def missing(connection: Connection, schema: str, tables: tuple[str, ...]) -> frozenset[str]:
    """Those of the tables that do not exist. To DuckDB, names that differ in case alone are one."""
    found = connection.execute(
        "SELECT lower(table_name) FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ?",
        [schema],
    ).fetchall()
    there = {row[0] for row in found}
    return frozenset(table for table in tables if table.lower() not in there)


def write_fences(connection: Connection, schema: str, rows: tuple[Fence, ...], *, adopt: bool) -> None:
    fence_table = sql.name(schema, sql.FENCES)
    for row in rows:
        if row.table.lower() in (sql.FENCES, sql.RECEIPTS):
            raise WarehouseError(
                f"{row.pipeline}: {row.model} cannot publish into {row.table}, which is ingestkit's own"
            )
        found = owner(connection, schema, row.table)
        if found not in (None, (row.pipeline, row.model)):
            raise WarehouseError(
                f"table {row.table} belongs to {'.'.join(found or ())}; {row.pipeline}.{row.model} cannot have it too",
                hint=f"give model {row.model} another `table:`",
            )
        if adopt:
            connection.execute(f"DELETE FROM {fence_table} WHERE pipeline = ? AND model = ?", [row.pipeline, row.model])
        connection.execute(
            f"INSERT INTO {fence_table} SELECT ?, ?, ?, ?, ? "
            f"WHERE NOT EXISTS (SELECT 1 FROM {fence_table} WHERE pipeline = ? AND model = ?)",
            [row.pipeline, row.model, row.state_id, row.token, row.table, row.pipeline, row.model],
        )


def receipts(connection: Connection, schema: str, pipeline: str) -> tuple[Receipt, ...]:
    query = f"{_receipt_query(schema)} WHERE pipeline = ? ORDER BY model, batch"
    return tuple(map(_receipt, connection.execute(query, [pipeline]).fetchall()))


def receipt(connection: Connection, schema: str, pipeline: str, model: str, batch: str) -> Receipt | None:
    query = f"{_receipt_query(schema)} WHERE pipeline = ? AND model = ? AND batch = ?"
    found = connection.execute(query, [pipeline, model, batch]).fetchone()
    return _receipt(found) if found else None


def write_receipt(connection: Connection, schema: str, row: Receipt) -> None:
    """Put the receipt in place of the one its (pipeline, model, batch) has."""
    table = sql.name(schema, sql.RECEIPTS)
    connection.execute(
        f"DELETE FROM {table} WHERE pipeline = ? AND model = ? AND batch = ?", [row.pipeline, row.model, row.batch]
    )
    values = {
        **{column: getattr(row, column) for column in RECEIPT_COLUMNS},
        "mode": row.mode.value,
        "counts": json.dumps(row.counts.to_json()),
        "at": row.at.astimezone(UTC).isoformat(),
    }
    places = ", ".join("?::TIMESTAMPTZ" if column == "at" else "?" for column in values)
    connection.execute(f"INSERT INTO {table} ({sql.names(values)}) VALUES ({places})", list(values.values()))


def _receipt_query(schema: str) -> str:
    columns = sql.names(RECEIPT_COLUMNS[:-1])
    return f'SELECT {columns}, epoch_us("at") FROM {sql.name(schema, sql.RECEIPTS)}'


def _receipt(row: tuple[object, ...]) -> Receipt:
    values = dict(zip(RECEIPT_COLUMNS, row, strict=True))
    read = {
        "mode": LoadMode(str(values["mode"])),
        "counts": Counts.from_json(json.loads(str(values["counts"]))),
        "at": EPOCH + timedelta(microseconds=int(str(values["at"]))),
    }
    return Receipt(**{**values, **read})  # type: ignore[arg-type]


def columns_of(connection: Connection, schema: str, table: str) -> dict[str, str]:
    """A table's columns and their types, in order; empty when there is no such table."""
    found = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
        "AND schema_name = ? AND lower(table_name) = lower(?) ORDER BY column_index",
        [schema, table],
    ).fetchall()
    return dict(found)


def columns_of_all(connection: Connection, schema: str) -> dict[str, dict[str, str]]:
    """The columns of all tables and their types, all names in small letters."""
    found = connection.execute(
        "SELECT lower(table_name), lower(column_name), data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ?",
        [schema],
    ).fetchall()
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in found:
        tables.setdefault(table, {})[column] = kind
    return tables


def created(schema: str, table: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """The statement that makes the table."""
    columns = ", ".join(f"{sql.name(column)} {kind}" for column, kind in wanted.items())
    return (f"CREATE TABLE {sql.name(schema, table)} ({columns})",)


def changes(connection: Connection, schema: str, table: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """The statements that make the table hold the wanted columns. None of them loses a value."""
    target = sql.name(schema, table)
    if _is_view(connection, schema, table):
        raise WarehouseError(
            f"{table} is a view; a model is published into a table", hint="drop it, or name another `table:`"
        )
    found = {column.lower(): kind for column, kind in columns_of(connection, schema, table).items()}
    if not found:
        return created(schema, table, wanted)
    statements = []
    for column, kind in wanted.items():
        has = found.get(column.lower())
        if has is None:
            statements.append(f"ALTER TABLE {target} ADD COLUMN {sql.name(column)} {kind}")
        elif has != kind and sql.widens(has, kind):
            statements.append(f"ALTER TABLE {target} ALTER COLUMN {sql.name(column)} SET DATA TYPE {kind}")
        elif has != kind:
            raise unlike(table, column, has, kind, "the change could lose values", target)
    return tuple(statements)


def evolve(connection: Connection, schema: str, table: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    statements = changes(connection, schema, table, wanted)
    for statement in statements:
        connection.execute(statement)
    return statements


def drop_columns(connection: Connection, schema: str, table: str, columns: Collection[str]) -> tuple[str, ...]:
    """Remove those of the columns that are there."""
    gone = {column.lower() for column in columns}
    there = [column for column in columns_of(connection, schema, table) if column.lower() in gone]
    statements = tuple(f"ALTER TABLE {sql.name(schema, table)} DROP COLUMN {sql.name(column)}" for column in there)
    for statement in statements:
        connection.execute(statement)
    return statements


def drop_table(connection: Connection, schema: str, pipeline: str, table: str) -> tuple[str, ...]:
    """Remove the table, where it is there, and who it belonged to."""
    statements = () if missing(connection, schema, (table,)) else (f"DROP TABLE {sql.name(schema, table)}",)
    for statement in statements:
        connection.execute(statement)
    whose = f'DELETE FROM {sql.name(schema, sql.FENCES)} WHERE pipeline = ? AND lower("table") = lower(?)'
    connection.execute(whose, [pipeline, table])
    return statements


def stands_alone(connection: Connection, schema: str, table: str) -> bool:
    """Whether the table has nothing that would go with it when it is dropped: index, constraint, default, comment."""
    here = "database_name = current_database() AND schema_name = $schema AND lower(table_name) = lower($table)"
    found = connection.execute(
        f"SELECT (SELECT count(*) FROM duckdb_indexes() WHERE {here}) "
        f"+ (SELECT count(*) FROM duckdb_constraints() WHERE {here}) "
        f"+ (SELECT count(*) FROM duckdb_tables() WHERE {here} AND comment IS NOT NULL) "
        f"+ (SELECT count(*) FROM duckdb_columns() WHERE {here} "
        "AND (comment IS NOT NULL OR column_default IS NOT NULL OR is_generated))",
        {"schema": schema, "table": table},
    ).fetchone()
    return found == (0,)


def _is_view(connection: Connection, schema: str, table: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM duckdb_views() WHERE database_name = current_database() AND schema_name = ? "
        "AND lower(view_name) = lower(?)",
        [schema, table],
    ).fetchone()
    return found != (0,)
