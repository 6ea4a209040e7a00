"""MERGE as Snowflake does it: two source rows for one row are an error, two for a new one are both inserted."""

from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse_one
from sqlglot import exp

from tests.doubles.snowflake.answers import Data, Refused, rows
from tests.doubles.snowflake.leaving import leave_out
from tests.doubles.snowflake.reading import Name

WORDS = {"INSERT": "inserted", "UPDATE": "updated", "DELETE": "deleted"}
KIND = 0x3400


def merged(
    cursor: FakeSnowflakeCursor,
    sql: str,
    parameters: list[object] | None,
    *,
    deterministic: bool,
    logging: Name | None,
) -> Data:
    """DuckDB's own MERGE, after the check it does not make; into a table that is `logging` errors, of what fits."""
    parsed = cursor._transform(parse_one(sql), parameters)
    if not isinstance(parsed, exp.Merge):
        raise TypeError(sql)
    duck = cursor._duck_conn
    if logging is not None:
        leave_out(duck, parsed, logging)
    if deterministic and (check := _conflicts(parsed)) is not None:
        found = duck.execute(check.sql(dialect="duckdb"), parameters).fetchone()
        if found is not None:
            raise Refused(100_090, "42P18", f"Duplicate row detected during DML action\nRow Values: {list(found)}")
    for when in parsed.args["whens"].expressions:
        if isinstance(update := when.args["then"], exp.Update):
            for assigned in update.expressions:
                # DuckDB wants the bare name of what is set.
                assigned.this.set("table", None)
    parsed.set("returning", exp.Returning(expressions=[exp.column("merge_action")]))
    duck.execute(parsed.sql(dialect="duckdb"), parameters)
    actions = [action for (action,) in duck.fetchall()]
    clauses = {_action(when) for when in parsed.args["whens"].expressions}
    shown = [word for word in WORDS if word in clauses]
    names = [f"number of rows {WORDS[word]}" for word in shown]
    return rows(names, [[actions.count(word) for word in shown]], names, KIND)


def _conflicts(parsed: exp.Merge) -> exp.Select | None:
    """Asks for a row of the target that two rows of the source would change; deleting it twice is no matter."""
    matching = [when for when in parsed.args["whens"].expressions if when.args.get("matched")]
    if all(_action(when) == "DELETE" for when in matching):
        return None
    target = parsed.this
    conditions = [when.args.get("condition") for when in matching]
    found = exp.select("count(*)").from_(target.copy()).join(parsed.args["using"].copy(), on=parsed.args["on"].copy())
    if all(condition is not None for condition in conditions):
        found = found.where(exp.or_(*(condition.copy() for condition in conditions if condition is not None)))
    row = exp.column("rowid", table=target.alias_or_name)
    return found.group_by(row).having("count(*) > 1").limit(1)


def _action(when: exp.Expression) -> str:
    then = when.args["then"]
    return then.name.upper() if isinstance(then, exp.Var) else type(then).__name__.upper()
