"""Opens what a command needs: the project, its state, a pipeline's session; and asks before something is lost."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ingestkit.cli import handler, render
from ingestkit.cli.options import Globals, Output
from ingestkit.errors import ConfigError, IngestkitError, TargetError, UsageError
from ingestkit.observe.text import printable

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from ingestkit.outcome import Outcome
    from ingestkit.pipeline import Clock, Progress, Stop
    from ingestkit.project import Project
    from ingestkit.session import Session
    from ingestkit.states.engine import StateDatabase
    from ingestkit.states.queue import PendingQueue


def globals_of(ctx: typer.Context) -> Globals:
    said = ctx.find_object(Globals)
    return said if said is not None else Globals()


def project_of(ctx: typer.Context) -> "Project":
    """Read the project's settings, and log as they say."""
    from ingestkit import project
    from ingestkit.observe import logging

    said = globals_of(ctx)
    root = project.find(said.project or Path.cwd())
    env_file = Path(os.devnull) if said.no_env_file else said.env_file
    loaded = project.load(root, profile=said.profile, env_file=env_file, environ=os.environ, flags=None)
    said.folder = loaded.folder
    said.log_format = said.log_format or loaded.settings.log.format
    said.log_level = said.log_level or loaded.settings.log.level
    terminal = sys.stderr.isatty()
    as_json = said.log_format == "json" or (said.log_format == "auto" and not terminal)
    logging.configure(said.log_level, as_json=as_json, colours=handler.colours(sys.stderr))
    return loaded


@contextmanager
def working(
    ctx: typer.Context, name: str | None, *, run_id: str | None = None, jobs: int | None = None
) -> "Iterator[Session]":
    """A session that may work for long: with progress, and with signals heard as requests to stop."""
    from ingestkit.cli import progress
    from ingestkit.pipeline import Stop

    loaded, stop = project_of(ctx), Stop(partial(handler.end_with, globals_of(ctx)))
    with progress.shown(bars=_bars(ctx)) as told, handler.stopping(stop, told.warned):
        named = _meant(ctx, loaded, name, run_id)
        yield from _opened(loaded, named, stop, told, jobs, command=globals_of(ctx).command)


@contextmanager
def deciding(ctx: typer.Context, name: str | None) -> "Iterator[Session]":
    """A session for a short change of state, which a signal ends at once."""
    from ingestkit.cli import progress
    from ingestkit.pipeline import Stop

    loaded = project_of(ctx)
    yield from _opened(loaded, _meant(ctx, loaded, name), Stop(), progress.LogProgress(), None)


@contextmanager
def rehearsing(
    ctx: typer.Context, name: str | None, jobs: int | None = None, *, writes: bool = True
) -> "Iterator[Session]":
    """A session on copies, which are gone when it ends; who writes nothing to the state reads the real one."""
    from ingestkit.cli import progress
    from ingestkit.pipeline import Stop, SystemClock

    loaded, stop = project_of(ctx), Stop(partial(handler.end_with, globals_of(ctx)))
    with progress.shown(bars=_bars(ctx)) as told, handler.stopping(stop, told.warned):
        named = _meant(ctx, loaded, name)
        clock = SystemClock(stop)
        session = loaded.rehearse(named, clock=clock, stop=stop, progress=told, jobs=jobs, writes=writes)
        try:
            yield session
        finally:
            session.closing.close()


@contextmanager
def reading(loaded: "Project") -> "Iterator[Connection]":
    """The project's state, to be read."""
    with state_of(loaded) as state, state.read() as conn:
        yield conn


@contextmanager
def state_of(loaded: "Project") -> "Iterator[StateDatabase]":
    """The project's state, for who asks it more than once."""
    state = loaded.state()
    try:
        yield state
    finally:
        state.close()


def require_pipeline(loaded: "Project", conn: "Connection", name: str | None) -> None:
    """Refuse what neither the project nor the state knows: that nothing is found of it would sound like an answer."""
    from ingestkit.shapes import nearest
    from ingestkit.states import runs

    known = loaded.pipelines()
    if name is None or name in known or runs.pipeline_row(conn, name) is not None:
        return
    raise ConfigError(f"there is no pipeline {name!r}{nearest(name, known)}", hint="those of all: ingestkit runs list")


def pipeline_name(loaded: "Project", name: str | None, run_id: str | None = None) -> str:
    """The pipeline meant: the one named, the only one, or the one the run belongs to."""
    known = sorted(loaded.pipelines())
    if name is not None:
        return name
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError("the project has no pipeline", hint="write one to config/pipelines/<name>.yaml")
    if run_id is not None and (owner := _pipeline_of_run(loaded, run_id)) is not None:
        return owner
    raise UsageError(f"name a pipeline: the project has {', '.join(known)}")


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask before something is lost. Where nobody can be asked, only `--yes` answers."""
    if yes:
        return True
    require_answer(yes=yes)
    # Typer's own question writes part of itself to standard output, which is the result's.
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def require_answer(*, yes: bool) -> None:
    """Refuse early what could not be asked about later."""
    if not yes and not sys.stdin.isatty():
        raise UsageError("this needs a yes, and standard input is no terminal", hint="say it with --yes")


def confirm_or_refuse(question: str, *, yes: bool) -> None:
    if not confirmed(question, yes=yes):
        raise UsageError("not confirmed; nothing was changed")


def who(by: str | None) -> str:
    """Who decided: as said, or the user of this session."""
    import getpass

    if by:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def answered(ctx: typer.Context) -> None:
    """A program has its answer; an error behind it is told on standard error alone."""
    globals_of(ctx).output = Output.TEXT


def ended(ctx: typer.Context, outcome: "Outcome", output: Output, skip_exit_code: int | None = None) -> int:
    """Draw how the command ended, and give its exit code."""
    said = globals_of(ctx)
    code = outcome.exit_code
    if skip_exit_code is not None and outcome.status == "nothing new":
        code = skip_exit_code
    render.outcome(replace(outcome, exit_code=code), output)
    if output is Output.TEXT:
        for warning in outcome.warnings:
            handler.report(warning, said, kind="warning")
    return code


def state_url(loaded: "Project") -> str:
    """Where the state is, for who opens it whatever its version."""
    from ingestkit.project import below_root

    return below_root(loaded.secrets.resolve(loaded.settings.state.url, "state.url"), loaded.root)


def queue_of(loaded: "Project") -> "PendingQueue":
    from ingestkit.states.queue import PendingQueue

    return PendingQueue(loaded.folder / "pending_updates.jsonl")


def one_of(known: Iterable[str], said: str, flag: str) -> str:
    """A word that must be one of these."""
    from difflib import get_close_matches

    words = [str(one) for one in known]
    if said in words:
        return said
    meant = get_close_matches(said, words, n=1, cutoff=0)[0]
    raise UsageError(f"{flag} {said!r} is unknown; known are {', '.join(words)}", hint=f"such as: {flag} {meant}")


def moment(said: str | None, flag: str) -> "datetime | None":
    """An instant as it is typed, or so long ago."""
    from datetime import UTC, datetime

    from ingestkit import settings

    try:
        return None if said is None else settings.moment(said, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"such as: {flag} 2026-01-31, or {flag} 24h") from error


def past(said: str | None, flag: str) -> "datetime | None":
    """An instant that has come."""
    from datetime import UTC, datetime

    found = moment(said, flag)
    if found is not None and found > datetime.now(UTC):
        raise UsageError(f"{flag}: {found:%Y-%m-%d %H:%M:%S}Z has not come yet", hint="instants are in UTC")
    return found


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing a file the caller named."""
    try:
        yield
    except OSError as error:
        raise TargetError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def lines_of(path: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a file the caller named; of standard input where it is called -."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as lines:
            yield lines
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _meant(ctx: typer.Context, loaded: "Project", name: str | None, run_id: str | None = None) -> str:
    """The pipeline meant, which an error tells too."""
    said = globals_of(ctx)
    said.pipeline = pipeline_name(loaded, name, run_id)
    return said.pipeline


def _opened(
    loaded: "Project", name: str, stop: "Stop", told: "Progress", jobs: int | None, *, command: str | None = None
) -> "Iterator[Session]":
    from ingestkit.pipeline import SystemClock

    clock = SystemClock(stop)
    try:
        session = loaded.open(name, clock=clock, stop=stop, progress=told, jobs=jobs)
    except IngestkitError as error:
        if command is not None and loaded.settings.alerts.channels:
            _told_unopened(loaded, name, clock, told, command, error)
        raise
    ended: BaseException | None = None
    if command is not None:
        from ingestkit import metering

        # Before anything that it asks is closed, however the command ends.
        session.closing.callback(metering.tell, session)
    if command is not None and session.noticed is not None:
        from ingestkit import alerting
        from ingestkit.noticing import Watched

        patience, watched = loaded.settings.alerts.patience, Watched(session.pipeline, session.state, clock)
        bell = alerting.Bell(watched, loaded.channels(), command, patience, session.noticed, told.warned)
        session.closing.callback(lambda: bell.ring(ended, last=True))
    try:
        yield session
    except BaseException as error:
        ended = error
        if not isinstance(error, BrokenPipeError):
            raise
        # Results are drawn later, so this is not standard output's; Typer would end quietly over it.
        raise RuntimeError(f"a connection was lost and nobody said whose: {error}") from error
    finally:
        session.closing.close()


def _told_unopened(
    loaded: "Project", name: str, clock: "Clock", told: "Progress", command: str, error: IngestkitError
) -> None:
    """Tell of what kept a pipeline from being opened, such as a secret that is not there."""
    from ingestkit import alerting
    from ingestkit.noticing import Watched
    from ingestkit.observe.noticed import Noticed

    try:
        with state_of(loaded) as state:
            patience, watched = loaded.settings.alerts.patience, Watched(loaded.pipeline(name), state, clock)
            bell = alerting.Bell(watched, loaded.channels(), command, patience, Noticed(clock.now()), told.warned)
            bell.ring(error, last=True)
    except IngestkitError as trouble:
        told.warned(f"nobody was told of it: {trouble.message}")


def _pipeline_of_run(loaded: "Project", run_id: str) -> str | None:
    from ingestkit.states import views

    with reading(loaded) as conn:
        details = views.run_details(conn, run_id)
    return None if details is None else str(details["run"]["pipeline"])


def _bars(ctx: typer.Context) -> bool:
    said = globals_of(ctx)
    return sys.stderr.isatty() and not said.quiet and said.log_format != "json" and os.environ.get("TERM") != "dumb"
