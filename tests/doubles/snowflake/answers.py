"""What the double says, in the words of Snowflake's wire: rows, statuses and errors."""

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa
from fakesnow.arrow import to_ipc, to_sf
from fakesnow.rowtype import ColumnInfo

NUMBERS: Final = re.compile(r"DECIMAL\((\d+),(\d+)\)|(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?")
# The most digits of a number that takes so many bytes.
DIGITS: Final = {2: 4, 4: 9, 8: 18, 16: 38}

Data = dict[str, Any]
"""What stands below `data` in an answer."""


class Refused(Exception):
    """A statement or a login that fails, by Snowflake's code, SQLSTATE and message."""

    def __init__(self, code: int, state: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.state = state
        self.message = message

    @property
    def body(self) -> Data:
        code = f"{self.code:06d}"
        said = {"errorCode": code, "sqlState": self.state}
        return {"success": False, "code": code, "message": self.message, "data": said}


def compilation(message: str, code: int = 1003, state: str = "42000") -> Refused:
    return Refused(code, state, f"SQL compilation error:\n{message}")


def missing(kind: str, name: str) -> Refused:
    return compilation(f"{kind} '{name}' does not exist or not authorized.", 2003, "02000")


def hidden(kind: str, name: str) -> Refused:
    """Something has the name that is to be made, and its owner lets this role see nothing of it."""
    said = f"{kind} '{name}' already exists, but current role has no privileges on it."
    return compilation(f"{said} If this is unexpected, contact your system administrator.", 3041, "42710")


def unprivileged(kind: str, name: str) -> Refused:
    said = f"SQL access control error:\nInsufficient privileges to operate on {kind.lower()} '{name}'"
    return Refused(3001, "42501", said)


def fixed(kind: str, *, nullable: bool = True) -> str | None:
    """A type of numbers as messages of values name it; none for others."""
    found = NUMBERS.fullmatch(kind)
    if found is None:
        return None
    digits, scale = int(found[1] or 38), int(found[2] or 0)
    size = next(size for size, most in DIGITS.items() if digits <= most)
    return f"FIXED[SB{size}]({digits},{scale}){{{'nullable' if nullable else 'not null'}}}"


def told(status: str) -> Data:
    return rows(("status",), [(status,)])


def rows(names: Sequence[str], values: Iterable[Sequence[object]], numbers: Sequence[str] = (), kind: int = 0) -> Data:
    """A result of text, but for the columns that are said to hold whole numbers."""
    said = [[None if value is None else str(value) for value in row] for row in values]
    types = [_column(name, "fixed" if name in numbers else "text") for name in names]
    return {
        "rowtype": types,
        "rowset": said,
        "queryResultFormat": "json",
        "total": len(said),
        "returned": len(said),
        "statementTypeId": kind,
    }


def table(found: pa.Table, types: list[ColumnInfo], kind: int) -> Data:
    """The result of a query."""
    return {
        "rowtype": types,
        "rowsetBase64": base64.b64encode(to_ipc(_with_nulls(to_sf(found, types), found))).decode(),
        "queryResultFormat": "arrow",
        "total": found.num_rows,
        "returned": found.num_rows,
        "statementTypeId": kind,
    }


def _with_nulls(said: pa.Table, found: pa.Table) -> pa.Table:
    """fakesnow makes 1970 of an instant that is NULL."""
    for place, column in enumerate(said.columns):
        if pa.types.is_struct(column.type) and found.column(place).null_count:
            whole = column.combine_chunks()
            whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
            nulls = found.column(place).combine_chunks().is_null()
            parts = [whole.field(part.name) for part in whole.type]
            masked = pa.StructArray.from_arrays(parts, fields=list(whole.type), mask=nulls)
            said = said.set_column(place, said.schema.field(place), masked)
    return said


def shortened(told: Data, missing: int) -> Data:
    """What COPY answers, as if of the last file so many rows were missing; without a number it is not told of."""
    *others, last = told["rowset"]
    place = [one["name"] for one in told["rowtype"]].index("rows_loaded")
    kept = [[*last[:place], str(int(last[place]) - missing), *last[place + 1 :]]] if missing else []
    return {**told, "rowset": [*others, *kept], "total": len(others) + len(kept), "returned": len(others) + len(kept)}


def _column(name: str, kind: str) -> Data:
    size = 16_777_216 if kind == "text" else None
    return {
        "name": name,
        "type": kind,
        "nullable": True,
        "length": size,
        "byteLength": size,
        "precision": 38 if kind == "fixed" else None,
        "scale": 0 if kind == "fixed" else None,
        "database": "",
        "schema": "",
        "table": "",
        "collation": None,
    }
