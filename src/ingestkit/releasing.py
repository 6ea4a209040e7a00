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

REPLACED = "not at the source any more: another version took its place"


def release(session: Session, lease: Lease) -> None:
    """Let go of what is done with, in this run or an earlier one. What cannot be let go of is left to the next.

    A batch is done with when all its models are. What a command without their leases leaves, another one lets go of.
    """
    if session.pipeline.settings.source.after_success is None:
        return
    failed: dict[str, SourceError] = {}
    for batch in _done_with(session):
        session.stop.check()
        try:
            _let_go(session, lease, batch)
        except SourceError as error:
            failed[batch] = error
            if error.transient:
                break
    if failed:
        batch, first = next(iter(failed.items()))
        others = f" (and of {many(len(failed) - 1, 'other batch', 'other batches')})" if len(failed) > 1 else ""
        session.progress.warned(
            f"files of batch {batch}{others} that are done with stay at the source: {first.message}", hint=first.hint
        )


def _done_with(session: Session) -> Iterator[str]:
    """The batches in which something may be left to let go of; the source need not show them any more."""
    name = session.pipeline.name
    with session.state.read() as conn:
        left = ledger.batches_in_hand(conn, name)
        done = completions.done(conn, name)
        row = runs.pipeline_row(conn, name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, name)} | set(completions.unjudged(conn, name))
    floors = floors_of(session, row["floors"] if row else {}, done)
    for batch in sorted(left - at_work, key=session.pipeline.order):
        if all((batch, one) in done or is_below(session, batch, floors.get(one)) for one in session.pipeline.models):
            yield batch


def _let_go(session: Session, lease: Lease, batch: str) -> None:
    name = session.pipeline.name
    with session.state.read() as conn:
        known = ledger.versions(conn, name, [batch])
        gone = ledger.released(conn, name, batch)
    newest = ledger.latest(known)
    done = [one for one in ledger.in_hand(known) if one.id not in gone and one.model in lease.models]
    mine = {one.id for one in done} | gone
    told: list[tuple[FileVersion, str]] = []
    try:
        for one in session.source.release(done, {one.path for one in newest.values() if one.id not in mine}):
            told.append(one)
            session.stop.check()
        # What an older version was is over, but where an ended round has left it aside.
        here = {one.id for one, _ in told}
        told += [(one, REPLACED) for one in done if one.id not in here and one.version < newest[one.path].version]
    finally:
        if told:
            with lease.transaction() as conn:
                ledger.mark_released(conn, told, session.clock.now())
            steps.reached("release.recorded")
    for what, files in Counter(what.split(" to ")[0] for _, what in told).items():
        session.progress.said(f"{many(files, 'file', 'files')} of batch {batch} at the source: {what}")
