"""COPY INTO a table: which files of a stage are loaded, what is wrong with their rows, and what is answered."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fakesnow.cursor import FakeSnowflakeCursor

from tests.doubles.snowflake import formats, transforming
from tests.doubles.snowflake.answers import Data, Refused, compilation, rows, told
from tests.doubles.snowflake.columns import Column, Wrong, columns_of
from tests.doubles.snowflake.engine import home
from tests.doubles.snowflake.formats import Source
from tests.doubles.snowflake.reading import (
    NAME,
    QUALIFIED,
    Name,
    Options,
    Statement,
    identifier,
    options,
    quoted,
    resolved,
    true,
)
from tests.doubles.snowflake.stages import PLACE, Staged

COPY: Final = re.compile(
    rf"COPY\s+INTO\s+(?P<table>{QUALIFIED})\s*(?:\((?P<columns>\s*{NAME}(?:\s*,\s*{NAME})*)\s*\))?\s*"
    rf"FROM\s+(?:\(\s*SELECT\s(?P<select>.*?)\sFROM\s+(?P<inner>'@[^']*'|{PLACE})\s*(?:(?:AS\s+)?(?P<alias>\w+)\s*)?\)"
    rf"|(?P<place>'@[^']*'|{PLACE}))\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
NOTHING: Final = "Copy executed with 0 files processed."
ANSWERED: Final = (
    "file",
    "status",
    "rows_parsed",
    "rows_loaded",
    "error_limit",
    "errors_seen",
    "first_error",
    "first_error_line",
    "first_error_character",
    "first_error_column_name",
)
COUNTS: Final = (*ANSWERED[2:6], *ANSWERED[7:9])
KNOWN: Final = frozenset({
    "ENFORCE_LENGTH",
    "FILES",
    "FILE_FORMAT",
    "FORCE",
    "LOAD_UNCERTAIN_FILES",
    "MATCH_BY_COLUMN_NAME",
    "ON_ERROR",
    "PATTERN",
    "PURGE",
    "RETURN_FAILED_ONLY",
    "SIZE_LIMIT",
    "TRUNCATECOLUMNS",
})  # fmt: skip
MOST_FILES: Final = 1000
KIND: Final = 0x3600
GO_ON: Final = (
    "If you would like to continue loading when an error is encountered, use other values such as "
    "'SKIP_FILE' or 'CONTINUE' for the ON_ERROR option."
)


@dataclass(frozen=True, slots=True)
class Copy:
    """What a COPY statement asks for."""

    table: str
    columns: tuple[str, ...]
    place: str
    said: Options
    select: str | None = None
    """What is made of the columns of a file, by `$1:name`, where anything is."""

    @property
    def on_error(self) -> str:
        return str(self.said.get("ON_ERROR", "ABORT_STATEMENT")).upper()

    @property
    def by_name(self) -> str:
        return str(self.said.get("MATCH_BY_COLUMN_NAME", "NONE")).upper()


def read(asked: Statement) -> Copy:
    found = COPY.match(asked.text)
    if found is None:
        raise compilation("the double does not understand this COPY")
    said = options(found["rest"])
    if unknown := set(said) - KNOWN:
        raise compilation(f"invalid parameter '{min(unknown)}'", 1008, "22023")
    if len(said.get("FILES", ())) > MOST_FILES:
        raise compilation(f"The number of files exceeds the limit of {MOST_FILES}.", 1019, "22023")
    columns = re.findall(NAME, found["columns"] or "")
    select = found["select"]
    if select is not None and "MATCH_BY_COLUMN_NAME" in said:
        raise compilation("MATCH_BY_COLUMN_NAME is not supported for a COPY that transforms.")
    if select is not None:
        transforming.look(select)
    if select is not None and found["alias"]:
        select = re.sub(rf"\b{found['alias']}\.(?=\$|METADATA)", "", select, flags=re.IGNORECASE)
    return Copy(found["table"], tuple(columns), found["inner"] or found["place"], said, select)


def chosen(copy: Copy, path: str, there: Sequence[Staged]) -> list[Staged]:
    """The files it names, in its order, or those whose names begin with its path."""
    if "FILES" not in copy.said:
        pattern = re.compile(str(copy.said.get("PATTERN", ".*")))
        return [one for one in there if pattern.fullmatch(one.path)]
    by_path = {one.path: one for one in there}
    prefix = f"{path.rstrip('/')}/" if path else ""
    wanted = [f"{prefix}{name}" for name in copy.said["FILES"]]
    if (lacking := next((name for name in wanted if name not in by_path), None)) and copy.on_error == "ABORT_STATEMENT":
        said = f"Remote file '{lacking}' was not found. There are several potential causes. The file might not exist."
        raise Refused(91_016, "22000", f"{said} {GO_ON}")
    return [by_path[name] for name in dict.fromkeys(wanted) if name in by_path]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is answered, the statements that loaded it, and the contents of the files by their names."""

    answer: Data
    statements: list[str]
    contents: dict[str, str]


@dataclass(frozen=True, slots=True)
class Loading:
    """One COPY under way in the transaction of a session."""

    cursor: FakeSnowflakeCursor
    copy: Copy
    table: Name
    format: Options
    kept: Path

    def load(self, files: Sequence[Staged], known: dict[str, str]) -> Loaded:
        """`known` are the files that the table's load metadata has, with their contents."""
        contents = {one.path: one.content for one in files}
        force = true(self.copy.said, "FORCE")
        fresh = [one for one in files if force or known.get(one.path) != contents[one.path]]
        if not fresh:
            return Loaded(told(NOTHING), [], {})
        columns = self._columns()
        statements: list[str] = []
        said: list[tuple[object, ...]] = []
        for one in files:
            if one in fresh:
                said.append(self._file(one, columns, statements))
            else:
                said.append((one.shown, "LOAD_SKIPPED", 0, 0, None, 1, "File was loaded before.", None, None, None))
        for statement in statements:
            self.cursor._duck_conn.execute(statement)
        loaded = {one.path: contents[one.path] for one, row in zip(files, said, strict=True) if row[3]}
        return Loaded(rows(ANSWERED, said, COUNTS, KIND), statements, loaded)

    def _file(self, one: Staged, columns: Sequence[Column], statements: list[str]) -> tuple[object, ...]:
        """The answer for a file; what loads it is added to the statements."""
        found = self._source(one, columns)
        source, values = found.sql, found.values
        kind = str(self.format.get("TYPE", "CSV")).upper()
        checks = [
            (wrong, column.name, values[column.name])
            for column in columns
            for wrong in column.wrong(values[column.name], kind)
        ]
        anything = " OR ".join(f"({wrong.condition})" for wrong, *_ in checks)
        parsed, bad = self._asked(f"SELECT count(*), count(*) FILTER ({anything}) FROM {source}")
        first: tuple[object, ...] = (None, None, None, None)
        if bad:
            wrong, first = self._first(source, anything, checks)
            if self.copy.on_error == "ABORT_STATEMENT":
                raise Refused(wrong.code, wrong.state, f"{first[0]}\n  {self._where(one, first)}\n  {GO_ON}")
        skipped = bad and (self.copy.on_error.startswith("SKIP_FILE") or bad == parsed)
        if not skipped:
            names = ", ".join(identifier(column.name) for column in columns)
            taken = ", ".join(column.cast(values[column.name]) for column in columns)
            chosen_rows = f" WHERE NOT coalesce({anything}, false)" if bad else ""
            where = quoted(home(self.cursor._duck_conn, self.table))
            statements.append(f"INSERT INTO {where} ({names}) SELECT {taken} FROM {source}{chosen_rows}")
        status = "LOAD_FAILED" if skipped else "PARTIALLY_LOADED" if bad else "LOADED"
        limit = parsed if self.copy.on_error == "CONTINUE" else 1
        return (one.shown, status, parsed, 0 if skipped else parsed - bad, limit, bad, *first)

    def _where(self, one: Staged, first: Sequence[object]) -> str:
        """Of a SELECT the service names what it reads, and not the column that it is for; rows begin with 0 here."""
        row, column = first[1], first[3]
        if self.copy.select is not None:
            row, column = int(str(row)) - 1, '"TRANSIENT_STAGE_TABLE"["$1":1]'
        return f"File '{one.path}', line {row}, character {first[2]}\n  Row {row}, column {column}"

    def _first(
        self, source: str, anything: str, checks: Sequence[tuple[Wrong, str, str]]
    ) -> tuple[Wrong, tuple[object, ...]]:
        numbered = f"(SELECT row_number() OVER () AS row_of_file, * FROM {source})"
        for wrong, name, value in checks:
            asked = (
                f"SELECT row_of_file, CAST({value} AS VARCHAR), ({wrong.condition}) FROM {numbered} WHERE {anything}"
            )
            line, shown, found = self._asked(f"{asked} ORDER BY 1 LIMIT 1")
            if found:
                return wrong, (wrong.message.replace("{}", str(shown)), line, 1, f'"{self.table[2]}"["{name}"]')
        raise AssertionError("a row is wrong, and nothing in it")

    def _source(self, one: Staged, columns: Sequence[Column]) -> Source:
        """How DuckDB reads the file, and what the file has for each column."""
        # A transaction may have to load it again after it is gone from the stage.
        handle, name = tempfile.mkstemp(suffix="".join(one.file.suffixes), dir=self.kept)
        os.close(handle)
        Path(name).unlink()
        os.link(one.file, name)
        kind = str(self.format.get("TYPE", "CSV")).upper()
        if kind == "PARQUET" and self.copy.select is not None:
            return formats.transformed(self.cursor, name, one.path, self.copy.select, columns, self.format)
        if kind == "PARQUET":
            return formats.parquet(self.cursor._duck_conn, name, columns, self.format, self.copy.by_name)
        if kind == "CSV" and self.copy.by_name == "NONE" and self.copy.select is None:
            return formats.csv(name, columns, self.format)
        raise compilation(f"the double does not load {kind} so")

    def _columns(self) -> list[Column]:
        """The table's columns, or those the statement names."""
        by_name = columns_of(self.cursor._duck_conn, self.table)
        if not self.copy.columns:
            return [*by_name.values()]
        return [by_name[resolved(name, "", "")[2]] for name in self.copy.columns]

    def _asked(self, sql: str) -> tuple[Any, ...]:
        found = self.cursor._duck_conn.execute(sql).fetchone()
        if found is None:
            raise AssertionError(sql)
        return tuple(found)
