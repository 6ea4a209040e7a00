"""`alerts`: telling people of what goes wrong, and looking for what no run can notice."""

from typing import TYPE_CHECKING, Any

import typer

from ingestkit.cli import handler, opening, options, render
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.project import Project

LISTED = ("pipeline", "channel", "kind", "status", "count", "first_at", "last_at", "sent_at", "text")


def commands() -> typer.Typer:
    app = typer.Typer(help="Tell people of what goes wrong, and look for what no run can notice.")
    app.command("test")(send_test)
    app.command("check")(check)
    app.command("list")(list_alerts)
    return app


def send_test(ctx: typer.Context, output: options.OutputFormat = Output.TEXT) -> int:
    """Send a message to every channel, and tell which has taken it."""
    from datetime import UTC, datetime

    from ingestkit import alerting
    from ingestkit.errors import TargetError
    from ingestkit.ports import Message

    loaded = _configured(ctx)
    now, channels = datetime.now(UTC), loaded.channels()
    said = Message("test", "test", "alerts", "this is a test: nothing is wrong", now, now)
    _, wrong = alerting.deliver(channels, {name: [said] for name in channels}, loaded.settings.alerts.patience)
    rows = [
        {"channel": name, "status": "failed" if name in wrong else "sent", "why": wrong.get(name)} for name in channels
    ]
    render.emit(rows, output)
    return TargetError.exit_code if wrong else 0


def check(ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT) -> int:
    """Look for what no run can notice, and send what waits; without PIPELINE for all pipelines."""
    from ingestkit import alerting
    from ingestkit.errors import IngestkitError, TargetError
    from ingestkit.noticing import Watched
    from ingestkit.pipeline import Stop, SystemClock
    from ingestkit.states import incidents

    loaded = _configured(ctx)
    channels, clock = loaded.channels(), SystemClock(Stop())
    rows: list[dict[str, str | None]] = []
    failed: dict[str, str] = {}
    broken: list[IngestkitError] = []
    with opening.state_of(loaded) as state:
        for name in [pipeline] if pipeline is not None else loaded.pipelines():
            try:
                watched = Watched(loaded.pipeline(name), state, clock)
                found = alerting.check(watched, channels)
            except IngestkitError as error:
                # The others are looked at all the same.
                broken.append(error)
                continue
            rows += [{"pipeline": name, "kind": one.kind, "text": one.text, "next": one.hint} for one in found]
            # Who took nothing of one pipeline is not waited for with each of the others.
            heard = {name: one for name, one in channels.items() if name not in failed}
            failed |= alerting.send(watched, heard, loaded.settings.alerts.patience)
        with state.read() as conn:
            told = {one.about for one in incidents.known(conn, pipeline) if one.status == incidents.OPEN}
    empty = f"nothing new is wrong; {len(told)} open: ingestkit alerts list" if told else "nothing is wrong"
    render.emit(rows, output, empty=empty)
    for channel, why in failed.items():
        handler.report(f"{channel}: {why}; what it was to be told waits", opening.globals_of(ctx), kind="warning")
    for other in broken[1:]:
        handler.report(other.message, opening.globals_of(ctx), kind="warning", hint=other.hint)
    if broken:
        raise broken[0]
    return TargetError.exit_code if failed else 0


def list_alerts(
    ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT
) -> None:
    """List what was told and what waits to be, newest first; without PIPELINE of all pipelines."""
    from ingestkit.states import incidents

    loaded = opening.project_of(ctx)
    with opening.reading(loaded) as conn:
        opening.require_pipeline(loaded, conn, pipeline)
        found = incidents.known(conn, pipeline)
    rows: list[dict[str, Any]] = [{name: getattr(one, name) for name in LISTED} for one in found]
    render.emit(rows, output, columns=LISTED, empty="no alerts")


def _configured(ctx: typer.Context) -> "Project":
    from ingestkit.errors import ConfigError

    loaded = opening.project_of(ctx)
    if not loaded.settings.alerts.channels:
        raise ConfigError("no channel is set up", hint="name one as alerts.channels in config/settings.yaml")
    return loaded
