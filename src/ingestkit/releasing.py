"""Files at the source that are done with are let go of: last of all, under the lease, and told in the ledger."""

from collections import Counter
from collections.abc import Iterator

from ingestkit import steps
from ingestkit.discover import floors_of, is_below
from ingestkit.errors import SourceError
from ingestkit.model import FileVersion
from ingestkit.reporting import many
from ingestkit.session import Session
from ingestkit.states import completions, ledger, runs
from ingestkit.states.lease import Lease
from ingestkit.windowing import batches


def release(session: Session, lease: Lease) -> None:
    """Let go of what is done with and still at the source, in this run or an earlier one. What fails is for the next.

    A batch is done with when all its models are. What a command without their leases leaves, another one lets go of.
    """
    if session.pipeline.settings.source.after_success is None:
        return
    try:
        for batch in _done_with(session):
            session.stop.check()
            _let_go(session, lease, batch)
    except SourceError as error:
        session.progress.warned(f"files that are done with stay at the source: {error.message}", hint=error.hint)


def _done_with(session: Session) -> Iterator[str]:
    name = session.pipeline.name
    with session.state.read() as conn:
        left = ledger.batches_in_hand(conn, name)
        done = completions.done(conn, name)
        row = runs.pipeline_row(conn, name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, name)} | set(completions.unjudged(conn, name))
    floors = floors_of(session, row["floors"] if row else {}, done)
    there = batches(session) if left - at_work else {}
    for batch in there:
        is_done = all(
            (batch, one) in done or is_below(session, batch, floors.get(one)) for one in session.pipeline.models
        )
        if is_done and batch in left - at_work:
            yield batch


def _let_go(session: Session, lease: Lease, batch: str) -> None:
    name = session.pipeline.name
    with session.state.read() as conn:
        newest = ledger.latest(ledger.versions(conn, name, [batch])).values()
        gone = ledger.released(conn, name, batch)
    here = [one for one in newest if one.id not in gone]
    done = [one for one in here if ledger.is_in_hand(one) and one.model in lease.models]
    told: list[tuple[FileVersion, str]] = []
    try:
        for one in session.source.release(done, {one.path for one in here} - {one.path for one in done}):
            told.append(one)
            session.stop.check()
    finally:
        if told:
            with lease.transaction() as conn:
                ledger.mark_released(conn, told, session.clock.now())
            steps.reached("release.recorded")
    for what, files in Counter(what.split(" to ")[0] for _, what in told).items():
        session.progress.said(f"{many(files, 'file', 'files')} of batch {batch} at the source: {what}")
