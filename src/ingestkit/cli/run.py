"""`run`: every waiting batch, through all stages."""

from typing import Annotated

import typer

from ingestkit.cli import opening, options
from ingestkit.cli.options import Output

Limit = Annotated[
    int | None, typer.Option("--limit", metavar="BATCHES", min=1, help="At most so many batches.", show_envvar=False)
]


def run(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    model: options.Models = None,
    batch: options.Batch = None,
    limit: Limit = None,
    take_over: options.TakeOver = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Take every waiting batch from the source to the target, oldest first."""
    from ingestkit import runner
    from ingestkit.working import RunOptions

    wanted = RunOptions(
        models=tuple(model or ()),
        batch=batch,
        run_id=run_id,
        limit=limit,
        take_over=take_over,
        if_locked=if_locked,
    )
    with opening.working(ctx, pipeline, run_id=run_id, jobs=jobs) as session:
        outcome = runner.run(session, wanted)
    return opening.ended(ctx, outcome, output, skip_exit_code)
