"""Batches that are stepped over: by a person, or windows that were missed where only the newest is wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sql

from ingestkit import steps
from ingestkit.model import Completion, CompletionStatus, FileStatus, FileVersion, instant
from ingestkit.recover import copy_decisions
from ingestkit.session import Session
from ingestkit.sighting import is_unpublished
from ingestkit.states import decisions, ledger, quarantine, rows, runs
from ingestkit.states.decisions import Decision
from ingestkit.states.lease import Lease
from ingestkit.windowing import Batches


def pass_missed(session: Session, lease: Lease, missed: Mapping[str, tuple[str, ...]], there: Batches) -> None:
    """Step over windows that were missed, by one decision that names them all (`catchup: false`)."""
    name = session.pipeline.name
    keys = sorted(missed)
    with lease.transaction() as conn:
        files: dict[str, list[FileVersion]] = {key: [] for key in keys}
        for file in ledger.versions(conn, name, keys):
            files[file.batch].append(file)
        subject = {"windows": [_missed(key, missed[key], files[key], there) for key in keys]}
        reason, at = "source.batches.catchup is false: only the newest window is taken", session.clock.now()
        made = decisions.record(conn, name, "skip", subject, reason=reason, by="ingestkit", at=at)
        skip(conn, name, made, lease.token)
    steps.reached("windows.stepped_over")
    copy_decisions(session, lease)
    span = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
    session.progress.warned(
        f"stepped over {len(keys)} window(s), {span}: source.batches.catchup is false",
        hint=f"to load one all the same: ingestkit backfill {name} --batch {keys[-1]}",
    )


def _missed(key: str, models: Sequence[str], files: Sequence[FileVersion], there: Batches) -> dict[str, object]:
    window = there[key]
    assert window is not None
    found = [one.path for one in ledger.latest(files).values() if one.model in models and is_unpublished(one)]
    return {"batch": key, "models": list(models), "files": found, "until": window.end.isoformat()}


def skip(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    """What a decision to step over batches makes of the state."""
    for one in made.subject.get("windows", [made.subject]):
        batch, models, files, until = one["batch"], one["models"], one["files"], one.get("until")
        for run, theirs in runs.open_runs(conn, pipeline):
            if run.batch == batch and theirs & set(models):
                runs.take_models(conn, run, theirs & set(models), "skip", made.at)
        for model in models:
            done = Completion(
                pipeline=pipeline,
                batch=batch,
                model=model,
                status=CompletionStatus.SKIPPED,
                mode=None,
                generation=0,
                digest=None,
                settings=None,
                run_id=f"decision {made.number}",
                token=token,
                window_end=instant(until) if until is not None else None,
            )
            rows.put_completion(conn, done, made.at)
        for file in ledger.latest(ledger.versions(conn, pipeline, [batch])).values():
            if (file.model in models or file.path in files) and is_unpublished(file):
                mark(conn, file, FileStatus.SKIPPED, made, token)
        quarantine.step_over(conn, pipeline, batch, made.at)
        if models:
            runs.update_pipeline(conn, pipeline, moved_at=made.at)


def mark(conn: sql.Connection, file: FileVersion, status: FileStatus, made: Decision, token: int) -> None:
    """Give a file the status that was decided, with the reason."""
    marked = replace(file, status=status, reason=f"decision {made.number}: {made.reason}", token=token)
    rows.put_file(conn, marked, made.at)
