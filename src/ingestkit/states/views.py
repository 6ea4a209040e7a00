"""What people ask of the state: rows as plain mappings, newest first, for commands to render."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from ingestkit.model import RunStatus
from ingestkit.states.completions import Order, pins
from ingestkit.states.owner import Owner
from ingestkit.states.tables import (
    Big,
    completion,
    decision,
    file_manifest,
    lease,
    pipeline,
    pipeline_run,
    pipeline_stage,
    quarantine,
    run_model,
    schema_drift,
)

DONE = (RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value)
UNSHOWN = {"config", "config_hash", "owner"}


def manifest(
    conn: sql.Connection,
    pipeline: str | None = None,
    model: str | None = None,
    status: str | None = None,
    run_id: str | None = None,
    path: str | None = None,
    batch: str | None = None,
    limit: int | None = None,
    only: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Ledger rows, newest batch first, whole or `only` some columns. `path` may hold `*` for any text."""
    columns = file_manifest.c
    wanted = {
        columns.pipeline: pipeline,
        columns.model: model,
        columns.status: status,
        columns.run_id: run_id,
        columns.batch: batch,
    }
    query = sql.select(*(columns[name] for name in only or columns.keys())).order_by(
        columns.batch.desc(), columns.path, columns.version.desc()
    )
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    if path is not None:
        query = query.where(columns.path.like(_like(path), escape="\\"))
    return _mappings(conn, query.limit(limit))


def runs(
    conn: sql.Connection,
    wanted: Mapping[str, str | None],
    model: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = 20,
) -> list[dict[str, Any]]:
    """Run rows, newest first, without the configuration they keep; `wanted` are columns that must have a value.

    `since` and `until` are of the start, the first included and the second not.
    """
    columns = pipeline_run.c
    query = sql.select(*_shown())
    # Runs of several pipelines have nothing in common but the clock.
    newest = columns.started_at if wanted.get("pipeline") is None else columns.number
    query = query.order_by(newest.desc(), columns.run_id.desc())
    query = query.where(*(columns[name] == value for name, value in wanted.items() if value is not None))
    if model is not None:
        query = query.where(sql.exists().where(run_model.c.run_id == columns.run_id, run_model.c.model == model))
    if since is not None:
        query = query.where(columns.started_at >= since)
    if until is not None:
        query = query.where(columns.started_at < until)
    return _mappings(conn, query.limit(limit))


def run_details(conn: sql.Connection, run_id: str) -> dict[str, Any] | None:
    """One run with its stages, models, files, rejects, drift, judged rules and what people decided about it."""
    rows = _mappings(conn, sql.select(pipeline_run).where(pipeline_run.c.run_id == run_id))
    if not rows:
        return None
    stages = _mappings(
        conn,
        sql.select(pipeline_stage)
        .where(pipeline_stage.c.run_id == run_id)
        .order_by(pipeline_stage.c.started_at, pipeline_stage.c.stage, pipeline_stage.c.model),
    )
    rules = [rule for stage in stages for rule in (stage["sidecar"] or {}).get("rules", [])]
    for stage in stages:
        stage["counts"] = (stage.pop("sidecar") or {}).get("counts")
    return {
        "run": rows[0],
        "stages": stages,
        "models": _of_run(conn, run_model, run_id, ["model"]),
        "files": _of_run(conn, file_manifest, run_id, ["path", "version"]),
        "quarantine": _of_run(conn, quarantine, run_id, ["model", "path", "column", "code"]),
        "drift": _of_run(conn, schema_drift, run_id, ["model", "column"]),
        "rules": rules,
        "decisions": _decisions_about(conn, rows[0], {rule["approved_by"] for rule in rules}),
    }


def arrival(conn: sql.Connection, run: Mapping[str, Any], order: Callable[[str], Any]) -> dict[str, Any] | None:
    """When the batch of a run was there, what of it came late, and which models had no file; None for no batch.

    A batch is late when a newer one had been done before it was seen, a file when its batch had been.
    """
    batch, files, ended = run["batch"], file_manifest.c, pipeline_run.c
    if batch is None:
        return None
    here = (files.pipeline == run["pipeline"], files.batch == batch)
    seen = {row.path: row.at for row in conn.execute(_first_seen(*here))}
    first = min(seen.values(), default=None)
    done = (
        sql.select(ended.batch, sql.func.min(ended.ended_at).label("at"))
        .where(ended.pipeline == run["pipeline"], ended.status.in_(DONE), ended.run_id != run["run_id"])
        .group_by(ended.batch)
    )
    at = {row.batch: row.at for row in conn.execute(done) if row.batch is not None}
    newer = [one for one in at if first is not None and order(one) > order(batch) and at[one] < first]
    mine = conn.execute(sql.select(files.path).where(*here, files.run_id == run["run_id"])).scalars()
    models = sql.select(files.model).where(*here).distinct()
    before = at.get(batch)
    return {
        "first_seen": first,
        "last_seen": max(seen.values(), default=None),
        # A window is not delivered: it ends.
        "late_behind": max(newer, key=order, default=None) if run["window_end"] is None else None,
        "late_files": sorted({path for path in mine if before is not None and seen[path] > before}),
        "without_files": sorted(set(run["models"]).difference(conn.execute(models).scalars())),
    }


def _first_seen(*here: Any) -> sql.Select[Any]:
    columns = file_manifest.c
    return (
        sql.select(columns.path, sql.func.min(sql.func.coalesce(columns.first_seen, columns.sighted_at)).label("at"))
        .where(*here)
        .group_by(columns.path)
    )


def _decisions_about(conn: sql.Connection, run: Mapping[str, Any], used: Container[int | None]) -> list[dict[str, Any]]:
    """Decisions that name the run or its batch, and those that let a rule of it pass."""
    query = sql.select(decision).where(decision.c.pipeline == run["pipeline"]).order_by(decision.c.number)
    found = []
    for row in _mappings(conn, query):
        said = row["subject"]
        about = {said.get("run_id"), said.get("batch"), said.get("wanted", {}).get("batch")} - {None}
        if about & {run["run_id"], run["batch"]} or row["number"] in used:
            found.append(row)
    return found


def meant(conn: sql.Connection, said: str | None) -> tuple[str | None, bool]:
    """The run a word means: that of this id, else the newest open one of that pipeline; nothing said: of all of them.

    None where none is open; and whether the word is known as either.
    """
    columns = pipeline_run.c
    named = sql.select(columns.run_id).limit(1)
    is_open = columns.status == RunStatus.OPEN.value
    if said is None:
        # Runs of several pipelines have nothing in common but the clock.
        return conn.execute(named.where(is_open).order_by(columns.started_at.desc())).scalar(), True
    if found := conn.execute(named.where(columns.run_id == said)).scalar():
        return found, True
    newest = named.where(columns.pipeline == said).order_by(columns.number.desc())
    return conn.execute(newest.where(is_open)).scalar(), conn.execute(newest).scalar() is not None


def going_on(conn: sql.Connection, run_id: str) -> dict[str, Any] | None:
    """A run as it is at this moment: its row, its stages, and who holds the leases of its models."""
    rows = _mappings(conn, sql.select(*_shown()).where(pipeline_run.c.run_id == run_id))
    if not rows:
        return None
    run = rows[0]
    columns = pipeline_stage.c
    named = (columns.stage, columns.model, columns.status, columns.retry, columns.started_at, columns.ended_at)
    # Of a sidecar, which may be long, only the counts.
    query = sql.select(
        *named, columns.expected_seconds, columns.seconds, columns.error, columns.sidecar["counts"].label("counts")
    )
    held = (lease.c.pipeline == run["pipeline"], lease.c.model.in_([*run["models"], "*"]), lease.c.expires.is_not(None))
    leases = _mappings(conn, sql.select(lease).where(*held).order_by(lease.c.model))
    return {
        "run": run,
        "stages": _mappings(conn, query.where(columns.run_id == run_id).order_by(columns.started_at, columns.model)),
        "leases": [{**row, "owner": Owner.from_json(row["owner"])} for row in leases],
    }


def rejects(
    conn: sql.Connection,
    wanted: Mapping[str, str | None],
    statuses: Sequence[str],
) -> list[dict[str, Any]]:
    """Rejected records by reason, most first, and files kept whole; `wanted` are columns that must have a value."""
    columns = quarantine.c
    shows_files = "open" in statuses and not any(wanted.get(name) for name in ("run_id", "column", "code"))
    # A newer attempt holds what it has found again; and a file kept out whole is in the ledger.
    also = quarantine.alias("also")
    same = ("pipeline", "batch", "model", "path", "column", "code")
    found_before = sql.exists().where(also.c.status == "open", *(also.c[name] == columns[name] for name in same))
    apart: list[sql.ColumnElement[bool]] = []
    if "open" in statuses:
        apart.append((columns.status != "held") | ~found_before)
    if shows_files:
        apart.append(columns.code != "file")
    by = (columns.pipeline, columns.model, columns.column, columns.code, columns.status)
    query = (
        sql.select(
            *by,
            sql.cast(sql.func.sum(columns.count), Big).label("records"),
            sql.func.count(columns.path.distinct()).label("files"),
            sql.func.count(columns.batch.distinct()).label("batches"),
            sql.func.max(columns.batch).label("newest"),
        )
        .where(columns.status.in_(statuses), *(columns[name] == value for name, value in wanted.items() if value))
        .where(*apart)
        .group_by(*by)
        .order_by(columns.pipeline, columns.model, sql.desc("records"), columns.column, columns.code)
    )
    found = [{**row, "records": int(row["records"])} for row in _mappings(conn, query)]
    return found + (_whole_files(conn, wanted) if shows_files else [])


def _whole_files(conn: sql.Connection, wanted: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Files that are kept in quarantine whole, those of no model among them, in the shape of rejects."""
    ledgered = file_manifest.c
    later = file_manifest.alias("later")
    newer = sql.exists().where(
        later.c.pipeline == ledgered.pipeline, later.c.path == ledgered.path, later.c.version > ledgered.version
    )
    by = (ledgered.pipeline, ledgered.model, ledgered.reason)
    asked = {name: value for name, value in wanted.items() if value and name in ("pipeline", "model", "batch", "path")}
    query = (
        sql.select(
            *by,
            sql.cast(sql.func.sum(ledgered.read), Big).label("records"),
            sql.func.count().label("files"),
            sql.func.count(ledgered.batch.distinct()).label("batches"),
            sql.func.max(ledgered.batch).label("newest"),
        )
        .where(ledgered.status == "quarantined", ~newer, *(ledgered[name] == value for name, value in asked.items()))
        .group_by(*by)
        .order_by(*by)
    )
    found = []
    for row in _mappings(conn, query):
        code = "file" if row["model"] else "unmapped"
        found.append({**row, "column": "*", "code": code, "status": "open"})
    return found


def drift(
    conn: sql.Connection, pipeline: str, batch: str | None = None, model: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Drift of headers with the file it was found in, newest first."""
    columns = schema_drift.c
    query = (
        sql.select(schema_drift, file_manifest.c.path)
        .join(file_manifest, file_manifest.c.id == columns.file_id, isouter=True)
        .where(columns.pipeline == pipeline)
        .order_by(columns.at.desc(), columns.model, columns.file_id, columns.kind, columns.column)
    )
    wanted = {columns.batch: batch, columns.model: model}
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    return _mappings(conn, query.limit(limit))


def state(conn: sql.Connection, name: str, order: Order) -> dict[str, Any]:
    """Everything the state holds about where a pipeline stands."""
    told = [column for column in pipeline.c if column.name != "pins"]
    rows = _mappings(conn, sql.select(*told).where(pipeline.c.pipeline == name))
    newest = (
        sql.select(
            completion.c.model,
            sql.func.count().label("batches"),
            sql.func.max(completion.c.at).label("last_at"),
        )
        .where(completion.c.pipeline == name)
        .group_by(completion.c.model)
        .order_by(completion.c.model)
    )
    open_models = (
        sql.select(run_model.c.run_id, run_model.c.model, run_model.c.batch)
        .where(run_model.c.pipeline == name, run_model.c.open_key.is_not(None))
        .order_by(run_model.c.run_id, run_model.c.model)
    )
    held = sql.select(lease).where(lease.c.pipeline == name, lease.c.expires.is_not(None)).order_by(lease.c.model)
    decisions = sql.select(decision).where(decision.c.pipeline == name).order_by(decision.c.number.desc()).limit(20)
    return {
        "pipeline": rows[0] if rows else None,
        "models": _mappings(conn, newest),
        "pins": [asdict(pin) for pin in pins(conn, name, order)],
        "open": _mappings(conn, open_models),
        "leases": _mappings(conn, held),
        "decisions": _mappings(conn, decisions),
    }


def _shown() -> list[sql.ColumnElement[Any]]:
    return [column for column in pipeline_run.c if column.name not in UNSHOWN]


def _of_run(conn: sql.Connection, table: sql.Table, run_id: str, order: Sequence[str]) -> list[dict[str, Any]]:
    query = sql.select(table).where(table.c.run_id == run_id).order_by(*(table.c[name] for name in order))
    return _mappings(conn, query)


def _mappings(conn: sql.Connection, query: sql.Select[Any]) -> list[dict[str, Any]]:
    found = conn.execute(query)
    names = tuple(found.keys())
    # A ledger is long, and the library's own mappings take twice as long.
    return [dict(zip(names, row, strict=True)) for row in found.all()]


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")
