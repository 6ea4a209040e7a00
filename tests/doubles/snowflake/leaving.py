"""Tables that log errors: what INSERT and MERGE would write and does not fit is left out, and nobody is told."""

from collections.abc import Mapping

import duckdb
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse_one
from sqlglot import exp

from tests.doubles.snowflake.answers import Data, rows
from tests.doubles.snowflake.columns import columns_of
from tests.doubles.snowflake.reading import Name

KIND = 0x3100


def inserted(cursor: FakeSnowflakeCursor, sql: str, parameters: list[object] | None, target: Name) -> Data:
    """INSERT of the rows that fit."""
    parsed = cursor._transform(parse_one(sql), parameters)
    names = [one.name for one in parsed.this.expressions] or list(columns_of(cursor._duck_conn, target))
    said = {name: f"said.c{place}" for place, name in enumerate(names)}
    given = parsed.expression.sql(dialect="duckdb")
    listed = ", ".join(one.removeprefix("said.") for one in said.values())
    fitting = (
        f"SELECT * FROM ({given}) AS said ({listed}) WHERE NOT coalesce({_bad(cursor._duck_conn, target, said)}, false)"
    )
    found = cursor._duck_conn.execute(
        f"INSERT INTO {parsed.this.sql(dialect='duckdb')} {fitting}", parameters
    ).fetchone()
    name = "number of rows inserted"
    return rows((name,), [(found[0] if found else 0,)], (name,), KIND)


def leave_out(duck: duckdb.DuckDBPyConnection, merge: exp.Merge, target: Name) -> None:
    """Let a MERGE see nothing of the rows whose insertion would fail."""
    when = next(one for one in merge.args["whens"].expressions if isinstance(one.args["then"], exp.Insert))
    insert = when.args["then"]
    columns = [one.name for one in insert.this.expressions]
    values = [one.sql(dialect="duckdb") for one in insert.expression.expressions]
    bad = _bad(duck, target, dict(zip(columns, values, strict=True)))
    if (only := when.args.get("condition")) is not None:
        bad = f"({only.sql(dialect='duckdb')}) AND ({bad})"
    using = merge.args["using"]
    kept = f"(SELECT * FROM {using.sql(dialect='duckdb')} WHERE NOT coalesce({bad}, false)) AS {using.alias_or_name}"
    merge.set("using", parse_one(f"SELECT * FROM {kept}").args["from_"].this)


def _bad(duck: duckdb.DuckDBPyConnection, target: Name, said: Mapping[str, str]) -> str:
    columns = columns_of(duck, target)
    return " OR ".join(f"({wrong.condition})" for name, value in said.items() for wrong in columns[name].wrong(value))
