"""Which batches there are: those the source shows, or of a pipeline of windows the pieces of time that have ended."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

from ingestkit.errors import UsageError
from ingestkit.model import Window
from ingestkit.session import Session
from ingestkit.states import completions, runs
from ingestkit.windows import tiled

Batches: TypeAlias = Mapping[str, Window | None]


def batches(session: Session) -> Batches:
    """The batches there are, oldest first, each with its window where it is one.

    A window that is done, published or being worked on stays as it was cut; behind them today's settings cut.
    """
    settings = session.pipeline.settings.source.batches
    if settings.window is None:
        return dict.fromkeys(session.source.batches(None))
    cut = settings.cut()
    known, floored, touched = _known(session)
    begins = sorted({one.start for one in known} | ({floored} if floored else set()))
    # A model of which nothing is done begins at the start, whatever is done of the others.
    since = min([*begins[:1], *([] if touched and begins else [cut.start])])
    until = session.clock.now() - settings.lag
    return {one.key: one for one in tiled(cut, since, until, known, [floored] if floored else [])}


def _known(session: Session) -> tuple[list[Window], datetime | None, bool]:
    """The windows that stay as they are, up to where all was taken as done, and whether every model has begun."""
    name = session.pipeline.name
    with session.state.read() as conn:
        ends = completions.windows(conn, name)
        at_work = {run.batch for run, _ in runs.open_runs(conn, name) if run.batch is not None}
        loose = sorted({*at_work, *completions.unjudged(conn, name)} - set(ends))
        ends |= runs.windows(conn, name, loose)
        row = runs.pipeline_row(conn, name)
        begun = completions.models(conn, name)
    begun |= {model for model, floor in (row["floors"] if row else {}).items() if floor is not None}
    floored: datetime | None = row["cut_from"] if row else None
    return [Window.of_key(key, end) for key, end in ends.items()], floored, begun >= set(session.pipeline.models)


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
        raise UsageError(
            f"no window of {session.pipeline.name} that has ended begins at {batch}",
            hint=f"ingestkit plan {session.pipeline.name} names those that wait",
        )
    return found
