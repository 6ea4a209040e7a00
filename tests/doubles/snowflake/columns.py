"""The columns of a table: what each takes, and what it does not."""

from dataclasses import dataclass

import duckdb

from tests.doubles.snowflake.answers import compilation
from tests.doubles.snowflake.engine import home
from tests.doubles.snowflake.reading import Name, dotted, literal


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and what a file has for it."""

    name: str
    type: str
    nullable: bool
    length: int | None

    def wrong(self, source: str) -> dict[str, str]:
        """What may be wrong with a value, each as a condition, by the message that says so."""
        found = {f"Failed to cast value '{{}}' to {self.type}": f"{source} IS NOT NULL AND {self.cast(source)} IS NULL"}
        if self.length is not None:
            too_long = f"length({self.cast(source)}) > {self.length}"
            found[f"User character length limit ({self.length}) exceeded by string '{{}}'"] = too_long
        if not self.nullable:
            found[f"NULL result in a non-nullable column '{self.name}'"] = f"{source} IS NULL"
        return found

    def cast(self, source: str) -> str:
        # A text stays a text in a VARIANT; nobody parses it.
        return f"to_json({source})" if self.type == "JSON" else f"TRY_CAST({source} AS {self.type})"


def columns_of(duck: duckdb.DuckDBPyConnection, table: Name) -> dict[str, Column]:
    """Those of a table by their names, in its order."""
    database, schema, name = (literal(part) for part in home(duck, table))
    here = f"database_name = {database} AND schema_name = {schema} AND table_name = {name}"
    sizes = "_fs_global._fs_information_schema._fs_columns_ext"
    asked = f"""
        SELECT column_name, data_type, is_nullable, ext_character_maximum_length FROM duckdb_columns()
        LEFT JOIN {sizes} ON ext_table_catalog = database_name AND ext_table_schema = schema_name
            AND ext_table_name = table_name AND ext_column_name = column_name
        WHERE {here} ORDER BY column_index
    """
    found = {row[0]: Column(*row) for row in duck.execute(asked).fetchall()}
    if not found:
        raise compilation(f"Table '{dotted(table)}' does not exist or not authorized.", 2003, "02000")
    return found
