"""Writing whole rows: a row replaces a stored one only where that is not newer, so nothing ever moves back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Artifact, Completion, Drift, FileVersion, Quarantined
from ingestkit.states import tables

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

Insert: TypeAlias = "sqlite.Insert | postgresql.Insert"


def _insert(dialect: str, table: sql.Table) -> Insert:
    """An INSERT that knows ON CONFLICT, in the database's own dialect, and how many rows it wrote."""
    # Only the one at hand: that of PostgreSQL takes 20 ms to import.
    statement: Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return statement.execution_options(preserve_rowcount=True)


# Each row of a run is written by one of these: made anew each time, they took longer than the writing.
@cache
def _unless_newer(dialect: str, table: sql.Table, names: tuple[str, ...]) -> sql.Executable:
    return _or_update(dialect, table, names, unless_newer=True)


@cache
def _over(dialect: str, table: sql.Table, names: tuple[str, ...]) -> sql.Executable:
    return _or_update(dialect, table, names, unless_newer=False)


def _or_update(dialect: str, table: sql.Table, names: tuple[str, ...], *, unless_newer: bool) -> sql.Executable:
    keys = [column.name for column in table.primary_key.columns]
    statement = _insert(dialect, table)
    # The statement's own `excluded` is a copy of the whole table, and takes longer to make than to run it.
    excluded = sql.table("excluded", *(sql.column(name) for name in {*names, "token"})).c
    changes = {name: excluded[name] for name in names if name not in keys}
    where = table.c.token <= excluded.token if unless_newer else None
    return statement.on_conflict_do_update(index_elements=keys, set_=changes, where=where)


@cache
def _unless_there(dialect: str, table: sql.Table) -> sql.Executable:
    return _insert(dialect, table).on_conflict_do_nothing()


def put(conn: sql.Connection, table: sql.Table, row: Mapping[str, Any]) -> bool:
    """Write a whole row; False when the stored one carries a higher token and stays."""
    return conn.execute(_unless_newer(conn.dialect.name, table, tuple(row)), row).rowcount == 1


def put_anyway(conn: sql.Connection, table: sql.Table, *several: Mapping[str, Any]) -> None:
    """Write rows, or these columns of the stored ones, whatever their tokens."""
    if several:
        conn.execute(_over(conn.dialect.name, table, tuple(several[0])), several)


def put_absent(conn: sql.Connection, table: sql.Table, row: Mapping[str, Any]) -> bool:
    """Write a row only where none is stored."""
    return conn.execute(_unless_there(conn.dialect.name, table), row).rowcount == 1


@cache
def _adding(dialect: str, table: sql.Table, names: tuple[str, ...], replaced: tuple[str, ...]) -> sql.Executable:
    statement = _insert(dialect, table)
    excluded = sql.table("excluded", *(sql.column(name) for name in (*names, *replaced))).c
    changes = {name: table.c[name] + excluded[name] for name in names}
    changes |= {name: excluded[name] for name in replaced}
    keys = [column.name for column in table.primary_key.columns]
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)


def add(
    conn: sql.Connection, table: sql.Table, row: Mapping[str, Any], added: Sequence[str], replaced: Sequence[str]
) -> None:
    """Write a row, or where one is stored add these columns to its own and replace those."""
    conn.execute(_adding(conn.dialect.name, table, tuple(added), tuple(replaced)), row)


def put_file(conn: sql.Connection, file: FileVersion, at: datetime) -> bool:
    return put(conn, tables.file_manifest, _file_row(file, at))


def put_files(conn: sql.Connection, files: Sequence[FileVersion], at: datetime) -> None:
    """The same for some at once."""
    _put_several(conn, tables.file_manifest, [_file_row(file, at) for file in files])


def put_file_absent(conn: sql.Connection, file: FileVersion, at: datetime) -> bool:
    return put_absent(conn, tables.file_manifest, _file_row(file, at) | {"first_seen": file.sighted_at})


def put_artifacts(conn: sql.Connection, artifacts: Sequence[Artifact], at: datetime) -> None:
    _put_several(conn, tables.artifact, [one.to_json() | {"at": at} for one in artifacts])


def _put_several(conn: sql.Connection, table: sql.Table, several: Sequence[Mapping[str, Any]]) -> None:
    if several:
        conn.execute(_unless_newer(conn.dialect.name, table, tuple(several[0])), several)


def put_quarantined(conn: sql.Connection, row: Quarantined, at: datetime) -> bool:
    return put(conn, tables.quarantine, row.to_json() | {"at": at})


def put_completions(conn: sql.Connection, several: Sequence[Completion], at: datetime) -> None:
    _put_several(conn, tables.completion, [_completion_row(one, at) for one in several])


def put_completion_absent(conn: sql.Connection, row: Completion, at: datetime) -> bool:
    return put_absent(conn, tables.completion, _completion_row(row, at))


def put_drift(conn: sql.Connection, row: Drift, run: tuple[str, str, str], token: int, at: datetime) -> bool:
    """`run` is (run_id, pipeline, batch)."""
    run_id, pipeline, batch = run
    facts = {"run_id": run_id, "pipeline": pipeline, "batch": batch, "token": token, "at": at}
    return put(conn, tables.schema_drift, row.to_json() | facts)


def _completion_row(row: Completion, at: datetime) -> dict[str, Any]:
    return row.to_json() | {"window_end": row.window_end, "at": at}


def _file_row(file: FileVersion, at: datetime) -> dict[str, Any]:
    return file.to_json() | {"mtime": file.mtime, "sighted_at": file.sighted_at, "at": at}
