"""A run of one batch: opened or gone on with, worked through its stages, closed when it fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ingestkit import attempts, metering, steps
from ingestkit.active import FROM_LAKE, Active, usual_rows
from ingestkit.attempts import refuse_busy
from ingestkit.check import check
from ingestkit.errors import (
    Busy,
    ContractError,
    Fenced,
    GateClosed,
    IngestkitError,
    Interrupted,
    LeaseLost,
    SourceError,
    StateError,
)
from ingestkit.keeping import with_their_input
from ingestkit.mirroring import show
from ingestkit.model import FileStatus, RunStatus, Stage, Verdict
from ingestkit.outcome import ModelResult
from ingestkit.phases import do_stage
from ingestkit.releasing import release
from ingestkit.reporting import results_of
from ingestkit.session import Session
from ingestkit.sighting import Unit, one_batch
from ingestkit.states import ledger, runs
from ingestkit.states.lease import Lease
from ingestkit.states.runs import Run


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
    since: str | None = None
    until: str | None = None
    """A backfill's range of batches, half-open."""
    resume: bool = False
    as_of: datetime | None = None
    """A backfill takes the files that the ledger knew then."""
    reason: str = ""
    by: str = ""
    waits_quiet: bool = True
    """Whether files that have not settled are waited for; who looks again soon does not."""


def as_kept(session: Session, known: Run) -> Session:
    """Stages of an open run use the configuration kept in its row."""
    if known.status is not RunStatus.OPEN or known.config_hash == session.config_hash:
        return session
    return session.reopen(known.config)


def work(active: Active, stages: Sequence[Stage]) -> list[ModelResult]:
    """Do these stages of a run; a failure closes the run, an interruption leaves it open for the next command."""
    with metering.worked_on(active):
        return _work(active, stages)


def _work(active: Active, stages: Sequence[Stage]) -> list[ModelResult]:
    try:
        for one in with_their_input(active, stages):
            active.session.stop.check()
            do_stage(active, one)
    except (LeaseLost, Fenced, Interrupted, Busy, StateError):
        raise
    except IngestkitError as error:
        verdict = Verdict.FAILED if isinstance(error, (GateClosed, ContractError)) else None
        attempts.fail(active.session, active.lease, active.run, error.message, error.exit_code, verdict=verdict)
        stale(active.session)
        show(active.session)
        error.results = tuple(results_of(active.session, active.run, active.models, one))
        raise
    finally:
        active.session.lake.store.let_go()
    steps.reached("run.done")
    if stages[-1] is Stage.CLEAN and active.run.kind not in FROM_LAKE:
        release(active.session, active.lease)
    show(active.session)
    active.session.tell_now()
    return results_of(active.session, active.run, active.models, stages[-1])


"""Kinds of runs that ask no source: of a target built again, of one batch now or then, of what was rejected of it."""


def finish_open(
    session: Session, lease: Lease, options: RunOptions, *, kinds: Sequence[str] | None = None
) -> list[ModelResult]:
    """Go on with the open runs of the models at hand, oldest first, before anything new; of these kinds, or of all."""
    with session.state.read() as conn:
        waiting = runs.open_runs(conn, session.pipeline.name)
    results: list[ModelResult] = []
    for run_, models in waiting:
        left = models - set(session.pipeline.models)
        if left:
            with lease.transaction() as conn:
                runs.take_models(conn, run_, left, "the pipeline, which has them no more", session.clock.now())
        held = tuple(sorted(models & set(lease.models)))
        if not held or run_.batch is None or (kinds is not None and run_.kind not in kinds):
            continue
        if run_.run_id != options.run_id:
            refuse_busy(session, run_, take_over=options.take_over)
        ours = run_.config_hash == session.config_hash
        taken = options.take_over or set(held) != models - left
        at_hand = session if ours or taken else session.reopen(run_.config)
        check(at_hand, lease, from_lake=run_.kind in FROM_LAKE, rebuilding=run_.kind == "restore")
        unit = open_unit(at_hand, lease, run_, held)
        if unit is None:
            continue
        if taken:
            again = attempts.open_new(at_hand, lease, unit, kind=run_.kind, command="run", as_of=run_.as_of)
        else:
            again = attempts.go_on(at_hand, lease, run_, "run")
        with after(results):
            results.extend(work(active_run(at_hand, lease, again, unit), at_hand.pipeline.stages))
    return results


@contextmanager
def after(results: Sequence[ModelResult]) -> Iterator[None]:
    """A failure tells what was done before it, too."""
    try:
        yield
    except IngestkitError as error:
        error.results = (*results, *error.results)
        raise


def open_unit(session: Session, lease: Lease, run_: Run, models: tuple[str, ...]) -> Unit | None:
    """What is left to do for an open run, or None where its batch must wait."""
    assert run_.batch is not None
    if run_.kind in FROM_LAKE:
        return Unit(run_.batch, models, run_.kind, window=run_.window)
    unit, blocked = one_batch(session, lease, run_.batch, models, run_.window)
    if unit is not None:
        return unit
    with session.state.read() as conn:
        known = ledger.versions(conn, session.pipeline.name, [run_.batch])
    unfetched = [one.path for one in ledger.latest(known).values() if one.status is FileStatus.SEEN]
    if any(one.sha256 for one in known) and not unfetched:
        session.progress.warned(f"{blocked}; run {run_.run_id} goes on with what had landed")
        return Unit(run_.batch, models, run_.kind, window=run_.window)
    if blocked and "no batch" in blocked:
        raise SourceError(
            f"run {run_.run_id} cannot go on: {blocked}, and {len(unfetched)} of its files had not landed",
            hint=f"put the folder back, or: ingestkit skip {run_.pipeline} --batch {run_.batch} --reason '...'",
        )
    session.progress.said(f"batch {run_.batch} waits: {blocked}")
    return None


def active_run(
    session: Session, lease: Lease, run_: Run, unit: Unit, *, again: frozenset[Stage] = frozenset()
) -> Active:
    usual = usual_rows(session, unit.batch)
    return Active(session, lease, run_, unit.models, unit, again=again, usual_rows=usual)


def landed_unit(session: Session, known: Run, models: tuple[str, ...]) -> Unit:
    """The batch as it landed: stages behind extract ask the source nothing."""
    assert known.batch is not None
    with session.state.read() as conn:
        files = ledger.versions(conn, session.pipeline.name, [known.batch])
    empty = not any(one.model for one in files)
    return Unit(known.batch, models, known.kind, empty=empty, window=known.window)


def stale(session: Session) -> tuple[str, ...]:
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
