"""What people may be told of a pipeline: what a command saw of itself, and what is only seen from outside."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Any

import sqlalchemy as sql

from ingestkit.errors import Busy, GateClosed, IngestkitError, Interrupted, UsageError
from ingestkit.model import CompletionStatus, RunStatus, Sight, StageStatus, human_duration
from ingestkit.observe.text import printable
from ingestkit.outcome import run_ids_of
from ingestkit.pipeline import Clock, Pipeline
from ingestkit.reporting import many
from ingestkit.settings import PipelineSettings, duration_text
from ingestkit.states import completions, lease, ledger, runs, views
from ingestkit.states.engine import StateDatabase
from ingestkit.states.tables import pipeline_run, pipeline_stage, schema_drift
from ingestkit.windowing import windows

HAS_DIGIT = re.compile(r"\S*\d\S*")
LONGEST = 2000
NAMED = 5
"""So many are named where there may be hundreds."""
BROKE, HARMLESS = "fail", "by name"
"""The actions of a drift that its file failed by, and of columns in another order."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A pipeline that is looked at and not opened."""

    pipeline: Pipeline
    state: StateDatabase
    clock: Clock


def failure(conn: sql.Connection, settings: PipelineSettings, error: BaseException | None) -> Sight | None:
    """What an error is told as; that somebody else is at work, or a signal came, is no failure of the pipeline."""
    if error is None or isinstance(error, (UsageError, Busy, Interrupted)) or not isinstance(error, Exception):
        return None
    kind, name, wanted = type(error).__name__, settings.pipeline, settings.alerts.kinds
    if not isinstance(error, IngestkitError):
        # Its words are not ours, and may hold anything.
        return Sight("failed", kind, f"a bug: {kind}", f"ingestkit runs list {name}")
    run_id = next((one.run_id for one in reversed(error.results) if one.status == "failed"), None)
    run_id = run_id or next(iter(run_ids_of(error.results)), None)
    more = error.incident or ("drift" if run_id is not None and _broke(conn, run_id) else None)
    plain = "gate" if isinstance(error, GateClosed) else "failed"
    told = more if more in wanted else plain
    hint = error.hint or f"ingestkit runs list {name}"
    subject = f"{kind} {_gist(error.message)}" if told == "failed" else ""
    return Sight(told, subject, line(error.message), line(hint), run_id)


def _gist(message: str) -> str:
    """The same for messages that differ by names and numbers alone."""
    return sha256(HAS_DIGIT.sub("", message).encode()).hexdigest()[:12]


def _broke(conn: sql.Connection, run_id: str) -> bool:
    """Whether headers of the run were such that their files failed."""
    query = sql.select(schema_drift.c.run_id).where(schema_drift.c.run_id == run_id, schema_drift.c.action == BROKE)
    return conn.execute(query.limit(1)).first() is not None


def line(text: str) -> str:
    return printable(" ".join(text.split()))[:LONGEST]


def of_runs(conn: sql.Connection, pipeline: Pipeline, since: datetime) -> Iterator[Sight]:
    """What the runs that were worked on since then were like, whether they ended well or not."""
    columns = pipeline_run.c
    query = sql.select(columns.run_id, columns.batch, columns.models, columns.window_end, columns.pipeline)
    touched = conn.execute(query.where(columns.pipeline == pipeline.name, columns.touched_at >= since)).mappings().all()
    for run in touched:
        yield from _late_files(conn, pipeline, run)
        yield from _slow(conn, pipeline.settings, run["run_id"], since)
    yield from _drift(conn, pipeline.name, [run["run_id"] for run in touched])


def _late_files(conn: sql.Connection, pipeline: Pipeline, run: Mapping[Any, Any]) -> Iterator[Sight]:
    found = views.arrival(conn, run, pipeline.order)
    if found is None:
        return
    batch, look = run["batch"], f"ingestkit runs show {run['run_id']}"
    if (behind := found["late_behind"]) is not None:
        yield Sight("late", f"{batch}", f"batch {batch} came when {behind} was done", look, f"{run['run_id']}", True)
    if late := found["late_files"]:
        told = f"{many(len(late), 'file', 'files')} came into batch {batch} when it was done"
        yield Sight("late", f"{batch} {len(late)}", told, look, f"{run['run_id']}", True)


def _slow(conn: sql.Connection, settings: PipelineSettings, run_id: str, since: datetime) -> Iterator[Sight]:
    said, columns = settings.alerts, pipeline_stage.c
    if said.slow is None:
        return
    query = sql.select(columns.stage, columns.model, columns.seconds, columns.expected_seconds).where(
        columns.run_id == run_id,
        columns.status == StageStatus.SUCCESS.value,
        columns.ended_at >= since,
        columns.expected_seconds > 0,
        columns.seconds > said.slow * columns.expected_seconds,
        columns.seconds >= said.slow_from.total_seconds(),
    )
    rows = conn.execute(query.order_by(columns.seconds.desc())).all()
    told = [
        f"{row.stage}{'' if row.model == '*' else f' of {row.model}'} took {human_duration(row.seconds)}, usually "
        f"{human_duration(row.expected_seconds)}"
        for row in rows
    ]
    if told:
        look = f"ingestkit query slow-phases pipeline={settings.pipeline}"
        yield Sight("slow", run_id, _listed(told), look, run_id, happened=True)


def _drift(conn: sql.Connection, pipeline: str, run_ids: Sequence[str]) -> Iterator[Sight]:
    """What is new in headers, by model; of the next batch it is the same. A header may be a row: no name is told."""
    columns = schema_drift.c
    query = sql.select(columns.model, columns.kind, columns.column, columns.action, columns.run_id).where(
        columns.run_id.in_(run_ids), columns.action.not_in([BROKE, HARMLESS])
    )
    rows = conn.execute(query.order_by(columns.model, columns.kind, columns.column)).all() if run_ids else []
    for model, each in groupby(rows, key=lambda row: str(row.model)):
        found = list(each)
        kinds = sorted({(row.kind, row.column, row.action) for row in found})
        mark = sha256(repr(kinds).encode()).hexdigest()[:12]
        told = [
            f"{len(list(several))} {kind} ({action})"
            for (kind, action), several in groupby(
                sorted(kinds, key=lambda one: (one[0], one[2])), key=lambda one: (one[0], one[2])
            )
        ]
        text = f"headers of {model} are not what its contract says, columns: {', '.join(told)}"
        look = f"ingestkit drift list {pipeline} --model {model}"
        yield Sight("drift", f"{model} {mark}", text, look, found[0].run_id, happened=True)


def summary(conn: sql.Connection, pipeline: str, since: datetime) -> Sight | None:
    """What the runs that ended well since then have done together."""
    columns = pipeline_run.c
    well = (RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value)
    query = sql.select(columns.run_id, columns.batch, columns.counts).where(
        columns.pipeline == pipeline, columns.ended_at >= since, columns.status.in_(well)
    )
    rows = conn.execute(query.order_by(columns.number)).all()
    if not rows:
        return None
    several = list(dict.fromkeys(row.batch for row in rows))
    figures = {name: sum((row.counts or {}).get(name) or 0 for row in rows) for name in ("files", "loaded", "rejected")}
    told = (
        f"done: {_listed(several)}; {figures['files']:,} files, {figures['loaded']:,} rows loaded, "
        f"{figures['rejected']:,} records rejected"
    )
    last = rows[-1].run_id
    return Sight("summary", last, line(told), f"ingestkit runs show {last}", last, happened=True)


def held(conn: sql.Connection, pipeline: str) -> Sight | None:
    row = runs.pipeline_row(conn, pipeline)
    if row is None or row["held_at"] is None:
        return None
    return Sight("held", "", line(f"held: {row['held_reason']}"), f"ingestkit resume {pipeline} --reason '...'")


def from_outside(conn: sql.Connection, watched: Watched, since: datetime, now: datetime) -> Iterator[Sight]:
    """What no run can notice of itself; the pipeline is looked at `since` then."""
    settings = watched.pipeline.settings
    name, said = settings.pipeline, settings.alerts
    yield from _stale(conn, name, said.freshness, since, now)
    if said.overdue is not None:
        yield from _overdue(conn, watched, said.overdue, now)
    fell_silent = list(_silent(conn, name, now))
    yield from fell_silent or _hanging(conn, settings, now)
    yield from _often_failing(conn, settings, now)
    if (one := held(conn, name)) is not None:
        yield one


def _stale(
    conn: sql.Connection, pipeline: str, freshness: timedelta | None, since: datetime, now: datetime
) -> Iterator[Sight]:
    done = completions.done(conn, pipeline).values()
    newest = max((at for status, at in done if status is CompletionStatus.DONE), default=None)
    if freshness is None or now - (newest or since) <= freshness:
        return
    told = f"the newest batch was done at {newest:%Y-%m-%d %H:%M:%S}Z" if newest else "nothing was ever done"
    yield Sight("stale", "", f"{told}, and its freshness is {duration_text(freshness)}", f"ingestkit plan {pipeline}")


def _overdue(conn: sql.Connection, watched: Watched, grace: timedelta, now: datetime) -> Iterator[Sight]:
    """Windows that ended, and batches that were seen, longer ago than that, and are not done."""
    pipeline = watched.pipeline
    name, order = pipeline.name, pipeline.order
    done = completions.done(conn, name)
    row = runs.pipeline_row(conn, name)
    floors: Mapping[str, str | None] = (row["floors"] if row else None) or {}

    def waits(batch: str, model: str) -> bool:
        floor = floors.get(model)
        return (
            model in pipeline.models and (batch, model) not in done and (floor is None or order(batch) > order(floor))
        )

    undone = {file.batch for file in ledger.unpublished(conn, name) if file.model and waits(file.batch, file.model)}
    seen = {batch: ledger.first_seen(conn, name, batch) for batch in undone}
    left = {batch: at for batch, at in seen.items() if at is not None}
    if pipeline.settings.source.batches.window is not None:
        lag = pipeline.settings.source.batches.lag
        for key, window in windows(watched, whole=False).items():
            if any(waits(key, model) for model in pipeline.models):
                left[key] = window.end + lag
    late = sorted((batch for batch, at in left.items() if now - at >= grace), key=order)
    if late:
        told = f"not done: {_listed(late)}; the oldest waits since {left[late[0]]:%Y-%m-%d %H:%M:%S}Z"
        yield Sight("overdue", "", f"{told}, longer than {duration_text(grace)}", f"ingestkit plan {name}")


def _silent(conn: sql.Connection, pipeline: str, now: datetime) -> Iterator[Sight]:
    """A lease that ran out and was not given back: its command died or hangs, and nobody has gone on."""
    for one in lease.ran_out(conn, pipeline, now):
        text = f"{one.command} works on it since {one.since:%Y-%m-%d %H:%M:%S}Z, and gives no sign of life"
        yield Sight("silent", "", text, f"ingestkit run {pipeline}")
        return


def _hanging(conn: sql.Connection, settings: PipelineSettings, now: datetime) -> Iterator[Sight]:
    """Stages at work for longer than they may be, by what is usual of them."""
    said, columns = settings.alerts, pipeline_stage.c
    if said.slow is None:
        return
    query = sql.select(columns.run_id, columns.stage, columns.model, columns.started_at, columns.expected_seconds)
    query = query.where(columns.pipeline == settings.pipeline, columns.status == StageStatus.RUNNING.value)
    for row in conn.execute(query.order_by(columns.started_at, columns.model)):
        seconds, usual = (now - row.started_at).total_seconds(), row.expected_seconds or 0
        if usual and seconds > said.slow * usual and seconds >= said.slow_from.total_seconds():
            what = f"{row.stage}{'' if row.model == '*' else f' of {row.model}'}"
            text = f"{what} is at work since {row.started_at:%Y-%m-%d %H:%M:%S}Z; usual are {human_duration(usual)}"
            subject = f"{row.run_id} {row.stage} {row.model}"
            yield Sight("hangs", subject, text, f"ingestkit runs watch {row.run_id}", row.run_id)


def _often_failing(conn: sql.Connection, settings: PipelineSettings, now: datetime) -> Iterator[Sight]:
    limit, columns = settings.alerts.success_rate, pipeline_run.c
    if limit is None:
        return
    ended = (RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value, RunStatus.FAILED.value)
    query = sql.select(columns.status).where(
        columns.pipeline == settings.pipeline, columns.ended_at >= now - limit.over, columns.status.in_(ended)
    )
    found = conn.execute(query).scalars().all()
    well = sum(one != RunStatus.FAILED.value for one in found)
    if len(found) >= limit.runs and 100 * well < limit.least_pct * len(found):
        text = f"{well} of {len(found)} runs ended well in {duration_text(limit.over)}, and {limit.least_pct:g} % must"
        yield Sight("success_rate", "", text, f"ingestkit query success-rate pipeline={settings.pipeline}")


def _listed(several: Sequence[str]) -> str:
    more = f" and {len(several) - NAMED} more" if len(several) > NAMED else ""
    return line("; ".join(several[:NAMED]) if any(" " in one for one in several) else ", ".join(several[:NAMED])) + more
