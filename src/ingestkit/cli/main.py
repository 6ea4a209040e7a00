"""The command line: its commands, the flags before them, and the entry point."""

import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from ingestkit.cli import completing, handler
from ingestkit.cli.options import Format, Globals, Level
from ingestkit.errors import UsageError

EPILOG = "Every flag can come from the environment: INGESTKIT_RUN_JOBS=4 is `ingestkit run --jobs 4`."

# Where a command's function is, and its help; imported when it is called, not when it is listed.
COMMANDS = {
    "init": (
        "init:init",
        "Write a project that runs: settings, a sample pipeline with its files, and what belongs beside them.",
    ),
    "run": ("run:run", "Take every waiting batch from the source to the target, oldest first."),
    "plan": ("plan:plan", "Show what a run would do; nothing is written."),
    "extract": ("stages:extract", "Open a run for the oldest waiting batch, and bring its files into the lake."),
    "validate": ("stages:validate", "Turn the run's raw files into typed Parquet, and set rejects apart."),
    "load": ("stages:load", "Publish the run's valid rows to the target tables."),
    "gate": ("stages:gate", "Judge the run, complete its models and close it."),
    "clean": ("stages:clean", "Remove from the lake what retention no longer keeps."),
    "backfill": ("backfill:backfill", "Do a batch, or a range of them, again; what a newer batch has said stands."),
    "check": (
        "check:check",
        "Look at everything a pipeline needs, configuration to state: one line each, with the fix.",
    ),
    "approve": ("decide:approve", "Let the rules that closed a run pass, for the same data and no worse figures."),
    "skip": ("decide:skip", "Step over a batch, so that those behind it can go on."),
    "pause": ("decide:pause", "Let no run of the pipeline begin until it is resumed."),
    "resume": ("decide:resume", "Let a paused or held pipeline run again."),
    "query": (
        "query:query",
        "Ask the state one of the queries of sql/ops, the project's or those that come with ingestkit.",
    ),
}
# The same for groups of commands.
GROUPS = {
    "manifest": ("manifest:commands", "Show, export and correct the ledger of source files."),
    "runs": ("runs:commands", "List runs, show one, and watch one."),
    "quarantine": ("quarantine:commands", "Show what was rejected, take it in again, or give it up."),
    "drift": ("drift:commands", "Show what headers said that their contracts did not."),
    "new": ("new:commands", "Propose files of a project, to be edited."),
    "state": ("state:commands", "Show what the state knows, and correct it."),
    "lake": ("lake:commands", "Tell a lake's service what to remove by itself."),
    "queue": ("queue:commands", "Show and make the writes that are pending."),
    "alerts": ("alerts:commands", "Tell people of what goes wrong, and look for what no run can notice."),
    "schedule": ("schedule:commands", "Write what starts pipelines: lines for cron, DAGs for Airflow."),
    "dbt": ("dbt:commands", "Tell dbt of a pipeline's tables, and build on them."),
    "config": ("config:commands", "Show the configuration, and check it."),
}


def main() -> None:
    """The entry point of the `ingestkit` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may hold bytes that are no text; a result that names it must not fail over it.
            stream.reconfigure(errors="backslashreplace")
    collect_seldom()
    code = call(sys.argv[1:])
    with suppress(OSError):
        sys.stderr.flush()
    # All is closed and written; to take the libraries apart as well would cost a large file's run a tenth of a second.
    os._exit(code)


def collect_seldom() -> None:
    """Nearly all that a command makes stays until it ends, so that looking for cycles in it finds little.

    What importing makes is fewer objects than these, and all of it stays.
    """
    gc.set_threshold(300_000, 10, 10)


def call(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code."""
    said = Globals()
    called = next((one for one in arguments if one in COMMANDS or one in GROUPS), None)
    return handler.handle(
        lambda: application()(
            # Bare, it needs its word: options that may go without one are unknown to the parser.
            args=["--dry-run=plan" if one == "--dry-run" and called == "run" else one for one in arguments]
            or ["--help"],
            prog_name="ingestkit",
            standalone_mode=False,
            obj=said,
            auto_envvar_prefix="INGESTKIT",
        ),
        said,
        arguments,
    )


class Commands(TyperGroup):
    """The commands as they are listed; the one that is called takes its place when it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in self.commands:
            self.commands[args[0]] = command(args[0])
        return super().resolve_command(ctx, args)


def application() -> typer.Typer:
    app = typer.Typer(name="ingestkit", cls=Commands, pretty_exceptions_enable=False, epilog=EPILOG)
    app.callback(invoke_without_command=True)(before)
    for name, (_, help_text) in {**COMMANDS, **GROUPS}.items():
        app.command(name, help=help_text)(_listed)
    return app


def command(name: str) -> Any:
    """The command or group of that name, imported."""
    if name in GROUPS:
        return get_group(_named(GROUPS[name][0])())
    alone = typer.Typer(add_completion=False)
    alone.command(name)(_named(COMMANDS[name][0]))
    return get_command(alone)


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"ingestkit.cli.{module}"), name)


def _listed() -> None:
    """What stands in a list of commands for one that is not imported."""


def before(
    ctx: typer.Context,
    *,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", metavar="DIR", help="The project's folder; else this one or one above it.", show_envvar=False
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="The profile of config/settings.yaml.",
            show_envvar=False,
            autocompletion=completing.profiles,
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file", metavar="FILE", help="Read variables from it, not from config.env.", show_envvar=False
        ),
    ] = None,
    no_env_file: Annotated[
        bool, typer.Option("--no-env-file", help="Read no variables from a file.", show_envvar=False)
    ] = False,
    log_level: Annotated[
        Level | None, typer.Option("--log-level", help="The least that is logged.", show_envvar=False)
    ] = None,
    log_format: Annotated[
        Format | None, typer.Option("--log-format", help="How it is logged.", show_envvar=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log everything.", show_envvar=False)] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Log warnings only, draw no progress.", show_envvar=False)
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Say the version, and of what it uses.", show_envvar=False)
    ] = False,
) -> None:
    """Move data from files into a warehouse, and account for every file and every row."""
    if version:
        from ingestkit.cli.version import told

        typer.echo(told())
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        raise UsageError("no command was given", hint="ingestkit --help")
    said: Globals = ctx.obj
    said.project, said.profile = project, profile
    said.env_file, said.no_env_file = env_file, no_env_file
    said.log_level = log_level or ("debug" if verbose else "warning" if quiet else None)
    said.log_format = log_format
    said.quiet = quiet
