"""Which batches there are: those the source shows, or of a pipeline of windows the pieces of time that have ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from pydantic import ValidationError

from ingestkit.errors import UnknownBatch
from ingestkit.model import Window, instant
from ingestkit.pipeline import Clock, Pipeline
from ingestkit.session import Session
from ingestkit.settings import Batches as Settings
from ingestkit.states import completions, decisions, runs
from ingestkit.states.engine import StateDatabase
from ingestkit.states.lease import Lease
from ingestkit.windows import Cut, tiled

Batches: TypeAlias = Mapping[str, Window | None]


class Dated(Protocol):
    """A pipeline of windows, opened or only looked at."""

    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def state(self) -> StateDatabase: ...
    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class Missed:
    """Windows not done that are passed over for the newest, and where the last of them ends."""

    windows: int
    first: str
    last: str
    until: datetime


def batches(session: Session, *, whole: bool = True) -> Batches:
    """The batches there are, oldest first, each with its window where it is one.

    A window that is done, published or being worked on stays as it was cut; behind them today's settings cut. Windows
    that all models begin after, and that need not stay, are named only where the `whole` is asked for.
    """
    if session.pipeline.settings.source.batches.window is None:
        return dict.fromkeys(session.source.batches(_last(session)))
    return windows(session, whole=whole)


def shows(session: Session, batch: str) -> bool:
    """Whether there is the batch, done or not: where each follows another, what is listed are those that come next."""
    follows = session.pipeline.settings.source.type == "vault"
    return batch in batches(session) or (follows and any(session.source.items(batch)))


def _last(session: Session) -> str | None:
    """Behind which batch a source is asked for more whose batches follow each other; others show all they hold."""
    if session.pipeline.settings.source.type != "vault":
        return None
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
        passed = {batch for batch, _ in completions.done(conn, session.pipeline.name)}
    passed.update(floor for floor in (row["floors"] if row else {}).values() if floor is not None)
    return max(passed, key=session.pipeline.order, default=None)


def windows(session: Dated, *, whole: bool) -> Mapping[str, Window]:
    """The batches of a pipeline of windows; the source is not asked."""
    cut = session.pipeline.settings.source.batches.cut()
    known, begun, floor = _known(session)
    since = _since(cut, known, begun)
    before: list[Window] = []
    if not whole and floor is not None:
        since = max(since, floor.end)
        before = sorted((one for one in known if one.start < since), key=lambda one: one.start)
    return {one.key: one for one in [*before, *tiled(cut, since, ended_by(session), known)]}


def ended_by(session: Dated) -> datetime:
    """The instant by which a window has ended that may be taken now, by the clock of all who use the state."""
    with session.state.read() as conn:
        return session.state.now(conn, session.clock) - session.pipeline.settings.source.batches.lag


def begin(session: Session, lease: Lease) -> None:
    """Write down where windows begin, before the first of them is at work: a `start` said later moves nothing of it."""
    settings = session.pipeline.settings.source.batches
    if settings.window is None:
        return
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
        if row is not None and row["windows_from"] is not None and completions.is_any(conn, session.pipeline.name):
            return
    known, begun, _ = _known(session)
    if begun is None or not known:
        _note_begin(session, lease, _since(settings.cut(), known, None))


def begin_again(session: Session, lease: Lease) -> None:
    """Write down where windows began, of a state built again, by what its first run was told: no sidecar says it."""
    name = session.pipeline.name
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, name)
        chain = decisions.chain(conn, name)
        reset = max((one.at for one in chain if one.kind == "reset"), default=None)
        first = runs.first_run(conn, name, reset)
    if first is None or (row is not None and row["windows_from"] is not None):
        return
    said = first.config["pipeline"]["source"]["batches"]
    if said.get("window") is None:
        return
    known, _, _ = _known(session)
    steps_over = [one for one in chain if one.kind in ("skip", "set") and (reset is None or one.at > reset)]
    if known and any(one.at < first.started_at for one in steps_over):
        # Windows began with that decision, and what the first run was told later moved nothing.
        _note_begin(session, lease, min(one.start for one in known))
        return
    try:
        then = Settings.model_validate({key: value for key, value in said.items() if key in Settings.model_fields})
    except ValidationError:
        session.progress.warned(
            f"where windows of {name} began is not known any more: what its first run, {first.run_id}, was told is not "
            "valid today",
            hint="leave source.batches.start as it is",
        )
        return
    _note_begin(session, lease, _since(then.cut(), known, None))


def _note_begin(session: Session, lease: Lease, at: datetime) -> None:
    with lease.transaction() as conn:
        runs.update_pipeline(conn, session.pipeline.name, windows_from=at)


def _since(cut: Cut, known: Sequence[Window], begun: datetime | None) -> datetime:
    return begun if begun is not None and known else min([cut.start, *(one.start for one in known)])


def _known(session: Dated) -> tuple[list[Window], datetime | None, Window | None]:
    """The windows that stay as they are, where the first of all began, and the last that no model is to be done for."""
    name = session.pipeline.name
    with session.state.read() as conn:
        ends = completions.windows(conn, name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, name) if run.batch is not None}
        loose = sorted({*at_work, *completions.not_completed(conn, name)} - set(ends))
        ends |= runs.windows(conn, name, loose)
        row = runs.pipeline_row(conn, name)
    floors: Mapping[str, str | None] = (row["floors"] if row else None) or {}
    floor_ends = (row["floor_ends"] if row else None) or {}
    ends |= {key: instant(end) for key, end in floor_ends.items() if key not in ends}
    common = [floors.get(model) for model in session.pipeline.models]
    lowest = None if None in common else min(one for one in common if one is not None)
    floor = Window.of_key(lowest, ends[lowest]) if lowest in ends else None
    return [Window.of_key(key, end) for key, end in ends.items()], row["windows_from"] if row else None, floor


def window_of(session: Session, batch: str) -> Window | None:
    """The window that a batch is, by what was done of it."""
    name = session.pipeline.name
    with session.state.read() as conn:
        end = completions.window_end(conn, name, batch) or runs.windows(conn, name, [batch]).get(batch)
    return Window.of_key(batch, end) if end is not None else None


def ended(session: Session, batch: str) -> Window | None:
    """The window that begins with this key and has ended; of other pipelines nothing is a window."""
    if session.pipeline.settings.source.batches.window is None:
        return None
    found = batches(session).get(batch)
    if found is None:
        raise no_window(session, batch)
    return found


def no_window(session: Session, batch: str) -> UnknownBatch:
    name = session.pipeline.name
    return UnknownBatch(
        f"no window of {name} that has ended begins at {batch}", hint=f"those that wait: ingestkit plan {name}"
    )
