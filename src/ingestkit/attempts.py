"""Runs as rows: opening one, going on with one, taking one over. One row per attempt at a batch."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from ingestkit import steps
from ingestkit.errors import Busy, UsageError
from ingestkit.model import Intent, RunStatus, Verdict, human_duration
from ingestkit.reporting import many
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import runs
from ingestkit.states.lease import Lease
from ingestkit.states.runs import Run

REDONE = ("backfill", "restore", "from_lake", "as_of", "replay")
"""Kinds of runs that publish again what may be there as it is."""


def open_new(
    session: Session,
    lease: Lease,
    unit: Unit,
    *,
    kind: str,
    command: str,
    invocation: str | None = None,
    as_of: datetime | None = None,
) -> Run:
    """A new attempt at a batch, taking its models from any open run that has them."""
    now = session.clock.now()
    batch, models = unit.batch, unit.models
    with lease.transaction() as conn:
        attempt = runs.next_attempt(conn, session.pipeline.name, batch)
        run_id = f"{session.pipeline.name}.{batch}.{attempt}"
        if invocation is not None:
            run_id = _free_id(conn, invocation)
        new = Run(
            run_id=run_id,
            invocation=invocation or run_id,
            pipeline=session.pipeline.name,
            batch=batch,
            attempt=attempt,
            kind=kind,
            models=models,
            status=RunStatus.OPEN,
            retry=0,
            started_at=now,
            touched_at=now,
            last_command=command,
            config=_kept(session, as_of),
            config_hash=session.config_hash,
            token=lease.token,
            window=unit.window,
        )
        meant: list[Intent] = []
        for other, theirs in runs.open_runs(conn, session.pipeline.name):
            taken = theirs & set(models)
            if taken:
                meant += [one for name, (one, _) in runs.intents(conn, other.run_id).items() if one and name in taken]
                runs.take_models(conn, other, taken, run_id, now)
        runs.insert_run(conn, new, now, lease.owner.shown())
        runs.open_models(conn, new, models, lease.token, redo=kind in REDONE)
        for intent in meant:
            # What the other attempt meant may be published already: the same content keeps its generation.
            runs.write_intent(conn, run_id, intent, lease.token)
    steps.reached("run.opened")
    return new


def open_skipped(session: Session, lease: Lease, run_id: str | None) -> Run:
    """A run that found nothing waiting: later stages of it have nothing to do, and `extract` asks the source again."""
    now = session.clock.now()
    with lease.transaction() as conn:
        attempt = runs.next_attempt(conn, session.pipeline.name, None)
        known = runs.named(conn, session.pipeline.name, run_id) if run_id is not None else None
        if known is not None:
            runs.update_run(conn, known.run_id, retry=known.retry + 1, touched_at=now)
            return known
        invocation = run_id or f"{session.pipeline.name}.none.{attempt}"
        new = Run(
            run_id=_free_id(conn, invocation),
            invocation=invocation,
            pipeline=session.pipeline.name,
            batch=None,
            attempt=attempt,
            kind="stage",
            models=lease.models,
            status=RunStatus.OPEN,
            retry=0,
            started_at=now,
            touched_at=now,
            last_command="extract",
            config=session.config,
            config_hash=session.config_hash,
            token=lease.token,
        )
        runs.insert_run(conn, new, now, lease.owner.shown())
        runs.close_run(conn, new, RunStatus.SKIPPED, now)
    return replace(new, status=RunStatus.SKIPPED)


def fill_skipped(session: Session, lease: Lease, run: Run, unit: Unit) -> Run:
    """A run that had found nothing waiting now has a batch."""
    now = session.clock.now()
    with lease.transaction() as conn:
        attempt = runs.next_attempt(conn, session.pipeline.name, unit.batch)
        filled = replace(
            run,
            batch=unit.batch,
            attempt=attempt,
            models=unit.models,
            status=RunStatus.OPEN,
            token=lease.token,
            window=unit.window,
            config=session.config,
            config_hash=session.config_hash,
        )
        runs.update_run(
            conn,
            run.run_id,
            status=RunStatus.OPEN.value,
            ended_at=None,
            touched_at=now,
            token=lease.token,
            config=dict(session.config),
            config_hash=session.config_hash,
        )
        runs.move_run(conn, filled)
        runs.open_models(conn, filled, unit.models, lease.token, redo=False)
    return filled


def go_on(session: Session, lease: Lease, run: Run, command: str) -> Run:
    """Work on an open run again: the same row, one retry more."""
    now = session.clock.now()
    with lease.transaction() as conn:
        retry = run.retry + 1
        runs.update_run(
            conn,
            run.run_id,
            retry=retry,
            touched_at=now,
            last_command=command,
            token=lease.token,
            owner=lease.owner.shown(),
        )
    return replace(run, retry=retry, token=lease.token, last_command=command, touched_at=now)


def reopen(session: Session, lease: Lease, run: Run, command: str, *, redo: bool = False) -> Run:
    """Open a closed run again, with today's configuration; refused when a later attempt has come."""
    now = session.clock.now()
    with lease.transaction() as conn:
        later = runs.later_attempts(conn, run)
        if later:
            raise Busy(
                f"run {run.run_id} cannot go on: {later[-1]} is a later attempt at batch {run.batch}",
                hint=f"ingestkit runs show {later[-1]}",
            )
        runs.update_run(
            conn,
            run.run_id,
            status=RunStatus.OPEN.value,
            ended_at=None,
            seconds=None,
            duration=None,
            error=None,
            exit_code=None,
            verdict=None,
            retry=run.retry + 1,
            touched_at=now,
            last_command=command,
            token=lease.token,
            config=_kept(session, run.as_of),
            config_hash=session.config_hash,
        )
        runs.open_models(conn, run, run.models, lease.token, redo=redo)
        if gone := set(run.models) - set(session.pipeline.models):
            # Today's pipeline does not know them any more.
            runs.take_models(conn, run, gone, "nobody", now)
    return replace(
        run,
        status=RunStatus.OPEN,
        retry=run.retry + 1,
        config=_kept(session, run.as_of),
        config_hash=session.config_hash,
        token=lease.token,
    )


def refuse_busy(session: Session, run: Run, *, take_over: bool) -> None:
    """An open run that a stage command touched lately belongs to whoever calls its next stage."""
    if run.last_command == "run" or take_over:
        return
    idle = session.clock.now() - run.touched_at
    if idle < session.settings.state.idle_after:
        name = session.pipeline.name
        raise Busy(
            f"run {run.run_id} is open: its {run.last_command} ran {human_duration(idle.total_seconds())} ago, and its "
            "next stage is another command's",
            hint=f"ingestkit run {name} --run-id {run.run_id} finishes it; --take-over starts a new attempt",
        )


def fail(
    session: Session, lease: Lease, run: Run, error: str, exit_code: int, *, verdict: Verdict | None = None
) -> None:
    """Close a run as FAILED, and hold the pipeline when it has failed often enough in a row.

    One that is closed stays as it is: behind its gate nothing can fail it.
    """
    now = session.clock.now()
    with lease.transaction() as conn:
        known = runs.run(conn, run.run_id)
        if known is None or known.status is not RunStatus.OPEN:
            return
        judged = verdict.value if verdict is not None else None
        runs.close_run(conn, run, RunStatus.FAILED, now, error=error, exit_code=exit_code, verdict=judged)
        hold_after = session.pipeline.settings.retry.hold_after
        if hold_after is not None and runs.failures_in_a_row(conn, run.pipeline, hold_after) >= hold_after:
            runs.update_pipeline(
                conn,
                run.pipeline,
                held_at=now,
                held_reason=f"{many(hold_after, 'run', 'runs')} failed in a row, last {run.run_id}",
            )


def find(session: Session, run_id: str) -> Run:
    with session.state.read() as conn:
        found = runs.named(conn, session.pipeline.name, run_id)
    if found is None:
        raise UsageError(
            f"pipeline {session.pipeline.name} has no run {run_id!r}",
            hint=f"ingestkit runs list {session.pipeline.name}",
        )
    return found


def _kept(session: Session, as_of: datetime | None) -> dict[str, Any]:
    """The configuration a run keeps in its row, with whose files it is to publish where those are not the latest."""
    return {**session.config, **({"as_of": as_of.isoformat()} if as_of is not None else {})}


def _free_id(conn: sql.Connection, invocation: str) -> str:
    """The caller's id for its first batch, `~2`, `~3` for those after it."""
    number, run_id = 1, invocation
    while runs.run(conn, run_id) is not None:
        number += 1
        run_id = f"{invocation}~{number}"
    return run_id
