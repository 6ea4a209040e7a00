"""What a SELECT within COPY may say: functions that the service documents for it, and JSON as strict as it is there."""

import json
import re
from typing import Final

import duckdb
from sqlglot import exp, parse_one

from tests.doubles.snowflake.answers import Refused, compilation

# "Supported functions" of the service's page on transforming data during a load.
DOCUMENTED: Final = """
    ARRAY_CONSTRUCT ARRAY_SIZE ASCII CASE CAST CEIL CHECK_JSON CHECK_XML CHR CHAR CONCAT CONVERT_TIMEZONE
    ENDSWITH EQUAL_NULL FLOOR GET GET_PATH HEX_DECODE_STRING HEX_ENCODE IFF IFNULL ILIKE IN IS_ARRAY IS_BOOLEAN
    IS_DECIMAL IS_INTEGER IS_NULL_VALUE IS_OBJECT IS_TIME IS_TIMESTAMP_LTZ IS_TIMESTAMP_NTZ IS_TIMESTAMP_TZ
    LENGTH LEN LIKE LPAD LTRIM MD5 MD5_HEX NULLIF NVL NVL2 OBJECT_CONSTRUCT PARSE_IP PARSE_JSON PARSE_URL
    PARSE_XML RANDOM REGEXP_REPLACE REGEXP_SUBSTR REPLACE REVERSE RPAD RTRIM SPLIT SPLIT_PART STARTSWITH SUBSTR
    SUBSTRING TO_ARRAY TO_BINARY TO_BOOLEAN TO_CHAR TO_VARCHAR TO_DATE DATE TO_DECFLOAT TO_DECIMAL TO_NUMBER
    TO_NUMERIC TO_DOUBLE TO_OBJECT TO_TIME TIME TO_TIMESTAMP TO_TIMESTAMP_LTZ TO_TIMESTAMP_NTZ TO_TIMESTAMP_TZ
    TO_VARIANT TRIM TRY_CAST TRY_HEX_DECODE_STRING TRY_TO_BINARY TRY_TO_BOOLEAN TRY_TO_DATE TRY_TO_DECFLOAT
    TRY_TO_DECIMAL TRY_TO_NUMBER TRY_TO_NUMERIC TRY_TO_DOUBLE TRY_TO_TIME UNICODE UUID_STRING XMLGET
"""
FUNCTIONS: Final = frozenset(DOCUMENTED.split())
# Words that stand before a bracket and call nothing.
WORDS: Final = frozenset({"AND", "ELSE", "NOT", "OR", "THEN", "WHEN"})
QUOTED: Final = re.compile(r"""'(?:[^'\\]|''|\\.)*'|"(?:[^"]|"")*\"""")
TYPE: Final = re.compile(r"(?:::|\bAS\s)\s*\w+\s*\([\d\s,]*\)", re.IGNORECASE)
# Of one without a length the service does not say whether it is given that of a column without one.
CUT: Final = re.compile(r"(?:::|\bAS\s)\s*(?:VARCHAR|STRING|TEXT|CHAR)\b\s*(?:\(\s*(\d+)\s*\))?", re.IGNORECASE)
LONGEST: Final = 134_217_728
CALL: Final = re.compile(r"\b([A-Z_]\w*)\s*\(", re.IGNORECASE)
VALID: Final = "parses_as_json"
NO_JSON: Final = "ELSE error('Error parsing JSON')"


def look(select: str) -> None:
    """Raises where it calls a function that the service does not know there, or makes a text one that may be shorter.

    The service cuts that off without a word; DuckDB would not.
    """
    bare = QUOTED.sub(" ", select)
    if any(int(length or 0) < LONGEST for length in CUT.findall(bare)):
        raise Refused(999_999, "25001", "stricter than Snowflake, so that it is seen: a longer text would be cut off")
    plain = TYPE.sub(" ", bare)
    unknown = {name.upper() for name in CALL.findall(plain)} - FUNCTIONS - WORDS
    if unknown:
        raise compilation(f"Function {min(unknown)} is not supported for a COPY that transforms.", 2, "0A000")


def teach(duck: duckdb.DuckDBPyConnection) -> None:
    """Let DuckDB know what the service parses as JSON: an object that has a name twice it does not."""
    duck.create_function(VALID, _parses, ["VARCHAR"], "BOOLEAN")


def strict(parsed: exp.Expr) -> str:
    """What DuckDB is given for it: CHECK_JSON tells of all that PARSE_JSON fails of, and nothing becomes NULL."""
    for found in list(parsed.find_all(exp.CheckJson, exp.ParseJSON)):
        value = found.this.sql(dialect="duckdb")
        empty = f"{value} IS NULL OR {value} = ''"
        if isinstance(found, exp.CheckJson):
            made = f"CASE WHEN {empty} OR {VALID}({value}) THEN NULL ELSE 'no JSON' END"
        else:
            made = f"CASE WHEN {empty} THEN NULL WHEN {VALID}({value}) THEN CAST({value} AS JSON) {NO_JSON} END"
        found.replace(parse_one(made, dialect="duckdb"))
    return parsed.sql(dialect="duckdb")


def _parses(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=_each_once, parse_constant=_refused)
    except (ValueError, RecursionError):
        return False
    return True


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    known = dict(pairs)
    if len(known) != len(pairs):
        raise ValueError("a name twice")
    return known


def _refused(constant: str) -> object:
    raise ValueError(constant)
