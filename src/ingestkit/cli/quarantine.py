"""`quarantine`: what was rejected, record by record and file by file, and what becomes of it."""

from dataclasses import replace
from typing import Annotated

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

COLUMNS = ("pipeline", "model", "column", "code", "records", "files", "batches", "newest", "status", "reason")
SHOWN = ("path", "record", "line", "column", "code", "message", "value")
KNOWN = ("held", "open", "discarded", "replayed", "superseded")

Column = Annotated[str | None, typer.Option("--column", metavar="COLUMN", help="Only this column.", show_envvar=False)]
Code = Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only this reason.", show_envvar=False)]
OfPath = Annotated[str | None, typer.Option("--path", metavar="PATH", help="Only this file.", show_envvar=False)]
OfRun = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        metavar="RUN",
        help="Only what this run rejected.",
        show_envvar=False,
        autocompletion=completing.runs,
    ),
]
WhyTaken = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.", show_envvar=False)
]
Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="held, open, discarded, replayed, superseded or all.",
        show_envvar=False,
        autocompletion=completing.reject_statuses,
    ),
]


def commands() -> typer.Typer:
    app = typer.Typer(help="Show what was rejected, take it in again, or give it up.")
    app.command("list")(list_reasons)
    app.command("show")(show)
    app.command("replay")(replay)
    app.command("discard")(discard)
    return app


def list_reasons(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    batch: options.Batch = None,
    model: options.Model = None,
    column: Column = None,
    code: Code = None,
    path: OfPath = None,
    run_id: OfRun = None,
    status: Status = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """List what waits in quarantine by reason; without PIPELINE that of all pipelines."""
    from ingestkit.states import views

    wanted = {"pipeline": pipeline, "batch": batch, "model": model, "column": column, "code": code}
    loaded = opening.project_of(ctx)
    with opening.reading(loaded) as conn:
        opening.require_pipeline(loaded, conn, pipeline)
        found = views.rejects(conn, wanted | {"path": path, "run_id": run_id}, _statuses(status))
    render.emit(found, output, columns=COLUMNS, empty="nothing waits in quarantine")


def show(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    batch: options.Batch = None,
    model: options.Model = None,
    column: Column = None,
    code: Code = None,
    path: OfPath = None,
    run_id: OfRun = None,
    status: Status = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many records.", show_envvar=False)] = 20,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show also what tells of a person.", show_envvar=False)
    ] = False,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Show rejected records with their place and their reasons. Columns marked `pii` are masked unless --reveal."""
    from ingestkit import rejected

    wanted = rejected.Wanted(batch, model, column, code, path, run_id)
    with opening.deciding(ctx, pipeline) as session:
        found = rejected.records(session, wanted, _statuses(status), limit=limit, reveal=reveal)
    if output is Output.TEXT:
        each = [{**one, **error} for one in found for error in one["errors"]]
        render.emit(each, output, columns=SHOWN, empty=f"no rejected record: {wanted.shown()}")
    else:
        render.emit(found, output)


def replay(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    batch: options.Batch = None,
    model: options.Models = None,
    as_model: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="MODEL",
            help="Take files that no model claims for files of this one.",
            show_envvar=False,
            autocompletion=completing.models,
        ),
    ] = None,
    path: OfPath = None,
    reason: WhyTaken = None,
    by: options.By = None,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Validate a batch's rejects under today's contract, from the lake, and publish them; --as: files of no model."""
    if as_model is not None and model:
        raise UsageError(
            "--as names the model; --model is of rejects",
            hint=f"ingestkit quarantine replay {pipeline} --batch {batch} --as {as_model}",
        )
    if as_model is None and (path is not None or reason is not None or by is not None):
        raise UsageError("--path, --reason and --by are of files no model claims", hint="name their model: --as MODEL")
    if (run_id is None) == (batch is None):
        raise UsageError("a replay needs either --batch or --run-id", hint="ingestkit quarantine list")
    from ingestkit import quarantining
    from ingestkit.working import RunOptions

    wanted = RunOptions(models=tuple(model or ()), batch=batch, run_id=run_id, if_locked=if_locked)
    with opening.working(ctx, pipeline, run_id=run_id, jobs=jobs) as session:
        if as_model is None:
            outcome = quarantining.replay(session, wanted)
        else:
            decided = replace(wanted, models=(as_model,), reason=reason or "", by=opening.who(by))
            outcome = quarantining.take_in(session, decided, path)
    return opening.ended(ctx, outcome, output)


def discard(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    batch: options.Batch = None,
    model: options.Model = None,
    column: Column = None,
    code: Code = None,
    path: OfPath = None,
    reason: options.Reason,
    by: options.By = None,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Give rejects up: they are kept, and wait for nobody any more."""
    from ingestkit import quarantining, rejected

    wanted = rejected.Wanted(batch, model, column, code, path)
    if not any(wanted.named().values()):
        raise UsageError("which rejects?", hint="--batch, --model, --column, --code or --path")
    opening.confirm_or_refuse(f"Give up what was rejected of {pipeline}: {wanted.shown()}?", yes=yes)
    with opening.deciding(ctx, pipeline) as session:
        outcome = quarantining.discard(session, wanted, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def _statuses(said: str | None) -> tuple[str, ...]:
    if said is None:
        return KNOWN[:2]
    if said == "all":
        return KNOWN
    return (opening.one_of((*KNOWN, "all"), said, "--status"),)
