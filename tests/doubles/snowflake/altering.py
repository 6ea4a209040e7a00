"""ALTER COLUMN ... TYPE, as far as Snowflake makes it: longer texts, and more digits before the point."""

import re
from typing import Final

from fakesnow.cursor import FakeSnowflakeCursor

from tests.doubles.snowflake.answers import compilation
from tests.doubles.snowflake.columns import Column, columns_of
from tests.doubles.snowflake.reading import NAME, QUALIFIED, Name, Statement, resolved

ALTERED: Final = re.compile(
    rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?{QUALIFIED}\s+(?:ALTER|MODIFY)\s+(?:COLUMN\s+)?(?P<column>{NAME})\s+"
    r"(?:SET\s+DATA\s+)?TYPE\s+(?P<type>.+)",
    re.IGNORECASE | re.DOTALL,
)
LONGEST: Final = 16_777_216


def look(cursor: FakeSnowflakeCursor, asked: Statement, target: Name) -> None:
    """Raises where it would be made of another type than what it is, but for a longer one of the same."""
    found = ALTERED.match(asked.text)
    if found is None:
        return
    name, wanted = resolved(found["column"], "", "")[2], found["type"].upper().replace(" ", "")
    column = columns_of(cursor._duck_conn, target)[name]
    if not (_longer(column, wanted) or _more_digits(column, wanted)):
        said = f"cannot change column {name} from type {column.type}({column.length}) to {wanted}"
        raise compilation(said, 2108, "22000")


def _longer(column: Column, wanted: str) -> bool:
    said = re.fullmatch(r"(?:VARCHAR|TEXT|STRING)(?:\((\d+)\))?", wanted)
    return said is not None and column.type == "VARCHAR" and int(said[1] or LONGEST) >= (column.length or 0)


def _more_digits(column: Column, wanted: str) -> bool:
    said = re.fullmatch(r"(?:NUMBER|DECIMAL|NUMERIC)\((\d+),(\d+)\)", wanted)
    there = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", column.type)
    return bool(said and there and int(said[1]) >= int(there[1]) and said[2] == there[2])
