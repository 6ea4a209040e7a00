"""The SQL that PostgreSQL is given, as text: names, types, and what its rows are asked for."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from ingestkit.ports import Bounds, TargetColumn

FENCES = "ingestkit_fence"
RECEIPTS = "ingestkit_receipt"
LONGEST_NAME = 63
"""In bytes: the server cuts longer names short without a word."""

PLAIN_TYPES: Mapping[str, str] = {
    "string": "text",
    "integer": "bigint",
    "float": "double precision",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
    "local_timestamp": "timestamp without time zone",
    # Not jsonb: it refuses \u0000, forgets which of two equal keys came first, and writes numbers anew.
    "json": "json",
}
LINEAGE_TYPES: Mapping[str, str] = {"_batch": "text", "_run_id": "text", "_source_file": "text", "_record_no": "bigint"}
INTEGER_DIGITS: Mapping[str, int] = {"smallint": 5, "integer": 10, "bigint": 19}
"""How many digits before the point a numeric needs to hold every value of the type."""
KEPT = {("jsonb", "json")}
"""Types that a person may have given a column, and those of contracts that they serve as."""


def name(*parts: str) -> str:
    """A quoted identifier, whatever its characters."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def names(columns: Iterable[str]) -> str:
    return ", ".join(name(column) for column in columns)


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def too_long(identifier: str) -> bool:
    return len(identifier.encode()) > LONGEST_NAME


def column_type(contract_type: str) -> str:
    """The type of a contract type, written as PostgreSQL itself writes it."""
    if plain := PLAIN_TYPES.get(contract_type):
        return plain
    return contract_type.replace(" ", "").replace("decimal", "numeric")


def column_types(columns: Iterable[TargetColumn], lineage: Iterable[str]) -> dict[str, str]:
    """The target's columns and their types, in order."""
    return {column.name: column_type(column.type) for column in columns} | {one: LINEAGE_TYPES[one] for one in lineage}


def serves(found: str, wanted: str) -> bool:
    return found == wanted or (found, wanted) in KEPT


def widens(found: str, wanted: str) -> bool:
    """Whether every value of type `found` is, unchanged, a value of type `wanted`."""
    if found in INTEGER_DIGITS and wanted in INTEGER_DIGITS:
        return INTEGER_DIGITS[found] <= INTEGER_DIGITS[wanted]
    if (found, wanted) == ("real", "double precision"):
        return True
    if wanted == "text":
        return re.fullmatch(r"character varying(\(\d+\))?", found) is not None
    into = _digits(wanted)
    out_of = (INTEGER_DIGITS[found], 0) if found in INTEGER_DIGITS else _digits(found)
    return into is not None and out_of is not None and into[0] >= out_of[0] and into[1] >= out_of[1]


def _digits(kind: str) -> tuple[int, int] | None:
    """The digits before and behind the point of a numeric."""
    exact = re.fullmatch(r"numeric\((\d+),(\d+)\)", kind)
    return (int(exact[1]) - int(exact[2]), int(exact[2])) if exact else None


def within(bounds: Bounds) -> str:
    """Whether a row lies in a window; one without a value lies in none."""
    kind = "timestamptz" if isinstance(bounds.low, datetime) else "date"
    column, low, high = name(bounds.column), *(f"{kind} {text(one.isoformat())}" for one in (bounds.low, bounds.high))
    return f"({column} >= {low} AND {column} < {high})"


def same_key(one: str, other: str, key: Iterable[str]) -> str:
    return " AND ".join(f"{one}.{name(column)} = {other}.{name(column)}" for column in key)


def delete_keys(target: str, gone: str, key: tuple[str, ...]) -> str:
    """Rows of the target whose key the other table has are removed."""
    return f"DELETE FROM {target} AS target USING {gone} AS gone WHERE {same_key('target', 'gone', key)}"


def delete_others(target: str, kept: str, key: tuple[str, ...]) -> str:
    """Rows of the target that have no key of the other table are removed."""
    same = same_key("target", "kept", key)
    return f"DELETE FROM {target} AS target WHERE NOT EXISTS (SELECT 1 FROM {kept} AS kept WHERE {same})"


def update_keys(target: str, stage: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    """Rows of a known key say what the stage says of it, in all columns named."""
    changed = ", ".join(f"{name(column)} = staged.{name(column)}" for column in columns if column not in key)
    return f"UPDATE {target} AS target SET {changed} FROM {stage} AS staged WHERE {same_key('target', 'staged', key)}"


def noting_met(update: str, met: str) -> str:
    """The UPDATE of `update_keys`, which writes into another table where in the stage the keys are that it knew."""
    return f"WITH known AS ({update} RETURNING staged.ctid AS place) INSERT INTO {met} SELECT place FROM known"


def insert_unmet(target: str, stage: str, columns: tuple[str, ...], met: str) -> str:
    """Rows of the stage that the UPDATE has not met are added."""
    return _insert_unless(target, stage, columns, f"SELECT FROM {met} AS met WHERE met.place = staged.ctid")


def insert_keys(target: str, stage: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    """Rows of the stage whose key the target does not have are added."""
    same = same_key("target", "staged", key)
    return _insert_unless(target, stage, columns, f"SELECT FROM {target} AS target WHERE {same}")


def _insert_unless(target: str, stage: str, columns: tuple[str, ...], there: str) -> str:
    shown = ", ".join(f"staged.{name(column)}" for column in columns)
    return f"INSERT INTO {target} ({names(columns)}) SELECT {shown} FROM {stage} AS staged WHERE NOT EXISTS ({there})"
