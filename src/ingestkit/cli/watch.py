"""`runs watch`: a run while it goes on, drawn anew on a terminal and told change by change elsewhere."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ingestkit.cli import completing, handler, opening, options, render, watched
from ingestkit.cli.options import Output
from ingestkit.cli.watched import View
from ingestkit.errors import Busy, Interrupted, PartlyDone, StateError, UsageError

if TYPE_CHECKING:
    from ingestkit.pipeline import Clock, Stop
    from ingestkit.states.engine import StateDatabase

EVERY = 0.5
"""Seconds between two looks."""
PATIENCE = 60.0
"""For so many seconds a state that does not answer is looked at again, as one that is restarted does not."""
WELL = frozenset({"SUCCESS", "SUCCESS_WITH_REJECTS", "SKIPPED"})


def watch(
    ctx: typer.Context,
    *,
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|PIPELINE",
            help="A run's id, or a pipeline whose newest open run is meant; without one that of the project.",
            autocompletion=completing.runs,
        ),
    ] = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Watch a run until it ends, and exit as it did."""
    from ingestkit.pipeline import Stop, SystemClock

    loaded, stop = opening.project_of(ctx), Stop()
    with handler.stopping(stop, _nothing_said), opening.state_of(loaded) as state:
        run_id = _meant(state, subject)
        seen = _looks(state, run_id, SystemClock(stop), stop)
        try:
            last = _drawn(seen) if output is Output.TEXT and _draws() else _told(seen, output)
        except Interrupted as error:
            raise Interrupted(
                f"run {run_id} is no longer watched; nothing else has changed",
                exit_code=error.exit_code,
                hint=f"ingestkit runs watch {run_id}",
            ) from error
    return _ended(last, output)


def _nothing_said(_: str) -> None:
    """A watcher that is stopped stops nothing else, so there is nothing to announce."""


def _meant(state: "StateDatabase", subject: str | None) -> str:
    from ingestkit.states import views

    with state.read() as conn:
        run_id, known = views.meant(conn, subject)
    if run_id is not None:
        return run_id
    if not known:
        raise UsageError(f"no run and no pipeline {subject!r} in the state", hint="ingestkit runs list")
    if subject is None:
        raise UsageError("no run is open", hint="ingestkit runs list")
    raise UsageError(f"no run of {subject} is open", hint=f"ingestkit runs list {subject}")


def _looks(state: "StateDatabase", run_id: str, clock: "Clock", stop: "Stop") -> Iterator[View]:
    """The run at one moment after another, until it has ended. No lock is held between them."""
    from ingestkit.observe import logging
    from ingestkit.states import views

    answered, warned = clock.elapsed(), False
    while True:
        try:
            with state.read() as conn:
                found, now = views.going_on(conn, run_id), state.now(conn, clock)
        except StateError as error:
            if not error.transient or clock.elapsed() - answered > PATIENCE:
                raise
            if not warned:
                logging.logger().warning(error.message)
            warned = True
        else:
            answered, warned = clock.elapsed(), False
            if found is None:
                raise StateError(f"run {run_id} is not in the state any more", hint="ingestkit runs list")
            view = {**found, "now": now}
            yield view
            if _is_over(view):
                return
        stop.wait(EVERY)


def _is_over(view: View) -> bool:
    """Whether the run has ended, and the process that ended it has cleaned up too."""
    run = view["run"]
    if run["status"] == "OPEN":
        return False
    if run["status"] not in WELL or "clean" not in run["phases_pending"]:
        return True
    return not any(one["token"] == run["token"] and watched.alive(one, view) for one in view["leases"])


def _ended(last: View, output: Output) -> int:
    """How the run ended, as exit code; one that failed and does not say how was done in part."""
    run = last["run"]
    if output is Output.JSON:
        render.emit({"run": run, "stages": last["stages"]}, output)
    if run["status"] in WELL:
        return 0
    if run["status"] == "SUPERSEDED":
        return Busy.exit_code
    return PartlyDone.exit_code if run["exit_code"] is None else int(run["exit_code"])


def _told(seen: Iterable[View], output: Output) -> View:
    """A line for each change; as JSON only how it ended."""
    before: View | None = None
    for view in seen:
        for fact in watched.changes(before, view) if output is not Output.JSON else ():
            render.say(watched.line(fact) if output is Output.TEXT else render.machine(fact, output))
        before = view
    assert before is not None
    return before


def _drawn(seen: Iterable[View]) -> View:
    from ingestkit.cli import live

    last = live.drawn(seen)
    # The table says where it stands, the line how it ended.
    *_, end = watched.changes(None, last)
    render.say(watched.line(end))
    return last


def _draws() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
