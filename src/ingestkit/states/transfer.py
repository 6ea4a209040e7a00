"""The whole state as lines of JSON: out of one database, and into another that holds nothing yet."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NoReturn, TypeAlias

import sqlalchemy as sql
from sqlalchemy.exc import DataError, IntegrityError

from ingestkit.errors import StateError
from ingestkit.states import tables
from ingestkit.states.engine import UPGRADE, StateDatabase

Line: TypeAlias = dict[str, Any]

KIND = "state of ingestkit"
WHOLE = "ingestkit state export --to FILE writes a whole one"
ROWS = 1000
TABLES: Mapping[str, sql.Table] = {
    table.name: table for table in tables.metadata.sorted_tables if table is not tables.version
}
NOBODY = dict.fromkeys(("owner", "command", "since", "beat", "expires", "wanted_at"))
"""Who works with the one state does not work with the other: its leases are free there."""


def exported(db: StateDatabase, at: datetime) -> Iterator[str]:
    """The state at one moment: a line that says what it is, one for each row, and one by which a cut file is known."""
    digest = hashlib.sha256()
    counts = dict.fromkeys(TABLES, 0)

    def line(content: Line) -> str:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
        digest.update(text.encode())
        return text

    with db.read() as conn:
        yield line({"kind": KIND, "version": tables.HEAD, "at": _said(at), "database": db.place})
        for name, table in TABLES.items():
            asked = sql.select(table).order_by(*table.primary_key.columns).execution_options(yield_per=ROWS)
            rows = conn.execute(asked)
            for row in rows.mappings():
                counts[name] += 1
                yield line({"table": name, "row": {column: _said(value) for column, value in row.items()}})
    yield json.dumps({"kind": "end", "rows": counts, "sha256": digest.hexdigest()}) + "\n"


def imported(db: StateDatabase, lines: Iterable[bytes], source: str) -> Mapping[str, int]:
    """Put an exported state into an empty one, whole or not at all; how many rows of each table."""
    with db.write() as conn:
        held = [
            name
            for name, table in TABLES.items()
            if conn.execute(sql.select(sql.exists().select_from(table))).scalar_one()
        ]
        if held:
            raise StateError(
                f"state database {db.place} is not empty: it holds rows of {', '.join(held)}",
                hint="name an empty database in state.url, or in the profile",
            )
        counts = dict.fromkeys(TABLES, 0)
        rows = _rows(lines, source)
        try:
            while several := list(islice(rows, ROWS)):
                for name, table in TABLES.items():
                    if found := [row for other, row in several if other == name]:
                        conn.execute(sql.insert(table), found)
                        counts[name] += len(found)
        except (DataError, IntegrityError) as error:
            told = " ".join(str(error.orig).split())
            raise StateError(f"{source} holds a row that is none of a state ({told})", hint=WHOLE) from error
    return counts


def _rows(lines: Iterable[bytes], source: str) -> Iterator[tuple[str, Line]]:
    """Each row with its table's name; at its end the file has proven to be whole."""
    digest = hashlib.sha256()
    counts = dict.fromkeys(TABLES, 0)
    for number, text in enumerate(lines, 1):
        line = _parsed(text, number, source)
        if number == 1:
            _expect_head(line, source)
        elif line.get("kind") == "end":
            if line != {"kind": "end", "rows": counts, "sha256": digest.hexdigest()}:
                _refuse(source, "is not what was exported: rows were changed, added or lost")
            return
        else:
            name, row = _row(line, number, source)
            counts[name] += 1
            yield name, row
        digest.update(text)
    _refuse(source, "is cut off: it does not say how many rows it has")


def _parsed(text: bytes, number: int, source: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        _refuse(source, f"is no export of a state: line {number} is not a JSON object")
    return line


def _expect_head(line: Line, source: str) -> None:
    if line.get("kind") != KIND:
        _refuse(source, "is no export of a state")
    if line.get("version") != tables.HEAD:
        raise StateError(
            f"{source} was exported from a state of version {line.get('version')}; this ingestkit's is {tables.HEAD}",
            hint=f"{UPGRADE}, on the state it came from; then export it again",
        )


def _row(line: Line, number: int, source: str) -> tuple[str, Line]:
    name, row = line.get("table"), line.get("row")
    table = TABLES.get(str(name))
    if table is None or not isinstance(row, dict) or row.keys() != set(table.columns.keys()):
        _refuse(source, f"is no export of this version: line {number} is no row of its tables")
    try:
        found = {column.name: _read(column, row[column.name]) for column in table.columns}
    except (TypeError, ValueError):
        _refuse(source, f"is no export of this version: line {number} holds no date where one should be")
    return table.name, found | NOBODY if table is tables.lease else found


def _read(column: sql.Column[Any], value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(column.type, tables.Instant) and value is not None else value


def _said(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _refuse(source: str, told: str) -> NoReturn:
    raise StateError(f"{source} {told}", hint=WHOLE)
