"""One batch as the source shows it now, beside the ledger: what is new or changed, and whether it has arrived."""

import hashlib
import secrets
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from ingestkit import steps
from ingestkit.errors import ContractError, NotArrived, SourceError
from ingestkit.files import shown
from ingestkit.model import Announced, FileStatus, FileVersion, Item, Window
from ingestkit.ports import Source
from ingestkit.session import Session
from ingestkit.states import completions, ledger, rows
from ingestkit.states.lease import Lease
from ingestkit.totals import announced, flagged
from ingestkit.windowing import shows


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
    window: Window | None = None
    unmapped: tuple[tuple[FileVersion, Item], ...] = ()
    """Files that no model claims and that are to be kept, of this batch and of done ones."""
    announced: tuple[Announced, ...] = ()
    """What reports of the source say of how much there is."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Stands for the lease where nothing is written: what would have been noted in the ledger is kept here."""

    models: tuple[str, ...]
    noted: dict[tuple[str, int], FileVersion] = field(default_factory=dict)

    def note(self, files: Iterable[FileVersion]) -> None:
        self.noted.update({(file.path, file.version): file for file in files})

    def settle(self, files: Iterable[FileVersion], quiet: timedelta) -> None:
        """Take files for sighted so long ago that they have settled."""
        self.note(replace(file, sighted_at=file.sighted_at - quiet) for file in files)

    def over(self, known: Iterable[FileVersion], batch: str) -> list[FileVersion]:
        """The files of a batch as the ledger would know them now."""
        noted = {key: file for key, file in self.noted.items() if file.batch == batch}
        return list(({(file.path, file.version): file for file in known} | noted).values())


UNMAPPED = "no model claims it"
UNFETCHED, UNPUBLISHED = "gone before it was fetched", "gone before it was published"
"""Why a file was left out that may come again."""

Turn: TypeAlias = Lease | Sketch
"""By what right the ledger is looked at: with the lease of models it is written, with a sketch of them it is not."""


def one_batch(
    session: Session, lease: Lease, batch: str, models: Sequence[str], window: Window | None
) -> tuple[Unit | None, str | None]:
    """The work of one batch for an open run or a redo, whatever the state says of it: the unit, or why it must wait."""
    if window is None and not shows(session, batch):
        return None, f"the source has no batch {batch!r} any more"

    def look() -> Look:
        known = known_files(session, [batch])[batch]
        found = look_at(session, lease, batch, known, tuple(models), window=window, redo=False, landed_stays=True)
        return with_announced(session, found)

    found = look()
    if found.unsettled:
        wait_quiet(session, found.unsettled)
        found = look()
    return found.unit, found.blocked


def sight_anew(session: Session, lease: Lease, batch: str, models: Sequence[str], window: Window | None) -> Unit:
    """Take every file of these models in the batch for a new version, whatever its size and time say."""
    now = session.clock.now()
    items = [item for item in session.source.items(batch, window) if set(item.models) & set(models)]
    latest = ledger.latest(known_files(session, [batch])[batch])
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
    found = {model: tuple(pairs) for model, pairs in wanted.items()}
    return _told(Unit(batch, tuple(models), "again", found, window=window), announced(session, batch, window))


def is_absent(session: Session, unit: Unit, model: str, known: Sequence[FileVersion]) -> bool:
    """Whether the batch has no file of the model; by the model's policy a failure, or a warning, where it has none."""
    if unit.wanted.get(model) or ledger.candidates(known, model):
        return False
    match session.pipeline.model(model).absent:
        case "fail":
            error = ContractError(f"batch {unit.batch} has no file of {model}, and its policy is absent: fail")
            error.incident = "missing"
            raise error
        case "warn":
            told = f"batch {unit.batch} has no file of {model}"
            session.progress.warned(told)
            session.notice("missing", f"{unit.batch}/{model}", told)
        case _:
            pass
    return True


@dataclass(frozen=True, slots=True)
class Look:
    unit: Unit | None = None
    blocked: str | None = None
    unsettled: tuple[FileVersion, ...] = ()
    unmapped: tuple[str, ...] = ()
    to_keep: tuple[tuple[FileVersion, Item], ...] = ()
    """Files that no model claims and that are not in the lake."""


def look_at(
    session: Session,
    turn: Turn,
    batch: str,
    known: Sequence[FileVersion],
    models: tuple[str, ...],
    *,
    window: Window | None,
    redo: bool,
    landed_stays: bool = False,
    judge: Collection[str] = (),
) -> Look:
    """Sight the batch's files, note what is new in the ledger, and say what is to be done.

    `redo` looks for what has changed in a done batch; the models of `judge` are published, and wait for their gate all
    the same. `landed_stays` is for a run that goes on: what it had landed is
    its own, though the source may not show it any more.
    """
    try:
        items = _without_released(session, session.source.items(batch, window), latest := ledger.latest(known))
    except NotArrived as error:
        return Look(blocked=error.message)
    moved: dict[str, FileVersion] = {}
    if window is not None:
        moved, staying = _of_other_windows(session, {item.path for item in items} - set(latest))
        items = [item for item in items if item.path not in staying]
        latest |= moved
    now = session.clock.now()
    sighted = {item.path: _sight(session, item, latest.get(item.path), now, redo=redo) for item in items}
    before = latest
    latest = _note(session, turn, latest, sighted, now)
    _note_moved(turn, batch, moved.values(), now)
    latest = _note_gone(session, turn, latest, sighted, now, landed_stays=landed_stays, redo=redo, known=known)
    everything = list({(file.path, file.version): file for file in (*known, *latest.values())}.values())
    unmapped = tuple(path for path, file in latest.items() if _is_of_no_model_now(file, before.get(path)))
    to_keep = _to_keep(session, latest, items, now)
    mapped = [item for item in items if item.models]
    if redo:
        changed = {file.model for file in latest.values() if _is_unloaded(file) or _still_fails(session, file)}
        # A model all of whose files are forgotten and gone is left as it is.
        let_go = {file.model for file in everything if _is_let_go(file, latest, sighted)}
        changed |= {model for model in let_go if model and ledger.candidates(everything, model)}
        models = tuple(model for model in models if model in changed or model in judge)
        if not models:
            return Look(unmapped=unmapped, to_keep=to_keep)
    wanted = {
        model: tuple((latest[item.path], item) for item in mapped if _is_wanted(latest[item.path], item, model))
        for model in models
    }
    loaded = {model for model in session.pipeline.models if ledger.candidates(everything, model)}
    blocked, unsettled = _arrived(session, latest, mapped, loaded, now)
    if blocked:
        return Look(blocked=blocked, unsettled=unsettled, unmapped=unmapped)
    landed = any(ledger.candidates(everything, model) or wanted[model] for model in models)
    if not mapped and not landed and not redo:
        match session.pipeline.settings.source.empty_batch:
            case "fail":
                raise SourceError(f"batch {batch} holds no file of any model, and source.empty_batch is fail")
            case "wait":
                return Look(blocked="holds no file of any model yet", unmapped=unmapped)
            case _:
                unit = Unit(batch, models, "new", wanted, empty=True, window=window, unmapped=to_keep)
                return Look(unit, unmapped=unmapped)
    reason = "new"
    if redo:
        reason = "not judged" if set(models) <= set(judge) and not any(wanted.values()) else "changed"
    return Look(Unit(batch, models, reason, wanted, window=window, unmapped=to_keep), unmapped=unmapped)


def with_announced(session: Session, look: Look) -> Look:
    """The same with what reports say. They are read only where there is work, and waited for while they are written."""
    if look.unit is None:
        return look
    try:
        said = announced(session, look.unit.batch, look.unit.window)
    except NotArrived as error:
        return Look(blocked=error.message, unmapped=look.unmapped)
    return replace(look, unit=_told(look.unit, said))


def _told(unit: Unit, said: tuple[Announced, ...]) -> Unit:
    """The same work with what reports say of it, and of each of its files."""
    wanted = {model: tuple((flagged(file, said), item) for file, item in pairs) for model, pairs in unit.wanted.items()}
    unmapped = tuple((flagged(file, said), item) for file, item in unit.unmapped)
    return replace(unit, wanted=wanted, unmapped=unmapped, announced=said)


def _without_released(session: Session, shown: Iterable[Item], latest: Collection[str]) -> list[Item]:
    """Without what was let go of and lies in the drop still, wherever settings put it then."""
    items = list(shown)
    places = {item.archive or item.path for item in items if item.path not in latest}
    if not places:
        return items
    with session.state.read() as conn:
        gone = ledger.released_to(conn, session.pipeline.name, sorted(places))
    return [item for item in items if (item.archive or item.path) not in gone]


def _of_other_windows(session: Session, paths: Collection[str]) -> tuple[dict[str, FileVersion], frozenset[str]]:
    """Files that were in another window before time was cut anew: those that come here, and those that stay there."""
    if not paths:
        return {}, frozenset()
    with session.state.read() as conn:
        found = ledger.newest_of(conn, session.pipeline.name, sorted(paths))
        done = completions.among(conn, session.pipeline.name, sorted({file.batch for file in found}))
    staying = frozenset(file.path for file in found if file.batch in done)
    return {file.path: file for file in found if file.path not in staying}, staying


def _note_moved(turn: Turn, batch: str, moved: Iterable[FileVersion], now: datetime) -> None:
    told = f"belongs to window {batch} since time is cut otherwise"
    mine = (None, *turn.models)
    left = [file for file in moved if ledger.is_unpublished(file) and file.model in mine]
    _put(turn, [replace(file, status=FileStatus.SKIPPED, reason=told) for file in left], now)


def _put(turn: Turn, files: Sequence[FileVersion], now: datetime) -> None:
    if not files:
        return
    if isinstance(turn, Sketch):
        turn.note(files)
        return
    with turn.transaction() as conn:
        for file in files:
            rows.put_file(conn, replace(file, token=turn.token), now)


def _to_keep(
    session: Session, latest: Mapping[str, FileVersion], items: Iterable[Item], now: datetime
) -> tuple[tuple[FileVersion, Item], ...]:
    """Files of no model that have settled and are not in the lake; one that could not be read is not tried again."""
    settings = session.pipeline.settings.source
    if settings.unmapped == "list":
        return ()
    pairs = ((latest[item.path], item) for item in items if item.ready and not item.models)
    quiet = settings.settle.quiet
    return tuple((file, item) for file, item in pairs if _waits_unmapped(file) and now - file.sighted_at >= quiet)


def _is_of_no_model_now(file: FileVersion, before: FileVersion | None) -> bool:
    """Whether nobody was told of it yet."""
    return file.model is None and (before is None or before.version < file.version)


def _waits_unmapped(file: FileVersion) -> bool:
    return (file.status, file.raw, file.reason) == (FileStatus.QUARANTINED, None, UNMAPPED)


def _is_unloaded(file: FileVersion) -> bool:
    """A version no publish has taken yet; one that was loaded and is only validated again is no work of `run`."""
    return file.status in (FileStatus.SEEN, FileStatus.LANDED, FileStatus.VALIDATED) and file.loaded is None


def _still_fails(session: Session, file: FileVersion) -> bool:
    """A file kept out whole waits for a person, but where policy is that its batch fails until one has come."""
    fails = session.pipeline.settings.validation.on_bad_file == "fail"
    return fails and file.status is FileStatus.QUARANTINED and file.raw is not None and file.loaded is None


def _is_let_go(file: FileVersion, latest: Mapping[str, FileVersion], here: Collection[str]) -> bool:
    """A forgotten version whose rows are still published, and which comes no more: the batch goes on without it.

    Its file is gone, or is of no model any more.
    """
    if file.status is not FileStatus.FORGOTTEN or not file.loaded:
        return False
    newest = latest.get(file.path, file)
    return newest.model is None or (newest.version == file.version and file.path not in here)


def _is_wanted(file: FileVersion, item: Item, model: str) -> bool:
    return model in item.models and file.status is FileStatus.SEEN


def _sight(session: Session, item: Item, before: FileVersion | None, now: datetime, *, redo: bool) -> FileVersion:
    """The ledger row that now stands for the item: the stored one, or a new version of it."""
    if before is None:
        return _new_version(session, item, 1, now)
    if before.status is FileStatus.FORGOTTEN or before.batch != item.batch or _had_gone(before):
        return _new_version(session, item, before.version + 1, now)
    if before.model is None and item.models and not redo:
        return _new_version(session, item, before.version + 1, now)
    if _unchanged(session, item, before):
        # A sighting in the future is of a clock that has gone back since.
        waits = before.status is FileStatus.SEEN or _waits_unmapped(before)
        early = waits and before.sighted_at > now
        return replace(before, sighted_at=now) if early else before
    if before.status is FileStatus.SEEN:
        return replace(before, id=secrets.token_hex(8), size=item.size, mtime=item.mtime, sighted_at=now)
    if before.model is None:
        given_up = before.status is not FileStatus.QUARANTINED or bool(item.models)
        return before if given_up else _unmapped_again(session, item, before, now)
    if ledger.is_unpublished(before):
        # Nothing of it was published: this is a correction, which no policy for restated files is about.
        return _new_version(session, item, before.version + 1, now)
    return _restated(session, item, before, now)


def _unmapped_again(session: Session, item: Item, before: FileVersion, now: datetime) -> FileVersion:
    """A file of no model has changed: another version where the one before is in the lake, and is that one else."""
    if before.raw is not None:
        return _new_version(session, item, before.version + 1, now)
    return replace(before, id=secrets.token_hex(8), size=item.size, mtime=item.mtime, sighted_at=now, reason=UNMAPPED)


def _had_gone(before: FileVersion) -> bool:
    """Whether a file that is here again was left out for being gone, and so was never loaded."""
    return before.status is FileStatus.SKIPPED and before.reason in (UNFETCHED, UNPUBLISHED)


def _restated(session: Session, item: Item, before: FileVersion, now: datetime) -> FileVersion:
    """The version that stands for a file which is not as it was taken, by the pipeline's policy."""
    match session.pipeline.settings.source.on_changed:
        case "fail":
            if item.size == before.size and _hash(session.source, item) == before.sha256:
                new = _new_version(session, item, before.version + 1, now)
                same = f"same content as version {before.version}"
                return replace(new, status=FileStatus.SKIPPED, sha256=before.sha256, reason=same)
            path = shlex.quote(item.path)
            raise SourceError(
                f"{item.path} has changed since it was taken ({before.size} → {item.size} bytes), and "
                "source.on_changed is fail",
                hint=f"to take it as it is now: ingestkit manifest forget {session.pipeline.name} --path {path} "
                "--reason '...'",
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
        reason=None if claimed else UNMAPPED,
    )


def _unchanged(session: Session, item: Item, before: FileVersion) -> bool:
    if (item.size, item.mtime) != (before.size, before.mtime):
        return False
    if session.pipeline.settings.source.trust == "stat" or before.sha256 is None or before.model is None:
        return True
    return (item.digest or _hash(session.source, item)) == before.sha256


def _hash(source: Source, item: Item) -> str:
    total = hashlib.sha256()
    with source.open(item) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _note(
    session: Session,
    turn: Turn,
    latest: Mapping[str, FileVersion],
    sighted: Mapping[str, FileVersion],
    now: datetime,
) -> dict[str, FileVersion]:
    """Write what is new: sightings belong to no model, so they are inserted where absent and changed only unmoved."""
    fresh = [file for path, file in sighted.items() if latest.get(path) != file]
    if isinstance(turn, Sketch):
        turn.note(fresh)
    elif fresh:
        with session.state.write() as conn:
            for file in fresh:
                before = latest.get(file.path)
                if before is not None and before.version == file.version:
                    ledger.resight(conn, before, file, now)
                else:
                    rows.put_file_absent(conn, file, now)
            stored = {
                file.path: file for file in ledger.newest_of(conn, session.pipeline.name, [file.path for file in fresh])
            }
        steps.reached("discover.noted")
        return {**latest, **sighted, **stored}
    return {**latest, **sighted}


def _note_gone(
    session: Session,
    turn: Turn,
    latest: dict[str, FileVersion],
    here: Collection[str],
    now: datetime,
    *,
    landed_stays: bool,
    redo: bool,
    known: Iterable[FileVersion],
) -> dict[str, FileVersion]:
    """A file that went before it was fetched, or before a new attempt could publish it, is skipped with that reason.

    What a person assigned to a model was in the lake before, and its source is not waited for.
    """
    assigned = ledger.raw_of_no_model(known)
    gone = []
    for path, file in latest.items():
        if path in here or file.model not in turn.models:
            continue
        if file.status is FileStatus.SEEN:
            gone.append(replace(file, status=FileStatus.SKIPPED, reason=UNFETCHED))
        elif ledger.is_unpublished(file) and not landed_stays and file.raw not in assigned:
            session.progress.warned(f"{path} is gone from the source before it was published, and is left out")
            gone.append(replace(file, status=FileStatus.SKIPPED, reason=UNPUBLISHED))
        elif file.status is FileStatus.FORGOTTEN and file.loaded and not redo:
            # A reset forgets every file.
            session.progress.warned(
                f"{shown(path)} was loaded before, was forgotten, and is gone from the source: its batch goes without",
                hint="have it delivered again, if its rows are wanted",
            )
    _put(turn, gone, now)
    return latest | {file.path: file for file in gone}


def _arrived(
    session: Session,
    latest: Mapping[str, FileVersion],
    mapped: Sequence[Item],
    landed: Collection[str],
    now: datetime,
) -> tuple[str | None, tuple[FileVersion, ...]]:
    """Why the batch cannot be taken yet, and which files have not settled; of `landed` models there are files."""
    for item in mapped:
        if not item.ready:
            return f"{item.path} cannot be read yet: {item.waits_for}", ()
    settings = session.pipeline.settings.source
    quiet = settings.settle.quiet
    seen = [latest[item.path] for item in mapped if latest[item.path].status is FileStatus.SEEN]
    unsettled = tuple(file for file in seen if now - file.sighted_at < quiet)
    if unsettled:
        return f"{len(unsettled)} file(s) have not been quiet for {quiet.total_seconds():g} s", unsettled
    present = {*landed, *(model for item in mapped for model in item.models)}
    missing = [model for model in settings.expect if model not in present]
    if missing:
        return f"no file of {', '.join(missing)} yet", ()
    return None, ()


def wait_quiet(session: Session, unsettled: Sequence[FileVersion]) -> None:
    """Wait once, as long as the youngest sighting asks, saying so."""
    quiet = session.pipeline.settings.source.settle.quiet
    oldest_end = max(file.sighted_at for file in unsettled) + quiet
    seconds = min(max(0.0, (oldest_end - session.clock.now()).total_seconds()), quiet.total_seconds())
    session.progress.said(f"waiting {seconds:.0f} s for {len(unsettled)} file(s) to settle")
    session.stop.wait(seconds)


def known_files(session: Session, batches: Sequence[str], turn: Turn | None = None) -> dict[str, list[FileVersion]]:
    """By batch: what the ledger knows, and what a sketch has noted."""
    found: dict[str, list[FileVersion]] = {batch: [] for batch in batches}
    with session.state.read() as conn:
        for file in ledger.versions(conn, session.pipeline.name, list(batches)):
            found[file.batch].append(file)
    if isinstance(turn, Sketch):
        return {batch: turn.over(files, batch) for batch, files in found.items()}
    return found
