"""Archives of Direct Data replayed in plain Python, archive by archive and row by row: what tables must hold."""

import csv
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

KEYS = {"picklist__sys": ("object", "object_field", "picklist_value_name"), "metadata": ("extract", "column_name")}
HELD = re.compile(r"[+-]?0*\d{1,28}(\.\d{1,10}0*)?")
"""Numbers that 38 digits, 10 of them behind the point, hold as they are."""


@dataclass(slots=True)
class Replay:
    """What each table holds: its rows by key, with the values of its columns by name."""

    drops: bool = True
    """Whether columns and tables that are gone are dropped."""
    marks: bool = False
    """Whether rows that are gone stay, and say when."""
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    columns: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, dict[tuple[str, ...], dict[str, Any]]] = field(default_factory=dict)

    def archive(self, name: str, content: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            files = {one.name: archive.extractfile(one).read().decode() for one in archive if one.isfile()}  # type: ignore[union-attr]
        full = "-F." in name
        manifest = list(csv.DictReader(io.StringIO(files["manifest.csv"], newline="")))
        if full:
            self.rows, self.columns = {}, {}
        said = "Metadata/metadata.csv" if full else "metadata_full.csv"
        for row in self._read(files, said):
            self.types.setdefault(table_of(row["extract"]), {})[row["column_name"]] = row["type"]
        if not full:
            self._columns_go(files)
        for line in manifest:
            if kind_of(line) == "deletes":
                self._delete(line, self._read(files, line["file"]))
        for line in manifest:
            if kind_of(line) == "updates":
                self._write(line, self._read(files, line["file"]) if line["file"] else [])
        if not full:
            self._columns_come(files)

    def _read(self, files: Mapping[str, str], name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(files.get(name, ""), newline="")))

    def _columns_come(self, files: Mapping[str, str]) -> None:
        """Of a new object there may be no row yet; what came and went since the archive before is not there."""
        now = {(row["extract"], row["column_name"]) for row in self._read(files, "metadata_full.csv")}
        for row in self._read(files, "Metadata/metadata.csv"):
            if (row["extract"], row["column_name"]) in now:
                table = table_of(row["extract"])
                self.rows.setdefault(table, {})
                self.columns.setdefault(table, set()).add(row["column_name"])

    def _columns_go(self, files: Mapping[str, str]) -> None:
        again = {(row["extract"], row["column_name"]) for row in self._read(files, "Metadata/metadata.csv")}
        gone = [(row["extract"], row["column_name"]) for row in self._read(files, "Metadata/metadata_deletes.csv")]
        for extract, column in gone:
            table = table_of(extract)
            if (extract, "id") in gone:
                if self.drops:
                    self.rows.pop(table, None)
                    self.columns.pop(table, None)
                continue
            if self.drops or (extract, column) in again:
                for row in self.rows.get(table, {}).values():
                    row.pop(column, None)
                    row.pop(f"{column}_text", None)
            if self.drops:
                self.columns.get(table, set()).discard(column)

    def _delete(self, line: Mapping[str, str], rows: Iterable[Mapping[str, str]]) -> None:
        table = table_of(line["extract"].removesuffix("_deletes"))
        for row in rows:
            key = tuple(row[name] for name in key_of(table))
            if self.marks and key in self.rows.get(table, {}):
                self.rows[table][key]["_deleted_at"] = datetime.fromisoformat(row["deleted_date"]).astimezone(UTC)
            elif not self.marks:
                self.rows.get(table, {}).pop(key, None)

    def _write(self, line: Mapping[str, str], rows: Iterable[Mapping[str, str]]) -> None:
        table = table_of(line["extract"])
        held = self.rows.setdefault(table, {})
        types = self.types.get(table, {})
        known = self.columns.setdefault(table, set(types))
        for row in rows:
            known.update(row)
            key = tuple(row[name] for name in key_of(table))
            values: dict[str, Any] = {}
            for column, text in row.items():
                values |= value_of(table, column, types.get(column, ""), text)
            held[key] = held.get(key, {}) | values | ({"_deleted_at": None} if self.marks else {})


def table_of(extract: str) -> str:
    return extract.rpartition(".")[2]


def key_of(table: str) -> tuple[str, ...]:
    return KEYS.get(table, ("id",))


def kind_of(line: Mapping[str, str]) -> str:
    return "deletes" if line["extract"].endswith("_deletes") else line.get("type") or "updates"


def value_of(table: str, column: str, kind: str, text: str) -> dict[str, Any]:
    """What a cell becomes: a value, and for a number that is too long a text beside it."""
    if kind == "Number" and column not in key_of(table):
        fits = HELD.fullmatch(text) is not None
        return {column: Decimal(text) if fits else None, f"{column}_text": None if fits or not text else text}
    if text == "":
        return {column: None}
    match kind if column not in key_of(table) else "":
        case "Boolean":
            return {column: text == "true"}
        case "Date":
            return {column: date.fromisoformat(text)}
        case "DateTime":
            return {column: datetime.fromisoformat(text).astimezone(UTC)}
    return {column: text}
