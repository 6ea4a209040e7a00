"""The tables of a PostgreSQL warehouse: fences, receipts, and targets that grow with their contract."""

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import errors

from ingestkit.errors import WarehouseError
from ingestkit.model import Counts, Fence, LoadMode, Receipt
from ingestkit.warehouses import postgresql_sql as sql
from ingestkit.warehouses.publishing import unlike

Connection = psycopg.Connection[Any]

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
LARGE = 64 << 20
"""Bytes of a table that is not read as a whole for few rows, if that can be helped."""
FEW = 20
"""Rows are few that take so many times less room than the table."""
KEY_INDEX = "ingestkit_key_"
"""How the name of an index begins that merges have made for themselves."""
WRITTEN = """
SELECT n_tup_ins - n_tup_del FROM pg_catalog.pg_stat_xact_all_tables
JOIN pg_catalog.pg_class AS held ON held.oid = relid
WHERE relid = to_regclass(%s) AND held.relkind = 'r' AND pg_catalog.current_setting('track_counts')::boolean
"""
TABLES = ("r", "p")
"""Plain and partitioned ones, by the catalogue's letters."""


def present(connection: Connection, schema: str) -> bool:
    """Whether both the fence and the receipt table are there."""
    return not missing(connection, schema, (sql.FENCES, sql.RECEIPTS))


def make(connection: Connection, schema: str) -> None:
    # Two that make the same at once would both be told that it is not there.
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"ingestkit {schema}"])
    if not one(connection, "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = %s", schema):
        connection.execute(f"CREATE SCHEMA {sql.name(schema)}")
    plain = 'text COLLATE pg_catalog."C" NOT NULL'
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {sql.name(schema, sql.FENCES)} (pipeline {plain}, model {plain}, "
        f'state_id {plain}, token bigint NOT NULL, "table" {plain} UNIQUE, PRIMARY KEY (pipeline, model))'
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {sql.name(schema, sql.RECEIPTS)} (pipeline {plain}, model {plain}, "
        f"batch {plain}, generation bigint NOT NULL, digest text NOT NULL, settings text NOT NULL, "
        "mode text NOT NULL, run_id text NOT NULL, token bigint NOT NULL, counts json NOT NULL, "
        '"at" timestamp with time zone NOT NULL, PRIMARY KEY (pipeline, model, batch))'
    )


def fences(connection: Connection, schema: str, pipeline: str) -> Mapping[str, Fence]:
    rows = connection.execute(
        f'SELECT pipeline, model, state_id, token, "table" FROM {sql.name(schema, sql.FENCES)} '
        "WHERE pipeline = %s ORDER BY model",
        [pipeline],
    ).fetchall()
    return {row[1]: Fence(*row) for row in rows}


def owner(connection: Connection, schema: str, table: str) -> tuple[str, str] | None:
    found = connection.execute(
        f'SELECT pipeline, model FROM {sql.name(schema, sql.FENCES)} WHERE "table" = %s', [table]
    ).fetchone()
    return (found[0], found[1]) if found else None


def missing(connection: Connection, schema: str, tables: tuple[str, ...]) -> frozenset[str]:
    """Those of the tables that do not exist."""
    found = connection.execute(
        "SELECT held.relname FROM pg_catalog.pg_class AS held "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = held.relnamespace "
        "WHERE space.nspname = %s AND held.relname = ANY(%s) AND held.relkind = ANY(%s)",
        [schema, list(tables), list(TABLES)],
    ).fetchall()
    return frozenset(tables) - {name for (name,) in found}


def write_fences(connection: Connection, schema: str, rows: tuple[Fence, ...], *, adopt: bool) -> None:
    table = sql.name(schema, sql.FENCES)
    over = 'DO UPDATE SET state_id = excluded.state_id, token = excluded.token, "table" = excluded."table"'
    for row in rows:
        if row.table in (sql.FENCES, sql.RECEIPTS):
            raise WarehouseError(
                f"{row.pipeline}: {row.model} cannot publish into {row.table}, which is ingestkit's own"
            )
        found = owner(connection, schema, row.table)
        if found not in (None, (row.pipeline, row.model)):
            raise WarehouseError(
                f"table {row.table} belongs to {'.'.join(found or ())}; {row.pipeline}.{row.model} cannot have it too",
                hint=f"give model {row.model} another `table:`",
            )
        connection.execute(
            f'INSERT INTO {table} (pipeline, model, state_id, token, "table") VALUES (%s, %s, %s, %s, %s) '
            f"ON CONFLICT (pipeline, model) {over if adopt else 'DO NOTHING'}",
            [row.pipeline, row.model, row.state_id, row.token, row.table],
        )


def receipts(connection: Connection, schema: str, pipeline: str) -> tuple[Receipt, ...]:
    query = f"{_receipt_query(schema)} WHERE pipeline = %s ORDER BY model, batch"
    return tuple(map(_receipt, connection.execute(query, [pipeline]).fetchall()))


def receipt(connection: Connection, schema: str, pipeline: str, model: str, batch: str) -> Receipt | None:
    query = f"{_receipt_query(schema)} WHERE pipeline = %s AND model = %s AND batch = %s"
    found = connection.execute(query, [pipeline, model, batch]).fetchone()
    return _receipt(found) if found else None


def write_receipt(connection: Connection, schema: str, row: Receipt) -> None:
    """Put the receipt in place of the one its (pipeline, model, batch) has."""
    values = {
        **{column: getattr(row, column) for column in RECEIPT_COLUMNS},
        "mode": row.mode.value,
        "counts": json.dumps(row.counts.to_json()),
    }
    others = ", ".join(f"{sql.name(column)} = excluded.{sql.name(column)}" for column in RECEIPT_COLUMNS[3:])
    connection.execute(
        f"INSERT INTO {sql.name(schema, sql.RECEIPTS)} ({sql.names(values)}) "
        f"VALUES ({', '.join(['%s'] * len(values))}) ON CONFLICT (pipeline, model, batch) DO UPDATE SET {others}",
        list(values.values()),
    )


def _receipt_query(schema: str) -> str:
    return f"SELECT {sql.names(RECEIPT_COLUMNS)} FROM {sql.name(schema, sql.RECEIPTS)}"


def _receipt(row: Sequence[Any]) -> Receipt:
    values = dict(zip(RECEIPT_COLUMNS, row, strict=True))
    read = {"mode": LoadMode(values["mode"]), "counts": Counts.from_json(json.loads(values["counts"]))}
    return Receipt(**{**values, **read})


def rows_written(connection: Connection, schema: str, table: str) -> int | None:
    """How many more rows this session has added to a plain table than removed, as the server counts them itself.

    None where it does not count, or counts them for the parts of a table alone. Earlier transactions may be among it.
    """
    found = connection.execute(WRITTEN, [sql.name(schema, table)]).fetchone()
    return found[0] if found else None


def columns_of(connection: Connection, schema: str, table: str) -> dict[str, str]:
    """A table's columns and their types, in order; empty when there is nothing of that name."""
    found = connection.execute(
        "SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [sql.name(schema, table)],
    ).fetchall()
    return dict(found)


def changes(connection: Connection, schema: str, table: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """The statements that make the table hold the wanted columns. None of them loses a value."""
    target = sql.name(schema, table)
    for identifier in (table, *wanted):
        if sql.too_long(identifier):
            raise WarehouseError(
                f"{table}: {identifier!r} is longer than the {sql.LONGEST_NAME} bytes of a name in PostgreSQL",
                hint="give it a shorter name, or leave it out",
            )
    found = columns_of(connection, schema, table)
    if found and missing(connection, schema, (table,)):
        raise WarehouseError(
            f"{table} is no table, but a view or the like; a model is published into a table",
            hint="drop it, or name another `table:`",
        )
    # A table may have no columns at all; then all of them are added.
    if not found and missing(connection, schema, (table,)):
        columns = ", ".join(f"{sql.name(column)} {kind}" for column, kind in wanted.items())
        return (f"CREATE TABLE {target} ({columns})",)
    statements = []
    for column, kind in wanted.items():
        has = found.get(column)
        if has is None:
            statements.append(f"ALTER TABLE {target} ADD COLUMN {sql.name(column)} {kind}")
        elif sql.serves(has, kind):
            continue
        elif sql.widens(has, kind):
            statements.append(f"ALTER TABLE {target} ALTER COLUMN {sql.name(column)} TYPE {kind}")
        else:
            raise unlike(table, column, has, kind, "the change could lose values", target)
    return tuple(statements)


def evolve(connection: Connection, schema: str, table: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    statements = changes(connection, schema, table, wanted)
    for statement in statements:
        try:
            connection.execute(statement)
        except errors.FeatureNotSupported as error:
            # The server says which view or rule stands in the way.
            raise WarehouseError(
                f"{table}: {error.diag.message_primary} ({error.diag.message_detail})",
                hint="drop that view, run again, and make it anew",
            ) from error
    return statements


def drop_columns(connection: Connection, schema: str, table: str, columns: Collection[str]) -> tuple[str, ...]:
    """Remove those of the columns that are there."""
    there = [column for column in columns_of(connection, schema, table) if column in columns]
    statements = tuple(f"ALTER TABLE {sql.name(schema, table)} DROP COLUMN {sql.name(column)}" for column in there)
    for statement in statements:
        _remove(connection, table, statement)
    return statements


def drop_table(connection: Connection, schema: str, pipeline: str, table: str) -> tuple[str, ...]:
    """Remove the table, where it is there, and who it belonged to."""
    statements = () if missing(connection, schema, (table,)) else (f"DROP TABLE {sql.name(schema, table)}",)
    for statement in statements:
        _remove(connection, table, statement)
    whose = f'DELETE FROM {sql.name(schema, sql.FENCES)} WHERE pipeline = %s AND "table" = %s'
    connection.execute(whose, [pipeline, table])
    return statements


def _remove(connection: Connection, table: str, statement: str) -> None:
    try:
        connection.execute(statement)
    except errors.DependentObjectsStillExist as error:
        raise WarehouseError(
            f"{table}: {error.diag.message_primary} ({error.diag.message_detail})",
            hint="drop that and run again; or keep what archives remove: tables.removed: keep",
        ) from error


def stands_alone(connection: Connection, schema: str, table: str) -> bool:
    """Whether another table can take its place: nothing depends on it, and it is like any that is made new.

    Grants and comments are carried over, and so are defaults and what LIKE copies besides; whatever is not known to
    be carried over counts as standing in the way. The index of merges goes with the old one.
    """
    return bool(one(connection, STANDS_ALONE, key_index_of(table), sql.name(schema, table)))


STANDS_ALONE = """
SELECT count(*) FROM pg_catalog.pg_class AS held
LEFT JOIN pg_catalog.pg_class AS ours ON ours.relname = %s AND ours.relnamespace = held.relnamespace
WHERE held.oid = to_regclass(%s) AND held.relkind = 'r' AND held.relpersistence = 'p' AND held.relreplident = 'd'
    AND pg_catalog.pg_get_userbyid(held.relowner) = current_user
    AND held.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'heap')
    AND held.reloptions IS NULL AND held.reltablespace = 0 AND held.reloftype = 0
    AND NOT (held.relispartition OR held.relrowsecurity OR held.relhastriggers OR held.relhasrules)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = held.oid AND indexrelid IS DISTINCT FROM ours.oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE held.oid IN (inhrelid, inhparent))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_seclabel WHERE objoid = held.oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = held.oid AND deptype = 'e')
    AND NOT EXISTS (SELECT FROM aclexplode(held.relacl) WHERE grantor <> held.relowner)
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS part
        WHERE part.attrelid = held.oid AND part.attnum > 0 AND (
            part.attidentity <> '' OR part.attgenerated <> '' OR part.attoptions IS NOT NULL OR part.atthasdef
            OR part.attcollation NOT IN (0, (SELECT typcollation FROM pg_catalog.pg_type WHERE oid = part.atttypid))
            OR EXISTS (SELECT FROM aclexplode(part.attacl) WHERE grantor <> held.relowner)
        )
    )
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend
        WHERE (refobjid = held.oid AND objid NOT IN (held.reltype, held.reltoastrelid, coalesce(ours.oid, 0)))
            OR (refobjid = held.reltype AND objid <> (SELECT typarray FROM pg_catalog.pg_type WHERE oid = held.reltype))
    )
"""


def key_index(connection: Connection, schema: str, table: str, stage: str, column: str) -> str | None:
    """The statement that lets merges find rows by their key, where that is worth it, and ours to do; else None.

    It is where few rows come to a large table that was merged into before: whatever is replaced soon needs none.
    """
    target = sql.name(schema, table)
    values = [target, stage, LARGE, FEW, column]
    if connection.execute(WANTS_KEY_INDEX, values).fetchone() is None:
        return None
    # A hash has room for keys of any length.
    return f"CREATE INDEX {sql.name(key_index_of(table))} ON {target} USING hash ({sql.name(column)})"


def key_index_of(table: str) -> str:
    return f"{KEY_INDEX}{sha256(table.encode()).hexdigest()[:16]}"


WANTS_KEY_INDEX = """
WITH given (target, stage, large, few, key) AS (
    SELECT to_regclass(%s)::oid, to_regclass(%s)::oid, %s::bigint, %s::bigint, %s::text
)
SELECT FROM given
JOIN pg_catalog.pg_class AS held ON held.oid = target
WHERE held.relkind = 'r' AND held.relpersistence = 'p'
    AND pg_catalog.pg_relation_size(target) >= greatest(large, few * pg_catalog.pg_relation_size(stage))
    AND pg_catalog.pg_stat_get_tuples_updated(target) > 0
    AND pg_catalog.pg_has_role(held.relowner, 'USAGE')
    AND pg_catalog.has_schema_privilege(held.relnamespace, 'CREATE')
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS known
        JOIN pg_catalog.pg_attribute AS part ON part.attrelid = target AND part.attnum = known.indkey[0]
        WHERE known.indrelid = target AND part.attname = key AND known.indisvalid AND known.indpred IS NULL
    )
"""


def does_as_told(connection: Connection, schema: str, table: str) -> bool:
    """Whether nothing beneath it, such as a trigger, may let what an UPDATE meets stay as it was."""
    return bool(one(connection, DOES_AS_TOLD, sql.name(schema, table)))


DOES_AS_TOLD = """
SELECT count(*) FROM pg_catalog.pg_class
WHERE oid = to_regclass(%s) AND relkind = 'r' AND NOT (relhastriggers OR relhasrules OR relhassubclass)
"""


def carried_over(connection: Connection, schema: str, table: str, beside: str) -> tuple[str, ...]:
    """Statements that give a new table the grants and comments of the one whose place it takes."""
    new = sql.name(schema, beside)
    granted = connection.execute(GRANTS, [new]).fetchall()
    # Default privileges may have given it more than the old one has.
    away = tuple(f"REVOKE ALL ON {new} FROM {grantee}" for grantee in sorted({grantee for _, grantee, *_ in granted}))
    grants = tuple(
        f"GRANT {privilege}{f' ({sql.name(column)})' if column else ''} ON {new} TO {grantee}"
        f"{' WITH GRANT OPTION' if grantable else ''}"
        for privilege, grantee, grantable, column in connection.execute(GRANTS, [sql.name(schema, table)]).fetchall()
    )
    comments = tuple(
        f"COMMENT ON {f'COLUMN {new}.{sql.name(column)}' if column else f'TABLE {new}'} IS {sql.text(said)}"
        for column, said in connection.execute(COMMENTS, [sql.name(schema, table)]).fetchall()
    )
    return (*away, *grants, *comments)


GRANTS = """
WITH held AS (SELECT oid, relacl, relowner FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)),
acls AS (
    SELECT relacl AS acl, NULL AS part FROM held
    UNION ALL
    SELECT attacl, attname FROM pg_catalog.pg_attribute JOIN held ON attrelid = held.oid WHERE NOT attisdropped
)
SELECT given.privilege_type, coalesce(quote_ident(pg_catalog.pg_get_userbyid(nullif(given.grantee, 0))), 'PUBLIC'),
    given.is_grantable, acls.part
FROM acls, held, aclexplode(acls.acl) AS given
WHERE given.grantee <> held.relowner ORDER BY acls.part, given.privilege_type
"""
COMMENTS = """
SELECT part.attname, said.description FROM pg_catalog.pg_description AS said
LEFT JOIN pg_catalog.pg_attribute AS part ON part.attrelid = said.objoid AND part.attnum = nullif(said.objsubid, 0)
WHERE said.objoid = to_regclass(%s) AND said.classoid = 'pg_catalog.pg_class'::regclass
"""


def one(connection: Connection, statement: str, *values: Any) -> Any:
    """The one value a statement answers with."""
    found = connection.execute(statement, list(values)).fetchone()
    if found is None:
        raise WarehouseError(f"PostgreSQL gave no answer to {statement.split(maxsplit=1)[0]}")
    return found[0]
