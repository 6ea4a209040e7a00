"""A target built again from the lake: which models are marked for it, and what of them is published once more."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ingestkit import attempts, steps
from ingestkit.check import check, lacking, refuse_of_another_state, tables_gone
from ingestkit.model import Fence, LoadMode, Receipt
from ingestkit.outcome import ModelResult
from ingestkit.reporting import many
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import completions, ledger, runs
from ingestkit.states.completions import Pin
from ingestkit.states.lease import Lease
from ingestkit.windowing import window_of
from ingestkit.working import RunOptions, active_run, finish_open, work


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a target lacks, by model, batches oldest first."""

    lacks: Mapping[str, Sequence[str]]
    bare: Mapping[str, Sequence[str]]
    """What it cannot be given, since all files of it were forgotten: what came before stands in its place."""


NOTHING = Wanted({}, {})


def marked(session: Session, models: Sequence[str]) -> tuple[str, ...]:
    """Which of these models are to be built again. The mark outlives whoever began to."""
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    return tuple(model for model in (row["rebuild"] if row else None) or () if model in models)


def mark(session: Session, lease: Lease) -> None:
    """Write down what the target lacks, of all models, before anything makes it look whole."""
    models = session.pipeline.models
    refuse_of_another_state(session)
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
    with session.state.read() as conn:
        # What a person has put back is put back again.
        pins = completions.pins(conn, name, session.pipeline.order)
    pinned = {(one.batch, one.model): one.as_of for one in pins}
    before: Wanted | None = None
    # What turns out to hold no row leaves its place to what was before it.
    while (wanted := wanted_of(session, models, session.warehouse.receipts(name), (), pinned)) not in (before, NOTHING):
        before = wanted
        _tell_given_up(session, wanted.bare)
        results.extend(_again(session, lease, wanted.bare, pinned))
        _tell_left_behind(session, wanted.lacks)
        _tell_pins_passed(session, wanted.lacks, pins)
        results.extend(_again(session, lease, wanted.lacks, pinned))
    _tell_let_go(session, models)
    with lease.transaction() as conn:
        row = runs.pipeline_row(conn, name)
        left = [model for model in (row["rebuild"] if row else None) or () if model not in models]
        runs.update_pipeline(conn, name, rebuild=left or None)
    return results


def wanted_of(
    session: Session,
    models: Sequence[str],
    receipts: Sequence[Receipt],
    gone: Collection[str],
    pinned: Collection[tuple[str, str]] = (),
) -> Wanted:
    """What the target lacks, told from what of it nothing can be made: all its files were forgotten."""
    bare: set[tuple[str, str]] = set()
    while True:
        lacks = lacking(session, models, receipts, gone, but=bare)
        batches = sorted({batch for some in lacks.values() for batch in some})
        with session.state.read() as conn:
            files = ledger.versions(conn, session.pipeline.name, batches)
        by_batch = {batch: [file for file in files if file.batch == batch] for batch in batches}
        more = {
            (batch, model)
            for model, some in lacks.items()
            for batch in some
            if (batch, model) not in pinned and not ledger.candidates(by_batch[batch], model)
        }
        if not more:
            return Wanted(lacks, _by_model(bare))
        bare |= more


def _by_model(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for batch, model in sorted(keys):
        found.setdefault(model, []).append(batch)
    return found


def _again(
    session: Session, lease: Lease, chosen: Mapping[str, Sequence[str]], pinned: Mapping[tuple[str, str], datetime]
) -> list[ModelResult]:
    """A run of its own for each of these batches, oldest first."""
    results: list[ModelResult] = []
    for batch in sorted({batch for batches in chosen.values() for batch in batches}, key=session.pipeline.order):
        here = sorted(model for model, batches in chosen.items() if batch in batches)
        for as_of in sorted({pinned.get((batch, model)) for model in here}, key=str):
            alike = tuple(model for model in here if pinned.get((batch, model)) == as_of)
            unit = Unit(batch, alike, "restore", window=window_of(session, batch))
            fresh = attempts.open_new(session, lease, unit, kind="restore", command="run", as_of=as_of)
            results.extend(work(active_run(session, lease, fresh, unit), session.pipeline.stages))
    return results


def _tell_given_up(session: Session, bare: Mapping[str, Sequence[str]]) -> None:
    for model, batches in bare.items():
        for batch in batches:
            session.progress.warned(
                f"{model}: all files of batch {batch} were forgotten; it is not built again",
                hint="what it held, if it is wanted: "
                f"ingestkit backfill {session.pipeline.name} --batch {batch} --as-of TIME --reason '...'",
            )


def _tell_let_go(session: Session, models: Sequence[str]) -> None:
    """What was done before a reset, and was not done since, nobody builds again, whatever the lake holds of it."""
    name, order = session.pipeline.name, session.pipeline.order
    receipts = session.warehouse.receipts(name)
    with session.state.read() as conn:
        before, unjudged = completions.not_completed(conn, name), completions.unjudged(conn, name)
    for batch in sorted(before, key=order):
        for model in sorted(before[batch] & set(models) - unjudged.get(batch, set())):
            mine = [one for one in receipts if one.model == model]
            over = [one for one in mine if one.mode is LoadMode.REPLACE and order(one.batch) > order(batch)]
            if over or any(one.batch == batch for one in mine):
                continue
            with session.state.read() as conn:
                at = ledger.forgotten_at(conn, name, batch, model)
            again = f"ingestkit backfill {name} --batch {shlex.quote(batch)} --model {model}"
            session.progress.warned(
                f"{model}: batch {batch} was done before the state was reset, and not since; it is not built again",
                hint=f"what it held, if it is wanted: {again} --as-of {at.isoformat()} --reason '...'"
                if at is not None and session.pipeline.keeps
                else "what it held is not in the target: have it delivered again, if it is wanted",
            )


def _tell_pins_passed(session: Session, lacks: Mapping[str, Sequence[str]], pins: Iterable[Pin]) -> None:
    """A snapshot that was put back over newer ones is not what the target is built from."""
    with session.state.read() as conn:
        published = completions.published(conn, session.pipeline.name, list(lacks))
    for one in pins:
        done = published.get((one.batch, one.model))
        snapshot = done is not None and done.mode is LoadMode.REPLACE
        if snapshot and one.batch not in lacks.get(one.model, [one.batch]):
            newest = max(lacks[one.model], key=session.pipeline.order)
            session.progress.warned(f"{one.model} stood as batch {one.batch} was; it is built again as of {newest}")


def _tell_left_behind(session: Session, lacks: Mapping[str, Sequence[str]]) -> None:
    """Keys that a restated batch no longer held stayed in the target; what it holds now does not bring them back."""
    name = session.pipeline.name
    with session.state.read() as conn:
        behind = {
            (model, batch): completions.left_behind(conn, name, batch, model)
            for model, batches in lacks.items()
            for batch in batches
        }
    for (model, batch), keys in behind.items():
        if keys == 0:
            continue
        what = many(keys, "key", "keys") if keys is not None else "an unknown number of keys"
        session.progress.warned(
            f"{model}: batch {batch} left {what} in the target when it was restated; built again, it has none of them",
            hint="the versions that held them, if they are wanted: "
            f"ingestkit manifest show {session.pipeline.name} --batch {batch}",
        )
