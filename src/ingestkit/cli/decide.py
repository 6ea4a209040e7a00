"""`approve`, `skip`, `pause` and `resume`: decisions of a person, kept with who and why."""

from typing import Annotated

import typer

from ingestkit.cli import completing, opening, options
from ingestkit.cli.options import Output


def approve(
    ctx: typer.Context,
    *,
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help="The run that a rule closed.", autocompletion=completing.runs)
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="NAME",
            help="Only this rule; may be given again.",
            show_envvar=False,
            autocompletion=completing.rules,
        ),
    ] = None,
    reason: options.Reason,
    by: options.By = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Let the rules that closed a run pass, for the same data and no worse figures."""
    from ingestkit import decide

    name = opening.pipeline_name(opening.project_of(ctx), None, run_id)
    with opening.deciding(ctx, name) as session:
        outcome = decide.approve(session, run_id, rule or (), reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


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
