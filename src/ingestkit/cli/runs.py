"""`runs`: what was run, and how it went."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

COLUMNS = ("run_id", "pipeline", "batch", "kind", "status", "verdict", "started_at", "duration", "error")
# What people look for in a run; JSON holds everything.
TABLES = {
    "models": ("model", "status", "redo", "generation", "mode"),
    "stages": ("stage", "model", "status", "retry", "expected_seconds", "seconds", "error"),
    "files": ("path", "version", "model", "status", "size", "read", "valid", "rejected", "loaded", "reason"),
    "quarantine": ("model", "path", "column", "code", "count", "samples", "status"),
    "rules": ("name", "stage", "model", "figure", "limit", "judged", "told"),
    "drift": ("model", "kind", "column", "expected", "found", "action"),
}
JUDGED = {True: "passed", False: "failed", None: "not judged"}

Status = Annotated[
    str | None, typer.Option("--status", metavar="STATUS", help="OPEN, SUCCESS, FAILED, ...", show_envvar=False)
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="List runs, and show one.")
    app.command("list")(list_runs)
    app.command("show")(show)
    return app


def list_runs(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    status: Status = None,
    batch: options.Batch = None,
    limit: Limit = 20,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """List runs, newest first; without PIPELINE those of all pipelines."""
    from ingestkit.model import RunStatus

    wanted = None if status is None else opening.one_of(RunStatus, status.upper(), "--status")
    from ingestkit.states import views

    with opening.reading(opening.project_of(ctx)) as conn:
        found = views.runs(conn, pipeline=pipeline, status=wanted, batch=batch, limit=limit)
    render.emit(found, output, columns=COLUMNS, empty="no runs")


def show(
    ctx: typer.Context,
    *,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=completing.runs)],
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Show a run: its stages, models, files, quarantine and rules."""
    from ingestkit.states import views

    with opening.reading(opening.project_of(ctx)) as conn:
        found = views.run_details(conn, run_id)
    if found is None:
        raise UsageError(f"no run {run_id!r} in the state", hint="ingestkit runs list")
    render.emit(_for_people(found) if output is Output.TEXT else found, output)


def _for_people(found: Mapping[str, Any]) -> dict[str, Any]:
    run = {name: value for name, value in found["run"].items() if name != "config"}
    rules = [{**rule, "judged": _judged(rule), "told": rule["told"] or "-"} for rule in found["rules"]]
    return render.picked({**found, "run": run, "rules": rules}, TABLES)


def _judged(rule: Mapping[str, Any]) -> str:
    approved = rule["approved_by"]
    return JUDGED[rule["passed"]] if approved is None else f"approved by decision {approved}"
