"""The operator's queries: SQL in files, asked of a state that cannot be written through, with what is said bound."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from ingestkit.errors import ConfigError, StateError, UsageError
from ingestkit.settings import moment
from ingestkit.shapes import nearest
from ingestkit.states.engine import StateDatabase
from ingestkit.states.tables import Instant

OWN = Path("sql", "ops")
"""Where a project's own lie, below its root; they go before those of the same name that come with the program."""
NOW = "now"
"""The parameter every query has without declaring it."""

Kind: TypeAlias = Literal["text", "integer", "number", "instant"]
TYPES: Mapping[Kind, sql.types.TypeEngine[Any]] = {
    "text": sql.String(),
    "integer": sql.BigInteger(),
    "number": sql.Float(),
    "instant": Instant(),
}
NAME = re.compile(r"[\w-]+")
# Where a colon is no parameter's: in quoted text with or without escapes, quoted names, comments, and dollar quotes.
OPAQUE = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|'[^']*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$""", re.DOTALL
)
COMMENT = re.compile(r"\s*--\s?(.*)")
DECLARED = re.compile(r":(\w+)\s+(\w+)(?:\s+(\S.*))?")
# As `Instant` writes them where the database has no such type.
STORED_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that is bound, declared in a comment: `-- :since instant 24h`. Without a default it is null."""

    name: str
    kind: Kind
    default: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """One file: its name as it is typed, what its first line says it shows, its parameters and its statement."""

    name: str
    file: Path
    shows: str
    parameters: tuple[Parameter, ...]
    statement: str


def carried() -> Path:
    """Where those lie that come with the program: in a wheel beside this file, in a source tree below its top."""
    here = Path(__file__)
    installed = here.parent / "ops"
    return installed if installed.is_dir() else here.parents[3] / OWN


def known(root: Path) -> dict[str, Query]:
    """Every query there is for a project, by name; of one written for several databases any."""
    found: dict[str, Query] = {}
    for folder in (root / OWN, carried()):
        for path in sorted(folder.glob("*.sql")):
            name = path.name.split(".")[0]
            if name not in found:
                found[name] = read(path)
    return dict(sorted(found.items()))


def find(root: Path, name: str, dialect: str) -> Query:
    """The query of that name: the project's before the program's, one for this database before one for all."""
    for folder in (root / OWN, carried()):
        for file in (f"{name}.{dialect}.sql", f"{name}.sql"):
            # A name is no path.
            if NAME.fullmatch(name) and (path := folder / file).is_file():
                return read(path)
    names = known(root)
    if name in names:
        raise UsageError(f"query {name} is not written for {dialect}", hint=f"write {OWN}/{name}.{dialect}.sql")
    raise UsageError(f"there is no query {name!r}{nearest(name, names)}", hint="ingestkit query")


def read(path: Path) -> Query:
    """A file of one statement, which is sent as it is; comments that fill a line may declare."""
    try:
        statement = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    comments = [match[1].strip() for line in statement.splitlines() if (match := COMMENT.fullmatch(line))]
    declared = [text for text in comments if text.startswith(":")]
    shows = next((text for text in comments if text and not text.startswith(":")), "")
    parameters = tuple(_parameter(path, text) for text in declared)
    return Query(path.name.split(".")[0], path, shows, parameters, statement)


def _parameter(path: Path, text: str) -> Parameter:
    match = DECLARED.fullmatch(text)
    if match is None or match[2] not in get_args(Kind):
        raise ConfigError(
            f"{path}: `-- {text}` declares nothing; a parameter is a name, one of {', '.join(get_args(Kind))}, and a "
            "default where it has one",
            hint="such as `-- :since instant 24h`",
        )
    one = Parameter(match[1], cast("Kind", match[2]), match[3])
    if one.default is not None:
        try:
            _value(one, one.default, datetime.now(UTC))
        except ValueError as error:
            raise ConfigError(f"{path}: `-- {text}`: {error}") from error
    return one


def asked(state: StateDatabase, query: Query, said: Mapping[str, str], now: datetime) -> list[dict[str, Any]]:
    """The rows a query returns. Instants are instants and figures numbers, whatever the database keeps them as."""
    values = _values(query, said, now)
    statement = sql.text(OPAQUE.sub(lambda found: found[0].replace(":", r"\:"), query.statement))
    used = set(statement.compile().params)
    if strange := sorted(used - set(values)):
        raise ConfigError(
            f"{query.file} uses :{strange[0]} and does not declare it", hint=f"add a line `-- :{strange[0]} text`"
        )
    kinds = {one.name: TYPES[one.kind] for one in query.parameters} | {NOW: Instant()}
    bound = statement.bindparams(*(sql.bindparam(name, values[name], kinds[name]) for name in sorted(used)))
    with state.read_by_select() as (conn, options):
        try:
            result = conn.execute(bound, execution_options=options)
            rows = [dict(row) for row in result.mappings()] if result.returns_rows else None
        except DBAPIError as error:
            raise _refusal(state, query, error) from error
    if rows is None:
        raise ConfigError(f"{query.file} returns no rows: it is no query")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _refusal(state: StateDatabase, query: Query, error: DBAPIError) -> ConfigError | StateError:
    """A state in trouble is told as such; everything else is the statement's, an attempt to write among it."""
    trouble = state.trouble_of(error, state.place)
    original = str(error.orig).strip().partition("\n")[0]
    if trouble is not None and not re.search(r"read-?only|not authorized", original, re.IGNORECASE):
        return trouble
    return ConfigError(
        f"{query.file} cannot be asked: {original}",
        hint=f"a query is one SELECT; put it right, then: ingestkit query {query.name}",
    )


def _values(query: Query, said: Mapping[str, str], now: datetime) -> dict[str, Any]:
    parameters = {one.name: one for one in query.parameters}
    for name in said:
        if name not in parameters:
            raise UsageError(f"query {query.name} has no parameter {name!r}{nearest(name, parameters)}")
    values: dict[str, Any] = {NOW: now}
    for name, one in parameters.items():
        text = said.get(name, one.default)
        try:
            values[name] = None if text is None else _value(one, text, now)
        except ValueError as error:
            raise UsageError(f"{name}={text}: {error}") from error
    return values


def _value(one: Parameter, text: str, now: datetime) -> object:
    match one.kind:
        case "text":
            return text
        case "integer":
            return int(text)
        case "number":
            return float(text)
        case "instant":
            return moment(text, now)


def _plain(value: Any) -> Any:
    match value:
        case str() if STORED_INSTANT.fullmatch(value):
            return datetime.fromisoformat(value)
        case datetime():
            return value.astimezone(UTC)
        case Decimal():
            return float(value)
        case _:
            return value
