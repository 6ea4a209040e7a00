"""How DuckDB reads the files of a COPY, and what they have for the columns of its table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse_one

from tests.doubles.snowflake import transforming
from tests.doubles.snowflake.answers import Refused, compilation
from tests.doubles.snowflake.columns import Column
from tests.doubles.snowflake.reading import Options, identifier, literal, true

VARIANT: Final = re.compile(r"""\$1:("(?:[^"]|"")*"|\w+)""")
OF_FILE: Final = re.compile(r"\bMETADATA\$(FILENAME|FILE_ROW_NUMBER)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """What DuckDB reads from, and what is there for each column of the table."""

    sql: str
    values: dict[str, str]


def parquet(
    duck: duckdb.DuckDBPyConnection, file: str, columns: Sequence[Column], said: Options, by_name: str
) -> Source:
    """By the names of the columns; what the table has not is left out, and what the file has not is NULL."""
    if by_name == "NONE":
        message = "PARQUET file format can produce one and only one column of type variant, object, or array."
        raise compilation(f"{message} Load data into separate columns using MATCH_BY_COLUMN_NAME.", 2019, "0A000")
    types = _types(duck, file)
    folded = {name.upper(): name for name in types}
    values = {}
    for column in columns:
        found = column.name if column.name in types else None
        if by_name == "CASE_INSENSITIVE":
            found = folded.get(column.name.upper())
        if found is not None:
            _demand_logical(said, found, types[found])
        values[column.name] = "NULL" if found is None else identifier(found)
        if found is not None and types[found] == "VARCHAR":
            values[column.name] = _unless_null(_nulls(said), values[column.name])
    return Source(f"read_parquet({literal(file)})", values)


def transformed(
    cursor: FakeSnowflakeCursor, file: str, path: str, select: str, columns: Sequence[Column], said: Options
) -> Source:
    """By a SELECT over `$1`, whose names are told by case: one that the file has not is NULL."""
    types = _types(cursor._duck_conn, file)

    def column(found: re.Match[str]) -> str:
        name = found[1][1:-1].replace('""', '"') if found[1].startswith('"') else found[1]
        if name not in types:
            return "NULL"
        _demand_logical(said, name, types[name])
        # It is still to be read as Snowflake's own SQL, to which a backslash says something.
        nulls = [one.replace("\\", "\\\\") for one in _nulls(said)]
        return _unless_null(nulls, identifier(name)) if types[name] == "VARCHAR" else identifier(name)

    def of_file(found: re.Match[str]) -> str:
        return literal(path) if found[1].upper() == "FILENAME" else '("file_row_number" + 1)'

    sql = f"SELECT {OF_FILE.sub(of_file, VARIANT.sub(column, select))} FROM source_of_copy"
    parsed = cursor._transform(parse_one(sql), None)
    if len(parsed.expressions) != len(columns):
        counted = f"Insert value list does not match column list expecting {len(columns)} but got "
        raise compilation(f"{counted}{len(parsed.expressions)}", 2226, "21S01")
    names = [f"c{place}" for place in range(len(columns))]
    made = transforming.strict(parsed).rpartition(" FROM ")[0]
    source = f"read_parquet({literal(file)}, file_row_number = true)"
    return Source(
        f"(SELECT * FROM ({made} FROM {source}) AS made ({', '.join(names)}))",
        {column.name: name for column, name in zip(columns, names, strict=True)},
    )


def csv(file: str, columns: Sequence[Column], said: Options) -> Source:
    """By position; as many columns as the table has."""
    quote = str(said.get("FIELD_OPTIONALLY_ENCLOSED_BY", "NONE"))
    nulls = _nulls(said)
    if true(said, "EMPTY_FIELD_AS_NULL", otherwise=True):
        nulls.append("")
    types = ", ".join(f"{literal(f'c{place}')}: 'VARCHAR'" for place in range(len(columns)))
    settings = {
        "auto_detect": "false",
        "header": "false",
        "skip": str(int(said.get("SKIP_HEADER", 0))),
        "delim": literal(str(said.get("FIELD_DELIMITER", ","))),
        "quote": "''" if quote.upper() == "NONE" else literal(quote),
        "escape": "''" if quote.upper() == "NONE" else literal(quote),
        "nullstr": f"[{', '.join(literal(one) for one in nulls)}]",
        "columns": f"{{{types}}}",
    }
    inner = ", ".join(f"{key} = {value}" for key, value in settings.items())
    return Source(f"read_csv({literal(file)}, {inner})", {column.name: f"c{at}" for at, column in enumerate(columns)})


def _types(duck: duckdb.DuckDBPyConnection, file: str) -> dict[str, str]:
    described = duck.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(file)})").fetchall()
    return {name: kind for name, kind, *_ in described}


def _nulls(said: Options) -> list[str]:
    """Texts that are NULL; by default one is."""
    nulls = said.get("NULL_IF", ["\\N"])
    return [*(nulls if isinstance(nulls, list) else [nulls])]


def _unless_null(nulls: Sequence[str], value: str) -> str:
    listed = ", ".join(literal(one) for one in nulls)
    return f"CASE WHEN {value} IN ({listed}) THEN NULL ELSE {value} END" if nulls else value


def _demand_logical(said: Options, name: str, kind: str) -> None:
    """Without logical types a date is a number of days, and an instant one of microseconds."""
    logical = true(said, "USE_LOGICAL_TYPE") or true(said, "USE_VECTORIZED_SCANNER")
    if not logical and kind.startswith(("DATE", "TIME")):
        raise Refused(100_071, "22000", f"Failed to cast variant value of column '{name}', which has a logical type")
