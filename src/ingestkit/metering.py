"""What meters are told of a pipeline, and when: counted with the rows it speaks of, told at the end of the command."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal

import sqlalchemy as sql

from ingestkit.active import Active
from ingestkit.errors import IngestkitError
from ingestkit.files import shown
from ingestkit.model import CompletionStatus, FileVersion, Sidecar, Stage, StageStatus
from ingestkit.observe import logging
from ingestkit.observe.measured import Measured
from ingestkit.observe.tracing import span_id
from ingestkit.pipeline import RunContext
from ingestkit.ports import Measure, Meter, Span
from ingestkit.session import Session
from ingestkit.states import completions, stage_totals
from ingestkit.states.stage_totals import FIGURES, Growth, StageTotal

SHOWN: Mapping[str, tuple[str, Literal["", "s", "By"], str]] = {
    "seconds": ("stage.duration", "s", "how long stages took"),
    "retries": ("stage.retries", "", "how often stages were begun once more"),
    "bytes": ("landed", "By", "bytes of files that landed in the lake"),
    "rows_read": ("rows.read", "", "records found in files"),
    "rows_valid": ("rows.valid", "", "records that keep their contract"),
    "rows_rejected": ("rows.rejected", "", "records that do not"),
    "rows_loaded": ("rows.loaded", "", "rows written to target tables"),
}
"""Figures of the state as meters name them."""
ENDINGS = ("done", "skipped", "failed", "interrupted")
EVERY = "_all"
"""What stands for all models, where a stage has one row for them; no model is called so."""


def retried(session: Session, conn: sql.Connection, stage: Stage, model: str, retry: int) -> list[Growth]:
    """Count a stage that is begun; the first time is no retry."""
    if session.measured is None or retry == 0:
        return []
    return [stage_totals.add_retry(conn, session.pipeline.name, stage, model, session.clock.now())]


def recorded(session: Session, conn: sql.Connection, sidecar: Sidecar) -> list[Growth]:
    """Count what a sidecar says, where its row has just been written: by whoever writes it, and by nobody else."""
    if session.measured is None:
        return []
    return [stage_totals.add_recorded(conn, sidecar, session.clock.now())]


def ended_badly(
    active: Active, conn: sql.Connection, stage: Stage, model: str, status: StageStatus, now: datetime
) -> list[Growth]:
    if active.session.measured is None:
        return []
    return [stage_totals.add_ended_badly(conn, active.run, stage, model, status, now)]


def note(session: Session, several: Sequence[Growth]) -> None:
    """Keep what was counted for the meters that want to know what this command did. Called once it is committed."""
    if session.measured is not None:
        for one in several:
            session.measured.grew(one.stage.value, one.model, one.added)


@dataclass(slots=True)
class _Times:
    """When a piece of work began and ended, and how; it has failed until it is seen not to."""

    began: datetime
    failed: bool = True
    ended: datetime | None = None


def ids(active: Active, *what: str) -> dict[str, str]:
    """What lines of a log carry so that they are found by the span they belong to."""
    tracing, run = active.session.tracing, active.run
    if tracing is None:
        return {}
    return {"trace_id": tracing.trace_id(run.run_id), "span_id": span_id(run.run_id, active.lease.token, *what)}


@contextmanager
def worked_on(active: Active) -> Iterator[None]:
    """The time this command works on a run: the span that those of its stages are parts of."""
    measured, tracing = active.session.measured, active.session.tracing
    if tracing is None:
        yield
        return
    times = _Times(active.session.clock.now())
    try:
        with logging.bound(**ids(active)):
            yield
        times.failed = False
    finally:
        if measured is not None and measured.traced:
            measured.spent(_span(active, "run", (), tracing.parent_id(), times, {}))


def spent(active: Active, several: Sequence[Growth]) -> None:
    """The spans of stages that have ended."""
    measured = active.session.measured
    for one in several:
        if measured is None or not measured.traced or one.started is None or one.ended is None:
            continue
        failed = "failed" in one.added or "interrupted" in one.added
        tags: dict[str, str | int] = {"model": named(one.model), "stage": one.stage.value}
        tags |= {name: int(one.added[name]) for name in FIGURES.get(one.stage, ()) if name in one.added}
        times, above = _Times(one.started, failed, one.ended), ids(active)["span_id"]
        measured.spent(_span(active, one.stage.value, (one.stage.value, one.model), above, times, tags))


def watched(active: Active, stage: Stage, model: str, ctx: RunContext) -> RunContext:
    """The same context, in which each file is timed."""
    measured = active.session.measured
    if measured is None or not measured.traced:
        return ctx
    return replace(ctx, watched=partial(_watched, active, measured, stage, model))


@contextmanager
def _watched(active: Active, measured: Measured, stage: Stage, model: str, file: FileVersion) -> Iterator[None]:
    tags: dict[str, str | int] = {"model": model, "stage": stage.value, "file": shown(file.path), "file_id": file.id}
    above, times = ids(active, stage.value, model)["span_id"], _Times(active.session.clock.now())
    try:
        yield
        times.failed = False
    finally:
        # A file that is tried again has a span for each try.
        mine = (stage.value, model, file.id, times.began.isoformat())
        measured.spent_on_file(_span(active, f"{stage.value} file", mine, above, times, tags | {"bytes": file.size}))


def _span(
    active: Active,
    name: str,
    what: tuple[str, ...],
    parent: str | None,
    times: _Times,
    tags: Mapping[str, str | int],
) -> Span:
    measured, run, mine = active.session.measured, active.run, ids(active, *what)
    facts = {"pipeline": run.pipeline, "batch": run.batch or "", "run_id": run.run_id}
    known = {**(measured.tags if measured is not None else {}), **facts, **tags}
    # A clock that was set back makes no time run backwards.
    ended = max(times.began, times.ended or active.session.clock.now())
    return Span(name, mine["trace_id"], mine["span_id"], parent, times.began, ended, known, times.failed)


def tell(session: Session) -> None:
    """Tell all meters side by side, and wait for none of them longer than patience lasts. What fails is a warning."""
    measured = session.measured
    if measured is None:
        return
    at = session.clock.now()
    try:
        measures = tuple(_measures(session))
    except IngestkitError as error:
        session.progress.warned(f"figures were not told to meters: {error.message}")
        return
    spans = (*measured.spans, *measured.files)
    wrong: dict[str, str] = dict.fromkeys(measured.meters, f"did not answer in {measured.patience:g} s")

    def one(kind: str, opened: Callable[[], Meter]) -> None:
        try:
            opened().tell(at, measures, spans)
        except IngestkitError as error:
            wrong[kind] = error.message
        else:
            del wrong[kind]

    # Nobody waits for a thread that hangs: the process ends without it.
    asked = [threading.Thread(target=one, args=pair, name="meter", daemon=True) for pair in measured.meters.items()]
    until = time.monotonic() + measured.patience
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(max(0.0, until - time.monotonic()))
    if left := dict(wrong):
        told = "; ".join(f"metrics.{kind}: {why}" for kind, why in left.items())
        session.progress.warned(f"not all meters were told: {told}", hint="totals are told again by the next command")


def _measures(session: Session) -> Iterator[Measure]:
    name, measured = session.pipeline.name, session.measured
    assert measured is not None
    with session.state.read() as conn:
        totals = list(stage_totals.of_pipeline(conn, name))
        done = completions.done(conn, name)
    pipeline = {**measured.tags, "pipeline": name}
    for total in totals:
        yield from _of_stage(total, {**pipeline, "model": named(total.model), "stage": total.stage.value}, session)
    loaded = {key: at for key, (status, at) in done.items() if status is CompletionStatus.DONE}
    for model, batch in completions.newest(loaded, session.pipeline.order).items():
        tags = {**pipeline, "model": model}
        yield Measure("freshness", "moment", "s", "when the newest batch was loaded", tags, loaded[batch, model])
    queued = len(session.queue.records(name))
    yield Measure("queue.length", "level", "", "writes to the state that are pending", pipeline, queued)


def _of_stage(total: StageTotal, tags: Mapping[str, str], session: Session) -> Iterator[Measure]:
    assert session.measured is not None
    grown = partial(_grown, session.measured.grown, total)
    for ending in ENDINGS:
        ended = {**tags, "status": ending}
        value = total.figures[ending]
        yield Measure("stages", "total", "", "stages that ended", ended, value, total.since, grown(ending))
    for figure in ("seconds", "retries", *FIGURES.get(total.stage, ())):
        name, unit, shows = SHOWN[figure]
        yield Measure(name, "total", unit, shows, tags, total.figures[figure], total.since, grown(figure))
        if figure in total.last:
            last = f"last.{name.removeprefix('stage.')}"
            yield Measure(last, "level", unit, f"{shows}, in the last run of the stage", tags, total.last[figure])
    if total.last:
        failed = total.last["failed"]
        yield Measure("last.failed", "level", "", "whether the stage failed when it ran last", tags, failed)
        yield Measure("last.ended", "moment", "s", "when the stage ended last", tags, total.at)


def _grown(grown: Mapping[tuple[str, str, str], float], total: StageTotal, figure: str) -> float:
    return grown.get((total.stage.value, total.model, figure), 0)


def named(model: str) -> str:
    return EVERY if model == "*" else model
