"""The ledger of files and artifacts: what is asked of `file_manifest` and `artifact`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from ingestkit.model import Artifact, ArtifactKind, FileStatus, FileVersion
from ingestkit.states import rows
from ingestkit.states.tables import artifact, file_manifest

IN_SET = (FileStatus.LANDED, FileStatus.VALIDATED, FileStatus.LOADED)
"""The statuses of versions that stand for their path in the batch's file set."""

STANDING = (*IN_SET, FileStatus.SUPERSEDED)
"""Superseded content is still what its path holds: of its own newer version, or beside a newer batch."""

UNPUBLISHED = (FileStatus.SEEN, FileStatus.LANDED, FileStatus.VALIDATED, FileStatus.QUARANTINED)
"""What a version may be before its first publish."""

REMOVING = "removing"
"""Let go of by a clean that may not have come to it: nobody reads it, and who comes next ends that first."""

GONE = (REMOVING, "removed")

CHUNK = 500

# Asked at each stage of a run, so that they are made once.
VERSIONS = (
    sql.select(file_manifest)
    .where(
        file_manifest.c.pipeline == sql.bindparam("of"),
        file_manifest.c.batch.in_(sql.bindparam("some", expanding=True)),
    )
    .order_by(file_manifest.c.path, file_manifest.c.version)
)
ARTIFACTS = (
    sql.select(artifact)
    .where(
        artifact.c.pipeline == sql.bindparam("of"),
        artifact.c.batch.in_(sql.bindparam("some", expanding=True)),
        artifact.c.model.in_(sql.bindparam("models", expanding=True)),
        artifact.c.kind.in_(sql.bindparam("kinds", expanding=True)),
        artifact.c.status.not_in(GONE),
    )
    .order_by(artifact.c.path)
)


def versions(conn: sql.Connection, pipeline: str, batches: Sequence[str]) -> list[FileVersion]:
    """All versions of all files of these batches, by path and version."""
    found: list[FileVersion] = []
    for start in range(0, len(batches), CHUNK):
        found.extend(_files(conn, VERSIONS, {"of": pipeline, "some": batches[start : start + CHUNK]}))
    return found


def versions_at(conn: sql.Connection, pipeline: str, batch: str, at: datetime) -> list[FileVersion]:
    """The versions of a batch's files that were seen before an instant and landed, as they stood then.

    One forgotten since stood then; one skipped never was content of its path.
    """
    columns = file_manifest.c
    seen = (columns.pipeline == pipeline, columns.batch == batch, columns.sighted_at < at)
    query = sql.select(file_manifest).where(*seen, columns.status != FileStatus.SKIPPED.value)
    forgotten = sql.select(columns.id).where(*seen, columns.status == FileStatus.FORGOTTEN.value, columns.at < at)
    gone = set(conn.execute(forgotten).scalars())
    found = []
    for file in _files(conn, query.order_by(columns.path, columns.version)):
        stood = file.status is FileStatus.FORGOTTEN and file.id not in gone
        if file.raw is not None or file.id in gone:
            found.append(replace(file, status=FileStatus.LANDED) if stood else file)
    return found


def of_path(conn: sql.Connection, pipeline: str, path: str) -> list[FileVersion]:
    query = (
        sql.select(file_manifest)
        .where(file_manifest.c.pipeline == pipeline, file_manifest.c.path == path)
        .order_by(file_manifest.c.version)
    )
    return _files(conn, query)


def newest_of(conn: sql.Connection, pipeline: str, paths: Sequence[str]) -> list[FileVersion]:
    """The newest version of each of these paths that the ledger knows, whatever its batch."""
    found: list[FileVersion] = []
    for start in range(0, len(paths), CHUNK):
        columns = file_manifest.c
        query = sql.select(file_manifest).where(
            columns.pipeline == pipeline, columns.path.in_(paths[start : start + CHUNK])
        )
        found.extend(latest(_files(conn, query)).values())
    return found


def of_ids(conn: sql.Connection, pipeline: str, ids: Sequence[str]) -> list[FileVersion]:
    """The versions with these ids."""
    found: list[FileVersion] = []
    columns = file_manifest.c
    for start in range(0, len(ids), CHUNK):
        query = sql.select(file_manifest).where(
            columns.pipeline == pipeline, columns.id.in_(ids[start : start + CHUNK])
        )
        found.extend(_files(conn, query))
    return found


def is_unpublished(file: FileVersion) -> bool:
    """A version that no publish has taken yet, whether it landed or not."""
    return file.loaded is None and file.status in UNPUBLISHED


def forgotten_at(conn: sql.Connection, pipeline: str, batch: str, model: str) -> datetime | None:
    """When the last file of a batch was forgotten: as of then it stood."""
    columns = file_manifest.c
    query = sql.select(sql.func.max(columns.at)).where(
        columns.pipeline == pipeline,
        columns.batch == batch,
        columns.model == model,
        columns.status == FileStatus.FORGOTTEN.value,
    )
    found: datetime | None = conn.execute(query).scalar()
    return found


def unpublished(conn: sql.Connection, pipeline: str, *, up_to: str | None = None) -> list[FileVersion]:
    """The newest versions that no publish has taken yet, of all batches or up to one; keys sort as the batches do."""
    columns = file_manifest.c
    newer = file_manifest.alias()
    superseded = sql.select(sql.literal(1)).where(
        newer.c.pipeline == pipeline, newer.c.path == columns.path, newer.c.version > columns.version
    )
    query = sql.select(file_manifest).where(
        columns.pipeline == pipeline,
        *([columns.batch <= up_to] if up_to is not None else []),
        columns.status.in_([one.value for one in UNPUBLISHED]),
        columns.loaded.is_(None),
        ~sql.exists(superseded),
    )
    return _files(conn, query.order_by(columns.path))


def quarantined(conn: sql.Connection, pipeline: str) -> list[FileVersion]:
    """The newest versions of files that are kept whole in quarantine, those of no model among them."""
    columns = file_manifest.c
    newest = (
        sql.select(columns.path, sql.func.max(columns.version).label("version"))
        .where(columns.pipeline == pipeline)
        .group_by(columns.path)
        .subquery()
    )
    query = (
        sql.select(file_manifest)
        .join(newest, sql.and_(columns.path == newest.c.path, columns.version == newest.c.version))
        .where(columns.pipeline == pipeline, columns.status == FileStatus.QUARANTINED.value)
        .order_by(columns.path)
    )
    return _files(conn, query)


def raw_of_no_model(files: Iterable[FileVersion]) -> frozenset[str]:
    """The objects of files that no model claimed when they landed, whatever was decided of them since."""
    return frozenset(file.raw for file in files if file.model is None and file.raw is not None)


def waiting_assigned(conn: sql.Connection, pipeline: str) -> dict[str, set[str]]:
    """By batch: the models of files that a person assigned to them, and that no publish has taken."""
    columns, kept = file_manifest.c, file_manifest.alias()
    landed = sql.select(sql.literal(1)).where(
        kept.c.pipeline == pipeline, kept.c.path == columns.path, kept.c.model.is_(None), kept.c.raw == columns.raw
    )
    query = sql.select(columns.batch, columns.model).where(
        columns.pipeline == pipeline,
        columns.model.is_not(None),
        columns.status.in_([FileStatus.LANDED.value, FileStatus.VALIDATED.value]),
        columns.loaded.is_(None),
        sql.exists(landed),
    )
    found: dict[str, set[str]] = {}
    for batch, model in conn.execute(query):
        found.setdefault(batch, set()).add(model)
    return found


def latest(files: Iterable[FileVersion]) -> dict[str, FileVersion]:
    """The newest version of each path."""
    newest: dict[str, FileVersion] = {}
    for file in files:
        if file.path not in newest or newest[file.path].version < file.version:
            newest[file.path] = file
    return newest


def candidates(files: Iterable[FileVersion], model: str) -> tuple[FileVersion, ...]:
    """The files a model is validated from: the newest version of each path that landed, in path order.

    A version skipped on purpose leaves the one before it standing; a forgotten one takes its path away. One quarantined
    whole is looked at again: only validate says whether it still is.
    """
    standing: dict[str, FileVersion] = {}
    for file in sorted(files, key=lambda one: one.version):
        if file.model != model:
            continue
        if file.status in STANDING or (file.status is FileStatus.QUARANTINED and file.raw is not None):
            standing[file.path] = file
        elif file.status is FileStatus.FORGOTTEN:
            standing.pop(file.path, None)
    return tuple(standing[path] for path in sorted(standing))


def file_set(files: Iterable[FileVersion], model: str) -> tuple[FileVersion, ...]:
    """The files a model is published from: its candidates without those quarantined whole."""
    return tuple(file for file in candidates(files, model) if file.status in IN_SET)


def resight(conn: sql.Connection, before: FileVersion, now: FileVersion, at: datetime) -> bool:
    """Note that a file not yet landed, or not kept, has changed; only where nobody has moved its row since."""
    where = (
        file_manifest.c.pipeline == before.pipeline,
        file_manifest.c.path == before.path,
        file_manifest.c.version == before.version,
        file_manifest.c.id == before.id,
        file_manifest.c.status == before.status.value,
        file_manifest.c.raw.is_(None),
    )
    values = {"id": now.id, "size": now.size, "mtime": now.mtime, "sighted_at": now.sighted_at, "reason": now.reason}
    values["at"] = at
    return conn.execute(sql.update(file_manifest).where(*where).values(**values)).rowcount == 1


IN_HAND = (FileStatus.LOADED, FileStatus.SUPERSEDED, FileStatus.SKIPPED)
"""What a version may be whose file is needed at the source no more."""


def in_hand(files: Iterable[FileVersion]) -> list[FileVersion]:
    """The versions that were loaded, and those skipped because their content had been; by path and version."""
    ordered = sorted(files, key=lambda file: (file.path, file.version))
    loaded: set[tuple[str, str | None]] = set()
    found = []
    for one in ordered:
        again = one.status is FileStatus.SKIPPED and one.sha256 is not None and (one.path, one.sha256) in loaded
        if one.loaded is not None:
            loaded.add((one.path, one.sha256))
        if again or (one.status in (FileStatus.LOADED, FileStatus.SUPERSEDED) and one.loaded is not None):
            found.append(one)
    return found


def batches_in_hand(conn: sql.Connection, pipeline: str) -> set[str]:
    """The batches of files that might be let go of at the source and were not."""
    columns = file_manifest.c
    query = sql.select(columns.batch).distinct()
    here = (columns.pipeline == pipeline, columns.status.in_([one.value for one in IN_HAND]))
    return set(conn.execute(query.where(*here, columns.released.is_(None))).scalars())


def released(conn: sql.Connection, pipeline: str, batch: str) -> set[str]:
    """The ids of those versions of a batch that were let go of."""
    columns = file_manifest.c
    query = sql.select(columns.id).where(columns.pipeline == pipeline, columns.batch == batch)
    return set(conn.execute(query.where(columns.released.is_not(None))).scalars())


def first_seen(conn: sql.Connection, pipeline: str, batch: str) -> datetime | None:
    """When the first version of a batch was seen, however often it changed since."""
    columns = file_manifest.c
    query = sql.select(sql.func.min(columns.first_seen))
    found: datetime | None = conn.execute(query.where(columns.pipeline == pipeline, columns.batch == batch)).scalar()
    return found


def mark_released(conn: sql.Connection, told: Iterable[tuple[FileVersion, str]], at: datetime) -> None:
    columns = file_manifest.c
    for file, what in told:
        mine = (columns.pipeline == file.pipeline, columns.path == file.path, columns.version == file.version)
        conn.execute(sql.update(file_manifest).where(*mine).values(released=what, released_at=at))


def released_to(conn: sql.Connection, pipeline: str, paths: Sequence[str]) -> set[str]:
    """Those of these paths that are where a file was moved to, or renamed to."""
    columns, found = file_manifest.c, set()
    told = {f"{what} to {path}": path for path in paths for what in ("moved", "renamed")}
    names = list(told)
    for start in range(0, len(names), CHUNK):
        query = sql.select(columns.released).where(
            columns.pipeline == pipeline, columns.released.in_(names[start : start + CHUNK])
        )
        found |= {told[name] for name in conn.execute(query).scalars()}
    return found


def artifacts(
    conn: sql.Connection,
    pipeline: str,
    batches: Sequence[str],
    models: Sequence[str],
    kinds: Iterable[ArtifactKind] = ArtifactKind,
) -> list[Artifact]:
    """The artifacts of models in these batches that are there to be read."""
    found: list[Artifact] = []
    given = {"of": pipeline, "models": models, "kinds": [kind.value for kind in kinds]}
    for start in range(0, len(batches), CHUNK):
        some = {"some": batches[start : start + CHUNK]}
        found.extend(_artifact(row) for row in conn.execute(ARTIFACTS, given | some).mappings())
    return found


def artifact_paths(conn: sql.Connection, pipeline: str) -> dict[str, str]:
    """Where the lake should hold the pipeline's artifacts, each with its status."""
    query = sql.select(artifact.c.path, artifact.c.status)
    query = query.where(artifact.c.pipeline == pipeline, artifact.c.status != "removed")
    return {row.path: row.status for row in conn.execute(query)}


def paths_of_others(conn: sql.Connection, paths: Sequence[str], batch: str, model: str) -> set[str]:
    """Those of these objects that are artifacts of another batch or model."""
    found: set[str] = set()
    for start in range(0, len(paths), CHUNK):
        query = sql.select(artifact.c.path).where(
            artifact.c.path.in_(paths[start : start + CHUNK]),
            sql.or_(artifact.c.batch != batch, artifact.c.model != model),
            artifact.c.status.not_in(GONE),
        )
        found.update(conn.execute(query).scalars())
    return found


def let_go(conn: sql.Connection, paths: Sequence[str], by: Artifact, at: datetime) -> None:
    """Note what is to be removed, before it is, also where no row has named it yet.

    Whoever is late with a row of it comes behind the token of `by`, which says of whom and what the objects are.
    """
    for start in range(0, len(paths), CHUNK):
        some = paths[start : start + CHUNK]
        named = artifact.c.path.in_(some)
        known = set(conn.execute(sql.select(artifact.c.path).where(named)).scalars())
        conn.execute(sql.update(artifact).where(named).values(status=REMOVING, token=by.token, at=at))
        kinds = {path: ArtifactKind(path.partition("/")[0]) for path in some if path not in known}
        strays = [replace(by, path=path, kind=kind, status=REMOVING) for path, kind in kinds.items()]
        rows.put_artifacts(conn, strays, at)


def being_removed(conn: sql.Connection, pipeline: str, models: Sequence[str]) -> list[str]:
    """What a clean has let go of and may not have removed."""
    return list(conn.execute(_being_removed(pipeline, models).order_by(artifact.c.path)).scalars())


def raw_being_removed(conn: sql.Connection, pipeline: str, batch: str, models: Sequence[str]) -> Sequence[str]:
    """The raw objects of a batch that a clean has let go of and that may still lie there."""
    columns = artifact.c
    raw = (columns.batch == batch, columns.kind == ArtifactKind.RAW.value)
    return conn.execute(_being_removed(pipeline, models).where(*raw)).scalars().all()


def _being_removed(pipeline: str, models: Sequence[str]) -> sql.Select[Any]:
    columns = artifact.c
    # Not a parameter: an index that holds only such rows is taken where the statement says so itself.
    removing = columns.status == sql.literal_column(f"'{REMOVING}'")
    return sql.select(columns.path).where(columns.pipeline == pipeline, removing, columns.model.in_(models))


def mark_removed(conn: sql.Connection, paths: Sequence[str], at: datetime) -> None:
    _mark(conn, paths, "removed", at)


def _mark(conn: sql.Connection, paths: Sequence[str], status: str, at: datetime) -> None:
    for start in range(0, len(paths), CHUNK):
        some = paths[start : start + CHUNK]
        conn.execute(sql.update(artifact).where(artifact.c.path.in_(some)).values(status=status, at=at))


def _files(conn: sql.Connection, query: sql.Select[Any], given: Mapping[str, Any] | None = None) -> list[FileVersion]:
    names = file_manifest.columns.keys()
    found = []
    # A batch of many files is read in every run that looks at it: rows as tuples cost half of rows as mappings.
    for row in conn.execute(query, given).fetchall():
        fields = dict(zip(names, row, strict=True))
        for name in ("at", "released", "released_at", "first_seen"):
            del fields[name]
        fields["status"] = FileStatus(fields["status"])
        found.append(FileVersion(**fields))
    return found


def _artifact(row: sql.RowMapping) -> Artifact:
    fields = dict(row)
    del fields["at"]
    return Artifact(**(fields | {"kind": ArtifactKind(fields["kind"])}))
