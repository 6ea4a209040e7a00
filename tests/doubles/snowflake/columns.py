"""The columns of a table: what each takes, and what it does not."""

from dataclasses import dataclass

import duckdb

from tests.doubles.snowflake.answers import compilation, fixed
from tests.doubles.snowflake.engine import home
from tests.doubles.snowflake.reading import Name, dotted, literal


@dataclass(frozen=True, slots=True)
class Wrong:
    """What may be wrong with a value, and how the service says it; `{}` stands for the value."""

    condition: str
    code: int
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and what a file has for it."""

    name: str
    type: str
    nullable: bool
    length: int | None

    def wrong(self, source: str, file: str = "") -> list[Wrong]:
        """What may be wrong with what a kind of file has. Messages quote texts, and nothing else."""
        broken = f"{source} IS NOT NULL AND {self.cast(source)} IS NULL"
        text = f"typeof({source}) = 'VARCHAR'"
        found = [Wrong(f"{text} AND {broken}", *self._unread(file, '"{}"'))]
        if (number := fixed(self.type, nullable=self.nullable)) is not None:
            said = f"Number out of representable range: type {number}, value {{}}"
            found.append(Wrong(f"NOT {text} AND {broken}", 100_046, "22003", said))
        else:
            found.append(Wrong(f"NOT {text} AND {broken}", *self._unread(file, "{}")))
        if self.length is not None:
            said = f"User character length limit ({self.length}) exceeded by string '{{}}'"
            found.append(Wrong(f"length({self.cast(source)}) > {self.length}", 100_078, "22000", said))
        if not self.nullable:
            said = f"NULL result in a non-nullable column '{self.name}'"
            found.append(Wrong(f"{source} IS NULL", 100_072, "22000", said))
        return found

    def _unread(self, file: str, value: str) -> tuple[int, str, str]:
        """Of what is no text in the file, the service casts variants."""
        number = fixed(self.type) is not None
        if file == "CSV" and number:
            return 100_038, "22018", "Numeric value '{}' is not recognized"
        if file == "CSV":
            return 100_035, "22007", f"{self.type.split()[0].capitalize()} '{{}}' is not recognized"
        kind = "FIXED" if number else "REAL" if self.type == "DOUBLE" else self.type
        return 100_071, "22000", f"Failed to cast variant value {value} to {kind}"

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
