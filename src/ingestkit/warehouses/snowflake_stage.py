"""Rows from valid Parquet into files of a stage, and from there into tables: each file named, each row counted."""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError

from ingestkit.errors import WarehouseError
from ingestkit.warehouses import duckdb_sql, snowflake_misfit
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.publishing import Rows
from ingestkit.warehouses.snowflake_session import Account, answered, execute

PARALLEL = 4
"""How many files, or pieces of a large one, go up at once."""
FILE_FORMAT = {"USE_LOGICAL_TYPE": "TRUE", "BINARY_AS_TEXT": "FALSE"}
"""Without the first, dates and instants would come as the numbers they are kept as."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Files of a stage with the rows of a load, by name how many."""

    place: str
    files: Mapping[str, int]
    columns: tuple[str, ...]
    folder: Path
    """Where copies of them are, as long as the load lasts."""

    @property
    def rows(self) -> int:
        return sum(self.files.values())

    @property
    def copies(self) -> dict[str, Path]:
        return {name: self.folder / name for name in self.files}


@dataclass(frozen=True, slots=True)
class Staging:
    """Whose rows go through which part of the stage; it is emptied by who comes next."""

    account: Account
    connection: SnowflakeConnection
    engine: duckdb.DuckDBPyConnection
    folder: Path
    file_size: str
    part: str
    """`<pipeline>/<model>/<run>`, of a run's try its own."""

    def upload(self, rows: Rows, gone: str | None = None, *, marked: bool = False) -> Staged:
        """Write the rows, and of a merge the keys that go, into files, and the files into the stage."""
        self.folder.mkdir(parents=True)
        names = self.account.names
        shown = ", ".join(
            f"{duckdb_sql.name(column)} AS {duckdb_sql.name(names.spelled(column))}" for column in rows.columns
        )
        query = f"SELECT {shown} FROM ({rows.query})"
        if marked:
            query = f"SELECT *, false AS {duckdb_sql.name(sql.GONE)} FROM ({query})"
        if gone is not None:
            keys = ", ".join(
                f"{duckdb_sql.name(column)} AS {duckdb_sql.name(names.spelled(column))}" for column in rows.key
            )
            query += f" UNION ALL BY NAME SELECT DISTINCT {keys}, true AS {duckdb_sql.name(sql.GONE)} FROM ({gone})"
        self.engine.execute(
            f"COPY ({query}) TO {duckdb_sql.text(str(self.folder))} "
            f"(FORMAT parquet, COMPRESSION snappy, FILE_SIZE_BYTES '{self.file_size}', FILENAME_PATTERN 'part-{{i}}', "
            "OVERWRITE_OR_IGNORE true)"
        )
        counted = self.engine.execute(
            "SELECT file_name, num_rows FROM parquet_file_metadata("
            f"{duckdb_sql.file_list(sorted(self.folder.glob('*.parquet')))})"
        ).fetchall()
        files = {Path(path).name: rows for path, rows in counted}
        place = f"@{self.account.named(sql.STAGE)}/{self.part}/"
        if sum(files.values()):
            self._put(files, place)
        columns = (*rows.columns, sql.GONE) if marked else rows.columns
        return Staged(place, {name: rows for name, rows in files.items() if rows}, columns, self.folder)

    def _put(self, files: Mapping[str, int], place: str) -> None:
        told = execute(self.connection, sql.put(f"{self.folder}/*.parquet", place, PARALLEL))
        sent = {row["target"]: row["status"] for row in told}
        wrong = {name: sent.get(name, "not told of") for name in files if sent.get(name) != "UPLOADED"}
        if wrong:
            name, status = next(iter(wrong.items()))
            raise WarehouseError(
                f"{self.account.place}: {len(wrong)} of {len(files)} files did not come into the stage, "
                f"{name} among them ({status})",
                transient=True,
            )


def copy(
    account: Account, connection: SnowflakeConnection, table: str, types: Mapping[str, str], staged: Staged
) -> list[str]:
    """Load the files into a table, and prove of each that all its rows came; the ids of the queries."""
    columns = {account.names.one(column): types[column] for column in staged.columns}
    names, queries = sorted(staged.files), []
    for start in range(0, len(names), sql.MOST_FILES):
        some = names[start : start + sql.MOST_FILES]
        try:
            told = answered(connection, sql.copy(table, columns, staged.place, some, FILE_FORMAT))
        except DatabaseError as error:
            raise snowflake_misfit.of_copy(account, staged.copies, error) from error
        _compare(account, staged, some, told.rows)
        queries.append(told.query)
    return queries


def _compare(account: Account, staged: Staged, some: Sequence[str], told: Sequence[Mapping[str, Any]]) -> None:
    loaded = {
        str(row["file"]).rpartition("/")[2]: int(row["rows_loaded"])
        for row in told
        if row.get("status") == "LOADED" and "file" in row
    }
    for name in some:
        if loaded.get(name) != staged.files[name]:
            came = "it did not load" if name not in loaded else f"{loaded[name]} came"
            raise WarehouseError(
                f"{account.place}: of {name} with {staged.files[name]} rows {came}; nothing was published",
                transient=True,
            )


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for this publish alone, gone behind it."""
    own = folder / f"stage-{secrets.token_hex(6)}"
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
