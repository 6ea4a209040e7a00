"""What was rejected, taken in again under today's contract, or given up."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingestkit import attempts
from ingestkit.backfilling import batch_of, refuse_behind, refuse_superseded
from ingestkit.check import check
from ingestkit.decide import assigned, discarded
from ingestkit.discover import Found
from ingestkit.errors import ContractError, GateClosed, UsageError
from ingestkit.files import shown
from ingestkit.model import ArtifactKind, Completion, CompletionStatus, FileStatus, FileVersion
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.recover import recover
from ingestkit.rejected import Wanted
from ingestkit.reporting import many, outcome_of
from ingestkit.runner import holding, paused
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import completions, ledger, quarantine
from ingestkit.states.lease import Lease
from ingestkit.windowing import window_of
from ingestkit.working import RunOptions, active_run, finish_open, work

ASSIGNED = (*ledger.IN_SET, FileStatus.QUARANTINED, FileStatus.SUPERSEDED)
"""What a file that was taken in as a model's may be."""


def replay(session: Session, options: RunOptions) -> Outcome:
    """Validate what was rejected of a batch once more, from the lake, and publish the batch's models again with it."""
    with holding(
        session, session.pipeline.check_models(options.models), "quarantine replay", options.if_locked
    ) as lease:
        stopped = paused(session, "quarantine replay")
        if stopped is not None and stopped.status == "paused":
            return stopped
        results = _finished(session, lease, options)
        batch = batch_of(session, options)
        before, waiting = _waiting(session, lease, batch)
        changed = tuple(model for model in waiting if _is_judged_otherwise(session, batch, model))
        if not changed:
            told = f"nothing of batch {batch} waits in quarantine"
            if waiting:
                told = f"the contract of {', '.join(waiting)} has not changed since: what was rejected still would be"
            return Outcome("quarantine replay", session.pipeline.name, "done", told, tuple(results))
        _prove(session, lease, batch, changed)
        results += _published_again(session, lease, batch, changed)
        outcome = outcome_of(session, "quarantine replay", Found(), results)
        return replace(outcome, message=_compared(session, batch, changed, before))


def take_in(session: Session, options: RunOptions, path: str | None) -> Outcome:
    """Take files of a batch that no model claims for files of one, and publish that model of the batch with them."""
    [model] = session.pipeline.check_models(options.models)
    with holding(session, (model,), "quarantine replay", options.if_locked) as lease:
        stopped = paused(session, "quarantine replay")
        if stopped is not None and stopped.status == "paused":
            return stopped
        results = _finished(session, lease, options)
        batch = batch_of(session, options)
        files, taken = _unclaimed(session, batch, model, path)
        if not files and taken and all(one.loaded is not None for one in taken):
            told = f"{many(len(taken), 'file that no model claims is', 'files that no model claims are')} in already"
            return Outcome("quarantine replay", session.pipeline.name, "done", f"{told}, as {model}", tuple(results))
        if (done := _done(session, batch).get(model)) is None:
            return replace(_left_to_run(session, lease, batch, model, files, options), results=tuple(results))
        _refuse_stepped_over(session, batch, done)
        _prove(session, lease, batch, (model,))
        if files:
            _refuse_mixed(session, batch, model, files)
            assigned(session, lease, files, model, options.reason or None, options.by)
        try:
            results += _published_again(session, lease, batch, (model,))
        except (ContractError, GateClosed) as error:
            back = (
                f"if it is not of {model}: ingestkit manifest forget {session.pipeline.name} --path FILE --reason '...'"
            )
            error.hint = f"{error.hint}; {back}" if error.hint else back
            raise
        outcome = outcome_of(session, "quarantine replay", Found(), results)
        return replace(outcome, message=_taken_in(session, batch, model, [*files, *taken]))


def _left_to_run(
    session: Session, lease: Lease, batch: str, model: str, files: Sequence[FileVersion], options: RunOptions
) -> Outcome:
    """Of a batch that is not done it is only decided: the next run does the batch with these files."""
    name = session.pipeline.name
    if files:
        _refuse_mixed(session, batch, model, files)
        assigned(session, lease, files, model, options.reason or None, options.by)
    told = f"batch {batch} is not done; what no model claimed is taken in as {model} when it is: ingestkit run {name}"
    return Outcome("quarantine replay", name, "done", told)


def _taken_in(session: Session, batch: str, model: str, files: Sequence[FileVersion]) -> str:
    paths = {file.path for file in files}
    with session.state.read() as conn:
        newest = ledger.latest(ledger.versions(conn, session.pipeline.name, [batch]))
    out = [shown(path) for path in sorted(paths) if newest[path].status is FileStatus.QUARANTINED]
    told = many(len(paths) - len(out), "file that no model claims was", "files that no model claims were")
    told = f"{told} taken in as {model} of batch {batch}"
    return f"{told}; kept out whole: {', '.join(out)}" if out else told


def _refuse_stepped_over(session: Session, batch: str, done: Completion) -> None:
    if done.status is CompletionStatus.SKIPPED:
        raise UsageError(
            f"batch {batch} was stepped over for {done.model}: its other files are not loaded",
            hint=f"ingestkit backfill {session.pipeline.name} --batch {batch} --model {done.model}",
        )


def _refuse_mixed(session: Session, batch: str, model: str, files: Sequence[FileVersion]) -> None:
    """Before it is decided: a full file beside files of changes would stop the pipeline."""
    with session.state.read() as conn:
        known = ledger.candidates(ledger.versions(conn, session.pipeline.name, [batch]), model)
    session.pipeline.mode(model, ledger.latest((*known, *files)).values())


def _finished(session: Session, lease: Lease, options: RunOptions) -> list[ModelResult]:
    recover(session, lease)
    return finish_open(session, lease, options)


def _prove(session: Session, lease: Lease, batch: str, models: Sequence[str]) -> None:
    check(session, lease, from_lake=True)
    refuse_superseded(session, batch, models)
    refuse_behind(session, batch, models)


def _published_again(session: Session, lease: Lease, batch: str, models: tuple[str, ...]) -> list[ModelResult]:
    unit = Unit(batch, models, "replay", window=window_of(session, batch))
    fresh = attempts.open_new(session, lease, unit, kind="replay", command="run")
    return work(active_run(session, lease, fresh, unit), session.pipeline.stages)


def _unclaimed(
    session: Session, batch: str, model: str, path: str | None
) -> tuple[list[FileVersion], list[FileVersion]]:
    """The files of a batch that no model claims, and those that were taken for files of this one before."""
    name = session.pipeline.name
    with session.state.read() as conn:
        known = ledger.versions(conn, name, [batch])
    kept = ledger.raw_of_no_model(known)
    asked = [file for file in ledger.latest(known).values() if path in (None, file.path)]
    taken = [one for one in asked if one.model == model and one.raw in kept and one.status in ASSIGNED]
    files = [one for one in asked if one.model is None and one.status is FileStatus.QUARANTINED]
    if not files and not taken:
        raise UsageError(
            f"no file {path!r} of batch {batch} waits in quarantine for want of a model"
            if path
            else f"no file of batch {batch} waits in quarantine for want of a model",
            hint=f"ingestkit quarantine list {name} --batch {batch}",
        )
    if lost := [shown(one.path) for one in files if one.raw is None or not session.lake.holds(one.raw, one.size)]:
        raise UsageError(
            f"{', '.join(lost)} of batch {batch} is not in the lake, so it cannot be taken in from there",
            hint=f"let the pattern `files` of model {model} match it, then: ingestkit backfill {name} --batch {batch}",
        )
    return files, taken


def _waiting(session: Session, lease: Lease, batch: str) -> tuple[Mapping[str, Completion], tuple[str, ...]]:
    """The models at hand with rejects of the batch that wait, and what was said of them when they were done."""
    with session.state.read() as conn:
        known = ledger.versions(conn, session.pipeline.name, [batch])
        waiting = quarantine.waiting_models(conn, session.pipeline.name, batch)
    waiting |= {file.model for file in known if file.model and file.status is FileStatus.QUARANTINED and file.raw}
    here = tuple(model for model in lease.models if model in waiting)
    return _done_before(session, batch, here), here


def _done_before(session: Session, batch: str, models: Sequence[str]) -> Mapping[str, Completion]:
    done = _done(session, batch)
    if undone := [model for model in models if model not in done]:
        raise UsageError(
            f"batch {batch} is not done for {', '.join(undone)}: what waits in quarantine is taken in when it is",
            hint=f"ingestkit run {session.pipeline.name}",
        )
    return {model: done[model] for model in models}


def _done(session: Session, batch: str) -> dict[str, Completion]:
    """What is said of each model of a batch that is done."""
    with session.state.read() as conn:
        return {model: one for (_, model), (one, _) in completions.whole(conn, session.pipeline.name, batch).items()}


def _is_judged_otherwise(session: Session, batch: str, model: str) -> bool:
    """Whether today's contract is another than the one the batch's rejects were made under."""
    today = session.pipeline.validate_settings(model, window_of(session, batch))
    with session.state.read() as conn:
        made = ledger.artifacts(conn, session.pipeline.name, [batch], [model], [ArtifactKind.REJECTS])
        known = ledger.versions(conn, session.pipeline.name, [batch])
    standing = {file.id for file in ledger.candidates(known, model)}
    # What an attempt made that came to nothing has been judged, and is not published.
    fresh = {one.file_id for one in made if one.settings == today and one.status == "published"}
    return not standing <= fresh


def _compared(session: Session, batch: str, models: Sequence[str], before: Mapping[str, Completion]) -> str:
    with session.state.read() as conn:
        after = completions.whole(conn, session.pipeline.name, batch)
    was = sum(before[model].counts.rejected or 0 for model in models)
    left = sum(after[batch, model][0].counts.rejected or 0 for model in models)
    told = f"batch {batch} was replayed: {many(was - left, 'record that was', 'records that were')} rejected"
    return f"{told} {'is' if was - left == 1 else 'are'} valid now, {left} still rejected"


def discard(session: Session, wanted: Wanted, reason: str, by: str) -> Outcome:
    """Give rejects up: they are kept, and wait for nobody any more."""
    with holding(session, session.pipeline.models, "quarantine discard", "fail") as lease:
        recover(session, lease)
        with session.state.read() as conn:
            rows = quarantine.chosen(conn, session.pipeline.name, wanted.named(), quarantine.WAITING)
            files = _whole_files(conn, session.pipeline.name, wanted)
        if not rows and not files:
            return Outcome(
                "quarantine discard", session.pipeline.name, "done", f"nothing waits there: {wanted.shown()}"
            )
        subject = {"wanted": wanted.named(), "files": [file.path for file in files]}
        made = discarded(session, lease, subject, reason, by)
    told = f"{many(len(rows), 'reason', 'reasons')} for rejects and {many(len(files), 'file', 'files')} given up"
    return Outcome("quarantine discard", session.pipeline.name, "done", f"{told} by decision {made.number}")


def _whole_files(conn: Any, pipeline: str, wanted: Wanted) -> list[FileVersion]:
    """Files kept in quarantine whole, and those no model claims; a column or code does not speak of them."""
    if wanted.column is not None or wanted.code is not None or wanted.run_id is not None:
        return []
    files = ledger.quarantined(conn, pipeline)
    asked = {"batch": wanted.batch, "model": wanted.model, "path": wanted.path}
    return [file for file in files if all(value in (None, getattr(file, name)) for name, value in asked.items())]
