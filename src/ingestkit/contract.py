"""What a model's columns may hold, compiled to SQL over text, and told at a glance where that can be."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from ingestkit.columnsql import arrow_type, guard, literal, message_of, quoted, sql_type, value_of
from ingestkit.errors import ConfigError
from ingestkit.ports import Bounds
from ingestkit.settings import LINE, Column, Model, Normalisation
from ingestkit.textshape import (
    Numbers,
    Ranges,
    Shape,
    dates,
    decimals,
    fits,
    moments,
    ranges_of,
    shape_of,
    spread,
    truths,
    whole_numbers,
)

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
    """Where it limits whole numbers, days or microseconds: the least and the most that pass."""


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
    message: str
    """What is told of a text that is not of the type."""
    plain: bool
    """Whether texts are written as the type itself has it."""
    nulls: tuple[str, ...] = ()
    normalise: tuple[Normalisation, ...] = ()

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
        if self.plain and not self.checks and (exact := _exact(self.type, texts)) is not None:
            return exact
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
            found.append(self._error(condition, "type", self.message))
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


def compile_contract(name: str, model: Model, window: Bounds | None = None) -> Contract:
    """The contract as SQL; with a `window`, of rows that lie in it."""
    columns = tuple(_compiled(name, model, column_name, window) for column_name in model.columns)
    alone = [(column,) for column, settings in model.columns.items() if settings.unique and (column,) != model.key]
    return Contract(name, columns, model.key, (*((model.key,) if model.key else ()), *alone))


def _compiled(model: str, settings: Model, name: str, window: Bounds | None) -> CompiledColumn:
    column = settings.columns[name]
    text = quoted(name)
    value = value_of(column, text)
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
            checks.append(Check(code, f"{message} {_written(limit)}", f"{typed} {sign} {bound}", bounds=bounds))
    if column.enum is not None:
        values = ", ".join(_bound(model, name, column, "enum", one) for one in column.enum)
        checks.append(Check("enum", f"none of {', '.join(column.enum)}", f"{typed} IN ({values})"))
    if window is not None and window.column == name:
        checks.append(_within(column, typed, window))
    normalise = column.normalise
    if normalise is None:
        normalise = settings.normalise if column.type == "string" else ()
    return CompiledColumn(
        name=name,
        type=column.type,
        required=column.required or name in settings.key or name == settings.window_column,
        text=text,
        value=value,
        guarded=column.type != "string",
        checks=tuple(checks),
        message=message_of(column),
        plain=not (
            column.true_words or column.timezone or column.format or column.thousands or column.decimal_point != "."
        ),
        nulls=settings.nulls if column.nulls is None else column.nulls,
        normalise=normalise,
    )


def _within(column: Column, typed: str, window: Bounds) -> Check:
    """A row of another window would stay when its own is replaced, and go when the other is."""
    low, high = (f"CAST({literal(one.isoformat())} AS {sql_type(column.type)})" for one in (window.low, window.high))
    told = f"not within its window, from {window.low.isoformat()} to {window.high.isoformat()}"
    numbers = (_number(window.low), _number(window.high) - 1)
    return Check("outside_window", told, f"({typed} >= {low} AND {typed} < {high})", bounds=numbers)


def _number(value: datetime | date) -> int:
    """Microseconds or days since 1970, as values are told at a glance."""
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return (value - date(1970, 1, 1)).days


def _exact(kind: str, texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The values of texts that are all written as a boolean or a decimal is, as Arrow converts them."""
    if kind == "boolean":
        return truths(texts)
    exactly = arrow_type(kind)
    return decimals(texts, exactly) if pa.types.is_decimal(exactly) else None


def _told(column: CompiledColumn, shape: Shape) -> Numbers | None:
    """The values of texts that numpy can convert, all of them valid as far as the type goes."""
    if not column.plain:
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


def _written(limit: float | str) -> str:
    """A limit in digits, none of them lost."""
    if not isinstance(limit, float):
        return str(limit)
    return str(int(limit)) if limit.is_integer() else f"{Decimal(repr(limit)):f}"


def _bound(model: str, name: str, column: Column, code: str, limit: float | str) -> str:
    text = _written(limit)
    if column.type == "boolean" or (column.type != "string" and re.fullmatch(guard(column.type), text) is None):
        raise ConfigError(f"model {model}: column {name}: {code} {limit!r} is no {column.type}")
    return f"CAST({literal(text)} AS {sql_type(column.type)})"


def typed_name(name: str) -> str:
    """The converted column, beside its text of the plain name."""
    return quoted(f"{name}\N{NO-BREAK SPACE}typed")
