"""Done batches done again: by the rule of old work after new, or from the lake where the target lacks them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ingestkit import attempts
from ingestkit.active import FROM_LAKE
from ingestkit.check import check
from ingestkit.decide import pinned
from ingestkit.discover import Found, batch_key, is_below
from ingestkit.errors import LakeError, SourceError, UsageError
from ingestkit.mirroring import refuse_empty_state
from ingestkit.model import ArtifactKind, CompletionStatus, LoadMode
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.rebuilding import mark, rebuild
from ingestkit.recover import recover
from ingestkit.reporting import outcome_of
from ingestkit.runner import holding, paused
from ingestkit.session import Session
from ingestkit.sighting import Unit, one_batch, sight_anew
from ingestkit.stages.standing import newer_content, newer_than, stands_alone
from ingestkit.stages.tables import out_of_order
from ingestkit.states import completions, ledger, runs
from ingestkit.states.lease import Lease
from ingestkit.windowing import batches, ended, no_window, shows, window_of
from ingestkit.working import RunOptions, active_run, finish_open, work


def backfill(session: Session, options: RunOptions) -> Outcome:
    """Do a done batch again, or build the target again from the lake, by the rule of old work after new."""
    refuse_what_is_not_kept(session, options)
    with holding(session, session.pipeline.check_models(options.models), "backfill", options.if_locked) as lease:
        stopped = paused(session, "backfill")
        if stopped is not None and stopped.status == "paused":
            return stopped
        refuse_empty_state(session)
        recover(session, lease)
        if options.from_lake and options.batch is None and options.run_id is None:
            mark(session, lease)
            results = rebuild(session, lease, options)
            results += finish_open(session, lease, options)
            return outcome_of(session, "backfill", Found(), results)
        results = finish_open(session, lease, options)
        check(session, lease, from_lake=asks_no_source(options))
        batch = batch_of(session, options)
        models = done_models(session, lease, batch, options)
        refuse_superseded(session, batch, models, options)
        refuse_behind(session, batch, models)
        models = known_then(session, batch, models, options)
        if not models:
            assert options.as_of is not None
            raise UsageError(
                f"the ledger knew no file of batch {batch} at {options.as_of:%Y-%m-%d %H:%M:%S}Z",
                hint=f"ingestkit manifest show {session.pipeline.name} --batch {batch}",
            )
        results += redone(session, lease, batch, models, options)
        return outcome_of(session, "backfill", Found(), results)


def redone(
    session: Session,
    lease: Lease,
    batch: str,
    models: tuple[str, ...],
    options: RunOptions,
    invocation: str | None = None,
) -> list[ModelResult]:
    """One batch done again, in a run of its own."""
    kind = kind_of(options)
    unit = redo_unit(session, lease, batch, models, kind)
    if options.as_of is not None:
        _refuse_gone(session, batch, models, options.as_of)
        subject = {"batch": batch, "models": list(models), "as_of": options.as_of.isoformat()}
        pinned(session, lease, subject, options.reason, options.by)
    fresh = attempts.open_new(
        session, lease, unit, kind=kind, command="run", invocation=invocation, as_of=options.as_of
    )
    return work(active_run(session, lease, fresh, unit), session.pipeline.stages)


def refuse_what_is_not_kept(session: Session, options: RunOptions) -> None:
    """A pipeline that keeps nothing can do nothing from the lake."""
    if session.pipeline.keeps or not asks_no_source(options):
        return
    name = session.pipeline.name
    what = "--from-lake" if options.from_lake else "--as-of"
    again = session.pipeline.done_again(options.batch or "K")
    if options.from_lake and options.batch is None and options.run_id is None and options.since is None:
        again = f"ingestkit state reset {name} --reason '...', then: ingestkit run {name}"
    raise UsageError(
        f"{what} takes files from the lake, and {name} keeps none of them there (keep: none)",
        hint=f"from what the source still holds: {again}",
    )


def behind(session: Session, batch: str, models: Sequence[str]) -> dict[str, str]:
    """The models whose changes cannot be put behind a newer batch's, each with that.

    Its rows are not kept, or it is an archive of many tables: those are changed in order.
    """
    if session.pipeline.many:
        return _spoken_since(session, batch, models)
    if session.pipeline.keeps:
        return {}
    pipeline, receipts = session.pipeline, session.warehouse.receipts(session.pipeline.name)
    found = {}
    with session.state.read() as conn:
        files = ledger.versions(conn, pipeline.name, [batch])
        for model in models:
            mode = pipeline.mode(model, ledger.candidates(files, model))
            over = mode is LoadMode.REPLACE and stands_alone(pipeline, batch, model, mode, receipts)
            if over or mode not in (LoadMode.MERGE, LoadMode.REPLACE):
                continue
            newer = [one.batch for one in newer_than(pipeline, batch, model, receipts) if one.counts.staged]
            made = ledger.artifacts(conn, pipeline.name, newer, [model], [ArtifactKind.VALID])
            held = {one.batch for one in made if one.status == "published" and session.lake.holds(one.path, one.bytes)}
            if gone := [one for one in newer if one not in held]:
                found[model] = max(gone, key=pipeline.order)
    return found


def _spoken_since(session: Session, batch: str, models: Sequence[str]) -> dict[str, str]:
    pipeline = session.pipeline
    with session.state.read() as conn:
        files = ledger.versions(conn, pipeline.name, [batch])
        newest = completions.newest_after(conn, pipeline.name, batch, pipeline.order)
    modes = {model: pipeline.mode(model, ledger.candidates(files, model)) for model in models}
    return {model: newest for model, mode in modes.items() if newest is not None and mode is not LoadMode.APPEND}


def refuse_behind(session: Session, batch: str, models: Sequence[str]) -> None:
    stands = behind(session, batch, models)
    if stands and session.pipeline.many:
        raise out_of_order(session.pipeline.name, batch, max(stands.values(), key=session.pipeline.order))
    if stands:
        told = ", ".join(f"{by} ({model})" for model, by in sorted(stands.items()))
        left = [model for model in models if model not in stands]
        again = f"ingestkit backfill {session.pipeline.name} --batch {batch} --model {' --model '.join(left)}"
        raise UsageError(
            f"batch {batch} cannot be merged again behind {told}, whose rows are not kept (keep: none)",
            hint=again if left else f"what came after it: ingestkit runs list {session.pipeline.name}",
        )


def asks_no_source(options: RunOptions) -> bool:
    return options.from_lake or options.as_of is not None


def kind_of(options: RunOptions) -> str:
    if options.as_of is not None:
        return "as_of"
    return "from_lake" if options.from_lake else "backfill"


def batch_of(session: Session, options: RunOptions) -> str:
    """The batch a command is asked to do again, by its key or by a run of it."""
    if options.batch is not None:
        return batch_key(session, options.batch)
    run_id = options.run_id
    if run_id is None:
        raise UsageError("which batch?", hint="--run-id R, --batch K, or --from-lake for all that the target needs")
    batch = attempts.find(session, run_id).batch
    if batch is None:
        raise UsageError(f"run {run_id} found nothing waiting: it has no batch to do again")
    return batch


def done_models(session: Session, lease: Lease, batch: str, options: RunOptions) -> tuple[str, ...]:
    """The models of a done batch that a backfill does again: those of the run named, or all that were done."""
    with session.state.read() as conn:
        done = completions.whole(conn, session.pipeline.name, batch)
        before = completions.not_completed(conn, session.pipeline.name).get(batch, set())
    wanted = lease.models
    if options.run_id is not None:
        wanted = tuple(model for model in attempts.find(session, options.run_id).models if model in lease.models)
    # What was done before a reset can be put back as it was.
    back = before if options.as_of is not None else set()
    undone = [model for model in wanted if (batch, model) not in done and model not in back]
    if (
        not done
        and not back
        and session.pipeline.settings.source.batches.window is not None
        and batch not in batches(session)
    ):
        raise no_window(session, batch)
    if undone and not _stepped_over(session, batch, undone):
        raise UsageError(
            f"batch {batch} is not done for {', '.join(undone)}: there is nothing to do again",
            hint=f"it was done before a reset: {_put_back(session, batch)}"
            if before and session.pipeline.keeps and not shows(session, batch)
            else f"ingestkit run {session.pipeline.name}",
        )
    return tuple(wanted)


def _put_back(session: Session, batch: str) -> str:
    return f"ingestkit backfill {session.pipeline.name} --batch {shlex.quote(batch)} --as-of TIME --reason '...'"


def _stepped_over(session: Session, batch: str, models: Sequence[str]) -> bool:
    """Whether these models begin after a batch that there is: it may be wanted after all."""
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    floors: Mapping[str, str | None] = row["floors"] if row else {}
    below = all(is_below(session, batch, floors.get(model)) for model in models)
    return below and shows(session, batch)


def known_then(session: Session, batch: str, models: Sequence[str], options: RunOptions) -> tuple[str, ...]:
    """The models of which the ledger knew files then; with no instant named, all of them."""
    if options.as_of is None:
        return tuple(models)
    with session.state.read() as conn:
        files = ledger.versions_at(conn, session.pipeline.name, batch, options.as_of)
    return tuple(model for model in models if ledger.candidates(files, model))


def _refuse_gone(session: Session, batch: str, models: Sequence[str], as_of: datetime) -> None:
    """What was known then can be published again only from the lake, and only whole."""
    with session.state.read() as conn:
        files = ledger.versions_at(conn, session.pipeline.name, batch, as_of)
    for model in models:
        for file in ledger.candidates(files, model):
            if file.raw is None or not session.lake.holds(file.raw, file.size):
                raise LakeError(
                    f"batch {batch} cannot be done as of {as_of:%Y-%m-%d %H:%M:%S}Z: the raw object of {file.path} "
                    f"(version {file.version}) is no longer in the lake",
                    hint=f"ingestkit manifest show {session.pipeline.name} --batch {batch}",
                )


def superseded(
    session: Session, batch: str, models: Sequence[str], options: RunOptions | None = None
) -> dict[str, str]:
    """The models of which a newer batch has said all there is to say, each with that batch.

    With an instant named, a snapshot is put back on purpose, whatever came after it.
    """
    receipts = session.warehouse.receipts(session.pipeline.name)
    back = options is not None and options.as_of is not None
    with session.state.read() as conn:
        files = ledger.versions(conn, session.pipeline.name, [batch])
    modes = {model: session.pipeline.mode(model, ledger.candidates(files, model)) for model in models}
    return {
        model: by
        for model, mode in modes.items()
        if not (back and stands_alone(session.pipeline, batch, model, mode, receipts))
        and (by := newer_content(session.pipeline, batch, model, mode, receipts))
    }


def refuse_superseded(session: Session, batch: str, models: Sequence[str], options: RunOptions | None = None) -> None:
    """A person who asks for old content is told that newer content stands; `run` only notes it."""
    stands = superseded(session, batch, models, options)
    if not stands:
        return
    left = [model for model in models if model not in stands]
    raise UsageError(
        f"batch {batch} is superseded by "
        + ", ".join(f"{by} ({model})" for model, by in sorted(stands.items()))
        + ": what the newer batch said stands",
        hint=_instead(session, batch, left, stands, from_lake=options is not None and options.from_lake),
    )


def _instead(session: Session, batch: str, left: Sequence[str], stands: Iterable[str], *, from_lake: bool) -> str:
    again = f"ingestkit backfill {session.pipeline.name} --batch {batch}"
    if left:
        return f"{again} --model {' --model '.join(left)}{' --from-lake' if from_lake else ''}"
    settings = [session.pipeline.model(model) for model in stands]
    if any(one.load is LoadMode.REPLACE and not one.takes_changes for one in settings):
        return f"to put it back on purpose: {again} --as-of TIME --reason '...'"
    return f"what came after it: ingestkit runs list {session.pipeline.name}"


def redo_unit(session: Session, lease: Lease, batch: str, models: tuple[str, ...], kind: str) -> Unit:
    window = window_of(session, batch)
    if kind in FROM_LAKE:
        return Unit(batch, models, kind, window=window)
    with session.state.read() as conn:
        done = {key: one for key, (one, _) in completions.whole(conn, session.pipeline.name, batch).items()}
    if not done:
        window = ended(session, batch)
    skipped = [one for one in models if (batch, one) not in done or done[batch, one].status is CompletionStatus.SKIPPED]
    if skipped and (window is not None or shows(session, batch)):
        # What was stepped over is wanted after all.
        sight_anew(session, lease, batch, skipped, window)
    unit, blocked = one_batch(session, lease, batch, models, window)
    if unit is not None:
        return unit
    landed = f"{session.pipeline.done_again(batch)} does it from what had landed"
    raise SourceError(
        f"batch {batch} cannot be fetched: {blocked}",
        hint=landed if session.pipeline.keeps else "of what had landed nothing is kept (keep: none)",
    )
