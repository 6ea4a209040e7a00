"""Control totals: what reports of the source say of a batch, kept with its extract for validate to compare with."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.model import Announced, FileVersion, Stage, Window, lies_in
from ingestkit.session import Session
from ingestkit.states import stage_rows
from ingestkit.states.stage_rows import StageRow

ANNOUNCED, AS_OF = "announced", "as_of"
"""Under which names it is kept among the details of extract."""


def announced(session: Session, batch: str, window: Window | None) -> tuple[Announced, ...]:
    """What reports say now. What they count that is of no model is told, since nothing is compared with it."""
    if session.pipeline.settings.source.totals is None:
        return ()
    found = tuple(session.source.announced(batch, window))
    for one in found:
        if not one.counts:
            session.progress.warned(f"{shown(one.report)} counts nothing: {shown(one.of)} is compared with nothing")
        if others := [f"{shown(name)} ({count:,})" for name, count in one.counts.items() if name not in one.models]:
            session.progress.warned(
                f"{shown(one.report)} counts records of no model: {', '.join(others)}",
                hint="let `names` or `files` of a model fit, if they are for one",
            )
    return found


def flagged(file: FileVersion, said: Sequence[Announced]) -> FileVersion:
    """The file with what its report says of it: whether it holds changes alone."""
    full = {one.full for one in said if one.full is not None and lies_in(file.path, one.of)}
    if len(full) > 1:
        raise SourceError(
            f"reports contradict each other over {shown(file.path)}: by one it is all there is, by another changes",
            hint="have the right one delivered again",
        )
    return replace(file, changes=not full.pop()) if full else file


def kept(
    session: Session,
    batch: str,
    model: str,
    seen: Sequence[Announced],
    files: Sequence[FileVersion],
    as_of: datetime | None,
) -> dict[str, Any]:
    """What is announced of a model, as details for its extract to keep; nothing where no reports are to come.

    Of `files` that the source does not show any more, what an earlier extract kept still holds.
    """
    if session.pipeline.settings.source.totals is None:
        return {}
    found = [one.of_model(model) for one in seen]
    unseen = [file.path for file in files if not any(lies_in(file.path, one.of) for one in seen)]
    if unseen:
        earlier = _kept_before(session, batch, model, as_of)
        found += [one for one in earlier if any(lies_in(path, one["of"]) for path in unseen)]
    return {ANNOUNCED: found} | ({AS_OF: as_of.isoformat()} if as_of is not None else {})


def _kept_before(session: Session, batch: str, model: str, as_of: datetime | None) -> list[dict[str, Any]]:
    """What the last extract kept, or the last at that time; one that went back to an earlier time does not count."""
    with session.state.read() as conn:
        left = stage_rows.left_of_batch(conn, session.pipeline.name, batch, Stage.EXTRACT, model, as_of)
        details = (one.work.details for one in left)
        found: list[dict[str, Any]] = next((one for one in details if AS_OF not in one), {}).get(ANNOUNCED) or []
    return found


def said(row: StageRow | None) -> list[dict[str, Any]]:
    """What an extract kept."""
    sidecar = row.work() if row is not None else None
    found: list[dict[str, Any]] = sidecar.work.details.get(ANNOUNCED, []) if sidecar is not None else []
    return found
