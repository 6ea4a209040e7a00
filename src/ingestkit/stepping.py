"""Batches that are stepped over: by a person, or windows that were missed where only the newest is wanted."""

from dataclasses import replace

import sqlalchemy as sql

from ingestkit import steps
from ingestkit.model import Completion, CompletionStatus, FileStatus, FileVersion, instant
from ingestkit.recover import copy_decisions
from ingestkit.reporting import many
from ingestkit.session import Session
from ingestkit.states import completions, decisions, ledger, quarantine, rows, runs
from ingestkit.states.decisions import Decision
from ingestkit.states.lease import Lease
from ingestkit.windowing import Missed


def pass_missed(session: Session, lease: Lease, missed: Missed) -> None:
    """Step over windows that were missed: models begin behind the last of them (`catchup: false`)."""
    name, models = session.pipeline.name, list(lease.models)
    with lease.transaction() as conn:
        done = completions.done(conn, name).keys()
        waiting = ledger.unpublished(conn, name, up_to=missed.last)
        files = [one.path for one in waiting if one.model in models and (one.batch, one.model) not in done]
        subject = {
            "batch": missed.last,
            "models": models,
            "files": files,
            "until": missed.until.isoformat(),
            "from": missed.first,
            "windows": missed.windows,
        }
        reason, at = "source.batches.catchup is false: only the newest window is taken", session.clock.now()
        made = decisions.record(conn, name, "skip", subject, reason=reason, by="ingestkit", at=at)
        skip(conn, name, made, lease.token)
    steps.reached("windows.stepped_over")
    copy_decisions(session, lease)
    span = missed.last if missed.windows == 1 else f"{missed.first} to {missed.last}"
    session.progress.warned(
        f"stepped over {many(missed.windows, 'window', 'windows')}, {span}: source.batches.catchup is false",
        hint=f"to load one all the same: ingestkit backfill {name} --batch {missed.last}",
    )


def skip(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    """What a decision to step over a batch, or all windows up to one, makes of the state."""
    batch, models, paths = made.subject["batch"], made.subject["models"], set(made.subject["files"])
    if "windows" in made.subject:
        put_floor(conn, pipeline, made)
        files = [file for file in ledger.unpublished(conn, pipeline, up_to=batch) if file.path in paths]
    else:
        _complete(conn, pipeline, made, token)
        known = ledger.latest(ledger.versions(conn, pipeline, [batch])).values()
        files = [one for one in known if (one.model in models or one.path in paths) and ledger.is_unpublished(one)]
    for file in files:
        mark(conn, file, FileStatus.SKIPPED, made, token)
    for held in {batch, *(file.batch for file in files)}:
        quarantine.step_over(conn, pipeline, held, made.at)
    if models:
        runs.update_pipeline(conn, pipeline, moved_at=made.at)


def _complete(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    """The batch of a decision counts as done for its models."""
    batch, models, until = made.subject["batch"], made.subject["models"], made.subject.get("until")
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
        rows.put_completions(conn, [done], made.at)


def put_floor(conn: sql.Connection, pipeline: str, made: Decision) -> None:
    """Let models begin behind the batch of a decision; of windows that are floors it is kept where they end."""
    row = runs.pipeline_row(conn, pipeline)
    floors = (dict(row["floors"]) if row else {}) | dict.fromkeys(made.subject["models"], made.subject["batch"])
    runs.update_pipeline(conn, pipeline, floors=floors)
    if "until" in made.subject:
        ends = ((row["floor_ends"] if row else None) or {}) | {made.subject["batch"]: made.subject["until"]}
        kept = {batch: end for batch, end in ends.items() if batch in floors.values()}
        runs.update_pipeline(conn, pipeline, floor_ends=kept)


def mark(conn: sql.Connection, file: FileVersion, status: FileStatus, made: Decision, token: int) -> None:
    """Give a file the status that was decided, with the reason."""
    marked = replace(file, status=status, reason=f"decision {made.number}: {made.reason}", token=token)
    rows.put_file(conn, marked, made.at)
