"""Who is told that something went wrong: noted in the state first, sent from there, kept until it was taken."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sql

from ingestkit.errors import IngestkitError
from ingestkit.model import Sight
from ingestkit.noticing import Watched, failure, from_outside, held, of_runs, summary
from ingestkit.observe.noticed import Noticed
from ingestkit.ports import Alert, Message
from ingestkit.settings import PipelineSettings
from ingestkit.states import incidents, runs
from ingestkit.states.incidents import HAPPENED, OPEN, Incident

Channels = Mapping[str, Callable[[], Alert]]
PROVES = ("run", "extract", "validate", "load", "dbt build", "gate", "clean", "backfill", "quarantine replay")
"""Commands whose good end says that the pipeline works."""
OF_FAILURE = ("failed", "gate", "repeated", "row_delta", "counts", "missing", "late", "drift")
FROM_OUTSIDE = ("stale", "overdue", "silent", "hangs", "held", "success_rate")
"""What only `alerts check` sees the end of, but for a hold and a silence."""


@dataclass(slots=True)
class Bell:
    """Tells people how a command goes, while it works and at its end. Nothing here fails the command: it warns."""

    watched: Watched
    channels: Channels
    command: str
    patience: timedelta
    noticed: Noticed
    warn: Callable[..., None]
    noted: set[str] = field(default_factory=set)
    """What happened and is noted already."""
    looked: datetime | None = None
    """When runs were looked at last: what ended before then is noted."""
    stuck: set[str] = field(default_factory=set)
    """Channels that did not take what there was: they are tried again at the end, and not before."""

    def __post_init__(self) -> None:
        self.noticed.tell = self.ring

    def ring(self, error: BaseException | None, *, last: bool = False) -> None:
        try:
            self._note(error, last=last)
            tried = {name: one for name, one in self.channels.items() if last or name not in self.stuck}
            wrong = send(self.watched, tried, self.patience)
        except IngestkitError as trouble:
            self.warn(f"alerts were not sent: {trouble.message}")
            return
        self.stuck |= set(wrong)
        if wrong and last:
            told = "; ".join(f"{name}: {why}" for name, why in wrong.items())
            self.warn(f"alerts wait to be sent: {told}", hint="ingestkit alerts check sends them")

    def _note(self, error: BaseException | None, *, last: bool) -> None:
        noticed, state = self.noticed, self.watched.state
        pipeline, settings = self.watched.pipeline.name, self.watched.pipeline.settings
        since, looked = self.looked or noticed.began, self.watched.clock.now()
        with state.read() as conn:
            known = [one for one in incidents.known(conn, pipeline) if one.status == OPEN]
            seen = [failure(conn, settings, error), held(conn, pipeline)]
            works = error is None and self.command in PROVES and runs.failures_in_a_row(conn, pipeline, 1) == 0
            if works and last and settings.alerts.on_success == "summary":
                seen.append(summary(conn, pipeline, noticed.began))
            happened = (*noticed.sights, *of_runs(conn, self.watched.pipeline, since))
        sights = [one for one in (*seen, *happened) if one is not None and one.key("") not in self.noted]
        over = {*(OF_FAILURE if works else ()), *(("silent",) if known else ())}
        over |= {"held"} if seen[1] is None else set()
        ending = [one for one in known if one.kind in over]
        if sights or ending:
            with state.write() as conn:
                now = state.now(conn, self.watched.clock)
                _written(conn, settings, wanted(settings, self.channels), sights, ending, now)
        self.noted |= {one.key("") for one in sights if one.happened}
        self.looked = looked


def wanted(settings: PipelineSettings, channels: Channels) -> tuple[str, ...]:
    """The channels of a pipeline."""
    said = settings.alerts.channels
    return tuple(channels) if said is None else tuple(name for name in said if name in channels)


def _written(
    conn: sql.Connection,
    settings: PipelineSettings,
    names: Collection[str],
    sights: Sequence[Sight],
    ending: Sequence[Incident],
    now: datetime,
) -> None:
    said, pipeline = settings.alerts, settings.pipeline
    for incident in ending:
        # That it fails no more is told once, of the failure itself.
        incidents.recover(conn, incident, now, told=said.recovered and incident.kind != "repeated")
    for name in names:
        for sight in sights:
            if sight.kind in said.kinds or sight.kind == "summary":
                incidents.see(conn, pipeline, sight, name, now, said.remind)
            if sight.kind in OF_FAILURE and not sight.happened and "repeated" in said.kinds:
                _repeated(conn, settings, sight, name, now)
    incidents.forget(conn, pipeline, now)


def _repeated(conn: sql.Connection, settings: PipelineSettings, sight: Sight, channel: str, now: datetime) -> None:
    """Of failures that were seen one after another: whatever each of them was, their counts end together."""
    said, pipeline = settings.alerts, settings.pipeline
    known = incidents.known(conn, pipeline)
    failures = [one for one in known if one.status == OPEN and one.kind in OF_FAILURE and one.kind != "repeated"]
    times = sum(one.count for one in failures if one.channel == channel)
    if times >= said.repeated:
        text = f"failed {times} times in a row; the last time: {sight.text}"
        incidents.see(conn, pipeline, Sight("repeated", "", text, sight.hint, sight.run_id), channel, now, said.remind)


def check(watched: Watched, channels: Channels) -> list[Sight]:
    """What no run can notice: nothing done for too long, a hold left standing, a command that fell silent or hangs."""
    settings = watched.pipeline.settings
    pipeline, said = settings.pipeline, settings.alerts
    names = wanted(settings, channels)
    with watched.state.write() as conn:
        now = watched.state.now(conn, watched.clock)
        since = incidents.watched_since(conn, pipeline, now)
    with watched.state.read() as conn:
        found = [one for one in from_outside(conn, watched, since, now) if one.kind in said.kinds]
    seen = {one.key(name) for one in found for name in names}
    with watched.state.write() as conn:
        open_ones = [one for one in incidents.known(conn, pipeline) if one.status == OPEN]
        ending = [one for one in open_ones if one.kind in FROM_OUTSIDE and one.key not in seen]
        _written(conn, settings, names, found, ending, now)
    return found


def send(watched: Watched, channels: Channels, patience: timedelta) -> dict[str, str]:
    """Send what waits, to all channels side by side; what went wrong by channel. What was not taken stays."""
    state, settings = watched.state, watched.pipeline.settings
    with state.read() as conn:
        waiting = [one for one in incidents.known(conn, settings.pipeline) if one.sent_at is None]
    by_channel: dict[str, list[Incident]] = {}
    for one in reversed(waiting):
        by_channel.setdefault(one.channel, []).append(one)
    by_channel = {name: several for name, several in by_channel.items() if name in channels}
    taken, wrong = deliver(
        {name: channels[name] for name in by_channel},
        {name: [_message(settings, one) for one in several] for name, several in by_channel.items()},
        patience,
    )
    done = [one for name, several in by_channel.items() for one in several[: taken.get(name, 0)]]
    if done:
        with state.write() as conn:
            now = state.now(conn, watched.clock)
            for one in done:
                incidents.sent(conn, one, now)
    return wrong


def deliver(
    channels: Channels, messages: Mapping[str, Sequence[Message]], patience: timedelta
) -> tuple[dict[str, int], dict[str, str]]:
    """Send each channel its messages; how many each has taken, and what went wrong."""
    seconds = patience.total_seconds()
    taken = dict.fromkeys(channels, 0)
    wrong = dict.fromkeys(channels, f"did not answer in {seconds:g} s")

    def one(name: str, opened: Callable[[], Alert]) -> None:
        try:
            channel = opened()
            for message in messages[name]:
                channel.send(message)
                taken[name] += 1
        except IngestkitError as error:
            wrong[name] = error.message
        else:
            with suppress(KeyError):
                del wrong[name]

    # Nobody waits for a thread that hangs: the process ends without it.
    asked = [threading.Thread(target=one, args=pair, name="alert", daemon=True) for pair in channels.items()]
    until = time.monotonic() + seconds
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(taken), dict(wrong)


def _message(settings: PipelineSettings, one: Incident) -> Message:
    at = one.recovered_at or one.last_at
    return Message(
        one.kind,
        "open" if one.status == OPEN else "happened" if one.status == HAPPENED else "recovered",
        one.pipeline,
        one.text,
        at,
        one.first_at,
        one.hint if one.status in (OPEN, HAPPENED) else None,
        one.count,
        one.run_id,
        settings.owner,
        settings.alerts.emails,
    )
