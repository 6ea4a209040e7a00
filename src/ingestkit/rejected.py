"""Rejected records as people look at them: read from the lake, with place, reasons and fields."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute
import pyarrow.parquet

from ingestkit.csvencoding import original, original_size
from ingestkit.csvfile import blocks, unpacked
from ingestkit.csvmarks import CARRIAGE_RETURN, line_ends
from ingestkit.csvrecords import split
from ingestkit.errors import ContractError, LakeError
from ingestkit.formats import format_of, opened
from ingestkit.header import folding
from ingestkit.model import Artifact, ArtifactKind, FileVersion, Stage
from ingestkit.session import Session
from ingestkit.settings import Dialect, Model
from ingestkit.states import ledger, quarantine, stage_rows

MASK = "***"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rejects are meant; what is None is not asked about."""

    batch: str | None = None
    model: str | None = None
    column: str | None = None
    code: str | None = None
    path: str | None = None
    run_id: str | None = None

    def named(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in ("batch", "model", "column", "code", "path", "run_id")}

    def shown(self) -> str:
        said = [f"{name} {value}" for name, value in self.named().items() if value is not None]
        return ", ".join(said) or "any"


def records(
    session: Session, wanted: Wanted, statuses: Sequence[str], *, limit: int, reveal: bool
) -> list[dict[str, Any]]:
    """Rejected records with place, reasons and fields; what tells of a person is masked unless `reveal`."""
    with session.state.read() as conn:
        rows = quarantine.chosen(conn, session.pipeline.name, wanted.named(), statuses)
        known = {
            file.id: file
            for file in ledger.versions(conn, session.pipeline.name, sorted({row["batch"] for row in rows}))
        }
        made = {
            key: stage_rows.of_run(conn, key[0])[Stage.VALIDATE, key[1]].work()
            for key in sorted({(row["run_id"], row["model"]) for row in rows})
        }
    found: list[dict[str, Any]] = []
    for (run_id, model), sidecar in made.items():
        reasons = {
            (row["file_id"], row["column"], row["code"])
            for row in rows
            if (row["run_id"], row["model"]) == (run_id, model)
        }
        artifacts = sidecar.work.artifacts if sidecar is not None else ()
        for artifact in artifacts:
            if artifact.kind is ArtifactKind.REJECTS and len(found) < limit:
                read = _read(session, artifact, reasons, limit - len(found))
                found += [
                    _shown(session, known[row["file_id"]], {**row, "run_id": run_id}, artifacts, reveal=reveal)
                    for row in read
                ]
    return found


def _read(
    session: Session, artifact: Artifact, reasons: set[tuple[str, str, str]], most: int
) -> Iterator[dict[str, Any]]:
    """The first records of an artifact that were rejected for one of these reasons."""
    if not session.lake.is_whole(artifact):
        raise LakeError(
            f"the lake no longer holds {artifact.path} as it was made, where the rejected records are",
            hint=f"to make them again: {session.pipeline.done_again(artifact.batch)}",
        )
    with pyarrow.parquet.ParquetFile(session.lake.store.path(artifact.path)) as file:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                if any((row["file_id"], one["column"], one["code"]) in reasons for one in row["errors"]):
                    yield row
                    most -= 1
                if most <= 0:
                    return


def _shown(
    session: Session, file: FileVersion, row: Mapping[str, Any], artifacts: Sequence[Artifact], *, reveal: bool
) -> dict[str, Any]:
    model = file.model or ""
    settings = session.pipeline.model(model)
    hidden = set() if reveal else session.pipeline.personal(model)
    # An error may be of a whole key; of columns that the contract has no more nobody can say what they tell.
    masked = {name: name in hidden for name in settings.columns}
    masked |= {", ".join(settings.key): bool(hidden & set(settings.key))}
    raw, start, length = row.get("raw"), row.get("byte_start"), row.get("byte_length")
    if raw is None and (found := _record_on(session, settings, file, row["line"])) is not None:
        raw, start = found
        length = len(raw)
    number = row["record"] if "record" in row else row["record_no"]
    encoding = "utf-8"
    if raw is None:
        fields = _valid_fields(session, file, artifacts, number)
    else:
        fields, encoding = _taken_apart(session, file, raw)
    errors = [
        {**one, "value": MASK if masked.get(one["column"], bool(hidden)) and one["value"] is not None else one["value"]}
        for one in row["errors"]
    ]
    # A text that cannot be taken apart may hold anything.
    text = None if raw is None else (MASK if hidden else raw.decode(encoding, "backslashreplace"))
    return {
        "batch": file.batch,
        "model": model,
        "path": row["path"],
        "record": number,
        "line": row["line"],
        "byte_start": start,
        "byte_length": length,
        "run_id": row["run_id"],
        "errors": errors,
        "fields": None if fields is None else {k: MASK if k in hidden and v else v for k, v in fields.items()},
        "raw": text,
    }


def _taken_apart(session: Session, file: FileVersion, raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The record by the contract's names, or None where it is no record of its file's header; and its encoding."""
    settings = session.pipeline.model(file.model or "")
    names, encoding = _written(session, settings, file)
    try:
        if format_of(settings, file.path) == "csv":
            [values] = csv.reader([raw.decode(encoding)], strict=True, **_spoken(settings.csv))
            found = dict(zip(names, values, strict=True))
        else:
            found = json.loads(raw, parse_int=str, parse_float=str)
    except (ValueError, csv.Error):
        return None, encoding
    if not isinstance(found, dict):
        return None, encoding
    # Whoever masks a column must find it however its file spells it.
    folded = folding(settings, file.model or "")
    known = {folded(name): name for name in settings.columns}
    return {known.get(folded(name), name): value for name, value in found.items()}, encoding


def _written(session: Session, settings: Model, file: FileVersion) -> tuple[tuple[str, ...], str]:
    """The names in a text file's header, none where that cannot be read, and its encoding."""
    limit = session.pipeline.settings.validation.max_record_lines
    if format_of(settings, file.path) != "csv" or file.raw is None or session.lake.store.stat(file.raw) is None:
        return (), "utf-8"
    try:
        with session.lake.open(file.raw) as stream, unpacked(file.path, stream) as content:
            text = opened(settings, file.path, content, limit)
    except ContractError:
        return (), settings.csv.encoding
    return text.names, text.encoding


def _record_on(session: Session, settings: Model, file: FileVersion, line: int) -> tuple[bytes, int] | None:
    """The valid record that begins on a line of a text file, and its first byte; None where there are no lines."""
    limit = session.pipeline.settings.validation.max_record_lines
    kind = format_of(settings, file.path)
    if kind == "parquet" or file.raw is None or session.lake.store.stat(file.raw) is None:
        return None
    with session.lake.open(file.raw) as stream, unpacked(file.path, stream) as content:
        text = opened(settings, file.path, content, limit)
        for block in blocks(text):
            behind = line - block.line
            if not 0 <= behind < block.records.line_count:
                continue
            ends = line_ends(block.data, block.newline, at_end=True)
            start = int(ends[behind - 1]) + 1 if behind else 0
            data = block.data[start:]
            found = split(data, text.marks, at_end=True, max_lines=limit)
            record = data[: int(found.ends[0])]
            record = record.removesuffix(b"\r") if block.newline != CARRIAGE_RETURN else record
            return original(record, text.encoding), block.byte + original_size(block.data, start, text.encoding)
    return None


def _spoken(dialect: Dialect) -> dict[str, Any]:
    """The dialect as Python's reader is told of it."""
    quoted = {"quoting": csv.QUOTE_NONE} if dialect.quote == "none" else {"quotechar": dialect.quote}
    escaped = {"doublequote": False, "escapechar": "\\"} if dialect.escape == "backslash" else {}
    return {"delimiter": dialect.delimiter, **quoted, **escaped}


def _valid_fields(
    session: Session, file: FileVersion, artifacts: Sequence[Artifact], number: int
) -> dict[str, Any] | None:
    """A record that lost for its key is among the valid ones, and left out by its number."""
    for one in artifacts:
        if one.kind is ArtifactKind.VALID and one.file_id == file.id and session.lake.is_whole(one):
            path = session.lake.store.path(one.path)
            table = pyarrow.parquet.read_table(path, filters=pyarrow.compute.field("_record_no") == number)
            rows: list[dict[str, Any]] = table.to_pylist()
            if not rows:
                return None
            named = ((name, value) for name, value in rows[0].items() if not name.startswith("_"))
            return {name: None if value is None else str(value) for name, value in named}
    return None
