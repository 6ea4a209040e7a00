"""A range of done batches done again, oldest first: each in its own run, one that fails not stopping the others."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ingestkit.backfilling import (
    asks_no_source,
    known_then,
    redone,
    refuse_behind,
    refuse_what_is_not_kept,
    superseded,
)
from ingestkit.check import check
from ingestkit.discover import batch_key, is_below
from ingestkit.errors import Busy, IngestkitError, Interrupted, PartlyDone, StateError, UsageError
from ingestkit.mirroring import refuse_empty_state, show
from ingestkit.model import CompletionStatus, RunStatus, instant
from ingestkit.outcome import ModelResult, Outcome, run_ids_of
from ingestkit.recover import recover
from ingestkit.reporting import many, named
from ingestkit.runner import finish_cleaning, holding, paused
from ingestkit.session import Session
from ingestkit.states import completions, runs
from ingestkit.states.lease import Lease, give_way
from ingestkit.states.runs import Run
from ingestkit.windowing import batches
from ingestkit.working import RunOptions, finish_open

STOPS = (Busy, Interrupted, StateError)
"""What ends the whole range: the lease lost, a signal, a state that does not answer."""
AS_LONG_AS_IT_TAKES = "wait:52w"
"""How long the lease is waited for that was let go for somebody else."""
KINDS = ("backfill", "from_lake", "as_of")


@dataclass(slots=True)
class Progress:
    """How far a command has come in its range."""

    invocation: str = ""
    left: list[str] | None = None
    """Batches still to do; None until they are chosen."""
    before: int = 0
    """How many of the range an earlier command of the invocation has done."""
    done: list[str] = field(default_factory=list)
    results: list[ModelResult] = field(default_factory=list)
    failures: dict[str, IngestkitError] = field(default_factory=dict)
    superseded: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Batches of whose models newer ones have said all there is to say, each with which."""
    unknown: list[str] = field(default_factory=list)
    """Batches of which the ledger knew no file at the instant that is named."""
    undone: tuple[str, ...] = ()
    """Batches of the range that were never done, which is `run`'s work."""
    passed: tuple[str, ...] = ()
    """Batches of the range that all models begin behind."""


def backfill_range(session: Session, options: RunOptions) -> Outcome:
    """Do the done batches of a range again; the lease is let go between two of them when somebody waits for it."""
    refuse_what_is_not_kept(session, options)
    progress, if_locked = Progress(), options.if_locked
    try:
        while progress.left is None or progress.left:
            stopped = _turn(session, options, progress, if_locked)
            if stopped is not None:
                return stopped
            if_locked = AS_LONG_AS_IT_TAKES
    except IngestkitError as error:
        error.results = (*progress.results, *error.results)
        error.failed = failed(progress.failures)
        if progress.left is not None and isinstance(error, STOPS):
            error.hint = f"to go on with the rest: {resuming(session, options)}"
        raise
    return _ended(session, options, progress)


def _turn(session: Session, options: RunOptions, progress: Progress, if_locked: str) -> Outcome | None:
    """Do batches until none is left, or until somebody else waits for the lease."""
    with holding(session, session.pipeline.check_models(options.models), "backfill", if_locked) as lease:
        stopped = paused(session, "backfill")
        if stopped is not None and stopped.status == "paused":
            if progress.left is None:
                return stopped
            raise PartlyDone(f"{session.pipeline.name} is {stopped.message}", hint=resuming(session, options))
        refuse_empty_state(session)
        recover(session, lease)
        finish_cleaning(session, lease)
        progress.invocation = progress.invocation or invocation_of(session, options)
        _finish_open(session, lease, options, progress)
        check(session, lease, from_lake=asks_no_source(options))
        if progress.left is None:
            choose(session, lease, options, progress)
        assert progress.left is not None
        # Whoever died behind the last batch left it to be shown.
        show(session)
        while progress.left:
            _do(session, lease, options, progress, progress.left.pop(0))
            with session.state.read() as conn:
                if progress.left and lease.wanted(conn):
                    break
    if progress.left:
        session.progress.said("another command waits and is given its turn")
        give_way(lease, session.stop)
    return None


def _do(session: Session, lease: Lease, options: RunOptions, progress: Progress, batch: str) -> None:
    """One batch of the range, in a run of its own."""
    session.stop.check()
    models = models_left(session, lease, progress.invocation, batch)
    said = superseded(session, batch, models, options)
    if said:
        progress.superseded[batch] = said
        progress.results += [_superseded_result(session, batch, model, by) for model, by in sorted(said.items())]
        models = tuple(model for model in models if model not in said)
    if not models:
        return
    models = known_then(session, batch, models, options)
    if not models:
        progress.unknown.append(batch)
        return
    try:
        refuse_behind(session, batch, models)
        progress.results += redone(session, lease, batch, models, options, progress.invocation)
        progress.done.append(batch)
    except STOPS:
        raise
    except IngestkitError as error:
        _note_failure(session, progress, batch, error)


def _finish_open(session: Session, lease: Lease, options: RunOptions, progress: Progress) -> None:
    """Go on with what is open; a run of this range that fails now is one of the range's failures."""
    while True:
        try:
            results = finish_open(session, lease, replace(options, run_id=None))
        except STOPS:
            raise
        except IngestkitError as error:
            with session.state.read() as conn:
                mine = {one.run_id for one in runs.of_invocation(conn, session.pipeline.name, progress.invocation)}
            failing = error.results[-1] if error.results else None
            if failing is None or failing.run_id not in mine or failing.batch is None:
                raise
            _note_failure(session, progress, failing.batch, error)
        else:
            progress.results += results
            progress.done += dict.fromkeys(one.batch for one in results if one.batch is not None)
            return


def _note_failure(session: Session, progress: Progress, batch: str, error: IngestkitError) -> None:
    progress.failures[batch] = error
    progress.results += error.results
    session.progress.warned(f"batch {batch} failed (exit {error.exit_code}): {error.message}", hint=error.hint)
    session.tell_now(error)


def choose(session: Session, lease: Lease, options: RunOptions, progress: Progress) -> None:
    """Which batches of the range are to be done, oldest first."""
    start, end = span(session, options)
    order = session.pipeline.order
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        row = runs.pipeline_row(conn, session.pipeline.name)
        windows = completions.windows(conn, session.pipeline.name)
    _tell_of_windows_cut(session, windows, start, end)
    inside = {batch for batch, _ in done if _is_inside(session, batch, start, end)}
    if not asks_no_source(options):
        there = [one for one in batches(session) if _is_inside(session, one, start, end)]
        floors = [row["floors"].get(model) if row else None for model in session.pipeline.models]
        undone = [one for one in there if one not in inside]
        passed = {one for one in undone if all(is_below(session, one, floor) for floor in floors)}
        progress.undone = tuple(one for one in undone if one not in passed)
        progress.passed = tuple(sorted(passed, key=order))
    if not inside:
        raise UsageError(
            f"no batch of {session.pipeline.name} {_shown(start, end)} is done: there is nothing to do again",
            hint=f"{len(progress.passed)} were stepped over: ingestkit backfill {session.pipeline.name} "
            f"--batch {progress.passed[-1]} loads one"
            if progress.passed
            else f"ingestkit runs list {session.pipeline.name}",
        )
    skipped = CompletionStatus.SKIPPED
    wanted = {
        batch
        for (batch, model), (status, _) in done.items()
        if batch in inside and model in lease.models and status is not skipped
    }
    left = sorted((one for one in wanted if models_left(session, lease, progress.invocation, one)), key=order)
    progress.before = len(wanted) - len(left)
    progress.left = [batch for batch in left if batch not in progress.failures]


def _tell_of_windows_cut(session: Session, windows: Mapping[str, datetime], start: str | None, end: str | None) -> None:
    """Windows belong to a range by where they begin; who names a moment within one may have meant it otherwise."""
    order = session.pipeline.order
    for flag, at, what in (("--from", start, "is not done again"), ("--to", end, "is done again whole")):
        if at is None or not windows:
            continue
        moment = instant(at)
        for key in (one for one, until in windows.items() if order(one) < order(at) and moment < until):
            session.progress.warned(f"{flag} {at} lies within window {key}, which begins before it and {what}")


def models_left(session: Session, lease: Lease, invocation: str, batch: str) -> tuple[str, ...]:
    """The models of a batch that were done, not stepped over, and not done again by this invocation."""
    name = session.pipeline.name
    with session.state.read() as conn:
        done = completions.whole(conn, name, batch)
        again: set[str] = set()
        for one in runs.of_invocation(conn, name, invocation):
            if one.batch != batch:
                continue
            if one.status in (RunStatus.SUCCESS, RunStatus.SUCCESS_WITH_REJECTS):
                again |= set(one.models)
                continue
            # What it published and a gate stopped may have been let pass since, by another run.
            for model, (intent, _) in runs.intents(conn, one.run_id).items():
                entry = done.get((batch, model))
                if intent is not None and entry is not None and entry[0].generation >= intent.generation:
                    again.add(model)
    return tuple(
        model
        for model in lease.models
        if model not in again and (batch, model) in done and done[batch, model][0].status != CompletionStatus.SKIPPED
    )


def span(session: Session, options: RunOptions) -> tuple[str | None, str | None]:
    """The range's ends as keys of the pipeline, half-open."""
    start = None if options.since is None else batch_key(session, options.since)
    end = None if options.until is None else batch_key(session, options.until)
    order = session.pipeline.order
    if start is not None and end is not None and order(start) >= order(end):
        raise UsageError(f"nothing lies between {start} and {end}: --to is the first batch that is not done again")
    return start, end


def _is_inside(session: Session, batch: str, start: str | None, end: str | None) -> bool:
    order = session.pipeline.order
    return (start is None or order(start) <= order(batch)) and (end is None or order(batch) < order(end))


def invocation_of(session: Session, options: RunOptions) -> str:
    """The id all runs of the range share: the caller's, or one that names the range and counts."""
    name = session.pipeline.name
    start, end = span(session, options)
    stem = f"{name}.{start or 'first'}..{end or 'last'}"
    with session.state.read() as conn:
        if options.run_id is not None:
            known = runs.of_invocation(conn, name, options.run_id)
            if options.resume and not known:
                raise _nothing_begun(session, f"as {options.run_id}")
            _refuse_other_instant(known, options)
            if others := [one.run_id for one in known if one.kind not in KINDS]:
                raise UsageError(f"run {others[0]} is no backfill: name the range otherwise", hint="--run-id")
            return options.run_id
        number = 1
        while runs.of_invocation(conn, name, f"{stem}.{number}"):
            number += 1
        if options.resume and number > 1:
            _refuse_other_instant(runs.of_invocation(conn, name, f"{stem}.{number - 1}"), options)
    if options.resume and number == 1:
        raise _nothing_begun(session, _shown(start, end))
    return f"{stem}.{number - options.resume}"


def _refuse_other_instant(known: Sequence[Run], options: RunOptions) -> None:
    """Half of a range of one time and half of another would be of none."""
    for one in known:
        if one.as_of != options.as_of:
            begun = f"--as-of {one.as_of:%Y-%m-%dT%H:%M:%SZ}" if one.as_of else "no --as-of"
            raise UsageError(f"{one.invocation} was begun with {begun}: it goes on only so")


def _nothing_begun(session: Session, which: str) -> UsageError:
    return UsageError(
        f"no backfill of {session.pipeline.name} {which} was begun: there is nothing to resume",
        hint=f"leave --resume out; or look: ingestkit runs list {session.pipeline.name}",
    )


def resuming(session: Session, options: RunOptions) -> str:
    """The command that goes on with what is left of a range."""
    words = ["ingestkit", "backfill", session.pipeline.name]
    as_of = f"{options.as_of:%Y-%m-%dT%H:%M:%S.%fZ}" if options.as_of else None
    flags = {"--from": options.since, "--to": options.until, "--run-id": options.run_id, "--as-of": as_of}
    flags |= {"--reason": options.reason, "--by": options.by} if as_of else {}
    for flag, value in flags.items():
        words += [flag, value] if value is not None else []
    for model in options.models:
        words += ["--model", model]
    return shlex.join([*words, *(["--from-lake"] if options.from_lake else []), "--resume"])


def _ended(session: Session, options: RunOptions, progress: Progress) -> Outcome:
    name = session.pipeline.name
    if progress.failures:
        raise _failure(session, options, progress)
    done = list(dict.fromkeys(progress.done))
    if progress.superseded and not done and not progress.before:
        batch, said = next(iter(progress.superseded.items()))
        by = ", ".join(sorted(set(said.values())))
        raise UsageError(f"batch {batch} and all others of the range are superseded by {by}: what it said stands")
    told = f"{many(len(done), 'batch', 'batches')} done again: {', '.join(done)}" if done else "nothing was left to do"
    if progress.before:
        told += f"; {many(progress.before, 'batch was', 'batches were')} done before by {progress.invocation}"
    if progress.superseded:
        told += f"; superseded by newer ones: {named(list(progress.superseded))}"
    if progress.unknown:
        told += f"; not known then: {named(progress.unknown)}"
    warnings: tuple[str, ...] = ()
    if progress.undone:
        left = f"{many(len(progress.undone), 'batch', 'batches')} of the range never done: {named(progress.undone)}"
        warnings = (f"{left}; that is for: ingestkit run {name}",)
    if progress.passed:
        over = f"{many(len(progress.passed), 'batch', 'batches')} of the range stepped over: {named(progress.passed)}"
        warnings += (f"{over}; to load one: ingestkit backfill {name} --batch {progress.passed[-1]}",)
    results = tuple(progress.results)
    return Outcome("backfill", name, "done", told, results, warnings, run_ids=run_ids_of(results))


def _failure(session: Session, options: RunOptions, progress: Progress) -> PartlyDone:
    """Exit 9, or where nothing was done and all failed alike, the code of that."""
    told = "; ".join(f"{batch} (exit {one.exit_code}: {one.message})" for batch, one in progress.failures.items())
    number, done = len(progress.failures), len(set(progress.done)) + progress.before
    total = many(number + done, "batch", "batches")
    error = PartlyDone(
        f"{number} of {total} failed: {told}",
        hint=f"put the cause right, then: {resuming(session, options)}",
    )
    codes = {one.exit_code for one in progress.failures.values()}
    if not done and len(codes) == 1:
        error.exit_code = codes.pop()
    error.results = tuple(progress.results)
    error.failed = failed(progress.failures)
    return error


def failed(failures: Mapping[str, IngestkitError]) -> tuple[Mapping[str, object], ...]:
    return tuple(
        {
            "batch": batch,
            "run_id": error.results[0].run_id if error.results else None,
            "exit_code": error.exit_code,
            "message": error.message,
            "hint": error.hint,
        }
        for batch, error in failures.items()
    )


def _superseded_result(session: Session, batch: str, model: str, by: str) -> ModelResult:
    detail = f"superseded by {by}, which stands"
    return ModelResult(session.pipeline.name, model, batch, None, "run", "superseded", detail=detail)


def _shown(start: str | None, end: str | None) -> str:
    return " ".join([*([f"from {start}"] if start else []), *([f"before {end}"] if end else [])])
