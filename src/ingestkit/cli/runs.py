"""`runs`: what was run, and how it went."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.cli.watch import watch
from ingestkit.errors import UsageError

if TYPE_CHECKING:
    from ingestkit.project import Project

COLUMNS = ("run_id", "pipeline", "batch", "kind", "status", "verdict", "started_at", "duration", "error")
# What people look for in a run; JSON holds everything.
TABLES = {
    "models": ("model", "status", "redo", "generation", "mode"),
    "stages": (
        *("stage", "model", "status", "retry", "rows", "rejected", "bytes"),
        *("expected_seconds", "seconds", "error"),
    ),
    "files": ("path", "version", "model", "status", "size", "read", "valid", "rejected", "loaded", "reason"),
    "quarantine": ("model", "path", "column", "code", "count", "samples", "status"),
    "rules": ("name", "stage", "model", "figure", "limit", "judged", "told"),
    "decisions": ("number", "kind", "at", "by", "os_user", "reason"),
    "drift": ("model", "kind", "column", "expected", "found", "action"),
}
JUDGED = {True: "passed", False: "failed", None: "not judged"}

Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="OPEN, SUCCESS, FAILED, ...",
        show_envvar=False,
        autocompletion=completing.run_statuses,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Only runs of this model.",
        show_envvar=False,
        autocompletion=completing.models,
    ),
]
Invocation = Annotated[
    str | None,
    typer.Option("--invocation", metavar="RUN", help="Only runs that one command made.", show_envvar=False),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="List runs, show one, and watch one.")
    app.command("list")(list_runs)
    app.command("show")(show)
    app.command("watch")(watch)
    return app


def list_runs(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    status: Status = None,
    batch: options.Batch = None,
    model: Model = None,
    invocation: Invocation = None,
    since: options.Since = None,
    until: options.Until = None,
    limit: Limit = 20,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """List runs, newest first; without PIPELINE those of all pipelines."""
    from ingestkit.model import RunStatus

    named = None if status is None else opening.one_of(RunStatus, status.upper(), "--status")
    begun, ended = opening.moment(since, "--since"), opening.moment(until, "--until")
    from ingestkit.states import views

    wanted = {"pipeline": pipeline, "status": named, "batch": batch, "invocation": invocation}
    loaded = opening.project_of(ctx)
    with opening.reading(loaded) as conn:
        opening.require_pipeline(loaded, conn, pipeline)
        found = views.runs(conn, wanted, model, begun, ended, limit)
    render.emit(found, output, columns=COLUMNS, empty="no runs")


def show(
    ctx: typer.Context,
    *,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=completing.runs)],
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Show a run: stages, models, files, quarantine, rules, decisions, and where its sidecars and its log are."""
    from ingestkit.settings import Batches
    from ingestkit.states import views

    loaded = opening.project_of(ctx)
    with opening.reading(loaded) as conn:
        found = views.run_details(conn, run_id)
        if found is None:
            raise UsageError(f"no run {run_id!r} in the state", hint="ingestkit runs list")
        batches = Batches.model_validate(found["run"]["config"]["pipeline"]["source"]["batches"])
        found["arrival"] = views.arrival(conn, found["run"], batches.order)
    found["places"] = _places(loaded, found["run"])
    render.emit(_for_people(found) if output is Output.TEXT else found, output)


def _places(loaded: "Project", run: Mapping[str, Any]) -> dict[str, Any]:
    """Where else something of the run is."""
    from ingestkit import lake

    return {
        "sidecars": lake.shown_folder(loaded.folder, run["pipeline"], run["run_id"]),
        "lake": lake.runs_folder(run["pipeline"], run["run_id"]),
        "log": f"standard error of {run['owner'] or 'its process'}; its lines carry the run's id",
    }


def _for_people(found: Mapping[str, Any]) -> dict[str, Any]:
    run = {name: value for name, value in found["run"].items() if name != "config"}
    rules = [{**rule, "judged": _judged(rule), "told": rule["told"] or "-"} for rule in found["rules"]]
    stages = [{**stage, **render.amounts(stage["counts"] or {})} for stage in found["stages"]]
    shown = render.picked({**found, "run": run, "rules": rules, "stages": stages}, TABLES)
    return {name: value for name, value in shown.items() if value}


def _judged(rule: Mapping[str, Any]) -> str:
    approved = rule["approved_by"]
    return JUDGED[rule["passed"]] if approved is None else f"approved by decision {approved}"
