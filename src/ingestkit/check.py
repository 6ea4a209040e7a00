"""Before work: every system answers, and target and state speak of the same history."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ingestkit import steps
from ingestkit.errors import IngestkitError, StateError, WarehouseError
from ingestkit.mirroring import refuse_empty_state
from ingestkit.model import Completion, CompletionStatus, Fence, LoadMode, Receipt
from ingestkit.session import Session
from ingestkit.stages.standing import is_alone, refuse_of_another
from ingestkit.states import completions, decisions, runs
from ingestkit.states.completions import Published
from ingestkit.states.lease import Lease


@dataclass(frozen=True, slots=True)
class Known:
    """What the state says of the models at hand."""

    state_id: str
    counter: int
    newest: Mapping[str, Completion]
    """The newest completion of status done, by model."""
    intended: Mapping[str, int]
    """The highest generation any run meant to publish of that batch, by model."""


def check(
    session: Session, lease: Lease, *, fetching: int = 0, from_lake: bool = False, rebuilding: bool = False
) -> None:
    """Prove that source, lake and warehouse answer, and that the target is the one this state has written.

    `from_lake` asks no source; `rebuilding` neither, and lets missing fences and receipts pass, which are to be
    written again.
    """
    if session.transform is not None:
        session.transform.check()
    if not (from_lake or rebuilding):
        session.source.check()
    session.lake.store.check()
    session.lake.store.expect(fetching)
    # An open run has the pipeline of the day it began, which may lack some of today's.
    models = tuple(model for model in lease.models if model in session.pipeline.models)
    known = _known(session, models)
    if not rebuilding:
        refuse_missing_file(session, known.newest)
    fences = session.warehouse.fences(session.pipeline.name)
    for model in models:
        _check_fence(session, known, model, fences.get(model), rebuilding=rebuilding)
    session.warehouse.check()
    if any(model not in fences for model in models):
        # All, so that it is known whose they are; those that are there stay as they are.
        session.warehouse.fence(
            tuple(
                Fence(session.pipeline.name, model, known.state_id, lease.token, session.pipeline.table(model))
                for model in models
            )
        )
    if not rebuilding:
        receipts = _check_receipts(session, known, models)
        begun_anew = set(models).difference(known.newest) & {one.model for one in receipts}
        _void_of_no_table(session, lease, sorted(begun_anew))
    steps.reached("check.done")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what is wrong with it."""

    what: str
    trouble: IngestkitError | None = None


def examine(session: Session) -> Iterator[Finding]:
    """Look at everything a pipeline needs, one thing after another, changing nothing but a probe in the lake."""
    name = session.pipeline.name
    looks: list[tuple[str, Callable[[], object]]] = [
        (f"{name}: contracts", lambda: _proven(session)),
        (f"{name}: source", session.source.check),
        (f"{name}: lake", lambda: _keeps_what_is_written(session)),
        (f"{name}: warehouse", lambda: _takes_contracts(session)),
        (f"{name}: state", lambda: _agrees(session)),
    ]
    if (mirror := session.open_run_mirror) is not None:
        looks.append((f"{name}: mirror of runs", lambda: mirror().check()))
    if (transform := session.transform) is not None:
        looks.append((f"{name}: dbt", lambda: transform.prove(session.scratch, session.stop)))
    if session.measured is not None:
        # What is said of them is looked at; nobody is told anything.
        looks += [(f"{name}: metrics.{kind}", opened) for kind, opened in session.measured.meters.items()]
    failed: list[str] = []
    for what, look in looks:
        if what == f"{name}: state" and {f"{name}: lake", f"{name}: warehouse"}.intersection(failed):
            # It would be told the same once more: state, lake and target are compared with each other.
            continue
        try:
            look()
        except IngestkitError as error:
            failed.append(what)
            yield Finding(what, error)
        else:
            yield Finding(what)


def _proven(session: Session) -> None:
    for model, settings in session.pipeline.settings.models.items():
        session.prove(model, settings)


def _keeps_what_is_written(session: Session) -> None:
    session.lake.store.check()
    if not session.lake.store.keeps_names:
        session.progress.warned(
            "the lake's service overwrites what has a name already, whatever is asked of it: what is landed there "
            "has a name of each owner, and who else writes there can undo it"
        )


def _takes_contracts(session: Session) -> None:
    """The warehouse answers, and its tables are what the contracts say or can become it."""
    session.warehouse.receipts(session.pipeline.name)
    pipeline = session.pipeline
    for model in () if pipeline.many else pipeline.models:
        session.warehouse.planned(pipeline.table(model), pipeline.columns(model), pipeline.lineage())
        if (beside := pipeline.rejects(model)) is not None:
            session.warehouse.planned(beside.table, beside.columns, beside.lineage)
    warn_of_tables(session)


def warn_of_tables(session: Session) -> None:
    """What is set on the tables of a pipeline that changes what publishing into them means."""
    pipeline = session.pipeline
    written = {table: modes for one in pipeline.models for table, modes in pipeline.written(one).items()}
    for remark in session.warehouse.remarks(pipeline.name, written):
        session.progress.warned(remark)


def _agrees(session: Session) -> None:
    """The target is the one this state has written."""
    refuse_empty_state(session)
    refuse_disagreeing(session, session.pipeline.models)


def refuse_disagreeing(session: Session, models: Sequence[str]) -> None:
    """What a run of these models would be refused for, without writing anything."""
    for model in models:
        _check_owner(session, model)
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
    # A state that knows nothing of the pipeline is another one than whoever wrote its target.
    known = _known(session, models) if row is not None else Known("", 0, {}, {})
    refuse_missing_file(session, known.newest)
    fences = session.warehouse.fences(session.pipeline.name)
    for model in models:
        _check_fence(session, known, model, fences.get(model), rebuilding=False)
    _check_receipts(session, known, models)


def refuse_missing_file(session: Session, newest: Mapping[str, Completion]) -> None:
    """An embedded warehouse whose file is gone is seen at once, even when there is nothing to do."""
    file = session.warehouse_file
    if not newest or file is None or os.access(file, os.F_OK) or session.warehouse.present():
        return
    raise _deleted(session, ", ".join(sorted(newest)))


def newest_done(session: Session, models: Sequence[str]) -> dict[str, Completion]:
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        full = (key for key, (status, _) in done.items() if status is CompletionStatus.DONE and key[1] in models)
        newest = completions.newest(full, session.pipeline.order)
        return {model: one for model, (one, _) in completions.each(conn, session.pipeline.name, newest).items()}


def _known(session: Session, models: Sequence[str]) -> Known:
    newest = newest_done(session, models)
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
        batches = {done.batch for done in newest.values()}
        highest = {batch: runs.highest_generations(conn, session.pipeline.name, batch) for batch in batches}
        intended = {model: highest[done.batch].get(model, 0) for model, done in newest.items()}
    if row is None:
        raise StateError(f"the state lost its row of pipeline {session.pipeline.name}")
    return Known(row["state_id"], row["token_counter"], newest, intended)


def _check_owner(session: Session, model: str) -> None:
    mine, beside = (session.pipeline.name, model), session.pipeline.rejects(model)
    for table in (session.pipeline.table(model), *([beside.table] if beside is not None else [])):
        refuse_of_another(session.warehouse, mine, table)


def refuse_of_another_state(session: Session) -> None:
    """What is to be built again must be this state's own target; what of it is missing is no trouble."""
    known = _known(session, session.pipeline.models)
    fences = session.warehouse.fences(session.pipeline.name)
    for model in session.pipeline.models:
        _check_fence(session, known, model, fences.get(model), rebuilding=True)


def _check_fence(session: Session, known: Known, model: str, fence: Fence | None, *, rebuilding: bool) -> None:
    name = session.pipeline.name
    if fence is None:
        if model in known.newest and not rebuilding:
            raise _deleted(session, model)
        return
    if fence.state_id != known.state_id:
        raise StateError(
            f"the target of {name}.{model} was last written by another state ({fence.state_id})",
            hint=f"if this state is to go on with it: ingestkit state adopt {name} --reason '...'",
        )
    if fence.token > known.counter:
        raise StateError(
            f"the target of {name}.{model} was written under token {fence.token}, and this state has only given out "
            f"{known.counter}: it is an older copy",
            hint=f"ingestkit state adopt {name} --reason '...'",
        )


def lacking(
    session: Session,
    models: Sequence[str],
    receipts: Iterable[Receipt],
    gone: Collection[str],
    *,
    but: Collection[tuple[str, str]] = (),
) -> dict[str, list[str]]:
    """By model, the batches that were published and are not in the target as they were, oldest first.

    Only those count that the target is made of: from the model's newest full (replace) batch on. `gone` are the models
    whose table does not exist: nothing of theirs is there, whatever receipts say. What is told by `but` (batch, model)
    counts as never published; what a batch superseded that is neither done nor there any more counts as published.
    """
    order = session.pipeline.order
    with session.state.read() as conn:
        known = completions.published(conn, session.pipeline.name, models)
        passed = completions.superseded(conn, session.pipeline.name, models)
    receipts = tuple(receipts)
    done = {key: one for key, one in known.items() if key not in but}
    done |= {
        key: one for key, one in passed.items() if key not in but and not _over(session, key, one, done, receipts, gone)
    }
    full = completions.newest((key for key, one in done.items() if one.mode is LoadMode.REPLACE), order)
    standing = {(one.batch, one.model): one for one in receipts if one.model not in set(gone)}
    found: dict[str, list[str]] = {}
    for (batch, model), one in sorted(done.items(), key=lambda pair: order(pair[0][0])):
        if model in full and order(batch) < order(full[model]):
            continue
        receipt = standing.get((batch, model))
        if receipt is None or not _stands_for(receipt, one):
            found.setdefault(model, []).append(batch)
    return found


def _over(
    session: Session,
    key: tuple[str, str],
    passed: Published,
    done: Mapping[tuple[str, str], Published],
    receipts: Iterable[Receipt],
    gone: Collection[str],
) -> bool:
    """Whether there is, or will be again, what superseded a batch of a model."""
    batch, model = key
    order, alone = session.pipeline.order, is_alone(session.pipeline, model, passed.mode)
    standing = [(one.batch, one.mode) for one in receipts if one.model == model and model not in gone]
    standing += [(other, one.mode) for (other, of), one in done.items() if of == model]
    return any(order(other) > order(batch) and (alone or mode is LoadMode.REPLACE) for other, mode in standing)


def tables_gone(session: Session, models: Sequence[str]) -> frozenset[str]:
    """The models whose target table does not exist, or of a model of many tables one of them."""
    if session.pipeline.many:
        fences = session.warehouse.fences(session.pipeline.name).values()
        parts = tuple(fence.table for fence in fences if fence.model not in session.pipeline.models)
        return frozenset(models if session.warehouse.missing(parts) else ())
    tables = {model: session.pipeline.table(model) for model in models}
    missing = session.warehouse.missing(tuple(tables.values()))
    return frozenset(model for model, table in tables.items() if table in missing)


def _stands_for(receipt: Receipt, done: Published) -> bool:
    """Whether the receipt is of what the completion says, or of a later publish that has not come to its gate."""
    if receipt.generation == done.generation:
        return receipt.digest == done.digest
    return receipt.generation > done.generation


def _check_receipts(session: Session, known: Known, models: Sequence[str]) -> Sequence[Receipt]:
    """Prove that the target holds what was published; the receipts by which that is told."""
    name = session.pipeline.name
    receipts = session.warehouse.receipts(name)
    _refuse_older_copy(session, receipts)
    by_key = {(one.model, one.batch): one for one in receipts}
    for model, done in known.newest.items():
        _refuse_newer(session, done, by_key.get((model, done.batch)), known.intended[model])
    gone = tables_gone(session, models) if known.newest else frozenset()
    lacks = lacking(session, models, receipts, gone)
    for model, batches in sorted(lacks.items()):
        why = f"has no table {session.pipeline.table(model)}" if model in gone else "was put back or emptied"
        raise WarehouseError(
            f"{name}.{model}: {', '.join(batches[:3])}{' and more' if len(batches) > 3 else ''} was published, but "
            f"the target does not hold it as it was: it {why}",
            hint=_builds(session),
        )
    _warn_of_pins(session, by_key)
    return receipts


def _warn_of_pins(session: Session, standing: Mapping[tuple[str, str], Receipt]) -> None:
    """Of what a person has put back and a target of before that does not hold, nothing else tells."""
    name = session.pipeline.name
    with session.state.read() as conn:
        pins = completions.pins(conn, name, session.pipeline.order)
    for pin in pins:
        receipt = standing.get((pin.model, pin.batch))
        if receipt is None or receipt.at < pin.since:
            at = pin.as_of.isoformat()
            session.progress.warned(
                f"{name}.{pin.model} was put back to batch {pin.batch} as of {at}, and the target does not hold that: "
                "it is of before",
                hint=f"ingestkit backfill {name} --batch {pin.batch} --model {pin.model} --as-of {at} --reason '...'",
            )


def _refuse_older_copy(session: Session, receipts: Iterable[Receipt]) -> None:
    """Receipts of runs this state does not know: it went back. Tokens do not tell, it gives the lost ones out again."""
    name = session.pipeline.name
    with session.state.read() as conn:
        known = runs.ids(conn, name)
        strangers = [one for one in receipts if one.run_id not in known]
        chain = decisions.chain(conn, name) if strangers else ()
    # What was there when this state became the owner was compared and told then.
    adopted = max((one.subject["token"] for one in chain if one.kind == "adopt"), default=0)
    for one in strangers:
        if one.token > adopted:
            raise StateError(
                f"the target of {name}.{one.model} holds batch {one.batch} as run {one.run_id} published it, and this "
                "state knows no such run: it is an older copy",
                hint=f"ingestkit state adopt {name} --reason '...'",
            )


def _refuse_newer(session: Session, done: Completion, receipt: Receipt | None, intended: int) -> None:
    """A generation nobody of this state has meant was published under another one."""
    if receipt is None or receipt.generation <= max(done.generation, intended):
        return
    name = session.pipeline.name
    raise StateError(
        f"{name}.{done.model}: the target holds generation {receipt.generation} of batch {done.batch}, and this "
        f"state knows only {done.generation}",
        hint=f"ingestkit state adopt {name} --reason '...'",
    )


def _builds(session: Session) -> str:
    name = session.pipeline.name
    if session.pipeline.keeps:
        return f"ingestkit backfill {name} --from-lake"
    return f"ingestkit state reset {name} --reason '...' has the next run load again what the source still holds"


def _void_of_no_table(session: Session, lease: Lease, models: Sequence[str]) -> None:
    """Receipts of models that begin anew, whose table is gone, would have its rows taken for published."""
    for model in sorted(tables_gone(session, models)) if models else ():
        table = session.pipeline.table(model)
        _tell_lost(session, model)
        session.warehouse.void(Fence(session.pipeline.name, model, lease.state_id, lease.token, table))


def _tell_lost(session: Session, model: str) -> None:
    """A table that begins anew holds what the source shows; what else was published into the one before is lost."""
    published = {one.batch for one in session.warehouse.receipts(session.pipeline.name) if one.model == model}
    lost = sorted(published - set(session.source.batches(None)), key=session.pipeline.order)
    if lost and session.pipeline.settings.source.batches.window is None:
        session.progress.warned(
            f"{model}: its table is gone and begins anew; what it held of {', '.join(lost)} is at the source no more",
            hint="have it delivered again, if it is wanted",
        )


def _deleted(session: Session, models: str) -> WarehouseError:
    name = session.pipeline.name
    builds = _builds(session) + (" builds it again from the lake" if session.pipeline.keeps else "")
    return WarehouseError(
        f"the target of {name} ({models}) is gone, though batches were published into it",
        # A service shows nothing of what a user or role has no right on.
        hint=builds
        if session.warehouse_file
        else f"if the connection's user and role are those that made it: {builds}",
    )
