"""What fakesnow and DuckDB make of a statement, and their errors as answers."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa
import snowflake.connector.errors
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse
from fakesnow.rowtype import describe_as_rowtype
from fakesnow.statement_type import DML_TYPE_IDS, statement_type_id
from sqlglot import exp

from tests.doubles.snowflake.answers import Data, Refused, fixed, rows, table, told
from tests.doubles.snowflake.parameters import dated
from tests.doubles.snowflake.reading import Name, Statement, identifier, literal, quoted
from tests.doubles.snowflake.sessions import Session

DONE: Final = "Statement executed successfully."
CODES: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (duckdb.ConversionException, 100_038, "22018"),
    (duckdb.ConstraintException, 100_072, "22000"),
    (duckdb.OutOfRangeException, 100_046, "22003"),
    (duckdb.InvalidInputException, 100_080, "22000"),
    (duckdb.CatalogException, 2003, "42S02"),
    (duckdb.BinderException, 904, "42000"),
    (duckdb.Error, 603, "XX000"),
)
BARE: Final = "BUNDLE_2024_08"
"""What an account may have enabled: DESCRIBE tells no lengths but those that were said."""
TOO_GREAT: Final = re.compile(
    r"(?:Casting value \"(.*)\"|Could not cast value (\S+)) to (?:type )?(DECIMAL\(\d+,\d+\))"
)
UNENFORCED: Final = (exp.PrimaryKey, exp.ForeignKey, exp.UniqueColumnConstraint, exp.PrimaryKeyColumnConstraint)
CONTEXT: Final = re.compile(
    r"\b(?:CURRENT_(ROLE|WAREHOUSE|USER|ACCOUNT|SESSION|TRANSACTION)|(LAST_QUERY_ID))\s*\(\s*\)", re.IGNORECASE
)
IN_SESSION: Final = re.compile(r"\bIS_ROLE_IN_SESSION\s*\(\s*'([^']*)'\s*\)", re.IGNORECASE)


@dataclass(slots=True)
class Asked:
    """A statement on its way: who asks, what is bound to it, and by which id its outcome is known."""

    session: Session
    statement: Statement
    query: str
    bound: list[object] | None = None
    batch: list[tuple[object, ...]] | None = None


def executed(asked: Asked) -> Data:
    """What fakesnow makes of it."""
    session, sql = asked.session, in_context(asked)
    parsed = parse(sql)
    if len(parsed) != 1 or parsed[0] is None:
        counted = f"Actual statement count {len(parsed)} did not match the desired statement count 1."
        raise Refused(8, "0A000", counted)
    whole = parsed[0]
    if found := list(whole.find_all(*UNENFORCED)):
        # Snowflake takes keys and enforces none of them.
        for one in found:
            (one.parent if isinstance(one.parent, exp.ColumnConstraint | exp.Constraint) else one).pop()
        sql = whole.sql(dialect="snowflake")
    kind = statement_type_id(whole)
    counted_rows = 0
    cursor = session.fake.cursor()
    bindings: list[Sequence[object] | None] = list(asked.batch) if asked.batch else [asked.bound]
    for bound in bindings:
        cursor.execute(sql, binding_params=bound, server=True)
        counted_rows += cursor.rowcount or 0
    if asked.statement.kind == "DESCRIBE" and BARE in session.parameters:
        cursor._arrow_table = _without_lengths(cursor._arrow_table)
    return _result(cursor, kind, counted_rows if asked.batch else None)


def _without_lengths(found: pa.Table) -> pa.Table:
    """Types that have the length of those who are given none, written without it."""
    place = found.column_names.index("type")
    kinds = [re.sub(r"^(VARCHAR)\(16777216\)$|^(TIMESTAMP_\w+)\(9\)$", r"\1\2", one.as_py()) for one in found["type"]]
    return found.set_column(place, found.field(place), pa.array(kinds, found.field(place).type))


def home(duck: duckdb.DuckDBPyConnection, table: Name) -> Name:
    """Where a table is in DuckDB: a temporary one has a place of its own, and goes before any other."""
    database, schema, name = (literal(part) for part in table)
    asked = f"""
        SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE table_name = {name}
        AND (temporary OR (database_name = {database} AND schema_name = {schema})) ORDER BY temporary DESC
    """
    found = duck.execute(asked).fetchone()
    return table if found is None else (found[0], found[1], found[2])


def demand_lengths(session: Session, target: Name) -> None:
    """Raises where the table holds a text that is longer than its column, which DuckDB does not mind."""
    duck = session.fake._duck_conn
    database, schema, name = (literal(part) for part in target)
    place = home(duck, target)
    # Of a temporary table that went with its session, what is known of its columns stays.
    here = " AND ".join(
        f"{part}_name = {literal(one)}" for part, one in zip(("database", "schema", "table"), place, strict=True)
    )
    sizes = f"""
        SELECT ext_column_name, ext_character_maximum_length FROM _fs_global._fs_information_schema._fs_columns_ext
        WHERE ext_table_catalog = {database} AND ext_table_schema = {schema} AND ext_table_name = {name}
        AND ext_column_name IN (SELECT column_name FROM duckdb_columns() WHERE {here})
    """
    for column, size in duck.execute(sizes).fetchall():
        named, where = identifier(column), quoted(place)
        found = f"SELECT {named} FROM {where} WHERE length({named}) > {size} LIMIT 1"
        if (row := duck.execute(found).fetchone()) is not None:
            raise Refused(100_078, "22000", f"String '{row[0]}' is too long and would be truncated")


def in_context(asked: Asked) -> str:
    """What says who asks is known here, and not to DuckDB."""
    session = asked.session
    known = {
        "ROLE": session.role,
        "WAREHOUSE": session.warehouse,
        "USER": session.user,
        "ACCOUNT": "INGESTKIT",
        "SESSION": str(session.number),
        "TRANSACTION": str(session.transaction.number) if session.transaction else None,
        "LAST_QUERY_ID": session.last_query,
    }

    def say(found: re.Match[str]) -> str:
        value = known[(found[1] or found[2]).upper()]
        return "NULL" if value is None else f"'{value}'"

    sql = dated(asked.statement.text, session.parameters)
    return IN_SESSION.sub(
        lambda found: str(found[1] in {session.role, *session.secondary}).upper(), CONTEXT.sub(say, sql)
    )


def _result(cursor: FakeSnowflakeCursor, kind: int, counted: int | None) -> Data:
    found = cursor._arrow_table
    if found is None:
        return told(DONE)
    if kind in DML_TYPE_IDS:
        # Clients count the rows they changed from text.
        values = list(zip(*[one.to_pylist() for one in found.columns], strict=True))
        names = found.column_names
        if counted is not None:
            names, values = names[:1], [(counted,)]
        return rows(names, values, names, kind)
    return table(found, describe_as_rowtype(cursor._describe_last_sql()), kind)


@contextmanager
def translated() -> Iterator[None]:
    """Errors of fakesnow and DuckDB as answers."""
    try:
        yield
    except snowflake.connector.errors.Error as error:
        _demand_range(error)
        raise Refused(error.errno or 603, error.sqlstate or "XX000", error.raw_msg or "") from error
    except NotImplementedError as error:
        raise Refused(2, "0A000", f"the double does not do this: {error}") from error
    except duckdb.Error as error:
        _demand_range(error)
        code, state = next((code, state) for kind, code, state in CODES if isinstance(error, kind))
        raise Refused(code, state, str(error)) from error


def _demand_range(error: Exception) -> None:
    """Raises of a number that is too great as the service does, which quotes none."""
    if found := TOO_GREAT.search(str(error)):
        said = f"Number out of representable range: type {fixed(found[3])}, value {found[1] or found[2]}"
        raise Refused(100_046, "22003", said) from error
