"""Stage rows: one per run, stage and model, and what the run row says of its phases from them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Protocol

import sqlalchemy as sql

from ingestkit.errors import IngestkitError
from ingestkit.model import ALL_STAGES, Rule, RunStatus, Sidecar, Stage, StageStatus
from ingestkit.states import rows
from ingestkit.states.tables import pipeline_run, pipeline_stage, run_model

JUDGED = 20
"""The rules of so many runs are looked through for what is usual."""

RUN_WIDE = (Stage.DBT, Stage.GATE, Stage.CLEAN)
"""Stages that have one row per run, of model `*`."""
UNENDED = {StageStatus.PENDING, StageStatus.RUNNING, StageStatus.INTERRUPTED}
EXPECTED_FROM = 10
"""Of how many past successes the expected duration is the median."""

# Each stage begins and ends with these, so that they are made once.
OF_RUN = sql.select(pipeline_stage).where(pipeline_stage.c.run_id == sql.bindparam("run"))
ONE = (
    pipeline_stage.c.run_id == sql.bindparam("run"),
    pipeline_stage.c.stage == sql.bindparam("phase"),
    pipeline_stage.c.model == sql.bindparam("of"),
)
LEFT = sql.select(pipeline_stage.c.retry, pipeline_stage.c.started_at, pipeline_stage.c.sidecar).where(*ONE)
PAST_SECONDS = (
    sql.select(
        pipeline_stage.c.seconds,
        sql.cast(sql.null(), sql.Integer).label("retry"),
        sql.cast(sql.null(), sql.Integer).label("sequence"),
    )
    .where(
        pipeline_stage.c.pipeline == sql.bindparam("pipe"),
        pipeline_stage.c.stage == sql.bindparam("phase"),
        pipeline_stage.c.model == sql.bindparam("of"),
        pipeline_stage.c.status == StageStatus.SUCCESS.value,
        pipeline_stage.c.seconds.is_not(None),
    )
    .order_by(pipeline_stage.c.ended_at.desc())
    .limit(EXPECTED_FROM)
)
# The row as it was last begun, and how long the stage took before, told apart by what each has not.
BEFORE = sql.union_all(
    sql.select(PAST_SECONDS.subquery()),
    sql.select(sql.cast(sql.null(), sql.Float), pipeline_stage.c.retry, pipeline_stage.c.sequence).where(*ONE),
)
MODELS = (
    sql.select(run_model.c.model, run_model.c.status)
    .where(run_model.c.run_id == sql.bindparam("run"))
    .order_by(run_model.c.model)
)
PHASES = ("completed", "skipped", "failed", "pending")
# Whether the run was begun with dbt among its phases.
WITH_DBT = (
    sql.select(sql.or_(*(sql.cast(pipeline_run.c[f"phases_{name}"], sql.Text).contains('"dbt"') for name in PHASES)))
    .where(pipeline_run.c.run_id == sql.bindparam("run"))
    .scalar_subquery()
    .label("with_dbt")
)
# Only some columns: the sidecars of all stages are long.
REACHED = MODELS.add_columns(pipeline_stage.c.stage, pipeline_stage.c.status.label("reached"), WITH_DBT).outerjoin_from(
    run_model,
    pipeline_stage,
    (pipeline_stage.c.run_id == run_model.c.run_id) & pipeline_stage.c.model.in_([run_model.c.model, "*"]),
)
OWN_ROW = sql.update(pipeline_run).where(pipeline_run.c.run_id == sql.bindparam("run"))
TOUCHED = OWN_ROW.values(touched_at=sql.bindparam("now"))
NOTED = OWN_ROW.values({f"phases_{name}": sql.bindparam(name) for name in PHASES})


class RunKey(Protocol):
    """What of a run a stage row repeats."""

    @property
    def run_id(self) -> str: ...

    @property
    def pipeline(self) -> str: ...

    @property
    def batch(self) -> str | None: ...


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


def own_models(conn: sql.Connection, run_id: str) -> tuple[str, ...]:
    """The run's models without those another attempt has taken; all of them where it took them all."""
    return _own(conn.execute(MODELS, {"run": run_id}).all())


def _own(found: Sequence[sql.Row[Any, Any]]) -> tuple[str, ...]:
    left = tuple(row.model for row in found if row.status != RunStatus.SUPERSEDED.value)
    return left or tuple(row.model for row in found)


def of_run(conn: sql.Connection, run_id: str) -> dict[tuple[Stage, str], StageRow]:
    found = {}
    for row in conn.execute(OF_RUN, {"run": run_id}):
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


def left(conn: sql.Connection, run_id: str, stage: Stage, model: str) -> sql.Row[Any, Any, Any] | None:
    """What a stage's row says of its beginning, and the sidecar it was last written from."""
    return conn.execute(LEFT, _one(run_id, stage, model)).one_or_none()


def left_of_batch(
    conn: sql.Connection, pipeline: str, batch: str, stage: Stage, model: str, at: datetime | None = None
) -> Iterator[Sidecar]:
    """What the stage left of a batch and model, in whatever run, newest first; or what it had left by an instant."""
    columns = pipeline_stage.c
    query = sql.select(columns.sidecar).where(
        columns.pipeline == pipeline,
        columns.stage == stage.value,
        columns.model == model,
        columns.batch == batch,
        columns.sidecar.is_not(None),
    )
    if at is not None:
        query = query.where(columns.ended_at <= at)
    for sidecar in conn.execute(query.order_by(columns.token.desc(), columns.sequence.desc())).scalars():
        yield Sidecar.from_json(sidecar)


def judged(conn: sql.Connection, pipeline: str) -> list[tuple[str, Rule]]:
    """The rules of the pipeline's newest runs that have ended, each with the batch it was judged for, newest first."""
    ended = (RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value, RunStatus.FAILED.value)
    newest = (
        sql.select(pipeline_run.c.run_id, pipeline_run.c.number)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.status.in_(ended))
        .order_by(pipeline_run.c.number.desc())
        .limit(JUDGED)
        .subquery()
    )
    query = (
        sql.select(pipeline_stage.c.batch, pipeline_stage.c.sidecar)
        .join(newest, pipeline_stage.c.run_id == newest.c.run_id)
        .where(pipeline_stage.c.sidecar.is_not(None))
        .order_by(newest.c.number.desc(), pipeline_stage.c.stage, pipeline_stage.c.model)
    )
    return [
        (batch, Rule.from_json(rule)) for batch, sidecar in conn.execute(query) for rule in sidecar.get("rules", ())
    ]


def begin(
    conn: sql.Connection, run: RunKey, stage: Stage, model: str, token: int, now: datetime, retry: int | None = None
) -> int:
    """Mark a stage RUNNING, and return its retry number: one more than when it was last begun."""
    known = conn.execute(BEFORE, _one(run.run_id, stage, model) | {"pipe": run.pipeline}).all()
    before = next((row for row in known if row.retry is not None), None)
    past = [float(row.seconds) for row in known if row.seconds is not None]
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
        "expected_seconds": median(past) if past else None,
        "error": None,
        "token": token,
        "sequence": before.sequence if before else 0,
    }
    rows.put_anyway(conn, pipeline_stage, values)
    _touch(conn, run.run_id, now)
    if before is not None:
        # What is begun for the first time was pending, and still is.
        note_phases(conn, run.run_id)
    return number if retry is None else retry


def end_badly(
    conn: sql.Connection,
    run_id: str,
    stage: Stage,
    model: str,
    status: StageStatus,
    error: IngestkitError,
    now: datetime,
) -> None:
    here = _one(run_id, stage, model)
    started = conn.execute(sql.select(pipeline_stage.c.started_at).where(*ONE), here).scalar()
    seconds = (now - started).total_seconds() if started else None
    values: dict[str, Any] = {"status": status.value, "error": error.message, "ended_at": now, "seconds": seconds}
    if error.details:
        values["details"] = {"error": dict(error.details)}
    conn.execute(sql.update(pipeline_stage).where(*ONE).values(**values), here)
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
    _touch(conn, run_id, now)
    note_phases(conn, run_id)


def interrupt(conn: sql.Connection, run_id: str, models: Iterable[str], below: int, now: datetime) -> int:
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


def note_phases(conn: sql.Connection, run_id: str) -> None:
    """Say in the run row which phases are completed, skipped, failed and pending, as its stage rows have it."""
    known = conn.execute(REACHED, {"run": run_id}).all()
    models = set(_own(known))
    groups: dict[str, list[str]] = {name: [] for name in PHASES}
    with_dbt = any(row.with_dbt or row.stage == Stage.DBT for row in known)
    for stage in (one for one in ALL_STAGES if with_dbt or one is not Stage.DBT):
        # A row of all models comes once with each of them.
        statuses = [StageStatus(row.reached) for row in known if row.stage == stage and row.model in models]
        if not models:
            # It found nothing waiting.
            groups["skipped"].append(stage.value)
        elif StageStatus.FAILED in statuses:
            groups["failed"].append(stage.value)
        elif len(statuses) < len(models) or UNENDED & set(statuses):
            groups["pending"].append(stage.value)
        elif set(statuses) == {StageStatus.SKIPPED}:
            groups["skipped"].append(stage.value)
        else:
            groups["completed"].append(stage.value)
    conn.execute(NOTED, {"run": run_id} | groups)


def _one(run_id: str, stage: Stage, model: str) -> dict[str, str]:
    return {"run": run_id, "phase": stage.value, "of": model}


def _touch(conn: sql.Connection, run_id: str, now: datetime) -> None:
    conn.execute(TOUCHED, {"run": run_id, "now": now})
