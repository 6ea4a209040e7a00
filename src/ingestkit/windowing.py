"""Which batches there are: those the source shows, or of a pipeline of windows the pieces of time that have ended."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from ingestkit.errors import UnknownBatch
from ingestkit.model import Window, instant
from ingestkit.session import Session
from ingestkit.states import completions, runs
from ingestkit.states.lease import Lease
from ingestkit.windows import Cut, tiled

Batches: TypeAlias = Mapping[str, Window | None]


def batches(session: Session) -> Batches:
    """The batches there are, oldest first, each with its window where it is one.

    A window that is done, published or being worked on stays as it was cut; behind them today's settings cut.
    """
    settings = session.pipeline.settings.source.batches
    if settings.window is None:
        return dict.fromkeys(session.source.batches(None))
    cut = settings.cut()
    known, begun = _known(session)
    until = session.clock.now() - settings.lag
    return {one.key: one for one in tiled(cut, _since(cut, known, begun), until, known)}


def begin(session: Session, lease: Lease) -> None:
    """Write down where windows begin, before the first of them is at work: a `start` said later moves nothing of it."""
    settings = session.pipeline.settings.source.batches
    if settings.window is None:
        return
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
        if row is not None and row["windows_from"] is not None and completions.is_any(conn, session.pipeline.name):
            return
    known, begun = _known(session)
    if begun is None or not known:
        with lease.transaction() as conn:
            runs.update_pipeline(conn, session.pipeline.name, windows_from=_since(settings.cut(), known, None))


def _since(cut: Cut, known: Sequence[Window], begun: datetime | None) -> datetime:
    return begun if begun is not None and known else min([cut.start, *(one.start for one in known)])


def _known(session: Session) -> tuple[list[Window], datetime | None]:
    """The windows that stay as they are, and where the first of all began."""
    name = session.pipeline.name
    with session.state.read() as conn:
        ends = completions.windows(conn, name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, name) if run.batch is not None}
        loose = sorted({*at_work, *completions.unjudged(conn, name)} - set(ends))
        ends |= runs.windows(conn, name, loose)
        row = runs.pipeline_row(conn, name)
    floors = (row["floor_ends"] if row else None) or {}
    ends |= {key: instant(end) for key, end in floors.items() if key not in ends}
    return [Window.of_key(key, end) for key, end in ends.items()], row["windows_from"] if row else None


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
