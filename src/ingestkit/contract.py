"""What a model's columns may hold, compiled to SQL over text: a type has its own pattern, then is converted.

Nothing is rounded, cut, shifted or guessed: `try_cast` alone would take ` 5`, `1e3` or `2026-1-5`, and drop an offset.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ingestkit.errors import ConfigError
from ingestkit.settings import LINE, Column, Model
from ingestkit.textshape import Numbers, Ranges, Shape, dates, fits, moments, ranges_of, shape_of, spread, whole_numbers

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
MESSAGES = {
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
}
ARROW_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "local_timestamp": pa.timestamp("us"),
}
RECORD_NUMBER = "_record_no"
ERRORS = pa.list_(
    pa.struct([("column", pa.string()), ("code", pa.string()), ("message", pa.string()), ("value", pa.string())])
)


@dataclass(frozen=True, slots=True)
class Check:
    """A rule of a column: `passes` is SQL over the text and the value, and is asked only where the text is not null."""

    code: str
    message: str
    passes: str
    ranges: Ranges | None = None
    """Where the rule is a pattern of one range of bytes for each place: those."""
    longest: int | None = None
    """Where it limits the length: as many bytes cannot be more characters."""
    bounds: tuple[float, float] | None = None
    """Where it limits whole numbers: the least and the most that pass."""


@dataclass(frozen=True, slots=True)
class CompiledColumn:
    """A column as SQL. `value` is null where the text is not of the type; a string's value is its text."""

    name: str
    type: str
    required: bool
    text: str
    value: str
    guarded: bool
    checks: tuple[Check, ...]
    zoned: bool = False
    """Whether texts without an offset are local times of a zone."""

    @property
    def typed(self) -> bool:
        return self.type != "string"

    def at_a_glance(self, texts: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
        """The values of a block's texts where all can be told to be valid at once, else None."""
        shape = shape_of(texts)
        if shape is None or (self.required and shape.nulls):
            return None
        if self.typed and not shape.count:
            return pa.nulls(len(texts), arrow_type(self.type))
        values = _told(self, shape)
        if values is None and self.typed:
            return None
        if not all(_passes(check, shape, values) for check in self.checks):
            return None
        return texts if values is None else spread(values, shape, arrow_type(self.type))

    def valid(self) -> str | None:
        """SQL that is true where a record may be kept, or None where it always may."""
        parts = [f"({check.passes})" for check in self.checks]
        if self.guarded:
            parts.insert(0, f"{typed_name(self.name)} IS NOT NULL")
        if not parts:
            return f"{self.text} IS NOT NULL" if self.required else None
        missing = "false" if self.required else "true"
        return f"CASE WHEN {self.text} IS NULL THEN {missing} ELSE coalesce({' AND '.join(parts)}, false) END"

    def errors(self) -> list[str]:
        """SQL of an error or null, one per rule. A value not of its type is not also too small."""
        found: list[str] = []
        if self.required:
            found.append(self._error(f"{self.text} IS NULL", "required", "missing"))
        if self.guarded:
            condition = f"{self.text} IS NOT NULL AND {typed_name(self.name)} IS NULL"
            found.append(self._error(condition, "type", type_message(self.type)))
        for check in self.checks:
            condition = f"{self.text} IS NOT NULL AND NOT ({check.passes})"
            found += [self._error(condition, check.code, check.message)]
        return found

    def _error(self, condition: str, code: str, message: str) -> str:
        told = ", ".join(
            (
                f"'column': {literal(self.name)}",
                f"'code': {literal(code)}",
                f"'message': {literal(message)}",
                f"'value': {self.text}",
            )
        )
        return f"CASE WHEN {condition} THEN {{{told}}} END"


@dataclass(frozen=True, slots=True)
class Contract:
    """A model's contract, compiled."""

    model: str
    columns: tuple[CompiledColumn, ...]
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    """Sets of columns whose values may occur once: the key first, then each column said to be unique."""

    def schema_with(self, extra: Sequence[str]) -> pa.Schema:
        """What valid rows are written as; `extra` are further columns, as texts."""
        return pa.schema(
            [
                *((column.name, arrow_type(column.type)) for column in self.columns),
                *((name, pa.string()) for name in extra),
                (RECORD_NUMBER, pa.int64()),
                (LINE, pa.int64()),
            ]
        )

    def typing_sql(self, table: str, columns: Sequence[CompiledColumn]) -> str | None:
        """SELECT the values of these columns but strings, and `_valid`; None where every text is good as it is."""
        values = [f"{column.value} AS {typed_name(column.name)}" for column in columns if column.typed]
        valid = [part for column in columns if (part := column.valid()) is not None]
        if not values and not valid:
            return None
        shown = [typed_name(column.name) for column in columns if column.typed]
        inner = f"SELECT {', '.join(('*', *values))} FROM {table}"
        shown.append(f"({' AND '.join(valid) or 'true'}) AS _valid")
        return f"SELECT {', '.join(shown)} FROM ({inner})"

    def errors_sql(self, table: str) -> str:
        """SELECT `errors` of records already known to be bad, every failing column named."""
        values = [f"{column.value} AS {typed_name(column.name)}" for column in self.columns if column.typed]
        each = [error for column in self.columns for error in column.errors()]
        inner = f"SELECT {', '.join(('*', *values))} FROM {table}"
        return f"SELECT list_filter([{', '.join(each)}], lambda one: one IS NOT NULL) AS errors FROM ({inner})"


def compile_contract(name: str, model: Model) -> Contract:
    columns = tuple(
        _compiled(name, column_name, column, required=column.required or column_name in model.key)
        for column_name, column in model.columns.items()
    )
    alone = [(column,) for column, settings in model.columns.items() if settings.unique and (column,) != model.key]
    return Contract(name, columns, model.key, (*((model.key,) if model.key else ()), *alone))


def _compiled(model: str, name: str, column: Column, *, required: bool) -> CompiledColumn:
    text = quoted(name)
    value = _value(column, text)
    typed = text if column.type == "string" else typed_name(name)
    checks: list[Check] = []
    if column.pattern is not None:
        passes = f"regexp_full_match({text}, {literal(column.pattern)})"
        ranges = ranges_of(column.pattern)
        checks.append(Check("pattern", f"does not match {column.pattern}", passes, ranges=ranges))
    if column.min_length is not None:
        checks.append(
            Check("length", f"shorter than {column.min_length} characters", f"length({text}) >= {column.min_length}")
        )
    if column.max_length is not None:
        most = column.max_length
        told = f"longer than {most} characters"
        checks.append(Check("length", told, f"length({text}) <= {most}", longest=most))
    for code, limit, sign, message in (
        ("min", column.min, ">=", "less than"),
        ("max", column.max, "<=", "more than"),
    ):
        if limit is not None:
            bound = _bound(model, name, column, code, limit)
            bounds = None
            if column.type == "integer":
                bounds = (int(limit), math.inf) if code == "min" else (-math.inf, int(limit))
            checks.append(Check(code, f"{message} {limit}", f"{typed} {sign} {bound}", bounds=bounds))
    zoned = column.timezone is not None
    return CompiledColumn(name, column.type, required, text, value, column.type != "string", tuple(checks), zoned)


def _told(column: CompiledColumn, shape: Shape) -> Numbers | None:
    """The values of texts that numpy can convert, all of them valid as far as the type goes."""
    if column.zoned:
        return None
    match column.type:
        case "integer":
            return whole_numbers(shape)
        case "date":
            return dates(shape)
        case "timestamp" | "local_timestamp":
            return moments(shape, offset=column.type == "timestamp")
    return None


def _passes(check: Check, shape: Shape, values: Numbers | None) -> bool:
    if check.ranges is not None:
        return fits(shape, check.ranges)
    if check.longest is not None:
        return shape.longest <= check.longest
    if check.bounds is not None and values is not None:
        return bool(check.bounds[0] <= values.min() and values.max() <= check.bounds[1])
    return False


def _value(column: Column, text: str) -> str:
    """SQL of the text's value: null where the text is not exactly of the type."""
    match column.type:
        case "string":
            return text
        case "boolean":
            true, false = (", ".join(map(literal, words)) for words in (TRUE_WORDS, FALSE_WORDS))
            words = f"CASE WHEN lower({text}) IN ({true}) THEN true WHEN lower({text}) IN ({false}) THEN false END"
            # The usual words first, since lower case costs more than comparing.
            return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false ELSE {words} END"
        case "timestamp" if column.timezone is not None:
            return _zoned(text, column.timezone)
    kind = sql_type(column.type)
    cast = f"CASE WHEN regexp_full_match({text}, {literal(guard(column.type))}) THEN try_cast({text} AS {kind}) END"
    match column.type:
        case "float":
            return f"CASE WHEN isfinite({cast}) THEN {cast} END"
        case "date" | "timestamp" | "local_timestamp":
            return f"CASE WHEN {text} NOT LIKE '0000%' THEN {cast} END"
    return cast


def _zoned(text: str, timezone: str) -> str:
    """A local time as an instant, or null where that clock shows it never or twice; text with an offset as it is."""
    zone = literal(timezone)
    local = f"try_cast({text} AS TIMESTAMP)"
    instant = f"timezone({zone}, {local})"
    once = " AND ".join(
        (
            f"timezone({zone}, {instant}) = {local}",
            *(
                f"timezone({zone}, {instant} {sign} INTERVAL {minutes} MINUTE) <> {local}"
                for sign in "+-"
                for minutes in (30, 60)
            ),
        )
    )
    here = f"regexp_full_match({text}, {literal(DATE + TIME)})"
    offset = f"regexp_full_match({text}, {literal(guard('timestamp'))})"
    return (
        f"CASE WHEN {text} LIKE '0000%' THEN NULL WHEN {here} AND {once} THEN {instant} "
        f"WHEN {offset} THEN try_cast({text} AS TIMESTAMPTZ) END"
    )


def _bound(model: str, name: str, column: Column, code: str, limit: float | str) -> str:
    text = str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)
    if column.type == "boolean" or (column.type != "string" and re.fullmatch(guard(column.type), text) is None):
        raise ConfigError(f"model {model}: column {name}: {code} {limit!r} is no {column.type}")
    return f"CAST({literal(text)} AS {sql_type(column.type)})"


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


def typed_name(name: str) -> str:
    """The converted column, beside its text of the plain name."""
    return quoted(f"{name}\N{NO-BREAK SPACE}typed")


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
