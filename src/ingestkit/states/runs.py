"""Runs and what they mean to publish: the rows an operator asks of a drive table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from ingestkit.model import ALL_STAGES, Intent, LoadMode, RunStatus, Stage, Window, human_duration, instant
from ingestkit.states import rows, stage_rows
from ingestkit.states.tables import (
    completion,
    decision,
    pipeline_run,
    run_model,
)
from ingestkit.states.tables import pipeline as pipeline_table
from ingestkit.windows import zone_of

CHUNK = 500
UNCLEANED = 20
"""How many closed runs are looked at for a clean that never ended."""

# Each run asks these, so that they are made once.
INTENTS = sql.select(run_model).where(run_model.c.run_id == sql.bindparam("run"))
HIGHEST = (
    sql.select(run_model.c.model, sql.func.max(run_model.c.generation))
    .where(
        run_model.c.pipeline == sql.bindparam("of"),
        run_model.c.batch == sql.bindparam("key"),
        run_model.c.generation.is_not(None),
    )
    .group_by(run_model.c.model)
)
_DONE_SINCE = sql.exists().where(
    completion.c.pipeline == sql.bindparam("of"),
    completion.c.batch == pipeline_run.c.batch,
    completion.c.model == run_model.c.model,
    completion.c.at >= pipeline_run.c.ended_at,
)
AT_WORK = (
    sql.select(run_model.c.model, pipeline_run.c.run_id, pipeline_run.c.batch)
    .join(run_model, run_model.c.run_id == pipeline_run.c.run_id)
    .where(
        run_model.c.pipeline == sql.bindparam("of"),
        pipeline_run.c.run_id != sql.bindparam("mine"),
        pipeline_run.c.batch.is_not(None),
        run_model.c.open_key.is_not(None) | sql.and_(run_model.c.status == RunStatus.FAILED.value, ~_DONE_SINCE),
    )
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run row, as the runner needs it."""

    run_id: str
    invocation: str
    pipeline: str
    batch: str | None
    attempt: int
    kind: str
    models: tuple[str, ...]
    status: RunStatus
    retry: int
    started_at: datetime
    touched_at: datetime
    last_command: str
    config: Mapping[str, Any]
    config_hash: str
    token: int
    error: str | None = None
    window: Window | None = None
    """Which piece of time its batch is, of a pipeline of windows."""

    @property
    def as_of(self) -> datetime | None:
        """The instant whose files the run publishes, where it is not today's."""
        said = self.config.get("as_of")
        return instant(said) if said else None

    def facts(self) -> dict[str, Any]:
        """What a sidecar says of its run, so that a lost state can be rebuilt."""
        return {
            "invocation": self.invocation,
            "attempt": self.attempt,
            "kind": self.kind,
            "models": list(self.models),
            "started_at": self.started_at.isoformat(),
            "last_command": self.last_command,
            "config": dict(self.config),
            "config_hash": self.config_hash,
            "window": self.window.to_json() if self.window is not None else None,
        }


def open_key(pipeline: str, model: str) -> str:
    return f"{pipeline}/{model}"


def pipeline_row(conn: sql.Connection, pipeline: str) -> Mapping[str, Any] | None:
    query = sql.select(pipeline_table).where(pipeline_table.c.pipeline == pipeline)
    row = conn.execute(query).mappings().one_or_none()
    return dict(row) if row else None


def update_pipeline(conn: sql.Connection, pipeline: str, **values: Any) -> None:
    conn.execute(sql.update(pipeline_table).where(pipeline_table.c.pipeline == pipeline).values(**values))


def run(conn: sql.Connection, run_id: str) -> Run | None:
    row = conn.execute(sql.select(pipeline_run).where(pipeline_run.c.run_id == run_id)).one_or_none()
    return _run(row) if row else None


def ids(conn: sql.Connection, pipeline: str) -> set[str]:
    """The ids of all runs of a pipeline."""
    return set(conn.execute(sql.select(pipeline_run.c.run_id).where(pipeline_run.c.pipeline == pipeline)).scalars())


def named(conn: sql.Connection, pipeline: str, run_id: str) -> Run | None:
    """The run a caller's id means for a pipeline; where another pipeline was first to use it, the numbered one."""
    found = run(conn, run_id)
    if found is not None and found.pipeline == pipeline:
        return found
    return next(reversed(of_invocation(conn, pipeline, run_id)), None)


def latest_run(conn: sql.Connection, pipeline: str) -> Run | None:
    query = (
        sql.select(pipeline_run)
        .where(pipeline_run.c.pipeline == pipeline)
        .order_by(pipeline_run.c.number.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return _run(row) if row else None


def last_attempt(conn: sql.Connection, pipeline: str, batch: str) -> Run | None:
    """The newest run of a batch."""
    query = sql.select(pipeline_run).where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.batch == batch)
    row = conn.execute(query.order_by(pipeline_run.c.attempt.desc()).limit(1)).first()
    return _run(row) if row is not None else None


def first_run(conn: sql.Connection, pipeline: str, since: datetime | None) -> Run | None:
    """The oldest run of a batch, of those begun after an instant."""
    query = sql.select(pipeline_run).where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.batch.is_not(None))
    if since is not None:
        query = query.where(pipeline_run.c.started_at > since)
    row = conn.execute(query.order_by(pipeline_run.c.number).limit(1)).one_or_none()
    return _run(row) if row else None


def of_invocation(conn: sql.Connection, pipeline: str, invocation: str) -> list[Run]:
    """The runs one invocation has made, in the order it made them."""
    query = (
        sql.select(pipeline_run)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.invocation == invocation)
        .order_by(pipeline_run.c.number)
    )
    return [_run(row) for row in conn.execute(query)]


def open_runs(conn: sql.Connection, pipeline: str) -> list[tuple[Run, frozenset[str]]]:
    """The open runs, oldest first, each with the models it still has open."""
    query = (
        sql.select(run_model.c.run_id, run_model.c.model)
        .where(run_model.c.pipeline == pipeline, run_model.c.open_key.is_not(None))
        .join(pipeline_run, pipeline_run.c.run_id == run_model.c.run_id)
        .order_by(pipeline_run.c.number)
    )
    models: dict[str, set[str]] = {}
    for run_id, model in conn.execute(query):
        models.setdefault(run_id, set()).add(model)
    return [(one, frozenset(names)) for run_id, names in models.items() if (one := run(conn, run_id)) is not None]


def at_work(conn: sql.Connection, pipeline: str, *, besides: str) -> dict[str, dict[str, str]]:
    """By model the other runs that may go on with it, each with its batch: open, or failed and waiting for a person.

    One that failed waits until its batch is done, by another attempt, or stepped over.
    """
    found: dict[str, dict[str, str]] = {}
    for model, run_id, batch in conn.execute(AT_WORK, {"of": pipeline, "mine": besides}):
        found.setdefault(model, {})[run_id] = batch
    return found


def uncleaned(conn: sql.Connection, pipeline: str) -> tuple[list[Run], list[Run]]:
    """The newest closed runs whose clean never came to its end since their process died; or those where it failed."""
    query = (
        sql.select(pipeline_run)
        .where(
            pipeline_run.c.pipeline == pipeline,
            pipeline_run.c.status.in_([RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value]),
        )
        .order_by(pipeline_run.c.number.desc())
        .limit(UNCLEANED)
    )
    rows = conn.execute(query).fetchall()
    died = [_run(row) for row in rows if Stage.CLEAN.value in row.phases_pending]
    return died, [_run(row) for row in rows if Stage.CLEAN.value in row.phases_failed]


def later_attempts(conn: sql.Connection, run: Run) -> list[str]:
    """Runs of the same batch, sharing a model, that were started later."""
    query = sql.select(pipeline_run).where(
        pipeline_run.c.pipeline == run.pipeline,
        pipeline_run.c.batch == run.batch,
        pipeline_run.c.attempt > run.attempt,
    )
    query = query.order_by(pipeline_run.c.attempt)
    return [row.run_id for row in conn.execute(query) if set(row.models) & set(run.models)]


def next_attempt(conn: sql.Connection, pipeline: str, batch: str | None) -> int:
    query = sql.select(sql.func.max(pipeline_run.c.attempt)).where(
        pipeline_run.c.pipeline == pipeline, pipeline_run.c.batch == batch
    )
    return int(conn.execute(query).scalar() or 0) + 1


def failures_in_a_row(conn: sql.Connection, pipeline: str, at_most: int) -> int:
    """How many of the newest closed runs failed, one after another since a person last resumed, up to `at_most`."""
    resumed = conn.execute(
        sql.select(sql.func.max(decision.c.at)).where(decision.c.pipeline == pipeline, decision.c.kind == "resume")
    ).scalar()
    query = (
        sql.select(pipeline_run.c.status)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.ended_at.is_not(None))
        .where(pipeline_run.c.status.not_in([RunStatus.SKIPPED.value, RunStatus.SUPERSEDED.value]))
        .where(*(() if resumed is None else (pipeline_run.c.ended_at > resumed,)))
        .order_by(pipeline_run.c.ended_at.desc())
        .limit(at_most)
    )
    failed = 0
    for (status,) in conn.execute(query):
        if status != RunStatus.FAILED.value:
            break
        failed += 1
    return failed


def failed(conn: sql.Connection, pipeline: str) -> set[str]:
    """The batches that a run has failed over, done since or not."""
    query = sql.select(pipeline_run.c.batch).distinct()
    query = query.where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.status == RunStatus.FAILED.value)
    return {batch for batch in conn.execute(query).scalars() if batch is not None}


def insert_run(conn: sql.Connection, new: Run, now: datetime, owner: str) -> None:
    before = sql.select(sql.func.max(pipeline_run.c.number)).where(pipeline_run.c.pipeline == new.pipeline)
    values = {
        "run_id": new.run_id,
        "number": sql.func.coalesce(before.scalar_subquery(), 0) + 1,
        "invocation": new.invocation,
        "pipeline": new.pipeline,
        "batch": new.batch,
        "attempt": new.attempt,
        "kind": new.kind,
        "models": list(new.models),
        "status": new.status.value,
        "retry": new.retry,
        "started_at": new.started_at,
        "touched_at": now,
        "last_command": new.last_command,
        "config": dict(new.config),
        "config_hash": new.config_hash,
        "token": new.token,
        "owner": owner,
        **_window_values(new),
        "phases_completed": [],
        "phases_skipped": [],
        "phases_failed": [],
        "phases_pending": _phases(new),
        "counts": {},
    }
    conn.execute(sql.insert(pipeline_run).values(**values))


def _phases(new: Run) -> list[str]:
    with_dbt = new.config.get("pipeline", {}).get("dbt") is not None
    return [stage.value for stage in ALL_STAGES if with_dbt or stage is not Stage.DBT]


def windows(conn: sql.Connection, pipeline: str, batches: Sequence[str]) -> dict[str, datetime]:
    """Where these batches ended, by what their newest runs were told."""
    found: dict[str, datetime] = {}
    for start in range(0, len(batches), CHUNK):
        query = (
            sql.select(pipeline_run.c.batch, pipeline_run.c.window_end)
            .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.batch.in_(batches[start : start + CHUNK]))
            .where(pipeline_run.c.window_end.is_not(None))
            .order_by(pipeline_run.c.attempt)
        )
        found |= {row.batch: row.window_end for row in conn.execute(query)}
    return found


def move_run(conn: sql.Connection, run: Run) -> None:
    """Write what a run has become a run of: its batch, attempt, models and window."""
    update_run(conn, run.run_id, batch=run.batch, attempt=run.attempt, models=list(run.models), **_window_values(run))


def update_run(conn: sql.Connection, run_id: str, **values: Any) -> None:
    conn.execute(sql.update(pipeline_run).where(pipeline_run.c.run_id == run_id).values(**values))


def close_run(conn: sql.Connection, run: Run, status: RunStatus, now: datetime, **values: Any) -> None:
    """End a run: its status and duration, and its models no longer open."""
    seconds = max(0.0, (now - run.started_at).total_seconds())
    update_run(
        conn,
        run.run_id,
        status=status.value,
        ended_at=now,
        seconds=seconds,
        duration=human_duration(seconds),
        touched_at=now,
        **values,
    )
    conn.execute(
        sql.update(run_model)
        .where(run_model.c.run_id == run.run_id, run_model.c.open_key.is_not(None))
        .values(open_key=None, status=status.value)
    )
    stage_rows.note_phases(conn, run.run_id)


def open_models(conn: sql.Connection, run: Run, models: Iterable[str], token: int, *, redo: bool) -> None:
    """Open a run's models; the unique key makes a second open run of one impossible.

    A redo forgets which generation was meant before: it means the next one.
    """
    opened = [
        {
            "run_id": run.run_id,
            "model": model,
            "pipeline": run.pipeline,
            "batch": run.batch,
            "token": token,
            "open_key": open_key(run.pipeline, model),
            "status": RunStatus.OPEN.value,
            "redo": redo,
        }
        | ({"generation": None} if redo else {})
        for model in models
    ]
    rows.put_anyway(conn, run_model, *opened)


def add_models(conn: sql.Connection, run: Run, token: int) -> None:
    """A rebuilt run's models. None of them is open: they wait for a person until something says how they ended."""
    for model in run.models:
        values = {
            "run_id": run.run_id,
            "model": model,
            "pipeline": run.pipeline,
            "batch": run.batch,
            "status": RunStatus.FAILED.value,
            "redo": False,
            "token": token,
        }
        rows.put_absent(conn, run_model, values)


def wait_again(conn: sql.Connection, run_id: str) -> None:
    """Take back that a rebuilt run has ended."""
    update_run(conn, run_id, status=RunStatus.OPEN.value, ended_at=None)
    where = run_model.c.run_id == run_id
    conn.execute(sql.update(run_model).where(where).values(status=RunStatus.FAILED.value))


def supersede_model(conn: sql.Connection, run_id: str, model: str) -> None:
    """Note of a rebuilt run's model that failed that another attempt has done it since."""
    where = (run_model.c.run_id == run_id, run_model.c.model == model, run_model.c.status == RunStatus.FAILED.value)
    conn.execute(sql.update(run_model).where(*where).values(status=RunStatus.SUPERSEDED.value))


def take_models(conn: sql.Connection, run: Run, models: Iterable[str], by: str, now: datetime) -> None:
    """Close these models of a run another attempt takes over; a run left without any is SUPERSEDED."""
    conn.execute(
        sql.update(run_model)
        .where(run_model.c.run_id == run.run_id, run_model.c.model.in_(list(models)))
        .values(open_key=None, status=RunStatus.SUPERSEDED.value)
    )
    left = conn.execute(
        sql.select(sql.func.count())
        .select_from(run_model)
        .where(run_model.c.run_id == run.run_id, run_model.c.open_key.is_not(None))
    ).scalar()
    if not left:
        close_run(conn, run, RunStatus.SUPERSEDED, now, error=f"taken over by {by}")


def intents(conn: sql.Connection, run_id: str) -> dict[str, tuple[Intent | None, bool]]:
    """What the run means to publish by model, where it is written, and whether it was asked to redo."""
    found: dict[str, tuple[Intent | None, bool]] = {}
    for row in conn.execute(INTENTS, {"run": run_id}):
        intent = None
        if row.generation is not None:
            intent = Intent(row.model, row.generation, row.digest, row.settings, LoadMode(row.mode))
        found[row.model] = (intent, bool(row.redo))
    return found


def highest_generations(conn: sql.Connection, pipeline: str, batch: str) -> dict[str, int]:
    """The highest generation any run has meant to publish of this batch, by model."""
    return {model: int(highest) for model, highest in conn.execute(HIGHEST, {"of": pipeline, "key": batch})}


def write_intent(conn: sql.Connection, run_id: str, intent: Intent, token: int) -> None:
    values = {
        "generation": intent.generation,
        "digest": intent.digest,
        "settings": intent.settings,
        "mode": intent.mode.value,
        "token": token,
    }
    where = (run_model.c.run_id == run_id, run_model.c.model == intent.model)
    conn.execute(sql.update(run_model).where(*where).values(**values))


def _run(row: sql.Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        invocation=row.invocation,
        pipeline=row.pipeline,
        batch=row.batch,
        attempt=row.attempt,
        kind=row.kind,
        models=tuple(row.models),
        status=RunStatus(row.status),
        retry=row.retry,
        started_at=row.started_at,
        touched_at=row.touched_at,
        last_command=row.last_command,
        config=row.config,
        config_hash=row.config_hash,
        token=row.token,
        error=row.error,
        window=Window(row.window_start, row.window_end) if row.window_end is not None else None,
    )


def _window_values(run: Run) -> dict[str, Any]:
    if run.window is None:
        return {"target_date": _target_date(run.batch)}
    return {
        "window_start": run.window.start,
        "window_end": run.window.end,
        "window_seconds": int((run.window.end - run.window.start).total_seconds()),
        "target_date": _first_day(run.window, run.config["pipeline"]["source"]["batches"]["timezone"]),
    }


def _first_day(window: Window, timezone: str) -> str | None:
    """The calendar day a window begins on; None where this machine does not know the zone another one cut it in."""
    try:
        return window.start.astimezone(zone_of(timezone)).date().isoformat()
    except ValueError:
        return None


def _target_date(batch: str | None) -> str | None:
    """The calendar day a batch key begins with, where it does."""
    digits = (batch or "").replace("-", "")[:8]
    if len(digits) == 8 and digits.isdigit() and "19000101" <= digits <= "29991231":
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return None
