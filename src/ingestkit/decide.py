"""What a person decides about a pipeline: taken under the lease, recorded with who and why, copied to the lake."""

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sql

from ingestkit import approvals, counting, stepping, windowing
from ingestkit.attempts import find
from ingestkit.discover import batch_key, put_aside
from ingestkit.errors import SourceError, UsageError
from ingestkit.files import shown
from ingestkit.mirroring import refuse_empty_state, show
from ingestkit.model import (
    Fence,
    FileStatus,
    FileVersion,
    Receipt,
    Rule,
    RunStatus,
    Stage,
    Window,
    Work,
    digest_of,
)
from ingestkit.outcome import Outcome
from ingestkit.recover import copy_decisions, recover
from ingestkit.runner import holding
from ingestkit.session import Session
from ingestkit.stages import gate
from ingestkit.states import completions, decisions, ledger, quarantine, rows, runs, stage_rows
from ingestkit.states.decisions import Decision
from ingestkit.states.lease import Lease
from ingestkit.states.runs import Run
from ingestkit.states.tables import completion
from ingestkit.stepping import mark

PASSED = (RunStatus.SUCCESS, RunStatus.SUCCESS_WITH_REJECTS)


def skip(session: Session, batch: str, reason: str, by: str) -> Outcome:
    """Step over a batch: its models count as done without being loaded."""
    batch = batch_key(session, batch)
    with holding(session, session.pipeline.models, "skip", "fail") as lease:
        # What is stepped over is known to the state from then on, and a run would take it for one that was not lost.
        refuse_empty_state(session)
        recover(session, lease)
        with session.state.read() as conn:
            done = completions.whole(conn, session.pipeline.name, batch)
            known = ledger.versions(conn, session.pipeline.name, [batch])
        if not known and not done and batch not in windowing.batches(session) and not _in_a_hole(session, batch):
            raise UsageError(
                f"neither the source nor the ledger of {session.pipeline.name} knows a batch {batch!r}",
                hint=f"those that wait: ingestkit plan {session.pipeline.name}",
            )
        models = [model for model in session.pipeline.models if (batch, model) not in done]
        files = [file.path for file in ledger.latest(known).values() if file.model and ledger.is_unpublished(file)]
        if not models and not files:
            raise UsageError(f"batch {batch} of {session.pipeline.name} is done already: there is nothing to step over")
        _refuse_published(session, batch, models)
        subject = {"batch": batch, "models": models, "files": files, **_until(windowing.ended(session, batch))}
        windowing.begin(session, lease)
        with lease.transaction() as conn:
            made = _decide(conn, session, "skip", subject, reason, by)
            apply(conn, session.pipeline.name, made, lease.token)
        _after(session, lease)
    what = f"for {', '.join(models)}" if models else f"in what came later: {', '.join(map(shown, files))}"
    return Outcome("skip", session.pipeline.name, "done", f"batch {batch} is stepped over {what}")


def _in_a_hole(session: Session, batch: str) -> bool:
    """Whether the batch is missing between others, of batches that count up."""
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        row = runs.pipeline_row(conn, session.pipeline.name)
    settings, floors = session.pipeline.settings.source.batches, row["floors"] if row else {}
    return counting.is_between(settings, batch, windowing.batches(session), done, floors)


def _refuse_published(session: Session, batch: str, models: Sequence[str]) -> None:
    """What is in the target cannot be stepped over: only its run's end is missing."""
    if not models or not session.warehouse.present():
        return
    aside = put_aside(session, batch, models)
    for receipt in session.warehouse.receipts(session.pipeline.name):
        if receipt.batch == batch and receipt.model in models and receipt.model not in aside:
            raise _published_already(session, receipt)


def _published_already(session: Session, receipt: Receipt) -> UsageError:
    """The refusal, with what is to be done instead: end its run, or let pass what closed its gate."""
    told = f"batch {receipt.batch} of {receipt.model} is published already, by run {receipt.run_id}"
    with session.state.read() as conn:
        run = runs.run(conn, receipt.run_id)
        last = run and runs.run(conn, (runs.later_attempts(conn, run) or [run.run_id])[-1])
        works = {} if last is None else _judged(conn, last)[0]
    if last is None or not any(rule.passed is False for work in works.values() for rule in work.rules):
        return UsageError(f"{told}, which has not ended", hint=f"to end it: ingestkit run {session.pipeline.name}")
    run_id = shlex.quote(last.run_id)
    return UsageError(
        f"{told}, and its gate is closed: what is in the target cannot be stepped over",
        hint=f"ingestkit runs show {run_id}; to let it pass: ingestkit approve {run_id} --reason '...'",
    )


def approve(session: Session, run_id: str, names: Sequence[str], reason: str, by: str) -> Outcome:
    """Let rules of a failed run pass over their limits, for the content they were judged over and no worse figures."""
    pipeline = session.pipeline.name
    with holding(session, session.pipeline.models, "approve", "fail") as lease:
        recover(session, lease)
        run = find(session, run_id)
        with session.state.read() as conn:
            works, mine = _judged(conn, run)
            failed = _failed_rules(run, works, names)
            contents = approvals.with_others(conn, pipeline, session.pipeline.order, mine, failed)
            _refuse_gone_over(conn, run, failed, mine)
        assert run.batch is not None
        what = approvals.subject(run.run_id, run.batch, failed, contents)
        with lease.transaction() as conn:
            made = _decide(conn, session, "approve", what, reason, by)
        _after(session, lease)
    told = "; ".join(gate.explained(rule) for rule in failed)
    return Outcome(
        "approve",
        pipeline,
        "done",
        f"approved for batch {run.batch} by decision {made.number}: {told}; go on with: ingestkit run {pipeline}",
        run_ids=(run.run_id,),
    )


def _judged(conn: sql.Connection, run: Run) -> tuple[Mapping[tuple[Stage, str], Work], approvals.Contents]:
    """What the stages of a run have left, and the content of each model that they judged."""
    rows = stage_rows.of_run(conn, run.run_id)
    meant = {model: one for model, (one, _) in runs.intents(conn, run.run_id).items() if one is not None}
    works = {key: sidecar.work for key, row in rows.items() if (sidecar := row.work()) is not None}
    contents = {
        model: {
            "digest": work.details.get("judged") or digest_of(work.files),
            "generation": meant[model].generation if model in meant else None,
        }
        for (stage, model), work in works.items()
        if stage is Stage.VALIDATE
    }
    return works, contents


def _refuse_gone_over(conn: sql.Connection, run: Run, rules: Sequence[Rule], contents: approvals.Contents) -> None:
    """What a later attempt has judged over other files, or has done, nobody would ever ask this approval for."""
    for later in reversed(runs.later_attempts(conn, run)):
        found = runs.run(conn, later)
        assert found is not None
        _, theirs = _judged(conn, found)
        looked_at = {model for rule in rules for model in rule.models}
        other = [
            model
            for model in looked_at & set(theirs) & set(contents)
            if theirs[model]["digest"] != contents[model]["digest"]
        ]
        if other or (theirs and found.status in PASSED):
            what = "has judged other files" if other else "is done"
            raise UsageError(
                f"run {run.run_id} was gone over: {later}, a later attempt at batch {run.batch}, {what}",
                hint=f"ingestkit runs show {shlex.quote(later)}",
            )
        if theirs:
            return


def _failed_rules(run: Run, works: Mapping[tuple[Stage, str], Work], names: Sequence[str]) -> list[Rule]:
    """The rules that closed the run, or those of them that are named; a refusal where they may not be approved."""
    look = f"ingestkit runs show {shlex.quote(run.run_id)}"
    closed = [rule for work in works.values() for rule in work.rules if rule.passed is False]
    if run.status is not RunStatus.FAILED or not closed:
        raise UsageError(f"no rule closed run {run.run_id}: there is nothing to approve", hint=look)
    for name in names:
        if name not in {rule.name for rule in closed}:
            known = ", ".join(sorted({rule.name for rule in closed}))
            raise UsageError(f"{name!r} is no rule that closed run {run.run_id}; those are {known}", hint=look)
    chosen = [rule for rule in closed if not names or rule.name in names]
    if fixed := [rule for rule in chosen if not rule.approvable]:
        told = "; ".join(gate.explained(rule) for rule in fixed)
        raise UsageError(f"nobody can approve this: {told}", hint=look)
    return chosen


def pause(session: Session, reason: str, by: str) -> Outcome:
    """Let no run of the pipeline begin until it is resumed."""
    _decided(session, "pause", {}, reason, by)
    return Outcome("pause", session.pipeline.name, "done", f"{session.pipeline.name} is paused")


def resume(session: Session, reason: str, by: str) -> Outcome:
    """Let runs begin again, after a pause or a hold."""
    _decided(session, "resume", {}, reason, by)
    return Outcome("resume", session.pipeline.name, "done", f"{session.pipeline.name} goes on")


def set_floor(session: Session, batch: str, models: Sequence[str], reason: str, by: str) -> Outcome:
    """Take everything up to and including a batch as done."""
    batch = batch_key(session, batch)
    wanted = session.pipeline.check_models(tuple(models))
    until = _until(windowing.ended(session, batch))
    _decided(session, "set", {"batch": batch, "models": list(wanted), **until}, reason, by)
    told = f"{', '.join(wanted)} of {session.pipeline.name} begin after batch {batch}"
    return Outcome("state set", session.pipeline.name, "done", told)


def reset(session: Session, reason: str, by: str) -> Outcome:
    """Forget what was done, so that every batch the source holds is taken again. Tokens and decisions stay."""
    _decided(session, "reset", {}, reason, by)
    told = f"{session.pipeline.name} begins again; what the target holds unchanged is recognised by its receipts"
    return Outcome("state reset", session.pipeline.name, "done", told)


def begin_with_the_newest(session: Session, by: str) -> None:
    """Forget what was done, here and in the target, so that the next run begins with the newest full archive.

    Rows stay as they are until that has taken their place.
    """
    source = session.pipeline.settings.source
    if source.type != "vault" or source.extract == "log":
        raise UsageError(
            f"{session.pipeline.name} has no full archives to begin again with",
            hint=f"ingestkit state reset {session.pipeline.name} has every batch loaded again",
        )
    if begins := next((name for name in ("start", "look_back") if getattr(source, name) is not None), None):
        raise UsageError(
            f"{session.pipeline.name} begins where source.{begins} says, and with no full archive",
            hint=f"take source.{begins} out of the pipeline's file first",
        )
    if not any(session.source.batches(None)):
        raise SourceError(
            f"{source.connection} lists no full archive to begin again with; nothing was changed",
            hint=f"it makes one a day; then: ingestkit run {session.pipeline.name} --full-refresh",
        )
    _decided(session, "reset", {}, "full refresh", by)
    with holding(session, session.pipeline.models, "run --full-refresh", "fail") as lease:
        known = session.warehouse.fences(session.pipeline.name)
        for model in session.pipeline.models:
            if model in known:
                table = session.pipeline.table(model)
                session.warehouse.void(Fence(session.pipeline.name, model, lease.state_id, lease.token, table))


def forget(session: Session, path: str, reason: str, by: str) -> Outcome:
    """Mark the newest version of a file as forgotten, so that the next run takes the file for new."""
    with session.state.read() as conn:
        known = ledger.of_path(conn, session.pipeline.name, path)
    # Behind what a person assigned there may be what the source has shown since, which is of nobody.
    known = [file for file in known if file.model is not None and file.status is not FileStatus.FORGOTTEN] or known
    if not known or known[-1].status is FileStatus.FORGOTTEN:
        raise UsageError(
            f"the ledger of {session.pipeline.name} has no file {path!r} to forget",
            hint=f"ingestkit manifest show {session.pipeline.name}",
        )
    _decided(session, "forget", {"path": path, "version": known[-1].version}, reason, by)
    told = f"{path} (version {known[-1].version}) is forgotten; the next run of {session.pipeline.name} takes it again"
    return Outcome("manifest forget", session.pipeline.name, "done", told)


def pinned(session: Session, lease: Lease, subject: Mapping[str, Any], reason: str, by: str) -> None:
    """Record that old content is wanted, under a lease the caller holds. The run that publishes it is the pin."""
    with lease.transaction() as conn:
        _decide(conn, session, "pin", subject, reason, by)
    copy_decisions(session, lease)


def assigned(
    session: Session, lease: Lease, files: Sequence[FileVersion], model: str, reason: str | None, by: str
) -> None:
    """Record that files no model claims are of this one, under a lease the caller holds."""
    taken = [{"path": file.path, "version": file.version, "id": secrets.token_hex(8)} for file in files]
    with lease.transaction() as conn:
        subject = {"batch": files[0].batch, "model": model, "files": taken}
        apply(conn, session.pipeline.name, _decide(conn, session, "assign", subject, reason, by), lease.token)
        for one in taken:
            [*_, newest] = ledger.of_path(conn, session.pipeline.name, str(one["path"]))
            if newest.id != one["id"]:
                raise UsageError(
                    f"{shown(newest.path)} was taken in as {newest.model} meanwhile, by another command",
                    hint=f"ingestkit manifest show {session.pipeline.name} --batch {newest.batch}",
                )
    copy_decisions(session, lease)


def discarded(session: Session, lease: Lease, subject: Mapping[str, Any], reason: str, by: str) -> Decision:
    """Record that rejects are given up, under a lease the caller holds."""
    with lease.transaction() as conn:
        made = _decide(conn, session, "discard", subject, reason, by)
        apply(conn, session.pipeline.name, made, lease.token)
    _after(session, lease)
    return made


def apply(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    """Make the state say what was decided; also how decisions read back from the lake take effect again."""
    match made.kind:
        case "skip":
            stepping.skip(conn, pipeline, made, token)
        case "pause" | "resume":
            _pause(conn, pipeline, made)
        case "set":
            stepping.put_floor(conn, pipeline, made)
        case "assign":
            _assign(conn, pipeline, made, token)
        case "forget":
            _forget(conn, pipeline, made, token)
        case "discard":
            _discard(conn, pipeline, made, token)
        case "reset":
            _reset(conn, pipeline, made, token)
        case _:
            # An approval is looked up when a rule is judged, and a pin is what its run has published.
            pass


def _decided(session: Session, kind: decisions.Kind, subject: Mapping[str, Any], reason: str, by: str) -> None:
    with holding(session, session.pipeline.models, kind, "fail") as lease:
        recover(session, lease)
        if kind == "set":
            windowing.begin(session, lease)
        with lease.transaction() as conn:
            apply(conn, session.pipeline.name, _decide(conn, session, kind, subject, reason, by), lease.token)
        _after(session, lease)


def _decide(
    conn: sql.Connection,
    session: Session,
    kind: decisions.Kind,
    subject: Mapping[str, Any],
    reason: str | None,
    by: str,
) -> Decision:
    at = session.clock.now()
    return decisions.record(conn, session.pipeline.name, kind, subject, reason=reason, by=by, at=at)


def _until(window: Window | None) -> dict[str, str]:
    return {"until": window.end.isoformat()} if window is not None else {}


def _after(session: Session, lease: Lease) -> None:
    copy_decisions(session, lease)
    show(session)


def _pause(conn: sql.Connection, pipeline: str, made: Decision) -> None:
    if made.kind == "pause":
        runs.update_pipeline(conn, pipeline, paused_at=made.at, paused_by=made.by, paused_reason=made.reason)
        return
    runs.update_pipeline(
        conn, pipeline, paused_at=None, paused_by=None, paused_reason=None, held_at=None, held_reason=None
    )


def _assign(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    """Each file is of the model from its next version on, which has landed: it is the object that was kept."""
    said = {"model": made.subject["model"], "status": FileStatus.LANDED, "sighted_at": made.at, "token": token}
    for one in made.subject["files"]:
        for file in ledger.of_path(conn, pipeline, one["path"]):
            if file.version == one["version"]:
                taken = replace(file, version=file.version + 1, id=one["id"], reason=None, **said)
                rows.put_file_absent(conn, taken, made.at)


def _forget(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    known = ledger.of_path(conn, pipeline, made.subject["path"])
    for file in known:
        if file.version == made.subject["version"]:
            mark(conn, file, FileStatus.FORGOTTEN, made, token)
            for kept in known:
                if kept.model is None and kept.raw is not None and kept.raw == file.raw:
                    # What was assigned wrongly waits again, and may be another model's.
                    told: dict[str, Any] = {"version": file.version + 1, "id": made.hash[:16], "sighted_at": made.at}
                    rows.put_file_absent(conn, replace(kept, **told, token=token), made.at)


def _discard(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    quarantine.discard(conn, pipeline, made.subject["wanted"], made.at)
    for path in made.subject["files"]:
        for file in ledger.of_path(conn, pipeline, path)[-1:]:
            if file.status is FileStatus.QUARANTINED:
                mark(conn, file, FileStatus.SKIPPED, made, token)


def _reset(conn: sql.Connection, pipeline: str, made: Decision, token: int) -> None:
    for run, theirs in runs.open_runs(conn, pipeline):
        runs.take_models(conn, run, theirs, "state reset", made.at)
    done = {batch for batch, _ in completions.whole(conn, pipeline)}
    known = ledger.versions(conn, pipeline, sorted(done))
    assigned = ledger.raw_of_no_model(known)
    for file in ledger.latest(known).values():
        if file.model is None or file.status is FileStatus.SEEN:
            continue
        if file.raw in assigned:
            # No source says of which model it is, so that it would not be taken again.
            rows.put_file(conn, replace(file, status=FileStatus.LANDED, loaded=None, token=token), made.at)
        else:
            mark(conn, file, FileStatus.FORGOTTEN, made, token)
    conn.execute(sql.delete(completion).where(completion.c.pipeline == pipeline))
    row = runs.pipeline_row(conn, pipeline)
    floors = dict.fromkeys(row["floors"] if row else {})
    begun = {"windows_from": None, "floor_ends": None}
    runs.update_pipeline(conn, pipeline, floors=floors, moved_at=None, held_at=None, held_reason=None, **begun)
