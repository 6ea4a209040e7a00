"""A target built again from the lake: which models are marked for it, and what of them is published once more."""

from collections.abc import Mapping, Sequence

from ingestkit import attempts, steps
from ingestkit.check import check, lacking, tables_gone
from ingestkit.model import Fence, LoadMode
from ingestkit.outcome import ModelResult
from ingestkit.reporting import many
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import completions, runs
from ingestkit.states.lease import Lease
from ingestkit.states.stage_rows import ALL_STAGES
from ingestkit.windowing import window_of
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
    with session.state.read() as conn:
        # What a person has put back is put back again.
        pins = completions.pins(conn, name)
        published = completions.published(conn, name, models)
        behind = {
            (model, batch): completions.left_behind(conn, name, batch, model)
            for model, batches in lacks.items()
            for batch in batches
        }
    _tell_left_behind(session, behind)
    pinned = {(one.batch, one.model): one.as_of for one in pins}
    for one in pins:
        done = published.get((one.batch, one.model))
        snapshot = done is not None and done.mode is LoadMode.REPLACE
        if snapshot and one.batch not in lacks.get(one.model, [one.batch]):
            newest = max(lacks[one.model], key=session.pipeline.order)
            session.progress.warned(f"{one.model} stood as batch {one.batch} was; it is built again as of {newest}")
    for batch in sorted({batch for batches in lacks.values() for batch in batches}, key=session.pipeline.order):
        here = sorted(model for model, batches in lacks.items() if batch in batches)
        for as_of in sorted({pinned.get((batch, model)) for model in here}, key=str):
            alike = tuple(model for model in here if pinned.get((batch, model)) == as_of)
            unit = Unit(batch, alike, "restore", window=window_of(session, batch))
            fresh = attempts.open_new(session, lease, unit, kind="restore", command="run", as_of=as_of)
            results.extend(work(active_run(session, lease, fresh, unit), ALL_STAGES))
    with lease.transaction() as conn:
        row = runs.pipeline_row(conn, name)
        left = [model for model in (row["rebuild"] if row else None) or () if model not in models]
        runs.update_pipeline(conn, name, rebuild=left or None)
    return results


def _tell_left_behind(session: Session, behind: Mapping[tuple[str, str], int | None]) -> None:
    """Keys that a restated batch no longer held stayed in the target; what it holds now does not bring them back."""
    for (model, batch), keys in behind.items():
        if keys == 0:
            continue
        what = many(keys, "key", "keys") if keys is not None else "an unknown number of keys"
        session.progress.warned(
            f"{model}: batch {batch} left {what} in the target when it was restated; built again, it has none of them",
            hint="the versions that held them, if they are wanted: "
            f"ingestkit manifest show {session.pipeline.name} --batch {batch}",
        )
