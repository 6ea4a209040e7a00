"""A column's text as a value, in SQL: a type has its own pattern, then is converted; null is what is not of the type.

Nothing is rounded, cut, shifted or guessed: `try_cast` alone would take ` 5`, `1e3` or `2026-1-5`, and drop an offset.
"""

import re

import pyarrow as pa

from ingestkit import textformat
from ingestkit.settings import Column

DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
TIME = r"[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6}0*)?)?"
OFFSET = r"(Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)"
TRUE_WORDS = ("true", "t", "1", "yes", "y")
FALSE_WORDS = ("false", "f", "0", "no", "n")
WORDS = "|".join((*TRUE_WORDS, *FALSE_WORDS))

GUARDS = {
    "integer": r"[+-]?\d+",
    "float": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?",
    "boolean": f"(?i)({WORDS})",
    "date": DATE,
    "timestamp": DATE + TIME + OFFSET,
    "local_timestamp": DATE + TIME,
}
# json_valid alone takes NaN, Infinity and a comma before a bracket: without its strings a text may only hold these.
JSON_STRING = r'"(?:\\.|[^"\\])*"'
JSON_PARTS = r'(?:[ \t\r\n{}\[\]:,]|""|true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)*'
JSON_COMMA = r",[ \t\r\n]*[\]}]"

MESSAGES = {
    "json": "not a JSON text",
    "integer": "not a whole number of 64 bits",
    "float": "not a number of double precision",
    "boolean": f"none of {', '.join((*TRUE_WORDS, *FALSE_WORDS))}",
    "date": "not a date written YYYY-MM-DD",
    "timestamp": "not an instant written YYYY-MM-DDTHH:MM:SS with an offset or Z",
    "local_timestamp": "not a time written YYYY-MM-DDTHH:MM:SS without an offset",
}
SQL_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "local_timestamp": "TIMESTAMP",
    "json": "VARCHAR",
}
ARROW_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "local_timestamp": pa.timestamp("us"),
    "json": pa.string(),
}


def value_of(column: Column, text: str) -> str:
    """SQL of the text's value: null where the text is not exactly of the type."""
    match column.type:
        case "string":
            return text
        case "json":
            return _json(text)
        case "date" | "timestamp" | "local_timestamp" if column.format:
            return f"coalesce({', '.join(_formatted(column, text, form) for form in column.format)})"
        case "boolean":
            return _truth(column, text)
        case "timestamp" if column.timezone is not None:
            return _zoned(text, column.timezone)
    return _guarded(column, text)


def _guarded(column: Column, text: str) -> str:
    """The text cast, where all of it matches the type's pattern."""
    written, plain = _written(column, text)
    matches = f"regexp_full_match({text}, {literal(written)})"
    cast = f"CASE WHEN {matches} THEN try_cast({plain} AS {sql_type(column.type)}) END"
    match column.type:
        case "float":
            return f"CASE WHEN isfinite({cast}) THEN {cast} END"
        case "date" | "timestamp" | "local_timestamp":
            return f"CASE WHEN {text} NOT LIKE '0000%' THEN {cast} END"
    return cast


def _truth(column: Column, text: str) -> str:
    said = (column.true_words, column.false_words) if column.true_words else (TRUE_WORDS, FALSE_WORDS)
    true, false = (", ".join(literal(word.lower()) for word in words) for words in said)
    words = f"CASE WHEN lower({text}) IN ({true}) THEN true WHEN lower({text}) IN ({false}) THEN false END"
    if column.true_words:
        return words
    # The usual words first, since lower case costs more than comparing.
    return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false ELSE {words} END"


def _written(column: Column, text: str) -> tuple[str, str]:
    """The pattern of a value in the column's own way of writing, and SQL of the text in the type's way."""
    guarded = guard(column.type)
    plain = text
    if column.decimal_point != ".":
        guarded = guarded.replace(r"\.", re.escape(column.decimal_point))
    if column.thousands:
        # Groups of three, all of them or none.
        guarded = guarded.replace(r"\d+", rf"(\d+|\d{{1,3}}({re.escape(column.thousands)}\d{{3}})+)", 1)
        plain = f"replace({plain}, {literal(column.thousands)}, '')"
    if column.decimal_point != ".":
        plain = f"replace({plain}, {literal(column.decimal_point)}, '.')"
    return guarded, plain


def _json(text: str) -> str:
    bare = f"regexp_replace({text}, {literal(JSON_STRING)}, '\"\"', 'g')"
    proven = (
        f"json_valid({text}) AND regexp_full_match({bare}, {literal(JSON_PARTS)}) "
        f"AND NOT regexp_matches({bare}, {literal(JSON_COMMA)})"
    )
    return f"CASE WHEN {proven} THEN {text} END"


def _formatted(column: Column, text: str, form: str) -> str:
    """A text written in one format as a value, or null. No calendar has a year 0."""
    read = f"try_strptime({text}, {literal(form)})"
    if column.type == "timestamp" and "%z" not in form and column.timezone is not None:
        zone = literal(column.timezone)
        instant = f"timezone({zone}, {read})"
        read = f"CASE WHEN {_shown_once(zone, read, instant)} THEN {instant} END"
    value = f"CAST({read} AS {sql_type(column.type)})"
    matches = f"regexp_full_match({text}, {literal(textformat.pattern_of(form))})"
    return f"CASE WHEN {matches} AND year(try_strptime({text}, {literal(form)})) > 0 THEN {value} END"


def _shown_once(zone: str, local: str, instant: str) -> str:
    """Whether a zone's clock shows a local time once: not never, and not twice, by the offsets of a day around it."""
    parts = [f"timezone({zone}, {instant}) = {local}"]
    for sign in "+-":
        near = f"({instant} {sign} INTERVAL 24 HOUR)"
        other = f"timezone('UTC', {local} - (timezone({zone}, {near}) - timezone('UTC', {near})))"
        parts.append(f"({other} = {instant} OR timezone({zone}, {other}) <> {local})")
    return " AND ".join(parts)


def _zoned(text: str, timezone: str) -> str:
    """A local time as an instant, or null where that clock shows it never or twice; text with an offset as it is."""
    zone = literal(timezone)
    local = f"try_cast({text} AS TIMESTAMP)"
    instant = f"timezone({zone}, {local})"
    once = _shown_once(zone, local, instant)
    here = f"regexp_full_match({text}, {literal(DATE + TIME)})"
    offset = f"regexp_full_match({text}, {literal(guard('timestamp'))})"
    return (
        f"CASE WHEN {text} LIKE '0000%' THEN NULL WHEN {here} AND {once} THEN {instant} "
        f"WHEN {offset} THEN try_cast({text} AS TIMESTAMPTZ) END"
    )


def message_of(column: Column) -> str:
    if column.format:
        return f"not a {column.type} written {' or '.join(column.format)}"
    if column.true_words:
        return f"none of {', '.join((*column.true_words, *column.false_words))}"
    if column.thousands or column.decimal_point != ".":
        return f"{type_message(column.type)}, written with {column.decimal_point!r} and {column.thousands!r}"
    return type_message(column.type)


def guard(kind: str) -> str:
    """The pattern that the whole of a text must match before it is converted."""
    scale = re.fullmatch(r"decimal\(\d+,\s*(\d+)\)", kind)
    if scale is None:
        return GUARDS[kind]
    places = rf"\.\d{{1,{scale[1]}}}0*" if int(scale[1]) else r"\.0+"
    return rf"[+-]?(\d+({places})?|{places})"


def type_message(kind: str) -> str:
    return MESSAGES.get(kind) or f"not a number that {kind} holds exactly"


def sql_type(kind: str) -> str:
    return SQL_TYPES.get(kind) or kind.upper()


def arrow_type(kind: str) -> pa.DataType:
    exact = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind)
    return pa.decimal128(int(exact[1]), int(exact[2])) if exact else ARROW_TYPES[kind]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
