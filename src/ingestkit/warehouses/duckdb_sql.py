"""The SQL that DuckDB is given, as text: names, types, the rows to publish and the statements over them."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from ingestkit.ports import Bounds, Load, Rejects, Said, TargetColumn
from ingestkit.settings import FLAG, MARK

FENCES = "ingestkit_fence"
RECEIPTS = "ingestkit_receipt"

PLAIN_TYPES: Mapping[str, str] = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "local_timestamp": "TIMESTAMP",
    "json": "JSON",
}
IN_FILES: Mapping[str, str] = {"JSON": "VARCHAR"}
"""Types that valid files hold as another one."""
LINEAGE_TYPES: Mapping[str, str] = {
    "_batch": "VARCHAR",
    "_run_id": "VARCHAR",
    "_source_file": "VARCHAR",
    "_record_no": "BIGINT",
}
INTEGER_DIGITS: Mapping[str, int] = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
"""How many digits before the point a decimal needs to hold every value of the type."""

SOURCE_PATH = "_ingestkit_path"
AS_NAMED = "hive_partitioning=false"
READABLE = r"replace(coalesce(try(decode(raw)), raw::VARCHAR), chr(0), '\x00')"
"""A record's bytes as text: with escapes where they are none, and without what no warehouse takes in one."""
LONGEST_RAW = 1_000_000
"""Characters: a record may be longer than a text may be in some warehouses, and must not keep good rows out."""
RAW = f"left({READABLE}, {LONGEST_RAW}) || CASE WHEN length({READABLE}) > {LONGEST_RAW} THEN '…' ELSE '' END"


def name(*parts: str) -> str:
    """A quoted identifier, whatever its characters."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def names(columns: Iterable[str]) -> str:
    return ", ".join(name(column) for column in columns)


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def column_type(contract_type: str) -> str:
    """The DuckDB type of a contract type, written as DuckDB itself writes it."""
    if plain := PLAIN_TYPES.get(contract_type):
        return plain
    return contract_type.replace(" ", "").upper()


def column_types(columns: Iterable[TargetColumn], lineage: Iterable[str]) -> dict[str, str]:
    """The target's columns and their types, in order."""
    return {column.name: column_type(column.type) for column in columns} | {one: LINEAGE_TYPES[one] for one in lineage}


def widens(found: str, wanted: str) -> bool:
    """Whether every value of type `found` is, unchanged, a value of type `wanted`."""
    if found in INTEGER_DIGITS and wanted in INTEGER_DIGITS:
        return INTEGER_DIGITS[found] <= INTEGER_DIGITS[wanted]
    if (found, wanted) == ("FLOAT", "DOUBLE"):
        return True
    into = _digits(wanted)
    out_of = (INTEGER_DIGITS[found], 0) if found in INTEGER_DIGITS else _digits(found)
    return into is not None and out_of is not None and into[0] >= out_of[0] and into[1] >= out_of[1]


def _digits(duckdb_type: str) -> tuple[int, int] | None:
    """The digits before and behind the point of a decimal."""
    exact = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", duckdb_type)
    return (int(exact[1]) - int(exact[2]), int(exact[2])) if exact else None


def one_file(path: Path) -> str:
    """How a path is named to DuckDB so that it means this file alone."""
    # DuckDB takes every path for a pattern: a bracket in a folder's name would match other files.
    return text(re.sub(r"([*?\[])", r"[\1]", str(path.resolve())))


def file_list(paths: Iterable[Path]) -> str:
    return "[" + ", ".join(one_file(path) for path in paths) + "]"


def stage(load: Load, batch: str, run_id: str, absent: Collection[str] = ()) -> str:
    """A query over the load's files: the records that are to be published, with their lineage.

    `absent` are the columns that no file has.
    """
    if not load.files:
        return nothing(column_types(load.columns, load.lineage))
    records, source_file, file_id = _records(load)
    origin = {
        "_batch": text(batch),
        "_run_id": text(run_id),
        "_source_file": source_file,
        "_record_no": "record._record_no",
    }
    made = {column: f"NULL::VARCHAR AS {name(column)}" for column in absent}
    if load.marks is not None:
        made[MARK] = f"NULL::TIMESTAMP WITH TIME ZONE AS {name(MARK)}"
    if load.flags:
        made[FLAG] = f"{says_gone(load.flags, 'record.')} AS {name(FLAG)}"
    shown = [made.get(column.name, f"record.{name(column.name)}") for column in load.columns]
    shown += [f"{origin[column]} AS {name(column)}" for column in load.lineage]
    query = f"SELECT {', '.join(shown)} FROM {records}"
    if load.losers is None:
        return query
    return (
        f"{query} ANTI JOIN read_parquet({one_file(load.losers)}, hive_partitioning=false) AS loser "
        f"ON loser.file_id = {file_id} AND loser.record_no = record._record_no"
    )


def _records(load: Load) -> tuple[str, str, str]:
    """What the records are read from, and the name and the id of the file that each came from."""
    # A folder named a=b is no column: without hive_partitioning=false DuckDB would make it one.
    if len(load.files) == 1:
        [file] = load.files
        records = f"read_parquet({one_file(file.path)}, {AS_NAMED}) AS record"
        return records, text(file.source_file), text(file.file_id)
    files = ", ".join(
        f"({text(str(file.path.resolve()))}, {text(file.source_file)}, {text(file.file_id)})" for file in load.files
    )
    # By name only where files differ, since it opens each of them once more.
    by_name = ", union_by_name=true" if load.evolved else ""
    records = (
        f"read_parquet({file_list(file.path for file in load.files)}, {AS_NAMED}, filename='{SOURCE_PATH}'{by_name}) "
        f"AS record JOIN (VALUES {files}) AS file(path, source_file, file_id) ON file.path = record.{SOURCE_PATH}"
    )
    return records, "file.source_file", "file.file_id"


def removed(load: Load) -> str:
    """A query for the keys whose rows go, or are marked, before any is written; and with which time."""
    at = f", {name(load.marks)} AS {name(MARK)}" if load.marks is not None else ""
    return f"SELECT {names(load.key)}{at} FROM read_parquet({file_list(one.path for one in load.removed)}, {AS_NAMED})"


def rejects(said: Rejects, batch: str, run_id: str) -> str:
    """A query for what was rejected: a row for each reason of each record, with its lineage."""
    found = [f"SELECT path, record, line, raw, errors FROM read_parquet({file_list(said.files)}, {AS_NAMED})"]
    if said.losers is not None:
        found.append(
            "SELECT path, record_no AS record, line, NULL::BLOB AS raw, errors "
            f"FROM read_parquet({one_file(said.losers)}, {AS_NAMED})"
        )
    shown = [
        "line",
        *(f"error.{name(column)} AS {name(column)}" for column in ("column", "code", "message")),
        *([f"{RAW} AS raw"] if said.raw else []),
        f"{text(batch)} AS _batch",
        f"{text(run_id)} AS _run_id",
        "path AS _source_file",
        "record AS _record_no",
    ]
    each = " UNION ALL ".join(found if said.files else found[1:])
    if not each:
        types = column_types(said.columns, said.lineage)
        return nothing(types)
    return f"SELECT {', '.join(shown)} FROM (SELECT * EXCLUDE errors, unnest(errors) AS error FROM ({each}))"


def nothing(types: Mapping[str, str]) -> str:
    """A query for no rows of these columns."""
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {name(column)}" for column, kind in types.items())
    return f"SELECT {columns} WHERE false"


def keys_of(said: Said, key: Iterable[str]) -> str:
    """A query for the distinct keys that batches have spoken of."""
    paths = [file.path for file in said.files]
    read = f"read_parquet({file_list(paths)}, hive_partitioning=false, union_by_name=true, filename='{SOURCE_PATH}')"
    shown = names(key)
    if not said.losers:
        return f"SELECT DISTINCT {shown} FROM {read}"
    files = ", ".join(f"({text(str(file.path.resolve()))}, {text(file.file_id)})" for file in said.files)
    shown = ", ".join(f"record.{name(column)}" for column in key)
    return (
        f"SELECT DISTINCT {shown} FROM {read} AS record "
        f"JOIN (VALUES {files}) AS file(path, file_id) ON file.path = record.{SOURCE_PATH} "
        f"ANTI JOIN read_parquet({file_list(said.losers)}, hive_partitioning=false) AS loser "
        "ON loser.file_id = file.file_id AND loser.record_no = record._record_no"
    )


def without(rows: str, others: str, key: Iterable[str]) -> str:
    """The rows whose key the others do not have."""
    same = " AND ".join(f"one.{name(column)} = other.{name(column)}" for column in key)
    # Several times as fast as NOT EXISTS, and keeps rows whose key has a null as that does.
    return f"SELECT * FROM ({rows}) AS one ANTI JOIN ({others}) AS other ON {same}"


def says_gone(deletes: Mapping[str, tuple[str, ...]], of: str = "") -> str:
    """Whether a row says of its key that it is gone."""
    each = (
        f"coalesce(CAST({of}{name(column)} AS VARCHAR) IN ({', '.join(map(text, values))}), false)"
        for column, values in deletes.items()
    )
    return f"({' OR '.join(each)})"


def delete(target: str, rows: str, key: tuple[str, ...]) -> str:
    """Rows of the target whose key the others have are removed."""
    same = " AND ".join(f"target.{name(column)} = gone.{name(column)}" for column in key)
    return f"DELETE FROM {target} AS target USING (SELECT DISTINCT {names(key)} FROM ({rows})) AS gone WHERE {same}"


def delete_others(target: str, kept: str, key: tuple[str, ...]) -> str:
    """Rows of the target that have none of these keys are removed."""
    same = " AND ".join(f"target.{name(column)} = kept.{name(column)}" for column in key)
    return f"DELETE FROM {target} AS target WHERE NOT EXISTS (SELECT 1 FROM ({kept}) AS kept WHERE {same})"


def mark(target: str, rows: str, key: tuple[str, ...]) -> str:
    """Rows of the target whose key the others have get their mark."""
    same = " AND ".join(f"target.{name(column)} = gone.{name(column)}" for column in key)
    return f"UPDATE {target} AS target SET {name(MARK)} = gone.{name(MARK)} FROM ({rows}) AS gone WHERE {same}"


def within(bounds: Bounds) -> str:
    """Whether a row lies in a window; one without a value lies in none."""
    kind = "TIMESTAMPTZ" if isinstance(bounds.low, datetime) else "DATE"
    column, low, high = name(bounds.column), *(f"{kind} {text(one.isoformat())}" for one in (bounds.low, bounds.high))
    return f"coalesce({column} >= {low} AND {column} < {high}, false)"


def count(rows: str) -> str:
    return f"SELECT count(*) FROM ({rows})"


def key_facts(rows: str, key: tuple[str, ...]) -> str:
    """A query for (rows, rows whose key has a null, rows too many for their key)."""
    if not key:
        return f"SELECT count(*), 0, 0 FROM ({rows})"
    null = " OR ".join(f"{name(column)} IS NULL" for column in key)
    grouped = f"SELECT ({null}) AS has_null, count(*) AS n FROM ({rows}) GROUP BY {names(key)}"
    return (
        "SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(n) FILTER (WHERE has_null), 0)::BIGINT, "
        f"coalesce(sum(n - 1) FILTER (WHERE NOT has_null), 0)::BIGINT FROM ({grouped})"
    )


def insert(target: str, columns: tuple[str, ...], rows: str) -> str:
    return f"INSERT INTO {target} ({names(columns)}) SELECT {names(columns)} FROM ({rows})"


def merge(target: str, columns: tuple[str, ...], key: tuple[str, ...], rows: str) -> str:
    """Rows of a known key replace what the target says of it in all columns named; others are added."""
    same = " AND ".join(f"target.{name(column)} = staged.{name(column)}" for column in key)
    changed = ", ".join(f"{name(column)} = staged.{name(column)}" for column in columns if column not in key)
    added = ", ".join(f"staged.{name(column)}" for column in columns)
    return (
        f"MERGE INTO {target} AS target USING ({rows}) AS staged ON {same} "
        f"WHEN MATCHED THEN UPDATE SET {changed} "
        f"WHEN NOT MATCHED THEN INSERT ({names(columns)}) VALUES ({added})"
    )
