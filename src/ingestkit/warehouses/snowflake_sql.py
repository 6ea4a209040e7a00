"""The SQL that Snowflake is given, as text: names, types, and the statements over them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ingestkit.ports import Bounds, TargetColumn

STAGE = "ingestkit_stage"
LONGEST_NAME = 255
MOST_FILES = 1000
"""As many as one COPY may name."""

PLAIN_TYPES: Mapping[str, str] = {
    "string": "VARCHAR",
    "integer": "NUMBER(19,0)",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP_TZ",
    "local_timestamp": "TIMESTAMP_NTZ",
    "json": "VARIANT",
}
LINEAGE_TYPES: Mapping[str, str] = {
    "_batch": "VARCHAR",
    "_run_id": "VARCHAR",
    "_source_file": "VARCHAR",
    "_record_no": "NUMBER(19,0)",
}
LONGEST_TEXT = 16_777_216
"""Characters of a text that is given no length; given one, it may have more."""
LONGEST_OF_ALL = 134_217_728
WHOLE_TEXT = f"VARCHAR({LONGEST_OF_ALL})"
GONE = "_INGESTKIT_GONE"
"""The column of a stage that tells keys to remove from rows to write."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text, whose backslashes would say something to Snowflake else."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Names:
    """How a contract's names are spelled there: in upper case, as people write them without quotes, or as they are."""

    exact: bool = False

    def spelled(self, name: str) -> str:
        return name if self.exact else name.upper()

    def one(self, *parts: str) -> str:
        return ".".join(quoted(self.spelled(part)) for part in parts)

    def several(self, columns: Iterable[str]) -> str:
        return ", ".join(self.one(column) for column in columns)


def created(what: str, columns: Mapping[str, str]) -> str:
    """CREATE, of quoted names and their types: texts are told apart by case, whatever an account has set."""
    return f"CREATE {what} ({', '.join(f'{name} {kind}' for name, kind in columns.items())}) DEFAULT_DDL_COLLATION = ''"


def column_type(contract_type: str) -> str:
    if plain := PLAIN_TYPES.get(contract_type):
        return plain
    return contract_type.replace(" ", "").replace("decimal", "NUMBER")


def column_types(columns: Iterable[TargetColumn], lineage: Iterable[str]) -> dict[str, str]:
    """The target's columns and their types, in order."""
    return {column.name: _lasting(column) for column in columns} | {one: LINEAGE_TYPES[one] for one in lineage}


def _lasting(column: TargetColumn) -> str:
    """The type of a column of the target, whose texts need be no longer than the contract lets them be."""
    if column.type != "string" or column.max_length is None:
        return column_type(column.type)
    return f"VARCHAR({min(column.max_length, LONGEST_OF_ALL)})"


def passing_types(columns: Iterable[TargetColumn], lineage: Iterable[str]) -> dict[str, str]:
    """The types that rows are made on their way into the target.

    Texts of any length: made one of fewer characters, what is longer would be cut, and not refused. Given none, it may
    be the length of a column that is given none.
    """
    kinds = column_types(columns, lineage)
    return {name: _uncut(kind) for name, kind in kinds.items()}


def _uncut(kind: str) -> str:
    return kind if characters(kind) is None else WHOLE_TEXT


def serves(found: str, wanted: str) -> bool:
    """Whether a column of the type found, as DESCRIBE writes it, is one of the type wanted."""
    if found == wanted:
        # Some accounts are told no length but those that somebody has given.
        return True
    least, most = characters(wanted), characters(found)
    if least is not None:
        return most is not None and most >= least
    if wanted == PLAIN_TYPES["integer"]:
        # INTEGER is short for NUMBER(38,0) there.
        digits = _digits(found)
        return digits is not None and digits[0] >= 19 and digits[1] == 0
    # Six digits behind the second are what contracts know.
    exact = re.fullmatch(rf"{wanted}\((\d)\)", found) if wanted.startswith("TIMESTAMP") else None
    return exact is not None and int(exact[1]) >= 6


def widens(found: str, wanted: str) -> bool:
    """Whether Snowflake changes a column of type `found` into `wanted`, and no value by that."""
    most, least = characters(found), characters(wanted)
    if most is not None and least is not None:
        return most <= least
    # It changes how many digits there are, and never how many of them stand behind the point.
    one, other = _digits(found), _digits(wanted)
    return one is not None and other is not None and one[0] <= other[0] and one[1] == other[1]


def unmade(found: str, wanted: str) -> str:
    """Why Snowflake does not change a column of type `found` into `wanted`, or we do not let it."""
    if " COLLATE " in found:
        return "it compares texts by rules of its own, and would take keys for the same that differ"
    one, other = _digits(found), _digits(wanted)
    if one is None or other is None:
        return "Snowflake makes no type of another"
    if one[1] != other[1]:
        return "Snowflake never changes how many digits stand behind the point"
    return "values that are there may have more digits"


def characters(kind: str) -> int | None:
    """As many as a text may have; None of what is no text, or one that is compared by rules of its own."""
    text = re.fullmatch(r"VARCHAR(?:\((\d+)\))?", kind)
    return None if text is None else int(text[1] or LONGEST_TEXT)


def _digits(kind: str) -> tuple[int, int] | None:
    exact = re.fullmatch(r"NUMBER\((\d+),(\d+)\)", kind)
    return (int(exact[1]), int(exact[2])) if exact else None


def put(file_pattern: str, place: str, parallel: int) -> str:
    """Upload files as they are; one that is there already is not uploaded, and told as such."""
    return (
        f"PUT {text('file://' + file_pattern)} {text(place)} PARALLEL = {parallel} "
        "AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = FALSE"
    )


def copy(table: str, columns: Mapping[str, str], place: str, files: Sequence[str], said: Mapping[str, str]) -> str:
    """Load files of a stage, each named, their columns by name and each made the type it has.

    By a SELECT: matched by name alone, Snowflake takes no empty texts out of Parquet and parses no JSON.
    """
    shown = ", ".join(_made(name, kind) for name, kind in columns.items())
    named = ", ".join(text(file) for file in files)
    told = " ".join(f"{option} = {value}" for option, value in said.items())
    return (
        f"COPY INTO {table} ({', '.join(columns)}) FROM (SELECT {shown} FROM {text(place)}) "
        f"FILES = ({named}) FILE_FORMAT = (TYPE = PARQUET {told}) ON_ERROR = ABORT_STATEMENT"
    )


def _made(name: str, kind: str) -> str:
    if kind == "VARIANT":
        # What is JSON by the contract and not by Snowflake's own bounds stays what it is, as a text. COPY knows few
        # functions, TRY_PARSE_JSON and COALESCE not among them.
        said = f"$1:{name}::{WHOLE_TEXT}"
        return f"CASE WHEN CHECK_JSON({said}) IS NULL THEN PARSE_JSON({said}) ELSE TO_VARIANT({said}) END"
    return f"$1:{name}::{kind}"


def within(names: Names, bounds: Bounds) -> str:
    """Whether a row lies in a window; one without a value lies in none."""
    column = names.one(bounds.column)
    low, high = (_moment(one) for one in (bounds.low, bounds.high))
    return f"({column} >= {low} AND {column} < {high})"


def _moment(value: date) -> str:
    said = text(value.isoformat())
    return f"{said}::TIMESTAMP_TZ" if isinstance(value, datetime) else f"TO_DATE({said}, 'YYYY-MM-DD')"


def delete_others(target: str, kept: str, key: Sequence[str]) -> str:
    """Rows of the target that have no key of the other table are removed. All names are quoted."""
    same = " AND ".join(f"target.{column} = kept.{column}" for column in key)
    return f"DELETE FROM {target} AS target WHERE NOT EXISTS (SELECT 1 FROM {kept} AS kept WHERE {same})"


def merge(target: str, stage: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """Rows of a known key say what the stage says of it, or are deleted; others are added. All names are quoted."""
    same = " AND ".join(f"target.{column} = staged.{column}" for column in key)
    changed = ", ".join(f"{column} = staged.{column}" for column in columns if column not in key)
    # A table of nothing but its key has nothing to change, and a row of it is written all the same.
    changed = changed or f"{key[0]} = staged.{key[0]}"
    added = ", ".join(f"staged.{column}" for column in columns)
    gone = f"staged.{quoted(GONE)}"
    return (
        f"MERGE INTO {target} AS target USING {stage} AS staged ON {same} "
        f"WHEN MATCHED AND {gone} THEN DELETE "
        f"WHEN MATCHED THEN UPDATE SET {changed} "
        f"WHEN NOT MATCHED AND NOT {gone} THEN INSERT ({', '.join(columns)}) VALUES ({added})"
    )
