"""Which records of a model say a key, or a unique value, that an earlier record has said; the first one stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ingestkit.columnsql import literal, quoted
from ingestkit.contract import ERRORS, RECORD_NUMBER
from ingestkit.lake import HashingWriter, made_name
from ingestkit.model import Artifact, ArtifactKind, FileVersion, sha256_of
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_engine import Engine, parquet
from ingestkit.stages.validate_file import Facts, artifact_of, parquet_into

COMPARED = b"ingestkit.compared"
LOSERS = pa.schema(
    [
        ("file_id", pa.string()),
        ("path", pa.string()),
        ("record_no", pa.int64()),
        ("line", pa.int64()),
        ("errors", ERRORS),
    ]
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file's valid rows, as they take part in the comparison."""

    file: FileVersion
    valid: Artifact
    path: Path
    facts: Facts


def keys_artifact(
    ctx: RunContext, model: str, candidates: Sequence[Candidate], known: Sequence[Artifact], engine: Engine
) -> tuple[Artifact | None, bool]:
    """The artifact of the records that lose, or None where none does; and whether it had to be made."""
    compared = sha256_of([[one.file.id, one.valid.sha256] for one in candidates])
    for artifact in known:
        if artifact.file_id is None and _compared(ctx, artifact) == compared:
            return artifact, False
    groups = [group for unique in engine.contract.unique if (group := _repeated(engine, unique, candidates))]
    if not groups:
        return None, False
    place = ctx.place(model)
    name = made_name("rejects", place, ctx.batch, f"keys-{compared[:12]}.parquet")

    def fill(into: HashingWriter) -> None:
        found = _losers(engine, groups, candidates)
        with parquet_into(into, LOSERS.with_metadata({COMPARED: compared.encode()})) as writer:
            writer.write_table(found)

    return artifact_of(ctx, model, None, ArtifactKind.REJECTS, ctx.lake.publish(place, name, fill)), True


def _compared(ctx: RunContext, artifact: Artifact) -> str | None:
    if artifact.kind is not ArtifactKind.REJECTS or not ctx.lake.holds(artifact.path, artifact.bytes):
        return None
    found = pyarrow.parquet.read_metadata(ctx.lake.store.path(artifact.path)).metadata or {}
    return found[COMPARED].decode() if COMPARED in found else None


def _repeated(engine: Engine, unique: tuple[str, ...], candidates: Sequence[Candidate]) -> str | None:
    """SQL of the losers of one set of columns, or None where its values occur once each."""
    if not candidates:
        return None
    names = [quoted(name) for name in unique]
    listed = ", ".join(names)
    present = " AND ".join(f"{name} IS NOT NULL" for name in names)
    union = " UNION ALL ".join(
        f"SELECT {listed}, {RECORD_NUMBER}, coalesce({LINE}, {RECORD_NUMBER} + {one.facts.lines_before}) AS {LINE}, "
        f"{position} AS _position FROM {parquet(one.path)} WHERE {present}"
        for position, one in enumerate(candidates)
    )
    repeated = f"SELECT {listed} FROM ({union}) GROUP BY ALL HAVING count(*) > 1"
    with engine.connection() as db:
        if not db.sql(f"SELECT 1 FROM ({repeated}) LIMIT 1").fetchall():
            return None
    column = literal(", ".join(unique))
    code, what = ("duplicate_key", "key") if unique == engine.contract.key else ("duplicate", "value")
    error = (
        f"{{'column': {column}, 'code': '{code}', 'message': 'an earlier record has the same {what}', "
        f"'value': concat_ws(', ', {', '.join(f'{name}::VARCHAR' for name in names)})}}"
    )
    again = f"SELECT * FROM ({union}) SEMI JOIN ({repeated}) USING ({listed})"
    order = f"row_number() OVER (PARTITION BY {listed} ORDER BY _position, {RECORD_NUMBER})"
    return f"SELECT _position, {RECORD_NUMBER}, {LINE}, {error} AS error FROM ({again}) QUALIFY {order} > 1"


def _losers(engine: Engine, groups: Sequence[str], candidates: Sequence[Candidate]) -> pa.Table:
    statement = (
        f"SELECT _position, {RECORD_NUMBER} AS record_no, {LINE} AS line, "
        f"list(error ORDER BY error.code, error.column) AS errors "
        f"FROM ({' UNION ALL '.join(groups)}) GROUP BY ALL ORDER BY ALL"
    )
    with engine.connection() as db:
        found = db.sql(statement).to_arrow_table()
    files = [one.file for one in candidates]
    taken = found.column("_position")
    return pa.table(
        {
            "file_id": pa.array([file.id for file in files], pa.string()).take(taken),
            "path": pa.array([file.path for file in files], pa.string()).take(taken),
            "record_no": found.column("record_no").cast(pa.int64()),
            "line": found.column("line").cast(pa.int64()),
            "errors": found.column("errors").cast(ERRORS),
        },
        schema=LOSERS,
    )
