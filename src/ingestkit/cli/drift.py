"""`drift`: what headers said that their contracts did not."""

from typing import Annotated, Any

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output

COLUMNS = ("model", "batch", "path", "kind", "column", "expected", "found", "action", "ddl")

Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="Show what headers said that their contracts did not.")
    app.callback()(_group)
    app.command("list")(list_drift)
    return app


def _group() -> None:
    """Show what headers said that their contracts did not."""


def list_drift(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    batch: options.Batch = None,
    model: options.Model = None,
    limit: Limit = 50,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """List what was expected and what was found in headers, newest first, with what it does to the target."""
    from ingestkit.states import views

    loaded = opening.project_of(ctx)
    name = opening.pipeline_name(loaded, pipeline)
    known = loaded.pipeline(name)
    with opening.reading(loaded) as conn:
        found = views.drift(conn, name, batch=batch, model=model, limit=limit)
    each: list[dict[str, Any]] = []
    for row in found:
        table = known.table(row["model"]) if row["model"] in known.models else row["model"]
        each.append({**row, "ddl": _ddl(table, row)})
    render.emit(each, output, columns=COLUMNS, empty="no drift")


def _ddl(table: str, row: dict[str, Any]) -> str | None:
    """What an extra column does to the target, or would do if its model's `drift` were evolve."""
    from ingestkit.columnsql import quoted
    from ingestkit.settings import LINE, LINEAGE

    reserved = {name.casefold() for name in (*LINEAGE, LINE)}
    if row["kind"] != "extra" or not row["column"].strip() or row["column"].casefold() in reserved:
        return None
    return f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(row['column'])} VARCHAR"
