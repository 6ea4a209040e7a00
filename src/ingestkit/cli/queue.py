"""`queue`: writes to the state that could not be made after their effect was done."""

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output

COLUMNS = ("pipeline", "model", "kind", "key", "token", "sequence")


def commands() -> typer.Typer:
    app = typer.Typer(help="Show and make the writes that are pending.")
    app.command("show")(show)
    app.command("flush")(flush)
    return app


def show(ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT) -> None:
    """Show what is pending; without PIPELINE for all pipelines."""
    from dataclasses import asdict

    loaded = opening.project_of(ctx)
    pending = opening.queue_of(loaded)
    rows = [asdict(record) for record in pending.records() if pipeline is None or record.pipeline == pipeline]
    if not rows and pipeline is not None and pipeline not in loaded.pipelines():
        # The state is asked last: what is pending is looked at where it does not answer.
        with opening.reading(loaded) as conn:
            opening.require_pipeline(loaded, conn, pipeline)
    render.emit(rows, output, columns=COLUMNS, empty="nothing pending")


def flush(ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT) -> int:
    """Make the pending writes of a pipeline now."""
    from ingestkit import runner

    with opening.working(ctx, pipeline) as session:
        outcome = runner.flush(session)
    return opening.ended(ctx, outcome, output)
