"""One stage of one run, for schedulers that call stages one by one: which run is meant, and whether it may go on."""

from collections.abc import Sequence
from dataclasses import replace

from ingestkit import attempts
from ingestkit.active import Active
from ingestkit.attempts import refuse_busy
from ingestkit.check import check
from ingestkit.discover import batch_key
from ingestkit.errors import (
    Busy,
    LeaseHeld,
    UsageError,
    WarehouseError,
)
from ingestkit.mirroring import refuse_empty_state
from ingestkit.model import RunStatus, Stage, StageStatus
from ingestkit.outcome import Outcome
from ingestkit.phases import WORK
from ingestkit.rebuilding import marked, rebuild
from ingestkit.recover import recover
from ingestkit.reporting import results_of
from ingestkit.runner import bytes_of, holding, locked, may_clean, nothing_new, paused, waiting_units
from ingestkit.session import Session
from ingestkit.sighting import Unit, sight_anew
from ingestkit.states import runs, stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.runs import Run
from ingestkit.working import RunOptions, active_run, as_kept, landed_unit, open_unit, work


def stage(session: Session, wanted: Stage, options: RunOptions) -> Outcome:
    """Do one stage of one run, for a scheduler that calls them one by one."""
    try:
        return _stage(session, wanted, options)
    except LeaseHeld as held:
        return locked(session, wanted.value, options, held)


def _stage(session: Session, wanted: Stage, options: RunOptions) -> Outcome:
    with holding(session, _models_to_hold(session, wanted, options), wanted.value, options.if_locked) as lease:
        stopped = paused(session, wanted.value)
        if stopped is not None:
            return stopped
        refuse_empty_state(session)
        recover(session, lease)
        if wanted is Stage.EXTRACT:
            if not _fetches_for_a_restore(session, lease, options):
                rebuild(session, lease, options)
        elif left := marked(session, lease.models):
            raise WarehouseError(
                f"the target of {session.pipeline.name} ({', '.join(left)}) is being built again and is not whole",
                hint=f"ingestkit run {session.pipeline.name}",
            )
        if wanted is Stage.EXTRACT:
            return _extract_stage(session, lease, options)
        return _later_stage(session, lease, wanted, options)


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


def _fetches_for_a_restore(session: Session, lease: Lease, options: RunOptions) -> bool:
    """Whether what the lake has lost is to be fetched for a run that builds the target again, and cannot without."""
    meant = _run_of(session, lease.models, options.run_id) if options.force and options.run_id is not None else None
    return meant is not None and meant.kind == "restore" and meant.status in (RunStatus.OPEN, RunStatus.FAILED)


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
        return _extract_waiting(session, lease, options, known)
    if options.batch is not None and batch_key(session, options.batch) != known.batch:
        raise UsageError(
            f"run {known.run_id} works on batch {known.batch}, not on {options.batch}",
            hint="give the other batch a run of its own: --run-id, with --take-over where it stands in the way",
        )
    session = as_kept(session, known)
    if options.force:
        return _again(session, lease, known, Stage.EXTRACT)
    check(session, lease)
    known = _opened(session, lease, known, "extract", options)
    models = _models_of(session, known, lease)
    unit_ = open_unit(session, lease, known, models)
    if unit_ is None:
        return Outcome(
            "extract", session.pipeline.name, "waiting", f"batch {known.batch} waits", run_ids=(known.run_id,)
        )
    return _one_stage(active_run(session, lease, known, unit_), Stage.EXTRACT)


def _extract_waiting(session: Session, lease: Lease, options: RunOptions, idle: Run | None) -> Outcome:
    """Extract the oldest waiting batch, in a new run or in one that had found nothing waiting."""
    found = waiting_units(session, lease, replace(options, limit=1))
    if not found.units:
        skipped = attempts.open_skipped(session, lease, options.run_id)
        return replace(nothing_new(session, lease, "extract", found, []), run_ids=(skipped.run_id,))
    unit = found.units[0]
    _refuse_open(session, unit, options)
    check(session, lease, fetching=bytes_of(unit))
    if idle is not None and options.run_id is not None:
        opened = attempts.fill_skipped(session, lease, idle, unit)
    else:
        opened = attempts.open_new(session, lease, unit, kind="stage", command="extract", invocation=options.run_id)
    return _one_stage(active_run(session, lease, opened, unit), Stage.EXTRACT)


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
    session = as_kept(session, known)
    if wanted not in session.pipeline.stages:
        raise UsageError(
            f"pipeline {session.pipeline.name} has no {wanted}", hint="its file says it: dbt: {project: dbt}"
        )
    closed = known.status in (RunStatus.SUCCESS, RunStatus.SUCCESS_WITH_REJECTS)
    if options.force and wanted is not Stage.CLEAN:
        return _again(session, lease, known, wanted)
    if closed and wanted is not Stage.CLEAN:
        return _said_done(session, known, wanted)
    models = _models_of(session, known, lease)
    _refuse_before_predecessor(session, known, models, wanted)
    if wanted is Stage.LOAD:
        check(session, lease, rebuilding=known.kind == "restore")
    if wanted is Stage.CLEAN and not may_clean(session, lease):
        told = f"clean of batch {known.batch} is left to the next run"
        return Outcome(wanted.value, session.pipeline.name, "waiting", told, run_ids=(known.run_id,))
    if wanted is not Stage.CLEAN:
        known = _opened(session, lease, known, wanted.value, options)
        models = _models_of(session, known, lease)
    return _one_stage(active_run(session, lease, known, landed_unit(session, known, models)), wanted)


def _one_stage(active: Active, wanted: Stage) -> Outcome:
    results = work(active, [wanted])
    name = active.session.pipeline.name
    left = _clean_left(active) if wanted is Stage.CLEAN else ()
    status, said = ("waiting", "is left to the next run") if left else ("done", "is done")
    told = f"{wanted.value} of batch {active.batch} {said} (run {active.run.run_id})"
    return Outcome(wanted.value, name, status, told, tuple(results), left, run_ids=(active.run.run_id,))


def _clean_left(active: Active) -> tuple[str, ...]:
    """The warning of a clean that failed: it fails no run, and is done by one that comes later."""
    with active.session.state.read() as conn:
        row = stage_rows.of_run(conn, active.run.run_id).get((Stage.CLEAN, "*"))
    # Where its beginning could not be written, the row tells of one before.
    mine = row if row is not None and row.token == active.lease.token else None
    if mine is not None and mine.status is StageStatus.SUCCESS:
        return ()
    why = mine.error if mine is not None else None
    return (f"clean failed: {why or 'the state did not answer'}",)


def _again(session: Session, lease: Lease, known: Run, wanted: Stage) -> Outcome:
    """`--force`: do the stage again, and those behind it that had been done, by the rule of old work after new."""
    if known.batch is None:
        raise UsageError(f"run {known.run_id} found nothing waiting: there is no {wanted} to do again")
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, known.run_id)
    done = {name for (name, _), row in rows.items() if row.status in (StageStatus.SUCCESS, StageStatus.SKIPPED)}
    if wanted not in {name for name, _ in rows}:
        raise UsageError(f"run {known.run_id} has not come to {wanted}", hint=f"ingestkit runs show {known.run_id}")
    stages = session.pipeline.stages
    behind = [one for one in stages if stages.index(one) > stages.index(wanted) and one in done]
    if Stage.DBT in stages and stages.index(Stage.DBT) > stages.index(wanted) and Stage.GATE in behind:
        # The pipeline may have come to it since.
        behind = [one for one in stages if one in behind or one is Stage.DBT]
    again = [wanted, *behind]
    check(session, lease, rebuilding=known.kind == "restore")
    if known.status is not RunStatus.OPEN:
        known = attempts.reopen(session, lease, known, wanted.value, redo=True)
    else:
        known = attempts.go_on(session, lease, known, wanted.value)
    models = _models_of(session, known, lease)
    with lease.transaction() as conn:
        stage_rows.put_back(conn, known.run_id, again, models, session.clock.now())
        runs.open_models(conn, known, models, lease.token, redo=True)
    assert known.batch is not None
    unit = landed_unit(session, known, models)
    if wanted is Stage.EXTRACT:
        unit = sight_anew(session, lease, known.batch, models, known.window)
    active = active_run(session, lease, known, unit, again=frozenset(again))
    results = work(active, again)
    left = _clean_left(active) if Stage.CLEAN in again else ()
    ended = ", ".join(one for one in again if one is not Stage.CLEAN or not left)
    told = f"{ended} of batch {known.batch} done again{', clean is left to the next run' if left else ''}"
    told += f" (run {known.run_id})"
    return Outcome(wanted.value, session.pipeline.name, "done", told, tuple(results), left, run_ids=(known.run_id,))


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
                hint=f"to go on with it: ingestkit {typed(Stage(command))} --run-id {known.run_id}",
            )
        case _:
            return attempts.reopen(session, lease, known, command)


def typed(stage: Stage) -> str:
    """The words by which a stage is called."""
    return "dbt build" if stage is Stage.DBT else stage.value


def _touched(session: Session, lease: Lease, known: Run, command: str) -> Run:
    now = session.clock.now()
    with lease.transaction() as conn:
        runs.update_run(conn, known.run_id, touched_at=now, last_command=command, token=lease.token)
    return replace(known, touched_at=now, last_command=command, token=lease.token)


def _refuse_before_predecessor(session: Session, known: Run, here: Sequence[str], wanted: Stage) -> None:
    """A stage before its predecessor is a mistake in the schedule, and says so."""
    stages = session.pipeline.stages
    before = stages[: stages.index(wanted)]
    with session.state.read() as conn:
        rows = stage_rows.of_run(conn, known.run_id)
    for one in before:
        for model in here if one in WORK else ("*",):
            row = rows.get((one, model))
            if row is None or row.status not in (StageStatus.SUCCESS, StageStatus.SKIPPED):
                what = f"{one} of {model}" if one in WORK else one.value
                raise UsageError(
                    f"{wanted} of run {known.run_id} comes after {what}, which is not done",
                    hint=f"ingestkit {typed(one)} {session.pipeline.name} --run-id {known.run_id}",
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
