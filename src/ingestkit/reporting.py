"""What a command reports, read back from the state: one object per model, and a line."""

from collections.abc import Mapping, Sequence

from ingestkit.discover import Found
from ingestkit.model import Stage
from ingestkit.outcome import ModelResult, Outcome, run_ids_of
from ingestkit.session import Session
from ingestkit.states import completions, stage_rows
from ingestkit.states.runs import Run
from ingestkit.states.stage_rows import RUN_WIDE, StageRow

NAMED = 10
"""So many are named where there may be hundreds."""


def results_of(session: Session, run_: Run, models: Sequence[str], wanted: Stage) -> list[ModelResult]:
    """One object per model, read back from the state: the completion for a whole run, the sidecar for one stage."""
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, run_.run_id)
        done = completions.whole(conn, session.pipeline.name, run_.batch)
    closing = wanted in (Stage.GATE, Stage.CLEAN)
    results = []
    for model in sorted(models):
        row = rows.get((Stage.LOAD if closing or wanted is Stage.DBT else wanted, model))
        sidecar = row.work() if row is not None else None
        entry = done.get((run_.batch or "", model)) if closing else None
        counts = entry[0].counts if entry else (sidecar.work.counts if sidecar else None)
        # Without a completion the gate has not let it pass.
        judged = rows.get((Stage.DBT if wanted is Stage.DBT else Stage.GATE, "*")) if wanted in RUN_WIDE else None
        status = entry[0].status.value if entry else _status(judged or row)
        rows_ = None if counts is None else (counts.loaded if counts.loaded is not None else counts.valid)
        results.append(
            ModelResult(
                pipeline=session.pipeline.name,
                model=model,
                batch=run_.batch,
                run_id=run_.run_id,
                stage="run" if closing and wanted is Stage.CLEAN else wanted.value,
                status=status,
                rows=rows_,
                rejected=counts.rejected if counts else None,
                duplicates=counts.duplicates if counts else None,
                superseded=counts.superseded if counts else None,
                bytes=counts.bytes if counts else None,
                sha256=entry[0].digest if entry else None,
                seconds=_seconds(rows, model),
                sidecar=row.sidecar_path if row else None,
                detail=sidecar.work.skipped if sidecar else None,
                window=run_.window.to_json() if run_.window is not None else None,
            )
        )
    return results


def _status(row: StageRow | None) -> str:
    return row.status.value.lower() if row is not None else "unknown"


def _seconds(rows: Mapping[tuple[Stage, str], StageRow], model: str) -> float | None:
    """How long the run's stages took for the model, those it shares with others included."""
    known = [row.seconds for (_, name), row in rows.items() if name in (model, "*") and row.seconds is not None]
    return sum(known) if known else None


def outcome_of(session: Session, command: str, found: Found, results: list[ModelResult]) -> Outcome:
    batches = list(dict.fromkeys(one.batch for one in results if one.batch))
    warnings = tuple(f"batch {late} came late and is not loaded" for late in found.late)
    told = (
        f"{many(len(batches), 'batch', 'batches')} done: {', '.join(batches)}" if batches else "nothing had to be done"
    )
    if found.waiting:
        batch, why = next(iter(found.waiting.items()))
        told += f"; batch {batch} waits: {why}"
    return Outcome(command, session.pipeline.name, "done", told, tuple(results), warnings, run_ids=run_ids_of(results))


def named(several: Sequence[str]) -> str:
    """Those of a list that are worth naming, and how many more there are."""
    more = f" and {len(several) - NAMED} more" if len(several) > NAMED else ""
    return ", ".join(several[:NAMED]) + more


def many(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
