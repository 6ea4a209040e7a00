"""A pipeline file proposed from samples, for a person to edit: dialect, types, required columns, key, lengths."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import yaml

from ingestkit.columnsql import quoted, value_of
from ingestkit.errors import ContractError, UsageError
from ingestkit.sampling import sampled
from ingestkit.settings import Column

WORDS = ("true", "false", "yes", "no", "y", "n", "t", "f")
FORMATS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%d-%b-%Y", "%Y/%m/%d")
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 10_000, 100_000)
LONGEST_NUMBER = 15
"""Whole numbers of more digits are names of things, and are kept as text."""
FEW, OFTEN = 8, 10
"""So few values, each as often as that, are taken for a list."""
OBJECTS = """\
# config/pipelines/{name}.yaml
pipeline: {name}
source: {{type: vault, connection: {connection}}}  # its newest full archive, then what has changed, in order
tables: {{removed: drop}}  # columns and tables that Vault has no more; else keep
gate: {{max_reject_pct: 0}}
schedule: {{cron: '*/15 * * * *', timezone: UTC}}
"""
LOGS = """\
# config/pipelines/{name}.yaml
pipeline: {name}
source: {{type: vault, connection: {connection}, extract: log}}
tables: {{load: append}}  # each archive holds a day that no other does
gate: {{max_reject_pct: 0}}
schedule: {{cron: '30 1 * * *', timezone: UTC}}
"""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One model, as its sample has it."""

    name: str
    files: str
    dialect: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, Any]]
    key: str | None
    records: int
    doubts: Mapping[str, str] = field(default_factory=dict)
    """What a person should decide, by column."""


def propose(path: Path) -> Proposed:
    """Look at a sample and say what a contract could be that accepts all of it."""
    try:
        dialect, sample = sampled(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="name a sample that is there: --from-file FILE"
        ) from error
    except ContractError as error:
        raise UsageError(f"nothing can be proposed from {path}: {error.message}") from error
    table = sample.table
    with duckdb.connect(":memory:") as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("sample", table)
        columns, doubts = {}, {}
        for name in table.column_names:
            columns[name], doubt = _column(db, name, table.num_rows, sample.types.get(name))
            if doubt is not None:
                doubts[name] = doubt
        key = _key(db, table, columns)
    model = _model_name(path)
    ending = re.escape(path.name[path.name.index(".") :]) if "." in path.name else ""
    files = rf"(?i)^{re.escape(model)}([_-]\w+)?{ending.removesuffix(re.escape('.gz'))}(\.gz)?$"
    if re.match(files, path.name) is None:
        files = rf"^{re.escape(path.name)}$"
    return Proposed(model, files, dialect, columns, key, table.num_rows, doubts)


def written(name: str, connection: str, proposed: Sequence[Proposed]) -> str:
    """The pipeline file, with what a person should look at as comments."""
    lines = [
        f"# Proposed from {', '.join(one.name for one in proposed)}: look at every line before you trust it.",
        f"pipeline: {name}",
        "source:",
        "  type: files",
        f"  connection: {connection}",
        "  # How a delivery is recognised by the folder it comes in.",
        "  batches: {folders: '(?P<batch>[^/]+)', kind: text}",
        "models:",
    ]
    for one in proposed:
        lines += [f"  {one.name}:", f"    files: {_yaml(one.files)}"]
        if one.key is not None:
            lines += [
                f"    key: [{_yaml(one.key)}]  # no two records of the sample have the same",
                "    load: replace  # if a delivery is all there is; merge if it is what has changed",
            ]
        else:
            lines += ["    load: append  # no column of the sample is a key by itself"]
        if one.dialect:
            lines += [f"    csv: {_yaml(one.dialect)}"]
        lines += ["    columns:"]
        for column, settings in one.columns.items():
            doubt = f"  # {one.doubts[column]}" if column in one.doubts else ""
            lines += [f"      {_yaml(column)}: {_yaml(settings)}{doubt}"]
    return "\n".join(lines) + "\n"


def of_vault(name: str, connection: str, *, logs: bool) -> str:
    """The pipeline of a Vault's objects, or of its logs: which tables there are its archives say."""
    return (LOGS if logs else OBJECTS).format(name=name, connection=connection)


def _column(
    db: duckdb.DuckDBPyConnection, name: str, records: int, known: str | None
) -> tuple[dict[str, Any], str | None]:
    """The strictest settings that accept all of a column's values."""
    text = quoted(name)
    facts = f"count({text}), count(DISTINCT {text}), max(length({text})), min(length({text}))"
    present, distinct, longest, shortest = db.sql(f"SELECT {facts} FROM sample").fetchall()[0]
    required = {"required": True} if present == records else {}
    if known == "json" or (known is not None and _takes(db, text, Column(type=known))):
        return {"type": known, **required}, None if present else "empty in the whole sample"
    if not present:
        return {"type": "string"}, "empty in the whole sample"
    kind, doubt = _type(db, text, longest)
    if kind:
        return {**kind, **required}, doubt
    rules: dict[str, Any] = {}
    if _all(db, text, f"regexp_full_match({text}, '[0-9]+')"):
        rules = {"pattern": rf"\d{{{longest}}}" if longest == shortest else r"\d+"}
        doubt = "digits, kept as text: leading zeros or more of them than a number should have"
    elif 1 < distinct <= FEW and present >= distinct * OFTEN and longest <= LENGTHS[1] and "name" not in name.lower():
        doubt = "all that the sample has; whatever else comes would be rejected"
        listed = db.sql(f"SELECT DISTINCT {text} FROM sample WHERE {text} IS NOT NULL ORDER BY 1").fetchall()
        rules = {"enum": [value for (value,) in listed]}
    else:
        rules = {"max_length": next((one for one in LENGTHS if one >= longest), longest)}
    return {"type": "string", **required, **rules}, doubt


def _type(db: duckdb.DuckDBPyConnection, text: str, longest: int) -> tuple[dict[str, Any] | None, str | None]:
    """A type other than string that takes every value, and what is doubtful about it."""
    listed = ", ".join(f"'{word}'" for word in WORDS)
    if _all(db, text, f"lower({text}) IN ({listed})"):
        return {"type": "boolean"}, None
    named = f"regexp_full_match({text}, '0[0-9]+')"
    if longest <= LONGEST_NUMBER and not _any(db, text, named) and _takes(db, text, Column(type="integer")):
        return {"type": "integer"}, None
    if not _any(db, text, named):
        if (decimal := _decimal(db, text, ".") or _decimal(db, text, ",")) is not None:
            return decimal, None
        if _takes(db, text, Column(type="float")):
            return {"type": "float"}, None
    for kind in ("date", "timestamp", "local_timestamp"):
        if _takes(db, text, Column(type=kind)):
            return {"type": kind}, None
    fitting = [form for form in FORMATS if _takes(db, text, Column(type="date", format=(form,)))]
    if len(fitting) == 1:
        return {"type": "date", "format": fitting[0]}, None
    return None, f"a date, written {' or '.join(fitting)}: say which with type and format" if fitting else None


def _decimal(db: duckdb.DuckDBPyConnection, text: str, point: str) -> dict[str, Any] | None:
    """Numbers with places behind the point, and room for larger ones than the sample has as long as there is any."""
    if not _all(db, text, f"regexp_full_match({text}, '[+-]?([0-9]+|[0-9]*[{point}][0-9]+)')"):
        return None
    before = f"length(regexp_extract({text}, '^[+-]?([0-9]*)', 1))"
    behind = f"length(regexp_extract({text}, '[{point}]([0-9]*)$', 1))"
    digits, places = db.sql(f"SELECT max({before}), max({behind}) FROM sample").fetchall()[0]
    if not places or digits + places > 38:
        return None
    written = {} if point == "." else {"decimal_point": point}
    return {"type": f"decimal({min(38, max(digits + places + 2, 10))},{places})", **written}


def _takes(db: duckdb.DuckDBPyConnection, text: str, column: Column) -> bool:
    return _all(db, text, f"({value_of(column, text)}) IS NOT NULL")


def _all(db: duckdb.DuckDBPyConnection, text: str, condition: str) -> bool:
    return not _any(db, text, f"NOT ({condition})")


def _any(db: duckdb.DuckDBPyConnection, text: str, condition: str) -> bool:
    found = db.sql(f"SELECT 1 FROM sample WHERE {text} IS NOT NULL AND ({condition}) LIMIT 1").fetchall()
    return bool(found)


def _key(db: duckdb.DuckDBPyConnection, table: pa.Table, columns: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first column that is always there and never the same, those that are called an id before others."""
    required = [name for name in table.column_names if columns[name].get("required")]
    named = [name for name in required if re.search(r"(^|_)v?id(_|$|__v$)|key|number|code", name, re.IGNORECASE)]
    for name in (*named, *required):
        ((distinct,),) = db.sql(f"SELECT count(DISTINCT {quoted(name)}) FROM sample").fetchall()
        if distinct == table.num_rows and columns[name]["type"] in ("string", "integer"):
            return str(name)
    return None


def _model_name(path: Path) -> str:
    stem = path.name.split(".", 1)[0].lower()
    stem = re.sub(r"[^a-z0-9]+", "_", re.sub(r"[-_]?\d{4,}.*$", "", stem)).strip("_")
    return stem[:62] if re.match(r"[a-z]", stem) else f"m_{stem}"[:62]


def _yaml(value: Any) -> str:
    """A value as YAML has it on one line."""
    told = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    told = told.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value, ensure_ascii=False) if "\n" in told else told
