"""What there is to do: the source's batches and files beside the state's completions and ledger."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ingestkit import steps
from ingestkit.errors import ContractError, SourceError, UsageError
from ingestkit.model import CompletionStatus, FileStatus, FileVersion, Item, LoadMode
from ingestkit.ports import Source
from ingestkit.session import Session
from ingestkit.states import completions, ledger, rows, runs
from ingestkit.states.completions import Done
from ingestkit.states.lease import Lease


@dataclass(frozen=True, slots=True)
class Unit:
    """One batch's worth of work: which models, why, and which of the ledger's files are still to be fetched."""

    batch: str
    models: tuple[str, ...]
    reason: str
    wanted: Mapping[str, tuple[tuple[FileVersion, Item], ...]] = field(default_factory=dict)
    empty: bool = False
    newer: Mapping[str, str] = field(default_factory=dict)
    """Models whose files are only landed, by the waiting batch that takes their place (`catch_up: newest`)."""


@dataclass(frozen=True, slots=True)
class Found:
    units: tuple[Unit, ...] = ()
    late: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Batches that cannot be taken yet, and why; nothing behind the first of them is looked at."""
    unmapped: tuple[str, ...] = ()
    """Files of no model, seen now for the first time."""
    checkpoint: str | None = None


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


def discover(session: Session, lease: Lease, *, only: str | None = None, limit: int | None = None) -> Found:
    """All batches waiting for the models of the lease, oldest first, and done ones whose files have changed."""
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        row = runs.pipeline_row(conn, session.pipeline.name)
    floors: Mapping[str, str | None] = row["floors"] if row else {}
    position = checkpoint(session, done, floors)
    keys = list(session.source.batches(None))
    if only is not None and only not in keys:
        raise UsageError(f"the source has no batch {only!r}", hint=f"ingestkit runs list {session.pipeline.name}")
    plan = _sort_out(session, lease, keys, done, floors)
    units: list[Unit] = []
    waiting: dict[str, str] = {}
    unmapped: list[str] = []
    known = _known_files(session, [*plan.open, *plan.scan])
    waited = False
    for batch, models in sorted((plan.open | plan.scan).items(), key=lambda pair: session.pipeline.order(pair[0])):
        fresh = batch in plan.open
        look = _look(session, lease, batch, known[batch], models, redo=not fresh)
        if look.unsettled and not waited:
            waited = True
            _wait_quiet(session, look.unsettled)
            look = _look(session, lease, batch, _known_files(session, [batch])[batch], models, redo=not fresh)
        unmapped.extend(look.unmapped)
        if look.blocked:
            waiting[batch] = look.blocked
            if fresh:
                break
            continue
        if look.unit is not None:
            units.append(look.unit)
        if batch == only or (only is None and limit is not None and len(units) >= limit):
            break
    units = _only(session, units, waiting, only) if only is not None else units
    return Found(_caught_up(session, units, known), plan.late, waiting, tuple(unmapped), position)


def one_batch(session: Session, lease: Lease, batch: str, models: Sequence[str]) -> tuple[Unit | None, str | None]:
    """The work of one batch for an open run or a redo, whatever the state says of it: the unit, or why it must wait."""
    if batch not in list(session.source.batches(None)):
        return None, f"the source has no batch {batch!r} any more"
    look = _look(session, lease, batch, _known_files(session, [batch]).get(batch, []), tuple(models), redo=False)
    if look.unsettled:
        _wait_quiet(session, look.unsettled)
        look = _look(session, lease, batch, _known_files(session, [batch]).get(batch, []), tuple(models), redo=False)
    return look.unit, look.blocked


def sight_anew(session: Session, lease: Lease, batch: str, models: Sequence[str]) -> Unit:
    """Take every file of these models in the batch for a new version, whatever its size and time say."""
    now = session.clock.now()
    items = [item for item in session.source.items(batch) if set(item.models) & set(models)]
    latest = ledger.latest(_known_files(session, [batch])[batch])
    wanted: dict[str, list[tuple[FileVersion, Item]]] = {}
    with lease.transaction() as conn:
        for item in items:
            before = latest.get(item.path)
            file = before
            if before is None or before.status is not FileStatus.SEEN:
                file = _new_version(session, item, before.version + 1 if before else 1, now)
                rows.put_file_absent(conn, file, now)
            assert file is not None
            wanted.setdefault(item.models[0], []).append((file, item))
    return Unit(batch, tuple(models), "again", {model: tuple(pairs) for model, pairs in wanted.items()})


# --- which batches ---------------------------------------------------------------------------------------------------


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
        if newest is not None and order(batch) < order(newest) and unheard:
            late.append(batch)
            if settings.late == "report":
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


# --- one batch -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    unit: Unit | None = None
    blocked: str | None = None
    unsettled: tuple[FileVersion, ...] = ()
    unmapped: tuple[str, ...] = ()


def _look(
    session: Session, lease: Lease, batch: str, known: Sequence[FileVersion], models: tuple[str, ...], *, redo: bool
) -> _Look:
    """Sight the batch's files, note what is new in the ledger, and say what is to be done."""
    items = list(session.source.items(batch))
    latest = ledger.latest(known)
    now = session.clock.now()
    sighted = {item.path: _sight(session, item, latest.get(item.path), now, redo=redo) for item in items}
    before = latest
    latest = _note(session, latest, sighted, now)
    if not redo:
        latest = _note_gone(lease, latest, {item.path for item in items}, now)
    unmapped = tuple(item.path for item in items if not item.models and item.path not in before)
    mapped = [item for item in items if item.models]
    if redo:
        changed = {file.model for file in latest.values() if file.model and _is_unloaded(file)}
        models = tuple(model for model in models if model in changed)
        if not models:
            return _Look(unmapped=unmapped)
    wanted = {
        model: tuple((latest[item.path], item) for item in mapped if _is_wanted(latest[item.path], item, model))
        for model in models
    }
    blocked, unsettled = _arrived(session, latest, mapped, now)
    if blocked:
        return _Look(blocked=blocked, unsettled=unsettled, unmapped=unmapped)
    here = any(ledger.candidates(latest.values(), model) or wanted[model] for model in models)
    if not mapped and not here:
        match session.pipeline.settings.source.empty_batch:
            case "fail":
                raise SourceError(f"batch {batch} holds no file of any model, and source.empty_batch is fail")
            case "wait":
                return _Look(blocked="holds no file of any model yet", unmapped=unmapped)
            case _:
                return _Look(Unit(batch, models, "new", wanted, empty=True), unmapped=unmapped)
    return _Look(Unit(batch, models, "changed" if redo else "new", wanted), unmapped=unmapped)


def _is_unloaded(file: FileVersion) -> bool:
    """A version no publish has taken yet; one that was loaded and is only validated again is no work of `run`."""
    return file.status in (FileStatus.SEEN, FileStatus.LANDED, FileStatus.VALIDATED) and file.loaded is None


def _is_wanted(file: FileVersion, item: Item, model: str) -> bool:
    return model in item.models and file.status is FileStatus.SEEN


def _sight(session: Session, item: Item, before: FileVersion | None, now: datetime, *, redo: bool) -> FileVersion:
    """The ledger row that now stands for the item: the stored one, or a new version of it."""
    if before is None:
        return _new_version(session, item, 1, now)
    if before.status is FileStatus.FORGOTTEN:
        return _new_version(session, item, before.version + 1, now)
    if before.model is None and item.models and not redo:
        return _new_version(session, item, before.version + 1, now)
    if _unchanged(session, item, before):
        return before
    if before.status is FileStatus.SEEN:
        return replace(before, id=secrets.token_hex(8), size=item.size, mtime=item.mtime, sighted_at=now)
    if before.model is None:
        return before
    match session.pipeline.settings.source.on_changed:
        case "fail":
            raise SourceError(
                f"{item.path} has changed since it was taken ({before.size} → {item.size} bytes), and "
                "source.on_changed is fail",
                hint=f"ingestkit manifest show --path {item.path}",
            )
        case "ignore":
            new = _new_version(session, item, before.version + 1, now)
            return replace(new, status=FileStatus.SKIPPED, reason="changed; source.on_changed is ignore")
        case _:
            return _new_version(session, item, before.version + 1, now)


def _new_version(session: Session, item: Item, version: int, now: datetime) -> FileVersion:
    claimed = bool(item.models)
    return FileVersion(
        pipeline=session.pipeline.name,
        path=item.path,
        version=version,
        id=secrets.token_hex(8),
        batch=item.batch,
        model=item.models[0] if claimed else None,
        status=FileStatus.SEEN if claimed else FileStatus.QUARANTINED,
        size=item.size,
        mtime=item.mtime,
        sighted_at=now,
        reason=None if claimed else "no model claims it",
    )


def _unchanged(session: Session, item: Item, before: FileVersion) -> bool:
    if (item.size, item.mtime) != (before.size, before.mtime):
        return False
    if session.pipeline.settings.source.trust == "stat" or before.sha256 is None:
        return True
    return (item.digest or _hash(session.source, item)) == before.sha256


def _hash(source: Source, item: Item) -> str:
    total = hashlib.sha256()
    with source.open(item) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _note(
    session: Session, latest: Mapping[str, FileVersion], sighted: Mapping[str, FileVersion], now: datetime
) -> dict[str, FileVersion]:
    """Write what is new: sightings belong to no model, so they are inserted where absent and changed only unmoved."""
    fresh = [file for path, file in sighted.items() if latest.get(path) != file]
    if fresh:
        with session.state.write() as conn:
            for file in fresh:
                before = latest.get(file.path)
                if before is not None and before.version == file.version:
                    ledger.resight(conn, before, file, now)
                else:
                    rows.put_file_absent(conn, file, now)
            stored: dict[str, FileVersion] = {}
            for file in fresh:
                stored |= ledger.latest(ledger.of_path(conn, session.pipeline.name, file.path))
        steps.reached("discover.noted")
        return {**latest, **sighted, **stored}
    return {**latest, **sighted}


def _note_gone(lease: Lease, latest: dict[str, FileVersion], here: set[str], now: datetime) -> dict[str, FileVersion]:
    """A file that was seen and went before it was fetched is skipped, with that reason."""
    gone = [
        replace(file, status=FileStatus.SKIPPED, reason="gone before it was fetched", token=lease.token)
        for path, file in latest.items()
        if path not in here and file.status is FileStatus.SEEN and file.model in lease.models
    ]
    if not gone:
        return latest
    with lease.transaction() as conn:
        for file in gone:
            rows.put_file(conn, file, now)
    return latest | {file.path: file for file in gone}


def _arrived(
    session: Session, latest: Mapping[str, FileVersion], mapped: Sequence[Item], now: datetime
) -> tuple[str | None, tuple[FileVersion, ...]]:
    """Why the batch cannot be taken yet, and which files have not settled."""
    for item in mapped:
        if not item.ready:
            return f"{item.path} cannot be read yet: {item.waits_for}", ()
    settings = session.pipeline.settings.source
    quiet = settings.settle.quiet
    seen = [latest[item.path] for item in mapped if latest[item.path].status is FileStatus.SEEN]
    unsettled = tuple(file for file in seen if now - file.sighted_at < quiet)
    if unsettled:
        return f"{len(unsettled)} file(s) have not been quiet for {quiet.total_seconds():g} s", unsettled
    present = {model for item in mapped for model in item.models}
    missing = [model for model in settings.expect if model not in present]
    if missing:
        return f"no file of {', '.join(missing)} yet", ()
    return None, ()


def _wait_quiet(session: Session, unsettled: Sequence[FileVersion]) -> None:
    """Wait once, as long as the youngest sighting asks, saying so."""
    quiet = session.pipeline.settings.source.settle.quiet
    oldest_end = max(file.sighted_at for file in unsettled) + quiet
    seconds = max(0.0, (oldest_end - session.clock.now()).total_seconds())
    session.progress.said(f"waiting {seconds:.0f} s for {len(unsettled)} file(s) to settle")
    session.stop.wait(seconds)


def _known_files(session: Session, batches: Sequence[str]) -> dict[str, list[FileVersion]]:
    found: dict[str, list[FileVersion]] = {batch: [] for batch in batches}
    with session.state.read() as conn:
        for file in ledger.versions(conn, session.pipeline.name, list(batches)):
            found[file.batch].append(file)
    return found


def is_absent(session: Session, unit: Unit, model: str, known: Sequence[FileVersion]) -> bool:
    """Whether the batch has no file of the model; by the model's policy a failure, or a warning, where it has none."""
    if unit.wanted.get(model) or ledger.candidates(known, model):
        return False
    match session.pipeline.model(model).absent:
        case "fail":
            raise ContractError(f"batch {unit.batch} has no file of {model}, and its policy is absent: fail")
        case "warn":
            session.progress.warned(f"batch {unit.batch} has no file of {model}")
        case _:
            pass
    return True
