"""What of the lake a run's end lets go of: judged under the lease, noted in the state, then removed."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain

import sqlalchemy as sql

from ingestkit import steps
from ingestkit.active import Active
from ingestkit.errors import IngestkitError, Interrupted, LeaseLost
from ingestkit.lake import UNMAPPED, file_id_of
from ingestkit.model import Artifact, ArtifactKind, FileStatus, FileVersion, Stage, Work, sha256_of
from ingestkit.pipeline import RunContext
from ingestkit.recording import perform
from ingestkit.recover import remove_noted
from ingestkit.stages import clean
from ingestkit.states import completions, ledger, quarantine, runs, stage_rows

Found = dict[tuple[str, str], list[str]]
"""The names of objects that nobody needs, by model and batch."""


def clean_behind(active: Active) -> bool:
    """Tidy behind the run. A clean that fails warns, and is done again by the next run: nothing hangs on it."""

    def job() -> Work:
        ctx = active.context()
        again, found = _dispensable(active, ctx)
        steps.reached("clean.judged")
        # Who has the lease still has had it all the while: what was listed and read is nothing of a later owner's. What
        # is noted is gone for whoever comes later, who removes it first, and for whoever is late with a row of it:
        # waking up late, this can take nothing away.
        with active.lease.transaction() as conn:
            for (model, batch), names in found.items():
                ledger.let_go(conn, names, _of_nobody(ctx, model, batch), active.session.clock.now())
        steps.reached("clean.noted")
        clean.remove_scratch(ctx.scratch)
        for model in active.models:
            ctx.lake.remove_staged(ctx.pipeline.name, model, ctx.token)
        # The last, since whatever is refused there ends it.
        every = dict.fromkeys([*again, *chain.from_iterable(found.values())])
        remove_noted(active.session, active.lease, list(every))
        removed = dict.fromkeys(active.models, 0)
        for (model, _), names in found.items():
            if names:
                removed[model] = removed.get(model, 0) + len(names)
        return Work(details={"removed": removed})

    try:
        perform(active, Stage.CLEAN, "*", sha256_of(str(active.session.pipeline.settings.retention)), job)
    except (LeaseLost, Interrupted):
        raise
    except IngestkitError as error:
        active.session.progress.warned(f"clean failed and is left to the next run: {error.message}")
        return False
    return True


def _of_nobody(ctx: RunContext, model: str, batch: str) -> Artifact:
    """What is said of an object that lies there and that no row has named."""
    return Artifact("", ctx.pipeline.name, batch, model, None, ArtifactKind.RAW, "", 0, None, "", ctx.run_id, ctx.token)


def _dispensable(active: Active, ctx: RunContext) -> tuple[list[str], Found]:
    """What was noted before, and what no row needs, of this batch and of those that retention lets go of now.

    What is in the lake is listed before the rows are read: what is on its way there has its row before.
    """
    name, models = active.pipeline_name, (*active.models, *_of_no_model(active))
    there = {model: clean.lying(ctx, model, active.batch) for model in models}
    apart = clean.apart(ctx)
    with active.session.state.read() as conn:
        again = ledger.being_removed(conn, name, (*active.models, UNMAPPED))
        files = ledger.versions(conn, name, [active.batch])
        others = runs.at_work(conn, name, besides=active.run.run_id)
        made = ledger.artifacts(conn, name, [active.batch], models)
        found: Found = {}
        for model in models:
            left = [one for one in made if one.model == model]
            theirs = others.get(model, {})
            found[model, active.batch] = _debris(conn, active.batch, model, files, left, there[model], theirs)
            if model != UNMAPPED and not active.session.pipeline.keeps and active.batch not in theirs.values():
                found[model, active.batch] += clean.passing(left, files)
        old = {model: _expired(active, conn, model, set(others.get(model, {}).values())) for model in active.models}
        for key, names in _left_apart(active, conn, apart, others).items():
            found[key] = [*found.get(key, ()), *names]
    for model, batches in old.items():
        # What nobody has registered goes with the rest: nothing looks into these folders again.
        orphans = _orphans(active, ctx, model, batches)
        for batch, artifacts in batches.items():
            mine = found.setdefault((model, batch), [])
            found[model, batch] = [*mine, *(one.path for one in artifacts), *orphans[batch]]
    return again, {key: list(dict.fromkeys(names)) for key, names in found.items()}


def _of_no_model(active: Active) -> tuple[str, ...]:
    """What stands for a model in names of files of none, where this batch has such: any of its models may land them.

    Who holds all of these is alone: what lies there and no row names is of somebody who is gone.
    """
    if set(active.lease.models) != set(active.session.pipeline.models):
        return ()
    with active.session.state.read() as conn:
        files = ledger.versions(conn, active.pipeline_name, [active.batch])
    return (UNMAPPED,) if any(file.model is None for file in files) else ()


def _debris(
    conn: sql.Connection,
    batch: str,
    model: str,
    files: Sequence[FileVersion],
    artifacts: Sequence[Artifact],
    there: Sequence[tuple[str, str]],
    at_work: Iterable[str],
) -> list[str]:
    """What of this batch no row needs, nor an attempt that may go on: what it has made, or found good, waits for it."""
    found = clean.debris(there, files, artifacts)
    theirs = {one.path for one in artifacts if one.run_id in at_work}
    for run_id in at_work:
        row = stage_rows.of_run(conn, run_id).get((Stage.VALIDATE, model))
        sidecar = row.work() if row is not None else None
        theirs |= {one.path for one in sidecar.work.artifacts} if sidecar is not None else set()
    # Layouts that changed places with each other may have laid another batch's objects there.
    theirs |= ledger.paths_of_others(conn, found, batch, model)
    return [name for name in found if name not in theirs]


def _left_apart(
    active: Active, conn: sql.Connection, apart: Iterable[str], others: Mapping[str, Mapping[str, str]]
) -> Found:
    """What lies apart from the lake, of batches that are done: by others elsewhere, or since they were given up."""
    ids: dict[str, list[str]] = {}
    for name in apart:
        ids.setdefault(file_id_of(name), []).append(name)
    found: Found = {}
    files = ledger.of_ids(conn, active.pipeline_name, sorted(ids))
    done = {
        key for batch in {file.batch for file in files} for key in completions.whole(conn, active.pipeline_name, batch)
    }
    # What is of a model that the pipeline has no more is nobody's, but of who holds all there are.
    alone = set(active.lease.models) == set(active.session.pipeline.models)
    for file in files:
        model, batch = file.model or "", file.batch
        over = model in active.models and (batch, model) in done and batch not in others.get(model, {}).values()
        mine = over or (alone and model != "" and model not in active.session.pipeline.models)
        if mine and file.status is not FileStatus.QUARANTINED:
            found.setdefault((model, batch), []).extend(ids[file.id])
    return found


def _orphans(
    active: Active, ctx: RunContext, model: str, batches: Mapping[str, Sequence[Artifact]]
) -> dict[str, list[str]]:
    """What lies with these batches and was never registered, by batch."""
    there = {batch: clean.lying(ctx, model, batch) for batch in batches}
    found: dict[str, list[str]] = {}
    with active.session.state.read() as conn:
        files: dict[str, list[FileVersion]] = {}
        for file in ledger.versions(conn, active.pipeline_name, list(batches)):
            files.setdefault(file.batch, []).append(file)
        for batch, artifacts in batches.items():
            left = clean.debris(there[batch], files.get(batch, ()), artifacts)
            theirs = ledger.paths_of_others(conn, left, batch, model)
            found[batch] = [name for name in left if name not in theirs]
    return found


def _expired(active: Active, conn: sql.Connection, model: str, at_work: AbstractSet[str]) -> dict[str, list[Artifact]]:
    """What there is of batches that retention no longer keeps, but for those at work, put back, or with rejects."""
    session = active.session
    if not completions.any_full(conn, active.pipeline_name, model):
        return {}
    theirs = completions.whole(conn, active.pipeline_name, model=model)
    done = {batch: entry for (batch, _), entry in theirs.items()}
    old = clean.expired(session.pipeline, done, session.clock.now())
    needed = quarantine.batches_waiting(conn, active.pipeline_name, model) | at_work
    needed |= {
        one.batch for one in completions.pins(conn, active.pipeline_name, session.pipeline.order) if one.model == model
    }
    gone: dict[str, list[Artifact]] = {}
    for one in ledger.artifacts(conn, active.pipeline_name, [batch for batch in old if batch not in needed], [model]):
        gone.setdefault(one.batch, []).append(one)
    return gone
