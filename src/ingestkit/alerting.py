"""Who is told that something went wrong: noted in the state first, sent from there, kept until it was taken."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import sqlalchemy as sql

from ingestkit.errors import Busy, GateClosed, IngestkitError, Interrupted, UsageError
from ingestkit.model import CompletionStatus
from ingestkit.observe.text import printable
from ingestkit.outcome import run_ids_of
from ingestkit.pipeline import Clock
from ingestkit.ports import Alert, Message
from ingestkit.session import Session
from ingestkit.settings import PipelineSettings, duration_text
from ingestkit.states import completions, incidents, lease, runs
from ingestkit.states.engine import StateDatabase
from ingestkit.states.incidents import OPEN, Incident, Sight

Channels = Mapping[str, Callable[[], Alert]]
PROVES = ("run", "extract", "validate", "load", "dbt build", "gate", "clean", "backfill", "quarantine replay")
"""Commands whose good end says that the pipeline works."""
OF_FAILURE = ("failed", "gate", "repeated")
LONGEST = 2000


def tell(session: Session, channels: Channels, command: str, error: BaseException | None) -> None:
    """Note how a command ended, and send what waits. Nothing here fails the command: it warns."""
    settings, state = session.pipeline.settings, session.state
    try:
        _note(session, wanted(settings, channels), command, error)
        wrong = send(state, settings, channels, session.settings.alerts.patience, session.clock)
    except IngestkitError as trouble:
        session.progress.warned(f"alerts were not sent: {trouble.message}")
        return
    if wrong:
        told = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        session.progress.warned(f"alerts wait to be sent: {told}", hint="ingestkit alerts check sends them")


def wanted(settings: PipelineSettings, channels: Channels) -> tuple[str, ...]:
    """The channels of a pipeline."""
    said = settings.alerts.channels
    return tuple(channels) if said is None else tuple(name for name in said if name in channels)


def _note(session: Session, names: Collection[str], command: str, error: BaseException | None) -> None:
    pipeline, settings = session.pipeline.name, session.pipeline.settings
    seen = _failure(settings, error)
    with session.state.read() as conn:
        known = [one for one in incidents.known(conn, pipeline) if one.status == OPEN]
        held = _held(conn, pipeline)
        works = error is None and command in PROVES and runs.failures_in_a_row(conn, pipeline, 1) == 0
    over = (*(OF_FAILURE if works else ()), *(() if held else ("held",)), *(("silent",) if known else ()))
    sights = [one for one in (seen, held) if one is not None]
    ending = [one for one in known if one.kind in over]
    if sights or ending:
        with session.state.write() as conn:
            now = session.state.now(conn, session.clock)
            _written(conn, settings, names, sights, ending, now)


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
            times = 0
            if sight.kind in said.kinds:
                times = incidents.see(conn, pipeline, sight, name, now, said.remind)
            if sight.kind == "failed" and times >= said.repeated and "repeated" in said.kinds:
                text = f"failed {said.repeated} times or more in a row; the last time: {sight.text}"
                again = Sight("repeated", "", text, sight.hint, sight.run_id)
                incidents.see(conn, pipeline, again, name, now, said.remind)


def _failure(settings: PipelineSettings, error: BaseException | None) -> Sight | None:
    """What an error is told as; that somebody else is at work, or a signal came, is no failure of the pipeline."""
    if error is None or isinstance(error, (UsageError, Busy, Interrupted)) or not isinstance(error, Exception):
        return None
    kind = type(error).__name__
    if not isinstance(error, IngestkitError):
        # Its words are not ours, and may hold anything.
        return Sight("failed", kind, f"a bug: {kind}", f"ingestkit runs list {settings.pipeline}")
    run_id = next(iter(run_ids_of(error.results)), None)
    hint = error.hint or f"ingestkit runs list {settings.pipeline}"
    named = "gate" if isinstance(error, GateClosed) else "failed"
    return Sight(named, "" if named == "gate" else kind, _line(error.message), _line(hint), run_id)


def _line(text: str) -> str:
    return printable(" ".join(text.split()))[:LONGEST]


def _held(conn: sql.Connection, pipeline: str) -> Sight | None:
    row = runs.pipeline_row(conn, pipeline)
    if row is None or row["held_at"] is None:
        return None
    return Sight("held", "", _line(f"held: {row['held_reason']}"), f"ingestkit resume {pipeline}")


def check(state: StateDatabase, settings: PipelineSettings, channels: Channels, clock: Clock) -> list[Sight]:
    """What no run can notice: nothing done for too long, a hold left standing, a command that fell silent."""
    pipeline, said = settings.pipeline, settings.alerts
    with state.write() as conn:
        now = state.now(conn, clock)
        since = incidents.watched_since(conn, pipeline, now)
        found = [*_stale(conn, pipeline, said.freshness, since, now), *_silent(conn, pipeline, now)]
        held = _held(conn, pipeline)
        found += [held] if held is not None else []
        found = [one for one in found if one.kind in said.kinds]
        seen = {one.kind for one in found}
        open_ones = [one for one in incidents.known(conn, pipeline) if one.status == OPEN]
        ending = [one for one in open_ones if one.kind in ("stale", "silent", "held") and one.kind not in seen]
        _written(conn, settings, wanted(settings, channels), found, ending, now)
    return found


def _stale(
    conn: sql.Connection, pipeline: str, freshness: timedelta | None, since: datetime, now: datetime
) -> Iterator[Sight]:
    done = completions.done(conn, pipeline).values()
    newest = max((at for status, at in done if status is CompletionStatus.DONE), default=None)
    if freshness is None or now - (newest or since) <= freshness:
        return
    told = f"the newest batch was done at {newest:%Y-%m-%d %H:%M:%S}Z" if newest else "nothing was ever done"
    yield Sight("stale", "", f"{told}, and its freshness is {duration_text(freshness)}", f"ingestkit plan {pipeline}")


def _silent(conn: sql.Connection, pipeline: str, now: datetime) -> Iterator[Sight]:
    """A lease that ran out and was not given back: its command died or hangs, and nobody has gone on."""
    for one in lease.ran_out(conn, pipeline, now):
        text = f"{one.command} works on it since {one.since:%Y-%m-%d %H:%M:%S}Z, and gives no sign of life"
        yield Sight("silent", "", text, f"ingestkit run {pipeline}")
        return


def send(
    state: StateDatabase, settings: PipelineSettings, channels: Channels, patience: timedelta, clock: Clock
) -> dict[str, str]:
    """Send what waits, to all channels side by side; what went wrong by channel. What was not taken stays."""
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
            now = state.now(conn, clock)
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
        "open" if one.status == OPEN else "recovered",
        one.pipeline,
        one.text,
        at,
        one.first_at,
        one.hint if one.status == OPEN else None,
        one.count,
        one.run_id,
        settings.owner,
        settings.alerts.emails,
    )
