"""Statements as far as the double must understand them: what they are, which table they change, their options."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.doubles.snowflake.answers import compilation

NAME: Final = r'(?:"(?:[^"]|"")*"|[\w$]+)'
QUALIFIED: Final = rf"{NAME}(?:\.{NAME}){{0,2}}"
COMMENTS: Final = re.compile(r"^(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)+", re.DOTALL)
TARGETS: Final = (
    rf"INSERT\s+(?:OVERWRITE\s+)?INTO\s+(?P<t>{QUALIFIED})",
    rf"UPDATE\s+(?P<t>{QUALIFIED})",
    rf"DELETE\s+FROM\s+(?P<t>{QUALIFIED})",
    rf"MERGE\s+INTO\s+(?P<t>{QUALIFIED})",
    rf"TRUNCATE\s+(?:TABLE\s+)?(?:IF\s+EXISTS\s+)?(?P<t>{QUALIFIED})",
    rf"COPY\s+INTO\s+(?P<t>{QUALIFIED})",
    rf"(?:CREATE|ALTER|DROP)\s.*?\b(?:TABLE|VIEW)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<t>{QUALIFIED})",
)
TARGET: Final = tuple(re.compile(pattern, re.IGNORECASE | re.DOTALL) for pattern in TARGETS)
TOKEN: Final = re.compile(r"""\s*(?:('(?:[^'\\]|''|\\.)*')|("(?:[^"]|"")*")|([=(),])|([^\s=(),'"]+))""", re.DOTALL)
WRITTEN: Final = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}

Name = tuple[str, str, str]
"""Database, schema and what it names there."""
Options = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """One statement, without what stands before its first word and behind its last."""

    text: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(re.findall(r"[\w$@%~]+", self.text[:200].upper())[:6])

    @property
    def kind(self) -> str:
        """What it does, as the rules of transactions see it."""
        first, second = (*self.words, "", "")[:2]
        if first in {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY"}:
            return first
        if first in {"BEGIN", "START"}:
            return "BEGIN"
        if first in {"COMMIT", "ROLLBACK", "PUT", "LIST", "LS", "REMOVE", "RM", "SHOW", "USE"}:
            return {"LS": "LIST", "RM": "REMOVE"}.get(first, first)
        if first in {"DESC", "DESCRIBE"}:
            return "DESCRIBE"
        if first == "ALTER" and second == "SESSION":
            return "SESSION"
        if first in {"CREATE", "ALTER", "DROP", "UNDROP", "GRANT", "REVOKE", "COMMENT"}:
            return "DDL"
        return "QUERY"

    @property
    def changes(self) -> bool:
        """Whether it is part of a transaction by what it changes; TRUNCATE is."""
        return self.kind in {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY"}

    @property
    def looks_into_schemas(self) -> bool:
        """Whether it speaks of what lies in the schema of a session."""
        if self.kind == "SHOW":
            return self.words[1] in {"TABLES", "STAGES", "GRANTS", "STREAMS"} and "USER" not in self.words
        if self.kind == "QUERY":
            return re.search(r"\bFROM\b", self.text, re.IGNORECASE) is not None
        return self.changes or self.kind in {"DDL", "PUT", "LIST", "REMOVE"}

    @property
    def target(self) -> str | None:
        found = (pattern.match(self.text) for pattern in TARGET)
        return next((match["t"] for match in found if match), None)

    def about(self, what: str) -> bool:
        """Whether it creates, alters or drops such a thing."""
        return (
            self.kind == "DDL" and re.match(rf"\w+\s+(?:\w+\s+){{0,4}}?{what}\b", self.text, re.IGNORECASE) is not None
        )


def statement(sql: str) -> Statement:
    return Statement(COMMENTS.sub("", sql).strip().rstrip(";").rstrip())


def resolved(name: str, database: str | None, schema: str | None) -> Name:
    """What a name means in a session: unquoted parts are upper case."""
    parts = [_identifier(part) for part in re.findall(NAME, name)]
    where = [database, schema][: 3 - len(parts)]
    if None in where:
        raise compilation("Cannot perform operation. This session does not have a current database.", 90105, "22000")
    whole = [*(str(part) for part in where), *parts]
    return whole[0], whole[1], whole[2]


def dotted(name: Name) -> str:
    return ".".join(name)


def quoted(name: Name) -> str:
    return ".".join(identifier(part) for part in name)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def options(text: str) -> Options:
    """`A = 1 B = ('x', 'y') C = (D = 'z')` as values; names are upper case."""
    tokens = [next(part for part in found if part) for found in TOKEN.findall(text)]
    read, rest = _options(tokens)
    if rest:
        raise compilation(f"syntax error: unexpected '{rest[0]}'.")
    return read


def _options(tokens: list[str]) -> tuple[Options, list[str]]:
    read: Options = {}
    while tokens and tokens[0] != ")":
        if tokens[0] == ",":
            tokens = tokens[1:]
            continue
        if len(tokens) < 3 or tokens[1] != "=":
            raise compilation(f"syntax error: unexpected '{tokens[0]}'.")
        name, tokens = tokens[0].upper(), tokens[2:]
        read[name], tokens = _value(tokens)
    return read, tokens


def _value(tokens: list[str]) -> tuple[Any, list[str]]:
    if tokens[0] != "(":
        return plain(tokens[0]), tokens[1:]
    if tokens[2:3] == ["="]:
        inner, rest = _options(tokens[1:])
        return inner, rest[1:]
    end = tokens.index(")")
    return [plain(token) for token in tokens[1:end] if token != ","], tokens[end + 1 :]


def plain(token: str) -> str:
    if not token.startswith("'"):
        return token
    inner = token[1:-1].replace("''", "'")
    return re.sub(r"\\.", lambda found: WRITTEN.get(found[0], found[0][1]), inner)


def _identifier(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.upper()


def true(options: Options, name: str, *, otherwise: bool = False) -> bool:
    return str(options.get(name, otherwise)).upper() == "TRUE"
