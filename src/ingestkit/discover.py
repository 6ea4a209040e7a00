"""What there is to do: which batches of the source wait, by completions and floors, and which have changed."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import sqlalchemy as sql

from ingestkit import counting
from ingestkit.errors import GateClosed, SourceError, UnknownBatch, UsageError
from ingestkit.model import CompletionStatus, FileVersion, Item, LoadMode, Window
from ingestkit.session import Session
from ingestkit.settings import Hole, duration_text
from ingestkit.sighting import Look, Sketch, Turn, Unit, known_files, look_at, wait_quiet, with_announced
from ingestkit.states import completions, ledger, runs
from ingestkit.states.completions import Done
from ingestkit.windowing import Batches, Missed, batches, ended_by, no_window


@dataclass(frozen=True, slots=True)
class Found:
    units: tuple[Unit, ...] = ()
    late: tuple[str, ...] = ()
    missed: Missed | None = None
    """Windows that are stepped over (`catchup: false`)."""
    strays: tuple[str, ...] = ()
    """What the source holds beside all batches."""
    ahead: tuple[str, ...] = ()
    """Windows that are done, or that models begin behind, and have not ended: a clock was ahead."""
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Batches that cannot be taken yet, and why; nothing behind the first of them is looked at."""
    holes: Mapping[str, Hole] = field(default_factory=dict)
    """What is missing between batches that count up, each by the batch behind it."""
    unmapped: tuple[str, ...] = ()
    """Files of no model, seen now for the first time."""
    checkpoint: str | None = None
    failure: SourceError | GateClosed | None = None
    """Why the batch behind the units cannot be taken; it is raised when they are done."""


def batch_key(session: Session, batch: str) -> str:
    """The batch key as it is written, or a refusal where it can be none of the pipeline's."""
    settings = session.pipeline.settings.source.batches
    try:
        return settings.key(batch)
    except ValueError:
        kind = f"are of kind {settings.kind}" if settings.window is None else "begin at a date or time"
        raise UsageError(
            f"{batch!r} is no batch key of {session.pipeline.name}: they {kind}",
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


def floors_of(session: Session, known: Mapping[str, str | None], done: Done) -> Mapping[str, str | None]:
    """Behind which batch each model begins; one that is new begins where the pipeline stands."""
    missing = [model for model in session.pipeline.models if model not in known]
    newest = completions.newest((key for key in done if key[1] in known), session.pipeline.order)
    return {**known, **dict.fromkeys(missing, min(newest.values(), key=session.pipeline.order, default=None))}


def discover(
    session: Session, turn: Turn, *, only: str | None = None, limit: int | None = None, waits_quiet: bool = True
) -> Found:
    """All batches waiting for the models of the lease, oldest first, and done ones whose files have changed.

    With `waits_quiet` files that have not settled are given their time once. For a sketch nobody waits: they count as
    settled, since a run would wait.
    """
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        unjudged = _begun(conn, session.pipeline.name, done)
        row = runs.pipeline_row(conn, session.pipeline.name)
    floors = floors_of(session, row["floors"] if row else {}, done)
    only = None if only is None else batch_key(session, only)
    there = batches(session, whole=only is not None)
    published = _published(session, turn, unjudged, floors, done)
    by = ended_by(session)
    plan = _sort_out(session, turn, there, done, floors, by)
    plan = _without_missed(session, plan, there, {*published, only}, by)
    if only is not None:
        _refuse_untaken(session, only, {*there, *published}, plan.late)
    known = known_files(session, [*plan.open, *plan.scan, *published], turn)
    found = _Found(waited=not waits_quiet)
    failure: SourceError | GateClosed | None = None
    for batch in sorted({*plan.open, *plan.scan, *published}, key=session.pipeline.order):
        gone = Look(Unit(batch, published.get(batch, ()), "not judged"))
        looking = partial(_look, session, turn, batch, there.get(batch), plan, published.get(batch, ()))
        try:
            look = _settled(session, turn, batch, known[batch], found, looking) if batch in there else gone
        except SourceError as error:
            if not found.units or only is not None:
                raise
            # The batches before it are done first.
            failure = error
            break
        found.unmapped.extend(look.unmapped)
        found.to_keep.extend(look.to_keep)
        look = _behind_a_hole(session, look, None if batch in published else plan.holes.get(batch))
        if look.blocked:
            found.waiting[batch] = look.blocked
            if batch in plan.open:
                failure = _overdue(session, turn, batch, there.get(batch), look.blocked)
                break
            continue
        if look.unit is not None:
            found.units.append(look.unit)
        if batch == only or (only is None and limit is not None and len(found.units) >= limit):
            break
    caught_up = _caught_up(session, _chosen(session, found, only), known)
    return _up_to_what_was_put_aside(
        session,
        Found(
            units=caught_up,
            late=plan.late,
            missed=plan.missed,
            strays=tuple(session.source.strays()),
            ahead=_ahead(there, {*(batch for batch, _ in done), *floors.values()}, by),
            waiting=found.waiting,
            holes=plan.holes,
            unmapped=tuple(found.unmapped),
            checkpoint=checkpoint(session, done, floors),
            failure=failure or _too_late(session, plan.late),
        ),
        published,
    )


def _tell_gone(session: Session, there: Collection[str], done: Done, floors: Mapping[str, str | None]) -> None:
    """Batches that landed, came to nothing and are gone from the source: those behind them are done without them."""
    if session.pipeline.settings.source.batches.window is not None:
        return
    order = session.pipeline.order
    with session.state.read() as conn:
        left = ledger.unpublished(conn, session.pipeline.name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, session.pipeline.name)}
    gone = {
        file.batch
        for file in left
        if file.raw is not None
        and file.model in session.pipeline.models
        and file.batch not in there
        and file.batch not in at_work
        and (file.batch, file.model) not in done
        and not is_below(session, file.batch, floors.get(file.model))
    }
    for batch in sorted(gone, key=order):
        session.progress.warned(
            f"batch {batch} is gone from the source before it was published, and is passed over",
            hint=f"have it delivered again; or, once it is not wanted: ingestkit skip {session.pipeline.name} "
            f"--batch {shlex.quote(batch)} --reason '...'",
        )


def _begun(conn: sql.Connection, pipeline: str, done: Done) -> dict[str, set[str]]:
    """What is work whatever the source still shows: published and not judged, or assigned by a person, by batch."""
    found = completions.unjudged(conn, pipeline)
    for batch, models in ledger.waiting_assigned(conn, pipeline).items():
        if mine := {model for model in models if (batch, model) in done}:
            found.setdefault(batch, set()).update(mine)
    return found


def _too_late(session: Session, late: Sequence[str]) -> SourceError | None:
    if not late or session.pipeline.settings.source.late != "fail":
        return None
    name = session.pipeline.name
    error = SourceError(
        f"batch {', '.join(late)} came after newer ones were done, and source.late is fail",
        hint=f"set source.late: load, or: ingestkit skip {name} --batch {late[0]} --reason '...'",
    )
    error.incident = "late"
    return error


def _overdue(session: Session, turn: Turn, batch: str, window: Window | None, why: str) -> SourceError | None:
    """A batch that has waited for longer than the pipeline allows, told by the first of it that was seen."""
    patience = session.pipeline.settings.source.overdue
    if patience is None:
        return None
    with session.state.read() as conn:
        seen = ledger.first_seen(conn, session.pipeline.name, batch)
    begun = [file.sighted_at for file in known_files(session, [batch], turn)[batch]] + ([seen] if seen else [])
    since = min([*begun, *([window.end] if window is not None else [])], default=None)
    if since is None or session.clock.now() - since < patience:
        return None
    error = SourceError(
        f"batch {batch} waits since {since:%Y-%m-%d %H:%M}Z, longer than source.overdue allows "
        f"({duration_text(patience)}): {why}",
        hint=f"ask the sender for it; or step over it: ingestkit skip {session.pipeline.name} --batch {batch} "
        "--reason '...'",
    )
    error.incident = "missing"
    return error


@dataclass(slots=True)
class _Found:
    """What was found while the batches were looked at, oldest first."""

    units: list[Unit] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    to_keep: list[tuple[FileVersion, Item]] = field(default_factory=list)
    waited: bool = False


def _behind_a_hole(session: Session, look: Look, hole: Hole | None) -> Look:
    if hole is None or look.blocked or session.pipeline.settings.source.batches.holes == "step_over":
        return look
    come = "comes before it, has" if hole.count == 1 else "come before it, have"
    return Look(blocked=f"{hole}, which {come} not come", unmapped=look.unmapped)


def _settled(
    session: Session,
    turn: Turn,
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
    if isinstance(turn, Sketch):
        found.waiting[batch] = f"{look.blocked}, which a run waits for once"
        turn.settle(look.unsettled, session.pipeline.settings.source.settle.quiet)
    else:
        wait_quiet(session, look.unsettled)
    return looking(known_files(session, [batch], turn)[batch])


def _look(
    session: Session,
    turn: Turn,
    batch: str,
    window: Window | None,
    plan: "_Plan",
    judge: tuple[str, ...],
    known: Sequence[FileVersion],
) -> Look:
    if batch in plan.open:
        found = look_at(session, turn, batch, known, plan.open[batch], window=window, redo=False)
        return with_announced(session, found)
    models = tuple(sorted({*plan.scan.get(batch, ()), *judge}))
    return with_announced(session, look_at(session, turn, batch, known, models, window=window, redo=True, judge=judge))


def _published(
    session: Session, turn: Turn, unjudged: Mapping[str, set[str]], floors: Mapping[str, str | None], done: Done
) -> dict[str, tuple[str, ...]]:
    """Batches whose content is in the target without a gate having let it pass, whether the source still has them.

    What was put aside of a batch that was done before is not: it stays as it is.
    """
    found = {
        batch: tuple(one for one in turn.models if one in models and not is_below(session, batch, floors.get(one)))
        for batch, models in unjudged.items()
    }
    for batch, models in found.items():
        stays = {model for model in put_aside(session, batch, models) if (batch, model) in done}
        found[batch] = tuple(model for model in models if model not in stays)
    return {batch: models for batch, models in found.items() if models}


def put_aside(session: Session, batch: str, models: Collection[str]) -> tuple[str, ...]:
    """The models of which a person put an older snapshot in place of what a batch, which failed, has published."""
    order = session.pipeline.order
    snapshots = [model for model in models if _is_snapshot(session, model)]
    if not snapshots:
        return ()
    with session.state.read() as conn:
        if batch not in runs.failed(conn, session.pipeline.name):
            return ()
        # A pin of a snapshot is in force while none was published over it.
        pins = completions.pins(conn, session.pipeline.name, order)
    older = {pin.model for pin in pins if order(pin.batch) < order(batch)}
    return tuple(model for model in snapshots if model in older)


def _up_to_what_was_put_aside(session: Session, found: Found, published: Mapping[str, Sequence[str]]) -> Found:
    """Without what was put aside, where nothing new has come of it: its batch fails, and stops the ones behind it."""
    units: list[Unit] = []
    for unit in found.units:
        published_here = put_aside(session, unit.batch, published.get(unit.batch, ()))
        aside = [model for model in published_here if model in unit.models and not unit.wanted.get(model)]
        if not aside:
            units.append(unit)
            continue
        if left := tuple(model for model in unit.models if model not in aside):
            units.append(replace(unit, models=left))
        return replace(found, units=tuple(units), failure=_put_aside(session, unit.batch, aside))
    return found


def _put_aside(session: Session, batch: str, models: Sequence[str]) -> GateClosed:
    name = session.pipeline.name
    return GateClosed(
        f"batch {batch} of {', '.join(models)} did not pass its gate, and an older one was put back in its place: it "
        "is not published again by itself",
        hint=f"have it delivered again; or step over it: ingestkit skip {name} --batch {batch} --reason '...'; or have "
        f"it published once more: ingestkit manifest forget {name} --path FILE --reason '...', then run",
    )


def _refuse_untaken(session: Session, only: str, keys: Collection[str], late: Sequence[str]) -> None:
    if only not in keys and session.pipeline.settings.source.batches.window is not None:
        raise no_window(session, only)
    if only not in keys:
        raise UnknownBatch(f"the source has no batch {only!r}", hint=f"ingestkit runs list {session.pipeline.name}")
    if only in late:
        raise UsageError(
            f"batch {only} came after newer ones were done, and source.late is {session.pipeline.settings.source.late}",
            hint=f"set source.late: load, or: ingestkit skip {session.pipeline.name} --batch {only} --reason '...'",
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    open: dict[str, tuple[str, ...]]
    """Batches not done, with the models that are not."""
    scan: dict[str, tuple[str, ...]]
    """Done batches recent enough that a changed file in them is still looked for, and for which models."""
    late: tuple[str, ...]
    holes: Mapping[str, Hole]
    """What is missing before batches that are not done."""
    missed: Missed | None = None


def _without_missed(session: Session, plan: _Plan, there: Batches, kept: Collection[str | None], by: datetime) -> _Plan:
    """With `catchup: false` only the newest window is taken, but for those at work, failed, published or named.

    What lies behind one of these is stepped over when it is done: all before the last one missed counts as done.
    """
    settings = session.pipeline.settings.source.batches
    if settings.window is None or settings.catchup:
        return plan
    with session.state.read() as conn:
        at_work = {run.batch for run, _ in runs.open_runs(conn, session.pipeline.name)}
        ended = (batch for batch, window in there.items() if window is not None and window.end <= by)
        newest = max(ended, default=None)
        failed = runs.failed(conn, session.pipeline.name).intersection(plan.open)
    stays = {*kept, *at_work, *failed, newest} - {None}
    left = {batch: models for batch, models in plan.open.items() if batch in stays}
    first = min((one for one in stays if one is not None), default="")
    passed = sorted(batch for batch in plan.open if batch < first)
    if not passed:
        return replace(plan, open=left)
    last = there[passed[-1]]
    assert last is not None
    return replace(plan, open=left, missed=Missed(len(passed), passed[0], passed[-1], last.end))


def _ahead(there: Batches, passed: Collection[str | None], by: datetime) -> tuple[str, ...]:
    early = {batch for batch, window in there.items() if window is not None and window.end > by}
    return tuple(sorted(early.intersection(passed)))


def _sort_out(
    session: Session, turn: Turn, there: Batches, done: Done, floors: Mapping[str, str | None], by: datetime
) -> _Plan:
    _tell_gone(session, there, done, floors)
    order = session.pipeline.order
    settings = session.pipeline.settings.source
    since = session.clock.now() - settings.late_scan
    newest = counting.newest(settings.batches, done)
    open_batches: dict[str, tuple[str, ...]] = {}
    scan: dict[str, tuple[str, ...]] = {}
    late: list[str] = []
    for batch, window in there.items():
        undone = tuple(
            model
            for model in turn.models
            if (batch, model) not in done and not is_below(session, batch, floors.get(model))
        )
        if not undone and window is not None and window.end > by:
            # It was done by a clock that was ahead: what comes into it is looked for when it has ended.
            continue
        if not undone:
            recent = tuple(model for model in turn.models if _watched(done.get((batch, model)), since))
            if recent:
                scan[batch] = recent
            continue
        unheard = all((batch, model) not in done for model in session.pipeline.models)
        # A window is not delivered late: what of it is not done is work, whatever was done behind it.
        delivered = window is None and settings.late != "load"
        if delivered and newest is not None and order(batch) < order(newest) and unheard:
            late.append(batch)
            continue
        open_batches[batch] = undone
    missing = counting.holes(settings.batches, open_batches, there, done, floors)
    return _Plan(open_batches, scan, tuple(late), missing)


def _watched(entry: tuple[CompletionStatus, datetime] | None, since: datetime) -> bool:
    """A batch stepped over on purpose is not looked at again; a done one is for as long as `late_scan`."""
    return entry is not None and entry[0] is not CompletionStatus.SKIPPED and entry[1] >= since


def _all_done(session: Session, batch: str, models: set[str], floors: Mapping[str, str | None]) -> bool:
    return all(model in models or is_below(session, batch, floors.get(model)) for model in session.pipeline.models)


def is_below(session: Session, batch: str, floor: str | None) -> bool:
    """Whether a batch counts as done for a model that begins after that floor."""
    return floor is not None and session.pipeline.order(batch) <= session.pipeline.order(floor)


def _chosen(session: Session, found: _Found, only: str | None) -> list[Unit]:
    units = _only(session, found.units, found.waiting, only) if only is not None else found.units
    if not units or not found.to_keep:
        return units
    # A done batch is not done again for what is of no model: that is kept with what is done anyway.
    return [replace(units[0], unmapped=(*units[0].unmapped, *found.to_keep)), *units[1:]]


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
        whole = [model for model in unit.models if _is_snapshot(session, model)]
        found.append(replace(unit, newer={model: newest[model] for model in whole if model in newest}))
        for model in whole:
            if unit.wanted.get(model) or ledger.candidates(known.get(unit.batch, ()), model):
                newest.setdefault(model, unit.batch)
    return tuple(reversed(found))


def _is_snapshot(session: Session, model: str) -> bool:
    """Whether each batch says all there is. Changes that are passed over for a full batch that fails would be lost."""
    settings = session.pipeline.model(model)
    return settings.load is LoadMode.REPLACE and not settings.takes_changes
