"""A target built again from the lake: which models are marked for it, and what of them is published once more."""

from collections.abc import Sequence

from ingestkit import attempts, steps
from ingestkit.check import check, lacking, tables_gone
from ingestkit.model import Fence
from ingestkit.outcome import ModelResult
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import runs
from ingestkit.states.lease import Lease
from ingestkit.states.stage_rows import ALL_STAGES
from ingestkit.working import RunOptions, active_run, finish_open, work


def marked(session: Session, models: Sequence[str]) -> tuple[str, ...]:
    """Which of these models are to be built again. The mark outlives whoever began to."""
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    return tuple(model for model in (row["rebuild"] if row else None) or () if model in models)


def mark(session: Session, lease: Lease) -> None:
    """Write down what the target lacks, of all models, before anything makes it look whole."""
    models = session.pipeline.models
    receipts = session.warehouse.receipts(session.pipeline.name)
    lacks = lacking(session, models, receipts, tables_gone(session, models))
    wanted = sorted({*lacks, *marked(session, models)})
    if wanted:
        with lease.transaction() as conn:
            runs.update_pipeline(conn, session.pipeline.name, rebuild=wanted)
    steps.reached("rebuild.marked")


def rebuild(session: Session, lease: Lease, options: RunOptions) -> list[ModelResult]:
    """Publish again what the target lacks of the marked models at hand, oldest first; then take the mark off."""
    models = marked(session, lease.models)
    if not models:
        return []
    check(session, lease, rebuilding=True)
    results = finish_open(session, lease, options, kinds=("restore",))
    name = session.pipeline.name
    for model in sorted(tables_gone(session, models)):
        session.warehouse.void(Fence(name, model, lease.state_id, lease.token, session.pipeline.table(model)))
    steps.reached("rebuild.voided")
    lacks = lacking(session, models, session.warehouse.receipts(name), ())
    for batch in sorted({batch for batches in lacks.values() for batch in batches}, key=session.pipeline.order):
        here = tuple(sorted(model for model, batches in lacks.items() if batch in batches))
        fresh = attempts.open_new(session, lease, batch, here, kind="restore", command="run")
        results.extend(work(active_run(session, lease, fresh, Unit(batch, here, "restore")), ALL_STAGES))
    with lease.transaction() as conn:
        row = runs.pipeline_row(conn, name)
        left = [model for model in (row["rebuild"] if row else None) or () if model not in models]
        runs.update_pipeline(conn, name, rebuild=left or None)
    return results
