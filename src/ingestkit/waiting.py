"""Waiting for something to arrive: `run` again and again, with nothing held in between."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ingestkit.errors import LeaseHeld, StateError, UnknownBatch
from ingestkit.outcome import Outcome
from ingestkit.pipeline import Progress
from ingestkit.runner import run
from ingestkit.session import Session
from ingestkit.settings import duration_text
from ingestkit.working import RunOptions

NOTHING = ("nothing new", "waiting", "locked")
"""How a run ends that found nothing it could take."""


@dataclass(frozen=True, slots=True)
class Once:
    """Progress that says the same thing only once, however often it is looked."""

    told: Progress
    heard: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    """The stages that began in this look."""

    def began(self, stage: str, model: str, total: int | None) -> None:
        self.begun.append(stage)
        self.told.began(stage, model, total)

    def moved(self, stage: str, model: str, by: int) -> None:
        self.told.moved(stage, model, by)

    def ended(self, stage: str, model: str, status: str) -> None:
        self.told.ended(stage, model, status)

    def said(self, message: str, **facts: Any) -> None:
        if message not in self.heard:
            self.heard.add(message)
            self.told.said(message, **facts)

    def warned(self, message: str, **facts: Any) -> None:
        if message not in self.heard:
            self.heard.add(message)
            self.told.warned(message, **facts)


def run_waiting(session: Session, options: RunOptions, patience: timedelta, every: timedelta) -> Outcome:
    """Run as soon as there is something to run, or say that nothing came when patience ends."""
    name, clock = session.pipeline.name, session.clock
    until = clock.elapsed() + patience.total_seconds()
    once = Once(session.progress)
    asked = replace(options, waits_quiet=False)
    outcome = _look(session, once, asked, until)
    if outcome.status not in NOTHING:
        return outcome
    waited = duration_text(patience)
    once.said(f"waiting up to {waited} for something new, looking every {duration_text(every)}")
    session.progress.began("wait", name, None)
    try:
        while outcome.status in NOTHING and (left := until - clock.elapsed()) > 0:
            clock.sleep(min(left, _nap(session, outcome, every).total_seconds()))
            session.stop.check()
            outcome = _look(session, once, asked, until)
    finally:
        session.progress.ended("wait", name, outcome.status)
    if outcome.status in NOTHING:
        return replace(outcome, message=f"{outcome.message} (waited {waited})")
    return outcome


def _look(session: Session, once: Once, options: RunOptions, until: float) -> Outcome:
    """One look. A batch that is named may still have to come; what passes by itself ends only the last look."""
    is_last = session.clock.elapsed() >= until
    once.begun.clear()
    try:
        return run(replace(session, progress=once), options)
    except UnknownBatch:
        return _nothing(session, f"batch {options.batch} has not come")
    except (LeaseHeld, StateError) as error:
        # Once a stage has begun, who asked is told how it ended.
        if is_last or once.begun or not (error.transient or isinstance(error, LeaseHeld)):
            raise
        once.said(f"waiting: {error.message}")
        return _nothing(session, error.message)


def _nothing(session: Session, message: str) -> Outcome:
    return Outcome("run", session.pipeline.name, "nothing new", message)


def _nap(session: Session, outcome: Outcome, every: timedelta) -> timedelta:
    """Files that are there and not quiet yet are looked at as soon as they may be."""
    quiet = session.pipeline.settings.source.settle.quiet
    return min(every, quiet) if outcome.status == "waiting" and quiet else every
