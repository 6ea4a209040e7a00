"""Runs, stages, intents and completions: the rows an operator asks of a drive table, and how sidecars become rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import sqlalchemy as sql

from ingestkit.model import (
    Completion,
    CompletionStatus,
    Counts,
    Intent,
    LoadMode,
    RunStatus,
    Sidecar,
    Stage,
    StageStatus,
)
from ingestkit.states import rows
from ingestkit.states.tables import (
    completion,
    decision,
    pipeline_run,
    pipeline_stage,
    quarantine,
    run_model,
)
from ingestkit.states.tables import pipeline as pipeline_table

ALL_STAGES = (Stage.EXTRACT, Stage.VALIDATE, Stage.LOAD, Stage.GATE, Stage.CLEAN)
RUN_WIDE = (Stage.GATE, Stage.CLEAN)
"""Stages that have one row per run, of model `*`."""
UNCLEANED = 20
"""How many closed runs are looked at for a clean that never ended."""
UNENDED = {StageStatus.PENDING, StageStatus.RUNNING, StageStatus.INTERRUPTED}
EXPECTED_FROM = 10
"""Of how many past successes the expected duration is the median."""


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
        }


@dataclass(frozen=True, slots=True)
class StageRow:
    run_id: str
    stage: Stage
    model: str
    status: StageStatus
    retry: int
    settings: str | None
    sidecar: Mapping[str, Any] | None
    sidecar_path: str | None
    token: int
    sequence: int
    seconds: float | None
    error: str | None

    def work(self) -> Sidecar | None:
        return Sidecar.from_json(self.sidecar) if self.sidecar else None


def open_key(pipeline: str, model: str) -> str:
    return f"{pipeline}/{model}"


# --- pipelines -------------------------------------------------------------------------------------------------------


def pipeline_row(conn: sql.Connection, pipeline: str) -> Mapping[str, Any] | None:
    query = sql.select(pipeline_table).where(pipeline_table.c.pipeline == pipeline)
    row = conn.execute(query).mappings().one_or_none()
    return dict(row) if row else None


def update_pipeline(conn: sql.Connection, pipeline: str, **values: Any) -> None:
    conn.execute(sql.update(pipeline_table).where(pipeline_table.c.pipeline == pipeline).values(**values))


# --- completions -----------------------------------------------------------------------------------------------------


def completions(
    conn: sql.Connection, pipeline: str, batch: str | None = None, model: str | None = None
) -> dict[tuple[str, str], tuple[Completion, datetime]]:
    """The pipeline's completions by (batch, model), with when each was written; all, or those of one batch or model."""
    query = sql.select(completion).where(completion.c.pipeline == pipeline)
    if batch is not None:
        query = query.where(completion.c.batch == batch)
    if model is not None:
        query = query.where(completion.c.model == model)
    names = completion.columns.keys()
    found = {}
    for row in conn.execute(query).fetchall():
        fields = dict(zip(names, row, strict=True))
        at = fields.pop("at")
        mode = fields["mode"]
        fields["mode"] = LoadMode(mode) if mode else None
        fields["status"] = CompletionStatus(fields["status"])
        fields["counts"] = Counts.from_json(fields["counts"])
        found[fields["batch"], fields["model"]] = (Completion(**fields), at)
    return found


# --- runs ------------------------------------------------------------------------------------------------------------


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
        .order_by(pipeline_run.c.started_at.desc(), pipeline_run.c.attempt.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return _run(row) if row else None


def of_invocation(conn: sql.Connection, pipeline: str, invocation: str) -> list[Run]:
    """The runs one invocation has made, in the order it made them."""
    query = (
        sql.select(pipeline_run)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.invocation == invocation)
        .order_by(pipeline_run.c.started_at, pipeline_run.c.attempt)
    )
    return [_run(row) for row in conn.execute(query)]


def open_runs(conn: sql.Connection, pipeline: str) -> list[tuple[Run, frozenset[str]]]:
    """The open runs, oldest first, each with the models it still has open."""
    query = (
        sql.select(run_model.c.run_id, run_model.c.model)
        .where(run_model.c.pipeline == pipeline, run_model.c.open_key.is_not(None))
        .order_by(run_model.c.run_id)
    )
    models: dict[str, set[str]] = {}
    for run_id, model in conn.execute(query):
        models.setdefault(run_id, set()).add(model)
    found = [(one, frozenset(names)) for run_id, names in models.items() if (one := run(conn, run_id)) is not None]
    return sorted(found, key=lambda pair: pair[0].started_at)


def uncleaned(conn: sql.Connection, pipeline: str) -> list[Run]:
    """The newest closed runs whose clean never came to an end: their process died between gate and clean."""
    query = (
        sql.select(pipeline_run)
        .where(
            pipeline_run.c.pipeline == pipeline,
            pipeline_run.c.status.in_([RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value]),
        )
        .order_by(pipeline_run.c.ended_at.desc())
        .limit(UNCLEANED)
    )
    return [_run(row) for row in conn.execute(query) if Stage.CLEAN.value in row.phases_pending]


def later_attempts(conn: sql.Connection, run: Run) -> list[str]:
    """Runs of the same batch, sharing a model, that were started later."""
    query = sql.select(pipeline_run).where(
        pipeline_run.c.pipeline == run.pipeline,
        pipeline_run.c.batch == run.batch,
        pipeline_run.c.attempt > run.attempt,
    )
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


def insert_run(conn: sql.Connection, new: Run, now: datetime, owner: str) -> None:
    values = {
        "run_id": new.run_id,
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
        "target_date": _target_date(new.batch),
        "phases_completed": [],
        "phases_skipped": [],
        "phases_failed": [],
        "phases_pending": [stage.value for stage in ALL_STAGES],
        "counts": {},
    }
    conn.execute(rows.insert(conn, pipeline_run).values(**values))


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
        duration=human(seconds),
        touched_at=now,
        **values,
    )
    conn.execute(
        sql.update(run_model)
        .where(run_model.c.run_id == run.run_id, run_model.c.open_key.is_not(None))
        .values(open_key=None, status=status.value)
    )
    note_phases(conn, run.run_id)


def open_models(conn: sql.Connection, run: Run, models: Iterable[str], token: int, *, redo: bool) -> None:
    """Open a run's models; the unique key makes a second open run of one impossible.

    A redo forgets which generation was meant before: it means the next one.
    """
    for model in models:
        key = {"run_id": run.run_id, "model": model}
        values = {
            "pipeline": run.pipeline,
            "batch": run.batch,
            "token": token,
            "open_key": open_key(run.pipeline, model),
            "status": RunStatus.OPEN.value,
            "redo": redo,
        } | ({"generation": None} if redo else {})
        statement = rows.insert(conn, run_model).values(**key, **values)
        conn.execute(statement.on_conflict_do_update(index_elements=["run_id", "model"], set_=values))


def add_models(conn: sql.Connection, run: Run, token: int) -> None:
    """A rebuilt run's models; none of them is open."""
    for model in run.models:
        values = {
            "run_id": run.run_id,
            "model": model,
            "pipeline": run.pipeline,
            "batch": run.batch,
            "status": run.status.value,
            "redo": False,
            "token": token,
        }
        rows.put_absent(conn, run_model, values)


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


def own_models(conn: sql.Connection, run_id: str) -> tuple[str, ...]:
    """The run's models without those another attempt has taken; all of them where it took them all."""
    query = sql.select(run_model.c.model, run_model.c.status).where(run_model.c.run_id == run_id)
    found = conn.execute(query.order_by(run_model.c.model)).all()
    left = tuple(row.model for row in found if row.status != RunStatus.SUPERSEDED.value)
    return left or tuple(row.model for row in found)


def intents(conn: sql.Connection, run_id: str) -> dict[str, tuple[Intent | None, bool]]:
    """What the run means to publish by model, where it is written, and whether it was asked to redo."""
    found: dict[str, tuple[Intent | None, bool]] = {}
    for row in conn.execute(sql.select(run_model).where(run_model.c.run_id == run_id)):
        intent = None
        if row.generation is not None:
            intent = Intent(row.model, row.generation, row.digest, row.settings, LoadMode(row.mode))
        found[row.model] = (intent, bool(row.redo))
    return found


def highest_generation(conn: sql.Connection, pipeline: str, batch: str, model: str) -> int:
    """The highest generation any run has meant to publish for the model of this batch."""
    query = sql.select(sql.func.max(run_model.c.generation)).where(
        run_model.c.pipeline == pipeline, run_model.c.batch == batch, run_model.c.model == model
    )
    return int(conn.execute(query).scalar() or 0)


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


# --- stages ----------------------------------------------------------------------------------------------------------


def stages(conn: sql.Connection, run_id: str) -> dict[tuple[Stage, str], StageRow]:
    found = {}
    for row in conn.execute(sql.select(pipeline_stage).where(pipeline_stage.c.run_id == run_id)):
        one = StageRow(
            run_id=row.run_id,
            stage=Stage(row.stage),
            model=row.model,
            status=StageStatus(row.status),
            retry=row.retry,
            settings=row.settings,
            sidecar=row.sidecar,
            sidecar_path=row.sidecar_path,
            token=row.token,
            sequence=row.sequence,
            seconds=row.seconds,
            error=row.error,
        )
        found[one.stage, one.model] = one
    return found


def begin_stage(
    conn: sql.Connection, run: Run, stage: Stage, model: str, token: int, now: datetime, retry: int | None = None
) -> int:
    """Mark a stage RUNNING, and return its retry number: one more than when it was last begun."""
    before = stages(conn, run.run_id).get((stage, model))
    number = 0 if before is None else before.retry + 1
    values = {
        "run_id": run.run_id,
        "stage": stage.value,
        "model": model,
        "pipeline": run.pipeline,
        "batch": run.batch,
        "status": StageStatus.RUNNING.value,
        "retry": number if retry is None else retry,
        "started_at": now,
        "ended_at": None,
        "seconds": None,
        "expected_seconds": expected_seconds(conn, run.pipeline, stage, model),
        "error": None,
        "token": token,
        "sequence": before.sequence if before else 0,
    }
    keys = ["run_id", "stage", "model"]
    statement = rows.insert(conn, pipeline_stage).values(**values)
    changes = {name: value for name, value in values.items() if name not in keys}
    conn.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
    update_run(conn, run.run_id, touched_at=now)
    note_phases(conn, run.run_id)
    return number if retry is None else retry


def end_stage_badly(
    conn: sql.Connection, run_id: str, stage: Stage, model: str, status: StageStatus, error: str, now: datetime
) -> None:
    where = _stage_where(run_id, stage, model)
    started = conn.execute(sql.select(pipeline_stage.c.started_at).where(*where)).scalar()
    seconds = (now - started).total_seconds() if started else None
    values = {"status": status.value, "error": error, "ended_at": now, "seconds": seconds}
    conn.execute(sql.update(pipeline_stage).where(*where).values(**values))
    note_phases(conn, run_id)


def put_back(conn: sql.Connection, run_id: str, wanted: Sequence[Stage], models: Iterable[str], now: datetime) -> None:
    """Make stages of a run pending again, so that they are done again."""
    conn.execute(
        sql.update(pipeline_stage)
        .where(
            pipeline_stage.c.run_id == run_id,
            pipeline_stage.c.stage.in_([stage.value for stage in wanted]),
            pipeline_stage.c.model.in_([*models, "*"]),
        )
        .values(status=StageStatus.PENDING.value, error=None)
    )
    update_run(conn, run_id, touched_at=now)
    note_phases(conn, run_id)


def interrupt_stages(conn: sql.Connection, run_id: str, models: Iterable[str], below: int, now: datetime) -> int:
    """Mark stages whose owner is dead: still RUNNING under a lower token."""
    changed = conn.execute(
        sql.update(pipeline_stage)
        .where(
            pipeline_stage.c.run_id == run_id,
            pipeline_stage.c.status == StageStatus.RUNNING.value,
            pipeline_stage.c.token < below,
            pipeline_stage.c.model.in_([*models, "*"]),
        )
        .values(status=StageStatus.INTERRUPTED.value, error="its process ended before it did", ended_at=now)
    )
    return changed.rowcount


def expected_seconds(conn: sql.Connection, pipeline: str, stage: Stage, model: str) -> float | None:
    query = (
        sql.select(pipeline_stage.c.seconds)
        .where(
            pipeline_stage.c.pipeline == pipeline,
            pipeline_stage.c.stage == stage.value,
            pipeline_stage.c.model == model,
            pipeline_stage.c.status == StageStatus.SUCCESS.value,
            pipeline_stage.c.seconds.is_not(None),
        )
        .order_by(pipeline_stage.c.ended_at.desc())
        .limit(EXPECTED_FROM)
    )
    past = [float(seconds) for (seconds,) in conn.execute(query)]
    return median(past) if past else None


def status_of(sidecar: Sidecar) -> StageStatus:
    """A stage whose work is done may still have failed by verdict alone."""
    if any(rule.passed is False for rule in sidecar.work.rules):
        return StageStatus.FAILED
    return StageStatus.SKIPPED if sidecar.work.skipped else StageStatus.SUCCESS


def apply_sidecar(conn: sql.Connection, sidecar: Sidecar, path: str, now: datetime) -> bool:
    """Write all rows a sidecar stands for. False, and nothing written, when the stored stage row is as new or newer."""
    stage, model = sidecar.stage, sidecar.model
    where = _stage_where(sidecar.run_id, stage, model)
    before = conn.execute(sql.select(pipeline_stage).where(*where)).one_or_none()
    if before is not None and before.sidecar is not None:
        stored = (before.sidecar["token"], before.sidecar["sequence"])
        if stored >= (sidecar.token, sidecar.sequence):
            return False
    started = before.started_at if before is not None else None
    status = status_of(sidecar)
    failed = [rule.name for rule in sidecar.work.rules if rule.passed is False]
    values = {
        "run_id": sidecar.run_id,
        "stage": stage.value,
        "model": model,
        "pipeline": sidecar.pipeline,
        "batch": sidecar.batch,
        "status": status.value,
        "retry": before.retry if before is not None else 0,
        "started_at": started or sidecar.at,
        "ended_at": sidecar.at,
        "seconds": (sidecar.at - started).total_seconds() if started else None,
        "error": f"rules failed: {', '.join(failed)}" if failed else None,
        "details": dict(sidecar.work.details),
        # The run row beside it holds the run's own facts; repeated here they would be most of the state.
        "sidecar": sidecar.to_json() | {"run": {}},
        "sidecar_path": path,
        "settings": sidecar.settings,
        "token": sidecar.token,
        "sequence": sidecar.sequence,
    }
    if not rows.put(conn, pipeline_stage, values):
        return False
    _apply_work(conn, sidecar, now)
    note_phases(conn, sidecar.run_id)
    return True


def _apply_work(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    work = sidecar.work
    for file in work.files:
        rows.put_file(conn, file, now)
    for artifact in work.artifacts:
        rows.put_artifact(conn, artifact, now)
    if sidecar.stage is Stage.VALIDATE:
        _forget_rejects(conn, sidecar)
    for held in work.quarantine:
        rows.put_quarantined(conn, held, now)
    for drift in work.drift:
        rows.put_drift(conn, drift, (sidecar.run_id, sidecar.pipeline, sidecar.batch), sidecar.token, now)
    if sidecar.stage is Stage.LOAD:
        _release_rejects(conn, sidecar, now)
    if work.completions:
        _complete(conn, sidecar, now)


def _forget_rejects(conn: sql.Connection, sidecar: Sidecar) -> None:
    """A stage done again in the same run says anew what it rejects."""
    conn.execute(
        sql.delete(quarantine).where(
            quarantine.c.run_id == sidecar.run_id,
            quarantine.c.model == sidecar.model,
            quarantine.c.token <= sidecar.token,
        )
    )


def _release_rejects(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """With the publish, this run's rejects are open; those of other attempts at the same rows are superseded."""
    where = (
        quarantine.c.pipeline == sidecar.pipeline,
        quarantine.c.batch == sidecar.batch,
        quarantine.c.model == sidecar.model,
    )
    mine = quarantine.c.run_id == sidecar.run_id
    conn.execute(
        sql.update(quarantine).where(*where, mine, quarantine.c.status == "held").values(status="open", at=now)
    )
    conn.execute(
        sql.update(quarantine)
        .where(*where, ~mine, quarantine.c.status.in_(["held", "open"]))
        .values(status="superseded", at=now)
    )


def _complete(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """Gate's end: completions of all models and the closing of the run, in the caller's one transaction."""
    for done in sidecar.work.completions:
        rows.put_completion(conn, done, now)
    ended = run(conn, sidecar.run_id)
    if ended is None or ended.status is not RunStatus.OPEN:
        return
    rejects = any((done.counts.rejected or 0) > 0 for done in sidecar.work.completions)
    status = RunStatus.SUCCESS_WITH_REJECTS if rejects else RunStatus.SUCCESS
    counts = Counts.total(done.counts for done in sidecar.work.completions).to_json()
    close_run(conn, ended, status, now, verdict=sidecar.work.details.get("verdict"), counts=counts, error=None)
    for done in sidecar.work.completions:
        own = RunStatus.SUCCESS_WITH_REJECTS if done.counts.rejected else RunStatus.SUCCESS
        where = (run_model.c.run_id == sidecar.run_id, run_model.c.model == done.model)
        conn.execute(sql.update(run_model).where(*where).values(status=own.value))
    update_pipeline(conn, sidecar.pipeline, moved_at=now)


def batches_with_open_rejects(conn: sql.Connection, pipeline: str, model: str) -> set[str]:
    query = (
        sql.select(quarantine.c.batch)
        .distinct()
        .where(quarantine.c.pipeline == pipeline, quarantine.c.model == model, quarantine.c.status == "open")
    )
    return {batch for (batch,) in conn.execute(query)}


def note_phases(conn: sql.Connection, run_id: str) -> None:
    """Say in the run row which phases are completed, skipped, failed and pending, as its stage rows have it."""
    # Only these columns: it is done at each stage's beginning and end, and sidecars are long.
    columns = (pipeline_stage.c.stage, pipeline_stage.c.model, pipeline_stage.c.status)
    known = conn.execute(sql.select(*columns).where(pipeline_stage.c.run_id == run_id)).fetchall()
    models = own_models(conn, run_id)
    groups: dict[str, list[str]] = {"completed": [], "skipped": [], "failed": [], "pending": []}
    for stage in ALL_STAGES:
        expected = 1 if stage in RUN_WIDE else len(models)
        statuses = [StageStatus(status) for name, model, status in known if name == stage and model in (*models, "*")]
        if not models:
            # It found nothing waiting.
            groups["skipped"].append(stage.value)
        elif StageStatus.FAILED in statuses:
            groups["failed"].append(stage.value)
        elif len(statuses) < expected or UNENDED & set(statuses):
            groups["pending"].append(stage.value)
        elif set(statuses) == {StageStatus.SKIPPED}:
            groups["skipped"].append(stage.value)
        else:
            groups["completed"].append(stage.value)
    update_run(conn, run_id, **{f"phases_{name}": value for name, value in groups.items()})


def human(seconds: float) -> str:
    """A duration as a person says it: `1h 02m 03s`, `4.2s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"


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
    )


def _stage_where(run_id: str, stage: Stage, model: str) -> tuple[sql.ColumnElement[bool], ...]:
    return (
        pipeline_stage.c.run_id == run_id,
        pipeline_stage.c.stage == stage.value,
        pipeline_stage.c.model == model,
    )


def _target_date(batch: str | None) -> str | None:
    """The calendar day a batch key begins with, where it does."""
    digits = (batch or "").replace("-", "")[:8]
    if len(digits) == 8 and digits.isdigit() and "19000101" <= digits <= "29991231":
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return None
