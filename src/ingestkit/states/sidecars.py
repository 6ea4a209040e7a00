"""How a sidecar becomes rows: all it stands for in the caller's one transaction, or nothing where newer is stored."""

from datetime import datetime

import sqlalchemy as sql

from ingestkit.model import Counts, RunStatus, Sidecar, Stage, StageStatus
from ingestkit.states import quarantine, rows, runs, stage_rows
from ingestkit.states.tables import pipeline_stage, run_model


def status_of(sidecar: Sidecar) -> StageStatus:
    """A stage whose work is done may still have failed by verdict alone."""
    if any(rule.passed is False for rule in sidecar.work.rules):
        return StageStatus.FAILED
    return StageStatus.SKIPPED if sidecar.work.skipped else StageStatus.SUCCESS


def apply(conn: sql.Connection, sidecar: Sidecar, path: str, now: datetime) -> bool:
    """Write all rows a sidecar stands for. False, and nothing written, when the stored stage row is as new or newer."""
    stage, model = sidecar.stage, sidecar.model
    before = stage_rows.left(conn, sidecar.run_id, stage, model)
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
    stage_rows.note_phases(conn, sidecar.run_id)
    return True


def _apply_work(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    work = sidecar.work
    rows.put_files(conn, work.files, now)
    rows.put_artifacts(conn, work.artifacts, now)
    if sidecar.stage is Stage.VALIDATE:
        quarantine.forget(conn, sidecar, now)
    for held in work.quarantine:
        rows.put_quarantined(conn, held, now)
    for drift in work.drift:
        rows.put_drift(conn, drift, (sidecar.run_id, sidecar.pipeline, sidecar.batch), sidecar.token, now)
    if sidecar.stage is Stage.LOAD:
        quarantine.release(conn, sidecar, now)
    if work.completions:
        _complete(conn, sidecar, now)


def _complete(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """Gate's end: completions of all models and the closing of the run, in the caller's one transaction."""
    rows.put_completions(conn, sidecar.work.completions, now)
    ended = runs.run(conn, sidecar.run_id)
    if ended is None or ended.status is not RunStatus.OPEN:
        return
    rejects = any((done.counts.rejected or 0) > 0 for done in sidecar.work.completions)
    status = RunStatus.SUCCESS_WITH_REJECTS if rejects else RunStatus.SUCCESS
    counts = Counts.total(done.counts for done in sidecar.work.completions).to_json()
    runs.close_run(conn, ended, status, now, verdict=sidecar.work.details.get("verdict"), counts=counts, error=None)
    endings = {True: RunStatus.SUCCESS_WITH_REJECTS.value, False: RunStatus.SUCCESS.value}
    own = sql.update(run_model).where(run_model.c.run_id == sidecar.run_id, run_model.c.model == sql.bindparam("one"))
    ended_so = [{"one": done.model, "so": endings[bool(done.counts.rejected)]} for done in sidecar.work.completions]
    conn.execute(own.values(status=sql.bindparam("so")), ended_so)
    runs.update_pipeline(conn, sidecar.pipeline, moved_at=now)
