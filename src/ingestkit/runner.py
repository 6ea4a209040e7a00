"""The runner: batches × stages. Leases, order, continuation: which run is worked on, and when it is closed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ingestkit import attempts
from ingestkit.active import Active
from ingestkit.check import check, newest_done, refuse_missing_file
from ingestkit.cleaning import clean_behind
from ingestkit.discover import Found, discover
from ingestkit.errors import (
    IngestkitError,
    Interrupted,
    LeaseHeld,
    LeaseLost,
    StateError,
)
from ingestkit.files import shown
from ingestkit.mirroring import refuse_empty_state, show
from ingestkit.model import RunStatus, Stage, StageStatus
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.rebuilding import rebuild
from ingestkit.recover import recover, replay
from ingestkit.releasing import release
from ingestkit.reporting import many, named, outcome_of
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import runs, stage_rows
from ingestkit.states.lease import IfLocked, Lease, acquire_waiting, heartbeat
from ingestkit.states.owner import Owner
from ingestkit.states.runs import Run
from ingestkit.stepping import pass_missed
from ingestkit.windowing import begin
from ingestkit.working import RunOptions, active_run, after, finish_open, landed_unit, stale, work


def run(session: Session, options: RunOptions) -> Outcome:
    """Work through all waiting batches, oldest first."""
    try:
        return _run(session, options)
    except LeaseHeld as held:
        return locked(session, "run", options, held)


def flush(session: Session) -> Outcome:
    """Write what the pending queue holds for the pipeline into the state."""
    with holding(session, session.pipeline.models, "queue flush", "fail") as lease:
        written = replay(session, lease)
        show(session)
    return Outcome(
        "queue flush", session.pipeline.name, "done", f"{many(written, 'pending record', 'pending records')} written"
    )


def _run(session: Session, options: RunOptions) -> Outcome:
    with holding(session, session.pipeline.check_models(options.models), "run", options.if_locked) as lease:
        stopped = paused(session, "run")
        if stopped is not None:
            return stopped
        refuse_empty_state(session)
        recover(session, lease)
        results = rebuild(session, lease, options)
        failed = finish_cleaning(session, lease)
        results += finish_open(session, lease, options)
        found = waiting_units(session, lease, options)
        if not found.units:
            return nothing_new(session, lease, "run", found, results)
        check(session, lease, fetching=max(bytes_of(unit) for unit in found.units))
        for unit in found.units:
            with after(results):
                results.extend(work(_attempt(session, lease, unit, options), session.pipeline.stages))
        clean_again(session, lease, failed)
        if found.failure is not None:
            with after(results):
                raise found.failure
        return outcome_of(session, "run", found, results)


def locked(session: Session, command: str, options: RunOptions, held: LeaseHeld) -> Outcome:
    """`--if-locked skip`: somebody else is at it, and that is no failure."""
    if IfLocked.parse(options.if_locked).policy != "skip":
        raise held
    return Outcome(command, session.pipeline.name, "locked", held.message)


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


def paused(session: Session, command: str) -> Outcome | None:
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


def _attempt(session: Session, lease: Lease, unit: Unit, options: RunOptions) -> Active:
    """The run this unit is worked on in: under the caller's id its failed one again, else a new attempt."""
    if options.run_id is not None:
        with session.state.read() as conn:
            mine = runs.of_invocation(conn, session.pipeline.name, options.run_id)
        failed = [one for one in mine if one.batch == unit.batch and one.status is RunStatus.FAILED and not one.as_of]
        idle = [one for one in mine if one.status is RunStatus.SKIPPED]
        if idle:
            return active_run(session, lease, attempts.fill_skipped(session, lease, idle[0], unit), unit)
        if failed and set(failed[-1].models) == set(unit.models) and failed[-1].window == unit.window:
            return active_run(session, lease, attempts.reopen(session, lease, failed[-1], "run"), unit)
    elif (published := _to_be_judged(session, unit)) is not None:
        return active_run(session, lease, attempts.reopen(session, lease, published, "run"), unit)
    fresh = attempts.open_new(session, lease, unit, kind="run", command="run", invocation=options.run_id)
    return active_run(session, lease, fresh, unit)


def _to_be_judged(session: Session, unit: Unit) -> Run | None:
    """Where nothing is kept: the run that has published all this, and that only its gate has closed.

    Another attempt would read the files once more, and they may be gone.
    """
    if session.pipeline.keeps or unit.reason != "not judged" or any(unit.wanted.values()):
        return None
    with session.state.read() as conn:
        last = runs.last_attempt(conn, session.pipeline.name, unit.batch)
        rows = stage_rows.of_run(conn, last.run_id) if last is not None else {}
    done = (StageStatus.SUCCESS, StageStatus.SKIPPED)
    loaded = {model for (stage, model), row in rows.items() if stage is Stage.LOAD and row.status in done}
    if last is None or last.status is not RunStatus.FAILED or set(last.models) != set(unit.models):
        return None
    return last if loaded >= set(unit.models) else None


def finish_cleaning(session: Session, lease: Lease) -> list[Run]:
    """Tidy behind runs that died between gate and clean. Those whose clean failed wait for other work, and are told."""
    with session.state.read() as conn:
        died, failed = (
            [one for one in some if set(one.models) <= set(lease.models)]
            for some in runs.uncleaned(conn, session.pipeline.name)
        )
    if died and may_clean(session, lease):
        clean_again(session, lease, died)
    return failed


def may_clean(session: Session, lease: Lease) -> bool:
    """A state that was put back does not know what the lake needs, and is refused; what else is wrong can wait."""
    try:
        check(session, lease, from_lake=True)
    except (StateError, LeaseLost, Interrupted):
        raise
    except IngestkitError as error:
        session.progress.warned(f"what earlier runs left in the lake stays until the next run: {error.message}")
        return False
    return True


def clean_again(session: Session, lease: Lease, left: Sequence[Run]) -> None:
    for one in left:
        if not clean_behind(active_run(session, lease, one, landed_unit(session, one, one.models))):
            return


def waiting_units(session: Session, lease: Lease, options: RunOptions) -> Found:
    found = discover(session, lease, only=options.batch, limit=options.limit, waits_quiet=options.waits_quiet)
    if found.failure is not None and not found.units:
        raise found.failure
    if found.units or found.missed is not None:
        begin(session, lease)
    if found.missed is not None:
        check(session, lease)
        pass_missed(session, lease, found.missed)
    _tell(session, found)
    return found


def _tell(session: Session, found: Found) -> None:
    """What was found beside the work."""
    if found.ahead:
        name, first, last = session.pipeline.name, found.ahead[0], found.ahead[-1]
        session.progress.warned(
            f"{many(len(found.ahead), 'window', 'windows')} up to {last} count as done and have not ended: a clock was "
            "ahead, and what comes into windows up to there may come too late to be looked for",
            hint=f"when they have ended: ingestkit backfill {name} --from {first}; if models begin behind {last}: "
            f"ingestkit state set {name} --batch K --reason '...', with the last one that was really done",
        )
    policy = session.pipeline.settings.source.late
    for late in found.late:
        told = f"batch {late} came after newer ones were done and is not loaded (source.late: {policy})"
        hint = f"set source.late: load, or: ingestkit skip {session.pipeline.name} --batch {late} --reason '...'"
        session.progress.warned(told, hint=hint)
        session.notice("late", late, told, hint)
    if session.pipeline.settings.source.batches.holes == "step_over":
        for batch, hole in found.holes.items():
            told = f"{hole} has not come before batch {batch}, and is stepped over (batches.holes)"
            session.progress.warned(told)
            session.notice("missing", f"before {batch}", told)
    if found.strays:
        strays, verb = named([shown(one) for one in found.strays]), "is" if len(found.strays) == 1 else "are"
        session.progress.warned(
            f"{strays} in the source {verb} of no batch",
            hint="let source.batches match what is one, and source.ignore what need not be looked at",
        )
    for path in found.unmapped:
        session.progress.warned(f"{path} belongs to no model and is kept in quarantine")
    for batch, why in found.waiting.items():
        session.progress.said(f"batch {batch} waits: {why}")


def bytes_of(unit: Unit) -> int:
    """How much is to be fetched for a unit."""
    return sum(item.size for pairs in (*unit.wanted.values(), unit.unmapped) for _, item in pairs)


def nothing_new(session: Session, lease: Lease, command: str, found: Found, results: list[ModelResult]) -> Outcome:
    """Nothing is waiting: done without asking the warehouse more than whether its file is there."""
    refuse_missing_file(session, newest_done(session, lease.models))
    release(session, lease)
    show(session)
    if results:
        return outcome_of(session, command, found, results)
    name = session.pipeline.name
    warnings = stale(session)
    if found.waiting:
        batch, why = next(iter(found.waiting.items()))
        return Outcome(command, name, "waiting", f"batch {batch} waits: {why}", warnings=warnings)
    at = f"; the last batch done is {found.checkpoint}" if found.checkpoint else ""
    return Outcome(command, name, "nothing new", f"nothing new for {name}{at}", warnings=warnings)
