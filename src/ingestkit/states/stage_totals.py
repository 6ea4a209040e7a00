"""What the stages of a pipeline have done in all: added to where a stage's own row is written, in one transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Json, Sidecar, Stage, StageStatus
from ingestkit.states import rows, sidecars, stage_rows
from ingestkit.states.tables import pipeline_stage, stage_total

ENDINGS = {
    StageStatus.SUCCESS: "done",
    StageStatus.SKIPPED: "skipped",
    StageStatus.FAILED: "failed",
    StageStatus.INTERRUPTED: "interrupted",
}
FIGURES = {
    Stage.EXTRACT: ("bytes",),
    Stage.VALIDATE: ("rows_read", "rows_valid", "rows_rejected"),
    Stage.LOAD: ("rows_loaded",),
}
"""What is told of a stage besides how it ended and how long it took. Each row is told by one stage alone."""
ADDED = tuple(
    column.name
    for column in stage_total.columns
    if column.name not in ("pipeline", "model", "stage", "since", "at", "last")
)
# Not the whole row: its sidecar may be long.
STARTED = sql.select(pipeline_stage.c.started_at).where(*stage_rows.ONE)
NOTHING: Mapping[str, float] = dict.fromkeys(ADDED, 0)


@dataclass(frozen=True, slots=True)
class Growth:
    """What was added to the totals of one stage of one model."""

    pipeline: str
    model: str
    stage: Stage
    added: Mapping[str, float]
    started: datetime | None = None
    ended: datetime | None = None
    """Between which instants the stage was at work, where it has ended."""


@dataclass(frozen=True, slots=True)
class StageTotal:
    model: str
    stage: Stage
    since: datetime
    at: datetime
    figures: Mapping[str, float]
    last: Mapping[str, Any] = field(default_factory=dict)


Published: TypeAlias = tuple[int, str]
"""The token and the instant of a publish, by which two of a model are told apart and put in order."""


def figures_of(sidecar: Sidecar, counted: Published | None) -> dict[str, int]:
    """What a stage's work counts for; `counted` is the newest publish that was counted of the model.

    What stood already was counted when it was done. A publish whose process died over it was not: it is, with the first
    row that speaks of it.
    """
    work = sidecar.work
    published = _published(work.details)
    if work.skipped is not None and (published is None or (counted is not None and published <= counted)):
        return {}
    known = {
        "bytes": sum(one.bytes for one in work.artifacts),
        "rows_read": work.counts.records,
        "rows_valid": work.counts.valid,
        "rows_rejected": work.counts.rejected,
        "rows_loaded": work.counts.loaded,
    }
    return {name: value for name in FIGURES.get(sidecar.stage, ()) if (value := known[name]) is not None}


def add_recorded(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> Growth:
    """Add what a sidecar says, in the transaction that has written its row."""
    key = (sidecar.pipeline, sidecar.model, sidecar.stage)
    counted = _last_published(conn, *key)
    newest = max(filter(None, (counted, _published(sidecar.work.details))), default=None)
    started = _started(conn, sidecar.run_id, sidecar.stage, sidecar.model)
    figures = figures_of(sidecar, counted)
    growth = _ended(*key, sidecars.status_of(sidecar), figures, started, sidecar.at)
    _add(conn, growth, now, at=sidecar.at, last=_last(growth, newest))
    return growth


def add_ended_badly(
    conn: sql.Connection, run: stage_rows.RunKey, stage: Stage, model: str, status: StageStatus, now: datetime
) -> Growth:
    """Add that a stage ended without leaving anything, in the transaction that has said so in its row."""
    growth = _ended(run.pipeline, model, stage, status, {}, _started(conn, run.run_id, stage, model), now)
    _add(conn, growth, now, at=now, last=_last(growth, _last_published(conn, run.pipeline, model, stage)))
    return growth


def add_retry(conn: sql.Connection, pipeline: str, stage: Stage, model: str, now: datetime) -> Growth:
    """Add that a stage of a run was begun once more."""
    growth = Growth(pipeline, model, stage, {"retries": 1})
    _add(conn, growth, now)
    return growth


def of_pipeline(conn: sql.Connection, pipeline: str) -> Iterator[StageTotal]:
    query = sql.select(stage_total).where(stage_total.c.pipeline == pipeline)
    for row in conn.execute(query.order_by(stage_total.c.stage, stage_total.c.model)):
        figures = {name: row._mapping[name] for name in ADDED}
        yield StageTotal(row.model, Stage(row.stage), row.since, row.at, figures, row.last or {})


def _ended(
    pipeline: str,
    model: str,
    stage: Stage,
    status: StageStatus,
    figures: Mapping[str, float],
    started: datetime | None,
    ended: datetime,
) -> Growth:
    # A clock that was set back makes no time run backwards.
    seconds = max(0.0, (ended - started).total_seconds()) if started is not None else 0.0
    added = {ENDINGS[status]: 1, "seconds": seconds, **figures}
    return Growth(pipeline, model, stage, added, started or ended, ended)


def _last(growth: Growth, published: Published | None) -> dict[str, Any]:
    shown: dict[str, Any] = {name: by for name, by in growth.added.items() if name not in ENDINGS.values()}
    shown["failed"] = int("failed" in growth.added or "interrupted" in growth.added)
    return shown | ({"published": published} if published is not None else {})


def _started(conn: sql.Connection, run_id: str, stage: Stage, model: str) -> datetime | None:
    found: datetime | None = conn.execute(STARTED, {"run": run_id, "phase": stage.value, "of": model}).scalar()
    return found


def _last_published(conn: sql.Connection, pipeline: str, model: str, stage: Stage) -> Published | None:
    columns = stage_total.c
    query = sql.select(columns.last).where(
        columns.pipeline == pipeline, columns.model == model, columns.stage == stage.value
    )
    last = conn.execute(query).scalar()
    return (last["published"][0], last["published"][1]) if last and "published" in last else None


def _published(details: Json) -> Published | None:
    said = details.get("published")
    return (said["token"], said["at"]) if said else None


def _add(conn: sql.Connection, growth: Growth, now: datetime, **replaced: Any) -> None:
    row = {
        "pipeline": growth.pipeline,
        "model": growth.model,
        "stage": growth.stage.value,
        "since": now,
        "at": now,
        **NOTHING,
        **growth.added,
        "last": None,
        **replaced,
    }
    rows.add(conn, stage_total, row, ADDED, tuple(replaced))
