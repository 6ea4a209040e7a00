"""Which records of a model say a key, or a unique value, that an earlier record has said; the first one stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ingestkit.columnsql import literal, quoted
from ingestkit.contract import ERRORS, RECORD_NUMBER
from ingestkit.csvmarks import Positions
from ingestkit.lake import HashingWriter
from ingestkit.model import Artifact, ArtifactKind, FileVersion, sha256_of
from ingestkit.pipeline import RunContext
from ingestkit.settings import LINE
from ingestkit.stages.validate_engine import Engine, parquet
from ingestkit.stages.validate_file import Facts, artifact_of, parquet_into

COMPARED = b"ingestkit.compared"
BATCH = 65_536
SORTED = 8_000_000
"""Up to so many hashes are sorted in memory: 64 MB."""
PLACE = f"(_position::HUGEINT << 64) + {RECORD_NUMBER}"
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
    repeated = [unique for unique in _in_order(engine) if _repeats(engine, unique, candidates)]
    if not repeated:
        return None, False
    place = ctx.place(model)
    name = ctx.lake.made_name("rejects", place, ctx.batch, f"keys-{compared[:12]}.parquet")

    def fill(into: HashingWriter) -> None:
        with parquet_into(into, LOSERS.with_metadata({COMPARED: compared.encode()})) as writer:
            for some in _losers(engine, repeated, candidates):
                writer.write_table(some)

    return artifact_of(ctx, model, None, ArtifactKind.REJECTS, ctx.lake.publish(place, name, fill)), True


def _compared(ctx: RunContext, artifact: Artifact) -> str | None:
    if artifact.kind is not ArtifactKind.REJECTS or not ctx.holds(artifact):
        return None
    found = pyarrow.parquet.read_metadata(ctx.lake.store.path(artifact.path)).metadata or {}
    return found[COMPARED].decode() if COMPARED in found else None


def _in_order(engine: Engine) -> list[tuple[str, ...]]:
    """The sets of columns whose values may occur once, in the order in which a record's errors are told."""
    key = engine.contract.key
    return sorted(engine.contract.unique, key=lambda unique: (unique == key, ", ".join(unique)))


def _repeats(engine: Engine, unique: tuple[str, ...], candidates: Sequence[Candidate]) -> bool:
    """Whether any value of these columns occurs twice."""
    if not candidates:
        return False
    hashes = f"SELECT hash({_listed(unique)}) AS hash FROM ({_union(unique, candidates)})"
    with engine.connection() as db:
        # Equal values have equal hashes; that none occurs twice is told in a fraction of the time and of the memory.
        if sum(one.valid.rows or 0 for one in candidates) <= SORTED:
            found = np.sort(db.sql(hashes).fetchnumpy()["hash"])
            suspected = bool((found[1:] == found[:-1]).any())
        else:
            suspected = _any(db, f"SELECT 1 FROM ({hashes}) GROUP BY hash HAVING count(*) > 1")
        return suspected and _any(db, _repeated(unique, candidates))


def _any(db: duckdb.DuckDBPyConnection, query: str) -> bool:
    return bool(db.sql(f"SELECT 1 FROM ({query}) LIMIT 1").fetchall())


def _repeated(unique: tuple[str, ...], candidates: Sequence[Candidate]) -> str:
    """SQL of the values that occur more than once, each with the place of its first record."""
    listed = _listed(unique)
    return (
        f"SELECT {listed}, min({PLACE}) AS _first FROM ({_union(unique, candidates)}) "
        f"GROUP BY {listed} HAVING count(*) > 1"
    )


def _union(unique: tuple[str, ...], candidates: Sequence[Candidate]) -> str:
    """SQL of these columns of all files, with the place of each record."""
    present = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in unique)
    return " UNION ALL ".join(
        f"SELECT {_listed(unique)}, {RECORD_NUMBER}, "
        f"coalesce({LINE}, {RECORD_NUMBER} + {one.facts.lines_before}) AS {LINE}, {position} AS _position "
        f"FROM {parquet(one.path)} WHERE {present}"
        for position, one in enumerate(candidates)
    )


def _listed(unique: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, unique))


def _losers(engine: Engine, several: Sequence[tuple[str, ...]], candidates: Sequence[Candidate]) -> Iterator[pa.Table]:
    """The records that lose, in the order of files and records, each with all of its errors.

    Set by set into files first, and by grouping, joining and sorting alone: of these each spills what memory lacks.
    """
    paths = [engine.folder / f"{number}.losers.parquet" for number in range(len(several))]
    with engine.connection() as db:
        for number, (unique, path) in enumerate(zip(several, paths, strict=True)):
            value = f"concat_ws(', ', {', '.join(f'{quoted(name)}::VARCHAR' for name in unique)})"
            db.execute(
                f"COPY (SELECT _position, {RECORD_NUMBER} AS record_no, {LINE} AS line, {number} AS _set, "
                f"{value} AS value FROM ({_union(unique, candidates)}) JOIN ({_repeated(unique, candidates)}) "
                f"USING ({_listed(unique)}) WHERE {PLACE} > _first) TO {literal(str(path))} (FORMAT parquet)"
            )
        source = " UNION ALL ".join(f"SELECT * FROM {parquet(path)}" for path in paths)
        found = db.sql(f"SELECT * FROM ({source}) ORDER BY _position, record_no, _set").to_arrow_reader(BATCH)
        left: pa.Table | None = None
        for batch in found:
            rows = pa.Table.from_batches([batch])
            rows = rows if left is None else pa.concat_tables([left, rows])
            # The last record may have further errors in the next batch.
            begins = _begins(rows)
            left = rows.slice(begins[-1])
            if begins[-1]:
                yield _told(engine, several, candidates, rows.slice(0, begins[-1]))
        if left is not None:
            yield _told(engine, several, candidates, left)


def _begins(rows: pa.Table) -> Positions:
    """Where the rows of each record begin."""
    position, record = (rows.column(name).to_numpy() for name in ("_position", "record_no"))
    differs = (position[1:] != position[:-1]) | (record[1:] != record[:-1])
    return np.concatenate(([0], np.flatnonzero(differs) + 1))


def _told(
    engine: Engine, several: Sequence[tuple[str, ...]], candidates: Sequence[Candidate], rows: pa.Table
) -> pa.Table:
    """Losing records with their errors, from rows of one error each."""
    key = engine.contract.key
    sets = rows.column("_set").combine_chunks()
    told = [
        [", ".join(unique) for unique in several],
        ["duplicate_key" if unique == key else "duplicate" for unique in several],
        [f"an earlier record has the same {'key' if unique == key else 'value'}" for unique in several],
    ]
    parts = [pa.array(one, pa.string()).take(sets) for one in told]
    errors = pa.StructArray.from_arrays(
        [*parts, rows.column("value").combine_chunks()], names=["column", "code", "message", "value"]
    )
    begins = _begins(rows)
    first = rows.take(pa.array(begins))
    files = first.column("_position")
    offsets = pa.array(np.append(begins, rows.num_rows), pa.int32())
    return pa.table(
        {
            "file_id": pa.array([one.file.id for one in candidates], pa.string()).take(files),
            "path": pa.array([one.file.path for one in candidates], pa.string()).take(files),
            "record_no": first.column("record_no").cast(pa.int64()),
            "line": first.column("line").cast(pa.int64()),
            "errors": pa.ListArray.from_arrays(offsets, errors).cast(ERRORS),
        },
        schema=LOSERS,
    )
