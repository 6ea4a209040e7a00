"""A value that a table of Snowflake's does not take: whose it is, of which record of which source file.

Valid rows fit their contract, so somebody has made the table narrower, or asks more of it. No cell value shows here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError, Error

from ingestkit.errors import WarehouseError
from ingestkit.warehouses import duckdb_sql
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_session import Account, execute, plainly

PLACE = re.compile(r"File '(?P<file>[^']+)'")
TYPES = "look at the column there and in the contract: ingestkit plan"
ENDLESS = (
    f"a text of more than {sql.LONGEST_TEXT} characters needs a `max_length` in its contract, of {sql.LONGEST_OF_ALL} "
    "at most; a smaller one rejects the record"
)
OF_DATA = range(100_000, 101_000)
"""The numbers of errors that values bring about."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Where a value stands that does not fit: in a staged file, and in the source where rows tell of theirs."""

    staged: str
    row: int | None
    column: str | None
    source: str | None = None
    record: int | None = None
    kind: str = ""
    """The type of the column, as the table tells it."""

    @property
    def place(self) -> str:
        if self.source is not None and self.record is not None:
            return f"record {self.record} of {self.source}"
        return self.staged if self.row is None else f"row {self.row} of {self.staged}"


def found(
    account: Account,
    connection: SnowflakeConnection,
    table: str,
    whose: str,
    files: Sequence[Path],
    error: DatabaseError,
) -> Exception:
    """The first record among those staged that the table does not take; an error that is of no value as it was.

    `whose` is the target's name as settings say it: what refuses may be what is merged from.
    COPY counts rows and columns of what it reads, in ways of its own, and MERGE names none: both are looked for here.
    """
    if error.errno not in OF_DATA:
        return error
    said = " ".join((error.raw_msg or error.msg or "").split())
    place = PLACE.search(said)
    misfit = _first(files, _described(connection, table))
    if misfit is None and place is not None:
        misfit = Misfit(place["file"], None, None)
    return (
        error if misfit is None else _refusal(account, whose, misfit, said[: place.start()] if place else said, error)
    )


def _described(connection: SnowflakeConnection, table: str) -> list[dict[str, Any]]:
    """The columns of a table; none where it does not tell, since what it refused is what there is to say."""
    try:
        # DESCRIBE commits what is open, as all DDL does.
        execute(connection, "ROLLBACK")
        return execute(connection, f"DESCRIBE TABLE {table}")
    except Error:
        return []


def _refusal(account: Account, whose: str, misfit: Misfit, said: str, error: DatabaseError) -> WarehouseError:
    reason, column = plainly(said), misfit.column or "a column"
    made = WarehouseError(
        f"{account.place}: table {whose}: {column} does not take a value of {misfit.place}: {reason} "
        f"(query {error.sfqid}); nothing was published",
        hint=ENDLESS if sql.characters(misfit.kind) == sql.LONGEST_TEXT else TYPES,
    )
    made.details = {
        "table": whose,
        "file": misfit.source,
        "record": misfit.record,
        "column": misfit.column,
        "message": reason,
        "staged_file": misfit.staged,
        "staged_row": misfit.row,
        "query": error.sfqid,
    }
    return made


def _lineage(path: Path, row: int) -> tuple[str | None, int | None]:
    """File and record of a staged row, where it tells."""
    with duckdb.connect() as engine:
        answer = engine.execute(f"SELECT * FROM read_parquet({duckdb_sql.one_file(path)}) LIMIT 1 OFFSET {row - 1}")
        names = [column[0].casefold() for column in answer.description or ()]
        known = dict(zip(names, answer.fetchone() or (), strict=False))
    return known.get("_source_file"), known.get("_record_no")


def _first(files: Sequence[Path], described: Sequence[Mapping[str, Any]]) -> Misfit | None:
    with duckdb.connect() as engine:
        read = f"read_parquet({duckdb_sql.file_list(files)}, filename = true, file_row_number = true)"
        here = {column[0] for column in engine.execute(f"SELECT * FROM {read} LIMIT 0").description or ()}
        for column in described:
            if column["name"] not in here or not (wrong := _wrong(column)):
                continue
            meant = f" AND NOT {duckdb_sql.name(sql.GONE)}" if sql.GONE in here else ""
            asked = f"SELECT filename, file_row_number FROM {read} WHERE ({' OR '.join(wrong)}){meant} LIMIT 1"
            if (found := engine.execute(asked).fetchone()) is not None:
                path, row = Path(found[0]), int(found[1]) + 1
                return Misfit(path.name, row, column["name"], *_lineage(path, row), str(column["type"]))
    return None


def _wrong(column: Mapping[str, Any]) -> list[str]:
    """What a value of a described column must not be, as DuckDB asks it."""
    name, kind = duckdb_sql.name(column["name"]), str(column["type"])
    conditions = [f"{name} IS NULL"] if column.get("null?") == "N" else []
    if (most := sql.characters(kind)) is not None:
        conditions.append(f"length({name}::VARCHAR) > {most}")
    elif (exact := re.fullmatch(r"NUMBER\((\d+),(\d+)\)", kind)) is not None:
        fits = f"TRY_CAST({name} AS DECIMAL({exact[1]},{exact[2]}))"
        conditions.append(f"({name} IS NOT NULL AND {fits} IS NULL)")
    return conditions
