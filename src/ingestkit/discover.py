"""What there is to do: which batches of the source wait, by completions and floors, and which have changed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from ingestkit.errors import SourceError, UnknownBatch, UsageError
from ingestkit.model import CompletionStatus, FileVersion, LoadMode
from ingestkit.session import Session
from ingestkit.sighting import Look, Unit, known_files, look_at, wait_quiet
from ingestkit.states import completions, ledger, runs
from ingestkit.states.completions import Done
from ingestkit.states.lease import Lease


@dataclass(frozen=True, slots=True)
class Found:
    units: tuple[Unit, ...] = ()
    late: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Batches that cannot be taken yet, and why; nothing behind the first of them is looked at."""
    unmapped: tuple[str, ...] = ()
    """Files of no model, seen now for the first time."""
    checkpoint: str | None = None
    failure: SourceError | None = None
    """Why the batch behind the units cannot be taken; it is raised when they are done."""


def batch_key(session: Session, batch: str) -> str:
    """The batch key as it is written, or a refusal where it can be none of the pipeline's."""
    batches = session.pipeline.settings.source.batches
    try:
        return batches.key(batch)
    except ValueError:
        raise UsageError(
            f"{batch!r} is no batch key of {session.pipeline.name}: they are of kind {batches.kind}",
            hint=f"ingestkit runs list {session.pipeline.name}",
        ) from None


def checkpoint(session: Session, done: Done, floors: Mapping[str, str | None]) -> str | None:
    """The last batch all of whose models have completions, or the floor where nothing came after it."""
    by_batch: dict[str, set[str]] = {}
    for batch, model in done:
        by_batch.setdefault(batch, set()).add(model)
    full = [batch for batch, models in by_batch.items() if _all_done(session, batch, models, floors)]
    common = [floor for floor in floors.values() if floor is not None]
    if len(common) == len(session.pipeline.models) and common:
        full.append(min(common, key=session.pipeline.order))
    return max(full, key=session.pipeline.order, default=None)


def discover(
    session: Session, lease: Lease, *, only: str | None = None, limit: int | None = None, waits_quiet: bool = True
) -> Found:
    """All batches waiting for the models of the lease, oldest first, and done ones whose files have changed.

    With `waits_quiet` files that have not settled are given their time once.
    """
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        unjudged = completions.unjudged(conn, session.pipeline.name)
        row = runs.pipeline_row(conn, session.pipeline.name)
    floors: Mapping[str, str | None] = row["floors"] if row else {}
    position = checkpoint(session, done, floors)
    keys = list(session.source.batches(None))
    plan = _sort_out(session, lease, keys, done, floors)
    published = _published(session, lease, unjudged, floors)
    if only is not None:
        _refuse_untaken(session, only, {*keys, *published}, plan.late)
    known = known_files(session, [*plan.open, *plan.scan, *published])
    found = _Found(waited=not waits_quiet)
    failure: SourceError | None = None
    for batch in sorted({*plan.open, *plan.scan, *published}, key=session.pipeline.order):
        gone = Look(Unit(batch, published.get(batch, ()), "not judged"))
        looking = partial(_look, session, lease, batch, plan, published.get(batch, ()))
        try:
            look = _settled(session, batch, known[batch], found, looking) if batch in keys else gone
        except SourceError as error:
            if not found.units or only is not None:
                raise
            # The batches before it are done first.
            failure = error
            break
        found.unmapped.extend(look.unmapped)
        if look.blocked:
            found.waiting[batch] = look.blocked
            if batch in plan.open:
                break
            continue
        if look.unit is not None:
            found.units.append(look.unit)
        if batch == only or (only is None and limit is not None and len(found.units) >= limit):
            break
    units = _only(session, found.units, found.waiting, only) if only is not None else found.units
    caught_up = _caught_up(session, units, known)
    return Found(caught_up, plan.late, found.waiting, tuple(found.unmapped), position, failure)


@dataclass(slots=True)
class _Found:
    """What was found while the batches were looked at, oldest first."""

    units: list[Unit] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    waited: bool = False


def _settled(
    session: Session,
    batch: str,
    known: Sequence[FileVersion],
    found: _Found,
    looking: Callable[[Sequence[FileVersion]], Look],
) -> Look:
    """A look at a batch, and once per command another one when its files have had time to settle."""
    look = looking(known)
    if not look.unsettled or found.waited:
        return look
    found.waited = True
    wait_quiet(session, look.unsettled)
    return looking(known_files(session, [batch])[batch])


def _look(
    session: Session, lease: Lease, batch: str, plan: "_Plan", judge: tuple[str, ...], known: Sequence[FileVersion]
) -> Look:
    if batch in plan.open:
        return look_at(session, lease, batch, known, plan.open[batch], redo=False)
    models = {*plan.scan.get(batch, ()), *judge}
    return look_at(session, lease, batch, known, tuple(sorted(models)), redo=True, judge=judge)


def _published(
    session: Session, lease: Lease, unjudged: Mapping[str, set[str]], floors: Mapping[str, str | None]
) -> dict[str, tuple[str, ...]]:
    """Batches whose content is in the target without a gate having let it pass, whether the source still has them."""
    found = {
        batch: tuple(one for one in lease.models if one in models and not _below(session, batch, floors.get(one)))
        for batch, models in unjudged.items()
    }
    return {batch: models for batch, models in found.items() if models}


def _refuse_untaken(session: Session, only: str, keys: Collection[str], late: Sequence[str]) -> None:
    if only not in keys:
        raise UnknownBatch(f"the source has no batch {only!r}", hint=f"ingestkit runs list {session.pipeline.name}")
    if only in late:
        raise UsageError(
            f"batch {only} came after newer ones were done, and source.late is report",
            hint=f"set source.late: load, or: ingestkit skip {session.pipeline.name} --batch {only} --reason '...'",
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    open: dict[str, tuple[str, ...]]
    """Batches not done, with the models that are not."""
    scan: dict[str, tuple[str, ...]]
    """Done batches recent enough that a changed file in them is still looked for, and for which models."""
    late: tuple[str, ...]


def _sort_out(
    session: Session, lease: Lease, keys: Iterable[str], done: Done, floors: Mapping[str, str | None]
) -> _Plan:
    order = session.pipeline.order
    settings = session.pipeline.settings.source
    since = session.clock.now() - settings.late_scan
    newest = max((batch for batch, _ in done), key=order, default=None)
    open_batches: dict[str, tuple[str, ...]] = {}
    scan: dict[str, tuple[str, ...]] = {}
    late: list[str] = []
    for batch in keys:
        undone = tuple(
            model
            for model in lease.models
            if (batch, model) not in done and not _below(session, batch, floors.get(model))
        )
        if not undone:
            recent = tuple(model for model in lease.models if _watched(done.get((batch, model)), since))
            if recent:
                scan[batch] = recent
            continue
        unheard = all((batch, model) not in done for model in session.pipeline.models)
        if newest is not None and order(batch) < order(newest) and unheard and settings.late == "report":
            late.append(batch)
            continue
        open_batches[batch] = undone
    return _Plan(open_batches, scan, tuple(late))


def _watched(entry: tuple[CompletionStatus, datetime] | None, since: datetime) -> bool:
    """A batch stepped over on purpose is not looked at again; a done one is for as long as `late_scan`."""
    return entry is not None and entry[0] is not CompletionStatus.SKIPPED and entry[1] >= since


def _all_done(session: Session, batch: str, models: set[str], floors: Mapping[str, str | None]) -> bool:
    return all(model in models or _below(session, batch, floors.get(model)) for model in session.pipeline.models)


def _below(session: Session, batch: str, floor: str | None) -> bool:
    return floor is not None and session.pipeline.order(batch) <= session.pipeline.order(floor)


def _only(session: Session, units: list[Unit], waiting: Mapping[str, str], only: str) -> list[Unit]:
    """`--batch K` takes its turn: an older batch that waits goes first."""
    chosen = [unit for unit in units if unit.batch == only]
    order = session.pipeline.order
    older = [unit.batch for unit in units if unit.reason == "new" and order(unit.batch) < order(only)]
    older += [batch for batch in waiting if order(batch) < order(only)]
    if chosen and older and chosen[0].reason == "new":
        name = session.pipeline.name
        raise UsageError(
            f"batch {min(older, key=order)} waits before {only}, and batches are done in order",
            hint=f"ingestkit run {name}, or step over it: ingestkit skip {name} --batch {older[0]} --reason '...'",
        )
    return chosen


def _caught_up(session: Session, units: Sequence[Unit], known: Mapping[str, list[FileVersion]]) -> tuple[Unit, ...]:
    """With `catch_up: newest`, of the snapshots that wait of a model only the newest is loaded."""
    if session.pipeline.settings.catch_up == "every":
        return tuple(units)
    newest: dict[str, str] = {}
    found: list[Unit] = []
    for unit in reversed(units):
        if unit.reason != "new":
            found.append(unit)
            continue
        whole = [model for model in unit.models if session.pipeline.model(model).load is LoadMode.REPLACE]
        found.append(replace(unit, newer={model: newest[model] for model in whole if model in newest}))
        for model in whole:
            if unit.wanted.get(model) or ledger.candidates(known.get(unit.batch, ()), model):
                newest.setdefault(model, unit.batch)
    return tuple(reversed(found))
