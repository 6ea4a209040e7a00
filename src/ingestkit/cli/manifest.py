"""`manifest`: the ledger of every version of every source file."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output

COLUMNS = (
    "pipeline",
    "path",
    "version",
    "batch",
    "model",
    "status",
    "size",
    "read",
    "valid",
    "rejected",
    "loaded",
    "reason",
    "released",
)


class ExportFormat(StrEnum):
    CSV = "csv"
    JSON = "json"
    NDJSON = "ndjson"


Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="seen, loaded, quarantined, ...",
        show_envvar=False,
        autocompletion=completing.file_statuses,
    ),
]
OfRun = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        "--run",
        metavar="RUN",
        help="Only what this run worked on.",
        show_envvar=False,
        autocompletion=completing.runs,
    ),
]
OfPath = Annotated[
    str | None, typer.Option("--path", help="Only this path; * and ? stand for any characters.", show_envvar=False)
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="Show, export and correct the ledger of source files.")
    app.command("show")(show)
    app.command("export")(export)
    app.command("forget")(forget)
    return app


def show(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    model: options.Model = None,
    status: Status = None,
    run_id: OfRun = None,
    path: OfPath = None,
    batch: options.Batch = None,
    limit: Limit = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Show files as the ledger knows them; without PIPELINE those of all pipelines."""
    # Of a long ledger what nobody is shown is not read.
    only = COLUMNS if output is Output.TEXT else ()
    found = _found(
        ctx,
        pipeline=pipeline,
        model=model,
        status=status,
        run_id=run_id,
        path=path,
        batch=batch,
        limit=limit,
        only=only,
    )
    # Most pipelines leave files where they are, and have nothing to say there.
    columns = COLUMNS if any(row["released"] for row in found) else COLUMNS[:-1]
    render.emit(found, output, columns=columns, empty="no files")


def export(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    model: options.Model = None,
    status: Status = None,
    run_id: OfRun = None,
    path: OfPath = None,
    batch: options.Batch = None,
    limit: Limit = None,
    form: Annotated[
        ExportFormat, typer.Option("--format", help="What is written.", show_envvar=False)
    ] = ExportFormat.CSV,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to; else standard output.", show_envvar=False)
    ] = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write the ledger, or part of it, as CSV, JSON or NDJSON."""
    from ingestkit import files

    found = _found(
        ctx, pipeline=pipeline, model=model, status=status, run_id=run_id, path=path, batch=batch, limit=limit
    )
    text = _csv(found) if form is ExportFormat.CSV else render.machine(found, Output(form.value))
    if to is None:
        render.write(text)
        return
    with opening.writing(to):
        files.replace_whole(to.absolute(), text.encode(errors="backslashreplace"))
    render.emit({"rows": len(found), "file": to}, output)


def forget(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    path: Annotated[str, typer.Option("--path", help="The file, as the ledger names it.", show_envvar=False)],
    reason: options.Reason,
    by: options.By = None,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Take a file for new when it is next seen. Its history stays."""
    opening.confirm_or_refuse(f"Forget {path} of {pipeline}, so that it is loaded again?", yes=yes)
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.forget(session, path, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def _found(
    ctx: typer.Context,
    *,
    pipeline: str | None,
    model: str | None,
    status: str | None,
    run_id: str | None,
    path: str | None,
    batch: str | None,
    limit: int | None,
    only: Sequence[str] = (),
) -> list[dict[str, Any]]:
    from ingestkit.model import FileStatus

    wanted = None if status is None else opening.one_of(FileStatus, status.lower(), "--status")
    from ingestkit.states import views

    loaded = opening.project_of(ctx)
    with opening.reading(loaded) as conn:
        opening.require_pipeline(loaded, conn, pipeline)
        return views.manifest(
            conn,
            pipeline=pipeline,
            model=model,
            status=wanted,
            run_id=run_id,
            path=path,
            batch=batch,
            limit=limit,
            only=only,
        )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(rows[0]) if rows else list(COLUMNS)
    writer.writerow(names)
    writer.writerows([_flat(row[name]) for name in names] for row in rows)
    return text.getvalue()


def _flat(value: object) -> object:
    """An instant as JSON writes it; unknown is an empty field."""
    from datetime import datetime

    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
