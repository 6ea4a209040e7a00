"""Rows from valid Parquet into PostgreSQL: DuckDB writes CSV into a pipe, and COPY takes it out in blocks.

Neither side holds more than a few blocks, and no row is touched in Python.
"""

import fcntl
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import duckdb
import psycopg

from ingestkit.warehouses import duckdb_sql, postgresql_sql
from ingestkit.warehouses.publishing import Rows

BLOCK = 1 << 20
# An empty text is quoted, and so told from a missing one, which is nothing between commas.
AS_WRITTEN = "FORMAT csv, HEADER false, NULLSTR '', USE_TMP_FILE false"


def copy_rows(
    engine: duckdb.DuckDBPyConnection, connection: psycopg.Connection[Any], table: str, rows: Rows, *, freeze: bool
) -> int:
    """Copy rows into the columns of a table; how many the server took."""
    # What a file calls its column may differ in case from what the table does: only the order counts.
    query = f"SELECT {duckdb_sql.names(rows.columns)} FROM ({rows.query})"
    columns = postgresql_sql.names(rows.columns)
    # A line of \. alone would end what is copied.
    quoted = ", FORCE_QUOTE *" if len(rows.columns) == 1 else ""
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, ENCODING 'UTF8'{', FREEZE' if freeze else ''})"
    out, into = _pipe()
    with os.fdopen(out, "rb", buffering=0) as stream, ThreadPoolExecutor(1, "copy") as pool:
        writing = pool.submit(_write, engine, f"COPY ({query}) TO '/dev/fd/{into}' ({AS_WRITTEN}{quoted})", into)
        try:
            with connection.cursor() as cursor:
                with cursor.copy(statement) as copy:
                    while block := stream.read(BLOCK):
                        copy.write(block)
                    # Within the block: rows that were not all written are taken back, and not counted.
                    writing.result()
                return cursor.rowcount
        finally:
            # Who writes into a pipe that nobody reads from is told so; who has not come to writing is stopped.
            stream.close()
            if not writing.done():
                engine.interrupt()


def _pipe() -> tuple[int, int]:
    """A pipe that holds a block, where the system has such: the two sides take turns less often."""
    out, into = os.pipe()
    if sys.platform == "linux":
        # Who has many pipes may be refused a large one.
        with suppress(PermissionError):
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, BLOCK)
    return out, into


def _write(engine: duckdb.DuckDBPyConnection, statement: str, into: int) -> None:
    """Write the rows into a pipe. It ends here whatever happens, so that nobody waits for what will not come."""
    try:
        engine.execute(statement)
    finally:
        os.close(into)
