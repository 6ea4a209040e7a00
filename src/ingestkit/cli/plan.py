"""`plan`: what a run would do. Nothing is written, and nobody has to wait for it."""

from typing import Any

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output

FILES = ("batch", "model", "path", "size", "action", "why")


def plan(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    model: options.Models = None,
    batch: options.Batch = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Show what a run would do; nothing is written."""
    from ingestkit import rehearsing
    from ingestkit.working import RunOptions

    with opening.rehearsing(ctx, pipeline) as session:
        found = rehearsing.plan(session, RunOptions(models=tuple(model or ()), batch=batch))
    draw(found, output)


def draw(found: dict[str, Any], output: Output) -> None:
    if output is not Output.TEXT:
        render.emit(found, output)
        return
    if not found["files"] and not found["waiting"]:
        render.write(f"nothing new for {found['pipeline']}\n")
    else:
        render.emit({name: value for name, value in found.items() if value}, output)
