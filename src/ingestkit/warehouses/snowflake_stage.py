"""Rows from valid Parquet into files of a stage, and from there into tables: each file named, each row counted."""

import glob
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode, safe_name
from ingestkit.ports import Publication
from ingestkit.warehouses import duckdb_sql, snowflake_misfit
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.publishing import Plan
from ingestkit.warehouses.snowflake_rights import OF_STAGE, Owned, owned_by_another, refuse_to_make
from ingestkit.warehouses.snowflake_session import Account, answered, execute
from ingestkit.warehouses.snowflake_upload import SparingCursor

GROUP = 4 * 2**20
"""So many bytes of rows, as their valid files hold them, are kept in memory until they are written."""
LEAST_GROUP, MOST_GROUP = 2048, 122_880
"""Rows; DuckDB hands them on by the first."""
FILE_FORMAT = {
    # Without it, dates and instants would come as the numbers they are kept as.
    "USE_LOGICAL_TYPE": "TRUE",
    "BINARY_AS_TEXT": "FALSE",
    "TRIM_SPACE": "FALSE",
    "REPLACE_INVALID_CHARACTERS": "FALSE",
    # By default a text of \\N is a NULL.
    "NULL_IF": "()",
}


@dataclass(frozen=True, slots=True)
class Staged:
    """Files of a stage with the rows of a load."""

    table: str
    """Whose rows they are, as settings name it."""
    place: str
    """`@stage/path/`, below which they lie."""
    files: Mapping[str, int]
    """By name, how many rows."""
    columns: tuple[str, ...]
    copies: Mapping[str, Path]
    """By name, where each can be read here as long as the load lasts."""
    format: Mapping[str, str]

    @property
    def rows(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Sending:
    """What goes into a stage: whose it is, and where to."""

    publication: Publication
    model: str
    place: str
    """`@stage/`, as it was cleared."""
    path: str
    """`<pipeline>/<model>/<run>`: of each try its own, so that nothing there was ever loaded."""

    @classmethod
    def of(cls, publication: Publication, model: str, place: str) -> "Sending":
        run = f"{safe_name(publication.run_id)}.{publication.token}.{secrets.token_hex(6)}"
        return cls(publication, model, place, f"{safe_name(publication.pipeline)}/{safe_name(model)}/{run}")


class Stage(Protocol):
    """Where files wait for COPY: what is left of others there is emptied by who comes next."""

    def check(self, connection: SnowflakeConnection, role: str) -> None:
        """Prove that the account reads from there; make it where it is missing and ours."""
        ...

    def look(self, connection: SnowflakeConnection, role: str) -> None:
        """The same as far as nothing is made by that."""
        ...

    def clear(self, connection: SnowflakeConnection, publication: Publication) -> str:
        """Empty what is these models': whoever was there before is done with it, or dead. The place, as `@stage/`."""
        ...

    def send(
        self, connection: SnowflakeConnection, to: Sending, folder: Path, parallel: int
    ) -> tuple[str, Mapping[str, Path]]:
        """Bring all files of a folder there; below what they lie, and where each is read here."""
        ...

    def done(self, connection: SnowflakeConnection, publication: Publication) -> None:
        """What was sent is loaded; never an error."""
        ...


@dataclass(frozen=True, slots=True)
class OwnStage:
    """A stage of the schema's own, within the account: files are PUT there."""

    account: Account

    def check(self, connection: SnowflakeConnection, role: str) -> None:
        if not self._there(connection, role):
            execute(connection, f"CREATE STAGE IF NOT EXISTS {self.account.named(sql.STAGE)}")

    def look(self, connection: SnowflakeConnection, role: str) -> None:
        """Where it is missing it will be made."""
        if not self._there(connection, role):
            refuse_to_make(self.account, "CREATE STAGE")

    def _there(self, connection: SnowflakeConnection, role: str) -> bool:
        """Refused where it is another role's, which does not let this one use it."""
        like = sql.text(self.account.names.spelled(sql.STAGE))
        found = execute(connection, f"SHOW STAGES LIKE {like} IN SCHEMA {self.account.named()}")
        for row in found:
            owned_by_another(self.account, connection, role, Owned("STAGE", sql.STAGE, row["owner"]), OF_STAGE)
        return bool(found)

    def clear(self, connection: SnowflakeConnection, publication: Publication) -> str:
        pipeline, place = safe_name(publication.pipeline), f"@{self.account.named(sql.STAGE)}/"
        models = "|".join(re.escape(safe_name(load.intent.model)) for load in publication.loads)
        parts = f".*{re.escape(pipeline)}/({models})/.*"
        execute(connection, f"REMOVE {sql.text(f'{place}{pipeline}/')} PATTERN = {sql.text(parts)}")
        return place

    def send(
        self, connection: SnowflakeConnection, to: Sending, folder: Path, parallel: int
    ) -> tuple[str, Mapping[str, Path]]:
        files = {path.name: path for path in folder.glob("*.parquet")}
        place = f"{to.place}{to.path}/"
        # The connector takes what it is given for a pattern.
        pattern = f"{glob.escape(str(folder))}/*.parquet"
        told = answered(connection, sql.put(pattern, place, parallel), by=SparingCursor)
        sent = {row["target"]: row["status"] for row in told.rows}
        wrong = {name: sent.get(name, "not told of") for name in files if sent.get(name) != "UPLOADED"}
        if wrong:
            name, status = next(iter(wrong.items()))
            raise WarehouseError(
                f"{self.account.place}: {len(wrong)} of {len(files)} files did not come into the stage, "
                f"{name} among them ({status})",
                hint="run again; where it stays so: ingestkit check",
                transient=True,
            )
        return place, files

    def done(self, connection: SnowflakeConnection, publication: Publication) -> None:
        """It would be one more statement for what the next load does anyway."""


def written(
    engine: duckdb.DuckDBPyConnection, names: sql.Names, folder: Path, plan: Plan, file_size: str
) -> dict[str, int]:
    """Write the rows of a plan, and of a merge the keys that go, into files of a size; how many rows each has."""
    rows, marked = plan.rows, plan.load.intent.mode is LoadMode.MERGE
    query = f"SELECT {_spelled(names, rows.columns)} FROM ({rows.query})"
    if marked:
        query = f"SELECT *, false AS {duckdb_sql.name(sql.GONE)} FROM ({query})"
    if plan.gone is not None:
        keys = _spelled(names, rows.key)
        query += f" UNION ALL BY NAME SELECT DISTINCT {keys}, true AS {duckdb_sql.name(sql.GONE)} FROM ({plan.gone})"
    # What an attempt left that took more memory than it was given.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    [[threads]] = engine.execute("SELECT current_setting('threads')").fetchall()
    # Each thread would keep rows of its own, and is no faster for it.
    engine.execute("SET threads = 1")
    engine.execute(
        f"COPY ({query}) TO {duckdb_sql.text(str(folder))} "
        f"(FORMAT parquet, COMPRESSION snappy, FILE_SIZE_BYTES '{file_size}', "
        f"ROW_GROUP_SIZE {_group(plan, file_size)}, FILENAME_PATTERN 'part-{{i}}', OVERWRITE_OR_IGNORE true)"
    )
    engine.execute(f"SET threads = {threads}")
    files = duckdb_sql.file_list(sorted(folder.glob("*.parquet")))
    counted = engine.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata({files})").fetchall()
    return {Path(path).name: rows for path, rows in counted}


def _group(plan: Plan, file_size: str) -> int:
    """How many rows are written at once, and a file is cut between: fewer where they are wide."""
    rows = sum(file.rows for file in plan.load.files)
    size = sum(file.path.stat().st_size for file in plan.load.files)
    whole = int(file_size.removesuffix("MiB").removesuffix("MB")) * 10**6
    return max(LEAST_GROUP, min(MOST_GROUP, min(GROUP, whole // 8) * rows // max(1, size)))


def _spelled(names: sql.Names, columns: Iterable[str]) -> str:
    return ", ".join(f"{duckdb_sql.name(column)} AS {duckdb_sql.name(names.spelled(column))}" for column in columns)


def copy(
    account: Account, connection: SnowflakeConnection, table: str, types: Mapping[str, str], staged: Staged
) -> list[str]:
    """Load the files into a table, and prove of each that all its rows came; the ids of the queries."""
    columns = {account.names.one(column): types[column] for column in staged.columns}
    names, queries = sorted(staged.files), []
    for start in range(0, len(names), sql.MOST_FILES):
        some = names[start : start + sql.MOST_FILES]
        try:
            told = answered(connection, sql.copy(table, columns, staged.place, some, staged.format))
        except DatabaseError as error:
            files = [*staged.copies.values()]
            raise snowflake_misfit.found(account, connection, table, staged.table, files, error) from error
        _compare(account, staged, some, told.rows)
        queries.append(told.query)
    return queries


def _compare(account: Account, staged: Staged, some: Sequence[str], told: Sequence[Mapping[str, Any]]) -> None:
    loaded = {
        str(row["file"]).rpartition("/")[2]: int(row["rows_loaded"])
        for row in told
        if str(row.get("status")).upper() == "LOADED" and "file" in row
    }
    for name in some:
        if loaded.get(name) != staged.files[name]:
            came = "it did not load" if name not in loaded else f"{loaded[name]} came"
            raise WarehouseError(
                f"{account.place}: of {name} with {staged.files[name]} rows {came}; nothing was published",
                hint="run again: its files are written anew (the account's history has the query under the run's id)",
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
