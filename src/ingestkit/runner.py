"""The runner: batches × stages. Leases, order, continuation; only it and `phases` write runs and completions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from ingestkit import attempts, steps
from ingestkit.attempts import refuse_busy
from ingestkit.check import check, newest_done, refuse_missing_file
from ingestkit.discover import Found, Unit, discover, one_batch, sight_anew
from ingestkit.errors import (
    Busy,
    Fenced,
    IngestkitError,
    Interrupted,
    LeaseHeld,
    LeaseLost,
    SourceError,
    StateError,
    UsageError,
)
from ingestkit.mirroring import refuse_empty_state, show
from ingestkit.model import CompletionStatus, FileStatus, RunStatus, Stage, StageStatus
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.phases import WORK, Active, do_stage, previous_rows
from ingestkit.recover import recover, replay
from ingestkit.session import Session
from ingestkit.stages.load import newer_content
from ingestkit.states import completions, ledger, runs, stage_rows
from ingestkit.states.lease import IfLocked, Lease, acquire_waiting, heartbeat
from ingestkit.states.owner import Owner
from ingestkit.states.runs import Run
from ingestkit.states.stage_rows import ALL_STAGES, StageRow


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run, stage or backfill command was asked for."""

    models: tuple[str, ...] = ()
    batch: str | None = None
    run_id: str | None = None
    limit: int | None = None
    force: bool = False
    take_over: bool = False
    from_lake: bool = False
    if_locked: str = "fail"


# --- commands --------------------------------------------------------------------------------------------------------


def run(session: Session, options: RunOptions) -> Outcome:
    """Work through all waiting batches, oldest first."""
    try:
        return _run(session, options)
    except LeaseHeld as held:
        return _locked(session, "run", options, held)


def stage(session: Session, wanted: Stage, options: RunOptions) -> Outcome:
    """Do one stage of one run, for a scheduler that calls them one by one."""
    try:
        return _stage(session, wanted, options)
    except LeaseHeld as held:
        return _locked(session, wanted.value, options, held)


def backfill(session: Session, options: RunOptions) -> Outcome:
    """Do a done batch again, or build the target again from the lake, by the rule of old work after new."""
    with holding(session, session.pipeline.check_models(options.models), "backfill", options.if_locked) as lease:
        recover(session, lease)
        results = _finish_open(session, lease, options)
        check(session, lease, rebuilding=options.from_lake)
        if options.from_lake and options.batch is None and options.run_id is None:
            results.extend(_restore(session, lease))
            return _outcome(session, "backfill", Found(), results)
        batch = options.batch or _batch_of(session, options.run_id)
        models = _done_models(session, lease, batch, options)
        kind = "restore" if options.from_lake else "backfill"
        _refuse_superseded(session, batch, models)
        unit = _redo_unit(session, lease, batch, models, kind)
        fresh = attempts.open_new(session, lease, batch, models, kind=kind, command="run")
        results.extend(work(_active(session, lease, fresh, unit), ALL_STAGES))
        return _outcome(session, "backfill", Found(), results)


def flush(session: Session) -> Outcome:
    """Write what the pending queue holds for the pipeline into the state."""
    with holding(session, session.pipeline.models, "queue flush", "fail") as lease:
        written = replay(session, lease)
        show(session)
    return Outcome(
        "queue flush", session.pipeline.name, "done", f"{_many(written, 'pending record', 'pending records')} written"
    )


def _run(session: Session, options: RunOptions) -> Outcome:
    with holding(session, session.pipeline.check_models(options.models), "run", options.if_locked) as lease:
        stopped = _paused(session, "run")
        if stopped is not None:
            return stopped
        refuse_empty_state(session)
        recover(session, lease)
        _finish_cleaning(session, lease)
        results = _finish_open(session, lease, options)
        found = _waiting(session, lease, options)
        if not found.units:
            return _nothing(session, lease, "run", found, results)
        check(session, lease, fetching=max(_bytes(unit) for unit in found.units))
        for unit in found.units:
            active = _attempt(session, lease, unit, options)
            results.extend(work(active, ALL_STAGES))
        return _outcome(session, "run", found, results)


def _stage(session: Session, wanted: Stage, options: RunOptions) -> Outcome:
    with holding(session, _models_to_hold(session, wanted, options), wanted.value, options.if_locked) as lease:
        stopped = _paused(session, wanted.value)
        if stopped is not None:
            return stopped
        refuse_empty_state(session)
        recover(session, lease)
        if wanted is Stage.EXTRACT:
            return _extract_stage(session, lease, options)
        return _later_stage(session, lease, wanted, options)


def _locked(session: Session, command: str, options: RunOptions, held: LeaseHeld) -> Outcome:
    """`--if-locked skip`: somebody else is at it, and that is no failure."""
    if IfLocked.parse(options.if_locked).policy != "skip":
        raise held
    return Outcome(command, session.pipeline.name, "locked", held.message)


# --- the lease of a command ------------------------------------------------------------------------------------------


@contextmanager
def holding(session: Session, models: Sequence[str], command: str, if_locked: str) -> Iterator[Lease]:
    """Hold the leases of these models for one command, with a heartbeat, and let go of them at its end."""
    settings = session.settings.state.lease
    lease = acquire_waiting(
        session.state,
        session.pipeline.name,
        models,
        command=command,
        owner=Owner.here(),
        ttl=settings.ttl,
        clock=session.clock,
        if_locked=IfLocked.parse(if_locked),
        stop=session.stop,
        waiting=lambda held: session.progress.said(f"waiting: {held.message}"),
    )
    try:
        with heartbeat(lease, settings.beat, session.stop):
            yield lease
    except LeaseLost:
        raise
    except StateError:
        # If the state still cannot be written, the lease is let go by expiry.
        with suppress(StateError):
            lease.release()
        raise
    except BaseException:
        lease.release()
        raise
    lease.release()


def _paused(session: Session, command: str) -> Outcome | None:
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    name = session.pipeline.name
    if row is not None and row["paused_at"] is not None:
        told = f"paused by {row['paused_by']} since {row['paused_at']:%Y-%m-%d %H:%M}Z: {row['paused_reason']}"
        return Outcome(command, name, "paused", f"{told}; ingestkit resume {name} --reason '...'")
    if row is not None and row["held_at"] is not None:
        told = f"held since {row['held_at']:%Y-%m-%d %H:%M}Z: {row['held_reason']}"
        return Outcome(command, name, "held", f"{told}; ingestkit resume {name} --reason '...'")
    return None


def _models_to_hold(session: Session, wanted: Stage, options: RunOptions) -> tuple[str, ...]:
    """A stage holds the models of its run, so that the stages of another run may go on beside it."""
    if options.models:
        return session.pipeline.check_models(options.models)
    meant = _run_of(session, session.pipeline.models, options.run_id)
    if meant is not None and meant.status is RunStatus.OPEN:
        return tuple(sorted(meant.models))
    named = meant is not None and options.run_id is not None and meant.status is not RunStatus.SKIPPED
    if meant is None or (wanted is Stage.EXTRACT and not named):
        return session.pipeline.check_models(())
    return tuple(sorted(set(meant.models) & set(session.pipeline.models)))


def _as_kept(session: Session, known: Run) -> Session:
    """Stages of an open run use the configuration kept in its row."""
    if known.status is not RunStatus.OPEN or known.config_hash == session.config_hash:
        return session
    return session.reopen(known.config)


# --- a run of one batch ----------------------------------------------------------------------------------------------


def work(active: Active, stages: Sequence[Stage]) -> list[ModelResult]:
    """Do these stages of a run; a failure closes the run, an interruption leaves it open for the next command."""
    try:
        for one in stages:
            active.session.stop.check()
            do_stage(active, one)
    except (LeaseLost, Fenced, Interrupted, Busy, StateError):
        raise
    except IngestkitError as error:
        attempts.fail(active.session, active.lease, active.run, error.message, error.exit_code)
        _stale(active.session)
        show(active.session)
        raise
    steps.reached("run.done")
    show(active.session)
    return results_of(active.session, active.run, active.models, stages[-1])


def _finish_open(session: Session, lease: Lease, options: RunOptions) -> list[ModelResult]:
    """Go on with the open runs of the models at hand, oldest first, before anything new."""
    with session.state.read() as conn:
        waiting = runs.open_runs(conn, session.pipeline.name)
    results: list[ModelResult] = []
    for run_, models in waiting:
        held = tuple(sorted(models & set(lease.models)))
        if not held or run_.batch is None:
            continue
        if run_.run_id != options.run_id:
            refuse_busy(session, run_, take_over=options.take_over)
        ours = run_.config_hash == session.config_hash
        taken = options.take_over or set(held) != set(models)
        at_hand = session if ours or taken else session.reopen(run_.config)
        check(at_hand, lease, rebuilding=run_.kind == "restore")
        unit = _open_unit(at_hand, lease, run_, held)
        if unit is None:
            continue
        if taken:
            again = attempts.open_new(at_hand, lease, run_.batch, held, kind=run_.kind, command="run")
        else:
            again = attempts.go_on(at_hand, lease, run_, "run")
        results.extend(work(_active(at_hand, lease, again, unit), ALL_STAGES))
    return results


def _open_unit(session: Session, lease: Lease, run_: Run, models: tuple[str, ...]) -> Unit | None:
    """What is left to do for an open run, or None where its batch must wait."""
    assert run_.batch is not None
    if run_.kind == "restore":
        return Unit(run_.batch, models, run_.kind)
    unit, blocked = one_batch(session, lease, run_.batch, models)
    if unit is not None:
        return unit
    with session.state.read() as conn:
        known = ledger.versions(conn, session.pipeline.name, [run_.batch])
    unfetched = [one.path for one in ledger.latest(known).values() if one.status is FileStatus.SEEN]
    if any(one.sha256 for one in known) and not unfetched:
        session.progress.warned(f"{blocked}; run {run_.run_id} goes on with what had landed")
        return Unit(run_.batch, models, run_.kind)
    if blocked and "no batch" in blocked:
        raise SourceError(
            f"run {run_.run_id} cannot go on: {blocked}, and {len(unfetched)} of its files had not landed",
            hint=f"put the folder back, or: ingestkit skip {run_.pipeline} --batch {run_.batch} --reason '...'",
        )
    session.progress.said(f"batch {run_.batch} waits: {blocked}")
    return None


def _attempt(session: Session, lease: Lease, unit: Unit, options: RunOptions) -> Active:
    """The run this unit is worked on in: under the caller's id its failed one again, else a new attempt."""
    if options.run_id is not None:
        with session.state.read() as conn:
            mine = runs.of_invocation(conn, session.pipeline.name, options.run_id)
        failed = [one for one in mine if one.batch == unit.batch and one.status is RunStatus.FAILED]
        idle = [one for one in mine if one.status is RunStatus.SKIPPED]
        if idle:
            return _active(
                session, lease, attempts.fill_skipped(session, lease, idle[0], unit.batch, unit.models), unit
            )
        if failed and set(failed[-1].models) == set(unit.models):
            return _active(session, lease, attempts.reopen(session, lease, failed[-1], "run"), unit)
    fresh = attempts.open_new(
        session, lease, unit.batch, unit.models, kind="run", command="run", invocation=options.run_id
    )
    return _active(session, lease, fresh, unit)


def _active(session: Session, lease: Lease, run_: Run, unit: Unit, *, again: frozenset[Stage] = frozenset()) -> Active:
    before = previous_rows(session, unit.batch)
    return Active(session, lease, run_, unit.models, unit, again=again, previous_rows=before)


def _finish_cleaning(session: Session, lease: Lease) -> None:
    """Tidy behind runs that died between gate and clean."""
    with session.state.read() as conn:
        left = [one for one in runs.uncleaned(conn, session.pipeline.name) if set(one.models) <= set(lease.models)]
    for one in left:
        do_stage(_active(session, lease, one, _unit_of(session, one, one.models)), Stage.CLEAN)


# --- discover --------------------------------------------------------------------------------------------------------


def _waiting(session: Session, lease: Lease, options: RunOptions) -> Found:
    found = discover(session, lease, only=options.batch, limit=options.limit)
    for late in found.late:
        session.progress.warned(
            f"batch {late} came after newer ones were done and is not loaded (source.late: report)",
            hint=f"set source.late: load, or: ingestkit skip {session.pipeline.name} --batch {late} --reason '...'",
        )
    for path in found.unmapped:
        session.progress.warned(f"{path} belongs to no model and is kept in quarantine")
    for batch, why in found.waiting.items():
        session.progress.said(f"batch {batch} waits: {why}")
    return found


def _bytes(unit: Unit) -> int:
    """How much is to be fetched for a unit."""
    return sum(item.size for pairs in unit.wanted.values() for _, item in pairs)


def _nothing(session: Session, lease: Lease, command: str, found: Found, results: list[ModelResult]) -> Outcome:
    """Nothing is waiting: done without asking the warehouse more than whether its file is there."""
    refuse_missing_file(session, newest_done(session, lease.models))
    show(session)
    if results:
        return _outcome(session, command, found, results)
    name = session.pipeline.name
    warnings = _stale(session)
    if found.waiting:
        batch, why = next(iter(found.waiting.items()))
        return Outcome(command, name, "waiting", f"batch {batch} waits: {why}", warnings=warnings)
    at = f"; the last batch done is {found.checkpoint}" if found.checkpoint else ""
    return Outcome(command, name, "nothing new", f"nothing new for {name}{at}", warnings=warnings)


def _stale(session: Session) -> tuple[str, ...]:
    """A checkpoint that has not moved for long is worth a word, whatever the reason."""
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    if row is None or row["moved_at"] is None:
        return ()
    still = session.clock.now() - row["moved_at"]
    if still < session.settings.state.stale_after:
        return ()
    told = f"no batch of {session.pipeline.name} was done since {row['moved_at']:%Y-%m-%d %H:%M}Z ({still.days} days)"
    session.progress.warned(told)
    return (told,)


# --- stage commands --------------------------------------------------------------------------------------------------


def _extract_stage(session: Session, lease: Lease, options: RunOptions) -> Outcome:
    known = _run_of(session, lease.models, options.run_id)
    if known is not None and known.status in (RunStatus.SUCCESS, RunStatus.SUCCESS_WITH_REJECTS):
        if options.force:
            return _again(session, lease, known, Stage.EXTRACT)
        if options.run_id is not None:
            return _said_done(session, known, Stage.EXTRACT)
    if known is not None and options.run_id is None and (options.take_over or known.status is not RunStatus.OPEN):
        # Nobody named it: what is done, has failed or is taken over is followed by another attempt.
        known = None
    if known is None or known.status is RunStatus.SKIPPED:
        found = _waiting(session, lease, replace(options, limit=1))
        if not found.units:
            idle = attempts.open_skipped(session, lease, options.run_id)
            return replace(_nothing(session, lease, "extract", found, []), run_ids=(idle.run_id,))
        unit = found.units[0]
        _refuse_open(session, unit, options)
        check(session, lease, fetching=_bytes(unit))
        if known is not None and options.run_id is not None:
            known = attempts.fill_skipped(session, lease, known, unit.batch, unit.models)
        else:
            known = attempts.open_new(
                session, lease, unit.batch, unit.models, kind="stage", command="extract", invocation=options.run_id
            )
        return _one_stage(_active(session, lease, known, unit), Stage.EXTRACT)
    if options.batch is not None and options.batch != known.batch:
        raise UsageError(
            f"run {known.run_id} works on batch {known.batch}, not on {options.batch}",
            hint="give the other batch a run of its own: --run-id, with --take-over where it stands in the way",
        )
    session = _as_kept(session, known)
    if options.force:
        return _again(session, lease, known, Stage.EXTRACT)
    check(session, lease)
    known = _opened(session, lease, known, "extract", options)
    models = _models_of(session, known, lease)
    unit_ = _open_unit(session, lease, known, models)
    if unit_ is None:
        return Outcome(
            "extract", session.pipeline.name, "waiting", f"batch {known.batch} waits", run_ids=(known.run_id,)
        )
    return _one_stage(_active(session, lease, known, unit_), Stage.EXTRACT)


def _later_stage(session: Session, lease: Lease, wanted: Stage, options: RunOptions) -> Outcome:
    known = _run_of(session, lease.models, options.run_id)
    if known is None:
        what = "run" if options.run_id is None else f"run {options.run_id!r}"
        raise UsageError(
            f"pipeline {session.pipeline.name} has no {what} to {wanted}: extract opens one",
            hint=f"ingestkit extract {session.pipeline.name}",
        )
    if known.status is RunStatus.SKIPPED:
        told = f"run {known.run_id} found nothing waiting: nothing to {wanted}"
        return Outcome(wanted.value, session.pipeline.name, "nothing new", told, run_ids=(known.run_id,))
    session = _as_kept(session, known)
    closed = known.status in (RunStatus.SUCCESS, RunStatus.SUCCESS_WITH_REJECTS)
    if options.force and wanted is not Stage.CLEAN:
        return _again(session, lease, known, wanted)
    if closed and wanted is not Stage.CLEAN:
        return _said_done(session, known, wanted)
    models = _models_of(session, known, lease)
    _refuse_before_predecessor(session, known, models, wanted)
    if wanted is Stage.LOAD:
        check(session, lease, rebuilding=known.kind == "restore")
    if wanted is not Stage.CLEAN:
        known = _opened(session, lease, known, wanted.value, options)
        models = _models_of(session, known, lease)
    return _one_stage(_active(session, lease, known, _unit_of(session, known, models)), wanted)


def _one_stage(active: Active, wanted: Stage) -> Outcome:
    results = work(active, [wanted])
    name = active.session.pipeline.name
    told = f"{wanted.value} of batch {active.batch} is done (run {active.run.run_id})"
    return Outcome(wanted.value, name, "done", told, tuple(results), run_ids=(active.run.run_id,))


def _again(session: Session, lease: Lease, known: Run, wanted: Stage) -> Outcome:
    """`--force`: do the stage again, and those behind it that had been done, by the rule of old work after new."""
    if known.batch is None:
        raise UsageError(f"run {known.run_id} found nothing waiting: there is no {wanted} to do again")
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, known.run_id)
    done = {name for (name, _), row in rows.items() if row.status in (StageStatus.SUCCESS, StageStatus.SKIPPED)}
    if wanted not in {name for name, _ in rows}:
        raise UsageError(f"run {known.run_id} has not come to {wanted}", hint=f"ingestkit runs show {known.run_id}")
    behind = [one for one in ALL_STAGES if ALL_STAGES.index(one) > ALL_STAGES.index(wanted) and one in done]
    again = [wanted, *behind]
    check(session, lease)
    if known.status is not RunStatus.OPEN:
        known = attempts.reopen(session, lease, known, wanted.value, redo=True)
    else:
        known = attempts.go_on(session, lease, known, wanted.value)
    models = _models_of(session, known, lease)
    with lease.transaction() as conn:
        stage_rows.put_back(conn, known.run_id, again, models, session.clock.now())
        runs.open_models(conn, known, models, lease.token, redo=True)
    assert known.batch is not None
    unit = _unit_of(session, known, models)
    if wanted is Stage.EXTRACT:
        unit = sight_anew(session, lease, known.batch, models)
    results = work(_active(session, lease, known, unit, again=frozenset(again)), again)
    told = f"{', '.join(again)} of batch {known.batch} done again (run {known.run_id})"
    return Outcome(wanted.value, session.pipeline.name, "done", told, tuple(results), run_ids=(known.run_id,))


def _refuse_open(session: Session, unit: Unit, options: RunOptions) -> None:
    """A stage command may be about to go on with the models this one would take."""
    with session.state.read() as conn:
        others = [one for one, models in runs.open_runs(conn, session.pipeline.name) if models & set(unit.models)]
    for other in others:
        refuse_busy(session, other, take_over=options.take_over)


def _run_of(session: Session, models: Sequence[str], run_id: str | None) -> Run | None:
    """The run a stage command means: the one named, the one open, or else the newest."""
    with session.state.read() as conn:
        if run_id is not None:
            return runs.named(conn, session.pipeline.name, run_id)
        waiting = [run_ for run_, theirs in runs.open_runs(conn, session.pipeline.name) if theirs & set(models)]
        if len(waiting) > 1:
            names = ", ".join(one.run_id for one in waiting)
            raise UsageError(f"several runs are open: {names}", hint="name one: --run-id")
        return waiting[0] if waiting else runs.latest_run(conn, session.pipeline.name)


def _opened(session: Session, lease: Lease, known: Run, command: str, options: RunOptions) -> Run:
    """The run, open and touched by this command."""
    match known.status:
        case RunStatus.OPEN:
            return (
                attempts.go_on(session, lease, known, command)
                if known.last_command == command
                else (_touched(session, lease, known, command))
            )
        case RunStatus.SUPERSEDED:
            raise Busy(
                f"run {known.run_id} cannot go on: it was {known.error}",
                hint=f"ingestkit runs list {session.pipeline.name}",
            )
        case RunStatus.FAILED if options.run_id is None:
            raise UsageError(
                f"no run of {session.pipeline.name} is open; the newest, {known.run_id}, failed",
                hint=f"to go on with it: ingestkit {command} --run-id {known.run_id}",
            )
        case _:
            return attempts.reopen(session, lease, known, command)


def _touched(session: Session, lease: Lease, known: Run, command: str) -> Run:
    now = session.clock.now()
    with lease.transaction() as conn:
        runs.update_run(conn, known.run_id, touched_at=now, last_command=command, token=lease.token)
    return replace(known, touched_at=now, last_command=command, token=lease.token)


def _refuse_before_predecessor(session: Session, known: Run, here: Sequence[str], wanted: Stage) -> None:
    """A stage before its predecessor is a mistake in the schedule, and says so."""
    before = [one for one in ALL_STAGES if ALL_STAGES.index(one) < ALL_STAGES.index(wanted)]
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, known.run_id)
    for one in before:
        for model in here if one in WORK else ("*",):
            row = rows.get((one, model))
            if row is None or row.status not in (StageStatus.SUCCESS, StageStatus.SKIPPED):
                what = f"{one} of {model}" if one in WORK else one.value
                raise UsageError(
                    f"{wanted} of run {known.run_id} comes after {what}, which is not done",
                    hint=f"ingestkit {one} {session.pipeline.name} --run-id {known.run_id}",
                )


def _said_done(session: Session, known: Run, wanted: Stage) -> Outcome:
    told = f"{wanted} of run {known.run_id} is done already; --force does it again"
    results = tuple(results_of(session, known, known.models, wanted))
    return Outcome(wanted.value, session.pipeline.name, "done", told, results, run_ids=(known.run_id,))


def _models_of(session: Session, known: Run, lease: Lease) -> tuple[str, ...]:
    with session.state.read() as conn:
        for run_, models in runs.open_runs(conn, session.pipeline.name):
            if run_.run_id == known.run_id:
                return tuple(sorted(models & set(lease.models)))
        return stage_rows.own_models(conn, known.run_id)


def _unit_of(session: Session, known: Run, models: tuple[str, ...]) -> Unit:
    """The batch as it landed: stages behind extract ask the source nothing."""
    assert known.batch is not None
    with session.state.read() as conn:
        files = ledger.versions(conn, session.pipeline.name, [known.batch])
    return Unit(known.batch, models, known.kind, empty=not any(one.model for one in files))


# --- backfill --------------------------------------------------------------------------------------------------------


def _batch_of(session: Session, run_id: str | None) -> str:
    if run_id is None:
        raise UsageError("which batch?", hint="--run-id R, --batch K, or --from-lake for all that the target needs")
    batch = attempts.find(session, run_id).batch
    if batch is None:
        raise UsageError(f"run {run_id} found nothing waiting: it has no batch to do again")
    return batch


def _done_models(session: Session, lease: Lease, batch: str, options: RunOptions) -> tuple[str, ...]:
    """The models of a done batch that a backfill does again: those of the run named, or all that were done."""
    with session.state.read() as conn:
        done = completions.whole(conn, session.pipeline.name, batch)
    wanted = lease.models
    if options.run_id is not None:
        wanted = tuple(model for model in attempts.find(session, options.run_id).models if model in lease.models)
    undone = [model for model in wanted if (batch, model) not in done]
    if undone:
        raise UsageError(
            f"batch {batch} is not done for {', '.join(undone)}: there is nothing to do again",
            hint=f"ingestkit run {session.pipeline.name}",
        )
    return tuple(wanted)


def _refuse_superseded(session: Session, batch: str, models: Sequence[str]) -> None:
    """A person who asks for old content is told that newer content stands; `run` only notes it."""
    receipts = session.warehouse.receipts(session.pipeline.name)
    stands = {
        model: by
        for model in models
        if (by := newer_content(session.pipeline, batch, model, session.pipeline.model(model).load, receipts))
    }
    if not stands:
        return
    left = [model for model in models if model not in stands]
    name = session.pipeline.name
    raise UsageError(
        f"batch {batch} is superseded by "
        + ", ".join(f"{by} ({model})" for model, by in sorted(stands.items()))
        + ": what the newer batch said stands",
        hint=f"ingestkit backfill {name} --batch {batch} --model {' --model '.join(left)}" if left else None,
    )


def _redo_unit(session: Session, lease: Lease, batch: str, models: tuple[str, ...], kind: str) -> Unit:
    if kind == "restore":
        return Unit(batch, models, kind)
    with session.state.read() as conn:
        done = completions.whole(conn, session.pipeline.name, batch)
    skipped = [model for model in models if done[batch, model][0].status is CompletionStatus.SKIPPED]
    if skipped and batch in session.source.batches(None):
        # What was stepped over is wanted after all.
        sight_anew(session, lease, batch, skipped)
    unit, blocked = one_batch(session, lease, batch, models)
    if unit is not None:
        return unit
    raise SourceError(
        f"batch {batch} cannot be fetched: {blocked}",
        hint=f"ingestkit backfill {session.pipeline.name} --batch {batch} --from-lake does it from what had landed",
    )


def _restore(session: Session, lease: Lease) -> list[ModelResult]:
    """Publish again from the lake what the target lacks: per model from its newest full batch on, oldest first."""
    receipts = {(one.model, one.batch) for one in session.warehouse.receipts(session.pipeline.name)}
    order = session.pipeline.order
    with session.state.read() as conn:
        done = [entry for entry, _ in completions.whole(conn, session.pipeline.name).values()]
    needed: dict[str, list[str]] = {}
    for model in lease.models:
        mine = [one for one in done if one.model == model and one.status is CompletionStatus.DONE]
        full = [order(one.batch) for one in mine if one.mode == "replace"]
        since = max(full, default=None)
        for one in mine:
            if (since is None or order(one.batch) >= since) and (model, one.batch) not in receipts:
                needed.setdefault(one.batch, []).append(model)
    results: list[ModelResult] = []
    for batch in sorted(needed, key=order):
        models = tuple(sorted(needed[batch]))
        fresh = attempts.open_new(session, lease, batch, models, kind="restore", command="run")
        results.extend(work(_active(session, lease, fresh, Unit(batch, models, "restore")), ALL_STAGES))
    return results


# --- what was done ---------------------------------------------------------------------------------------------------


def results_of(session: Session, run_: Run, models: Sequence[str], wanted: Stage) -> list[ModelResult]:
    """One object per model, read back from the state: the completion for a whole run, the sidecar for one stage."""
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, run_.run_id)
        done = completions.whole(conn, session.pipeline.name, run_.batch)
    closing = wanted in (Stage.GATE, Stage.CLEAN)
    results = []
    for model in sorted(models):
        row = rows.get((Stage.LOAD if closing else wanted, model))
        sidecar = row.work() if row is not None else None
        entry = done.get((run_.batch or "", model)) if closing else None
        counts = entry[0].counts if entry else (sidecar.work.counts if sidecar else None)
        status = entry[0].status.value if entry else (row.status.value.lower() if row else "unknown")
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
                bytes=counts.bytes if counts else None,
                sha256=entry[0].digest if entry else None,
                seconds=_seconds(rows, model),
                sidecar=row.sidecar_path if row else None,
                detail=sidecar.work.skipped if sidecar else None,
            )
        )
    return results


def _seconds(rows: Mapping[tuple[Stage, str], StageRow], model: str) -> float | None:
    """How long the run's stages took for the model, those it shares with others included."""
    known = [row.seconds for (_, name), row in rows.items() if name in (model, "*") and row.seconds is not None]
    return sum(known) if known else None


def _outcome(session: Session, command: str, found: Found, results: list[ModelResult]) -> Outcome:
    batches = list(dict.fromkeys(one.batch for one in results if one.batch))
    ids = tuple(dict.fromkeys(one.run_id for one in results if one.run_id))
    warnings = tuple(f"batch {late} came late and is not loaded" for late in found.late)
    told = (
        f"{_many(len(batches), 'batch', 'batches')} done: {', '.join(batches)}" if batches else "nothing had to be done"
    )
    if found.waiting:
        batch, why = next(iter(found.waiting.items()))
        told += f"; batch {batch} waits: {why}"
    return Outcome(command, session.pipeline.name, "done", told, tuple(results), warnings, run_ids=ids)


def _many(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
