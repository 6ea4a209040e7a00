"""`skip`, `pause` and `resume`: decisions of a person, kept with who and why."""

import typer

from ingestkit.cli import opening, options
from ingestkit.cli.options import Output


def skip(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    batch: options.NamedBatch,
    reason: options.Reason,
    by: options.By = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Step over a batch, so that those behind it can go on."""
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.skip(session, batch, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def pause(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    reason: options.Reason,
    by: options.By = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Let no run of the pipeline begin until it is resumed."""
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.pause(session, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def resume(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    reason: options.Reason,
    by: options.By = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Let a paused or held pipeline run again."""
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.resume(session, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)
