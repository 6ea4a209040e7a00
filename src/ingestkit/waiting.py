"""Waiting for something to arrive: `run` again and again, with nothing held in between."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ingestkit.errors import LeaseHeld, UnknownBatch
from ingestkit.outcome import Outcome
from ingestkit.pipeline import Progress
from ingestkit.runner import run
from ingestkit.session import Session
from ingestkit.settings import duration_text
from ingestkit.working import RunOptions

NOTHING = ("nothing new", "waiting")
"""How a run ends that found nothing it could take."""


@dataclass(frozen=True, slots=True)
class Once:
    """Progress that says the same thing only once, however often it is looked."""

    told: Progress
    heard: set[str] = field(default_factory=set)

    def began(self, stage: str, model: str, total: int | None) -> None:
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
    until = clock.now() + patience
    once = replace(session, progress=Once(session.progress))
    asked = replace(options, waits_quiet=False)
    outcome = _look(once, asked)
    if outcome.status not in NOTHING:
        return outcome
    waited = duration_text(patience)
    once.progress.said(f"waiting up to {waited} for something new, looking every {duration_text(every)}")
    once.progress.began("wait", name, None)
    try:
        while outcome.status in NOTHING and (left := until - clock.now()) > timedelta(0):
            clock.sleep(min(left, _nap(session, outcome, every)).total_seconds())
            session.stop.check()
            outcome = _look_again(once, asked, outcome, last=clock.now() >= until)
    finally:
        once.progress.ended("wait", name, outcome.status)
    if outcome.status in NOTHING:
        return replace(outcome, message=f"{outcome.message} (waited {waited})")
    return outcome


def _look(session: Session, options: RunOptions) -> Outcome:
    """One look. A batch that is named may still have to come."""
    try:
        return run(session, options)
    except UnknownBatch:
        return Outcome("run", session.pipeline.name, "nothing new", f"batch {options.batch} has not come")


def _look_again(session: Session, options: RunOptions, before: Outcome, *, last: bool) -> Outcome:
    """A later look. Somebody else at work is no reason to give up, but for the last one."""
    try:
        return _look(session, options)
    except LeaseHeld as held:
        if last:
            raise
        session.progress.said(f"waiting: {held.message}")
        return before


def _nap(session: Session, outcome: Outcome, every: timedelta) -> timedelta:
    """Files that are there and not quiet yet are looked at as soon as they may be."""
    quiet = session.pipeline.settings.source.settle.quiet
    return min(every, quiet) if outcome.status == "waiting" and quiet else every
